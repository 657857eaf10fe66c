"""The localizer that docs/new-localizer.md builds, with its config, as a reader of the page has it."""

import re
import sys
import types
from pathlib import Path

import localizers

PAGE = Path(__file__).parent.parent / "docs" / "new-localizer.md"
NAME = "localizers.frame_pointers"


def block(language: str) -> str:
    """The only block of a language on the page."""
    (found,) = re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return found


def module() -> types.ModuleType:
    """Where a command line finds it. It stays there: jsonargparse remembers its class."""
    if NAME not in sys.modules:
        made = sys.modules[NAME] = localizers.frame_pointers = types.ModuleType(NAME)
        exec(compile(block("python"), str(PAGE), "exec"), made.__dict__)
    return sys.modules[NAME]
