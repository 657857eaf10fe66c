"""What models have answered so far, in a file that only grows: whatever was paid for is never asked again."""

import fcntl
import json
import os
import threading
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Answer:
    """What came back for one request."""

    text: str
    finish_reason: str = "stop"
    """``stop``, or why the model stopped early (``length``, ``content_filter``)."""
    tokens_in: int = 0
    tokens_out: int = 0
    seconds: float = 0.0


class AnswerCache:
    """Answers by the digest of what was asked, one JSON line each: the request as it was sent, and its answer.

    Every line is on disk before ``add`` returns. A last line that a kill left half written is cut off; damage anywhere
    else is refused. One process at a time may hold the file.

    Args:
        path: the file; it is made if it is not there.

    Raises:
        ValueError: another process holds the file, or a line of it cannot be read (naming it).
    """

    def __init__(self, path: Path):
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._answers: dict[str, list[Answer]] = defaultdict(list)
        self.hashed_files: set[str] = set()
        """Names of video files whose requests have keys of before: with the digest of their content."""
        self._lock = threading.Lock()
        self._file = open(path, "a+b", buffering=0)  # noqa: SIM115 (closed by close)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._load()
        except BlockingIOError:
            self._file.close()
            raise ValueError(f"{path}: another run is writing here; wait for it, or give another cache") from None
        except BaseException:
            self._file.close()
            raise

    def _load(self) -> None:
        self._file.seek(0)
        *lines, last = self._file.read().split(b"\n")
        for number, line in enumerate(lines, 1):
            try:
                self._read(line)
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                raise ValueError(f"{self.path}, line {number}: not a recorded answer ({error}); mend it") from None
        if not last:
            return
        try:
            self._read(last)
            self._file.write(b"\n")  # only the end of the line was missing
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            self._file.truncate(self._file.tell() - len(last))

    def _read(self, line: bytes) -> None:
        record = json.loads(line)
        self._answers[record["key"]].append(Answer(**record["answer"]))
        if "sha256" in record.get("clip", {}):
            self.hashed_files.add(record["file"])

    def answers(self, key: str) -> tuple[Answer, ...]:
        """Everything that came back for one request so far, oldest first."""
        with self._lock:
            return tuple(self._answers.get(key, ()))

    def add(self, key: str, about: Mapping, answer: Answer) -> None:
        """Keep an answer.

        Args:
            key: digest of the request.
            about: the request in full, for people.
            answer: what came back.
        """
        line = json.dumps({"key": key, **about, "answer": asdict(answer)}, ensure_ascii=False) + "\n"
        rest = line.encode(errors="backslashreplace")  # half a character becomes its JSON escape
        with self._lock:
            end = os.fstat(self._file.fileno()).st_size
            try:
                while rest:
                    rest = rest[self._file.write(rest) :]
                os.fsync(self._file.fileno())
            except OSError:  # a full disk must not leave half a line in the middle of the file
                self._file.truncate(end)
                raise
            self._answers[key].append(answer)

    def close(self) -> None:
        """Let the next run have the file."""
        self._file.close()
