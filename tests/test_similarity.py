"""The baseline without training: the cosine of sentences and frames in the space of a contrastive model."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import CLIPConfig, CLIPModel

import evaluate
from datamodules.query_files import write_queries
from datamodules.records import FeatureHeader
from datamodules.schema import Event, Query, Video
from preparation.features.shard_writer import ShardWriter
from preparation.features.text_encoder import TextEncoder
from preparation.features.vision_encoder import PROJECTED
from preparation.world.tiny import tiny_tokenizer

WIDTH = 8
SENTENCES = ("a red robot jumps", "the dog sleeps in the park", "there is a cat")


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> str:
    """A random CLIP with both towers, and a tokenizer."""
    folder = tmp_path_factory.mktemp("clip")
    tokenizer = tiny_tokenizer(SENTENCES)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    sizes["projection_dim"] = WIDTH
    text = sizes | {"vocab_size": len(tokenizer), "max_position_embeddings": 12, "eos_token_id": 2, "bos_token_id": 1}
    vision = sizes | {"image_size": 8, "patch_size": 4}
    torch.manual_seed(0)
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=WIDTH)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def shards(clip, tmp_path_factory) -> Path:
    """One video of 20 s: the first sentence is seen from 4 to 9 s and from 15 to 16 s, else what is unlike all."""
    folder = tmp_path_factory.mktemp("shards")
    wanted = TextEncoder(clip)([SENTENCES[0]])[0].numpy()
    other = np.random.default_rng(0).standard_normal((20, WIDTH))
    other -= (other @ wanted)[:, None] * wanted
    other[4:9] = other[15:16] = 3 * wanted
    header = FeatureHeader(clip, PROJECTED, "none", "1.0 fps", WIDTH)
    with ShardWriter(folder, header) as writer:
        writer.add(Video("v", 20.0, np.arange(20, dtype=float), other.astype(np.float16)))
    return folder


@pytest.fixture
def ask(shards, tmp_path):
    """Run the command on queries; gives its report and the predictions by id."""

    def run(queries: list[Query], *more: str):
        write_queries(tmp_path / "q.jsonl", queries)
        args = [f"--shards={shards}", f"--queries={tmp_path / 'q.jsonl'}", f"--output={tmp_path / 'out'}"]
        evaluate.main(["similarity", *args, *more])
        rows = map(json.loads, (tmp_path / "out/predictions.jsonl").read_text().splitlines())
        report = json.loads((tmp_path / "out/metrics.json").read_text())
        return report, {row["query_id"]: row for row in rows}

    return run


QUERY = Query("a", "v", "grounding", SENTENCES[0], (Event(4, 9), Event(15, 16)), duration_s=20.0)


def test_neighbours_above_the_threshold_are_merged(ask):
    dense = Query("d", "v", "dense_captioning", events=(Event(0, 1, "x"),))
    report, found = ask([QUERY, dense], "--threshold=0.9")
    spans = sorted(span[:2] for span in found["a"]["spans"])
    assert spans == [[4, 9], [15, 16]]
    assert found["a"]["spans"][0][2] == pytest.approx(1, abs=1e-3)
    assert len(found["a"]["saliency"]) == 20
    assert found.keys() == {"a"}
    assert report["metrics"]["grounding/R1@0.5"] == 100
    assert report["protocol"]["threshold"] == 0.9
    assert report["protocol"]["features"]["output"] == PROJECTED


def test_saliency_has_the_clips_of_the_query_and_nothing_found_is_unparsed(ask):
    nothing = replace(QUERY, id="b", text=SENTENCES[1])
    report, found = ask([replace(QUERY, clip_s=2.0), nothing], "--threshold=0.999")
    assert len(found["a"]["saliency"]) == 10
    assert (found["b"]["spans"], found["b"]["rule"]) == ([], None)
    assert report["metrics"]["grounding/unparsed"] == 1


def test_a_threshold_may_be_a_share_of_the_way(ask):
    _, found = ask([QUERY], "--threshold=0.9", "--rule=qvhighlights")
    assert sorted(span[:2] for span in found["a"]["spans"]) == [[4, 9], [15, 16]]


def test_what_cannot_be_compared_is_refused(ask, shards, clip, tmp_path, world):
    with pytest.raises(ValueError, match="no query of a task with a sentence to look for"):
        ask([Query("d", "v", "dense_captioning", events=(Event(0, 1, "x"),))], "--threshold=0.9")
    with pytest.raises(ValueError, match="video nowhere: cannot be read"):
        ask([replace(QUERY, video="nowhere")], "--threshold=0.9")
    report, _ = ask([QUERY, replace(QUERY, id="b", video="nowhere")], "--threshold=0.9", "--on_error=skip")
    assert report["protocol"]["missing"] == 1
    args = [f"--shards={world / 'videos'}", f"--queries={world / 'test/grounding.jsonl'}", "--threshold=0.5"]
    with pytest.raises(ValueError, match="no text tower in the folder or on the hub at"):
        evaluate.main(["similarity", *args, f"--output={tmp_path}"])
    with pytest.raises(ValueError, match=r"holds sum of attribute directions, and sentences are in the space of"):
        evaluate.main(["similarity", *args, f"--output={tmp_path}", f"--encoder={clip}"])
