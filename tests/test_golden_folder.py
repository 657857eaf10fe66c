"""Every golden file is read by a test, or there is a reason why not."""

import ast
import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.golden

TESTS = Path(__file__).parent
NOT_READ = {
    r"README\.md|.*/README\.md": "for people",
    r".*/tokenizer/.*": "read with its folder, by AutoTokenizer",
    r".*/official_layout/.*": "read with its folder, as a user of released weights does",
    r"tokens/.*": "texts that look like special tokens are not kept apart in chats yet",
    r"paradigms/compressors\..*": "compressors that are not built",
    r"paradigms/rewards\.safetensors": "of the training blocks of rewards.json, which are not built: advantages,"
    " policy_loss, difficulty, sampling, and what time_r1 pays for thoughts",
}
"""Pattern of a path in the folder -> why no test reads it."""


def named(file: Path) -> set[str]:
    """Patterns of the texts in a test file; what is filled into an f-string may be anything but a folder."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.Constant) else None for part in node.values]
            if re.search(r"\w\w", "".join(filter(None, parts)).partition(".")[0]):  # more than an ending
                found.add("".join("[^/]+" if part is None else re.escape(part) for part in parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(re.escape(node.value))
    return found


def reads(patterns: set[str], file: Path) -> bool:
    """Whether a test with these texts names the file, and the folders that it lies in."""
    whole = re.compile("|".join(patterns))
    if whole.fullmatch(file.as_posix()) or whole.fullmatch(file.with_suffix("").as_posix()):
        return True
    folders = all(whole.fullmatch(part) for part in file.parts[:-1])
    return folders and bool(whole.fullmatch(file.name) or whole.fullmatch(file.stem))


def test_every_golden_file_is_read_or_there_is_a_reason(golden):
    files = [path.relative_to(golden) for path in golden.rglob("*") if path.is_file()]
    tests = [
        named(path) for path in TESTS.rglob("test_*.py") if "golden" in path.read_text() and path != Path(__file__)
    ]
    unread = [
        file.as_posix()
        for file in files
        if not any(re.fullmatch(pattern, file.as_posix()) for pattern in NOT_READ)
        and not any(reads(patterns, file) for patterns in tests)
    ]
    assert not unread, f"no test reads {', '.join(sorted(unread))}"


def test_a_file_that_nobody_reads_is_found():
    patterns = named(TESTS / "test_golden_vtimellm.py")
    assert reads(patterns, Path("models/vtimellm/generation.json"))
    assert not reads(patterns, Path("models/vtimellm/another.json"))
    assert not reads(patterns, Path("elsewhere/vtimellm/generation.json"))
