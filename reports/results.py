"""What a model said about a video, as an object that prints as a table and draws itself in a notebook."""

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Column, Table

from command_line.tables import PlainConsole, shown
from datamodules.prediction import Prediction
from datamodules.schema import Query
from reports.escaping import escaped

TIMED = ("grounding", "dense_captioning", "grounded_qa")
"""Tasks whose answer should name a time."""


@dataclass(frozen=True)
class Moment:
    """A part of a video."""

    start_s: float
    end_s: float
    score: float = 1.0
    """How likely it is, where the model says so; moments of one answer can be compared by it."""
    caption: str = ""
    """What happens in it (events of a description)."""

    def __str__(self) -> str:
        return f"{self.start_s:.1f}-{self.end_s:.1f} s"


@dataclass(frozen=True)
class Moments(Sequence):
    """What was found for one question about one video: a sequence of ``Moment``, best first; events in their order."""

    query: Query
    prediction: Prediction
    duration_s: float
    """Of the video."""
    file: Path | None = None

    @property
    def text(self) -> str:
        """What the model said, in its own words; of a multiple-choice question the option that it chose."""
        option = self.prediction.option
        return self.prediction.answer if option is None else self.query.options[option]

    @property
    def moments(self) -> tuple[Moment, ...]:
        """All of them."""
        captions = self.prediction.captions or ("",) * len(self.prediction.spans)
        return tuple(Moment(*span, caption) for span, caption in zip(self.prediction.spans, captions, strict=True))

    def best(self, most: int) -> tuple[Moment, ...]:
        """The first ``most``; of a description all events, which are no alternatives to each other."""
        return self.moments if self.query.task == "dense_captioning" else self.moments[:most]

    def __getitem__(self, place):
        return self.moments[place]

    def __len__(self) -> int:
        return len(self.prediction.spans)

    def __iter__(self) -> Iterator[Moment]:
        return iter(self.moments)

    def __str__(self) -> str:
        return printed(answers_table([self], most=len(self)))

    def _repr_html_(self) -> str:
        """For notebooks: a timeline, and a table behind it."""
        bars = "".join(self._bar(moment, alpha) for moment, alpha in zip(self, opacities(self.prediction), strict=True))
        rows = "".join(
            f"<tr><td>{moment.start_s:.1f}</td><td>{moment.end_s:.1f}</td><td>{moment.score:.2f}</td>"
            f"<td>{escaped(moment.caption)}</td></tr>"
            for moment in self
        )
        head = "<tr><th>from (s)</th><th>to (s)</th><th>score</th><th></th></tr>"
        return (
            f"<div><b>{escaped(self.query.title)}</b> in {escaped(self.query.video)}, {self.duration_s:.1f} s"
            f"<br>{escaped(self.text)}"
            f'<div style="position:relative;height:18px;background:#8883;max-width:800px">{bars}</div>'
            f"<table>{head}{rows}</table></div>"
        )

    def _bar(self, moment: Moment, alpha: float) -> str:
        left, width = (100 * part / self.duration_s for part in (moment.start_s, moment.end_s - moment.start_s))
        style = f"position:absolute;top:0;height:18px;left:{left:.3f}%;width:{max(width, 0.3):.3f}%"
        return f'<div title="{escaped(moment)}" style="{style};background:#d5703a;opacity:{alpha:.2f}"></div>'


class Scores(Mapping):
    """Metrics by name, with what they depend on.

    Args:
        metrics: name -> value.
        protocol: everything that the values depend on.
        title: what was scored.
    """

    def __init__(self, metrics: Mapping[str, float], protocol: Mapping, title: str = ""):
        self._metrics, self.protocol, self.title = dict(metrics), dict(protocol), title

    def __getitem__(self, name: str) -> float:
        return self._metrics[name]

    def __len__(self) -> int:
        return len(self._metrics)

    def __iter__(self) -> Iterator[str]:
        return iter(self._metrics)

    def __str__(self) -> str:
        table = Table("metric", Column("value", justify="right"), title=shown(self.title))
        for name, value in self.items():
            table.add_row(name, f"{value:.4f}" if isinstance(value, float) else str(value))
        return printed(table)

    def _repr_html_(self) -> str:
        rows = "".join(f"<tr><td>{escaped(name)}</td><td>{value:.4f}</td></tr>" for name, value in self.items())
        return f"<table><caption>{escaped(self.title)}</caption><tr><th>metric</th><th>value</th></tr>{rows}</table>"


def opacities(prediction: Prediction) -> list[float]:
    """Of each span: its score as a share of the best one; 1 for events, which are no alternatives to each other."""
    if prediction.task == "dense_captioning" or not prediction.spans:
        return [1.0] * len(prediction.spans)
    best = prediction.spans[0][2]
    return [1.0, *(min(max(score / best, 0.0), 1.0) if best > 0 else 0.2 for _, _, score in prediction.spans[1:])]


def answers_table(results: Sequence[Moments], most: int = 3) -> Table:
    """One line a moment, of each answer the first ``most`` and all its events; how many more there are is said."""
    columns = ("video", "asked", Column("from (s)", justify="right"), Column("to (s)", justify="right"))
    table = Table(*columns, Column("score", justify="right"), "says", expand=False)
    for column in table.columns:
        column.overflow = "fold"
    for result in results:
        moments = result.best(most)
        names = [shown(result.query.video), shown(result.query.title)]
        if not moments:
            lost = result.prediction.rule is None and result.query.task in TIMED
            said = f"{shown(result.text)} (no time could be read)" if lost else shown(result.text)
            table.add_row(*names, "-", "-", "-", said.strip())
        for number, moment in enumerate(moments):
            said = shown(moment.caption) if moment.caption else shown(result.text) if number == 0 else ""
            times = f"{moment.start_s:.1f}", f"{moment.end_s:.1f}", f"{moment.score:.2f}"
            table.add_row(*(names if number == 0 else ("", "")), *times, said)
        if rest := len(result) - len(moments):
            table.add_row("", "", "", "", "", f"and {rest} less likely")
        table.add_section()
    return table


def printed(*parts: Table | str, width: int = 110) -> str:
    """What a console would print, as text."""
    console = PlainConsole(file=io.StringIO(), width=width)
    console.print(*parts, markup=False, highlight=False, sep="\n")
    return console.file.getvalue().rstrip("\n")
