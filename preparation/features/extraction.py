"""Raw videos and images -> feature shards: decode, encode, write.

Decoding runs in threads, ahead of the encoder. Several processes share the work by shards; what is in a shard depends
on the list of files alone, so their number changes nothing but the time.

Shape suffixes: T frames.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from rich.progress import Progress

from datamodules.schema import Video
from datamodules.skips import OnError, Skip, SkippedFiles, Skips
from datamodules.spatial_compression import compress
from preparation.features.decoders import Decoders
from preparation.features.decoding import DECODE_ERRORS, Decoded, Sampling, Source, decode, first_line
from preparation.features.processes import Processes
from preparation.features.refusal import Refused
from preparation.features.shard_writer import ShardWriter
from preparation.features.throughput import Throughput
from preparation.features.timeline import EARLY_S
from preparation.features.vision_encoder import VisionEncoder


@dataclass(frozen=True)
class Summary:
    """What became of the sources."""

    written: int
    present: int
    """Were in finished shards already."""
    skipped: tuple[Skip, ...]
    throughput: Throughput = Throughput()
    readers: Mapping[str, int] = field(default_factory=Counter)
    """How many were decoded in each way."""
    sound_first: int = 0
    """How many have sound that begins before the picture, by more than ``EARLY_S``."""


def extract_video(source: Source, encoder: VisionEncoder, sampling: Sampling, chunk_frames: int = 32) -> Video:
    """Features of one file, in memory.

    Raises:
        ValueError: the file cannot be decoded, or has too few frames.
    """
    parts = []
    try:
        for step in decode(source, sampling, chunk_frames):
            if step.video is not None:
                return _join(parts, step, encoder)
            parts.append(encoder.encode(step.pixels))
    except DECODE_ERRORS as error:
        raise ValueError(f"{source.path}: {first_line(error)}") from None
    raise AssertionError("decode ends with the times")


def extract(
    sources: Iterable[Source],
    encoder: VisionEncoder,
    sampling: Sampling,
    output: Path,
    on_error: OnError = "fail",
    chunk_frames: int = 32,
    max_records: int = 256,
    decoders: int = 2,
    processes: Processes = Processes(),  # noqa: B008  (frozen)
) -> Summary:
    """Encode files into a folder of shards; run it again after an interruption and it goes on.

    Shard k holds the files at positions k * max_records and on; those that were skipped leave gaps.

    Args:
        sources: what to encode, in this order.
        encoder: the vision tower.
        sampling: which frames.
        output: folder of the shards. What was skipped is also written to its ``skipped.jsonl``.
        on_error: ``fail`` at the first file that cannot be used, or ``skip`` and count it.
        chunk_frames: frames that are decoded and encoded together.
        max_records: videos in a shard; what a kill can cost, and what one process takes at a time.
        decoders: files decoded at the same time.
        processes: which share of the work is done here; all of them need the same folder.

    Returns:
        What all processes did.

    Raises:
        ValueError: naming the file and what is wrong with it (``fail``), or the folder was made differently.
    """
    Skips(on_error)  # refuse an unknown policy before anything is written
    folder, header = Path(output), encoder.header(sampling)
    if not processes.leads:
        processes.wait()  # until the leader has taken the folder
    with ShardWriter(folder, header, max_records, leads=processes.leads) as writer:
        if processes.leads:
            processes.wait()
        processes.wait()  # until all have seen which shards are finished; the plan below depends on it
        log = SkippedFiles(on_error, folder / _log_name(processes))
        wanted = _unique(sources, log if processes.leads else Skips("skip"))
        groups: dict[int, list[Source]] = defaultdict(list)
        for position, source in enumerate(wanted):
            if source.id not in writer.finished_ids:
                groups[position // max_records].append(source)
        present = len(wanted) - sum(map(len, groups.values()))
        mine = dict(list(groups.items())[processes.rank :: processes.world])
        work = _Extraction(encoder, sampling, writer, log)
        throughput = work.run(mine, chunk_frames, decoders)
        writer.finish_shard()
        done = processes.gather((writer.added, tuple(log.entries), throughput, work.readers, work.sound_first))
        if processes.leads:
            writer.collect()
            log.rewrite([skip for _, skips, *_ in done for skip in skips])
        else:
            log.path.unlink()
    written, skipped, parts, readers, sound_first = zip(*done, strict=True)
    parts, readers = Throughput.together(parts), sum(readers, Counter())
    return Summary(sum(written), present, sum(skipped, ()), parts, readers, sum(sound_first))


@dataclass
class _Extraction:
    """One process's work on its share."""

    encoder: VisionEncoder
    sampling: Sampling
    writer: ShardWriter
    log: Skips
    frames: int = 0
    encode_s: float = 0.0
    readers: Counter[str] = field(default_factory=Counter)
    sound_first: int = 0

    def run(self, groups: dict[int, list[Source]], chunk_frames: int, threads: int) -> Throughput:
        """Write one shard, or more where one grows too large, for each group."""
        start = time.perf_counter()
        todo = [(number, source) for number, group in groups.items() for source in group]
        decoders = Decoders([source for _, source in todo], self.sampling, chunk_frames, threads)
        current = None
        # Not rich's track: its display, a thread, ends only when somebody closes the generator.
        bar = Progress(disable=not todo or not self.writer.leads)
        with closing(iter(decoders)) as steps, bar:
            task = bar.add_task("extracting", total=len(todo))
            for number, source in todo:
                if number != current:
                    self.writer.begin(number)
                    current = number
                video = self._encode(source, steps)
                if video:
                    self.writer.add(video)  # outside of any try: a full disk is no reason to skip a video
                    self.readers[video.reader] += 1
                    self.sound_first += video.sound_lead_s > EARLY_S
                bar.advance(task)
        wall_s = time.perf_counter() - start
        available = {"encoders_s": wall_s, "decoders_s": wall_s * threads}
        return Throughput(self.frames, wall_s, decoders.decode_s, self.encode_s, decoders.waited_s, **available)

    def _encode(self, source: Source, steps: Iterable[Decoded]) -> Video | None:
        """The next file of ``steps``, or None where it was skipped."""
        parts = []
        while (step := next(steps)).pixels is not None:
            start = time.perf_counter()
            parts.append(self.encoder.encode(step.pixels))
            self.encode_s += time.perf_counter() - start
            self.frames += len(step.pixels)
        assert step.source == source
        try:
            if step.error:
                raise step.error
            start = time.perf_counter()
            video = _join(parts, step, self.encoder)
            self.encode_s += time.perf_counter() - start
            self.writer.header.check_video(video)
            return video
        except Refused as error:
            self.log.add(str(source.path), error.reason, error.detail)
        except DECODE_ERRORS as error:
            self.log.add(str(source.path), first_line(error))
        return None


def _join(parts: list[dict[str, np.ndarray]], end: Decoded, encoder: VisionEncoder) -> Video:
    """The Video of one file from its encoded chunks."""
    about, stored = dict(end.video), encoder.outputs
    repeat = about.pop("repeat")
    arrays = {name: np.concatenate([part[name] for part in parts])[repeat] for name in parts[0]}
    if stored.spatial:
        # From float16 on purpose: the same S-tokens as those made later from stored patches.
        tensors = [
            torch.from_numpy(arrays[name]).to(encoder.device) for name in ("features", "patches", "cls_attention")
        ]
        arrays["spatial"] = compress(*tensors, stored.spatial).to(torch.float16).cpu().numpy()
    kept = {"features": True, "patches": stored.patches, "cls_attention": stored.cls_attention, "spatial": True}
    arrays = {name: array for name, array in arrays.items() if kept[name]}
    return Video(end.source.id, source=end.source.path.name, **about, **arrays)


def _log_name(processes: Processes) -> str:
    return "skipped.jsonl" if processes.leads else f"skipped-{processes.rank}.jsonl"


def _unique(sources: Iterable[Source], skips: Skips) -> list[Source]:
    """The first source of each id; the later ones are skipped."""
    first: dict[str, Source] = {}
    for source in sources:
        if first.setdefault(source.id, source) is not source:
            skips.add(str(source.path), f"id {source.id!r} is used already", f"for {first[source.id].path}")
    return list(first.values())
