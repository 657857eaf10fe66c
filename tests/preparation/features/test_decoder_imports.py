"""Whatever is imported first, and whatever was decoded before: torch multiplies matrices behind it.

Decoders bring libraries of their own. decord loads libnvblas where torch was installed from PyPI, and the first float32
product of a torch that is imported later is a segmentation fault. A build of torch for the CPU does not show it.
"""

import subprocess
import sys
from pathlib import Path

from test_extraction import render

ROOT = Path(__file__).parents[3]
ROOMS = sorted(path.parent.name for path in ROOT.glob("*/__init__.py") if path.parent.name != "benchmarks")
SCRIPTS = ["train", "evaluate", "prepare", "sweep", "quickstart"]
PRODUCT = """
import torch
a = torch.rand(64, 64)
assert torch.allclose(a @ a, (a[:, :, None] * a[None]).sum(1), atol=1e-3)
"""
IMPORT_ALL = """
import importlib, pkgutil, sys
for name in sys.argv[1:]:
    module = importlib.import_module(name)
    for part in pkgutil.walk_packages(getattr(module, "__path__", []), name + "."):
        importlib.import_module(part.name)
    loaded = {"av", "decord"} & set(sys.modules)
    assert not loaded, f"{name} loads {loaded} before a file is decoded"
"""
DECODE_FIRST = """
import sys
from pathlib import Path
from preparation.features.decoding import Sampling, Source, decode
assert "torch" not in sys.modules, "then this proves nothing"
assert len(list(decode(Source("x", Path(sys.argv[1])), Sampling(frames=2), 2))) == 2
"""


def interpreter(code: str, *arguments: str) -> None:
    """Run code in a fresh interpreter; a segmentation fault there is an error here."""
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_no_room_and_no_command_loads_a_decoder_before_it_decodes():
    """So none of them can come in torch's way, whichever is imported first; one interpreter shows it for all."""
    interpreter(IMPORT_ALL + PRODUCT, *ROOMS, *SCRIPTS)


def test_a_file_decoded_before_torch_was_ever_imported(tmp_path):
    interpreter(DECODE_FIRST + PRODUCT, str(render(tmp_path / "clip.mp4", 5)))
