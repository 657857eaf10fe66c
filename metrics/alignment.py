"""Order-preserving one-to-one matching of two stories, the core of SODA.

Shapes: G reference events, N predicted events.
"""

import numpy as np


def best_order_preserving_score(gains: np.ndarray) -> float:
    """The largest sum of gains over one-to-one matchings in which no two pairs cross.

    D(i, j) = max(D(i-1, j), D(i, j-1), D(i-1, j-1) + gain(i, j)). A row of D is the running maximum of its other two
    terms, so there is one pass over the rows and no recursion.

    Args:
        gains: (G, N) non-negative.

    Returns:
        D(G, N); 0 where there is no reference or no prediction.

    Source: Fujita et al., SODA (2020), section 3.2.
    """
    return float(order_preserving_table(gains)[-1, -1])


def order_preserving_table(gains: np.ndarray) -> np.ndarray:
    """(G + 1, N + 1) table D, whose first row and column are 0."""
    gains = np.asarray(gains, dtype=np.float64)
    table = np.zeros((gains.shape[0] + 1, gains.shape[1] + 1))
    for i, row in enumerate(gains):
        np.maximum(table[i, 1:], table[i, :-1] + row, out=table[i + 1, 1:])
        np.maximum.accumulate(table[i + 1], out=table[i + 1])
    return table


def order_preserving_pairs(gains: np.ndarray, policy: str = "sound") -> list[tuple[int, int]]:
    """The pairs (reference, prediction) of the best order-preserving matching.

    ``sound`` walks back along the table: the pairs add up to D(G, N); equal sums prefer to skip the reference, then
    to skip the prediction. ``official`` reads, in each row from the last, the last cell up to the current column that
    was reached by a match, whether or not the best path goes through it. Its pairs can add up to less than D(G, N),
    and the first reference and first prediction always match if nothing earlier does.

    Args:
        gains: (G, N) non-negative.
        policy: ``sound`` or ``official``.

    Returns:
        Pairs in order.
    """
    gains = np.asarray(gains, dtype=np.float64)
    if not gains.size:
        return []
    table = order_preserving_table(gains)
    matched = table[:-1, :-1] + gains > np.maximum(table[:-1, 1:], table[1:, :-1])
    pairs = []
    i, j = gains.shape[0] - 1, gains.shape[1] - 1
    if policy == "official":
        matched[0, 0] = True
        while i >= 0 and j >= 0:
            columns = np.flatnonzero(matched[i, : j + 1])
            if len(columns):
                j = int(columns[-1])
                pairs.append((i, j))
                j -= 1
            i -= 1
        return pairs[::-1]
    while i >= 0 and j >= 0:
        if matched[i, j]:
            pairs.append((i, j))
            i, j = i - 1, j - 1
        elif table[i, j + 1] >= table[i + 1, j]:
            i -= 1
        else:
            j -= 1
    return pairs[::-1]
