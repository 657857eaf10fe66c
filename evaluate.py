"""Evaluate a trained model on annotated videos, ask it about one video, score its dialogues or anyone's predictions.

python evaluate.py benchmark --checkpoint RUN --shards DIR --queries FILE --output DIR
python evaluate.py video --checkpoint RUN --video FILE --query TEXT
python evaluate.py dialogue --predictions FILE --queries FILE --output DIR --judge.model NAME
python evaluate.py score --benchmark qvhighlights --predictions FILE --annotations FILE
"""

import sys

from jsonargparse import auto_cli

from command_line.parser import CommandParser, precise
from evaluation.benchmark import benchmark
from evaluation.dialogue import dialogue
from evaluation.score import score
from evaluation.video import video
from metrics.captions import CaptionsUnavailable
from metrics.similarity import SimilarityUnavailable


def main(args: list[str] | None = None) -> None:
    """Run one of the commands of this file."""
    auto_cli([benchmark, video, dialogue, score], args=args, as_positional=False, parser_class=CommandParser)


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError, CaptionsUnavailable, SimilarityUnavailable) as error:
        print(f"evaluate.py: error: {precise(str(error))}", file=sys.stderr)
        sys.exit(2)
