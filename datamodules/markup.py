"""Texts in which some pieces are tokens, known by their place and not by their looks.

What data says becomes a piece of text and stays one, whatever it looks like: ``<video>`` in a caption, ``</s>`` in an
option. A token is a piece that somebody meant: the writer of a prompt template, a record whose marker has a time, a
localizer. So nothing is escaped, and nothing is ever searched for tokens but what is named to be so.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping

VIDEO = "<video>"
MARKER = re.compile(r"<[se]\d+>")
"""Stands for a time in the text of a turn."""


class Token(str):
    """A piece that is a token: a special one of the vocabulary, or what stands for the video or for a time."""

    __slots__ = ()


class Text(str):
    """What people read, and which of its pieces are tokens.

    It is a string; what the methods of strings make of it is a plain string, in which nothing is a token.

    Args:
        pieces: in order; a ``Token`` is one, a plain string is none, of a ``Text`` the pieces are taken over.
    """

    pieces: tuple[str, ...]
    """Plain strings and tokens, none of them empty."""

    def __new__(cls, *pieces: str):
        text = super().__new__(cls, "".join(pieces))
        text.pieces = tuple(part for piece in pieces for part in getattr(piece, "pieces", (piece,)) if part)
        return text

    @property
    def tokens(self) -> tuple[Token, ...]:
        """Its tokens in order."""
        return tuple(piece for piece in self.pieces if isinstance(piece, Token))

    @property
    def meant(self) -> str:
        """As long as the text; a pattern finds a token in it only where there is one."""
        return "".join(p if isinstance(p, Token) else p.replace("<", "\0") for p in self.pieces)

    def cut(self, start: int, end: int | None = None) -> "Text":
        """The part between two places; of a token that is cut through, what remains is none."""
        pieces, end = [], len(self) if end is None else end
        for piece in self.pieces:
            inside = piece[max(start, 0) : max(end, 0)]
            pieces.append(piece if inside == piece else inside)
            start, end = start - len(piece), end - len(piece)
        return Text(*pieces)

    def change(self, tokens: Mapping[str, str] | None = None, words: Callable[[str], str] = str) -> "Text":
        """With others in place of some tokens (plain strings or tokens), and with changed words between them."""
        known = tokens or {}
        return Text(*(known.get(p, p) if isinstance(p, Token) else words(p) for p in self.pieces))

    def part(self, token: str) -> list["Text"]:
        """The texts before, between and behind each of a token."""
        parts: list[list[str]] = [[]]
        for piece in self.pieces:
            if isinstance(piece, Token) and piece == token:
                parts.append([])
            else:
                parts[-1].append(piece)
        return [Text(*part) for part in parts]


def any_of(tokens: Iterable[str]) -> re.Pattern | None:
    """Pattern of any of these tokens, the longest first; None: there are none."""
    names = sorted(tokens, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, names))) if names else None


def literal(text: str, tokens: re.Pattern | None) -> Text:
    """What is written in a plain string, where ``tokens`` are meant. A ``Text`` stays as it is."""
    if isinstance(text, Text) or tokens is None:
        return Text(text)
    return Text(*_pieces(text, tokens))


def _pieces(text: str, tokens: re.Pattern) -> Iterator[str]:
    behind = 0
    for found in tokens.finditer(text):
        yield text[behind : found.start()]
        yield Token(found[0])
        behind = found.end()
    yield text[behind:]


def mark(text: Text, tokens: re.Pattern) -> Text:
    """A text in which more tokens are meant."""
    return text.change(words=lambda words: literal(words, tokens))


def without(pattern: re.Pattern, text: Text) -> Text:
    """A text without what a pattern of tokens finds in it."""
    pieces, behind = [], 0
    for found in pattern.finditer(text.meant):
        pieces.append(text.cut(behind, found.start()))
        behind = found.end()
    return Text(*pieces, text.cut(behind))


def join(separator: str, texts: Iterable[str]) -> Text:
    """Texts with a plain string between them."""
    return Text(*[piece for text in texts for piece in (separator, text)][1:])


def fill(wording: str, values: Mapping[str, str]) -> Text:
    """A wording, in which markers are tokens, with a value in place of each ``{name}``; values are not looked into."""
    pieces = re.split(r"\{([^{}]+)\}", wording)
    return Text(
        *(
            values.get(piece, f"{{{piece}}}") if place % 2 else literal(piece, MARKER)
            for place, piece in enumerate(pieces)
        )
    )
