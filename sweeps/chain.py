"""A row of a table as a chain of stages: python -m sweeps.chain FILE --row 9 --output RUN.

A chain file names stages, each the arguments of train.py, and rows, each a list of stages. A stage goes on from the one
before it. What rows begin with in common is trained once, in ``stages/`` beside the run folders; a stage that was
killed goes on, and one that another process trains is waited for.
"""

import fcntl
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from command_line.errors import failed
from command_line.parser import CommandParser
from command_line.tables import say
from sweeps.sweep_file import read_yaml

OF_AGENT = ("WANDB_RUN_ID", "WANDB_SWEEP_ID", "WANDB_SWEEP_PARAM_PATH")
"""What makes a process a run of a sweep; only the last stage of a chain is it."""


def stage_commands(file: Path, row: str, stages: Path, more: Sequence[str] = ()) -> list[tuple[Path, list[str]]]:
    """Folder and arguments of train.py for each stage of a row.

    Args:
        file: the chain file.
        row: one of its rows.
        stages: where the folders of stages are.
        more: arguments of every stage.

    Raises:
        ValueError: the file is no chain file, or has no such row or stage.
    """
    content = read_yaml(file)
    if set(content) != {"stages", "rows"}:
        raise ValueError(f"{file}: a chain file has stages and rows, this has {', '.join(content)}")
    rows = {str(name): names for name, names in content["rows"].items()}
    if str(row) not in rows:
        raise ValueError(f"{file} has no row {row}; it has {', '.join(rows)}")
    if unknown := [name for name in rows[str(row)] if name not in content["stages"]]:
        raise ValueError(f"{file}: row {row} names the stage {unknown[0]}, which is not among stages")
    commands, previous = [], None
    for number, name in enumerate(rows[str(row)], 1):
        label = "-".join([*rows[str(row)][:number], *more])
        folder = stages / re.sub(r"[^\w.=-]+", "_", label.replace("--", ""))
        first = [f"--model.init_args.previous={previous}"] if previous else []
        commands.append((folder, [*content["stages"][name], *more, *first, f"--output={folder}"]))
        previous = folder
    return commands


def run_chain(file: Path, row: str, output: Path, more: Sequence[str], dry_run: bool = False) -> int:
    """Train the stages of a row, one after the other, and name them in ``chain.json``.

    Returns:
        exit status of the first stage that failed, or 0.
    """
    commands = stage_commands(file, row, output.parent / "stages", more)
    for number, (folder, arguments) in enumerate(commands, 1):
        if dry_run:
            say(" ".join([sys.executable, "train.py", *arguments]))
            continue
        folder.parent.mkdir(parents=True, exist_ok=True)
        with open(folder.with_name(f"{folder.name}.lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if (folder / "model" / "manifest.json").is_file():
                continue
            environment = dict(os.environ)
            if number < len(commands):
                environment = {key: value for key, value in environment.items() if key not in OF_AGENT}
            began = (folder / "checkpoints" / "last.ckpt").is_file()
            say(f"stage {number} of {len(commands)}: {folder}")
            arguments = [sys.executable, "train.py", *arguments, *["--resume=true"] * began]
            if status := subprocess.run(arguments, env=environment).returncode:
                return status
    if not dry_run:
        output.mkdir(parents=True, exist_ok=True)
        (output / "chain.json").write_text(json.dumps({"row": row, "stages": [str(f) for f, _ in commands]}) + "\n")
    return 0


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status. Arguments that are not its own go to every stage."""
    parser = CommandParser(prog="sweeps.chain", description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path, help="a chain file, with stages and rows")
    parser.add_argument("--row", type=str, required=True, help="one of its rows")
    parser.add_argument("--output", type=Path | None, default=None, help="run folder; beside it are those of stages")
    parser.add_argument("--dry_run", action="store_true", help="print the commands only")
    own = ("--row", "--output", "--dry_run")
    args = list(sys.argv[1:] if args is None else args)
    mine = [arg for arg in args if not arg.startswith("--") or arg.split("=")[0] in own]
    chosen = parser.parse_args(mine)
    output = chosen.output or agents_folder(dict(os.environ), chosen.row)
    try:
        return run_chain(chosen.file, chosen.row, output, [arg for arg in args if arg not in mine], chosen.dry_run)
    except Exception as error:
        return failed("sweeps.chain", error)


def agents_folder(environment: dict[str, str], row: str) -> Path:
    """The run folder where none is named: that of a W&B agent's run, or one named after the row."""
    if "WANDB_SWEEP_ID" in environment and "WANDB_RUN_ID" in environment:
        return Path("runs/sweeps", environment["WANDB_SWEEP_ID"], environment["WANDB_RUN_ID"])
    return Path("runs/chains", f"row-{row}")


if __name__ == "__main__":
    sys.exit(main())
