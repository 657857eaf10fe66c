"""One model behind an OpenAI-compatible address: how often it is asked, and which failures are tried again."""

import os
import random
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from jsonargparse.typing import NonNegativeFloat, PositiveFloat, PositiveInt

from command_line.tables import console
from preparation.captioning.cache import Answer

RETRIES = 8
FIRST_WAIT_S = 1.0
LONGEST_WAIT_S = 60.0
"""Waits between tries double from the first to the longest; a server's own Retry-After comes before both."""
LONGEST_RETRY_AFTER_S = 600.0
GIVE_UP_AFTER = 10
"""So many requests in a row without an answer mean that the endpoint is at fault, not the requests."""
LONGEST_MESSAGE = 500
"""Characters that are told of a failure; a server may answer with a whole page."""


class Unanswered(Exception):
    """One request got no answer that can be used. ``reason`` is shared by many, ``detail`` is its own."""

    def __init__(self, reason: str, detail: str):
        super().__init__(f"{reason} ({detail})")
        self.reason, self.detail = reason, detail


class Stopped(Exception):
    """The run ends; nothing more is sent."""


@dataclass(frozen=True)
class Endpoint:
    """A model, and where it answers.

    Args:
        model: name of the model, as its server knows it.
        url: base address that ends in ``/v1``; without it OPENAI_BASE_URL, or else OpenAI's own.
        key_variable: the environment variable that holds the API key. The key itself is written nowhere.
        requests_per_minute: rate limit.
        timeout_s: seconds to wait for one answer.
        options: further fields of the request, such as ``temperature``.
        price_in: US dollars for a million tokens read, for the estimate.
        price_out: US dollars for a million tokens written, for the estimate.
    """

    model: str
    url: str | None = None
    key_variable: str = "OPENAI_API_KEY"
    requests_per_minute: PositiveInt | None = None
    timeout_s: PositiveFloat = 120.0
    options: dict[str, Any] = field(default_factory=lambda: {"max_tokens": 1024})
    price_in: NonNegativeFloat = 0.0
    price_out: NonNegativeFloat = 0.0


class Pace:
    """Spreads requests evenly over time; several threads share it."""

    def __init__(self, per_minute: int | None, stop: threading.Event):
        self.gap_s = 60 / per_minute if per_minute else 0.0
        self.stop = stop
        self._next = 0.0
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Return when the next request may go. Raises Stopped when the run ends."""
        with self._lock:
            now = time.monotonic()
            turn = max(now, self._next)
            self._next = turn + self.gap_s
        self.sleep(turn - now)

    def hold(self, seconds: float) -> None:
        """Let no request go for some time."""
        with self._lock:
            self._next = max(self._next, time.monotonic() + seconds)

    def sleep(self, seconds: float) -> None:
        """Sleep, but not longer than the run goes on."""
        if self.stop.wait(max(seconds, 0.0)):
            raise Stopped


class Client:
    """Asks one endpoint, from any number of threads.

    Args:
        endpoint: the model.
        stop: set when the run ends.

    Raises:
        ValueError: the ``openai`` package, the API key or a well-formed address is missing, or an option is not free.
    """

    def __init__(self, endpoint: Endpoint, stop: threading.Event):
        try:
            import openai
        except ImportError:
            raise ValueError("asking models needs the openai client: pip install -e '.[captioning]'") from None
        if taken := {"model", "messages", "n", "stream"} & set(endpoint.options):
            raise ValueError(f"options of {endpoint.model}: {', '.join(sorted(taken))} cannot be set there")
        url, self.key = endpoint.url or os.environ.get("OPENAI_BASE_URL"), os.environ.get(endpoint.key_variable, "")
        if url and not url.startswith(("http://", "https://")):
            raise ValueError(f"url of {endpoint.model}: must begin with http:// or https://, got {url!r}")
        if not url and not self.key:
            raise ValueError(f"OpenAI needs an API key: set {endpoint.key_variable}, or give the url of a server")
        self.endpoint = endpoint
        self.pace = Pace(endpoint.requests_per_minute, stop)
        self.retried = self.unanswered = 0
        self._lock = threading.Lock()
        self._errors = openai
        # A local server wants no key, the client wants a word. Retries are ours: all threads share the pace.
        arguments = {"base_url": url, "api_key": self.key or "none", "timeout": endpoint.timeout_s}
        self._client = openai.OpenAI(**arguments, max_retries=0)

    def models(self) -> list[str]:
        """Names of the models that the server lists. Raises ValueError where it does not answer."""
        try:
            return [model.id for model in self._client.models.list()]
        except (self._errors.OpenAIError, ValueError) as error:
            raise ValueError(f"the list of models: {self._about(error)}") from None

    def ask(self, content: str | list[dict]) -> Answer:
        """Send one request; a passing failure is tried again with longer and longer waits.

        Args:
            content: of the user's message: text, or a list of parts.

        Raises:
            Unanswered: this request failed for good.
            ValueError: no request can succeed: the key, the model or the quota is at fault, or nothing was answered
                ``GIVE_UP_AFTER`` times in a row.
            Stopped: the run ends.
        """
        for attempt in range(RETRIES + 1):
            self.pace.wait()
            try:
                answer = self._send(content)
            except (self._errors.OpenAIError, ValueError) as error:
                if not self._passing(error):
                    raise self._failure(error) from None
                problem = error
                if attempt < RETRIES:
                    self._back_off(error, attempt)
            else:
                self.unanswered = 0
                return answer
        raise self._failure(problem)

    def _send(self, content: str | list[dict]) -> Answer:
        started = time.monotonic()
        completion = self._client.chat.completions.create(
            model=self.endpoint.model,
            messages=[{"role": "user", "content": content}],
            extra_body=self.endpoint.options,
        )
        try:
            choice, usage = completion.choices[0], completion.usage
            text, reason = choice.message.content or "", choice.finish_reason or "stop"
            tokens = (usage.prompt_tokens or 0, usage.completion_tokens or 0) if usage else (0, 0)
        except (AttributeError, IndexError, TypeError):
            raise ValueError(f"the response is not a chat completion: {str(completion)[:200]!r}") from None
        if not isinstance(text, str):
            raise ValueError(f"the response holds no text but {str(text)[:200]!r}")
        return Answer(text, reason, *tokens, round(time.monotonic() - started, 3))

    def _passing(self, error: Exception) -> bool:
        """Whether the same request may succeed later. A response that is no chat completion may."""
        status = getattr(error, "status_code", None)
        if status is None:
            return True  # no connection, a timeout, or a malformed response
        return status in (408, 409, 429) and error.code != "insufficient_quota" or status >= 500

    def _back_off(self, error: Exception, attempt: int) -> None:
        wait_s = min(FIRST_WAIT_S * 2**attempt, LONGEST_WAIT_S)
        if getattr(error, "status_code", None) == 429:
            stated = error.response.headers.get("retry-after", "")
            if stated.replace(".", "", 1).isdecimal():
                wait_s = min(float(stated), LONGEST_RETRY_AFTER_S)
            self.pace.hold(wait_s)
        with self._lock:
            self.retried += 1
            first = self.retried == 1
        if first:
            console.print(f"{self._about(error)}. Trying again; more of these are only counted", markup=False)
        self.pace.sleep(wait_s * (1 + random.random() / 4))  # not all threads at the same moment

    def _about(self, error: Exception) -> str:
        """One line, with what the client does not tell: why there is no connection, a body of a server's own layout."""
        body = getattr(error, "body", None)
        more = "" if isinstance(body, dict) and body.get("message") else str(body or error.__cause__ or "")
        if isinstance(error, self._errors.APITimeoutError):
            more = f"no answer in {self.endpoint.timeout_s:g} s; raise timeout_s, or ask less at once (concurrency)"
        words = [f"{self.endpoint.model} at {self._client.base_url}", str(error).rstrip("."), more.rstrip(".")]
        text = " ".join(": ".join(filter(None, words)).split())
        return (text.replace(self.key, "***") if self.key else text)[:LONGEST_MESSAGE]

    def _failure(self, error: Exception) -> Exception:
        status, self.unanswered = getattr(error, "status_code", None), self.unanswered + 1
        # 429 comes here as the end of all tries, too
        if status in (401, 403, 404) or getattr(error, "code", None) == "insufficient_quota":
            return ValueError(f"{self._about(error)}. Mend it and run again: what was answered is kept")
        if self.unanswered >= GIVE_UP_AFTER:
            return ValueError(
                f"{self.unanswered} requests in a row got no answer, the last one: {self._about(error)}. "
                "Run again when it works: what was answered is kept"
            )
        if status and not self._passing(error):
            return Unanswered("the model refused the request", self._about(error))
        detail = f"{self._about(error)}; run again when it works: what was answered is kept"
        return Unanswered("the model did not answer", detail)
