"""Vocabularies encode as their published files say, and text is never a special token."""

import json
import shutil
from copy import deepcopy

import pytest
import sentencepiece
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from datamodules.tokenizers import TextEncoder
from models.checkpoints import load_tokenizer

CASES = {
    "vicuna-7b-v1.5": "llama_cpp_cases",
    "llama-2-7b": "llama_cpp_cases",
    "llama-3-8b": "llama_cpp_cases",
    "phi-3-mini-4k-instruct": "llama_cpp_cases",
    "qwen2-7b-instruct": "llama_cpp_cases",
    "qwen2.5-7b-instruct": "llama_cpp_cases",
    "qwen3-0.6b": "llama_cpp_cases",
    "bert-base-uncased": "llama_cpp_cases",
    "smollm2-135m-instruct": "ids",
    "clip-vit-large-patch14": "ids",
}
"""Vocabulary -> the file of its folder with texts and their ids."""
TEXTS = (
    "woman in a red dress",
    " Woman in a red dress. ",
    "for a  large   shelf    and     a door",
    "\ta tab\tand\n\na line break\r\n and more ",
    "emoji 😀👩‍👩‍👧 here, 你好 世界, café é ½ ﬁ",
    "literal <s> and </s>, <unk>, <pad>, <0x0A>, ▁ and ▁▁",
    " ",
    "   ",
    "",
    "'quoted' \"text\" [bracket] {brace} <b>tag</b>",
)


def cases(folder, kind: str) -> list[tuple[str, list[int]]]:
    """Texts and their ids, without special tokens in front and behind."""
    found = json.loads((folder / f"{kind}.json").read_text())
    assert not found["add_special_tokens"]
    if kind == "llama_cpp_cases":
        return [(case["text"], case["ids"]) for case in found["cases"]]
    every = [made["ids"] for made in found["environments"].values()]
    assert every
    return [(text, ids) for made in every for text, ids in zip(found["texts"], made, strict=True)]


@pytest.mark.parametrize("name", CASES)
def test_ids_are_those_of_the_published_cases(name, published, loaded):
    expected = cases(published(name), CASES[name])
    assert expected
    for text, ids in expected:
        assert loaded(name).encode(text, add_special_tokens=False) == ids, text


@pytest.mark.parametrize("name", ["vicuna-7b-v1.5", "llama-2-7b", "phi-3-mini-4k-instruct"])
def test_ids_are_those_of_sentencepiece(name, published, loaded):
    truth = sentencepiece.SentencePieceProcessor(model_file=str(published(name) / "tokenizer.model"))
    encode = TextEncoder(loaded(name))
    for text in TEXTS:
        assert [number for number, _ in encode(text)] == truth.encode(text), text


def test_a_small_vocabulary_of_sentencepiece_encodes_as_it_does(small_vicuna):
    truth = sentencepiece.SentencePieceProcessor(model_file=str(small_vicuna / "tokenizer.model"))
    tokenizer = load_tokenizer(str(small_vicuna))
    encode = TextEncoder(tokenizer)
    for text in TEXTS:
        assert [number for number, _ in encode(text)] == truth.encode(text), text
        if "<" not in text:
            assert tokenizer.encode(text, add_special_tokens=False) == truth.encode(text), text
            assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text
    assert tokenizer("a").input_ids[0] == tokenizer.bos_token_id


def test_phi3_without_its_config_is_the_same_vocabulary(published, loaded, tmp_path):
    shutil.copytree(published("phi-3-mini-4k-instruct"), tmp_path / "phi-3")
    (tmp_path / "phi-3" / "config.json").unlink()
    bare, whole = load_tokenizer(str(tmp_path / "phi-3")), loaded("phi-3-mini-4k-instruct")
    said = "<|user|>\n Hi  there<|end|>\n<|assistant|>\nYes<|end|> and <s> a</s>b"
    for text in (*TEXTS, said):
        assert bare(text).input_ids == whole(text).input_ids, text
    assert (len(bare), bare.eos_token_id, bare.pad_token_id) == (len(whole), whole.eos_token_id, whole.pad_token_id)


@pytest.mark.parametrize("name", [*CASES, "small"])
def test_text_is_never_a_special_token_and_loses_nothing(name, request):
    if name == "small":
        tokenizer = load_tokenizer(str(request.getfixturevalue("small_vicuna")))
    else:
        tokenizer = deepcopy(request.getfixturevalue("loaded")(name))
    tokenizer.add_tokens(["<ent>", "<LOC>"], special_tokens=True)
    encode, added = TextEncoder(tokenizer), tokenizer.added_tokens_decoder
    control = [token.content for token in added.values()]
    for text in (*TEXTS, *(f"a {word}b{word} c" for word in control)):
        tokens = encode(text)
        assert not {number for number, _ in tokens} & added.keys() - {tokenizer.unk_token_id}, text
        places = [place for _, place in tokens]
        assert places == sorted(places)
        assert all(0 <= place < len(text) for place in places)
        if name not in ("bert-base-uncased", "clip-vit-large-patch14") and "▁" not in text:  # these lower-case
            assert tokenizer.decode([number for number, _ in tokens]).strip() == text.strip(), text


def byte_level() -> PreTrainedTokenizerFast:
    """As GPT-NeoX's: runs of spaces are added tokens, and so is a control token that is not marked special."""
    letters = pre_tokenizers.ByteLevel.alphabet()
    backend = Tokenizer(models.BPE(vocab={letter: n for n, letter in enumerate(sorted(letters))}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|endoftext|>")
    tokenizer.add_tokens([AddedToken("<tool>", special=False), AddedToken("   "), AddedToken("  ")])
    return tokenizer


def test_runs_of_spaces_that_are_added_tokens_are_text():
    tokenizer = byte_level()
    ids = [number for number, _ in TextEncoder(tokenizer)("a   b  c<tool><|endoftext|>")]
    three, two = (tokenizer.convert_tokens_to_ids(blank) for blank in ("   ", "  "))
    assert (ids.count(three), ids.count(two)) == (1, 1)
    assert tokenizer.decode(ids) == "a   b  c<tool><|endoftext|>"
    assert not set(ids) & {tokenizer.convert_tokens_to_ids(token) for token in ("<tool>", "<|endoftext|>")}


def test_what_follows_an_end_token_is_cut_as_it_was_for_the_released_weights(small_vicuna):
    encode = TextEncoder(load_tokenizer(str(small_vicuna)))
    pieces = lambda tokens: [encode._whole.id_to_token(number) for number, _ in tokens]  # noqa: E731
    assert pieces(encode("USER: a"))[0].startswith("▁")
    assert "".join(pieces(encode.cut("USER: a"))) == "USER:▁a"
    assert pieces(encode.cut(" USER"))[0] == "▁", "a space of the text's own stays beside the prefix"
    assert pieces(encode("large"))[0] == "▁large"
    assert "<unk>" not in pieces(encode.cut("large shelf"))
    assert "".join(pieces(encode.cut("large shelf"))) == "large▁shelf"
    assert encode.cut("") == encode("") == []


def test_a_vocabulary_that_sentencepiece_reads_otherwise_is_refused(small_vicuna, tmp_path):
    shutil.copytree(small_vicuna, tmp_path / "folded")
    model = sentencepiece.sentencepiece_model_pb2.ModelProto()
    model.ParseFromString((small_vicuna / "tokenizer.model").read_bytes())
    model.normalizer_spec.remove_extra_whitespaces = True
    (tmp_path / "folded" / "tokenizer.model").write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match="tokenizer.model: SentencePiece reads ' a' otherwise"):
        load_tokenizer(str(tmp_path / "folded"))
