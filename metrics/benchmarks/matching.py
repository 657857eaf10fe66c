"""Which answer is for which annotated moment? Rows are matched by what they say: video and sentence, then their id."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from metrics.benchmarks.formats.answers import Answer
from metrics.benchmarks.formats.files import FileError
from metrics.benchmarks.formats.moments import Moment
from metrics.benchmarks.formats.windows import normal, video_name


@dataclass
class Matched:
    """Answers by the id of their moment, and how they got there."""

    answers: dict[str, Answer] = field(default_factory=dict)
    unknown: int = 0
    """Answers to something that is not annotated; they are not scored."""
    by_text: int = 0
    """Answers whose id belongs to another video or sentence; video and sentence counted."""
    repeated: int = 0
    """Moments whose sentence their video has several times; answers were taken in order, one answer for all of them."""

    def report(self) -> dict:
        """Counts for the protocol; what did not happen is left out."""
        extra = {"matched_by_text": self.by_text, "repeated_sentences": self.repeated}
        return {"unknown": self.unknown, **{name: count for name, count in extra.items() if count}}


def match(answers: Sequence[Answer], moments: Sequence[Moment], path: object, last_wins: bool = False) -> Matched:
    """Give every answer to its moment.

    An id counts where it is that of an annotation and video and sentence, if the row has them, say nothing else;
    otherwise video and sentence count. Rows that have nothing but a number are matched by it only where the
    annotations have ids, or where the numbers count their records, from 0 or from 1.

    Args:
        answers: of a prediction file.
        moments: annotated.
        path: of the prediction file, for messages.
        last_wins: of several answers to one moment the last counts (evaluators that key answers by text); otherwise
            they are an error.

    Raises:
        FileError: two answers to one moment, no answer to any, or numbers that may count from 0 or from 1.
    """
    by_id = {moment.id: moment for moment in moments}
    by_text: dict[tuple[str, str], list[Moment]] = {}
    for moment in moments:
        by_text.setdefault((video_name(moment.video), normal(moment.text)), []).append(moment)
    numbers = record_numbers(answers, moments, path)
    result = Matched()
    waiting: dict[tuple[str, str], list[Answer]] = {}
    for answer in answers:
        moment = by_id.get(numbers.get(answer.id, answer.id) if answer.id is not None else None)
        if moment is not None and agrees(answer, moment):
            place(result, moment, answer, last_wins)
            continue
        key = (video_name(answer.video), normal(answer.text)) if answer.video and answer.text is not None else None
        if key in by_text:
            result.by_text += moment is not None
            waiting.setdefault(key, []).append(answer)
        else:
            result.unknown += 1
    for key, rows in waiting.items():
        share_out(result, rows, by_text[key], last_wins)
    if not result.answers:
        raise FileError(nothing_matches(answers, moments, path))
    return result


def agrees(answer: Answer, moment: Moment) -> bool:
    """True unless video or sentence of an answer are those of another moment."""
    if answer.own:
        return True
    if answer.video is not None and video_name(answer.video) != video_name(moment.video):
        return False
    return answer.text is None or not moment.text or normal(answer.text) == normal(moment.text)


def record_numbers(answers: Sequence[Answer], moments: Sequence[Moment], path: object) -> dict[str, str]:
    """Id of an answer -> id of the moment it counts to, where annotations without ids are numbered.

    Raises:
        FileError: the answers have nothing but numbers that may begin at 0 or at 1.
    """
    if any(moment.named for moment in moments) or not all(moment.id.isdecimal() for moment in moments):
        return {}
    bare = [answer.id for answer in answers if answer.id is not None and (not answer.video or answer.text is None)]
    if not bare or not all(name.isdecimal() for name in bare):
        return {}
    numbers = {int(name) for name in bare}
    if 0 in numbers and len(moments) not in numbers:
        return {str(i): moments[i].id for i in range(len(moments))}
    if 0 not in numbers and len(moments) in numbers:
        return {}
    raise FileError(
        f"{path}: its rows have only numbers, and the annotations have no ids: do they count from 0 or from 1? "
        "Add the video and the sentence to each row"
    )


def place(result: Matched, moment: Moment, answer: Answer, last_wins: bool) -> None:
    """Store an answer.

    Raises:
        FileError: the moment has an answer already.
    """
    if moment.id in result.answers and not last_wins:
        raise FileError(f"{answer.where}: {moment.id!r} has an answer already; keep one of them")
    result.answers[moment.id] = answer


def share_out(result: Matched, rows: Sequence[Answer], moments: Sequence[Moment], last_wins: bool) -> None:
    """Give rows of one sentence to its moments: one row to all of them, as many rows as moments in order.

    Raises:
        FileError: neither as many rows as moments nor one.
    """
    free = [moment for moment in moments if moment.id not in result.answers]
    targets = {answer.where: own_target(answer, free) for answer in rows}
    if len(rows) > 1 and len(free) > 1 and all(targets.values()):
        for answer in rows:
            place(result, targets[answer.where], answer, last_wins)
    elif len(rows) == 1:
        result.repeated += len(free) if len(free) > 1 else 0
        for moment in free or moments:
            place(result, moment, rows[0], last_wins)
    elif len(rows) == len(free):
        result.repeated += len(rows)
        for moment, answer in zip(free, rows, strict=True):
            place(result, moment, answer, last_wins)
    else:
        for answer in rows:
            for moment in free or moments:
                place(result, moment, answer, last_wins)


def own_target(answer: Answer, moments: Sequence[Moment]) -> Moment | None:
    """The moment whose window an answer carries itself (keys of TimeLens); None where it carries none."""
    target = answer.target
    if not isinstance(target, (list, tuple)) or not target:
        return None
    windows = [tuple(window) for window in (target if isinstance(target[0], (list, tuple)) else [target])]
    return next((moment for moment in moments if [tuple(w) for w in moment.windows] == windows), None)


def nothing_matches(answers: Sequence[Answer], moments: Sequence[Moment], path: object) -> str:
    """What to say where no answer is to an annotated moment."""
    first, wanted = answers[0], moments[0]
    found = f"video {first.video!r}, sentence {str(first.text)[:40]!r}" if first.video else f"id {first.id!r}"
    there = f"video {wanted.video!r}, sentence {wanted.text[:40]!r}, id {wanted.id!r}"
    return (
        f"{path}: none of its {len(answers)} answers is to an annotated moment (first there: {found}; "
        f"first annotated: {there})"
    )
