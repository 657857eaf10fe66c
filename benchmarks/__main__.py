"""Every benchmark by one command: python -m benchmarks [--only stages --output benchmarks.json].

``stages`` has the table of training, reading and answering with the machine's limits, ``extraction`` adds rows to it,
and the others print their own tables. Each runs alone by its name.
"""

import json
import os
import platform
import runpy
import sys
from pathlib import Path

import peft
import torch
import transformers
from jsonargparse import auto_cli

from benchmarks import extraction
from benchmarks.stages import SIZES, measure, show

TABLE = ("stages", "extraction")
"""Those of one table."""
OTHERS = ("growth", "padding", "shared_video", "generation", "experts", "online", "startup")
"""``scoring`` needs published annotations: python -m benchmarks.scoring."""


def machine() -> dict:
    """Where numbers come from."""
    found = {"system": platform.platform(), "cores": os.cpu_count(), "threads": torch.get_num_threads()}
    if torch.cuda.is_available():
        found |= {"device": torch.cuda.get_device_name(), "memory_gb": torch.cuda.mem_get_info()[1] / 1e9}
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    return found | versions | {"transformers": transformers.__version__, "peft": peft.__version__}


def main(only: list[str] | None = None, output: Path = Path("benchmarks.json"), size: str | None = None) -> None:
    """Run benchmarks, print their tables, and write the numbers of the table.

    Args:
        only: names of benchmarks; None: on a CPU all, on CUDA ``stages``, which fills a table in ten minutes.
        output: JSON with the machine, versions, limits and rows of the table.
        size: of ``stages``, see there.

    Raises:
        ValueError: there is no benchmark of a name.
    """
    cuda = torch.cuda.is_available()
    names = only or (["stages"] if cuda else [*TABLE, *OTHERS])
    if unknown := set(names) - {*TABLE, *OTHERS}:
        known = ", ".join([*TABLE, *OTHERS])
        raise ValueError(f"no benchmark is named {', '.join(sorted(unknown))}; there are {known}")
    found = {"limits": {}, "rows": []}
    if "stages" in names:
        found = measure(SIZES[size or ("large" if cuda else "small")], torch.device("cuda" if cuda else "cpu"), 3)
    if "extraction" in names:
        found["rows"] += extraction.measure()
    if found["rows"]:
        show(found)
        output.write_text(json.dumps({"machine": machine(), **found}, indent=2))
        print(f"written: {output}")
    given = sys.argv
    for name in (name for name in names if name not in TABLE):
        sys.argv = [name]
        try:
            runpy.run_module(f"benchmarks.{name}", run_name="__main__")
        finally:
            sys.argv = given


if __name__ == "__main__":
    auto_cli(main)
