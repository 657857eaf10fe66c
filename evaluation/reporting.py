"""What every evaluation by queries leaves behind: numbers beside those of chance, and pictures of the answers."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from callbacks.spans import draw_spans
from command_line.tables import console, print_written
from datamodules.prediction import Prediction
from datamodules.schema import Query
from datamodules.shards import ShardReader
from evaluation.chance import baselines, collapse_scores, lengths_s, spans
from evaluation.results import metrics_table
from lightning_modules.scoring import all_scores
from reports.timelines import Row, draw_timelines

Answered = Sequence[tuple[Query, Prediction | None]]


def scores_of(answered: Answered, reader: ShardReader) -> dict[str, float]:
    """The metrics of each task, and how far the answers fall into one."""
    return all_scores(answered) | collapse_scores(spans(answered, lengths_s(answered, reader)))


def write_report(
    output: Path,
    answered: Answered,
    reader: ShardReader,
    scores: Mapping[str, float],
    protocol: Mapping,
    title: str,
    costs: Mapping[str, float] | None = None,
) -> None:
    """Write metrics.json, cost.json, timelines.png and, where moments were asked for, spans.png; print the table.

    Args:
        output: their folder.
        answered: queries and answers.
        reader: of their videos.
        scores: see ``scores_of``.
        protocol: what the numbers depend on.
        title: of the table.
        costs: see ``evaluation.cost``; None: not measured.
    """
    lengths = lengths_s(answered, reader)
    beside = baselines(answered, lengths)
    report = {"metrics": scores, "baselines": beside, "protocol": protocol}
    (output / "metrics.json").write_text(json.dumps(report, indent=2) + "\n")
    if costs is not None:  # a file of its own: the same run does not take the same time again
        (output / "cost.json").write_text(json.dumps(costs, indent=2) + "\n")
    draw_timelines(output / "timelines.png", timeline_rows(answered, reader))
    if lengths:
        draw_spans(output / "spans.png", spans(answered, lengths))
    console.print(metrics_table(scores, title, beside=beside))
    print_written(output)


def timeline_rows(answered: Answered, reader: ShardReader) -> list[Row]:
    """Rows for ``draw_timelines``, spread over the queries; lengths that these leave out are those of the videos."""
    rows = [(query, answer) for query, answer in answered if answer]
    rows = rows[:: max(1, len(rows) // 12)]
    return [(query, answer, query.duration_s or reader.duration_s(query.video)) for query, answer in rows]
