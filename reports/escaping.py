"""Text from files and models, made harmless for a page. For a terminal see ``command_line.tables``."""

import html
import json
import os
from pathlib import Path
from urllib.parse import quote


def escaped(text: object) -> str:
    """Text as it may stand in an HTML element or in a quoted attribute."""
    return html.escape(str(text), quote=True)


def script_json(content: object) -> str:
    """JSON as it may stand in a ``<script type="application/json">`` element: nothing in it can end the element.

    Raises:
        ValueError: a number is not finite.
    """
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character, code in {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}.items():
        text = text.replace(character, code)
    return text.encode("utf-8", "replace").decode()  # a name that is no UTF-8 is shown with question marks


def relative_link(file: Path, folder: Path) -> str:
    """The URL of a file as a page in ``folder`` links to it, whatever bytes the names are made of."""
    return quote(os.fsencode(os.path.relpath(Path(file).absolute(), Path(folder).absolute())))
