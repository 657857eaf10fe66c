"""A released model of MeCo or E.T. Chat, taken apart: the base language model, and what was trained on top of it.

It is one merged checkpoint, or what a LoRA run leaves: the LoRA, and all else that it trained, beside a merged base.
"""

import json
import re
import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from datamodules.chat_formats import CHAT_FORMATS
from datamodules.strict_json import read_object
from localizers import FrameMatching, StructuralTokens, TextTimestamps
from localizers.base import Localizer
from models.adapters import Compressor
from models.checkpoints import check_keys, fingerprint, load_tokenizer, write_weights
from models.frame_compressor import load_compressor, parameter_name
from models.manifest import read_lora_config
from models.tensor_files import read_tensors, readable
from models.weights import Weights

LLM, ADAPTER, HEAD = "language model", "adapter", "head"
KEPT = (LLM, ADAPTER, HEAD)
LEFT_OUT = (
    (r"model\.vision_tower\..*", "left out: vision tower, features are extracted beforehand"),
    (r"model\.qformer_bert\.cls\..*", "left out: output layer of the Q-Former, which writes no words"),
    (r".*\.(position_ids|inv_freq)", "left out: buffer, computed anew"),
)
"""Keys of a merged model that this project does not need, and why."""
TOKEN_IDS = {"match_token_id": "<vid>", "ent_token_id": "<ent>", "tst_token_id": "<tst>"}
"""Entries of the released configuration, and the tokens they name."""
LORA_FILE, TRAINED_FILE = "adapter_model.safetensors", "pytorch_model.safetensors"
"""What is in a folder that is not merged: PEFT's LoRA, and the other trained tensors in full."""
WRAPPED = "base_model.model."
"""What PEFT puts in front of every key."""
TOKENIZER_FILES = ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt")


def place(key: str) -> str:
    """What a tensor of a merged model belongs to. What is unknown counts as the language model's, which refuses it."""
    for pattern, reason in LEFT_OUT:
        if re.fullmatch(pattern, key):
            return reason
    if re.fullmatch(r"(frm_head|vid_head)\..*|logit_scale", key):
        return HEAD
    return LLM if parameter_name(key) is None else ADAPTER


def import_merged(
    folder: Path,
    output: Path,
    adapter: Compressor = Compressor(),  # noqa: B008 (frozen)
    base: Path | None = None,
) -> dict[str, str]:
    """Write a released model as ``output/base``, an ordinary checkpoint, and ``output/model``, a weights folder.

    Args:
        folder: ``config.json``, tokenizer and shards (safetensors), as ``save_full_model`` leaves them; or instead of
            the shards ``adapter_model.safetensors`` with its configuration and ``pytorch_model.safetensors``.
        output: new run folder, for ``evaluate.py --checkpoint`` or as ``previous`` of a stage.
        adapter: the frame compressor's settings.
        base: the merged folder that a folder which is not merged was trained on.

    Returns:
        the place of every key of the files; also written as ``output/keys.json``.

    Raises:
        ValueError: the folder is no such model, a key is missing, unknown or of another shape, ``base`` is missing or
            not needed, or the output is there already.

    Source: the released code of MeCo and E.T. Chat, which name these parts alike.
    """
    folder, output = Path(folder), Path(output)
    if output.exists() and any(output.iterdir()):
        raise ValueError(f"{output} is not empty: choose another output")
    raw = read_object(folder / "config.json")
    if raw.get("conv_type") not in CHAT_FORMATS:
        raise ValueError(f"{folder}/config.json: conv_type must be one of {', '.join(CHAT_FORMATS)}")
    places, parts = read_released(folder, base)
    llm = language_model(raw, parts[LLM], folder)
    width = llm.config.hidden_size
    patch_width = len(parts[ADAPTER].get("model.qformer_ln.weight", ()))
    if not patch_width:
        raise ValueError(f"{folder} has no frame compressor: model.qformer_ln.weight is missing")
    compressor = adapter.build(patch_width, width)
    load_compressor(compressor, parts[ADAPTER])
    localizer = localizer_of(raw, parts[HEAD], folder)
    head = trained_head(parts[HEAD], localizer, width)
    copy_tokenizer(folder, output / "base", raw)
    llm.save_pretrained(output / "base")
    for weights in (output / "base").glob("*.safetensors"):
        readable(weights)
    manifest = {
        "stage": f"imported from {'MeCo' if 'logit_scale' in parts[HEAD] else 'E.T. Chat'}",
        "base": {"name": str(output / "base"), "fingerprint": fingerprint(llm)},
        "localizer": localizer.config(),
        "chat": raw["conv_type"],
        "style": "meco" if "logit_scale" in parts[HEAD] else "etchat",
        "adapter": adapter.config(),
        "feature_width": patch_width,
    }
    write_weights(output / "model", Weights(compressor.state_dict(), manifest=manifest, head=head))
    (output / "keys.json").write_text(json.dumps(places, indent=2) + "\n")
    return places


def read_released(folder: Path, base: Path | None) -> tuple[dict[str, str], dict[str, dict[str, Tensor]]]:
    """The place of every key, and the tensors of each place that is not left out.

    Raises:
        ValueError: a file is missing or does not fit the others.
    """
    separate = any((folder / name).is_file() for name in (LORA_FILE, TRAINED_FILE))
    if separate and base is None:
        raise ValueError(f"{folder} is not merged: name the merged folder that it was trained on with --base")
    if base is not None and not separate:
        raise ValueError(f"{folder} needs no --base: it holds neither {LORA_FILE} nor {TRAINED_FILE}")
    places, tensors = read_merged(Path(base) if separate else folder)
    if separate:
        places |= add_trained(tensors, folder)
    parts: dict[str, dict[str, Tensor]] = {name: {} for name in KEPT}
    for key, tensor in tensors.items():
        parts[place(key)][key] = tensor
    return places, parts


def read_merged(folder: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """The place of every key of a merged folder, and the tensors that are not left out.

    Raises:
        ValueError: there are no shards, or they do not hold what their index says.
    """
    index = folder / "model.safetensors.index.json"
    listed = read_object(index).get("weight_map") if index.is_file() else {}
    if not isinstance(listed, dict) or not all(isinstance(name, str) for name in listed.values()):
        raise ValueError(f"{index}: weight_map must be an object of file names")
    files = sorted({Path(name).name for name in listed.values()}) or ["model.safetensors"]
    missing = [name for name in files if not (folder / name).is_file()]
    if missing:
        raise ValueError(f"{folder} is no merged model in safetensors: {missing[0]} is missing")
    places, tensors = {}, {}
    for name in files:
        try:
            with safe_open(folder / name, "pt") as shard:
                for key in shard.keys():  # noqa: SIM118 (not a dictionary)
                    places[key] = place(key)
                    if places[key] in KEPT:
                        tensors[key] = shard.get_tensor(key)
        except SafetensorError as error:
            raise ValueError(f"{folder / name} cannot be read as safetensors: {error}; copy it again") from None
    if listed:
        check_keys(f"{folder}: indexed", dict.fromkeys(listed), dict.fromkeys(places))
    return places, tensors


def add_trained(tensors: dict[str, Tensor], folder: Path) -> dict[str, str]:
    """Put what a folder that is not merged has trained into the tensors of its base.

    Returns:
        what became of every key of its files.

    Raises:
        ValueError: the LoRA is of another kind than a plain one, or does not fit the base.
    """
    places = {}
    if (folder / TRAINED_FILE).is_file():
        for key, tensor in read_tensors(folder / TRAINED_FILE).items():
            bare = key.removeprefix(WRAPPED)
            places[key] = place(bare)
            if places[key] in KEPT:
                tensors[bare] = tensor
    if (folder / LORA_FILE).is_file():
        config = read_lora_config(folder / "adapter_config.json")
        lora = read_tensors(folder / LORA_FILE)
        places |= dict.fromkeys(lora, f"{LLM}, merged")
        merge(tensors, lora, config.lora_alpha / config.r, folder)
    return places


def merge(tensors: dict[str, Tensor], lora: dict[str, Tensor], scale: float, folder: Path) -> None:
    """W += scale B A, in single precision.

    Raises:
        ValueError: a matrix has no partner, or there is no weight of its shape.
    """
    for name in sorted({re.sub(r"\.lora_[AB]\.weight", "", key) for key in lora}):
        a, b = (lora.get(f"{name}.lora_{side}.weight") for side in "AB")
        weight = tensors.get(key := f"{name.removeprefix(WRAPPED)}.weight")
        if a is None or b is None or weight is None or weight.shape != (b.shape[0], a.shape[1]):
            raise ValueError(f"{folder}/{LORA_FILE}: the LoRA of {name} does not fit the base")
        tensors[key] = (weight.float() + scale * (b.float() @ a.float())).to(weight.dtype)


def language_model(raw: dict, tensors: dict[str, Tensor], folder: Path) -> PreTrainedModel:
    """The base, of the architecture that the end of the released ``model_type`` names (``MeCo_phi3``).

    Raises:
        ValueError: the architecture is unknown, or a tensor is missing, unknown or of another shape.
    """
    kind = str(raw.get("model_type")).rpartition("_")[2]
    if kind not in CONFIG_MAPPING or "model.embed_tokens.weight" not in tensors:
        raise ValueError(f"{folder}: model_type {raw.get('model_type')!r} does not end with a known language model's")
    words = tensors["model.embed_tokens.weight"]
    settings = {key: value for key, value in raw.items() if key not in ("model_type", "architectures", "auto_map")}
    config: PreTrainedConfig = CONFIG_MAPPING[kind].from_dict(settings | {"vocab_size": len(words)})
    with torch.device("meta"):
        llm = AutoModelForCausalLM.from_config(config, dtype=words.dtype)
    expected = {key: value.shape for key, value in llm.state_dict().items()}
    if config.tie_word_embeddings:
        tensors.setdefault("lm_head.weight", words)
    check_keys(f"{folder}: language model", expected, {key: value.shape for key, value in tensors.items()})
    llm.load_state_dict(tensors, assign=True)
    llm.tie_weights()
    return llm


def localizer_of(raw: dict, head: dict[str, Tensor], folder: Path) -> Localizer:
    """How the model says when: MeCo's heads have a temperature, E.T. Chat's have none, its first stages have no heads.

    Raises:
        ValueError: there are heads of neither, or the model writes times into the questions to its Q-Former.
    """
    if raw.get("use_time_tag"):
        raise ValueError(f"{folder}/config.json: use_time_tag is not understood")
    settings = {"bidirectional": bool(raw.get("bi_attention")), "token_init": "released"}
    if "logit_scale" in head:
        return StructuralTokens(**settings)
    if not head:
        return TextTimestamps(bidirectional=settings["bidirectional"])
    if raw.get("use_matching"):
        return FrameMatching(alpha=float(raw.get("alpha", FrameMatching.alpha)), **settings)
    raise ValueError(f"{folder}: head weights lack logit_scale (MeCo), and config.json has no use_matching (E.T. Chat)")


def trained_head(tensors: dict[str, Tensor], localizer: Localizer, width: int) -> dict[str, Tensor]:
    """The head of a localizer; empty where there is none (E.T. Chat before its last stage)."""
    if not tensors:
        return {}
    own, found = localizer.head(width).state_dict(), {key: value.float() for key, value in tensors.items()}
    shapes = [{key: value.shape for key, value in head.items()} for head in (own, found)]
    check_keys(HEAD, *shapes)
    return found


def copy_tokenizer(folder: Path, base: Path, raw: dict) -> None:
    """Copy the tokenizer's files.

    Raises:
        ValueError: a token has another id than the configuration says.
    """
    base.mkdir(parents=True)
    for pattern in TOKENIZER_FILES:
        for path in folder.glob(pattern):
            shutil.copyfile(path, base / path.name)
    tokenizer = load_tokenizer(str(base))
    for name, token in TOKEN_IDS.items():
        own = tokenizer.get_vocab().get(token)
        if raw.get(name) is not None and raw[name] != own:
            raise ValueError(f"{folder}: the id of {token} is {own} in the tokenizer, but {name} is {raw[name]}")
