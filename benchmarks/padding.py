"""What padding costs: python -m benchmarks.padding [--batch_size 8 --frames 100].

Training steps of a small random Llama on dialogues of several lengths: end to end in one row, as this project reads
them, and padded to the longest, with a dense mask. Prints the share of padding of each, and the ratio of times, for
dialogues of one video each, and for several behind each video.
"""

from dataclasses import replace
from random import Random

import torch
from jsonargparse import auto_cli

from benchmarks.limits import best_s
from benchmarks.stages import SIZES, TEXT, Subject
from datamodules.batch import Batch, collate
from datamodules.packing import pack
from datamodules.schema import Query, Turn
from models import attention

LONGEST = 6
"""Dialogues have one to so many turns."""


def dialogues(subject: Subject, count: int, random: Random) -> list:
    """Training examples of one to six turns with answers of seven to 28 words."""
    made = []
    for number in range(count):
        turns = [Turn("what is this", TEXT * random.randint(1, 4)) for _ in range(random.randint(1, LONGEST))]
        made.append(
            subject.dialogue.example(Query(str(number), "v", "dialogue", turns=tuple(turns)), subject.video, random)
        )
    return made


def compare(subject: Subject, batch: Batch, rounds: int) -> tuple[float, float, float]:
    """Share of padding in rows of their own, share in one row, and how much faster that is."""
    batch, usual = batch.to(subject.device), attention.end_to_end
    found = []
    for way in (lambda llm: False, usual):
        attention.end_to_end = way
        try:
            padding, positions = subject.model(batch).padding_of(batch.attention_mask)["padding"]
            found.append((float(padding) / positions, best_s(lambda: subject.step(batch), subject.device, rounds)))
        finally:
            attention.end_to_end = usual
    (before, before_s), (now, now_s) = found
    return before, now, before_s / now_s


def main(batch_size: int = 8, queries: int = 4, frames: int = 100, width: int = 256, rounds: int = 3) -> None:
    """Measure and print.

    Args:
        batch_size: dialogues of a batch.
        queries: dialogues about a video, at most, where several share one.
        frames: of a video.
        width: of the language model (four layers).
        rounds: timed repetitions of each; the fastest counts.
    """
    shape = replace(SIZES["small"], width=width, inner=2 * width, vocabulary=1000, frames=frames)
    subject, random = Subject(shape, torch.device("cuda" if torch.cuda.is_available() else "cpu")), Random(0)
    alone = dialogues(subject, batch_size, random)
    shared, left = [], list(alone)
    while left:
        count = random.randint(1, queries)
        shared.append(pack(left[:count]) if min(count, len(left)) > 1 else left[0])
        left = left[count:]
    for name, examples in (("one dialogue a video", alone), (f"up to {queries} dialogues a video", shared)):
        before, now, ratio = compare(subject, collate(examples, 0), rounds)
        print(f"{name}: {before:.1%} padding in rows of their own, {now:.1%} end to end, which is {ratio:.2f}x as fast")


if __name__ == "__main__":
    auto_cli(main)
