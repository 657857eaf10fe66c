"""Evaluate a trained model on annotated videos, ask it or a served model about videos, score anyone's predictions.

python evaluate.py benchmark --checkpoint RUN --shards DIR --queries FILE --output DIR
python evaluate.py similarity --shards DIR --queries FILE --threshold NUMBER --output DIR
python evaluate.py video --checkpoint RUN --video FILE --query TEXT
python evaluate.py served --model NAME --url http://localhost:8000/v1 --queries FILE --videos DIR --output DIR
python evaluate.py dialogue --predictions FILE --queries FILE --output DIR --judge.model NAME
python evaluate.py score --benchmark qvhighlights --predictions FILE --annotations FILE
python evaluate.py export --format qvhighlights --predictions FILE --queries FILE --output DIR

"python evaluate.py COMMAND --help" says more of one of them.
"""

import sys
from collections.abc import Sequence
from importlib import import_module

from metrics.captions import CaptionsUnavailable
from metrics.similarity import SimilarityUnavailable

COMMANDS = ("benchmark", "similarity", "video", "served", "dialogue", "score", "export")
"""A command is the function of its name in the module of its name in ``evaluation``; only that one is imported."""


def main(args: Sequence[str] | None = None) -> None:
    """Run one of the commands of this file."""
    name, *rest = (sys.argv[1:] if args is None else args) or [""]
    if name in ("-h", "--help"):
        print(__doc__.strip())
        return
    if name not in COMMANDS:
        sys.stderr.write(
            f"evaluate.py: error: {name!r} is no command; the first word is one of {', '.join(COMMANDS)}\n"
        )
        sys.exit(2)
    from jsonargparse import auto_cli

    from command_line.parser import CommandParser

    module = import_module(f"evaluation.{name}")
    about = {"prog": f"evaluate.py {name}", "epilog": getattr(module, "EPILOG", None)}
    auto_cli(getattr(module, name), args=rest, as_positional=False, parser_class=CommandParser, **about)


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError, CaptionsUnavailable, SimilarityUnavailable) as error:
        from command_line.parser import precise

        print(f"evaluate.py: error: {precise(str(error))}", file=sys.stderr)
        sys.exit(2)
