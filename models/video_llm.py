"""A causal language model that reads video frames between its words.

Shape suffixes: B dialogues or videos, Q queries, T frames, M S-tokens, L tokens, D width, V vocabulary, N supervised
tokens.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import wraps

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from datamodules.batch import Batch, PromptBatch, frame_states
from datamodules.chat import IGNORE
from datamodules.packing import Pattern
from models.attention import Layout, lay_out, rows_mask
from models.certainty import Certainty
from models.decoders import (
    answered_together,
    cache_argument,
    check_inputs,
    check_patterns,
)
from models.feedback import Feedback, Writing
from models.inner_states import first_layers, inner_layer, watching
from models.outputs import Generated, Output
from models.routed_lora import route
from models.shared_prefix import SharedPrefix
from models.words import Words
from models.writer import Writer

CHUNK = 1024
"""Tokens of a video that are read at once to answer questions: an hour takes little more memory than its cache."""


def without_gradients(method: Callable) -> Callable:
    """Runs a method of a ``VideoLLM`` in the cheapest mode that keeps its parameters trainable."""

    @wraps(method)
    def run(self, *args, **settings):
        # Parameters that are gathered in inference mode could not be trained afterwards.
        with torch.no_grad() if self.sharded else torch.inference_mode():
            return method(self, *args, **settings)

    return run


class VideoLLM(nn.Module):
    """A causal LM and an adapter that gives it one input vector a frame (VTimeLLM, section 3.1).

    Where the language model has experts (``models.routed_lora``), the temporal one acts on the frames.

    Args:
        llm: the language model, plain or wrapped by PEFT.
        adapter: maps (B, T, D_feature) to (B, T, D), or is a ``FrameCompressor``.
        head: what a localizer learns on hidden states; kept here, used by the localizer.
        states: where hidden states are taken, see ``localizers.base.StatePoint``.
        bidirectional: whether a video's frames attend to all of its frames, also beyond the window of a layer.
        feedback: how time tokens are read with their times; None: there are none.

    Raises:
        ValueError: the language model lacks what the states or the frames' attention need.
    """

    sharded: bool = False
    """Whether processes hold parts of the parameters, see ``lightning_modules.strategy``."""

    def __init__(
        self,
        llm: nn.Module,
        adapter: nn.Module,
        head: nn.Module | None = None,
        states: Sequence[str] = (),
        bidirectional: bool = False,
        feedback: Feedback | None = None,
    ):
        super().__init__()
        self.llm, self.adapter, self.head = llm, adapter, head
        self.states, self.bidirectional, self.feedback = tuple(states), bidirectional, feedback
        self.check()

    def check(self, sharing: bool = False) -> None:
        """Raise ValueError if the language model cannot do what is asked of it, before it is asked.

        Args:
            sharing: dialogues will share a video, see ``packing``.
        """
        check_inputs(self.causal_lm)
        if self.bidirectional:
            check_patterns(self.causal_lm, "frames that attend to later ones (bidirectional)")
        if sharing:
            check_patterns(self.causal_lm, "dialogues that share a video (queries_per_video above 1)")
        for point in set(self.states) - {"embedded", "after_norm"}:
            inner_layer(self.causal_lm, point)

    @property
    def causal_lm(self) -> PreTrainedModel:
        """The transformers model itself; LoRA layers, if any, are inside it."""
        return self.llm if isinstance(self.llm, PreTrainedModel) else self.llm.get_base_model()

    @property
    def words(self) -> nn.Module:
        """The language model's input vectors of tokens."""
        return self.causal_lm.get_input_embeddings()

    def embed(
        self,
        ids: Tensor,
        frame_mask: Tensor,
        features: Tensor,
        feature_mask: Tensor,
        spatial: Tensor | None = None,
        spatial_mask: Tensor | None = None,
        question_ids: Tensor | None = None,
        frame_times_s: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Input vectors (B, L, D), and frames (B, T, D).

        Words have frame projections where ``frame_mask`` is set, and those of S-tokens, if any, at ``spatial_mask``.
        """
        words = self.words(ids)
        more = () if question_ids is None else (question_ids.clamp(min=0), question_ids >= 0, feature_mask)
        more = more if frame_times_s is None else (frame_times_s,)
        frames = self.adapter(features, *more).to(words.dtype)
        inputs = words.masked_scatter(frame_mask[..., None], frames[feature_mask])
        if spatial is not None:
            inputs = inputs.masked_scatter(spatial_mask[..., None], self.adapter(spatial).to(words.dtype))
        return inputs, frames

    def forward(self, batch: Batch) -> Output:
        """The language-model loss of a batch; logits are computed for supervised tokens only."""
        video = (batch.frame_mask, batch.features, batch.feature_mask, batch.spatial, batch.spatial_mask)
        inputs, frames = self.embed(batch.input_ids, *video, batch.question_ids, batch.frame_times_s)
        if self.feedback:
            inputs = self.feedback(
                self.head, inputs, batch.moments, self.feedback.frames(frames, self._inner(inputs, batch))
            )
        next_labels = F.pad(batch.labels[:, 1:], (0, 1), value=IGNORE)
        supervised = next_labels != IGNORE
        layout, given = self._laid_out(inputs, batch.attention_mask, batch.frame_mask, batch.blocks)
        with self.watch() as seen, route(self.llm, layout.join(batch.frame_mask)):
            read = self.causal_lm.get_decoder()(**given)
        read = replace(read, last_hidden_state=layout.split(read.last_hidden_state))
        words = Words(self.causal_lm, read, supervised)
        losses = words.losses(next_labels[supervised])
        tokens = supervised.sum(-1)
        rows = torch.arange(len(tokens), device=tokens.device).repeat_interleave(tokens, output_size=len(losses))
        return Output(
            # A sum over nothing keeps the graph, so that a rank without supervised tokens takes part in the reduction.
            lm_loss=losses.sum() / tokens.sum().clamp(min=1),
            words=words,
            states={point: layout.split(calls[0]) for point, calls in seen.items()},
            positions=layout.positions,
            token_loss=losses,
            row_loss=losses.new_zeros(len(tokens)).index_add(0, rows, losses.detach()),
            row_tokens=tokens,
        )

    @torch.no_grad()
    def _inner(self, inputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        """States (B, T, D) of the frames that time tokens are read with: of a first pass up to the last frame."""
        point = self.feedback.reader.inner
        if point is None or batch.moments is None:
            return {}
        end = int(batch.frame_mask.any(0).nonzero().max()) + 1
        blocks = None if batch.blocks is None else batch.blocks[:, :end]
        frame_mask, real = batch.frame_mask[:, :end], batch.attention_mask[:, :end]
        layout, given = self._laid_out(inputs[:, :end], real, frame_mask, blocks)
        with route(self.llm, layout.join(frame_mask)):
            seen = layout.split(first_layers(self.causal_lm, inner_layer(self.causal_lm, point), **given))
        frames = seen.new_zeros(*batch.feature_mask.shape, seen.shape[-1])
        return {point: frames.masked_scatter(batch.feature_mask[..., None], seen[frame_mask])}

    def _laid_out(
        self, inputs: Tensor, attention_mask: Tensor, frame_mask: Tensor, blocks: Tensor | None
    ) -> tuple[Layout, dict]:
        """Where inputs (B, L, D) stand while the decoder runs, and what it takes."""
        pattern = self._pattern(attention_mask, frame_mask, blocks)
        layout = lay_out(self.causal_lm, pattern, inputs.dtype)
        places = torch.arange(inputs.shape[1], device=inputs.device).expand_as(attention_mask)
        places = layout.join(places if pattern.positions is None else pattern.positions)
        read = {"inputs_embeds": layout.join(inputs), "attention_mask": layout.mask, "position_ids": places}
        return layout, read | {"use_cache": False}

    def mask(
        self, attention_mask: Tensor, dtype: torch.dtype, frame_mask: Tensor, blocks: Tensor | None
    ) -> Tensor | dict[str, Tensor]:
        """Of rows as they are, see ``attention.rows_mask``."""
        return rows_mask(self.causal_lm, self._pattern(attention_mask, frame_mask, blocks), dtype)

    def _pattern(self, attention_mask: Tensor, frame_mask: Tensor, blocks: Tensor | None) -> Pattern:
        return Pattern.of(attention_mask, blocks, frame_mask if self.bidirectional else None)

    def watch(self) -> AbstractContextManager[dict[str, list[Tensor]]]:
        """Collects the hidden states (B, L, D) of each forward pass inside."""
        return watching(self.causal_lm, self.states)

    @without_gradients
    def generate(self, prompts: PromptBatch, confident: bool = False, **settings) -> list[Generated]:
        """Answer every query, running each video's prefix once.

        Args:
            prompts: videos and the queries about them.
            confident: keep how likely each token was.
            settings: of transformers' ``generate``, for example ``max_new_tokens``.

        Returns:
            one answer a query, up to its end.
        """
        video = (prompts.frame_mask, prompts.features, prompts.feature_mask, prompts.spatial, prompts.spatial_mask)
        prefix, frames = self.embed(prompts.prefix_ids, *video, prompts.question_ids, prompts.frame_times_s)
        if self.feedback:
            prefix = self.feedback(self.head, prefix, prompts.prefix_moments, self.feedback.frames(frames, {}))
        states, cache = self._read_videos(prompts, prefix)
        seen = {point: frame_states(values, prompts) for point, values in states.items()}
        if self.feedback:
            frames = self.feedback.frames(frames, seen)
        longest = prompts.prefix_mask.shape[1] + prompts.suffix_mask.shape[1] + settings.get("max_new_tokens", 0)
        said = {}
        for queries in answered_together(self.causal_lm, prompts.suffix_mask.sum(-1), longest):
            answers = self._answer(prompts, queries, frames, seen, cache, Certainty() if confident else None, settings)
            said |= dict(zip(queries.tolist(), answers, strict=True))
        of_video = [
            {
                "frames": {point: values[row][real] for point, values in seen.items()},
                "first": {point: values[row, start] for point, values in states.items()},
            }
            for row, (real, start) in enumerate(zip(prompts.feature_mask, prompts.prefix_mask.argmax(-1), strict=True))
        ]
        return [replace(said[query], **of_video[row]) for query, row in enumerate(prompts.video_of_query.tolist())]

    def _read_videos(self, prompts: PromptBatch, prefix: Tensor) -> tuple[dict[str, Tensor], DynamicCache]:
        """States (B, L, D) at every point, and the cache, behind input vectors (B, L, D): the beginning of prompts."""
        cache, decoder = DynamicCache(config=self.causal_lm.config), self.causal_lm.get_decoder()
        positions = (prompts.prefix_mask.cumsum(-1) - 1).clamp(min=0)
        length = prefix.shape[1]
        # Frames that attend to later ones need all of them, and processes that share layers as many passes as others.
        step = length if self.bidirectional or self.sharded else CHUNK
        with self.watch() as seen:
            for start in range(0, length, step):
                end = min(start + step, length)
                mask, frame_mask = prompts.prefix_mask[:, :end], prompts.frame_mask[:, :end]
                with route(self.llm, frame_mask):
                    decoder(
                        inputs_embeds=prefix[:, start:end],
                        attention_mask=self.mask(mask, prefix.dtype, frame_mask, None),
                        position_ids=positions[:, start:end],
                        use_cache=True,
                        **cache_argument(decoder, cache),
                    )
        return {point: torch.cat(calls, dim=1) for point, calls in seen.items()}, cache

    def _answer(
        self,
        prompts: PromptBatch,
        queries: Tensor,
        frames: Tensor,
        seen: dict[str, Tensor],
        cache: DynamicCache,
        certainty: Certainty | None,
        settings: dict,
    ) -> list[Generated]:
        """Answers to some queries. The cache holds the videos, ``frames`` and ``seen`` are of them."""
        rows, length = prompts.video_of_query[queries], int(prompts.suffix_mask[queries].sum(-1).max())
        suffix = self.words(prompts.suffix_ids[queries, -length:])
        if self.feedback and prompts.moments is not None:
            suffix = self.feedback(self.head, suffix, prompts.moments[queries, -length:], frames, rows)
        mask = torch.cat([prompts.prefix_mask[rows], prompts.suffix_mask[queries, -length:]], dim=1)
        about = self.feedback, self.head, frames, seen, prompts.feature_mask, rows
        writing = Writing(*about) if self.feedback else None
        shared = SharedPrefix(cache, rows)
        writer = Writer(self.causal_lm, shared, mask, self.states, writing, certainty, self.sharded)
        return writer.write(suffix, settings)
