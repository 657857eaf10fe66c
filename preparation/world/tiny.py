"""The tiny stand-in for Vicuna: a real Llama of about one million weights and a word-level tokenizer.

Both are saved as an ordinary checkpoint folder, so that ``AutoModelForCausalLM`` and ``AutoTokenizer`` load them by the
same code path as ``lmsys/vicuna-7b-v1.5``.
"""

import re
from collections.abc import Iterable
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from models.tensor_files import readable

PIECE = r"\d\d|\d|[^\W\d_]+|\n|[^\w\s]|_"
"""A token: two digits, one digit, a word, a newline, or one other character."""


def tiny_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """A tokenizer that knows the words of ``texts``, the numbers 00 to 99, letters and punctuation.

    Every word is known as written, in lower case and with a capital. Other words become ``<unk>``. The ids of the
    special tokens are Llama's: ``<unk>`` 0 (which also pads), ``<s>`` 1, ``</s>`` 2.

    Args:
        texts: anything made of the words to know; their order does not matter.
    """
    words = {piece for text in texts for piece in re.findall(PIECE, text)}
    words |= {form for word in words for form in (word.lower(), word.capitalize())}
    words |= {chr(code) for code in range(33, 127)} | {"\n"}
    numbers = {f"{number:02d}" for number in range(100)}
    vocabulary = ["<unk>", "<s>", "</s>", *sorted(numbers), *sorted(words - numbers)]
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(PIECE), "isolated"), pre_tokenizers.Split(Regex(r"[^\S\n]+"), "removed")]
    )
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    backend.decoder = decoders.WordPiece(prefix="##", cleanup=True)  # joins words by spaces, but not before ".,?!"
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", pad_token="<unk>", bos_token="<s>", eos_token="</s>",
        model_max_length=2048, clean_up_tokenization_spaces=False,
    )  # fmt: skip


def tiny_lm(vocabulary: int, width: int = 128, layers: int = 4, heads: int = 4, seed: int = 0) -> LlamaForCausalLM:
    """A randomly initialised Llama.

    Args:
        vocabulary: number of tokens.
        width: hidden size; the gated MLP is twice as wide.
        layers: number of blocks.
        heads: attention heads of a block.
        seed: of the random weights; the global generator is left alone.
    """
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=2048,
        initializer_range=width**-0.5,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
        with torch.no_grad():  # words must not drown in what the random blocks add to them
            model.get_input_embeddings().weight.div_(config.initializer_range)
            for block in model.model.layers:
                block.self_attn.o_proj.weight.div_((2 * layers) ** 0.5)
                block.mlp.down_proj.weight.div_((2 * layers) ** 0.5)
    return model


def save_tiny_lm(folder: Path, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    """Write a checkpoint folder that the ``from_pretrained`` of transformers reads."""
    model.save_pretrained(folder)
    readable(Path(folder) / "model.safetensors")
    tokenizer.save_pretrained(folder)


def tiny_clip(folder: Path, width: int = 64, seed: int = 0) -> None:
    """Save a randomly initialised CLIP vision tower for pictures of 32 pixels, in the ordinary layout.

    It stands in for ``openai/clip-vit-large-patch14`` where no weights can be downloaded: its features tell pictures
    apart, and know nothing of what they show.

    Args:
        folder: where config, weights and ``preprocessor_config.json`` go.
        width: D, width of the features; also the hidden size.
        seed: of the random weights; the global generator is left alone.

    Raises:
        ValueError: the width does not divide over the four attention heads.
    """
    if width < 8 or width % 4:
        raise ValueError(f"width must be a multiple of 4 and at least 8, got {width}")
    config = CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=32,
        patch_size=8,
        projection_dim=width,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        CLIPVisionModelWithProjection(config).save_pretrained(folder)
    readable(Path(folder) / "model.safetensors")
    CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=32).save_pretrained(folder)
