"""A vector for each second, added to the frames: VTG-LLM's table as an adapter."""

from dataclasses import replace
from random import Random

import numpy as np
import pytest
import torch

import evaluate
import train
from datamodules.batch import collate, collate_prompts
from datamodules.chat import chat_format
from datamodules.dialogue import Dialogue
from datamodules.packing import pack
from datamodules.schema import Event, Query, Video
from datamodules.shards import ShardReader
from lightning_modules.trained import TrainedModel
from localizers import TextTimestamps
from models.adapters import Timed
from models.checkpoints import load_llm, load_tokenizer, read_weights
from models.time_table import TimedAdapter, filled, second
from models.video_llm import VideoLLM

QUERY = Query("q", "v", "grounding", "a robot", events=(Event(2.0, 5.0, "a robot"),))
TIMES_S = np.array([0.0, 0.6, 2.5, 3.5, 7.9, 30.0])


def video(times_s: np.ndarray) -> Video:
    return Video("v", 40.0, times_s, np.ones((len(times_s), 8), np.float16))


@pytest.fixture
def system(llm) -> tuple[Dialogue, VideoLLM]:
    torch.manual_seed(0)
    dialogue = Dialogue(load_tokenizer(llm), chat_format("vicuna_v1"), TextTimestamps(), timed=True)
    base = load_llm(llm, torch.float32)
    adapter = Timed(seconds=20).build(8, base.config.hidden_size)
    torch.nn.init.normal_(adapter.table)
    return dialogue, VideoLLM(base, adapter).eval()


def test_a_frame_has_the_vector_of_its_second(system):
    dialogue, model = system
    batch = collate([dialogue.example(QUERY, video(TIMES_S), Random(0))], 0)
    assert batch.frame_times_s[0].tolist() == pytest.approx(TIMES_S)
    _, frames = model.embed(batch.input_ids, batch.frame_mask, batch.features, batch.feature_mask,
                            frame_times_s=batch.frame_times_s)  # fmt: skip
    rows = [0, 1, 2, 4, 8, 19]  # of half seconds the even one; behind the table its last
    expected = model.adapter.project(torch.ones(6, 8) + model.adapter.table[rows])
    torch.testing.assert_close(frames[0], expected)


def test_queries_share_a_video_only_where_its_frames_have_the_same_times(system):
    dialogue, model = system
    others = [replace(QUERY, id=f"{number}") for number in range(3)]
    prompts = [dialogue.prompt(query, video(times_s)) for query, times_s in zip(others, (TIMES_S, TIMES_S, TIMES_S + 1),
                                                                                 strict=True)]  # fmt: skip
    together = collate_prompts(prompts, 0)
    assert together.video_of_query.tolist() == [0, 0, 1]
    settings = {"max_new_tokens": 3, "do_sample": False, "pad_token_id": 0}
    for prompt, answer in zip(prompts, model.generate(together, **settings), strict=True):
        (alone,) = model.generate(collate_prompts([prompt], 0), **settings)
        assert answer.ids[: len(alone.ids)].tolist() == alone.ids.tolist()


def test_packed_dialogues_have_the_loss_of_plain_ones(system):
    dialogue, model = system
    examples = [dialogue.example(replace(QUERY, id=f"{n}", text="a dog" * (n + 1)), video(TIMES_S), Random(0))
                for n in range(2)]  # fmt: skip
    plain, packed = (model(collate(rows, 0)).lm_loss for rows in (examples, [pack(examples)]))
    torch.testing.assert_close(plain, packed, rtol=1e-4, atol=1e-5)


def test_seconds_that_were_never_trained_lie_between_those_that_were():
    table = torch.zeros(9, 2)
    table[[1, 4, 6]] = torch.tensor([[1.0, 0.0], [4.0, 3.0], [6.0, -1.0]])
    expected = torch.tensor([[1, 0], [1, 0], [2, 1], [3, 2], [4, 3], [5, 1], [6, -1], [6, -1], [6, -1]]).float()
    torch.testing.assert_close(filled(table), expected)
    assert torch.equal(filled(torch.zeros(3, 2)), torch.zeros(3, 2))
    assert torch.equal(filled(expected), expected)
    assert second(torch.tensor([-3.0, 0.5, 1.5, 99.6])).tolist() == [0, 0, 2, 100]


def test_a_new_table_changes_nothing_and_learns_the_seconds_of_its_videos(runs, arguments, world, tmp_path):
    fresh = TimedAdapter(torch.nn.Identity(), 8, 20)
    assert torch.equal(fresh(torch.ones(1, 3, 8), torch.tensor([[0.0, 1, 5]])), torch.ones(1, 3, 8))
    timed = ("--model.adapter=Timed", "--model.adapter.seconds=200")
    train.main([*arguments(1, tmp_path / "one", *timed, max_steps=1)])
    train.main([*arguments(2, tmp_path / "two", *timed, "--model.tune_adapter=true", previous=tmp_path / "one",
                           max_steps=2)])  # fmt: skip
    learned = read_weights(tmp_path / "two").adapter["table"].abs().sum(-1) > 0
    reader = ShardReader(world / "videos")
    shown = {round(float(t)) for name in reader.ids for t in reader.read(name).frame_times_s} | {0}
    assert 0 < int(learned.sum()) <= len(shown) and {*learned.nonzero().flatten().tolist()} <= shown
    evaluate.main(["benchmark", f"--checkpoint={tmp_path / 'two'}", f"--shards={world / 'videos'}", "--num_workers=0",
                   f"--queries={world / 'test/grounding.jsonl'}", f"--output={tmp_path / 'out'}",
                   "--generation.max_new_tokens=4"])  # fmt: skip
    assert isinstance(TrainedModel.from_run(tmp_path / "two").adapter_settings, Timed)
