"""Shards read in sequence from anywhere, without their index."""

import shutil
import tarfile
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import webdataset

from command_line.tables import say
from datamodules.records import DAMAGE, MEMBERS, FeatureHeader, StrictTarInfo, from_members, member_id
from datamodules.schema import Video
from datamodules.skips import OnError, Skips

WAIT_S = 20.0
"""Seconds without a byte of a shard after which that is said."""
PROGRAMS = {
    "file": "", "http": "curl", "https": "curl", "ftps": "curl", "sftp": "curl", "scp": "curl", "hf": "curl",
    "gs": "gsutil", "htgs": "curl", "ais": "ais",
}  # fmt: skip
"""Kind of a URL -> the program with which WebDataset opens it."""


@dataclass(frozen=True)
class Streamed:
    """One video of a stream, and what was left out since the one before it."""

    video: Video | None
    """None: the last item of a reader, there only to carry the skips."""
    skipped: tuple[str, ...] = ()
    """One message a skip."""


def stream(
    urls: str | Iterable[str], on_error: OnError = "fail", header: FeatureHeader | None = None, allow_pipe: bool = False
) -> webdataset.DataPipeline:
    """Read shards in sequence from anywhere that WebDataset can open (files, https, s3, gs, hf).

    It promises less than ShardReader: whole shards are dealt to ranks and workers, so an epoch has a different length
    on each of them (cut it with ``.with_epoch``), the order depends on the number of workers, a resumed run does not
    continue where it stopped, and fewer shards than workers leave workers idle. Order is that of ``urls``; to shuffle,
    ``.compose(webdataset.shuffle(1000))``.

    Args:
        urls: tar URLs, or one string in WebDataset's brace notation.
        on_error: ``fail``, or ``skip`` to leave out what cannot be read. A skip travels with the next sample.
        header: what every video must match; see FeatureHeader.
        allow_pipe: let ``pipe:`` URLs run their shell command.

    Returns:
        An iterable dataset of Streamed.

    Raises:
        ValueError: unknown policy, no URL, or a ``pipe:`` URL that was not allowed.
    """
    Skips(on_error)  # refuse an unknown policy here, not in a worker
    urls = webdataset.shardlists.expand_urls(urls) if isinstance(urls, str) else list(urls)
    if not urls:
        raise ValueError("no URL to stream from")
    for url in urls:
        check_url(url, allow_pipe)
    return webdataset.DataPipeline(
        webdataset.SimpleShardList(urls),
        webdataset.split_by_node,
        webdataset.split_by_worker,
        _Decoder(on_error, header),
    )


def check_url(url: str, allow_pipe: bool = False) -> None:
    """Refuse what cannot be opened, or must not be.

    Raises:
        ValueError: a ``pipe:`` URL that was not allowed, an unknown kind, or the program that opens it is missing.
    """
    scheme = url.strip().partition(":")[0].lower() if ":" in url else ""
    if scheme == "pipe" and not allow_pipe:
        raise ValueError(f"{url!r} runs a shell command; pass allow_pipe=True if you wrote it yourself")
    if "://" not in url or scheme == "pipe":
        return
    if scheme not in PROGRAMS:
        raise ValueError(f"{url!r}: shards at {scheme}:// cannot be opened; known: {', '.join(PROGRAMS)}")
    if (program := PROGRAMS[scheme]) and shutil.which(program) is None:
        raise ValueError(f"{url!r} is opened with {program}, which is not installed here")


@contextmanager
def said_after(seconds: float, words: str) -> Iterator[None]:
    """Say that something is waited for, where it takes longer than this."""
    timer = threading.Timer(seconds, say, (words,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@dataclass
class _Decoder:
    """The stage of ``stream`` that turns shard URLs into Streamed (a class, so that workers can unpickle it)."""

    on_error: OnError
    header: FeatureHeader | None

    def __call__(self, shards: Iterable[Mapping]) -> Iterator[Streamed]:
        skips = Skips(self.on_error)
        for url in (shard["url"] for shard in shards):
            for key, members in self._records(url, skips):
                try:
                    video = from_members(members)
                    if self.header:
                        self.header.check_video(video)
                except DAMAGE as error:
                    skips.add(f"{url}, record {member_id(key)!r} (key {key})", "damaged record", str(error))
                    continue
                yield Streamed(video, tuple(map(str, skips.entries)))
                skips.entries.clear()
        if skips.entries:
            yield Streamed(None, tuple(map(str, skips.entries)))

    def _records(self, url: str, skips: Skips) -> Iterator[tuple[str, dict[str, bytes]]]:
        """(key, members) of one shard, up to its end or to the first damage."""
        key, members, damage = None, {}, None
        try:
            waiting = said_after(WAIT_S, f"{url}: no byte after {WAIT_S:g} s; its server may be trying again and again")
            with ExitStack() as opened:
                with waiting:  # tarfile reads the first header
                    source = opened.enter_context(webdataset.gopen(url))
                    archive = opened.enter_context(tarfile.open(fileobj=source, mode="r|", tarinfo=StrictTarInfo))
                for member in archive:
                    archive.members = []  # tarfile would keep them all
                    following, name = webdataset.tariterators.base_plus_ext(member.name)
                    if following != key and members:
                        yield key, members
                        members = {}
                    key = following
                    if name in MEMBERS and member.isfile():
                        members[name] = bytearray(
                            archive.extractfile(member).read()
                        )  # arrays that lie in it can be written to
        except (tarfile.TarError, OSError) as error:
            damage = error
        if "video.json" in members or (members and not damage):  # video.json is written last: the record is whole
            yield key, members
        if damage:
            skips.add(url, "damaged shard, the rest of it is lost", str(damage))
