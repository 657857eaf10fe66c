"""What the vocabulary of a language model does, whatever class transformers makes of its files.

transformers builds the tokenizers of some families anew and leaves out what their files say: of Llama's, texts that
begin with a space lose it, and without a ``tokenizer.json`` two spaces are joined. ``as_published`` puts back what the
files say. ``TextEncoder`` then encodes text from data, of which nothing is ever a special token.
"""

import json
from pathlib import Path

import sentencepiece
from sentencepiece import sentencepiece_model_pb2 as pieces
from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import PreTrainedTokenizerBase
from transformers.utils import cached_file

SPACE = "▁"
"""How SentencePiece writes a space."""
NORMAL, BPE = 1, 2
"""Of SentencePiece's protocol: the type of a piece that merges make, and that of a model of merges."""
PROBES = ("a", " a", "  ", "a  b", "\ta\n\nb ", "From 05 to 20.", "▁a", "don't", "你好 😀é")
"""Texts on which a vocabulary made here is held against SentencePiece's own."""


def as_published(tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Make a tokenizer encode as its published files say, in place.

    ``tokenizer.json`` counts where there is one, else ``tokenizer.model``, which SentencePiece reads.

    Args:
        tokenizer: as transformers loads it.
        name: folder or hub name that it was loaded from.

    Raises:
        ValueError: it is no tokenizer of the ``tokenizers`` library, or SentencePiece reads its file otherwise.
    """
    if not tokenizer.is_fast:
        raise ValueError(
            f"the tokenizer of {name!r} is a {type(tokenizer).__name__}, which does not tell where a token stands in "
            "a text; put a tokenizer.json into its folder"
        )
    backend = tokenizer.backend_tokenizer
    if file := _file(name, "tokenizer.json"):
        _take_over(backend, json.loads(file.read_text(encoding="utf-8")))
    elif file := _file(name, "tokenizer.model"):
        model = pieces.ModelProto()
        try:
            model.ParseFromString(file.read_bytes())
        except Exception:  # not SentencePiece's: the name is also given to other kinds of files
            return
        _follow(backend, model, file)


def _file(name: str, file: str) -> Path | None:
    """A file of a folder, or of a hub model that was downloaded."""
    found = cached_file(
        name, file, _raise_exceptions_for_missing_entries=False, _raise_exceptions_for_connection_errors=False,
        _raise_exceptions_for_gated_repo=False,
    )  # fmt: skip
    return Path(found) if found else None


def _take_over(backend: Tokenizer, published: dict) -> None:
    """Normalizer, pre-tokenizer, decoder and the settings of merges of a ``tokenizer.json``."""
    settings = published["model"]
    if settings.get("type") in ("BPE", "WordPiece", "WordLevel"):  # the words themselves take seconds to read
        settings = settings | {"vocab": {}} | ({"merges": []} if "merges" in settings else {})
    parts = published | {"model": settings, "added_tokens": [], "post_processor": None}
    read = Tokenizer.from_str(json.dumps(parts))
    backend.normalizer, backend.pre_tokenizer, backend.decoder = read.normalizer, read.pre_tokenizer, read.decoder
    for setting in ("fuse_unk", "byte_fallback", "ignore_merges"):
        if setting in settings:
            setattr(backend.model, setting, settings[setting])


def _follow(backend: Tokenizer, model: pieces.ModelProto, file: Path) -> None:
    """Encode as SentencePiece does with this file."""
    if model.trainer_spec.model_type == BPE:
        backend.model = models.BPE(
            vocab={piece.piece: number for number, piece in enumerate(model.pieces)},
            merges=_merges(model),
            unk_token=model.trainer_spec.unk_piece,
            fuse_unk=True,
            byte_fallback=model.trainer_spec.byte_fallback,
        )
        prefix = [normalizers.Prepend(SPACE)] if model.normalizer_spec.add_dummy_prefix else []
        backend.normalizer = normalizers.Sequence([*prefix, normalizers.Replace(" ", SPACE)])
        backend.pre_tokenizer = None
        strip = [decoders.Strip(" ", 1, 0)] if prefix else []
        words = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
        backend.decoder = decoders.Sequence([*words, *strip])
    truth = sentencepiece.SentencePieceProcessor(model_proto=model.SerializeToString())
    for text in PROBES:
        if backend.encode(text, add_special_tokens=False).ids != truth.encode(text):
            raise ValueError(
                f"{file}: SentencePiece reads {text!r} otherwise than transformers does; put the tokenizer.json of "
                "this vocabulary beside it"
            )


def _merges(model: pieces.ModelProto) -> list[tuple[str, str]]:
    """Pairs of pieces that become a piece, those of the highest score first, as SentencePiece joins them."""
    normal = {piece.piece: (-piece.score, number) for number, piece in enumerate(model.pieces) if piece.type == NORMAL}
    halves = (
        (rank, normal[whole[:place]], normal[whole[place:]], whole[:place], whole[place:])
        for whole, rank in normal.items()
        for place in range(1, len(whole))
        if whole[:place] in normal and whole[place:] in normal
    )
    return [pair[3:] for pair in sorted(halves)]


Placed = tuple[int, int]
"""Id of a token, and the place in the text where it begins."""


class TextEncoder:
    """Encodes text as text: no part of it is ever taken for a special token.

    Args:
        tokenizer: of the language model; its vocabulary is shared, not copied.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        backend = tokenizer.backend_tokenizer
        self._whole = Tokenizer(backend.model)
        self._whole.normalizer, self._whole.pre_tokenizer = backend.normalizer, backend.pre_tokenizer
        self._inside, first_only = _without_prefix(self._whole)
        self._behind = self._inside if first_only else self._whole
        # Some vocabularies have runs of spaces as added tokens (GPT-NeoX): these are text.
        added = sorted(tokenizer.added_tokens_decoder.items())
        blanks = {number: token for number, token in added if token.content and not token.content.strip()}
        self._renumber = {}
        for part in {id(part): part for part in (self._whole, self._inside)}.values():
            part.add_tokens(list(blanks.values()))
            self._renumber |= {part.token_to_id(token.content): number for number, token in blanks.items()}

    def __call__(self, text: str, first: bool = True) -> list[Placed]:
        """As the vocabulary encodes it at the beginning of a sequence, or (not ``first``) behind a special token."""
        return self._encode(self._whole if first else self._behind, text)

    def inside(self, text: str) -> list[Placed]:
        """As in the middle of a text: nothing is put in front."""
        return self._encode(self._inside, text)

    def cut(self, text: str) -> list[Placed]:
        """As the released VTimeLLM was trained with (transformers 4.31) behind ``</s>``.

        The ``▁`` that the vocabulary puts in front is cut off the first token afterwards: of ``▁US``, ``ER`` remains
        ``US``, ``ER``, where the text by itself is one token. Where nothing is left of the token that the vocabulary
        knows, the text is encoded without it.
        """
        tokens = self(text)
        piece = self._whole.id_to_token(tokens[0][0]) if tokens and not text.startswith(" ") else ""
        if not piece.startswith(SPACE):
            return tokens
        if piece == SPACE:
            return tokens[1:]
        bare = self._whole.token_to_id(piece.removeprefix(SPACE))
        return self.inside(text) if bare is None else [(bare, tokens[0][1]), *tokens[1:]]

    def _encode(self, backend: Tokenizer, text: str) -> list[Placed]:
        found = backend.encode(text, add_special_tokens=False)
        return [
            (self._renumber.get(number, number), min(start, len(text) - 1))
            for number, (start, _) in zip(found.ids, found.offsets, strict=True)
        ]


def _without_prefix(backend: Tokenizer) -> tuple[Tokenizer, bool]:
    """The same without what it puts in front of a text, and whether it does that at the beginning alone."""
    parts = Tokenizer(models.BPE())
    parts.normalizer, parts.pre_tokenizer = backend.normalizer, backend.pre_tokenizer
    spec = json.loads(parts.to_str())
    steps = [step for key in ("normalizer", "pre_tokenizer") for step in _steps(spec[key])]
    first_only = any(step.get("prepend_scheme") == "first" for step in steps)
    if not any(_prefixes(step) for step in steps):
        return backend, first_only
    for step in steps:
        if step["type"] == "Prepend":
            step.clear()
            step.update(type="Replace", pattern={"String": SPACE}, content=SPACE)
        elif step["type"] == "Metaspace":
            step["prepend_scheme"] = "never"
        elif step["type"] == "ByteLevel":
            step["add_prefix_space"] = False
    changed, inside = Tokenizer.from_str(json.dumps(spec)), Tokenizer(backend.model)
    inside.normalizer, inside.pre_tokenizer = changed.normalizer, changed.pre_tokenizer
    return inside, first_only


def _steps(part: dict | None) -> list[dict]:
    """The steps of a normalizer or a pre-tokenizer."""
    nested = (part or {}).get("normalizers") or (part or {}).get("pretokenizers")
    return [step for inner in nested for step in _steps(inner)] if nested else [part] if part else []


def _prefixes(step: dict) -> bool:
    scheme = step.get("prepend_scheme", "never")
    return step["type"] == "Prepend" or scheme != "never" or bool(step.get("add_prefix_space"))
