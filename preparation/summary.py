"""What a long command says at its end."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from command_line.tables import print_made, print_table
from datamodules.skips import Skip

ROWS = 20
"""The longest list that is printed whole."""


def print_skipped(skipped: Sequence[Skip]) -> None:
    """Print the first skips, where there are any."""
    if skipped:
        rows = [(skip.where, skip.reason, skip.detail) for skip in skipped[:ROWS]]
        if len(skipped) > ROWS:
            rows.append(("...", f"{len(skipped) - ROWS} more in skipped.jsonl", ""))
        print_table("skipped", ("file", "reason", "detail"), rows)


def print_features(output: Path, summary, more: Mapping) -> None:
    """Print what became of the files of an extraction (``preparation.features.extraction.Summary``)."""
    print_skipped(summary.skipped)
    counts = {"written": summary.written, "present already": summary.present, "skipped": len(summary.skipped)}
    counts |= {f"read with {name}": number for name, number in sorted(summary.readers.items())}
    if summary.sound_first:
        counts["sound begins before the picture, where times begin (docs/time.md)"] = summary.sound_first
    print_made("features", output, counts | more)
