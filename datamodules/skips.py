"""What happens to input that cannot be used: it stops the program, or it is left out and counted."""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

OnError = Literal["fail", "skip"]
"""``fail`` at the first input that cannot be used, or ``skip`` it and count."""


@dataclass(frozen=True)
class Skip:
    """Something that was left out."""

    where: str
    """File, and the place in it."""
    reason: str
    """In words that many skips share."""
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}" + (f" ({self.detail})" if self.detail else "")


class Skips:
    """What happens to input that cannot be used: ``fail`` raises an error, ``skip`` leaves it out and counts it.

    Raises:
        ValueError: the policy is neither.
    """

    def __init__(self, on_error: OnError):
        if on_error not in ("fail", "skip"):
            raise ValueError(f"on_error must be 'fail' or 'skip', got {on_error!r}")
        self.on_error = on_error
        self.entries: list[Skip] = []

    def add(self, where: str, reason: str, detail: str = "") -> None:
        """Raise ValueError, or count."""
        skip = Skip(where, reason, detail)
        if self.on_error == "fail":
            raise ValueError(f"{skip}. Mend it, or leave such input out with on_error skip")
        self.entries.append(skip)

    @property
    def counts(self) -> Counter[str]:
        """How many were left out for each reason."""
        return Counter(skip.reason for skip in self.entries)


class SkippedFiles(Skips):
    """Skips that are also written down in a file while they happen."""

    def __init__(self, on_error: OnError, path: Path):
        super().__init__(on_error)
        self.path = path
        path.write_text("")

    def add(self, where: str, reason: str, detail: str = "") -> None:
        """Raise ValueError, or count and write down."""
        super().add(where, reason, detail)
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(self._line(self.entries[-1]))

    def rewrite(self, entries: Iterable[Skip]) -> None:
        """Put these into the file, instead of what it holds."""
        self.path.write_text("".join(map(self._line, entries)), encoding="utf-8")

    @staticmethod
    def _line(skip: Skip) -> str:
        about = {"file": skip.where, "reason": skip.reason} | ({"detail": skip.detail} if skip.detail else {})
        return json.dumps(about) + "\n"
