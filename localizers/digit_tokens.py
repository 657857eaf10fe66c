"""VTG-LLM: a time is six tokens of its own alphabet, ``0012.3``, whose vectors begin as those of the digits."""

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from datamodules.clip import Clip
from datamodules.markup import Text, Token
from datamodules.prediction import Prediction
from datamodules.rendered import FrameTexts, Unsayable
from datamodules.schema import Query
from localizers.answer import Answer
from localizers.spoken_seconds import as_read
from localizers.told_highlights import told_scores, with_highlights
from localizers.written_spans import BETWEEN, Found, WrittenSpans

NAMES = ("ZERO", "ONE", "TWO", "THREE", "FOUR", "FIVE", "SIX", "SEVEN", "EIGHT", "NINE", "DOT")
TOKENS = {f"<TIME_{name}>": character for name, character in zip(NAMES, "0123456789.", strict=True)}
"""Token -> the character that it stands for."""
OF_CHARACTER = {character: Token(token) for token, character in TOKENS.items()}
TOKEN = re.compile("|".join(TOKENS))
RUN = re.compile(rf"(?:(?:{TOKEN.pattern})\s*)+")
SIX = re.compile(r"\d{4}\.\d")
"""Pattern of a time as it is written; several may stand side by side."""
NUMBER = re.compile(r"\d+(?:\.\d+)?")
"""Pattern of a time that is written otherwise."""
LONGEST_S = 9999.9
SPREAD = 0.5
"""Of the normal distribution over neighbouring digits, in the digit loss."""


@dataclass(frozen=True)
class DigitTokens(WrittenSpans):
    """Times in seconds: four digits, a dot and one more digit, each a token.

    Source: VTG-LLM (Guo et al., 2024, section 3) and its released code.
    """

    special_tokens: ClassVar[tuple[str, ...]] = tuple(TOKENS)
    decoding: ClassVar[tuple[str, ...]] = ()
    rule: ClassVar[str] = "digit tokens"
    copied_rows: ClassVar[Mapping[str, str]] = TOKENS

    wording: str = "{start} - {end} seconds"
    """Of a span."""
    frame_sentence: bool = True
    """Say before the first frame when all frames were taken, in the same tokens."""
    digit_weight: float = 0.0
    """Of the loss that also takes neighbouring digits for right (0.1 in the released code, where it is off)."""
    legacy: bool = False
    """Write as released: a second decimal is cut off, not rounded, and a whole number is neither padded nor dotted."""

    def digits(self, number: float | str) -> Text:
        """A time as tokens.

        Raises:
            Unsayable: it has more than four digits before the dot.
        """
        if self.legacy:
            text = str(number)
            whole, dot, rest = text.partition(".")
            text = f"{whole.zfill(4)}.{rest}"[:6] if dot else f"{text}.0"
        else:
            time_s = float(number)
            if time_s < 0:
                warnings.warn(f"time {time_s} s is before the start of the video; written as 0", stacklevel=2)
            if round(time_s, 1) > LONGEST_S:
                raise Unsayable("turn left out: a time of more than 9999.9 s, and DigitTokens has four digits")
            text = f"{max(time_s, 0.0):06.1f}"
        return Text(*map(OF_CHARACTER.__getitem__, text))

    def time(self, time_s: float, clip: Clip) -> Text:
        """Six tokens and the unit."""
        return Text(self.digits(time_s), " seconds")

    def span(self, start_s: float, end_s: float, clip: Clip) -> Text:
        """As ``wording`` says."""
        before, between, behind = re.split(r"\{start\}|\{end\}", self.wording)
        return Text(before, self.digits(start_s), between, self.digits(end_s), behind)

    def frame_texts(self, clip: Clip) -> FrameTexts | None:
        """The sentence that says when the frames were taken."""
        if not self.frame_sentence:
            return None
        times = [piece for time_s in clip.frames_s for piece in (", ", self.digits(f"{time_s:.1f}"))][1:]
        told = Text(f"The video contains {clip.frames} frames sampled at ", *times, " seconds. ")
        return FrameTexts((told, *[""] * (clip.frames - 1)))

    def find(self, query: Query, answer: Answer, clip: Clip, head: nn.Module | None) -> list[Found]:
        """Each two times with nothing but a word between them; without such tokens, times in plain digits."""
        times = written_times(answer.text)
        found, place = [], 0
        while place < len(times) - 1:
            (begin, first_end, start), (second_begin, last, end) = times[place : place + 2]
            place += 1
            if BETWEEN.fullmatch(answer.text, first_end, second_begin):
                found.append(Found(begin, last, start, end))
                place += 1
        return found if times else as_read(answer.text, clip.duration_s, query.task == "dense_captioning")

    def decode(self, query: Query, answer: Answer, clip: Clip, head: nn.Module | None = None) -> Prediction:
        """See WrittenSpans; of highlights, moments with the scores that the answer names."""
        times = written_times(answer.text) if query.task == "highlights" else []
        if not times:
            return super().decode(query, answer, clip, head)
        scores = told_scores([begin for begin, _, _ in times], answer.text)
        found = Prediction(query.id, query.video, query.task, answer.text, rule=self.rule)
        return with_highlights(found, [time_s for _, _, time_s in times], scores, query, clip)

    @property
    def word_loss_tokens(self) -> tuple[str, ...]:
        """Digits, where they have a loss of their own."""
        return tuple(token for token, character in TOKENS.items() if character != ".") if self.digit_weight else ()

    def word_loss(self, logits: Tensor, labels: Tensor, ids: Mapping[str, int]) -> dict[str, Tensor]:
        """With ``digit_weight``: where a digit is due, the others are right by a normal distribution of their distance.

        As released, the digit itself has no share: the term pulls towards its neighbours alone.
        """
        if not self.digit_weight:
            return {}
        digits = torch.tensor([ids[token] for token in self.word_loss_tokens])
        return {"digits": self.digit_weight * digit_loss(logits, labels, digits.to(labels.device))}


def written_times(text: str) -> list[tuple[int, int, float]]:
    """The times in tokens of an answer: where each begins and ends, and its seconds."""
    found = []
    for run in RUN.finditer(text):
        tokens = [*TOKEN.finditer(text, run.start(), run.end())]
        characters = "".join(TOKENS[token[0]] for token in tokens)
        several = [*SIX.finditer(characters)]
        numbers = several if 6 * len(several) == len(characters) else [NUMBER.search(characters)]
        for number in filter(None, numbers):
            found.append((tokens[number.start()].start(), tokens[number.end() - 1].end(), float(number[0])))
    return found


def digit_loss(logits: Tensor, labels: Tensor, digits: Tensor) -> Tensor:
    """Mean over the labels that are digits, 0 without any.

    Args:
        logits: (N, V).
        labels: (N,).
        digits: (10,) ids of the digits.
    """
    due = torch.isin(labels, digits)
    chances = logits[due][:, digits].float().log_softmax(-1)
    value = torch.searchsorted(digits, labels[due])
    distance = torch.arange(10, device=labels.device) - value[:, None]
    weight = torch.exp(-0.5 * (distance / SPREAD) ** 2).masked_fill(distance == 0, 0)
    weight = weight / weight.sum(-1, keepdim=True)
    return -(weight * chances).sum() / due.sum().clamp(min=1)
