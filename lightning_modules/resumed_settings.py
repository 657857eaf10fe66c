"""What happens to each setting that a run is resumed with and did not have before.

A setting is free, taken or fixed. A free one changes nothing that is learned, and is taken with a line. One that is
taken needs ``--resume_changed true`` and holds from there on. A fixed one is never taken: what was learned means
something else under it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from localizers.base import Localizer

FREE, TAKEN, FIXED, COMPARED = "free", "taken", "fixed", "compared"
"""COMPARED: what it names is compared, not how it is named (files by their content, batches by what a step learns)."""

SCHEDULE = "the schedule of the learning rate is that of the new length"
HERE_ON = "holds from here on"
SCORES = "scores from here on are not those of before"

TRAINER = {
    FREE: """accelerator strategy devices num_nodes logger callbacks val_check_interval check_val_every_n_epoch
        num_sanity_val_steps log_every_n_steps enable_checkpointing enable_progress_bar enable_model_summary
        deterministic benchmark inference_mode profiler detect_anomaly enable_autolog_hparams model_registry
        limit_test_batches limit_predict_batches""",
    SCHEDULE: "max_epochs min_epochs max_steps min_steps max_time",
    HERE_ON: "precision gradient_clip_val gradient_clip_algorithm",
    SCORES: "limit_val_batches",
    COMPARED: "accumulate_grad_batches",
    FIXED: """fast_dev_run limit_train_batches overfit_batches use_distributed_sampler barebones plugins sync_batchnorm
        reload_dataloaders_every_n_epochs""",
}
MODEL = {
    FREE: "gradient_checkpointing",
    SCHEDULE: "optimization.warmup_ratio",
    HERE_ON: """optimization.lr optimization.other_lr optimization.head_lr optimization.weight_decay optimization.betas
        optimization.eps lora.dropout experts.dropout localizer.dropout max_text_tokens""",
    SCORES: "generation.*",
    COMPARED: "llm previous",
    FIXED: """class_path chat chat.* system style adapter adapter.* feature_width spatial dtype quantization localizer
        localizer.* lora.* experts.* tune_adapter previous_lora""",
}
DATA = {
    FREE: "eval_batch_size num_workers test answered verify_checksums",
    HERE_ON: "on_error",
    COMPARED: "train val global_batch_size batch_size seed",
    FIXED: "queries_per_video encoder encoder.*",
}
CHECKPOINT = {
    FREE: """every_n_minutes save_top_k filename verbose save_last save_on_exception save_weights_only
        auto_insert_metric_name every_n_train_steps train_time_interval every_n_epochs save_on_train_epoch_end
        enable_version_counter""",
    SCORES: "monitor mode",
    HERE_ON: "patience",
}
ITSELF = {FREE: "output nonfinite_steps", FIXED: "seed_everything"}
OF_THE_COMMAND = ("config", "resume", "resume_changed", "dry_run", "trainer.default_root_dir", "checkpoint.dirpath")
"""They say how train.py is called, not what the run is, or follow from ``output``."""


def _rows() -> dict[str, str]:
    """Setting -> FREE, FIXED, COMPARED, or what taking it does."""
    rows = {}
    rooms = {"trainer.": TRAINER, "model.": MODEL, "data.": DATA, "checkpoint.": CHECKPOINT, "": ITSELF}
    for room, table in rooms.items():
        for rule, names in table.items():
            rows |= {room + name: rule for name in names.split()}
    return rows


ROWS = _rows()


def rule_of(key: str, decoding: frozenset[str] = frozenset()) -> str | None:
    """FREE, FIXED, COMPARED, what taking a setting does, or None where the table has no row for it.

    Args:
        key: for example ``model.optimization.lr``; without ``init_args``.
        decoding: settings of the localizer that are of decoding alone.
    """
    if key.removeprefix("model.localizer.") in decoding and key.startswith("model.localizer."):
        return SCORES
    if key in ROWS:
        return ROWS[key]
    room = key
    while "." in room:  # the nearest row that stands for all below it; of loggers and the like, that of the thing
        room = room.rpartition(".")[0]
        if f"{room}.*" in ROWS or (room.startswith("trainer.") and room in ROWS):
            return ROWS.get(f"{room}.*") or ROWS[room]
    return None


@dataclass(frozen=True)
class Change:
    """A setting that is not what it was."""

    key: str
    before: object
    now: object
    rule: str

    @property
    def taken(self) -> bool:
        """Whether it needs ``--resume_changed true``."""
        return self.rule not in (FREE, FIXED)

    def __str__(self) -> str:
        effect = f" ({self.rule})" if self.taken else ""
        return f"{self.key} {_short(self.before)} -> {_short(self.now)}{effect}"


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}.."


def changes(before: dict, now: dict, kind: type[Localizer] | None = None) -> list[Change]:
    """Every setting that differs and is compared by its own value.

    Args:
        before: settings of the run, as its checkpoint keeps them.
        now: settings that it is to go on with.
        kind: its localizer.
    """
    decoding, found = frozenset(kind.decoding if kind else ()), []
    for key, old, new in _differences(before, now):
        rule = rule_of(key, decoding) or FIXED
        if key == "trainer.callbacks" and _lightnings(old) != _lightnings(new):
            rule = "Lightning's own callbacks can change what is learned; these hold from here on"
        if rule != COMPARED:
            found.append(Change(key, old, new, rule))
    return found


def _lightnings(callbacks: list | None) -> list:
    """Those that may change how training goes; one's own are one's own affair."""
    return [callback for callback in callbacks or () if "lightning." in str(callback)]


def _differences(before: dict, now: dict, place: str = "") -> Iterator[tuple[str, object, object]]:
    """(key, before, now) of what differs, level by level; a setting of one side alone differs unless it is null."""
    if before.get("class_path") != now.get("class_path") and {"class_path"} & {*before, *now}:
        yield f"{place}.class_path".lstrip("."), before.get("class_path"), now.get("class_path")
        return
    for key in [*before, *(key for key in now if key not in before)]:
        where = place if key == "init_args" else f"{place}.{key}".lstrip(".")
        old, new = before.get(key), now.get(key)
        if where in OF_THE_COMMAND or old == new:
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _differences(old, new, where)
        else:
            yield where, old, new
