"""Asking through the cache: a request that was answered before, now or in another run, is not sent again."""

import threading
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Protocol, TypeVar

from preparation.captioning.cache import Answer, AnswerCache
from preparation.captioning.endpoint import Unanswered
from preparation.captioning.quality import Malformed
from preparation.captioning.requests import Request

T = TypeVar("T")
Read = Callable[[str], T]
"""Makes something of a model's text; raises Malformed for text that breaks the rules."""
ATTEMPTS = 3
"""A model may give a malformed answer so often before its request counts as failed, over all runs together."""


class Ask(Protocol):
    """Gets the answer to a request, in the form that ``read`` gives it."""

    def __call__(self, request: Request, read: Read[T]) -> T:
        """Raises Unanswered, or NotAsked where nothing may be sent."""


class NotAsked(Exception):
    """The cache holds no answer yet."""

    def __init__(self, request: Request):
        super().__init__(request.step)
        self.request = request


class Asker:
    """Asks and remembers. Threads that want the same answer wait for the one that asks first.

    Args:
        cache: what was answered so far.
    """

    def __init__(self, cache: AnswerCache):
        self.cache = cache
        self.sent: dict[str, list[Answer]] = defaultdict(list)
        """Answers that this run has paid for, by step."""
        self.malformed: Counter[tuple[str, str]] = Counter()
        """Answers that were not taken, by step and reason."""
        self._lock = threading.Lock()
        self._busy: dict[str, threading.Lock] = defaultdict(threading.Lock)

    def recall(self, request: Request, read: Read[T]) -> T:
        """The answer, if it is in the cache. Raises NotAsked or Unanswered."""
        return self._first_usable(request, read, send=None)

    def ask(self, request: Request, read: Read[T]) -> T:
        """The answer, from the cache or the model. Raises Unanswered or what Client.ask raises."""
        with self._lock:
            busy = self._busy[request.key]
        with busy:
            return self._first_usable(request, read, send=self._send)

    def _first_usable(self, request: Request, read: Read[T], send: Callable[[Request], None] | None) -> T:
        problem = ""
        for number in range(ATTEMPTS):
            if number == len(self._answers(request)):
                if send is None:
                    raise NotAsked(request)
                send(request)
            answer = self._answers(request)[number]
            try:
                if answer.finish_reason in ("length", "content_filter"):
                    raise Malformed(f"the model stopped early: {answer.finish_reason}")
                return read(answer.text)
            except Malformed as error:
                problem = f"{error}: {answer.text[:80]!r}"
                if send:
                    with self._lock:
                        self.malformed[request.step, error.reason] += 1
        reason = f"malformed {request.step}, {ATTEMPTS} answers"
        raise Unanswered(reason, f"{problem}; to ask again remove its lines from {self.cache.path}")

    def _answers(self, request: Request) -> tuple[Answer, ...]:
        """What came back so far, in a cache of before too, whose keys hold the content of the file."""
        old = ()
        if request.clip and request.clip.path.name in self.cache.hashed_files:
            old = self.cache.answers(request.key_by_content)
        return old + self.cache.answers(request.key)

    def _send(self, request: Request) -> None:
        try:
            content = request.content()
        except ValueError as error:
            raise Unanswered("clip cannot be decoded", f"{request.clip.path}: {error}") from None
        answer = request.client.ask(content)
        self.cache.add(request.key, request.about(), answer)
        with self._lock:
            self.sent[request.step].append(answer)
