"""Vocabularies: a small one in Vicuna's layout, made here, and the real ones where they are at hand."""

import gzip
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import sentencepiece

from models.checkpoints import load_tokenizer

TEXT = """A large woman in a red dress opens the door of the shelf and looks at the garden.
USER: During which frames can we see a man in a red dress happening? ASSISTANT: From 05 to 20.
The young boy views a large shelf, then a woman opens it from 00 to 99. view views viewing viewer
A chat between a curious user and an artificial intelligence assistant gives helpful, detailed, polite answers."""


@pytest.fixture(scope="session")
def small_vicuna(tmp_path_factory) -> Path:
    """A folder with ``tokenizer.model`` and settings as Vicuna has them, of a few hundred pieces.

    As in Llama's, all runs of spaces have one low score, so that they are joined last.
    """
    made = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT.splitlines() * 4), model_writer=made, model_type="bpe", vocab_size=420,
        byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True, minloglevel=2,
    )  # fmt: skip
    model = sentencepiece.sentencepiece_model_pb2.ModelProto()
    model.ParseFromString(made.getvalue())
    for length in (2, 3, 4):
        model.pieces.add(piece="▁" * length, score=-1e9)
    folder = tmp_path_factory.mktemp("small-vicuna")
    (folder / "tokenizer.model").write_bytes(model.SerializeToString())
    settings = {"tokenizer_class": "LlamaTokenizer", "legacy": False, "add_bos_token": True, "pad_token": "<unk>"}
    settings |= {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "model_max_length": 2048}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


@pytest.fixture(scope="session")
def published(real, tmp_path_factory) -> Callable[[str], Path]:
    """Gives the folder of a real vocabulary: ``published("qwen3-0.6b")``. Packed files are unpacked once."""
    unpacked = {}

    def folder(name: str) -> Path:
        if name not in unpacked:
            source = real(f"tokenizers/{name}")
            unpacked[name] = tmp_path_factory.mktemp("published") / name
            shutil.copytree(source, unpacked[name])
            for packed in unpacked[name].glob("*.gz"):
                packed.with_suffix("").write_bytes(gzip.decompress(packed.read_bytes()))
        return unpacked[name]

    return folder


@pytest.fixture(scope="session")
def loaded(published) -> Callable:
    """Gives a real tokenizer, not to be changed: ``loaded("qwen3-0.6b")``."""
    kept = {}

    def tokenizer(name: str):
        if name not in kept:
            kept[name] = load_tokenizer(str(published(name)))
        return kept[name]

    return tokenizer
