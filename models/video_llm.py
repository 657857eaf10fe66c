"""A causal language model that reads video frames between its words.

Shape suffixes: B dialogues or videos, Q queries, T frames, M S-tokens, L tokens, D width, V vocabulary, N supervised
tokens.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial, wraps
from inspect import signature

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Cache, DynamicCache, PreTrainedModel

from datamodules.batch import Batch, PromptBatch, frame_states
from datamodules.chat import IGNORE
from datamodules.packing import attention_pattern, block_positions
from models.feedback import Feedback, Writing
from models.routed_lora import route


@dataclass(frozen=True, eq=False)
class Output:
    """What one training forward pass gives."""

    lm_loss: Tensor
    """Mean cross-entropy over the supervised tokens of the batch; 0 without any."""
    logits: Tensor
    """(N, V) of the supervised tokens, in row order."""
    states: dict[str, Tensor] = field(default_factory=dict)
    """(B, L, D) hidden states by the place where they were taken."""
    row_loss: Tensor | None = None
    """(B,) summed cross-entropy of each row, for logs; None: no language model is run."""
    row_tokens: Tensor | None = None
    """(B,) supervised tokens of each row."""

    def losses_of(self, sources: Sequence[str]) -> dict[str, tuple[Tensor, Tensor]]:
        """Sum and tokens of each source's loss, where rows have sources and a language model is run."""
        if self.row_loss is None or not any(sources):
            return {}
        rows = {name: [row for row, source in enumerate(sources) if source == name] for name in set(sources)}
        return {f"source/{name}": (self.row_loss[at].sum(), self.row_tokens[at].sum()) for name, at in rows.items()}


@dataclass(frozen=True, eq=False)
class Generated:
    """One answer and the hidden states around it, by the place where they were taken."""

    ids: Tensor
    """(L,) the new tokens."""
    frames: dict[str, Tensor]
    """(T, D) at the video's frames."""
    predicting: dict[str, Tensor]
    """(L, D) that predicted each token."""
    reading: dict[str, Tensor]
    """(L, D) when each token was read."""
    first: dict[str, Tensor]
    """(D,) at the first token of the prompt."""
    question: dict[str, Tensor] = field(default_factory=dict)
    """(L, D) at the words behind the video; only where no language model reads them."""
    moments: Tensor | None = None
    """(L, 2) what each token was read as; NaN: as the plain token. None: all were."""


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
        bidirectional: whether a video's frames attend to all of its frames.
        feedback: how time tokens are read with their times; None: there are none.
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
        if bidirectional:
            self.causal_lm.config.sliding_window = None  # frames reach further than any window

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
    ) -> tuple[Tensor, Tensor]:
        """Input vectors (B, L, D), and frames (B, T, D).

        Words have frame projections where ``frame_mask`` is set, and those of S-tokens, if any, at ``spatial_mask``.
        """
        words = self.words(ids)
        question = () if question_ids is None else (question_ids.clamp(min=0), question_ids >= 0, feature_mask)
        frames = self.adapter(features, *question).to(words.dtype)
        inputs = words.masked_scatter(frame_mask[..., None], frames[feature_mask])
        if spatial is not None:
            inputs = inputs.masked_scatter(spatial_mask[..., None], self.adapter(spatial).to(words.dtype))
        return inputs, frames

    def forward(self, batch: Batch) -> Output:
        """The language-model loss of a batch; logits are computed for supervised tokens only."""
        video = (batch.frame_mask, batch.features, batch.feature_mask, batch.spatial, batch.spatial_mask)
        inputs, frames = self.embed(batch.input_ids, *video, batch.question_ids)
        if self.feedback:
            inputs = self.feedback(self.head, inputs, batch.moments, frames)
        next_labels = F.pad(batch.labels[:, 1:], (0, 1), value=IGNORE)
        supervised = next_labels != IGNORE
        position_ids = None if batch.blocks is None else block_positions(batch.blocks)
        with self.watch() as seen, route(self.llm, batch.frame_mask):
            logits = self.causal_lm(
                inputs_embeds=inputs,
                attention_mask=self.mask(batch.attention_mask, inputs.dtype, batch.frame_mask, batch.blocks),
                position_ids=position_ids,
                logits_to_keep=supervised,
                use_cache=False,
            ).logits.flatten(end_dim=-2)
        losses = F.cross_entropy(logits.float(), next_labels[supervised], reduction="none")
        tokens = supervised.sum(-1)
        rows = torch.arange(len(tokens), device=tokens.device).repeat_interleave(tokens, output_size=len(losses))
        return Output(
            # A sum over nothing keeps the graph, so that a rank without supervised tokens takes part in the reduction.
            lm_loss=losses.sum() / tokens.sum().clamp(min=1),
            logits=logits,
            states={point: calls[0] for point, calls in seen.items()},
            row_loss=losses.new_zeros(len(tokens)).index_add(0, rows, losses.detach()),
            row_tokens=tokens,
        )

    def mask(self, attention_mask: Tensor, dtype: torch.dtype, frame_mask: Tensor, blocks: Tensor | None) -> Tensor:
        """The plain mask (B, L) where attention is causal, else the whole pattern (B, 1, L, L)."""
        if blocks is None and not self.bidirectional:
            return attention_mask
        return attention_pattern(attention_mask, dtype, blocks, frame_mask if self.bidirectional else None)

    @contextmanager
    def watch(self) -> Iterator[dict[str, list[Tensor]]]:
        """Collects the hidden states (B, L, D) of each forward pass inside, by hooks: no other layer is kept."""
        decoder = self.causal_lm.get_decoder()
        seen: dict[str, list[Tensor]] = {point: [] for point in self.states}

        def keep(point: str, module: nn.Module, args: tuple[Tensor, ...], output: Tensor | None = None) -> None:
            seen[point].append(args[0] if output is None else output)

        places = {
            "before_last_layer": decoder.layers[-1].register_forward_pre_hook,
            "before_norm": decoder.norm.register_forward_pre_hook,
            "after_norm": decoder.norm.register_forward_hook,
        }
        hooks = [places[point](partial(keep, point)) for point in self.states]
        try:
            yield seen
        finally:
            for hook in hooks:
                hook.remove()

    @without_gradients
    def generate(self, prompts: PromptBatch, **settings) -> list[Generated]:
        """Answer every query, running each video's prefix once.

        Args:
            prompts: videos and the queries about them.
            settings: of transformers' ``generate``, for example ``max_new_tokens``.

        Returns:
            one answer a query, padded to the longest.
        """
        rows = prompts.video_of_query
        video = (prompts.frame_mask, prompts.features, prompts.feature_mask, prompts.spatial, prompts.spatial_mask)
        prefix, frames = self.embed(prompts.prefix_ids, *video, prompts.question_ids)
        cache = DynamicCache(config=self.causal_lm.config)
        with self.watch() as before, route(self.llm, prompts.frame_mask):
            self.causal_lm.get_decoder()(
                inputs_embeds=prefix,
                attention_mask=self.mask(prompts.prefix_mask, prefix.dtype, prompts.frame_mask, None),
                position_ids=(prompts.prefix_mask.cumsum(-1) - 1).clamp(min=0),
                use_cache=True,
                **cache_argument(self.causal_lm, cache),
            )
        cache.batch_select_indices(rows)
        suffix = self.words(prompts.suffix_ids)
        if self.feedback:
            suffix = self.feedback(self.head, suffix, prompts.moments, frames, rows)
        attention_mask = torch.cat([prompts.prefix_mask[rows], prompts.suffix_mask], dim=1)
        with self.watch() as during, self._listening(prompts, frames, before, during) as writing:
            answers = self.causal_lm.generate(
                inputs_embeds=torch.cat([prefix[rows], suffix], dim=1),
                attention_mask=attention_mask,
                synced_gpus=self.sharded,
                **cache_argument(self.causal_lm, cache),
                **settings,
            )
            if self.states or self.feedback:  # the last token has been predicted, but not yet read
                self._read_last(answers, attention_mask, cache)
        steps = {point: torch.cat([call[:, -1:] for call in calls], dim=1) for point, calls in during.items()}
        start = prompts.prefix_mask.argmax(-1)
        return [
            Generated(
                ids=ids,
                frames={point: calls[0][row][prompts.frame_mask[row]] for point, calls in before.items()},
                predicting={point: states[query, :-1] for point, states in steps.items()},
                reading={point: states[query, 1:] for point, states in steps.items()},
                first={point: calls[0][row, start[row]] for point, calls in before.items()},
                moments=torch.stack(writing.moments, dim=1)[query] if writing else None,
            )
            for query, (ids, row) in enumerate(zip(answers, rows.tolist(), strict=True))
        ]

    def _listening(
        self, prompts: PromptBatch, frames: Tensor, before: dict[str, list[Tensor]], during: dict[str, list[Tensor]]
    ) -> AbstractContextManager[Writing | None]:
        """Time tokens are read with their times inside, where the localizer has any."""
        if not self.feedback:
            return nullcontext()
        seen = {point: frame_states(calls[0], prompts) for point, calls in before.items()}
        videos = prompts.feature_mask, prompts.video_of_query
        return Writing(self.feedback, self.head, frames, seen, *videos, during).listening(self.words)

    def _read_last(self, answers: Tensor, attention_mask: Tensor, cache: DynamicCache) -> None:
        mask = F.pad(attention_mask, (0, answers.shape[1]), value=1)
        self.causal_lm.get_decoder()(
            inputs_embeds=self.words(answers[:, -1:]),
            attention_mask=mask,
            position_ids=mask.sum(-1, keepdim=True) - 1,
            use_cache=True,
            **cache_argument(self.causal_lm, cache),
        )


def cache_argument(llm: PreTrainedModel, cache: Cache) -> dict[str, Cache]:
    """A cache under the name that the model's ``forward`` has for it: ``past_key_values`` before transformers 5.24."""
    return {"cache" if "cache" in signature(llm.forward).parameters else "past_key_values": cache}
