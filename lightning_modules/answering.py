"""Asking a model, and reading what it says."""

from dataclasses import dataclass, replace
from itertools import groupby

from datamodules.batch import PromptBatch, follow_up
from datamodules.clip import Clip
from datamodules.dialogue import Dialogue
from datamodules.markup import Text, Token, any_of
from datamodules.options import chosen
from datamodules.prediction import Prediction
from datamodules.schema import Query
from localizers.answer import Answer
from models.generation import Generation, GenerationChange  # noqa: F401 (where others look for them)
from models.outputs import Generated
from models.video_llm import VideoLLM


@dataclass(frozen=True)
class Answering:
    """Generates the answers of a batch and reads times from them."""

    dialogue: Dialogue
    generation: Generation
    confident: bool = False
    """Say with each answer how sure the model was of its words."""

    def __call__(self, model: VideoLLM, prompts: PromptBatch) -> list[Prediction]:
        """One prediction a query, in the order of the queries."""
        if not prompts.queries:
            return []
        turns: list[list[Answer]] = [[] for _ in prompts.queries]
        asked, places = prompts, range(len(turns))
        while True:
            generated = self.generate(model, asked)
            for place, one in zip(places, generated, strict=True):
                turns[place].append(self.read(one))
            if not any(asked.next_ids):
                break
            said = [self.until_end(one.ids.tolist()) for one in generated]
            places = [place for place, ids in zip(places, asked.next_ids, strict=True) if ids]
            asked = follow_up(asked, said, [one.moments for one in generated], self.dialogue.pad_id)
        about = zip(prompts.queries, prompts.clips, turns, strict=True)
        return [self.prediction(query, clip, answers, model) for query, clip, answers in about]

    def generate(self, model: VideoLLM, prompts: PromptBatch) -> list[Generated]:
        """What the model writes, up to the end token of the conversation format."""
        stop = {"eos_token_id": end} if (end := self.dialogue.encoder.end) else {}
        settings = self.generation.settings() | stop
        confident = self.confident and self.dialogue.localizer.generates
        return model.generate(prompts, confident=confident, pad_token_id=self.dialogue.pad_id, **settings)

    def until_end(self, ids: list[int]) -> list[int]:
        """An answer with its end token, also where it was cut off before, and without what stands behind it."""
        end = self.dialogue.encoder.end
        return ids[: ids.index(end[0]) + 1] if set(end) & set(ids) else ids + end

    def read(self, generated: Generated) -> Answer:
        """The text of an answer: with the localizer's special tokens, without all others."""
        tokenizer, special = self.dialogue.tokenizer, self.dialogue.special
        said = generated.ids.tolist()
        ids = [i for i in said if i in special or i not in tokenizer.all_special_ids]
        length = min(len(self.until_end(said)), len(said)) if self.dialogue.localizer.generates else 0
        return Answer(
            text=self.said(ids),
            tokens=tuple(tokenizer.convert_ids_to_tokens(said)),
            length=length,
            frames=generated.frames,
            predicting=generated.predicting,
            reading=generated.reading,
            first=generated.first,
            question=generated.question,
            confidence=generated.confidence(length),
        )

    def said(self, ids: list[int]) -> Text:
        """The text of ids, in which the localizer's tokens are told from words that only look like them."""
        decode, special = self.dialogue.tokenizer.decode, self.dialogue.special
        text, own = decode(ids).strip(), any_of(special.values())
        if own is None:
            return Text(text)
        meant = []  # of each place where the text seems to have a token
        for is_token, run in groupby(ids, key=special.__contains__):
            run = list(run)
            meant += [True] * len(run) if is_token else [False] * len(own.findall(decode(run)))
        pieces, behind = [], 0
        for found, is_token in zip(own.finditer(text), meant, strict=False):
            pieces += [text[behind : found.start()], Token(found[0]) if is_token else found[0]]
            behind = found.end()
        return Text(*pieces, text[behind:])

    def prediction(self, query: Query, clip: Clip, answers: list[Answer], model: VideoLLM) -> Prediction:
        """The chosen option is read from the first answer, times from the last; of a dialogue, from each of them."""
        timed = answers if query.task == "dialogue" else answers[-1:]
        found = [self.dialogue.localizer.decode(query, answer, clip, model.head) for answer in timed]
        said = [*(answer.text for answer in answers[: -len(timed)]), *(one.answer for one in found)]
        option = chosen(answers[0].text, len(query.options)) if query.options else None
        confidence, each = answers[0].confidence, tuple(said[1:] and said)
        tokens = sum(answer.length for answer in answers)
        about = {"option": option, "confidence": confidence, "tokens": tokens}
        return replace(found[-1], answer="\n".join(said), answers=each, **about)
