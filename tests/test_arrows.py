"""Imports point down: a room knows what lies below it, and nothing above or beside (docs/architecture.md)."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PURE = {"command_line", "metrics"}
"""They know no other room, so any other may know them."""
SHOWN = {"reports", "datamodules", *PURE}
"""Records, and how people are shown them."""
BELOW = {
    "command_line": set(),
    "metrics": set(),
    "sweeps": {"command_line"},
    "datamodules": PURE,
    "models": {"datamodules", *PURE},
    "localizers": {"models", "datamodules", *PURE},
    "reports": {"datamodules", *PURE},
    "callbacks": {"localizers", "models", *SHOWN},
    "lightning_modules": {"callbacks", "localizers", "models", *SHOWN},
    "preparation": {"localizers", "models", *SHOWN},
    "evaluation": {"preparation", "sweeps", "lightning_modules", "callbacks", "localizers", "models", *SHOWN},
    "asking": {"evaluation", "preparation", "lightning_modules", "callbacks", "localizers", "models", *SHOWN},
}
"""Room -> the rooms that its modules may import. The scripts at the top may import all of them."""
SCRIPTS = {"train": {"lightning_modules", "command_line", "reports"}}
"""A script that may not import every room: what a training run imports must do without ``preparation``."""


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of every import of a file, also of those inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def wrong_arrows(root: Path) -> list[str]:
    """``file:line: what is imported`` for every import that points up or sideways."""
    wrong = []
    files = [*root.glob("*.py"), *(path for room in BELOW for path in (root / room).rglob("*.py"))]
    for path in sorted(files):
        place = path.relative_to(root)
        room = place.parts[0] if len(place.parts) > 1 else place.stem
        allowed = (BELOW | SCRIPTS).get(room)
        if allowed is None:
            continue
        for line, name in imported(path):
            target = name.split(".")[0]
            up = target in BELOW and target != room and target not in allowed
            if up or (name.startswith("metrics.benchmarks") and place.parent == Path("metrics")):
                wrong.append(f"{place}:{line}: imports {name}")
    return wrong


def test_every_room_is_known():
    rooms = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"benchmarks"}
    assert rooms == set(BELOW)


def test_imports_point_down():
    assert not wrong_arrows(ROOT)


@pytest.mark.parametrize(
    ("file", "content", "found"),
    [
        ("datamodules/a.py", "import os\nfrom localizers import base\n", "2: imports localizers.base"),
        ("models/a.py", "def f():\n    import preparation.world.tiny\n", "2: imports preparation.world.tiny"),
        ("lightning_modules/a.py", "from preparation import features\n", "1: imports preparation.features"),
        ("preparation/b/a.py", "from lightning_modules import Baseline\n", "1: imports lightning_modules.Baseline"),
        ("metrics/a.py", "from metrics.benchmarks import answers\n", "1: imports metrics.benchmarks.answers"),
        ("metrics/benchmarks/a.py", "from datamodules.schema import Query\n", "1: imports datamodules.schema.Query"),
        ("train.py", "import preparation\n", "1: imports preparation"),
    ],
)  # fmt: skip
def test_an_arrow_that_runs_up_is_named_with_file_and_line(tmp_path, file, content, found):
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text(content)
    assert wrong_arrows(tmp_path) == [f"{file}:{found}"]
