"""Everything before training: features, annotations, packing and checking of shards, and stand-ins to try it with.

python prepare.py features --videos DIR_OR_LIST --output SHARDS
python prepare.py annotations activitynet --input val.json --output queries.jsonl --shards SHARDS
python prepare.py overlap train.jsonl test.jsonl
python prepare.py captions details --input queries.jsonl --videos DIR --output FILE --text.model M --vision.model V
python prepare.py captions dialogues --input events.jsonl --output dialogues.jsonl --text.model M
python prepare.py pack --features DIR --durations stage2.json --output SHARDS
python prepare.py verify SHARDS
python prepare.py export --checkpoint RUN|X.ckpt --to FOLDER
python prepare.py import-meco --input FOLDER --output RUN
python prepare.py synthetic --output DIR
python prepare.py clip --output FILE.mp4
python prepare.py tiny-clip --output DIR
python prepare.py tiny-lm --output DIR

--quiet leaves out everything but errors and the last line, which says what was written.
Exit status: 0 fine, 1 problems found, 2 bad input or usage.
"""

import sys
from collections.abc import Sequence
from typing import get_type_hints

from command_line.errors import failed
from command_line.parser import CommandParser
from command_line.tables import quieted
from preparation.annotations.commands import annotations, overlap
from preparation.captioning.commands import captions
from preparation.commands import export, import_meco
from preparation.features.commands import features, pack, verify
from preparation.world.commands import clip, synthetic, tiny_clip, tiny_lm

COMMANDS = {command.__name__.replace("_", "-"): command for command in (
    features, annotations, overlap, captions, pack, verify, export, import_meco, synthetic, clip, tiny_clip, tiny_lm,
)}  # fmt: skip
POSITIONAL = {
    "annotations": ["name"], "captions": ["kind"], "verify": ["shards"], "overlap": ["training", "evaluation"],
}  # fmt: skip


def command_line() -> CommandParser:
    """The parser of all subcommands."""
    parser = CommandParser(prog="prepare.py", description=__doc__.splitlines()[0])
    subcommands = parser.add_subcommands()
    for name, command in COMMANDS.items():
        positional = POSITIONAL.get(name, [])
        subparser = CommandParser(description=command.__doc__.splitlines()[0])
        for argument in positional:
            subparser.add_argument(argument, type=get_type_hints(command)[argument])
        subparser.add_function_arguments(command, skip=set(positional))
        subcommands.add_subcommand(name, subparser, help=command.__doc__.splitlines()[0])
    return parser


def main(args: Sequence[str] | None = None) -> int:
    """Run one subcommand and return the exit status."""
    parser = command_line()
    try:
        with quieted(sys.argv[1:] if args is None else args) as rest:
            config = parser.instantiate(parser.parse_args(rest))
            return COMMANDS[config.subcommand](**config[config.subcommand].as_dict()) or 0
    except Exception as error:
        return failed("prepare.py", error)


if __name__ == "__main__":
    sys.exit(main())
