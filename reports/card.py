"""The model card of a run: what it is, what it was trained on, what it reached, how to load it.

It is written from the files of the run alone: ``model/manifest.json``, ``config.yaml``, ``logs/metrics.csv``.
"""

import csv
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import yaml

from command_line.yaml_files import read_yaml
from datamodules.leakage import about, overlap
from datamodules.line_index import fingerprint
from datamodules.pairs import Queries
from datamodules.strict_json import read_object
from reports.exports import write_whole
from reports.measured import flat

CARD = "README.md"
SHOWN = ("data.", "trainer.max_", "trainer.accumulate_grad_batches", "trainer.precision", "trainer.gradient_clip_val",
         "model.init_args.optimization", "model.init_args.lora", "model.init_args.experts", "model.init_args.previous",
         "model.init_args.tune_adapter", "model.init_args.gradient_checkpointing", "seed_everything")  # fmt: skip
"""Beginnings of the settings that a card names."""
LOADING = """\
```python
import whenlm

model = whenlm.load("{folder}")
print(model.find("video.mp4", "a man opens the door"))
```

```bash
python ask.py --checkpoint {folder} video.mp4 "a man opens the door"
```
"""


@dataclass(frozen=True)
class Data:
    """One source of a run: an annotation file with its features."""

    split: str
    queries: str
    shards: str
    weight: float
    found: Queries | None
    """None: the file is not there any more, or cannot be read."""
    digest: str


def write_card(folder: Path, run: Path | None = None, results: Mapping[str, Mapping] | None = None) -> Path:
    """Write ``README.md`` into a run folder, or into a folder with exported weights.

    Args:
        folder: where it goes.
        run: run folder that the weights come from; None: ``folder`` itself.
        results: reports of ``evaluate.py`` (``metrics`` and ``protocol``) by name.

    Returns:
        the card.

    Raises:
        OSError: the run has no manifest.
    """
    run = run or folder
    text = card(folder, _manifest(folder if (folder / "manifest.json").is_file() else run), run, results or {})
    write_whole(folder / CARD, text)
    return folder / CARD


def card(folder: Path, manifest: Mapping, run: Path, results: Mapping[str, Mapping]) -> str:
    """The text of a card."""
    config = _config(run)
    base = manifest.get("base") or {}
    parts = [
        _front_matter(base),
        f"# {folder.resolve().name}\n\n{_about(manifest, base)}\n",
        f"## How to load it\n\n{LOADING.format(folder=folder.name)}",
        "## Trained on\n\n" + _data(list(sources(config))),
        "## What it reached\n\n" + _reached(run, config, results),
        "## Settings\n\n" + _settings(config),
        f"## Licence\n\n{_licence(base)}\n",
    ]
    return "\n".join(parts)


def _manifest(folder: Path) -> dict:
    inner = folder / "manifest.json"
    return read_object(inner if inner.is_file() else folder / "model" / "manifest.json")


def _config(run: Path) -> dict:
    try:
        return read_yaml(run / "config.yaml")
    except (OSError, ValueError):
        return {}


def _front_matter(base: Mapping) -> str:
    """What a hub reads of a card."""
    about = {"library_name": "peft", "tags": ["video", "temporal-grounding", "whenlm"]}
    if re.fullmatch(r"[\w.-]+/[\w.-]+", name := str(base.get("name", ""))) and not Path(name).exists():
        about["base_model"] = name
    if licence := base_licence(name):
        about["license"] = licence
    return f"---\n{yaml.safe_dump(about, sort_keys=False)}---\n"


def _about(manifest: Mapping, base: Mapping) -> str:
    localizer = str(manifest.get("localizer", {}).get("class_path", "")).rpartition(".")[2]
    settings = manifest.get("localizer", {}).get("init_args", {})
    weights, features = manifest.get("weights") or {}, manifest.get("features") or {}
    said = ", ".join(f"{name}: {value}" for name, value in settings.items())
    made = [str(features[key]) for key in ("encoder", "output", "sampling", "spatial") if features.get(key)]
    rows = {
        "stage": manifest.get("stage"),
        "says when by": f"{localizer} ({said})" if said else localizer,
        "base model": f"{base.get('name')} (fingerprint {base.get('fingerprint')})" if base else "not named",
        "weights": ", ".join(f"{name}: {value}" for name, value in weights.items()) or "the last ones",
        "features": ", ".join(made),
        "conversation format": manifest.get("chat"),
        "prompt style": manifest.get("style"),
    }
    lines = "\n".join(f"* {name}: {_code_free(value)}" for name, value in rows.items() if value)
    return f"A video language model that says when, trained with WhenLM.\n\n{lines}"


def sources(config: Mapping) -> Iterator[Data]:
    """The data of a run, by split."""
    for split in ("train", "val", "test"):
        for source in (config.get("data") or {}).get(split) or ():
            path = Path(str(source.get("queries")))
            try:
                found, digest = Queries.of_file(path), fingerprint(path)
            except (OSError, ValueError):
                found, digest = None, ""
            yield Data(split, str(path), str(source.get("shards")), source.get("weight", 1.0), found, digest)


def _data(data: list[Data]) -> str:
    if not data:
        return "The run has no config.yaml that says it.\n"
    lines = [
        "| split | annotations | SHA-256 | queries | videos | weight | features |",
        "|---|---|---|--:|--:|--:|---|",
    ]
    for one in data:
        known = one.found is not None
        counts = (len(one.found), len(np.unique(one.found.pairs.videos()))) if known else ("?", "?")
        digest = one.digest[:16] or "not there any more"
        cells = (one.split, one.queries, digest, *counts, one.weight, one.shards)
        lines.append(f"| {' | '.join(_code_free(cell) for cell in cells)} |")
    return "\n".join([*lines, "", _overlap(data), ""])


def _overlap(data: list[Data]) -> str:
    """Which evaluation videos were trained on."""
    known = [one for one in data if one.found is not None]
    training = [one.found for one in known if one.split == "train"]
    lines = []
    for one in known:
        if one.split != "train" and training:
            lines.append(
                f"Of {_code_free(one.queries)}, {overlap(chain.from_iterable(map(about, training)), one.found)}."
            )
    return "\n".join(lines) or "No evaluation set is named in the config, so no overlap was looked for."


def _reached(run: Path, config: Mapping, results: Mapping[str, Mapping]) -> str:
    parts = []
    if metrics := validation(run / "logs"):
        parts.append(_metrics("Validation during training, last value", metrics))
        parts.append(f"Protocol:\n\n{_validated(config)}\n")
    for name, report in results.items():
        facts = flat({key: value for key, value in report["protocol"].items() if key != "versions"})
        protocol = "\n".join(f"* {key}: {_code_free(value)}" for key, value in facts.items() if value not in (None, ""))
        parts.append(f"{_metrics(name, report['metrics'])}\nProtocol:\n\n{protocol}\n")
    return "\n".join(parts) or "Nothing was measured yet: `evaluate.py benchmark` does that.\n"


def _validated(config: Mapping) -> str:
    """What the validation of a run depends on."""
    asked = [str(source.get("queries")) for source in (config.get("data") or {}).get("val") or ()]
    model = (config.get("model") or {}).get("init_args") or {}
    facts = flat({"queries": ", ".join(map(_code_free, asked)), "generation": model.get("generation") or {}})
    facts |= {"limit_val_batches": (config.get("trainer") or {}).get("limit_val_batches")}
    told = {
        name: value if name == "queries" else _code_free(value) for name, value in facts.items() if value is not None
    }
    return "\n".join(f"* {name}: {value}" for name, value in told.items())


def _metrics(title: str, metrics: Mapping[str, float]) -> str:
    lines = [f"| {_code_free(name)} | {value:.2f} |" for name, value in metrics.items()]
    return "\n".join([f"{_code_free(title)}:", "", "| metric | value |", "|---|--:|", *lines, ""])


def validation(logs: Path) -> dict[str, float]:
    """The last value of every validation metric in the logs of a run."""
    found: dict[str, float] = {}
    for log in sorted(logs.glob("metrics*.csv")):
        with open(log, newline="", encoding="utf-8") as lines:
            for row in csv.DictReader(lines):
                found |= {name: float(row[name]) for name in row if name and name.startswith("val/") and row[name]}
    return found


def _settings(config: Mapping) -> str:
    shown = {name: value for name, value in flat(config).items() if name.startswith(SHOWN) and value is not None}
    for split in ("train", "val", "test"):
        shown.pop(f"data.{split}", None)
    return "\n".join(f"* {name}: {_code_free(value)}" for name, value in shown.items()) + "\n"


def base_licence(name: str) -> str:
    """What the card of a base model says of its licence; empty where that is not known here. Nothing is downloaded."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    place = Path(name) / CARD
    if name and not place.is_file():
        try:
            place = Path(str(try_to_load_from_cache(name, CARD) or ""))
        except HFValidationError:
            return ""
    if not place.is_file():
        return ""
    found = re.match(r"---\n(.*?)\n---", place.read_text(encoding="utf-8", errors="replace"), re.DOTALL)
    line = re.search(r"^license:\s*[\"']?([\w.-]+)", found[1], re.MULTILINE) if found else None
    return line[1] if line else ""


def _licence(base: Mapping) -> str:
    name = base.get("name") or "the base model"
    said = base_licence(str(base.get("name", "")))
    return (
        f"{_code_free(name)} is under {said}; " if said else f"The licence of {_code_free(name)} is not known here; "
    ) + "these weights are of no use without it. Data sets have licences of their own."


def _code_free(value: object) -> str:
    """A value inside a line or a cell of Markdown: nothing in it is markup, and of a path only the end is told."""
    text = " ".join(str(value).split())
    if text.startswith("/"):
        text = "/".join(Path(text).parts[-2:])
    return re.sub(r"([\\`*\[\]<>|])", r"\\\1", text)
