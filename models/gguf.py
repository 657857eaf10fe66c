"""GGUF files as base models: converted once into a checkpoint folder, which every later run reads."""

import shutil
import tempfile
import warnings
from pathlib import Path

import torch
from tokenizers import Tokenizer, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from command_line.paths import cache_folder
from command_line.tables import say
from datamodules.kept import file_fingerprint

SMOLLM = "smollm"
"""What a GGUF file calls the manner of SmolLM2 (``tokenizer.ggml.pre``): each digit is a token."""
AS_GPT2 = ("gpt-2", "default")
"""Manners that are GPT-2's, which transformers takes for every name that it does not know, such as SmolLM2's."""
FORMAT = 1
"""Version of what a conversion writes; another version is converted anew."""


def gguf_file(name: str) -> Path | None:
    """The GGUF file that a base model's name means: the file itself, or the only one of a folder without another model.

    Raises:
        ValueError: such a folder holds several.
    """
    path = Path(name)
    if path.suffix.lower() == ".gguf":
        return path
    if not path.is_dir() or (path / "config.json").is_file():
        return None
    found = sorted(path.glob("*.gguf"))
    if len(found) > 1:
        raise ValueError(f"{name} holds {len(found)} GGUF files; name one, for example {found[0]}")
    return found[0] if found else None


def converted(file: Path) -> Path:
    """The checkpoint folder of a GGUF file, which is made at the first call.

    It lies in ``$WHENLM_CACHE``, or else ``whenlm`` in the user's cache folder, under the name and digest of the file.

    Raises:
        ValueError: there is no such file, the package gguf is missing, or transformers cannot read the file.
    """
    if not file.is_file():
        raise ValueError(f"no GGUF file at {file}")
    folder = cache_folder() / f"{file.stem}-{file_fingerprint(file)[:16]}-{FORMAT}"
    if (folder / "config.json").is_file():
        return folder
    say(f"converting {file} once into {folder}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=folder.name, dir=folder.parent))
    try:
        convert(file, made)
        made.chmod(0o755)
        try:
            made.rename(folder)
        except OSError:  # another process of this run was faster
            if not (folder / "config.json").is_file():
                raise
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return folder


def convert(file: Path, folder: Path) -> None:
    """Write a GGUF file as a checkpoint folder: weights in float32, tokenizer and chat template.

    Args:
        file: to read.
        folder: to write to.

    Raises:
        ValueError: the package gguf is missing, or transformers cannot read the file.
    """
    try:
        from gguf import GGUFReader
    except ImportError:
        raise ValueError(f"{file} is read with the package gguf, which is not installed: pip install gguf") from None
    try:
        fields = GGUFReader(file).fields
        settings = {"gguf_file": file.name, "local_files_only": True}
        llm = AutoModelForCausalLM.from_pretrained(file.parent, dtype=torch.float32, **settings)
        tokenizer = AutoTokenizer.from_pretrained(file.parent, **settings)
    except Exception as error:  # of many kinds: bad bytes, an architecture or a quantisation that is not known
        raise ValueError(f"{file} cannot be read as a GGUF model: {str(error).splitlines()[0]}") from None
    forget_quantisation(llm)
    if "tokenizer.ggml.pre" in fields:
        split_as(tokenizer.backend_tokenizer, fields["tokenizer.ggml.pre"].contents(), file)
    llm.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def forget_quantisation(llm: PreTrainedModel) -> None:
    """Let a model whose weights were dequantised while they were read be saved as what it is."""
    for owner, name in ((llm.config, "quantization_config"), (llm, "hf_quantizer")):
        if hasattr(owner, name):
            delattr(owner, name)
    llm.is_quantized = False


def split_as(tokenizer: Tokenizer, manner: str, file: Path) -> None:
    """Have text cut before byte pairs are merged as the file says, or warn where that is known neither here nor there.

    Args:
        tokenizer: as transformers made it from the file.
        manner: the file's name of it.
        file: for the message.
    """
    if manner == SMOLLM:
        of_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), of_bytes])
    elif manner not in AS_GPT2 and isinstance(tokenizer.pre_tokenizer, pre_tokenizers.ByteLevel):
        warnings.warn(
            f"{file} cuts text in the manner {manner!r}, which transformers does not know and takes for GPT-2's: "
            "compare the ids of a text with digits with those of the model's tokenizer, or give a checkpoint folder",
            stacklevel=2,
        )
