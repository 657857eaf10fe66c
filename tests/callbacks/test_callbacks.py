"""What callbacks write, count and leave alone."""

from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from callbacks.curves import LossCurves
from callbacks.predictions import PredictionWriter
from callbacks.randomness import StepRandomness
from callbacks.resuming import WholeSteps
from callbacks.skipped import SkippedData
from callbacks.step_log import StepLog
from callbacks.throughput import Throughput
from callbacks.training_data import TrainingData, leakage
from datamodules.prediction import Prediction
from datamodules.schema import Event, Query
from localizers.text_timestamps import TextTimestamps
from reports.curves import draw_curves


class Logger:
    def __init__(self):
        self.logged = []

    def log_metrics(self, metrics, step=None):
        self.logged.append((metrics, step))

    def save(self):
        pass


def trainer(**settings) -> SimpleNamespace:
    known = {"world_size": 1, "global_rank": 0, "is_global_zero": True, "global_step": 0, "current_epoch": 0}
    return SimpleNamespace(**known | {"loggers": [Logger()], "datamodule": SimpleNamespace()} | settings)


def prediction(name: str, **settings) -> Prediction:
    return Prediction(name, "v", "grounding", **{"answer": "From 10 to 20.", "spans": ((1.0, 2.0, 1.0),)} | settings)


def test_predictions_are_written_once_each_in_order(tmp_path):
    writer = PredictionWriter(tmp_path / "new" / "folder")
    for outputs in ([prediction("b"), prediction("a")], [], [prediction("b", answer="again"), prediction("c\u2028é")]):
        writer.on_test_batch_end(trainer(), None, outputs, None, 0)
    writer.on_test_end(trainer(), None)
    written = (tmp_path / "new" / "folder" / "predictions.jsonl").read_text(encoding="utf-8").split("\n")
    assert [line.split('"')[3] for line in written[:-1]] == ["a", "b", "c\u2028é"]
    assert "again" not in written[1]
    assert list(writer.predictions) == ["a", "b", "c\u2028é"]
    PredictionWriter(None).on_test_end(trainer(), None)


def test_only_rank_0_writes(tmp_path):
    PredictionWriter(tmp_path / "none").on_test_end(trainer(is_global_zero=False), None)
    assert not (tmp_path / "none").exists()


def test_skips_add_up(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    skipped, run = SkippedData(), trainer(datamodule=SimpleNamespace(skipped=Counter({"video not in shards": 3})))
    for counts in ({"truncated": 2}, {}, {"truncated": 1, "damaged": 1}):
        skipped.on_train_batch_end(run, None, None, SimpleNamespace(counts=Counter(counts)), 0)
    skipped.on_fit_end(run, None)
    lines = capsys.readouterr().out.splitlines()
    for reason, count in (("video not in shards", 3), ("truncated", 3), ("damaged", 1)):
        (line,) = [line for line in lines if reason in line]
        assert line.split()[-2] == str(count)


def test_nothing_skipped_says_nothing(capsys):
    SkippedData().on_fit_end(trainer(), None)
    assert capsys.readouterr().out == ""


def test_skips_survive_a_resume():
    skipped, resumed = SkippedData(), SkippedData()
    skipped.on_train_batch_end(trainer(), None, None, SimpleNamespace(counts=Counter({"damaged": 2})), 0)
    resumed.load_state_dict(skipped.state_dict())
    resumed.on_train_batch_end(trainer(), None, None, SimpleNamespace(counts=Counter({"damaged": 1})), 0)
    assert resumed.total() == {"damaged": 3}
    assert resumed.state_dict() == {"counts": {"damaged": 3}}


def test_curves_are_those_of_the_losses(tmp_path):
    curves = LossCurves()
    for step, value in enumerate((3.0, 2.0, 1.0)):
        curves.log_metrics({"train/lm_loss": value, "train/grad_norm": 9.0, "lr": 1.0}, step=step)
    assert curves.losses == {"lm_loss": [(0, 3.0), (1, 2.0), (2, 1.0)]}
    curves.on_fit_end(trainer(default_root_dir=str(tmp_path)), None)
    assert Image.open(tmp_path / "curves.png").size[0] > 300


def test_curves_survive_a_resume():
    curves, resumed = LossCurves(), LossCurves()
    curves.log_metrics({"train/loss": 3.0}, step=0)
    resumed.load_state_dict(curves.state_dict())
    resumed.log_metrics({"train/loss": 2.0}, step=1)
    assert resumed.losses == {"loss": [(0, 3.0), (1, 2.0)]}


def test_nothing_learned_draws_nothing(tmp_path):
    LossCurves().on_fit_end(trainer(default_root_dir=str(tmp_path)), None)
    assert list(tmp_path.iterdir()) == []
    draw_curves(tmp_path / "deep" / "one.png", {"loss": [(1, 2.0)]})
    assert (tmp_path / "deep" / "one.png").is_file()


def test_randomness_is_a_function_of_the_place(monkeypatch):
    def draw(seed="0", rank=0, epoch=0, batch=0) -> float:
        monkeypatch.setenv("PL_GLOBAL_SEED", seed)
        StepRandomness().on_train_batch_start(trainer(global_rank=rank, current_epoch=epoch), None, None, batch)
        return torch.rand(1).item()

    assert draw() == draw()
    assert draw() == pytest.approx(0.0315, abs=1e-4)  # in every process, whatever its hash seed
    places = [{"seed": "1"}, {"rank": 1}, {"epoch": 1}, {"batch": 1}, {"rank": 1, "epoch": 1}, {}]
    assert len({draw(**place) for place in places}) == len(places)


@pytest.mark.parametrize(
    ("processed", "completed", "accumulate", "kept"),
    [(7, 6, 4, 4), (8, 7, 4, None), (8, 8, 4, None), (3, 3, 4, 0), (7, 7, 1, None), (10, 9, 4, None)],
)
def test_checkpoints_stand_behind_whole_steps(processed, completed, accumulate, kept):
    """An epoch of ten batches, the second one; its last batches make a step of their own."""
    progress = {
        key: {"ready": n + processed, "started": n + processed, "processed": n + processed, "completed": n + completed}
        for key, n in (("total", 10), ("current", 0))
    }
    before = {key: dict(counts) for key, counts in progress.items()}
    checkpoint = {"loops": {"fit_loop": {"epoch_loop.batch_progress": progress}}}
    run = trainer(num_training_batches=10, accumulate_grad_batches=accumulate)
    WholeSteps().on_save_checkpoint(run, None, checkpoint)
    if kept is None:
        assert progress == before
    else:
        assert set(progress["current"].values()) == {kept}
        assert set(progress["total"].values()) == {10 + kept}


def test_throughput_is_that_of_all_ranks(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("callbacks.throughput.time.perf_counter", lambda: now[0])
    throughput, run = Throughput(), trainer(world_size=3, global_step=7)
    batch = SimpleNamespace(queries=(1, 2), attention_mask=torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]]))
    throughput.on_train_start(run, None)  # resumed within an epoch: there is no epoch start
    assert throughput.rates(run) == {}  # nothing was measured
    for step in range(4):
        now[0] += 1.0  # waits
        throughput.on_train_batch_start(run, None, batch, step)
        now[0] += 3.0  # works
        throughput.on_train_batch_end(run, None, None, batch, step)
        if step == 2:  # validation is neither
            throughput.on_validation_start(run, None)
            now[0] += 100.0
            throughput.on_validation_end(run, None)
        if step % 2:
            rates = throughput.rates(run)
            expected = {"speed/samples_per_s": 4 * 3 / 8, "speed/tokens_per_s": 20 * 3 / 8, "speed/data_wait": 2 / 8}
            assert rates.items() >= expected.items()


def step_log(**settings) -> tuple[StepLog, SimpleNamespace, LossCurves]:
    """A log of steps of two batches, of which every third is written."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], lr=0.5)
    curves = LossCurves()
    log = StepLog(Throughput(), SkippedData(), curves)
    run = trainer(optimizers=[optimizer], log_every_n_steps=3, sanity_checking=False, **settings)
    log.on_train_start(run, None)
    return log, run, curves


def train_batches(log: StepLog, run: SimpleNamespace, losses: list[float]) -> None:
    module = SimpleNamespace(localizer=TextTimestamps(), model=SimpleNamespace(head=None))
    for number, loss in enumerate(losses):
        run.global_step += number % 2
        outputs = {"terms": {"loss": (torch.tensor(loss), 1), "source/a": (torch.tensor(6.0), torch.tensor(number))}}
        log.on_train_batch_end(run, module, outputs, None, number)


def test_each_step_has_the_mean_of_its_batches():
    log, run, curves = step_log()
    train_batches(log, run, [1.0, 2.0, 3.0, 5.0, 7.0, 7.0, 9.0, 0.0])
    assert [step for _, step in run.loggers[0].logged] == [0, 1, 2]  # the first at once, the fourth waits
    log.on_train_end(run, None)
    rows = {step: metrics for metrics, step in run.loggers[0].logged}
    assert [rows[step]["train/loss"] for step in range(4)] == [1.5, 4.0, 7.0, 4.5]
    assert rows[0]["train/source/a"] == 12.0  # 6 + 6 over 0 + 1 tokens
    assert rows[1]["lr"] == 0.5
    assert curves.losses["loss"] == [(0, 1.5), (1, 4.0), (2, 7.0), (3, 4.5)]


def test_numbers_stay_on_the_device_until_they_are_written(monkeypatch):
    """A step brings nothing over: that would wait for everything the device still has to do."""
    log, run, _ = step_log(global_step=10)
    moved = []
    for name in ("item", "tolist", "__float__"):
        original = getattr(torch.Tensor, name)
        monkeypatch.setattr(torch.Tensor, name, lambda self, f=original, n=name: (moved.append(n), f(self))[1])
    train_batches(log, run, [1.0, 2.0])
    assert moved == []
    train_batches(log, run, [1.0, 2.0])
    assert moved == ["tolist"]  # all rows at once
    assert [step for _, step in run.loggers[0].logged] == [10, 11]


def test_a_checkpoint_leaves_no_step_unwritten():
    log, run, curves = step_log(global_step=3)
    train_batches(log, run, [1.0, 2.0])
    assert not curves.losses
    assert log.state_dict() == {}
    assert curves.losses["loss"] == [(3, 1.5)]


def test_the_gradient_norm_is_that_of_all_parameters():
    log, run, _ = step_log()
    (parameter,) = run.optimizers[0].param_groups[0]["params"]
    parameter.grad = torch.tensor([3.0, 4.0])
    log.on_before_optimizer_step(run, None, run.optimizers[0])
    train_batches(log, run, [1.0, 2.0])
    assert run.loggers[0].logged[0][0]["train/grad_norm"] == 5.0


def about(*videos: str, source: str = "") -> list[Query]:
    return [Query(video, video, "grounding", "x", (Event(0, 1),), source=source) for video in videos]


def test_leakage_in_one_line():
    shared = [f"v_abcdefghij{k}" for k in range(5)]
    said = leakage(about(*shared, "other"), about(*(f"{name[2:]}_0.0_9.0" for name in shared), "unseen"))
    assert said == (
        "data.val is not unseen: 5 of 6 evaluation videos (83.3%) are in the training data (abcdefghij0, abcdefghij1, "
        "abcdefghij2 and 2 more), with 5 of 6 queries. Its scores are in-domain"
    )
    assert "\n" not in said
    assert leakage(about("a", source="x"), about("a", source="x")).endswith("fine-tuned")
    assert leakage(about("a", source="x"), about("b", source="x")) == leakage(about("a"), []) == ""


def test_only_rank_0_speaks_of_the_data(recwarn, capsys):
    data = SimpleNamespace(
        mixture=[], sources={"train": [], "val": []}, queries={"train": about("a"), "val": about("a")}
    )
    TrainingData().on_train_start(trainer(is_global_zero=False, datamodule=data), None)
    assert not recwarn
    TrainingData().on_train_start(trainer(datamodule=data, loggers=[]), None)
    assert len(recwarn) == 1
    assert capsys.readouterr().out == ""
