"""What it costs to start: CPU seconds of a command, as a ratio to ``python -c 'import numpy'``.

python -m benchmarks.startup [--training]

Made-up sets of the sizes of Charades-STA (3720 moments) and NExT-GQA (5553 questions) are scored, from windows and
from answers in text. Each command is a process of its own; of several runs, which take turns, the quickest counts, so
that other work on the machine disturbs little.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parent.parent
ROUND = "{round}"
"""Stands in a command line for the number of the round."""
SIZES = {"charades_sta": 3720, "nextgqa": 5553}


def charades(folder: Path, size: int) -> dict[str, list[str]]:
    """Command lines that score windows and answers in text."""
    rng = random.Random(0)
    truth, windows, texts = {}, [], []
    for k in range(size):
        start, length = round(rng.uniform(0, 20), 1), round(rng.uniform(2, 9), 1)
        entry = truth.setdefault(f"v{k // 3}", {"duration": 30.0, "timestamps": [], "sentences": []})
        entry["timestamps"].append([start, round(start + length, 1)])
        entry["sentences"].append(f"person opens door {k}.")
        about, end = {"vid": f"v{k // 3}", "query": f"person opens door {k}."}, round(start + length + 1, 1)
        windows.append({**about, "pred": [start, end]})
        texts.append({**about, "answer": f"The event happens from {start}s to {end} seconds."})
    (folder / "charades.json").write_text(json.dumps(truth))
    lines = {}
    for name, rows in (("windows", windows), ("text", texts)):
        path = folder / f"charades_{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        lines[f"score charades_sta, {size} answers ({name})"] = [
            "--benchmark=charades_sta", f"--predictions={path}", f"--annotations={folder / 'charades.json'}",
        ]  # fmt: skip
    return lines


def nextgqa(folder: Path, size: int) -> dict[str, list[str]]:
    """A command line that scores NExT-GQA's two files."""
    rng = random.Random(0)
    truth, ground, answers = {}, {}, {}
    for k in range(size):
        start = round(rng.uniform(0, 30), 1)
        truth.setdefault(f"v{k // 4}", {"duration": 40, "location": {}})["location"][str(k % 4)] = [[start, start + 5]]
        ground[f"v{k // 4}_{k % 4}"] = [start + 1, start + 7]
        answers[f"v{k // 4}_{k % 4}"] = {"answer": 1, "prediction": rng.randrange(2)}
    for name, content in (("truth", truth), ("ground", ground), ("res", answers)):
        (folder / f"{name}.json").write_text(json.dumps(content))
    both = f"[{folder / 'ground.json'}, {folder / 'res.json'}]"
    line = ["--benchmark=nextgqa", f"--predictions={both}", f"--annotations={folder / 'truth.json'}"]
    return {f"score nextgqa, {size} answers": line}


def training(folder: Path) -> dict[str, list[str]]:
    """Command lines that import what training stands on, and train a tiny model for a step."""
    from preparation.world.synthetic import World, write_world
    from preparation.world.tiny import save_tiny_lm, tiny_lm, tiny_tokenizer

    write_world(folder / "world", World(frames=16, width=8), images=2, train=8, val=2, test=2)
    texts = [path.read_text() for path in (ROOT / "datamodules" / "templates").glob("*.yaml")]
    tokenizer = tiny_tokenizer([*texts, *(path.read_text() for path in (folder / "world").glob("*.jsonl"))])
    save_tiny_lm(folder / "llm", tiny_lm(len(tokenizer), width=32, layers=2, heads=2), tokenizer)
    data = f"[{{shards: {folder}/world/videos, queries: {folder}/world/stage2.jsonl}}]"
    step = [
        "--model=BoundaryPerception", f"--model.llm={folder / 'llm'}", "--model.localizer=TextTimestamps",
        "--model.feature_width=8", "--model.tune_adapter=true", f"--data.train={data}", "--data.num_workers=0",
        "--trainer.max_steps=1", "--trainer.logger=false", f"--output={folder / 'run'}{ROUND}",
    ]  # fmt: skip
    libraries = {name: f"import {name}" for name in ("lightning", "torch, lightning, transformers, peft")}
    imports = {line: [sys.executable, "-c", line] for line in libraries.values()}
    script = [sys.executable, "train.py"]
    return imports | {"train.py --help": [*script, "--help"], "train.py, one step": [*script, *step]}


def cpu_seconds(command: list[str]) -> float:
    """CPU seconds of a process and its children."""
    before = os.times()
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--share", type=float, default=1.0, help="share of the sizes of the sets")
    parser.add_argument("--training", action="store_true", help="also train.py; some ten seconds a round and command")
    arguments = parser.parse_args()
    table = Table("command", "CPU s", "x import numpy")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scored = {}
        for kind, make in (("charades_sta", charades), ("nextgqa", nextgqa)):
            scored |= make(folder, max(int(SIZES[kind] * arguments.share), 1))
        script = [sys.executable, "evaluate.py"]
        commands = {
            "import numpy": [sys.executable, "-c", "import numpy"],
            "evaluate.py --help": [*script, "--help"],
            "evaluate.py score --help": [*script, "score", "--help"],
            **{name: [*script, "score", *line] for name, line in scored.items()},
        }
        commands |= training(folder) if arguments.training else {}
        rounds = [
            {name: cpu_seconds([word.replace(ROUND, str(number)) for word in line]) for name, line in commands.items()}
            for number in range(arguments.rounds)
        ]
    best = {name: min(times[name] for times in rounds) for name in commands}
    for name, seconds in best.items():
        table.add_row(name, f"{seconds:.2f}", f"{seconds / best['import numpy']:.1f}x")
    Console().print(table)


if __name__ == "__main__":
    main()
