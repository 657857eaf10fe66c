"""Every setting that a resumed run could change has a row that says what happens to it."""

import pytest

import localizers
from lightning_modules import resumed_settings
from lightning_modules.resumed_settings import COMPARED, FIXED, FREE, OF_THE_COMMAND, Change, changes, rule_of
from lightning_modules.run_record import settle
from lightning_modules.training_cli import TrainingCLI
from localizers.structural_tokens import StructuralTokens

RUNS = [
    ("FeatureAlignment", "TextTimestamps"),
    ("BoundaryPerception", "FrameMatching"),
    ("BoundaryPerception", "TimeTokens"),
    ("BoundaryPerception", "DigitTokens"),
    ("BoundaryPerception", "TextSeconds"),
    ("BoundaryPerception", "TimeDistribution"),
    ("BoundaryPerception", "EvidenceTokens"),
    ("InstructionTuning", "StructuralTokens"),
    ("ExpertTuning", "TemporalExpert"),
    ("Baseline", "SentenceMatching"),
]
"""Stages and localizers; all of each."""


def leaves(settings: dict, place: str = "") -> dict:
    """Key -> value of every setting, as the table writes keys."""
    found = {}
    for key, value in settings.items():
        where = place if key == "init_args" else f"{place}.{key}".lstrip(".")
        found |= leaves(value, where) if isinstance(value, dict) else {where: value}
    return found


@pytest.fixture(params=RUNS, ids=lambda run: run[1])
def settings(request, arguments, tmp_path, monkeypatch) -> dict:
    """The whole configuration of a stage, with each kind of thing that a setting may hold."""
    monkeypatch.setattr(TrainingCLI, "instantiate_classes", lambda self: None)
    own = [f"--model={request.param[0]}", f"--model.localizer={request.param[1]}"]
    args = [arg for arg in arguments(1, tmp_path) if not arg.startswith(("--model=", "--model.localizer="))]
    more = ["--trainer.logger=CSVLogger", f"--trainer.logger.save_dir={tmp_path}", "--trainer.strategy=ddp"]
    more += ["--data.encoder=preparation.features.online.Encoding", "--data.encoder.encoder=x"]
    return TrainingCLI([*own, *args, *more]).config.as_dict()


def test_every_setting_has_a_row(settings):
    without = [key for key in leaves(settings) if key not in OF_THE_COMMAND and rule_of(key) is None]
    assert not without, "say in lightning_modules/resumed_settings.py what happens to these when a run is resumed"


def test_every_row_is_of_a_setting():
    """Rows for a setting that is gone would say what is not done."""
    keys, gone = set(), []
    for stage, localizer in RUNS:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(TrainingCLI, "instantiate_classes", lambda self: None)
            args = [f"--model={stage}", f"--model.localizer={localizer}", "--model.llm=x", "--output=x"]
            keys |= set(leaves(TrainingCLI(args).config.as_dict()))
    for row in resumed_settings.ROWS:
        room = row.removesuffix(".*")
        if not any(key == room or key.startswith(f"{room}.") for key in keys):
            gone.append(row)
    assert not gone


def test_a_setting_without_a_row_is_never_taken():
    (change,) = changes({"data": {"a_new_one": 1}}, {"data": {"a_new_one": 2}})
    assert change.rule == FIXED


RULES = {
    "data.num_workers": FREE,
    "output": FREE,
    "trainer.logger.save_dir": FREE,
    "trainer.devices": FREE,
    "data.batch_size": COMPARED,  # what a step learns from is compared, see run_record
    "trainer.accumulate_grad_batches": COMPARED,
    "data.train": COMPARED,
    "model.llm": COMPARED,
    "seed_everything": FIXED,
    "model.lora.alpha": FIXED,
    "model.lora.r": FIXED,
    "model.localizer.ticks": FIXED,
    "model.style": FIXED,
    "model.chat": FIXED,
    "model.dtype": FIXED,
    "data.queries_per_video": FIXED,
    "model.lora.dropout": "taken",
    "model.optimization.lr": "taken",
    "model.optimization.weight_decay": "taken",
    "model.optimization.betas": "taken",
    "trainer.gradient_clip_val": "taken",
    "trainer.max_steps": "taken",
    "trainer.max_epochs": "taken",
    "trainer.precision": "taken",
}


@pytest.mark.parametrize("key", RULES)
def test_what_happens_to_a_setting(key):
    rule = rule_of(key)
    assert rule is not None
    assert (rule if rule in (FREE, FIXED, COMPARED) else "taken") == RULES[key]


def test_how_answers_are_read_may_change_and_how_they_are_learned_may_not():
    assert rule_of("model.localizer.rule", frozenset(StructuralTokens.decoding)) not in (FREE, FIXED)
    assert rule_of("model.localizer.transitions", frozenset(StructuralTokens.decoding)) == FIXED


def test_another_class_is_one_difference():
    before = {"model": {"init_args": {"localizer": {"class_path": "A", "init_args": {"a": 1}}}}}
    now = {"model": {"init_args": {"localizer": {"class_path": "B", "init_args": {"b": 1}}}}}
    (change,) = changes(before, now)
    assert (change.key, change.before, change.now, change.rule) == ("model.localizer.class_path", "A", "B", FIXED)


def test_all_differences_are_listed(tmp_path):
    found = [Change("a", 1, 2, FREE), Change("b", 1, 2, "holds from here on"), Change("c", 1, 2, FIXED)]
    with pytest.raises(
        ValueError, match=r"last.ckpt is of a run (?s:.*)never taken: c 1 -> 2\ntaken with .*: b 1 -> 2"
    ):
        settle(found, tmp_path / "last.ckpt", changed=True)
    with pytest.raises(ValueError, match=r"taken with --resume_changed true: b 1 -> 2 \(holds from here on\)"):
        settle(found[:2], tmp_path / "last.ckpt", changed=False)
    assert settle(found[:2], tmp_path / "last.ckpt", changed=True)[1] == (
        "Changed from here on: b 1 -> 2 (holds from here on)"
    )
    assert settle([], tmp_path / "last.ckpt", changed=False) == []


def test_all_localizers_are_looked_at():
    assert {localizer for _, localizer in RUNS} == set(localizers.__all__)
