"""The time that a model reads before a frame is the time at which that frame was decoded: from files to prompts.

Every picture of the videos shows its own number, and the features of a frame are that number, so what stands at a place
of a prompt says itself when it was shown.
"""

import json
import re
from dataclasses import replace
from fractions import Fraction
from random import Random

import numpy as np
import pytest
from numbered import BITS, X264, read, render

from datamodules.chat import chat_format
from datamodules.dialogue import Dialogue
from datamodules.records import FeatureHeader
from datamodules.schema import Event, Query, Video
from datamodules.shards import ShardReader
from localizers import DigitTokens, TextSeconds, TimeDistribution
from localizers.digit_tokens import TOKENS
from models.checkpoints import load_tokenizer
from preparation.features.decoding import Sampling, sample_frames
from preparation.features.shard_writer import ShardWriter

SAMPLERS = ["uniform 7", "uniform 40", "2.0 fps", "0.5 fps", "5.0 fps max 6", "30.0 fps max 64"]
UNEVEN_S = [Fraction(k, 25) for k in range(50)] + [2 + Fraction(k * k, 20) for k in range(1, 14)]
"""25 pictures a second for 2 s, and then ever fewer."""
QUERY = Query("q", "v", "grounding", "a robot", events=(Event(0.5, 1.5, "a robot"),))


def bits(pixels: np.ndarray) -> np.ndarray:
    """The number of a picture as a frame's features."""
    return (read(pixels) >> np.arange(BITS) & 1).astype(np.float16)


def extracted(path, sampler: str, folder, bounds=()) -> Video:
    """A file as a record of a shard, written and read again."""
    found = sample_frames(path, Sampling.parse(sampler), *bounds)
    upright = np.rot90(found.pixels, -1, (1, 2)) if path.stem == "rot90" else found.pixels
    video = Video("v", found.duration_s, found.frame_times_s, np.stack([*map(bits, upright)]), source=str(path.name))
    with ShardWriter(folder, FeatureHeader("numbers", "bits", "none", sampler, BITS)) as writer:
        writer.add(video)
    return ShardReader(folder).read("v")


def seen(features) -> list[int]:
    """The numbers of the pictures at the frames of a prompt."""
    return [int(sum(int(lit) << bit for bit, lit in enumerate(row))) for row in features]


def between(ids, mask, tokenizer) -> list[str]:
    """What stands before each frame, without blanks."""
    places = mask.nonzero().flatten().tolist()
    starts = [0, *(place + 1 for place in places[:-1])]
    return [re.sub(r"\s", "", tokenizer.decode(ids[a:b])) for a, b in zip(starts, places, strict=True)]


def seconds(dialogue: Dialogue, video: Video, prompt) -> list[float]:
    """The times that a model reads, one a frame, in whatever form the localizer gives them."""
    texts = between(prompt.prefix_ids, prompt.frame_mask, dialogue.tokenizer)
    if isinstance(dialogue.localizer, TextSeconds):
        return [float(re.search(r"(\d+\.\d+)seconds>$", text)[1]) for text in texts]
    if isinstance(dialogue.localizer, DigitTokens):
        assert not any(texts[1:])
        characters = "".join(TOKENS.get(token, " ") for token in re.findall(r"<TIME_\w+>|,", texts[0]))
        return [float(number) for number in characters.split()]
    moments = prompt.prefix_moments[~prompt.prefix_moments[:, 0].isnan()]
    assert (moments[:, 0] == moments[:, 1]).all()
    assert all(text.endswith("<FRAME_TIME_REF>:") for text in texts)
    return (moments[:, 0] * video.duration_s).tolist()


WAYS = {
    "text": (TextSeconds(group=1, around_group=False, frame_wording="<{:.3f} seconds>"), 0.0006),
    "released_text": (TextSeconds(group=1, around_group=False), 0.0501),
    "digits": (DigitTokens(), 0.0501),
    "distribution": (TimeDistribution(), 0.001),
}
"""Each with how exactly it says a time."""


def check(path, times_s: dict[int, float], sampler: str, llm: str, folder, bounds=(), off_s: float = 0.001) -> int:
    """For every way, of every frame, in prompts and in what is learned from; gives the number of frames."""
    video = extracted(path, sampler, folder, bounds)
    for name, (localizer, exactly_s) in WAYS.items():
        dialogue = Dialogue(load_tokenizer(llm), chat_format("vicuna_v1"), localizer)
        prompt = dialogue.prompt(QUERY, video)
        begin_s = bounds[0] if bounds else 0.0
        shown_s = [max(times_s[number] - begin_s, 0.0) for number in seen(prompt.features)]
        assert seconds(dialogue, video, prompt) == pytest.approx(shown_s, abs=exactly_s + off_s), (name, sampler)
        event = Event(0.0, video.duration_s / 2, "a robot")
        example = dialogue.example(replace(QUERY, events=(event,)), video, Random(0))
        length = int(prompt.frame_mask.nonzero().max()) + 1
        assert example.input_ids[:length].tolist() == prompt.prefix_ids[:length].tolist()
    return len(shown_s)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_of_a_constant_rate(sampler, llm, tmp_path):
    times_s = render(tmp_path / "even.mp4", rate="24000/1001", times_s=150, options=X264)
    assert check(tmp_path / "even.mp4", times_s, sampler, llm, tmp_path / "shards") > 2


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_of_uneven_pictures(sampler, llm, tmp_path):
    times_s = render(tmp_path / "uneven.mkv", times_s=UNEVEN_S, options=X264)
    assert check(tmp_path / "uneven.mkv", times_s, sampler, llm, tmp_path / "shards") > 2


@pytest.mark.parametrize("sampler", ["uniform 9", "3.0 fps", "5.0 fps max 6"])
@pytest.mark.parametrize("bounds", [(), (3.3, 11.7)], ids=["whole", "cut"])
def test_of_real_files(real, sampler, bounds, llm, tmp_path):
    """Any container: h264, hevc, av1, without presentation times, cut without encoding, sound that begins before."""
    folder, looked_at = real("videos/timing"), 0
    for name, truth in json.loads((folder / "truth.json").read_text()).items():
        frames = truth.get("frames", [])
        if not truth["readable"] or truth.get("stopped") or len(frames) < 2 or name.startswith("cut_"):
            continue  # refused, which test_frame_times.py holds
        times_s = {number: time_s - frames[0][1] for number, time_s in frames}
        looked_at += check(folder / name, times_s, sampler, llm, tmp_path / name, bounds, 0.05)
    assert looked_at > 20
