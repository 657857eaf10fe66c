"""Several files decoded side by side, a little ahead of whoever uses the frames."""

import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

from preparation.features.decoding import Decoded, Sampling, Source, decode

BUFFER_BYTES = 2**30
"""Decoded frames that wait may take this much memory (and one chunk a thread more)."""


class Decoders:
    """Decodes files in threads; iterating gives what ``decode`` gives for each source, in the order of the sources.

    One thread opens, reads and closes a file. Threads of this process are enough: decoding itself does not hold the
    interpreter lock.

    Args:
        sources: the files.
        sampling: which frames.
        chunk_frames: frames of one item.
        threads: files decoded at the same time.

    Raises:
        ValueError: no thread.
    """

    def __init__(self, sources: Sequence[Source], sampling: Sampling, chunk_frames: int, threads: int):
        if threads < 1:
            raise ValueError(f"decoders must be at least 1, got {threads}")
        self.sources, self.sampling, self.chunk_frames, self.threads = sources, sampling, chunk_frames, threads
        self.decode_s = 0.0
        """Seconds that the threads spent on decoding, together."""
        self.waited_s = 0.0
        """Seconds that the user of the frames waited for them."""
        self._changed = threading.Condition()
        self._files: deque[deque[Decoded]] = deque()
        self._held_bytes, self._stopped = 0, False

    def __iter__(self) -> Iterator[Decoded]:
        sources = iter(self.sources)
        with ThreadPoolExecutor(self.threads) as pool:
            try:
                self._start(pool, islice(sources, 2 * self.threads))
                while self._files:
                    step = self._take(self._files[0])
                    yield step
                    if step.pixels is None:  # the file ends
                        with self._changed:
                            self._files.popleft()
                            self._changed.notify_all()
                        self._start(pool, islice(sources, 1))
            finally:
                with self._changed:
                    self._stopped = True
                    self._changed.notify_all()

    def _start(self, pool: ThreadPoolExecutor, sources: Iterator[Source]) -> None:
        for source in sources:
            self._files.append(steps := deque())
            pool.submit(self._decode, source, steps)

    def _take(self, steps: deque[Decoded]) -> Decoded:
        start = time.perf_counter()
        with self._changed:
            self._changed.wait_for(lambda: steps)
            step = steps.popleft()
            self._held_bytes -= _bytes(step)
            self._changed.notify_all()
        self.waited_s += time.perf_counter() - start
        return step

    def _decode(self, source: Source, steps: deque[Decoded]) -> None:
        """The work of one thread. The file that is wanted first never waits for room."""
        decoded = decode(source, self.sampling, self.chunk_frames)
        step = None
        while step is None or step.pixels is not None:
            start = time.perf_counter()
            try:
                step = next(decoded)
            except Exception as error:  # raised again by whoever uses the frames
                step = Decoded(source, error=error)
            seconds = time.perf_counter() - start
            with self._changed:
                self.decode_s += seconds
                self._changed.wait_for(
                    lambda: self._stopped or self._held_bytes < BUFFER_BYTES or steps is self._files[0]
                )
                if self._stopped:
                    return
                steps.append(step)
                self._held_bytes += _bytes(step)
                self._changed.notify_all()


def _bytes(step: Decoded) -> int:
    return 0 if step.pixels is None else step.pixels.nbytes
