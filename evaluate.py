"""Evaluate a trained model on annotated videos, score anyone's predictions, show results as pages and tables.

python evaluate.py benchmark --checkpoint RUN --shards DIR --queries FILE --output DIR
python evaluate.py score --benchmark qvhighlights --predictions FILE --annotations FILE
python evaluate.py page --predictions FILE --queries FILE --videos DIR --output FILE.html
python evaluate.py report --results '[DIR, ..]' --output DIR

One's own videos are asked with ask.py. --quiet leaves out tables and bars. Exit status: 0 fine, 2 bad input or usage.
"""

import sys

from jsonargparse import auto_cli

from command_line.parser import CommandParser, precise
from command_line.tables import quieted
from evaluation.benchmark import benchmark
from evaluation.page import page
from evaluation.report import report
from evaluation.score import score
from metrics.captions import CaptionsUnavailable
from metrics.similarity import SimilarityUnavailable


def main(args: list[str] | None = None) -> None:
    """Run one of the commands of this file."""
    args = sys.argv[1:] if args is None else args
    if args[:1] == ["video"]:
        print("evaluate.py: error: videos are asked with python ask.py --checkpoint RUN VIDEO QUERY", file=sys.stderr)
        sys.exit(2)
    with quieted(args) as rest:
        auto_cli([benchmark, page, report, score], args=rest, as_positional=False, parser_class=CommandParser)


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError, CaptionsUnavailable, SimilarityUnavailable) as error:
        print(f"evaluate.py: error: {precise(str(error))}", file=sys.stderr)
        sys.exit(2)
