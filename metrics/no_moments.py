"""Queries without any moment: does a model say that nothing is there, and does it say so too often?

Windows are (start, end) in seconds. Q queries.
"""

from collections.abc import Sequence

from metrics.means import Row, column_means
from metrics.spans import Windows


def no_moment_row(predicted: Windows | None, targets: Windows) -> Row:
    """Whether one answer says rightly that there is a moment, or none; in percent.

    Args:
        predicted: windows; []: the answer says that there is no moment; None: no answer could be read, which is
            never right.
        targets: windows; [] where the event does not happen.

    Returns:
        Without target ``RefusalAcc`` (100: the answer says so) and ``FalseAlarm`` (100: it names a window); with a
        target ``FalseRefusal`` (100: the answer says that it does not happen).
    """
    empty = predicted is not None and not len(predicted)
    if len(targets):
        return {"FalseRefusal": 100.0 * empty}
    return {"RefusalAcc": 100.0 * empty, "FalseAlarm": 100.0 * bool(predicted is not None and len(predicted))}


def no_moment_scores(predictions: Sequence[Windows | None], targets: Sequence[Windows]) -> dict[str, float]:
    """``RefusalAcc`` and ``FalseAlarm`` over the queries without target, ``FalseRefusal`` over the others, in percent.

    Args:
        predictions: Q lists of windows; see ``no_moment_row``.
        targets: Q lists of windows.

    Returns:
        the three shares, where there are such queries, and the counts ``n`` and ``n_without``.
    """
    rows = [no_moment_row(windows, target) for windows, target in zip(predictions, targets, strict=True)]
    return {**column_means(rows), "n": len(rows), "n_without": sum(not len(target) for target in targets)}
