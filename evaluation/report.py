"""Results as the table of a paper, with curves."""

import csv
from collections.abc import Sequence
from pathlib import Path

from command_line.tables import console, print_table, print_written
from datamodules.prediction_files import read_predictions
from datamodules.query_files import read_queries
from datamodules.strict_json import read_object
from reports.exports import write_whole
from reports.measured import Row, chance_rows, read_rows
from reports.page import LOCATED, iou
from reports.paper_table import paper_table


def report(
    results: list[str],
    output: Path,
    published: str | None = None,
    columns: list[str] | None = None,
    chance: bool = False,
) -> None:
    """Put results into a paper's table, ours beside the published values, with curves.

    Args:
        results: result folders of ``benchmark`` or ``score`` and sweep folders, each as FOLDER or LABEL=FOLDER.
            Results with the same label, or whose runs differ in the seed alone, are one row with mean and spread.
        output: folder for table.md, table.csv, table.html, recall.png and learning.png.
        published: benchmark whose published numbers stand beside, for example charades_sta.
        columns: metrics of the table; default: those of the published table.
        chance: also what windows that look at no video reach on the queries of the first row.
    """
    rows = read_rows(results)
    rows += chance_rows(rows[0]) if chance else []
    table = paper_table(rows, published, columns)
    written = []
    for ending, text in (("md", table.markdown()), ("csv", table.csv()), ("html", table.html())):
        write_whole(output / f"table.{ending}", text)
        written.append(output / f"table.{ending}")
    from reports.curves import draw_curves
    from reports.recall import draw_recall

    if overlaps := {row.label: values for row in rows if (values := row_ious(row))}:
        draw_recall(output / "recall.png", overlaps)
        written.append(output / "recall.png")
    if losses := {name: points for row in rows for name, points in row_losses(row).items()}:
        draw_curves(output / "learning.png", losses)
        written.append(output / "learning.png")
    print_table(table.title, table.columns, table.rows)
    console.print(*table.footnotes, sep="\n", markup=False, highlight=False)
    print_written(*written)


def row_ious(row: Row) -> list[float]:
    """IoU of every query that asks for a moment, over all seeds; none where the files are not there any more."""
    found = []
    for folder in row.folders:
        try:
            protocol = read_object(folder / "metrics.json")["protocol"]
            queries = list(read_queries(Path(protocol["queries"]["file"])))
            answers = {one.query_id: one for one in read_predictions(folder / "predictions.jsonl")}
        except (OSError, KeyError, TypeError):
            continue
        asked = [query for query in queries if query.task in LOCATED and query.events]
        found += [iou(query, answers.get(query.id)) for query in asked]
    return found


def row_losses(row: Row) -> dict[str, Sequence[tuple[int, float]]]:
    """The training loss of each run behind a row."""
    curves = {}
    for number, folder in enumerate(row.folders):
        try:
            protocol = read_object(folder / "metrics.json")["protocol"]
            logs = sorted((Path(protocol["checkpoint"]["folder"]) / "logs").glob("metrics*.csv"))
        except (OSError, KeyError, TypeError):
            continue
        points = []
        for log in logs:
            with open(log, newline="", encoding="utf-8") as lines:
                read = (line for line in csv.DictReader(lines) if line.get("train/loss"))
                points += [(int(line["step"]), float(line["train/loss"])) for line in read]
        if points:
            curves[row.label if len(row.folders) == 1 else f"{row.label}, run {number + 1}"] = points
    return curves
