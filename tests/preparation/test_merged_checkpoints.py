"""A merged MeCo or E.T. Chat model, made here with the released names, and taken apart."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from test_frame_compressor import QFORMER, merged_file
from transformers import AutoModelForCausalLM, AutoTokenizer, BertTokenizer

import evaluate
import prepare
from datamodules.clip import Clip
from datamodules.schema import Query
from datamodules.shards import ShardReader
from lightning_modules.trained import TrainedModel
from localizers import FrameMatching
from localizers.answer import Answer
from models import adapters
from models.adapters import Compressor
from models.checkpoints import read_weights
from models.structural_head import StructuralHead
from preparation.features.shard_writer import ShardWriter
from preparation.merged_checkpoints import import_merged

TOKENS = {"match_token_id": "<vid>", "ent_token_id": "<ent>", "tst_token_id": "<tst>"}
SIZES = {
    name: getattr(QFORMER, name)
    for name in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
} | {"vocab_size": 60, "max_position_embeddings": 300}


@pytest.fixture(scope="module")
def bert(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("bert")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "where", "is", "the", "robot"]
    BertTokenizer(vocab={word: number for number, word in enumerate(words)}).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def compressor(bert) -> Compressor:
    return Compressor(tokenizer=bert, queries=3, qformer=SIZES)


@pytest.fixture(scope="module")
def tensors(llm, compressor) -> dict[str, torch.Tensor]:
    """All tensors of the merged model: the tiny Llama with three new tokens, and everything beside it."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(llm)
    model.resize_token_embeddings(model.config.vocab_size + len(TOKENS))
    parts = merged_file(compressor.build(10, 32)) | StructuralHead(32).state_dict()
    extra = {
        "model.vision_tower.vision_tower.blocks.0.attn.qkv.weight": torch.zeros(2, 2),
        "model.qformer_bert.bert.embeddings.position_ids": torch.arange(300)[None],
    }
    return {key: value.detach().clone() for key, value in (model.state_dict() | parts | extra).items()}


@pytest.fixture
def merged(llm, tensors, tmp_path):
    """Writes a merged folder of two shards; ``change`` may edit its tensors and its configuration."""

    def write(change=lambda tensors, config: None) -> Path:
        folder = tmp_path / "merged"
        folder.mkdir()
        tokenizer = AutoTokenizer.from_pretrained(llm)
        tokenizer.add_tokens(list(TOKENS.values()), special_tokens=True)
        tokenizer.save_pretrained(folder)
        config = json.loads((Path(llm) / "config.json").read_text())
        config |= {"model_type": "MeCo_llama", "conv_type": "vicuna_v1", "bi_attention": True}
        config |= {name: tokenizer.convert_tokens_to_ids(token) for name, token in TOKENS.items()}
        change(content := dict(tensors), config)
        (folder / "config.json").write_text(json.dumps(config))
        keys = sorted(content)
        shards = {"model-00001-of-00002.safetensors": keys[:30], "model-00002-of-00002.safetensors": keys[30:]}
        for name, held in shards.items():
            save_file({key: content[key] for key in held}, folder / name)
        index = {"weight_map": {key: name for name, held in shards.items() for key in held}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        return folder

    return write


def test_every_key_has_a_place_and_every_tensor_arrives(merged, tensors, compressor, tmp_path):
    places = import_merged(merged(), tmp_path / "run", compressor)
    assert places.keys() == tensors.keys()
    assert json.loads((tmp_path / "run" / "keys.json").read_text()) == places
    assert {key for key, place in places.items() if place.startswith("left out")} == {
        "model.vision_tower.vision_tower.blocks.0.attn.qkv.weight",
        "model.qformer_bert.bert.embeddings.position_ids",
    }
    base = load_file(tmp_path / "run" / "base" / "model.safetensors")
    assert base.keys() == {key for key, place in places.items() if place == "language model"}
    assert all(torch.equal(value, tensors[key]) for key, value in base.items())
    weights = read_weights(tmp_path / "run")
    torch.testing.assert_close(weights.head, {key: tensors[key] for key in weights.head})
    assert torch.equal(weights.adapter["queries"], tensors["model.qformer_query"])
    assert weights.manifest["stage"] == "imported from MeCo"


def test_the_model_that_is_built_from_it_has_the_trained_rows(merged, tensors, compressor, tmp_path):
    import_merged(merged(), tmp_path / "run", compressor)
    module = TrainedModel.from_run(tmp_path / "run")
    module.configure_model()
    assert module.adapter_settings == compressor
    assert module.localizer.bidirectional
    assert torch.equal(module.model.causal_lm.get_input_embeddings().weight, tensors["model.embed_tokens.weight"])
    assert torch.equal(module.model.causal_lm.lm_head.weight, tensors["lm_head.weight"])
    assert torch.equal(module.model.adapter.up.weight, tensors["model.qformer_proj.weight"])
    assert torch.equal(module.model.head.vid_head[1].weight, tensors["vid_head.1.weight"])


def test_the_command_writes_what_evaluation_takes(merged, compressor, bert, world, tmp_path, monkeypatch, capsys):
    """With the sizes of the public Q-Former made tiny."""
    monkeypatch.setattr(adapters, "INSTRUCT_BLIP", SIZES)

    def queries(tensors, config):
        tensors["model.qformer_query"] = torch.zeros(1, 32, SIZES["hidden_size"])

    folder = merged(queries)
    command = ["import-meco", f"--input={folder}", f"--output={tmp_path / 'run'}", f"--tokenizer={bert}"]
    assert prepare.main(command) == 0
    assert "left out: vision tower" in capsys.readouterr().out
    assert prepare.main(command) == 2
    assert "is not empty: choose another output" in capsys.readouterr().err
    reader = ShardReader(world / "videos")
    header = replace(reader.header, patches="made up", patch_count=4, patch_width=10)
    with ShardWriter(tmp_path / "shards", header) as writer:
        for name in reader.ids:
            video = reader.read(name)
            patches = video.features[:, None, :1].repeat(4, 1).repeat(10, 2)
            writer.add(replace(video, patches=patches))
    args = [f"--checkpoint={tmp_path / 'run'}", f"--shards={tmp_path / 'shards'}", f"--output={tmp_path / 'out'}"]
    args += [f"--queries={world / 'test' / 'grounding.jsonl'}", "--num_workers=0", "--generation.max_new_tokens=4"]
    evaluate.main(["benchmark", *args])
    protocol = json.loads((tmp_path / "out" / "metrics.json").read_text())["protocol"]
    assert protocol["checkpoint"]["stage"] == "imported from MeCo"
    assert protocol["missing"] == 0


def etchat(tensors, config):
    """Makes a model E.T. Chat's, stage 3."""
    del tensors["logit_scale"]
    for token in ("ent_token_id", "tst_token_id"):
        del config[token]
    config |= {"model_type": "ETChat_llama", "use_matching": True, "alpha": 1.5}


def test_et_chat_matches_frames(merged, tensors, compressor, tmp_path):
    """Its answers are read as what they are, and decode to spans."""
    import_merged(merged(etchat), tmp_path / "run", compressor)
    weights = read_weights(tmp_path / "run")
    assert weights.manifest["stage"] == "imported from E.T. Chat"
    torch.testing.assert_close(weights.head, {key: tensors[key] for key in weights.head})
    module = TrainedModel.from_run(tmp_path / "run")
    module.configure_model()
    assert module.localizer == FrameMatching(alpha=1.5, bidirectional=True, token_init="released")
    assert module.style == "etchat"
    (vid,) = module.dialogue.special
    states = torch.randn(2, 32)
    answer = Answer("<vid> - <vid>", ("<vid>", "<vid>"), {"before_norm": torch.randn(9, 32)},
                    {"before_last_layer": states})  # fmt: skip
    query = Query("q", "v", "grounding", "x")
    found = module.localizer.decode(query, answer, Clip(9.0, 9, 1.0), module.model.head)
    assert found.rule == "matched frames"
    assert len(found.spans) == 1
    assert module.model.feedback.ids == (vid,)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda t, c: c.pop("use_matching"),
            "lack logit_scale .MeCo., and config.json has no use_matching",
        ),
        (lambda t, c: c.update(use_time_tag=True), "use_time_tag is not understood"),
        (lambda t, c: t.pop("vid_head.3.bias"), "head weights.* 1 missing, first vid_head.3.bias"),
    ],
)
def test_heads_of_neither_are_refused(merged, compressor, tmp_path, change, words):
    def changed(tensors, config):
        etchat(tensors, config)
        change(tensors, config)

    with pytest.raises(ValueError, match=words):
        import_merged(merged(changed), tmp_path / "run", compressor)


def test_a_model_without_heads_is_a_start_for_training(merged, compressor, tmp_path):
    def aligned(tensors, config):
        for key in [key for key in tensors if "_head." in key and key != "lm_head.weight"] + ["logit_scale"]:
            del tensors[key]

    import_merged(merged(aligned), tmp_path / "run", compressor)
    weights = read_weights(tmp_path / "run")
    assert weights.head == {}
    assert weights.manifest["localizer"]["class_path"].endswith("TextTimestamps")


def test_tied_matrices_are_saved_once(merged, tensors, compressor, tmp_path):
    def tied(tensors, config):
        del tensors["lm_head.weight"]
        config["tie_word_embeddings"] = True

    import_merged(merged(tied), tmp_path / "run", compressor)
    llm = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "base")
    assert torch.equal(llm.lm_head.weight, tensors["model.embed_tokens.weight"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t, c: t.update({"model.layers.0.extra": torch.zeros(1)}), "1 not expected, first model.layers.0.extra"),
        (lambda t, c: t.update({"lora.weight": torch.zeros(1)}), "1 not expected, first lora.weight"),
        (lambda t, c: t.update({"model.qformer_new": torch.zeros(1)}), "not expected, first unknown.qformer_new"),
        (lambda t, c: t.update({"frm_head.2.weight": torch.zeros(1)}), "head weights.*first frm_head.2.weight"),
        (lambda t, c: t.pop("vid_head.3.bias"), "head weights.* 1 missing, first vid_head.3.bias"),
        (lambda t, c: t.pop("model.norm.weight"), "language model weights.* 1 missing, first model.norm.weight"),
        (lambda t, c: t.pop("model.qformer_ln.weight"), "has no frame compressor"),
        (lambda t, c: t.update(logit_scale=torch.zeros(2)), "head weights.* 1 of another shape, first logit_scale"),
        (lambda t, c: c.update(conv_type="gpt"), "conv_type must be one of vicuna_v1"),
        (lambda t, c: c.update(model_type="MeCo_other"), "model_type 'MeCo_other' does not end with a known"),
        (lambda t, c: c.update(ent_token_id=1), "the id of <ent> is .* in the tokenizer, but ent_token_id is 1"),
    ],
)
def test_what_does_not_fit_is_refused(merged, compressor, tmp_path, change, words):
    with pytest.raises(ValueError, match=words):
        import_merged(merged(change), tmp_path / "run", compressor)
    assert not (tmp_path / "run" / "model").exists()


def test_a_shard_that_is_not_there_is_named(merged, compressor, tmp_path):
    folder = merged()
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ValueError, match="no merged model in safetensors: model-00002-of-00002.safetensors is missing"):
        import_merged(folder, tmp_path / "run", compressor)


@pytest.fixture
def separate(merged, tensors, llm, tmp_path):
    """Writes what a LoRA run leaves that is not merged, and its base; returns both and the PEFT model itself.

    The base has no heads, and its rows differ from those that were trained in full.
    """

    def write(change=lambda lora, settings: None):
        trained = {k: v for k, v in tensors.items() if k.startswith(("vid_head", "frm_head", "logit_scale"))}
        trained |= {k: tensors[k] + 1 for k in ("model.embed_tokens.weight", "lm_head.weight", "model.qformer_query")}

        heads = [k for k in trained if k.startswith(("vid_head", "frm_head", "logit_scale"))]
        base = merged(lambda content, config: [content.pop(k) for k in heads])
        torch.manual_seed(1)
        config = LoraConfig(r=2, lora_alpha=6, target_modules=["q_proj", "o_proj"])
        whole = AutoModelForCausalLM.from_pretrained(llm)
        whole.resize_token_embeddings(whole.config.vocab_size + len(TOKENS))
        whole.load_state_dict({k: tensors[k] for k in whole.state_dict()})
        model = get_peft_model(whole, config)
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(parameter)
        folder = tmp_path / "separate"
        shutil.copytree(base, folder, ignore=shutil.ignore_patterns("model*"))
        model.save_pretrained(folder, save_embedding_layers=False)
        save_file({f"base_model.model.{k}": v for k, v in trained.items()}, folder / "pytorch_model.safetensors")
        lora = load_file(folder / "adapter_model.safetensors")
        settings = json.loads((folder / "adapter_config.json").read_text())
        change(lora, settings)
        save_file(lora, folder / "adapter_model.safetensors")
        (folder / "adapter_config.json").write_text(json.dumps(settings))
        return folder, base, model

    return write


def test_a_model_that_is_not_merged_is_put_on_its_base(separate, tensors, compressor, tmp_path):
    folder, base, model = separate()
    places = import_merged(folder, tmp_path / "run", compressor, base)
    assert places["base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"] == "language model, merged"
    assert places["base_model.model.vid_head.1.weight"] == "head"
    made = load_file(tmp_path / "run" / "base" / "model.safetensors")
    assert torch.equal(made["model.embed_tokens.weight"], tensors["model.embed_tokens.weight"] + 1)
    official = model.merge_and_unload().state_dict()
    for name in ("q_proj", "o_proj", "k_proj"):
        key = f"model.layers.1.self_attn.{name}.weight"
        torch.testing.assert_close(made[key], official[key])
        assert torch.equal(made[key], tensors[key]) == (name == "k_proj")
    weights = read_weights(tmp_path / "run")
    assert torch.equal(weights.head["vid_head.1.weight"], tensors["vid_head.1.weight"])
    assert torch.equal(weights.adapter["queries"], tensors["model.qformer_query"] + 1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda lora, c: c.update(use_rslora=True), "a LoRA with use_rslora is not understood"),
        (lambda lora, c: lora.pop(min(lora)), "the LoRA of base_model.model.model.layers.0.* does not fit the base"),
        (lambda lora, c: lora.update({"x.lora_A.weight": torch.ones(2, 2)}), "the LoRA of x does not fit the base"),
    ],
)
def test_a_lora_that_does_not_fit_its_base_is_refused(separate, compressor, tmp_path, change, words):
    folder, base, _ = separate(change)
    with pytest.raises(ValueError, match=words):
        import_merged(folder, tmp_path / "run", compressor, base)


def test_a_base_is_named_where_it_is_needed_and_nowhere_else(separate, compressor, tmp_path):
    folder, base, _ = separate()
    with pytest.raises(ValueError, match="is not merged: name the merged folder .* with --base"):
        import_merged(folder, tmp_path / "run", compressor)
    with pytest.raises(ValueError, match="needs no --base"):
        import_merged(base, tmp_path / "run", compressor, base)


@pytest.mark.golden
@pytest.mark.parametrize("kind", ["phi3", "qwen2"])
def test_the_released_architectures_are_read(kind, golden, compressor, tmp_path):
    """Language model, heads and tokenizer of the official code; only the frame compressor is made here."""
    source, folder = golden / "models" / f"meco_{kind}", tmp_path / "merged"
    shutil.copytree(source / "tokenizer", folder)
    tensors = load_file(source / "base.safetensors")
    grown = source / "embeds_after_resize.safetensors"
    after = load_file(grown) if grown.is_file() else {}
    for name, value in after.items():
        tensors["lm_head.weight" if "lm_head" in name else "model.embed_tokens.weight"] = value
    torch.manual_seed(0)
    tensors |= merged_file(compressor.build(10, tensors["model.norm.weight"].shape[0]))
    save_file({key: value.contiguous() for key, value in tensors.items()}, folder / "model.safetensors")
    config = json.loads((source / "config.json").read_text())
    ids = json.loads((source / "tokenizer" / "added_tokens.json").read_text())
    config |= {"model_type": f"MeCo_{kind}", "conv_type": kind, "bi_attention": True}
    config |= {name: ids[token] for name, token in TOKENS.items()}
    (folder / "config.json").write_text(json.dumps(config))
    places = import_merged(folder, tmp_path / "run", compressor)
    assert set(places.values()) == {"language model", "adapter", "head"}
    module = TrainedModel.from_run(tmp_path / "run", dtype="float32")
    module.configure_model()
    llm = module.model.causal_lm.state_dict()
    assert all(torch.equal(llm[key], tensors[key]) for key, place in places.items() if place == "language model")
    assert all(torch.equal(value, tensors[key]) for key, value in module.model.head.state_dict().items())
