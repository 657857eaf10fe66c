"""Stage after stage 3: the model learns to prefer an answer to another that is worse by one event (D2VLM's FPO).

Shape suffixes: B dialogues, K blocks of a sequence, L tokens, N supervised tokens.
"""

from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor
from transformers import PreTrainedModel

from datamodules.batch import Batch, PromptBatch
from datamodules.chat import IGNORE
from datamodules.dialogue import Dialogue
from datamodules.preferences import CHOSEN, REJECTED, Preferences
from lightning_modules.instruction_tuning import InstructionTuning
from localizers.base import Localizer
from models.checkpoints import Weights
from models.factorised_preferences import preference_loss, sums_of_blocks
from models.outputs import Output
from models.video_llm import VideoLLM


class PreferenceTuning(InstructionTuning):
    """Factorised preference optimisation (D2VLM, Zeng et al., 2025), beside the losses of the chosen answer.

    Every training query has ``rejected`` events: those of an answer with a wrong time, wrong words, an event that is
    missing or one that is told twice. How likely an answer is sums up its words and where its time tokens point. What
    both answers say alike before they differ cancels. There is no reference model.

    Args:
        beta: factor of the difference of the log-likelihoods.
        preference_weight: of the preference loss beside the others.
        **settings: of ``InstructionTuning``.

    Raises:
        ValueError: the localizer does not know how likely times are, or the adapter reads the question.
    """

    writes: ClassVar[type[Dialogue]] = Preferences

    def __init__(self, *args, beta: float = 0.1, preference_weight: float = 1.0, **settings):
        super().__init__(*args, **settings)
        if beta <= 0 or preference_weight < 0:
            raise ValueError(
                f"beta must be positive and preference_weight not negative, got {beta}, {preference_weight}"
            )
        if type(self.localizer).log_likelihood is Localizer.log_likelihood:
            name = type(self.localizer).__name__
            raise ValueError(
                f"{name} does not know how likely a time is, so it learns no preferences; EvidenceTokens does"
            )
        if self.dialogue.splicer.question_tokenizer:
            raise ValueError("two answers share one copy of the video, and the adapter reads it anew for each question")
        self.beta, self.preference_weight = beta, preference_weight

    def build(self, llm: PreTrainedModel, weights: Weights) -> VideoLLM:
        """See InstructionTuning; the language model must be able to keep two answers apart."""
        model = super().build(llm, weights)
        model.check(sharing=True)
        return model

    def loss_terms(self, batch: Batch, output: Output) -> dict[str, Tensor]:
        """The losses of the chosen answers, and that of the preferences: the mean over pairs."""
        chosen, (rows, blocks) = only_chosen(batch), answers_of(batch)
        of_chosen = output.token_loss[blocks == CHOSEN]
        terms = {"lm": self.localizer.lm_weight * of_chosen.sum() / max(len(of_chosen), 1)}
        terms |= self.localizer.loss(self.model.head, output.states, chosen, self.ids)
        shape = len(batch.labels), REJECTED + 1
        words = sums_of_blocks(-output.token_loss, rows, blocks, shape)
        likely = words + self.localizer.log_likelihood(self.model.head, output.states, batch, self.ids)
        learned = sums_of_blocks(torch.ones_like(output.token_loss), rows, blocks, shape) > 0
        pairs = learned[:, CHOSEN] & learned[:, REJECTED]  # none in rows that only fill up a batch
        losses = preference_loss(likely[:, CHOSEN], likely[:, REJECTED], self.beta)[pairs]
        margins = (likely[:, CHOSEN] - likely[:, REJECTED])[pairs].detach()
        if len(margins):
            self.log("train/preference_margin", margins.mean(), batch_size=len(margins))
        return terms | {"preference": self.preference_weight * losses.sum() / max(len(losses), 1)}

    def training_step(self, batch: Batch) -> dict:
        """See VideoLanguageModule; the losses of single sources, which would be of both answers, are not logged."""
        step = super().training_step(batch)
        return step | {"terms": {name: term for name, term in step["terms"].items() if not name.startswith("source/")}}

    def validation_step(self, batch: PromptBatch | Batch, batch_idx: int = 0, dataloader_idx: int = 0) -> list:
        """See VideoLanguageModule; the loss is that of the chosen answers."""
        batch = only_chosen(batch) if isinstance(batch, Batch) else batch
        return super().validation_step(batch, batch_idx, dataloader_idx)


def only_chosen(batch: Batch) -> Batch:
    """A batch in which nothing is learned from rejected answers."""
    if batch.blocks is None:
        return batch
    return replace(batch, labels=batch.labels.masked_fill(batch.blocks == REJECTED, IGNORE))


def answers_of(batch: Batch) -> tuple[Tensor, Tensor]:
    """Row and block (N,) of each supervised token; a row with one answer has the block of a chosen one."""
    learned = batch.labels[:, 1:] != IGNORE
    blocks = torch.full_like(batch.labels, CHOSEN) if batch.blocks is None else batch.blocks
    return learned.nonzero()[:, 0], blocks[:, 1:][learned]
