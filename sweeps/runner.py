"""Runs the points of a sweep, several at a time, each on devices of its own."""

import json
import os
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Lock

from command_line.tables import say
from sweeps.sweep_file import command
from sweeps.table import last_metrics


@dataclass(frozen=True)
class Point:
    """One point of a grid and its folder."""

    number: int
    parameters: dict
    folder: Path

    @property
    def finished(self) -> bool:
        """Whether it needs not be run again."""
        return (self.folder / "model" / "manifest.json").is_file() or (self.folder / "chain.json").is_file()

    def arguments(self, settings: dict) -> list[str]:
        """The command that starts it, or goes on where it was killed."""
        began = (self.folder / "checkpoints" / "last.ckpt").is_file()
        return [*command(settings, self.parameters), f"--output={self.folder}", *["--resume=true"] * began]

    def metrics(self) -> dict[str, float]:
        """What it reached; of a chain, its last stage."""
        chain = self.folder / "chain.json"
        folder = Path(json.loads(chain.read_text())["stages"][-1]) if chain.is_file() else self.folder
        return last_metrics(folder / "logs")


class Devices:
    """Lends the visible GPUs in equal parts; a machine without any lends nothing."""

    def __init__(self, jobs: int, environment: dict[str, str], count: int):
        listed = environment.get("CUDA_VISIBLE_DEVICES")
        names = [name for name in listed.split(",") if name] if listed is not None else list(map(str, range(count)))
        if names and jobs > len(names):
            raise ValueError(f"--jobs {jobs}, but there are {len(names)} devices: {','.join(names)}")
        each = len(names) // jobs
        self.parts: SimpleQueue[str | None] = SimpleQueue()
        for job in range(jobs):
            self.parts.put(",".join(names[job * each : (job + 1) * each]) or None)

    def run(self, arguments: Sequence[str], log: Path | None) -> int:
        """Run a command on a part of the devices, and give its exit status."""
        part = self.parts.get()
        environment = os.environ | ({"CUDA_VISIBLE_DEVICES": part} if part else {})
        try:
            if log is None:
                return subprocess.run(arguments, env=environment).returncode
            log.parent.mkdir(parents=True, exist_ok=True)
            with open(log, "a") as output:
                return subprocess.run(arguments, env=environment, stdout=output, stderr=output).returncode
        finally:
            self.parts.put(part)


def gpus() -> int:
    """Of this machine."""
    import torch

    return torch.cuda.device_count()


def run_points(settings: dict, points: Sequence[Point], jobs: int, done) -> dict[int, int]:
    """Run every point that is not finished.

    Args:
        settings: the sweep file.
        points: of its grid.
        jobs: how many at a time; with several, each writes ``log.txt`` into its folder.
        done: called with every point that is finished, one at a time; may raise to end the sweep.

    Returns:
        exit status of the points that failed, by number.
    """
    devices, failed = Devices(jobs, dict(os.environ), gpus() if jobs > 1 else 0), {}
    turn, ended = Lock(), Event()

    def run(point: Point) -> None:
        if ended.is_set():
            return
        status = 0
        if not point.finished:
            say(f"run {point.number + 1} of {len(points)}: {json.dumps(point.parameters)}")
            status = devices.run(point.arguments(settings), point.folder / "log.txt" if jobs > 1 else None)
        with turn:
            if status:
                failed[point.number] = status
                return
            try:
                done(point)
            except BaseException:
                ended.set()
                raise

    with ThreadPoolExecutor(jobs) as pool:
        for running in [pool.submit(run, point) for point in points]:
            running.result()
    return failed
