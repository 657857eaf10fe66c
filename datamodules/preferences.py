"""Pairs of answers to one question: the one to learn, and one that is worse by an event."""

from dataclasses import replace
from pathlib import Path
from random import Random

from datamodules.batch import Example
from datamodules.dialogue import Dialogue
from datamodules.packing import pack
from datamodules.schema import Query, Video
from datamodules.strict_json import decode, lines

CHOSEN, REJECTED = 1, 2
"""Blocks of the two answers in an example, see ``packing``."""


class Preferences(Dialogue):
    """Writes a query that has ``rejected`` events twice, behind one copy of its video: no answer sees the other.

    Args:
        **settings: of ``Dialogue``.
    """

    shares = False

    def example(self, query: Query, video: Video, random: Random) -> Example:
        """Both answers to one question in the same words; of a query without ``rejected`` events the only one."""
        if not query.rejected:
            return super().example(query, video, random)
        again = Random()
        again.setstate(random.getstate())
        chosen = super().example(replace(query, rejected=()), video, random)
        rejected = super().example(replace(query, events=query.rejected, rejected=()), video, again)
        return replace(pack([chosen, rejected]), queries=(query,))

    def check_file(self, path: Path) -> None:
        """Refuse training lines without a rejected answer.

        Raises:
            ValueError: naming the line.
        """
        for number, line in lines(path):
            try:
                record = decode(line)
            except ValueError:
                continue  # reported, or skipped by the policy, by who reads the queries
            if isinstance(record, dict) and not record.get("rejected"):
                raise ValueError(
                    f"{path}, line {number}: no rejected answer to learn a preference from; add rejected, the events "
                    "of an answer that is worse by one of them, or take a stage such as InstructionTuning"
                )
