"""How many queries share one copy of their video, where a config leaves it open."""

from datamodules.temporal import TemporalDataModule
from lightning_modules.video_language import VideoLanguageModule
from models.checkpoints import load_config
from models.decoders import windows_follow_patterns

MOST = 8
"""Queries of a sequence."""
VIDEOS = 4
"""A step is about so many videos at least, where it has so many dialogues."""


def queries_together(dialogues: int) -> int:
    """How many queries share a video in steps of so many dialogues.

    Every query comes once an epoch and counts as much as any other, whatever this number is, so that gradients are the
    same in expectation; a step that is about few videos has less of them to average over.
    """
    return min(max(dialogues // VIDEOS, 1), MOST)


def can_share(module: VideoLanguageModule) -> bool:
    """Whether queries can share a video, and gain by it; the language model is not loaded."""
    dialogue = module.dialogue
    if not (dialogue.shares and module.localizer.generates) or dialogue.splicer.question_tokenizer:
        return False
    return windows_follow_patterns(load_config(module.llm_name))


def settle_sharing(
    given: int | None, module: VideoLanguageModule, data: TemporalDataModule, dialogues: int, before: dict | None
) -> int:
    """The number that holds, which ``data`` is told.

    Args:
        given: by the config; None: it leaves it open.
        module: of the run.
        data: of the run.
        dialogues: of a step.
        before: the checkpoint that the run goes on from, with its number; None: there is none.
    """
    if given is None and before is not None:
        given = before.get("run", {}).get("settings", {}).get("data", {}).get("queries_per_video") or 1
    if given is None:
        given = queries_together(dialogues) if can_share(module) else 1
    data.queries_per_video = given
    return given
