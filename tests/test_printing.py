"""What comes from files and arguments cannot steer a terminal, forge markup or end a command, wherever it is shown."""

import ast
import io
import sys
from functools import wraps
from pathlib import Path

import pytest

import ask
import prepare
import sweep
from command_line.errors import failed
from command_line.tables import PlainConsole, complain, console, print_table, print_written, say

ROOT = Path(__file__).parent.parent
NASTY = "a [/red] [bold]b[/bold] :smile: \x1b[2J\x1b]0;title\x07 \u202eright"
SHOWN = "a [/red] [bold]b[/bold] :smile: \\x1b[2J\\x1b]0;title\\x07 \\u202eright"


def printers(tree: ast.AST) -> list[int]:
    """Lines that print in another way than through ``command_line``."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rich"):
            found += [node.lineno for alias in node.names if alias.name in ("Console", "print")]
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called == "print" or called in ("sys.stdout.write", "sys.stderr.write", "rich.print"):
                found.append(node.lineno)
    return found


def test_everything_is_printed_by_the_functions_that_escape():
    rooms = {path.parent for path in ROOT.glob("*/__init__.py")} - {ROOT / "benchmarks", ROOT / "command_line"}
    files = [*ROOT.glob("*.py"), *(path for room in rooms for path in room.rglob("*.py"))]
    assert len(files) > 100
    texts = {path: path.read_text(encoding="utf-8") for path in files}
    words = ("print", "Console", ".write(")
    likely = {path: ast.parse(text) for path, text in texts.items() if any(word in text for word in words)}
    found = [f"{path.relative_to(ROOT)}:{line}" for path, tree in likely.items() for line in printers(tree)]
    assert not found, "use say, complain, print_table or console of command_line.tables"


@pytest.mark.parametrize("code", ["print(x)", "from rich.console import Console", "import sys\nsys.stderr.write(x)"])
def test_other_ways_of_printing_are_noticed(code):
    assert printers(ast.parse(code)) == [code.count("\n") + 1]


def test_texts_are_only_texts(capsys):
    for show in (say, console.print, lambda text: print_table("x", ("y",), [(text,)])):
        show(NASTY)
        assert SHOWN in " ".join(capsys.readouterr().out.replace("│", " ").split())
    print_table(NASTY, (NASTY,), [("x",)])
    assert "\x1b" not in capsys.readouterr().out
    complain("x.py", NASTY)
    assert capsys.readouterr().err == f"x.py: {SHOWN}\n"


def test_the_last_line_is_one_line(capsys):
    print_written(Path("a\nWritten: b"))
    assert capsys.readouterr().out == "Written: a\\nWritten: b\n"


def test_a_console_of_ones_own_does_the_same():
    made = PlainConsole(file=io.StringIO(), width=200)
    made.print(NASTY, markup=True, emoji=True)
    assert made.file.getvalue() == f"{SHOWN}\n"


def exceptions() -> list[type[Exception]]:
    """Every exception of Python that can be made of a text."""
    found, kinds = [], [Exception]
    while kinds:
        kind = kinds.pop()
        kinds += [sub for sub in kind.__subclasses__() if sub.__module__ == "builtins"]
        try:
            found.append(kind("words"))
        except TypeError:  # UnicodeDecodeError and others are made of more
            continue
    return found


@pytest.mark.parametrize("error", exceptions(), ids=lambda error: type(error).__name__)
def test_every_exception_is_one_line_and_status_2(error, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert failed("x.py", error) == 2
    said = capsys.readouterr().err
    assert said.startswith("x.py: error: ")
    assert said.count("\n") == 1
    assert "words" in said
    kept = list(tmp_path.iterdir())
    assert bool(kept) != isinstance(error, (ValueError, OSError))
    assert all(str(path) in said for path in kept)


@pytest.mark.parametrize(
    ("script", "inside", "args"),
    [
        (prepare, "COMMANDS", ["verify", "x"]),
        (ask, "run", ["--checkpoint=x", "v", "q"]),
        (sweep, "run", ["x.yaml", "--output=y"]),
    ],
    ids=["prepare", "ask", "sweep"],
)
def test_commands_that_return_their_status_end_so(script, inside, args, tmp_path, monkeypatch, capsys):
    @wraps(prepare.COMMANDS["verify"])
    def fail(*args, **settings):
        raise KeyError("words")

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(script, inside, {**script.COMMANDS, "verify": fail} if inside == "COMMANDS" else fail)
    monkeypatch.setattr(sys, "argv", [script.__name__])
    assert script.main(args) == 2
    assert f"{script.__name__}.py: error: KeyError: 'words' (traceback in" in capsys.readouterr().err


@pytest.mark.parametrize("script", ["train", "evaluate"])
def test_commands_that_raise_end_so_where_they_are_started(script):
    """What stands under ``__main__`` catches every Exception and hands it to ``failed``."""
    tree = ast.parse((ROOT / f"{script}.py").read_text())
    (attempt,) = (node for node in ast.walk(tree.body[-1]) if isinstance(node, ast.Try))
    assert ast.unparse(attempt.body[0]) == "main()"
    (handler,) = (one for one in attempt.handlers if ast.unparse(one.type) == "Exception")
    assert f"failed('{script}.py', error" in ast.unparse(handler)
