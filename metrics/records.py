"""What every metric keeps: one JSON line a query, so that a score never depends on batches, order or ranks."""

import json
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

from metrics.policies import check_policy


class RecordMetric(Metric):
    """A metric that keeps one record a query and scores them all at once.

    The records are JSON lines in a uint8 tensor: text, ranked lists and missing answers pass between ranks like
    any tensor, a rank without a query is no special case, and the scored set is sorted by query id. A query id that
    came twice (samplers pad the last batch, answers of equal queries may differ in the last bit between ranks) is
    scored once, always with the record that sorts first.

    Args:
        policy: ``sound`` or ``official``.
    """

    full_state_update = False
    is_differentiable = False
    higher_is_better = True
    lines: list[Tensor]

    def __init__(self, policy: str = "sound", **kwargs):
        super().__init__(**kwargs)
        self.policy = check_policy(policy)
        self.add_state("lines", default=[], dist_reduce_fx="cat")

    def add(self, query_ids: Sequence[str], *columns: Sequence) -> None:
        """Keep one record a query.

        Args:
            query_ids: Q ids.
            columns: Q values each, anything that JSON can hold.

        Raises:
            ValueError: a column has another length than the ids.
        """
        for column in columns:
            if len(column) != len(query_ids):
                raise ValueError(f"{type(self).__name__}: {len(query_ids)} query ids but {len(column)} values")
        rows = zip(map(str, query_ids), *columns, strict=True)
        text = "".join(json.dumps(row, default=plain, sort_keys=True) + "\n" for row in rows)
        data = torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8) if text else empty()
        self.lines.append(data.to(self.device))

    def sync(self, *args, **kwargs) -> None:
        """Gather the records of all ranks; a rank without any takes part with an empty tensor."""
        if isinstance(self.lines, list) and not self.lines:
            self.lines.append(empty(self.device))
        super().sync(*args, **kwargs)

    def records(self) -> dict[str, list]:
        """Query id -> the values of its record, sorted by query id."""
        data = dim_zero_cat(self.lines) if len(self.lines) else empty()
        records: dict[str, list] = {}
        for line in sorted(bytes(data.cpu().numpy()).decode().splitlines()):
            query_id, *values = json.loads(line)
            records.setdefault(query_id, values)
        return dict(sorted(records.items()))

    def tensors(self, scores: Mapping[str, float]) -> dict[str, Tensor]:
        """Scores as float64 scalars."""
        return {name: torch.tensor(float(score), dtype=torch.float64) for name, score in scores.items()}


class AnswerMetric(RecordMetric):
    """A metric that compares an answer with a target, one of each a query."""

    def update(self, query_ids: Sequence[str], predictions: Sequence[Sequence | None], targets: Sequence) -> None:
        """Keep the answers of Q queries.

        Args:
            query_ids: Q ids; a query that was seen before is not counted again.
            predictions: Q lists of windows (start, end), (start, end, score) or (start, end, caption), best first
                where there is a rank; None: unparsed, []: missing.
            targets: Q lists of windows (start, end), or (start, end, caption).
        """
        self.add(query_ids, predictions, targets)

    def columns(self) -> tuple[list, list]:
        """The predictions and the targets, in the order of the query ids."""
        records = self.records().values()
        return [row[0] for row in records], [row[1] for row in records]

    def by_query(self) -> tuple[dict, dict]:
        """Query id -> prediction, and -> target."""
        records = self.records()
        return {name: row[0] for name, row in records.items()}, {name: row[1] for name, row in records.items()}


def plain(value: object) -> object:
    """A tensor or an array as nested lists, for JSON."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise ValueError(f"cannot keep {value!r} in a record; use numbers, text and lists of them")


def empty(device: torch.device | str = "cpu") -> Tensor:
    """No record."""
    return torch.empty(0, dtype=torch.uint8, device=device)
