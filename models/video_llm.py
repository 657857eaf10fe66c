"""A causal language model that reads video frames between its words.

Shape suffixes: B dialogues or videos, Q queries, T frames, L tokens, D width, V vocabulary, N supervised tokens.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from datamodules.batch import Batch, PromptBatch
from datamodules.chat import IGNORE
from datamodules.packing import block_mask, block_positions


@dataclass(frozen=True, eq=False)
class Output:
    """What one training forward pass gives."""

    lm_loss: Tensor
    """Mean cross-entropy over the supervised tokens of the batch; 0 without any."""
    logits: Tensor
    """(N, V) of the supervised tokens, in row order."""


class VideoLLM(nn.Module):
    """A causal LM and an adapter that gives it one input vector a frame (VTimeLLM, section 3.1).

    Args:
        llm: the language model, plain or wrapped by PEFT.
        adapter: maps (B, T, D_feature) to (B, T, D).
    """

    def __init__(self, llm: nn.Module, adapter: nn.Module):
        super().__init__()
        self.llm = llm
        self.adapter = adapter

    @property
    def causal_lm(self) -> PreTrainedModel:
        """The transformers model itself; LoRA layers, if any, are inside it."""
        return self.llm if isinstance(self.llm, PreTrainedModel) else self.llm.get_base_model()

    def embed(self, input_ids: Tensor, frame_mask: Tensor, features: Tensor, feature_mask: Tensor) -> Tensor:
        """Input vectors (B, L, D): word embeddings, with frame projections where ``frame_mask`` is set."""
        words = self.causal_lm.get_input_embeddings()(input_ids)
        frames = self.adapter(features)[feature_mask].to(words.dtype)
        return words.masked_scatter(frame_mask[..., None], frames)

    def forward(self, batch: Batch) -> Output:
        """The language-model loss of a batch; logits are computed for supervised tokens only."""
        inputs = self.embed(batch.input_ids, batch.frame_mask, batch.features, batch.feature_mask)
        next_labels = F.pad(batch.labels[:, 1:], (0, 1), value=IGNORE)
        supervised = next_labels != IGNORE
        if batch.blocks is None:
            attention_mask, position_ids = batch.attention_mask, None
        else:
            attention_mask = block_mask(batch.blocks, batch.attention_mask, inputs.dtype)
            position_ids = block_positions(batch.blocks)
        logits = self.causal_lm(
            inputs_embeds=inputs,
            attention_mask=attention_mask,
            position_ids=position_ids,
            logits_to_keep=supervised,
            use_cache=False,
        ).logits.flatten(end_dim=-2)
        # A sum over nothing keeps the graph, so that a rank without supervised tokens takes part in the reduction.
        total = F.cross_entropy(logits.float(), next_labels[supervised], reduction="sum")
        return Output(lm_loss=total / supervised.sum().clamp(min=1), logits=logits)

    @torch.inference_mode()
    def generate(self, prompts: PromptBatch, **settings) -> list[Tensor]:
        """Answer every query, running each video's prefix once.

        Args:
            prompts: videos and the queries about them.
            settings: of transformers' ``generate``, for example ``max_new_tokens``.

        Returns:
            the new token ids of each query.
        """
        rows = prompts.video_of_query
        prefix = self.embed(prompts.prefix_ids, prompts.frame_mask, prompts.features, prompts.feature_mask)
        cache = DynamicCache(config=self.causal_lm.config)
        self.causal_lm.get_decoder()(
            inputs_embeds=prefix,
            attention_mask=prompts.prefix_mask,
            position_ids=(prompts.prefix_mask.cumsum(-1) - 1).clamp(min=0),
            past_key_values=cache,
            use_cache=True,
        )
        cache.batch_select_indices(rows)
        suffix = self.causal_lm.get_input_embeddings()(prompts.suffix_ids)
        answers = self.causal_lm.generate(
            inputs_embeds=torch.cat([prefix[rows], suffix], dim=1),
            attention_mask=torch.cat([prompts.prefix_mask[rows], prompts.suffix_mask], dim=1),
            past_key_values=cache,
            **settings,
        )
        return list(answers)
