"""What the tiny language model is pre-trained on: the world's own language, and finding one's place in a sequence.

A scene of the quickstart world becomes a sequence of T vectors, each the sum of the word embeddings of the event that
is active there; the model says where it begins (``find: a red robot jumps`` -> ``07``) and describes it. It never says
where something ends, and sees no frame feature, no question of the training stages and no ``From 07 to 15``.

Shape suffixes: B sequences, T positions, K words of a position, L tokens, A places named.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from datamodules.chat import IGNORE
from preparation.world.synthetic import World
from preparation.world.synthetic_language import CONTENT_WORDS, caption, sentence_case

SYSTEMS = (
    "A chat between a curious user and an assistant.",
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions.",
)
TASK_WORDS = "USER ASSISTANT index find read list"
WORDS_PER_POSITION = 5
POSITION = -1
"""Stands in ``ids`` where a vector of the sequence stands."""
FRAMES = 32
END = 2
"""Id of the end token."""


@dataclass(frozen=True)
class Lesson:
    """What is asked at one point of the pre-training."""

    phrases: str
    """``words``: single words that occur in one place only; ``mixed``: from one word to a whole sentence."""
    dialogues: bool
    """False: only lists of phrases, each with its place right behind it."""
    worlds: int
    """From how many worlds of rising difficulty scenes are drawn."""


@dataclass(frozen=True)
class Stretch:
    """One event in the sequence: what it is, the words that show it, and its first and last position."""

    combination: tuple[int, ...]
    words: tuple[int, ...]
    first: int
    last: int

    @property
    def place(self) -> str:
        """The answer that names it: where it begins. Where it ends is for the training stages to learn."""
        return f"{self.first:02d}"


@dataclass
class Text:
    """Tokens and labels under construction."""

    tokenizer: PreTrainedTokenizerFast
    ids: list[int] = field(default_factory=lambda: [1])
    labels: list[int] = field(default_factory=lambda: [IGNORE])
    places: list[tuple[int, int]] = field(default_factory=list)
    """Of every place named: the token it is predicted at, and the token of its first position."""
    sequence: int = 0
    """Token of position 0."""

    def add(self, text: str, learn: bool = False, end: bool = False) -> None:
        """Append a text, which is an answer to learn or not, and the end token or not."""
        ids = self.tokenizer(text, add_special_tokens=False).input_ids + [END] * end
        self.ids += ids
        self.labels += ids if learn else [IGNORE] * len(ids)

    def add_place(self, stretch: Stretch, end: bool = False) -> None:
        """Append a place to learn."""
        self.places.append((len(self.ids) - 1, self.sequence + stretch.first))
        self.add(stretch.place, learn=True, end=end)

    def add_positions(self, count: int) -> None:
        """Append the sequence."""
        self.sequence = len(self.ids)
        self.ids += [POSITION] * count
        self.labels += [IGNORE] * count


@dataclass(frozen=True, eq=False)
class TaskBatch:
    """Texts with their sequences."""

    ids: Tensor
    """(B, L), ``POSITION`` where a vector stands."""
    labels: Tensor
    """(B, L)."""
    words: Tensor
    """(B, T, K) word ids that a position shows; 0: none."""
    places: Tensor
    """(A, 3) row, token that predicts a place, token of its first position."""


class PositionTasks:
    """Random batches of the pre-training tasks.

    Args:
        tokenizer: of the model.
        seed: of everything that is drawn.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, seed: int):
        self.tokenizer = tokenizer
        self.rng = np.random.default_rng(seed)
        self.worlds = [World(seed=seed + i, difficulty=i / 4, held_out=0) for i in range(5)]
        self.content = set(tokenizer.convert_tokens_to_ids(sorted(CONTENT_WORDS)))
        vocabulary = sorted(tokenizer.get_vocab())
        self.fillers = [word for word in vocabulary if word.isalpha() and word.islower() and word not in CONTENT_WORDS]
        self.scenes = 0

    def batch(self, size: int, lesson: Lesson) -> TaskBatch:
        """``size`` texts: one time in five about single positions, else about sequences."""
        make = self._image if self.rng.random() < 0.2 else self._sequence
        rows = [make(lesson) for _ in range(size)]
        length = max(len(text.ids) for text, _ in rows)
        return TaskBatch(
            ids=torch.tensor([text.ids + [0] * (length - len(text.ids)) for text, _ in rows]),
            labels=torch.tensor([text.labels + [IGNORE] * (length - len(text.labels)) for text, _ in rows]),
            words=torch.from_numpy(np.stack([words for _, words in rows])),
            places=torch.tensor([(row, *place) for row, (text, _) in enumerate(rows) for place in text.places]),
        )

    def _image(self, lesson: Lesson) -> tuple[Text, np.ndarray]:
        """One position, and a sentence that says what it holds."""
        combination = self._world(lesson).combination(self.rng, "train")
        words = np.zeros((1, WORDS_PER_POSITION), np.int64)
        bag = self._bag(combination)
        words[0, : len(bag)] = bag
        text = Text(self.tokenizer)
        text.add_positions(1)
        text.add("\n")
        text.add(self._sentence(combination) + "\n", learn=True)
        return text, words

    def _sequence(self, lesson: Lesson) -> tuple[Text, np.ndarray]:
        """A sequence and what is said about it."""
        stretches, words = self._stretches(lesson)
        text = Text(self.tokenizer)
        text.add(SYSTEMS[self.rng.random() > 0.85] + " USER:" if lesson.dialogues else "USER:")
        text.add_positions(FRAMES)
        text.add("\n")
        if not lesson.dialogues:
            self._index(text, stretches, lesson, phrases=10)
            return text, words
        for turn, kind in enumerate(self.rng.permutation(["index", "ask", "ask", "ask"])):
            text.add("USER:" if turn else "")
            if kind == "index":
                self._index(text, stretches, lesson, phrases=6)
            else:
                self._ask(text, stretches, lesson)
        return text, words

    def _index(self, text: Text, stretches: list[Stretch], lesson: Lesson, phrases: int) -> None:
        """Phrases, each with its place right behind it."""
        text.add(f"{self._filler()} index {self._filler()} ASSISTANT:")
        for _ in range(phrases):
            stretch = stretches[self.rng.integers(len(stretches))]
            text.add(self._phrase(stretch, stretches, lesson) + str(self.rng.choice(("", "."))))
            text.add_place(stretch)
            text.add(",")
        text.add("", end=True)

    def _ask(self, text: Text, stretches: list[Stretch], lesson: Lesson) -> None:
        """One question: where something is, what is at a place, or what there is at all."""
        stretch = stretches[self.rng.integers(len(stretches))]
        draw = self.rng.random()
        if draw < 0.6:
            phrase = self._phrase(stretch, stretches, lesson)
            question, answer = f"find {self._filler()}: {phrase} {self._filler()}", None
        elif draw < 0.88:
            question, answer = f"read {self._filler()}: {stretch.place}", self._sentence(stretch.combination)
        else:
            question, answer = "list", " ".join(self._sentence(s.combination) for s in stretches)
        text.add(f"{self._filler()} {question} {self.rng.choice(('', '.', '?'))} ASSISTANT:")
        if answer is None:
            text.add_place(stretch, end=True)
        else:
            text.add(answer, learn=True, end=True)

    def _stretches(self, lesson: Lesson) -> tuple[list[Stretch], np.ndarray]:
        scene = self._world(lesson).scene(self.scenes)
        self.scenes += 1
        words, stretches = np.zeros((FRAMES, WORDS_PER_POSITION), np.int64), {}
        for combination, (start, end) in zip(scene.combinations, scene.spans, strict=True):
            if combination in stretches:
                continue  # a place has one answer here
            first = min(round(start * FRAMES), FRAMES - 1)
            last = min(max(round(end * FRAMES) - 1, first), FRAMES - 1)
            bag = self._bag(combination)
            words[first : last + 1, : len(bag)] = bag
            stretches[combination] = Stretch(combination, tuple(bag), first, last)
        return list(stretches.values()), words

    def _phrase(self, stretch: Stretch, stretches: list[Stretch], lesson: Lesson) -> str:
        """A sentence, or words that tell the stretch from the others."""
        others = [set(other.words) for other in stretches if other is not stretch]
        alone = [word for word in stretch.words if not any(word in other for other in others)]
        if alone and (lesson.phrases == "words" or self.rng.random() < 0.15):
            return self._spell([self.rng.choice(alone)])
        if self.rng.random() < 0.5:
            return caption(self.rng, stretch.combination)
        words = self.rng.permutation(stretch.words).tolist()
        count = int(self.rng.integers(1, len(words) + 1))
        while count < len(words) and any(set(words[:count]) <= other for other in others):
            count += 1
        return self._spell(words[:count])

    def _spell(self, ids) -> str:
        return " ".join(self.tokenizer.convert_ids_to_tokens([int(i) for i in ids]))

    def _world(self, lesson: Lesson) -> World:
        return self.worlds[self.rng.integers(lesson.worlds)]

    def _bag(self, combination) -> list[int]:
        ids = self.tokenizer(caption(self.rng, combination), add_special_tokens=False).input_ids
        return [i for i in ids if i in self.content]

    def _sentence(self, combination) -> str:
        return sentence_case(caption(self.rng, combination)) + "."

    def _filler(self) -> str:
        return " ".join(self.rng.choice(self.fillers, self.rng.integers(0, 4)))
