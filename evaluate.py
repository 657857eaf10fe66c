"""Evaluate a trained model on annotated videos, ask a served model, score anyone's predictions, show results.

python evaluate.py benchmark --checkpoint RUN --shards DIR --queries FILE --output DIR
python evaluate.py similarity --shards DIR --queries FILE --threshold NUMBER --output DIR
python evaluate.py served --model NAME --url http://localhost:8000/v1 --queries FILE --videos DIR --output DIR
python evaluate.py dialogue --predictions FILE --queries FILE --output DIR --judge.model NAME
python evaluate.py score --benchmark qvhighlights --predictions FILE --annotations FILE
python evaluate.py export --format qvhighlights --predictions FILE --queries FILE --output DIR
python evaluate.py page --predictions FILE --queries FILE --videos DIR --output FILE.html
python evaluate.py report --results '[DIR, ..]' --output DIR
python evaluate.py held_out --sweeps '{FILE: DIR}' --shards DIR --queries FILE --output DIR

"python evaluate.py COMMAND --help" says more of one of them. One's own videos are asked with ask.py. --quiet leaves out
tables and bars. Exit status: 0 fine, 2 bad input or usage.
"""

import sys
from collections.abc import Sequence
from importlib import import_module

from command_line.tables import complain, quieted, say
from metrics.captions import CaptionsUnavailable
from metrics.similarity import SimilarityUnavailable

COMMANDS = ("benchmark", "similarity", "served", "dialogue", "score", "export", "page", "report", "held_out")
"""A command is the function of its name in the module of its name in ``evaluation``; only that one is imported."""


def main(args: Sequence[str] | None = None) -> None:
    """Run one of the commands of this file."""
    name, *rest = (sys.argv[1:] if args is None else args) or [""]
    if name in ("-h", "--help"):
        say(__doc__.strip())
        return
    if name not in COMMANDS:
        known = f"{name!r} is no command; the first word is one of {', '.join(COMMANDS)}"
        said = "videos are asked with python ask.py --checkpoint RUN VIDEO QUERY" if name == "video" else known
        complain("evaluate.py", f"error: {said}")
        sys.exit(2)
    from jsonargparse import auto_cli

    from command_line.parser import CommandParser

    module = import_module(f"evaluation.{name}")
    about = {"prog": f"evaluate.py {name}", "epilog": getattr(module, "EPILOG", None)}
    with quieted(rest) as spoken:
        auto_cli(getattr(module, name), args=spoken, as_positional=False, parser_class=CommandParser, **about)


if __name__ == "__main__":
    try:
        main()
    except Exception as error:
        from command_line.errors import failed

        sys.exit(failed("evaluate.py", error, (CaptionsUnavailable, SimilarityUnavailable)))
