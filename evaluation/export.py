"""Write this project's predictions as leaderboards and official evaluators want them."""

from pathlib import Path
from typing import Literal

from evaluation.score import check_output

FORMATS = ("qvhighlights", "nextgqa", "activitynet_captions", "timelens", "timechat", "ego4d", "etbench")
SPLITS = ("val", "test")
"""Of a zip for QVHighlights."""


def export(
    format: Literal[FORMATS],
    predictions: Path | list[Path],
    queries: Path | list[Path],
    output: Path,
) -> None:
    """Write predictions in a format of the field.

    Args:
        format: whose files.
        predictions: predictions.jsonl of this project, or its folder; for qvhighlights also two, "[val, test]", which
            are zipped as its server wants them.
        queries: the queries that were asked, as many files; for etbench the published annotation file.
        output: folder for the files.
    """
    from command_line.tables import print_made
    from metrics.benchmarks.exports import export as exported
    from metrics.benchmarks.exports import zipped

    check_output(output)
    predicted, asked = ([given] if isinstance(given, Path) else given for given in (predictions, queries))
    if len(predicted) != len(asked):
        raise ValueError(f"{len(predicted)} prediction files for {len(asked)} query files")
    if len(predicted) > 1 and (format != "qvhighlights" or len(predicted) != len(SPLITS)):
        raise ValueError("only qvhighlights takes two files, those of val and test")
    made, written = [exported(format, *pair) for pair in zip(predicted, asked, strict=True)], {}
    if len(made) == 1:
        written |= made[0][0]
    else:
        for split, (files, _) in zip(SPLITS, made, strict=True):
            written[f"hl_{split}_submission.jsonl"] = files["submission.jsonl"]
    output.mkdir(parents=True, exist_ok=True)
    for name, content in written.items():
        (output / name).write_text(content, encoding="utf-8")
    if len(made) > 1:
        (output / "submission.zip").write_bytes(zipped(written))
    for path, (_, counts) in zip(predicted, made, strict=True):
        print_made(f"{path} as {format}", output, counts | {"files": ", ".join(written)})
