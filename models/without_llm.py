"""Frames between words as a language model would be given them, and no language model."""

import torch
from torch import nn

from datamodules.batch import Batch, PromptBatch
from models.outputs import Generated, Output
from models.video_llm import VideoLLM


class WithoutLLM(VideoLLM):
    """Takes the place of VideoLLM where a localizer does not generate.

    Args:
        words: input vectors of a language model's tokens.
        adapter: maps (B, T, D_feature) to (B, T, D).
        head: what the localizer learns.
        answer: ids of the tokens that are every answer.
    """

    def __init__(self, words: nn.Embedding, adapter: nn.Module, head: nn.Module, answer: list[int]):
        super().__init__(words, adapter, head, ("embedded",))
        self.answer = answer

    def check(self, sharing: bool = False) -> None:
        """There is no language model."""

    @property
    def words(self) -> nn.Embedding:
        """The input vectors of tokens."""
        return self.llm

    def forward(self, batch: Batch) -> Output:
        """Input vectors as states; there is nothing to say, so no loss of saying it."""
        video = (batch.frame_mask, batch.features, batch.feature_mask)
        read = {"question_ids": batch.question_ids, "frame_times_s": batch.frame_times_s}
        inputs, _ = self.embed(batch.input_ids, *video, **read)
        return Output(inputs.new_zeros(()), states={"embedded": inputs})

    @torch.inference_mode()
    def generate(self, prompts: PromptBatch, **settings) -> list[Generated]:
        """The answer to every query, at once; a language model's settings mean nothing here."""
        video = (prompts.frame_mask, prompts.features, prompts.feature_mask)
        read = {"question_ids": prompts.question_ids, "frame_times_s": prompts.frame_times_s}
        _, frames = self.embed(prompts.prefix_ids, *video, **read)
        words, ids = self.words(prompts.suffix_ids), prompts.suffix_ids.new_tensor(self.answer)
        return [
            Generated(
                ids=ids,
                frames={"embedded": frames[row][prompts.feature_mask[row]]},
                predicting={},
                reading={},
                first={},
                question={"embedded": words[query][prompts.suffix_mask[query].bool()]},
            )
            for query, row in enumerate(prompts.video_of_query.tolist())
        ]
