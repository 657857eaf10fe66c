"""VTimeLLM's published training files: dialogues (``stage2.json``, ``stage3.json``, LLaVA's
``blip_laion_cc_sbu_558k.json``) and folders with one ``.npy`` of features a video.

Shape suffixes: T frames, D feature width.
"""

import contextlib
import math
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from datamodules.markup import VIDEO
from datamodules.records import FeatureHeader
from datamodules.schema import Part, Query, Turn, Video
from datamodules.skips import OnError, SkippedFiles, Skips
from preparation.annotations.files import REPAIRED, Records, repaired_times
from preparation.features.decoding import Sampling
from preparation.features.extraction import Summary
from preparation.features.preprocessing import Preprocessing
from preparation.features.shard_writer import ShardWriter
from preparation.features.vision_encoder import PROJECTED

LAYOUT = "a list of {id, conversations: [{from, value}]} with meta: {duration, token} where there are times"
LOC = "<LOC>"
"""Stands for a time in an answer of VideoExpert's data, which is in this layout; ``meta.loc`` lists its windows."""
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def read(path: Path, on_error: OnError = "fail", repair: bool = False) -> tuple[list[Query], Counter[str]]:
    """Read dialogues.

    Text is kept byte for byte; only ``<video>`` and the newline behind it are taken off the first question, where the
    prompt puts them back. ``meta.split`` becomes the part of the file that a clip is. Every turn gets the times of all
    markers of its sample, because the official code replaces each marker in all turns. A ``<LOC>`` in an answer becomes
    markers too, so that any localizer can write its time.

    Args:
        path: the published json.
        on_error: ``fail``, or ``skip`` to leave out samples that are wrong and count them.
        repair: mend windows that are reversed, overrun the video or have no length, and count them.

    Returns:
        The queries (id ``<video id>#<position in the file>``), and counts: of samples left out for each reason, and of
        turns dropped by the official rules (a first turn that is no question, a last question without an answer).

    Raises:
        ValueError: the file is no list of samples, or (``fail``) naming file, sample and what is wrong.

    Source: VTimeLLM, ``vtimellm/train/dataset.py``.
    """
    records = Records(path, on_error, LAYOUT)
    samples = records.json()
    known = isinstance(samples, list) and any(
        isinstance(sample, dict) and "conversations" in sample for sample in samples
    )
    if not known:
        raise records.refuse(samples)
    skips, dropped, queries = Skips(on_error), Counter(), []
    for number, sample in enumerate(samples):
        try:
            texts, drops = _texts(sample["conversations"])
            meta = sample.get("meta") or {}
            part = _part(sample["id"], meta)
            duration_s, times, mended = _times(_marked(meta, texts), part, repair)
            turns = tuple(Turn(texts[k], texts[k + 1], times=times) for k in range(0, len(texts), 2))
            about = {"duration_s": duration_s, "source": sample.get("source") or "", "part": part}
            queries.append(Query(f"{sample['id']}#{number}", sample["id"], "dialogue", turns=turns, **about))
            dropped.update([*drops, *mended])
        except (KeyError, TypeError, AttributeError) as error:
            skips.add(f"{path}, sample {number}", "sample of another layout", repr(error))
        except ValueError as error:
            reason, _, detail = str(error).replace(", got ", ": ", 1).partition(": ")
            skips.add(f"{path}, sample {number} (id {sample.get('id')!r})", reason, detail)
    return queries, skips.counts + dropped


def _texts(conversations: list[Mapping]) -> tuple[list[str], list[str]]:
    """Questions and answers in turn, and which turns the official rules dropped. Errors read ``reason: detail``."""
    roles, texts, drops = [turn["from"] for turn in conversations], [turn["value"] for turn in conversations], []
    if not all(isinstance(text, str) and text.strip() for text in texts):
        raise ValueError(f"empty text: turns {texts}")
    texts[:1] = [text.replace("<image>", VIDEO) for text in texts[:1]]
    if roles and roles[0] != "human":
        roles, texts, drops = roles[1:], texts[1:], ["turn dropped: the first, not from the human"]
    if roles != (["human", "gpt"] * len(roles))[: len(roles)]:
        raise ValueError(f"questions and answers do not alternate: {roles}")
    if len(texts) % 2:
        texts, drops = texts[:-1], [*drops, "turn dropped: the last, a question without an answer"]
    if not texts:
        raise ValueError("no question with an answer")
    if texts[0].count(VIDEO) != 1:
        raise ValueError(f"the first question must hold {VIDEO} once: {texts[0]!r}")
    texts[0] = texts[0].removeprefix(f"{VIDEO}\n")
    return texts, drops


def _marked(meta: Mapping, texts: list[str]) -> Mapping:
    """Put markers in place of each ``<LOC>``; return ``meta`` with their times. Errors read ``reason: detail``.

    Without windows in ``meta.loc`` it is text.
    """
    if "loc" not in meta:
        return meta
    places, windows = [place for place, text in enumerate(texts) for _ in range(text.count(LOC))], meta.get("loc") or []
    if len(places) != len(windows):
        raise ValueError(
            f"{LOC} and windows differ: {len(places)} {LOC} for {len(windows)} lists of windows in meta.loc"
        )
    token = dict(meta.get("token") or {})
    for number, (place, found) in enumerate(zip(places, windows, strict=True), len(token)):
        if len(found) != 1 or len(found[0]) != 2:
            raise ValueError(f"not one window for a {LOC}: {found}; several are a 'grounding' query (format plain)")
        token[f"<s{number}>"], token[f"<e{number}>"] = found[0]
        texts[place] = texts[place].replace(LOC, f"<s{number}> to <e{number}>", 1)
    return {**meta, "token": token}


def _part(video: str, meta: Mapping) -> Part | None:
    """Where the clip of a sample lies in its file. Errors read ``reason: detail``."""
    if (split := meta.get("split")) is None:
        return None
    try:
        start_s, end_s = split
        return Part(video, float(start_s), float(end_s))
    except (TypeError, ValueError) as error:
        raise ValueError(f"split is no span of the file: {split!r} ({error})") from None


def _times(meta: Mapping, part: Part | None, repair: bool) -> tuple[float | None, dict[str, float], list[str]]:
    """Duration and marker -> seconds of a sample, and what was mended. Errors read ``reason: detail``."""
    duration_s, times = meta.get("duration"), dict(meta.get("token") or {})
    if part and duration_s is None:
        duration_s = part.end_s - part.start_s
    if not times:
        return duration_s, {}, []
    if duration_s is None:
        raise ValueError("markers without a duration")
    for marker, time_s in times.items():
        if isinstance(time_s, bool) or not isinstance(time_s, (int, float)) or not math.isfinite(time_s):
            raise ValueError(f"time is not a number: {marker} is {time_s!r}")
    times, faults = repaired_times(times, duration_s) if repair else (times, [])
    for marker, time_s in times.items():
        if not 0 <= time_s <= duration_s + Query.TOLERANCE_S:
            raise ValueError(f"event outside the video: {marker} at {time_s} s of {duration_s} s")
        end = marker.replace("<s", "<e")
        if times.get(end, time_s) < time_s:
            raise ValueError(f"end before start: {marker} at {time_s} s, {end} at {times[end]} s")
    return duration_s, times, [f"{REPAIRED}: {fault}" for fault in faults]


@dataclass(frozen=True)
class Packed(Summary):
    """What became of a folder of arrays."""

    nominal: int = 0
    """Videos that were written with a nominal length."""


def pack(
    features: Path,
    durations: Mapping[str, float],
    output: Path,
    encoder: str = "openai/clip-vit-large-patch14",
    sampling: Sampling = Sampling(frames=100),  # noqa: B008  (frozen)
    on_error: OnError = "fail",
    untimed: Collection[str] = (),
    nominal_s: float = 100.0,
) -> Packed:
    """Put a folder of ``<id>.npy`` files into shards; run it again after an interruption and it goes on.

    Args:
        features: folder of (T, D) arrays, or (D,) for an image. Ids may hold slashes (subfolders).
        durations: video id -> seconds, see ``preparation.annotations.durations``.
        output: folder of the shards. What was skipped is also written to its ``skipped.jsonl``.
        encoder: what made the features.
        sampling: how the frames were chosen. Where each frame lies follows from it: frame k of N at k/(N-1) of the
            duration (the last frame of a file begins a little before its end, which the arrays do not tell).
        on_error: ``fail`` at the first file that cannot be used, or ``skip`` and count it.
        untimed: videos whose length nobody knows and of which no record names a time.
        nominal_s: length that is written for them; a query about a time of them is refused later.

    Raises:
        ValueError: no file, or (``fail``) naming the file and what is wrong.
    """
    folder = Path(features)
    files = sorted(folder.rglob("*.npy"))
    if not files:
        raise ValueError(f"{folder}: no .npy file in it")
    Skips(on_error)  # refuse an unknown policy before anything is written
    preprocessing = Preprocessing(224, 224, CLIP_MEAN, CLIP_STD)
    header = FeatureHeader(encoder, PROJECTED, str(preprocessing), str(sampling), _width(files))
    present = nominal = 0
    with ShardWriter(output, header) as writer:
        skips = SkippedFiles(on_error, Path(output) / "skipped.jsonl")
        for file in files:
            video = file.relative_to(folder).as_posix().removesuffix(".npy")
            if video in writer.finished_ids:
                present += 1
                continue
            try:
                duration_s = nominal_s if video in untimed else durations.get(video)
                record = replace(_video(video, file, duration_s, sampling), nominal=video in untimed)
                header.check_video(record)
            except (ValueError, EOFError) as error:
                skips.add(str(file), "features cannot be used", str(error))
            else:
                writer.add(record)
                nominal += record.nominal
        return Packed(writer.added, present, tuple(skips.entries), nominal=nominal)


def _width(files: list[Path]) -> int:
    """D of the first file that can be read; the others are held against it."""
    for file in files:
        with contextlib.suppress(ValueError, EOFError, IndexError):
            return np.lib.format.open_memmap(file, mode="r").shape[-1]
    raise ValueError(f"{files[0].parent}: no .npy file in it is an array")


def _video(video: str, file: Path, duration_s: float | None, sampling: Sampling) -> Video:
    """The Video of one .npy file."""
    if duration_s is None:
        raise ValueError(
            "its duration is not known; name a file that has it, or has records without times, in --durations"
        )
    array = np.lib.format.open_memmap(file, mode="r")  # refuses pickles
    if duration_s == 0 and array.ndim == 1:
        array = array[None]
    if array.ndim != 2:
        raise ValueError(f"shape {array.shape}; a video needs (T, D), only an image may have (D,)")
    frames = len(array)
    if (duration_s == 0) != (frames == 1):
        raise ValueError(f"{frames} frame(s) for a duration of {duration_s} s; an image has 1 frame and lasts 0 s")
    if frames > 1 and sampling.frames not in (None, frames) and not sampling.rule:
        raise ValueError(f"{frames} frames, not {sampling.frames} (sampling {sampling})")
    with np.errstate(over="ignore"):  # an overflow becomes infinity, which Video refuses
        array = array.astype(np.float16)
    fps = sampling.rate(duration_s)[1] if sampling.fps and not sampling.rule else None
    times_s = np.arange(frames) / fps if fps else np.linspace(0.0, duration_s, frames)
    return Video(video, float(duration_s), times_s, array, source=file.name)
