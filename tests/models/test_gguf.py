"""GGUF files as bases: which file a name means, how text is cut, and what is converted when."""

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from models import gguf as bases
from models.checkpoints import load_llm, load_tokenizer


def write_gguf(path, manner="smollm"):
    """A Llama of one layer, 8 wide, with a vocabulary of bytes and one merge of two digits."""
    gguf = pytest.importorskip("gguf")
    letters = [chr(code) for code in (*range(33, 127), *range(161, 173), *range(174, 256))]
    letters += [chr(256 + number) for number in range(256 - len(letters))]  # GPT-2's names of the other bytes
    words = ["<|end|>", *letters, "12"]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(8)
    writer.add_block_count(1)
    writer.add_feed_forward_length(16)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(4)
    writer.add_vocab_size(len(words))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(manner)
    writer.add_token_list(words)
    writer.add_token_types([3] + [1] * (len(words) - 1))
    writer.add_token_merges(["1 2"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    writer.add_chat_template("{{ messages[0]['content'] }}")
    rng = np.random.default_rng(0)
    shapes = {"token_embd": (len(words), 8), "output_norm": (8,), "blk.0.attn_norm": (8,), "blk.0.ffn_norm": (8,)}
    shapes |= {f"blk.0.attn_{name}": (8, 8) for name in ("q", "k", "v", "output")}
    shapes |= {"blk.0.ffn_gate": (16, 8), "blk.0.ffn_up": (16, 8), "blk.0.ffn_down": (8, 16)}
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", rng.standard_normal(shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("WHENLM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_file_is_converted_once_with_its_template_and_digits(tmp_path, cache, monkeypatch):
    path = write_gguf(tmp_path / "small.gguf")
    tokenizer = load_tokenizer(str(path))
    assert tokenizer.convert_ids_to_tokens(tokenizer.encode("a12", add_special_tokens=False)) == ["a", "1", "2"]
    assert tokenizer.chat_template == "{{ messages[0]['content'] }}"
    monkeypatch.setattr(bases, "convert", lambda *_: pytest.fail("converted again"))
    llm = load_llm(str(path), "float32")
    assert llm.config.num_hidden_layers == 1
    assert llm.config.tie_word_embeddings
    assert [folder.name.startswith("small-") for folder in cache.iterdir()] == [True]


def test_another_manner_keeps_the_merge(tmp_path):
    tokenizer = load_tokenizer(str(write_gguf(tmp_path / "small.gguf", "gpt-2")))
    assert tokenizer.convert_ids_to_tokens(tokenizer.encode("a12", add_special_tokens=False)) == ["a", "12"]


def test_a_converted_base_can_be_changed_and_saved(tmp_path):
    llm = load_llm(str(write_gguf(tmp_path / "small.gguf")), "float32")
    llm.save_pretrained(tmp_path / "saved")
    assert (tmp_path / "saved/model.safetensors").is_file()


def test_a_failed_conversion_leaves_nothing(tmp_path, cache):
    pytest.importorskip("gguf")
    path = tmp_path / "broken.gguf"
    path.write_bytes(b"GGUF and then something else")
    with pytest.raises(ValueError, match="broken.gguf cannot be read as a GGUF model"):
        load_llm(str(path), "float32")
    assert list(cache.iterdir()) == []


def test_without_a_file_or_the_package(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="no GGUF file at .*absent.gguf"):
        load_tokenizer(str(tmp_path / "absent.gguf"))
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    monkeypatch.setitem(__import__("sys").modules, "gguf", None)
    with pytest.raises(ValueError, match="pip install gguf"):
        load_llm(str(tmp_path / "a.gguf"), "float32")


def test_a_folder_means_its_only_file_unless_it_is_a_checkpoint(tmp_path):
    assert bases.gguf_file("owner/name") is None
    (tmp_path / "a.gguf").touch()
    assert bases.gguf_file(str(tmp_path)) == tmp_path / "a.gguf"
    (tmp_path / "b.gguf").touch()
    with pytest.raises(ValueError, match="holds 2 GGUF files; name one"):
        bases.gguf_file(str(tmp_path))
    (tmp_path / "config.json").touch()
    assert bases.gguf_file(str(tmp_path)) is None


def test_a_manner_that_nobody_knows_is_told(tmp_path):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    with pytest.warns(UserWarning, match="in the manner 'of tomorrow'"):
        bases.split_as(tokenizer, "of tomorrow", tmp_path / "a.gguf")
