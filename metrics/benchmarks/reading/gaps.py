"""The words between two times: do they lead from the one to the other?"""

from collections.abc import Sequence

from metrics.benchmarks.reading.tokens import Token

SENTENCE_ENDS = frozenset(".!?;")
SOFT = frozenset({"filler", "and", "at", "join", "after_between"})


def cut_off(gap: Sequence[Token]) -> bool:
    """True where a text stops behind a word that leads to another time."""
    return any("join" in token.parts for token in gap) and all(
        token.parts & {"join", "mark", "filler"} for token in gap
    )


def ends(gap: Sequence[Token]) -> bool:
    """True where a sentence, or everything, ends behind a number."""
    return not gap or gap[0].parts & {"mark", "newline"}


def outside_brackets(gap: Sequence[Token]) -> list[Token]:
    """The tokens that stand in no closed pair of round brackets."""
    kept: list[Token] = []
    opened: list[int] = []
    for token in gap:
        if token.text == "(":
            opened.append(len(kept))
        elif token.text == ")" and opened:
            del kept[opened.pop() :]
            continue
        kept.append(token)
    return kept


def led(before: Sequence[Token], gap: Sequence[Token], second: Token) -> bool:
    """True for "from 12 s, when he opens the door, to 15 s": one sentence, with the joining word in front of a time."""
    if second.unit is None and second.whole or not any("from" in token.parts for token in before[-3:]):
        return False
    if any(token.text in SENTENCE_ENDS or token.parts & {"from", "between", "newline"} - {"join"} for token in gap):
        return False
    words = [token for token in gap if not token.parts & {"mark"}]
    while words and "join" not in words[-1].parts and "filler" in words[-1].parts:
        words.pop()
    return bool(words) and words[-1].text in ("to", "until", "till", "bis", "hasta", "до", "到", "至")


def joins(gap: Sequence[Token]) -> bool:
    """True where the tokens between two times lead from the one to the other."""
    found = False
    for token in gap:
        if "join" in token.parts:
            found = True
        elif token.parts & {"from", "between"}:
            return False
        elif "start" in token.parts:
            if found:
                return False
        elif not token.parts & (SOFT | {"end", "newline"}):
            return False
    return found
