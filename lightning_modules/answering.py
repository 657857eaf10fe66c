"""Asking a model, and reading what it says."""

from dataclasses import dataclass, replace

from datamodules.batch import PromptBatch, follow_up
from datamodules.clip import Clip
from datamodules.dialogue import Dialogue
from datamodules.options import chosen
from datamodules.schema import Prediction, Query
from localizers.answer import Answer
from models.video_llm import Generated, VideoLLM


@dataclass(frozen=True)
class Generation:
    """How an answer is decoded."""

    max_new_tokens: int = 1024
    temperature: float = 0.0
    """0 is greedy; the released VTimeLLM evaluation samples at 0.05."""
    merge_spatial: bool = False
    """Without effect: a finished run answers with its spatial expert in the weights. Older configs may have it."""
    one_prompt: bool = False
    """Ask for the option and the moment of a ``grounded_qa`` query at once, not in two turns."""

    def settings(self) -> dict:
        """As ``VideoLLM.generate`` takes them."""
        sampling = {"do_sample": True, "temperature": self.temperature, "top_p": 1.0, "top_k": 0}
        more = sampling if self.temperature > 0 else {"do_sample": False}
        return {"max_new_tokens": self.max_new_tokens, **more}


@dataclass(frozen=True)
class Answering:
    """Generates the answers of a batch and reads times from them."""

    dialogue: Dialogue
    generation: Generation

    def __call__(self, model: VideoLLM, prompts: PromptBatch) -> list[Prediction]:
        """One prediction a query, in the order of the queries."""
        if not prompts.queries:
            return []
        first = self.generate(model, prompts)
        second = iter(())
        if any(prompts.next_ids):
            said = [self.until_end(one.ids.tolist()) for one in first]
            second = iter(self.generate(model, follow_up(prompts, said, self.dialogue.pad_id)))
        turns = ([one, next(second)] if ids else [one] for one, ids in zip(first, prompts.next_ids, strict=True))
        asked = zip(prompts.queries, prompts.clips, turns, strict=True)
        return [self.prediction(query, clip, list(map(self.read, said)), model) for query, clip, said in asked]

    def generate(self, model: VideoLLM, prompts: PromptBatch) -> list[Generated]:
        """What the model writes, up to the end token of the conversation format."""
        stop = {"eos_token_id": end} if (end := self.dialogue.encoder.end) else {}
        settings = self.generation.settings() | stop
        return model.generate(prompts, pad_token_id=self.dialogue.pad_id, **settings)

    def until_end(self, ids: list[int]) -> list[int]:
        """An answer with its end token, also where it was cut off before, and without what stands behind it."""
        end = self.dialogue.encoder.end
        return ids[: ids.index(end[0]) + 1] if set(end) & set(ids) else ids + end

    def read(self, generated: Generated) -> Answer:
        """The text of an answer: with the localizer's special tokens, without all others."""
        tokenizer, special = self.dialogue.tokenizer, self.dialogue.special
        ids = [i for i in generated.ids.tolist() if i in special or i not in tokenizer.all_special_ids]
        return Answer(
            text=tokenizer.decode(ids).strip(),
            tokens=tuple(tokenizer.convert_ids_to_tokens(generated.ids.tolist())),
            frames=generated.frames,
            predicting=generated.predicting,
            reading=generated.reading,
            first=generated.first,
            question=generated.question,
        )

    def prediction(self, query: Query, clip: Clip, answers: list[Answer], model: VideoLLM) -> Prediction:
        """Times are read from the last answer, the chosen option from the first."""
        found = self.dialogue.localizer.decode(query, answers[-1], clip, model.head)
        said = [*(answer.text for answer in answers[:-1]), found.answer]
        option = chosen(answers[0].text, len(query.options)) if query.options else None
        return replace(found, answer="\n".join(said), option=option)
