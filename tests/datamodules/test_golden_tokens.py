"""Ids and labels of the released VTimeLLM data code, with the real vocabulary of Vicuna."""

import json
from random import Random

import numpy as np
import pytest

from datamodules.chat import IGNORE, VIDEO_ID, chat_format
from datamodules.dialogue import Dialogue
from datamodules.schema import Video
from localizers import TextTimestamps
from models.checkpoints import load_tokenizer
from preparation.annotations import reader

pytestmark = pytest.mark.golden
CONTROL = ("<s>", "</s>", "<unk>")
"""The released code takes these words in a caption for its control tokens: a defect, they are text."""

FORMATS = {"vicuna_stage1": "plain", "vicuna_stage2": "vicuna_v1"}
"""Golden set -> the format of its stage."""


@pytest.fixture(scope="module")
def tokenizer(real):
    return load_tokenizer(str(real("tokenizers/vicuna-7b-v1.5")))


def said(sample: dict) -> str:
    return "\n".join(turn["value"] for turn in sample["conversations"])


def examples(samples: list[dict], chat: str, tokenizer, tmp_path):
    """Each sample as people train on it: through the reader of the published file."""
    (tmp_path / "samples.json").write_text(json.dumps(samples))
    queries, dropped = reader("vtimellm")(tmp_path / "samples.json")
    assert not dropped
    dialogue = Dialogue(tokenizer, chat_format(chat), TextTimestamps(legacy_negative=True))
    for query in queries:
        video = Video(query.video, query.duration_s or 1.0, np.zeros(1), np.zeros((1, 1), np.float16))
        yield dialogue.example(query, video, Random(0))


@pytest.mark.parametrize(("name", "chat"), FORMATS.items(), ids=FORMATS)
def test_ids_and_labels_are_those_of_the_released_code(name, chat, golden, tokenizer, tmp_path):
    items = json.loads((golden / "tokens" / f"{name}.json").read_text())
    made = examples([item["sample"] for item in items], chat, tokenizer, tmp_path)
    for item, example in zip(items, made, strict=True):
        ids = example.input_ids.masked_fill(example.frame_mask, VIDEO_ID).tolist()
        if any(word in said(item["sample"]) for word in CONTROL):
            text = tokenizer.convert_ids_to_tokens([i for i in ids if i != VIDEO_ID])
            assert not set(CONTROL) & set(text[1:]) - {"</s>"}, item["sample"]["id"]
            ends = text.count("</s>")
            assert ends == (0 if chat == "plain" else len(item["sample"]["conversations"]) // 2), item["sample"]["id"]
            continue
        assert ids == item["input_ids"], item["sample"]["id"]
        labels = example.labels.tolist()
        if item["official_masked_all"]:  # a defect; labels follow from the construction
            assert any(label != IGNORE for label in labels), item["sample"]["id"]
            continue
        supervised = [place for first, behind in item["supervised"] for place in range(first, behind)]
        assert [place for place, label in enumerate(labels) if label != IGNORE] == supervised, item["sample"]["id"]
        assert [labels[place] for place in supervised] == [ids[place] for place in supervised]
