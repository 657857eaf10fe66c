"""Caption scores that need Java: Penn Treebank tokens and METEOR 1.5, from the jars of pycocoevalcap.

The tokeniser runs once for all sentences, METEOR is one process for the life of the program: starting it costs
seconds, scoring a pair a fraction of a millisecond. Both remember what they have seen.
"""

import atexit
import contextlib
import importlib.util
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

REMOVED = frozenset(["''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"])
"""Tokens that are dropped. Bracket tokens stay: their official removal list is upper-case, the tokens are not."""
LINE_BREAKS = re.compile("[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")
UNMATCHED = "qzjxkvwqzjxkvw"
"""What a caption is compared with where it matches no reference. Official code draws a random word instead."""


class CaptionsUnavailable(RuntimeError):
    """pycocoevalcap or Java is missing or does not run; the message says what to do."""


def jar(path: str) -> Path:
    """A jar of the installed pycocoevalcap."""
    found = importlib.util.find_spec("pycocoevalcap")
    if found is None:
        raise CaptionsUnavailable("METEOR and CIDEr need pycocoevalcap: pip install 'whenlm[captions]'")
    return Path(found.submodule_search_locations[0]) / path


@cache
def java() -> str:
    """The java command.

    Raises:
        CaptionsUnavailable: there is none.
    """
    home = os.environ.get("JAVA_HOME", "")
    command = shutil.which("java") or shutil.which("java", path=os.path.join(home, "bin"))
    if command is None:
        raise CaptionsUnavailable("METEOR and the PTB tokeniser need Java: install a JRE (17 is tested), on PATH")
    return command


def ascii_only(sentence: str) -> str:
    """The sentence with a space for every character outside ASCII."""
    return "".join(character if ord(character) < 128 else " " for character in sentence)


class Tokenizer:
    """Stanford PTB tokens in lower case without punctuation, as in the COCO caption evaluation."""

    def __init__(self):
        self.seen: dict[str, str] = {}

    def __call__(self, sentences: Iterable[str]) -> dict[str, str]:
        """Sentence -> its tokens with spaces between them; one start of Java for all that are new."""
        sentences = set(sentences)
        new = sorted(sentences - self.seen.keys())
        if new:
            self.seen.update(zip(new, self.tokenize(new), strict=True))
        return {sentence: self.seen[sentence] for sentence in sentences}

    def tokenize(self, sentences: Sequence[str]) -> list[str]:
        """Tokens of each sentence, in order."""
        library = jar("tokenizer/stanford-corenlp-3.4.1.jar")
        command = [java(), "-Dfile.encoding=UTF-8", "-cp", str(library), "edu.stanford.nlp.process.PTBTokenizer"]
        text = "".join(LINE_BREAKS.sub(" ", sentence) + "\n" for sentence in sentences)
        done = subprocess.run([*command, "-preserveLines", "-lowerCase"], input=text.encode(), capture_output=True)
        lines = done.stdout.decode().split("\n")
        if done.returncode or len(lines) < len(sentences):
            raise CaptionsUnavailable(f"the PTB tokeniser failed: {done.stderr.decode()[-200:].strip()!r}")
        return [" ".join(word for word in line.split() if word not in REMOVED) for line in lines[: len(sentences)]]


class Meteor:
    """METEOR 1.5 (English, default rank parameters, normalised) behind a pipe."""

    def __init__(self):
        library = jar("meteor/meteor-1.5.jar")
        command = [java(), "-Xmx2G", "-Dfile.encoding=UTF-8", "-jar", str(library)]
        self.process = subprocess.Popen(
            [*command, "-", "-", "-stdio", "-l", "en", "-norm"],
            cwd=library.parent,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        atexit.register(self.close)
        self.statistics: dict[tuple[str, str], str] = {}
        self.totals: dict[tuple[str, ...], list[float]] = {}
        self.lock = threading.Lock()

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):  # what was not sent is not wanted
                pipe.close()

    def ask(self, lines: Sequence[str], answers: int) -> list[str]:
        """Send lines while reading the answers, so that neither pipe fills up."""
        writer = threading.Thread(target=self.send, args=("".join(line + "\n" for line in lines).encode(),))
        writer.start()
        try:
            replies = [self.process.stdout.readline().decode().strip() for _ in range(answers)]
        except ValueError:  # closed
            replies = [""]
        writer.join()
        if not all(replies):
            raise CaptionsUnavailable("METEOR stopped; is there enough memory for Java (2 GB)?")
        return replies

    def send(self, data: bytes) -> None:
        """Write to the process."""
        with contextlib.suppress(OSError, ValueError):  # the reader sees the end of the answers and reports it
            self.process.stdin.write(data)
            self.process.stdin.flush()

    def prepare(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Compute the statistics of all pairs at once.

        Args:
            pairs: (hypothesis, reference), tokenised.
        """
        with self.lock:
            new = sorted(set(pairs) - self.statistics.keys())
            lines = [f"SCORE ||| {bars(reference)} ||| {bars(hypothesis)}" for hypothesis, reference in new]
            self.statistics.update(zip(new, self.ask(lines, len(lines)), strict=True))

    def score(self, groups: Sequence[Sequence[tuple[str, str]]]) -> list[list[float]]:
        """METEOR of groups of pairs.

        Args:
            groups: lists of (hypothesis, reference), tokenised.

        Returns:
            For each group the score of every pair and, last, that of their summed statistics (0 for no pair).
        """
        self.prepare(pair for group in groups for pair in group)
        keys = [tuple(self.statistics[pair] for pair in group) for group in groups]
        with self.lock:
            new = sorted({key for key in keys if key and key not in self.totals})
            lines = ["EVAL ||| " + " ||| ".join(key) for key in new]
            replies = iter(self.ask(lines, sum(len(key) + 1 for key in new)))
            self.totals.update({key: [float(next(replies)) for _ in range(len(key) + 1)] for key in new})
        return [self.totals.get(key, [0.0]) for key in keys]

    def pairs(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """METEOR of single pairs (hypothesis, reference)."""
        return [row[0] for row in self.score([[pair] for pair in pairs])]


def bars(sentence: str) -> str:
    """A sentence that holds no field separator of the METEOR protocol."""
    return sentence.replace("|||", "").replace("  ", " ")


@cache
def tokenizer() -> Tokenizer:
    """The tokeniser of this program."""
    return Tokenizer()


@cache
def meteor() -> Meteor:
    """The METEOR process of this program."""
    return Meteor()
