"""What a person meets at the door: the texts, their links, the licence, and how it is installed."""

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TEXTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


@pytest.mark.parametrize("text", TEXTS, ids=lambda path: path.name)
def test_links_lead_somewhere(text):
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)", text.read_text())
    assert not [link for link in links if not (text.parent / link).exists()]


@pytest.mark.parametrize("text", ["README.md", "CONTRIBUTING.md", "docs/architecture.md"])
def test_files_that_are_named_exist(text):
    named = re.findall(r"`((?:\w+/)*\w+\.py|(?:\w+/)+)`", (ROOT / text).read_text())
    places = [ROOT, *(path.parent for path in ROOT.glob("*/__init__.py")), *ROOT.glob("preparation/*/")]
    wrong = [name for name in named if "NAME" not in name and not any((place / name).exists() for place in places)]
    assert len(named) > 5 and not wrong


def test_every_room_is_on_the_map():
    text = (ROOT / "README.md").read_text()
    rooms = [path.parent.name for path in ROOT.glob("*/__init__.py")]
    assert not [room for room in rooms if f"| `{room}/`" not in text]


def test_the_licence():
    assert "Apache License" in (ROOT / "LICENSE").read_text()
    assert 'license = "Apache-2.0"' in (ROOT / "pyproject.toml").read_text()


def test_building_a_wheel_says_that_there_is_none(tmp_path):
    if find_spec("setuptools") is None:
        pytest.skip("setuptools is not installed (extra dev)")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), "."]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode and "WhenLM is used from a checkout" in done.stdout + done.stderr
    assert not list(tmp_path.iterdir())
