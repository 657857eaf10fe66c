"""A tiny language model and a tiny world, made once a session with the real classes and file layouts."""

import importlib.util
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from warm_python import warm_python

import prepare
import train
from lightning_modules.training_cli import TrainingCLI
from models.checkpoints import Weights, read_weights
from preparation.world.rendering import render_clip
from preparation.world.synthetic import World, write_world
from preparation.world.tiny import save_tiny_lm, tiny_clip, tiny_lm, tiny_tokenizer

torch.set_num_threads(1)
os.environ.setdefault("WANDB_MODE", "offline")
ROOT = Path(__file__).parent.parent
SWITCHES = (
    "--headless=new",
    "--no-sandbox",  # CI runs as root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--mute-audio",
    "--window-size=1280,1000",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # a page that needs the network fails here
)
"""Of a headless browser."""


def pytest_collection_modifyitems(items):
    """Slow tests are run where they are asked for."""
    if os.environ.get("WHENLM_SLOW") != "1":
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(pytest.mark.skip(reason="slow; set WHENLM_SLOW=1"))


@pytest.fixture(autouse=True, scope="session")
def no_arguments_of_pytest():
    """LightningCLI warns where it gets arguments and the process has some too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["train.py"])
        yield


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder of the official numbers."""
    folder = Path(os.environ.get("WHENLM_GOLDEN_DIR", ROOT / "../shared/golden"))
    if not folder.is_dir():
        pytest.skip(f"no golden files at {folder}; set WHENLM_GOLDEN_DIR")
    return folder


@pytest.fixture(scope="session")
def real() -> Callable[[str], Path]:
    """Gives the path of a real file: ``real("annotations/charades_sta_test.json")``."""
    folder = Path(os.environ.get("WHENLM_DATA_DIR", ROOT / "../shared/data"))

    def find(name: str) -> Path:
        if not (folder / name).exists():
            pytest.skip(f"no real data at {folder / name}; set WHENLM_DATA_DIR")
        return folder / name

    return find


@pytest.fixture(scope="session")
def python(tmp_path_factory) -> Iterator[str]:
    """A Python that starts programs at once; see warm_python.py."""
    with warm_python(tmp_path_factory.mktemp("python")) as program:
        yield program


@pytest.fixture
def java():
    """Skips where captions cannot be scored."""
    if importlib.util.find_spec("pycocoevalcap") is None:
        pytest.skip("pycocoevalcap is not installed (extra captions)")
    if shutil.which("java") is None:
        pytest.skip("Java is not installed; METEOR and the PTB tokeniser need it")


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> Path:
    """A written world: 24 images, 20 training videos, 4 for validation and 6 for test."""
    folder = tmp_path_factory.mktemp("world")
    write_world(folder, World(frames=16, width=8), images=24, train=20, val=4, test=6)
    return folder


@pytest.fixture(scope="session")
def llm(world, tmp_path_factory) -> str:
    """A checkpoint folder with a random two-layer Llama that knows the world's words."""
    folder = tmp_path_factory.mktemp("llm")
    texts = [path.read_text() for path in world.glob("*.jsonl")]
    texts += [path.read_text() for path in (ROOT / "datamodules" / "templates").glob("*.yaml")]
    tokenizer = tiny_tokenizer(texts)
    save_tiny_lm(folder, tiny_lm(len(tokenizer), width=32, layers=2, heads=2), tokenizer)
    return str(folder)


@pytest.fixture(scope="session")
def arguments(world, llm) -> Callable[..., list[str]]:
    """Gives the command line of a short run of a stage: ``arguments(2, output, previous=RUN, max_steps=3)``."""

    def command_line(stage: int, output: Path, *more: str, previous: Path | None = None, max_steps: int = 4):
        kind, shards = {1: ("FeatureAlignment", "images"), 2: ("BoundaryPerception", "videos")}.get(
            stage, ("InstructionTuning", "videos")
        )
        lines = [f"--model={kind}", f"--model.llm={llm}", "--model.localizer=TextTimestamps"]
        lines += ["--model.feature_width=8", "--model.optimization.lr=1e-2", f"--output={output}"]
        lines += ["--model.chat=plain"] if stage == 1 else ["--model.lora={r: 4, alpha: 8, dropout: 0.1}"]
        lines += [f"--model.previous={previous}"] if previous else []
        lines += [f"--data.train=[{{shards: {world / shards}, queries: {world / f'stage{stage}.jsonl'}}}]"]
        lines += ["--data.batch_size=4", "--data.num_workers=0", f"--trainer.max_steps={max_steps}"]
        lines += ["--trainer.logger=false", "--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu"]
        return [*lines, "--trainer.enable_model_summary=false", *more]

    return command_line


@pytest.fixture(scope="session")
def runs(arguments, tmp_path_factory) -> dict[int, Path]:
    """Run folders of all three stages, each started from the one before."""
    folder = tmp_path_factory.mktemp("runs")
    for stage in (1, 2, 3):
        previous = folder / f"stage{stage - 1}" if stage > 1 else None
        train.main(arguments(stage, folder / f"stage{stage}", previous=previous))
    return {stage: folder / f"stage{stage}" for stage in (1, 2, 3)}


@pytest.fixture(scope="session")
def clip(tmp_path_factory) -> Path:
    """A clip of 12 s: red until 5 s, green until 9 s, then blue."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    render_clip(path)
    return path


@pytest.fixture(scope="session")
def watcher(arguments, clip, tmp_path_factory) -> Path:
    """A stage-2 run, without a stage 1, on the features that a tiny CLIP gives of the clip; the CLIP is beside it."""
    folder = tmp_path_factory.mktemp("watcher")
    tiny_clip(folder / "clip", width=8)
    features = ["--videos", str(clip.parent), "--encoder", str(folder / "clip"), "--sampling", "uniform 12"]
    assert prepare.main(["features", *features, "--output", str(folder / "shards")]) in (0, None)
    source = f"--data.train=[{{shards: {folder / 'shards'}, queries: {clip.with_suffix('.jsonl')}}}]"
    train.main(arguments(2, folder / "run", source, "--model.tune_adapter=true", max_steps=2))
    return folder / "run"


class Stop(Exception):
    """Something that goes wrong in the middle of a run."""


class StopAfterTwo(Callback):
    """Fails behind the second batch."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if batch_idx == 1:
            raise Stop


@pytest.fixture
def whole_and_parts(tmp_path) -> Callable[..., tuple[Weights, Weights]]:
    """Trains in one go, and again with a failure and a resume in between; gives both weights."""

    def trained(command_line: Callable[[Path], list[str]]) -> tuple[Weights, Weights]:
        args = {n: [*command_line(tmp_path / n), "--checkpoint.every_n_train_steps=1"] for n in ("whole", "parts")}
        train.main(args["whole"])
        cli = TrainingCLI(args["parts"])
        cli.trainer.callbacks.append(StopAfterTwo())
        with pytest.raises(Stop):
            cli.trainer.fit(cli.model, cli.datamodule)
        train.main([*args["parts"], "--resume=true"])
        return read_weights(tmp_path / "whole"), read_weights(tmp_path / "parts")

    return trained


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """Debian's Chromium with its own driver; skips where they, or their client, are not installed."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed (extra dev)")
    found = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
    if missing := [name for name, path in found.items() if path is None]:
        pytest.skip(f"no {' and no '.join(missing)}: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = found["chromium"]
    for switch in (*SWITCHES, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(found["chromedriver"]))
    yield driver
    driver.quit()
