"""MeCo's frame compressor: the patches of a frame, read with a question in mind, become one token.

Shape suffixes: B videos, T frames, P patches, L question tokens, E patch width, D language model width, N real frames.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from transformers import InstructBlipQFormerConfig, InstructBlipQFormerModel

from models.checkpoints import check_keys
from models.tensor_files import plain_pickle

INSTRUCT_BLIP = {"vocab_size": 30523}
"""What the public Q-Former has beside the defaults of transformers: BERT's words and one ``[DEC]``."""
PROJECTIONS = ("up", "query", "key", "value")
"""Layers that E.T. Chat adds to the Q-Former; the public Q-Former weights do not hold them."""


class FrameCompressor(nn.Module):
    """Q-Former and attention pooling, one token per frame (E.T. Chat, section 4.1; MeCo, section 3).

    The Q-Former turns a frame's patches e and the question into a few query states, which are brought to the width of
    the patches: p. Each then attends over the patches once more, and their mean is the frame's token:
    value(mean(softmax(query(p) key(e)^T / sqrt(E)) e + p)).

    Args:
        width: D, of the language model.
        config: of the Q-Former, its ``encoder_hidden_size`` being E; None: the public one of InstructBLIP.
        queries: number of learned queries.
    """

    def __init__(self, width: int, config: InstructBlipQFormerConfig | None = None, queries: int = 32):
        super().__init__()
        config = config or InstructBlipQFormerConfig(**INSTRUCT_BLIP)
        patch_width = config.encoder_hidden_size
        self.queries = nn.Parameter(torch.randn(1, queries, config.hidden_size) * config.initializer_range)
        self.norm = nn.LayerNorm(patch_width)
        self.qformer = InstructBlipQFormerModel(config)
        self.up = nn.Linear(config.hidden_size, patch_width)
        self.query = nn.Sequential(nn.LayerNorm(patch_width), nn.Linear(patch_width, patch_width))
        self.key = nn.Sequential(nn.LayerNorm(patch_width), nn.Linear(patch_width, patch_width))
        self.value = nn.Sequential(nn.LayerNorm(patch_width), nn.Linear(patch_width, width))

    def forward(
        self, patches: Tensor, question_ids: Tensor, question_mask: Tensor, frame_mask: Tensor | None = None
    ) -> Tensor:
        """Frame tokens for one question a video.

        Args:
            patches: (B, T, P, E) of any floating type; for several questions about a video, repeat its row.
            question_ids: (B, L) of the Q-Former's own tokenizer (BERT's); the frame placeholder is not part of them.
            question_mask: (B, L), true where a question token is real.
            frame_mask: (B, T), true where a frame is real; None: all are. Nothing is computed for the others.

        Returns:
            (B, T, D); zero where there is no frame.

        Raises:
            ValueError: shapes do not fit each other or this Q-Former, or there is no frame.
        """
        self._check(patches, question_ids, question_mask)
        if frame_mask is None:
            frame_mask = torch.ones(patches.shape[:2], dtype=torch.bool, device=patches.device)
        video_of_frame = frame_mask.nonzero()[:, 0]
        if not len(video_of_frame):
            raise ValueError(f"there is no frame in the batch of {len(patches)} videos")
        real = patches[frame_mask].to(self.queries.dtype)
        states = self._read(real, question_ids[video_of_frame], question_mask[video_of_frame])
        tokens = self._pool(real, states)
        output = tokens.new_zeros(*frame_mask.shape, tokens.shape[-1])
        output[frame_mask] = tokens
        return output

    def _read(self, patches: Tensor, question_ids: Tensor, question_mask: Tensor) -> Tensor:
        """Query states (N, queries, E) of frames (N, P, E), each with its question (N, L)."""
        queries = self.queries.expand(len(patches), -1, -1)
        mask = torch.cat([question_mask.new_ones(queries.shape[:2]), question_mask], dim=1)
        states = self.qformer(
            input_ids=question_ids, attention_mask=mask, query_embeds=queries, encoder_hidden_states=self.norm(patches)
        ).last_hidden_state[:, : queries.shape[1]]
        return self.up(states)

    def _pool(self, patches: Tensor, states: Tensor) -> Tensor:
        """Frame tokens (N, D). What is averaged are the patches themselves; only the weights see them normalised."""
        scores = self.query(states) @ self.key(patches).transpose(1, 2) / patches.shape[-1] ** 0.5
        return self.value((scores.softmax(dim=-1) @ patches + states).mean(dim=1))

    def _check(self, patches: Tensor, question_ids: Tensor, question_mask: Tensor) -> None:
        config = self.qformer.config
        if patches.ndim != 4 or patches.shape[-1] != config.encoder_hidden_size:
            raise ValueError(
                f"patches must be (B, T, P, {config.encoder_hidden_size}) for this Q-Former, got {tuple(patches.shape)}"
            )
        if question_ids.shape != question_mask.shape or len(question_ids) != len(patches):
            raise ValueError(
                f"{len(patches)} videos need one question each: ids are {tuple(question_ids.shape)}, "
                f"their mask is {tuple(question_mask.shape)}"
            )
        if question_ids.shape[1] > config.max_position_embeddings:
            raise ValueError(
                f"a question of {question_ids.shape[1]} tokens is longer than the Q-Former's "
                f"{config.max_position_embeddings}: truncate it"
            )

    def tune(self, mode: Literal["projector", "all", "attention"]) -> "FrameCompressor":
        """Set which parameters train, as the released code does, and freeze the rest.

        Args:
            mode: ``projector`` (stage 1): the four projections. ``all`` (stage 2). ``attention`` (stage 3): the four,
                the learned queries, the norm of the patches, and all self- and cross-attention of the Q-Former.
        """
        if mode not in ("projector", "all", "attention"):
            raise ValueError(f"unknown mode {mode!r}: use projector (stage 1), all (stage 2) or attention (stage 3)")
        for name, parameter in self.named_parameters():
            part = name.split(".")[0]
            added = part in PROJECTIONS or (mode != "projector" and (part != "qformer" or mode == "all"))
            parameter.requires_grad_(added or (mode == "attention" and "attention" in name))
        return self


@dataclass(frozen=True)
class KeyReport:
    """What became of every key when weights were imported."""

    loaded: dict[str, str]
    """Key of the file to parameter of the compressor."""
    ignored: tuple[str, ...]
    """Keys of the file that are not the compressor's, in file order."""
    fresh: tuple[str, ...]
    """Parameters that the file does not hold and that keep their random values."""


_NAMES = (  # first match wins; None: not the compressor's
    (r".*\.position_ids", None),
    (r"(?:Qformer|qformer_bert)\.cls\..*", None),
    (r"(?:Qformer|qformer_bert)\.bert\.(.*)", r"qformer.\1"),
    (r"(?:ln_vision|qformer_ln)\.(.*)", r"norm.\1"),
    (r"query_tokens|qformer_query", "queries"),
    (r"qformer_proj\.(.*)", r"up.\1"),
    (r"qformer_q_proj\.(.*)", r"query.\1"),
    (r"qformer_k_proj\.(.*)", r"key.\1"),
    (r"qformer_v_proj\.(.*)", r"value.\1"),
    (r"(Qformer\..*|qformer_.*)", r"unknown.\1"),
    (r".*", None),
)


def parameter_name(key: str) -> str | None:
    """The compressor's name of a tensor in InstructBLIP's or in an E.T. Chat / MeCo file; None: not a part of it."""
    bare = re.sub(r"^(?:base_model\.model\.)?(?:model\.)?", "", key)
    for pattern, replacement in _NAMES:
        match = re.fullmatch(pattern, bare)
        if match:
            name = match.expand(replacement) if replacement else None
            break
    if name is None or not name.startswith("qformer."):
        return name
    # transformers calls BERT's `attention.self` `attention.attention`, and only the norm of the embeddings `layernorm`
    return name.replace(".self.", ".attention.").replace("embeddings.LayerNorm", "embeddings.layernorm")


def load_compressor(compressor: FrameCompressor, tensors: dict[str, Tensor]) -> KeyReport:
    """Import released weights into a compressor.

    Args:
        compressor: changed in place.
        tensors: of ``read_instruct_blip``, or of a merged or separate E.T. Chat / MeCo checkpoint
            (``model.qformer_bert.*``, ``model.qformer_query``, ..); other parts of such a checkpoint may be there.

    Returns:
        what became of every key.

    Raises:
        ValueError: a tensor is missing, has another shape, or belongs to a Q-Former of another kind. Only the four
            projections may be missing, and only together.
    """
    loaded = {key: name for key in tensors if (name := parameter_name(key)) is not None}
    if len(set(loaded.values())) < len(loaded):
        names = list(loaded.values())
        double = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"two keys hold the same tensor: {[key for key, name in loaded.items() if name == double]}")
    own = compressor.state_dict()
    projections = {name for name in own if name.split(".")[0] in PROJECTIONS}
    fresh = projections if projections.isdisjoint(loaded.values()) else set()
    found = {name: tensors[key] for key, name in loaded.items()}
    check_keys(
        "frame compressor",
        {name: value.shape for name, value in own.items() if name not in fresh},
        {name: value.shape for name, value in found.items()},
    )
    compressor.load_state_dict(found, strict=False)
    return KeyReport(loaded, tuple(key for key in tensors if key not in loaded), tuple(sorted(fresh)))


def read_instruct_blip(path: Path) -> dict[str, Tensor]:
    """Tensors of the public Q-Former file (``instruct_blip_vicuna7b_trimmed.pth``). Nothing in it is executed.

    Raises:
        ValueError: the file does not hold a dictionary of tensors under ``model``.
    """
    content = plain_pickle(path)
    tensors = content.get("model") if isinstance(content, dict) else None
    if not isinstance(tensors, dict) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise ValueError(f"{path} holds no tensors under 'model': it is not a BLIP-2 or InstructBLIP weights file")
    return tensors
