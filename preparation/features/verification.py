"""Check a folder of shards: what its index says against what lies there, byte for byte."""

import hashlib
import os
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from command_line.progress import Bar
from datamodules.records import DAMAGE, FeatureHeader, StrictTarInfo, decode_record
from datamodules.shard_index import INDEX, index_path, misplaced, read_folder, read_json


@dataclass(frozen=True)
class Problem:
    """One thing that ``verify`` found."""

    file: str
    id: str
    what: str
    remedy: str


@dataclass(frozen=True)
class Report:
    """What ``verify`` saw."""

    header: FeatureHeader
    shards: int
    records: int
    problems: tuple[Problem, ...]
    unknown_times: int = 0
    """Records that do not say how they were decoded: made elsewhere or earlier, with times that may be wrong."""


def verify(folder: Path) -> Report:
    """Check everything in a folder of shards: what the index says against what lies there, byte for byte.

    Args:
        folder: what ShardWriter wrote.

    Returns:
        The counts and the list of problems; empty when all is well.

    Raises:
        FileNotFoundError: there is no index.
        ValueError: the index itself cannot be read.
    """
    folder = Path(folder)
    header, shards = read_folder(folder)
    seen: dict[str, str] = {}
    readers: Counter[str] = Counter()
    problems = []
    with Bar("verifying", len(shards)) as bar:
        for shard in shards:
            problems += _verify_shard(folder, shard, header, seen, readers)
            bar.advance()
    known = {shard["file"] for shard in shards}
    for path in sorted(folder.glob("shard-*.tar*")):
        if path.name not in known:
            remedy = "run the extraction again; it resumes"
            problems.append(Problem(path.name, "", "not in the index: an unfinished shard", remedy))
    return Report(header, len(shards), sum(shard["records"] for shard in shards), tuple(problems), readers[""])


def _verify_shard(
    folder: Path, shard: Mapping, header: FeatureHeader, seen: dict[str, str], readers: Counter[str]
) -> Iterator[Problem]:
    """Problems of one shard.

    ``seen`` maps the ids of earlier shards to their files, ``readers`` counts how videos were decoded; both grow.
    """
    tar, again = folder / shard["file"], "copy it again, or delete it with its index and extract its videos again"
    try:
        records = read_json(index_path(tar))["records"]
        if len(records) != shard["records"]:
            what = f"{INDEX} counts {shard['records']} records, {index_path(tar).name} {len(records)}"
            yield Problem(tar.name, "", what, again)
        if not tar.is_file():
            raise FileNotFoundError("missing")
    except (OSError, ValueError) as error:
        yield Problem(tar.name, "", str(error), again)
        return
    if tar.stat().st_size != shard["bytes"]:
        what = f"{tar.stat().st_size} bytes, the index says {shard['bytes']}: truncated or changed"
        yield Problem(tar.name, "", what, again)
    with open(tar, "rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != shard["sha256"]:
            yield Problem(tar.name, "", "the checksum differs from the index: changed", again)
        places, damage = _walk(tar)
        if damage:
            yield Problem(tar.name, "", f"{damage}; a reader that streams loses the rest", again)
        for record in records:
            if what := _verify_record(file.fileno(), record, header, places, readers):
                yield Problem(tar.name, record["id"], what, "extract this video again into a new folder")
            if record["id"] in seen:
                yield Problem(tar.name, record["id"], f"the id is also in {seen[record['id']]}", "keep one of them")
            seen[record["id"]] = tar.name
    for name in places:
        yield Problem(tar.name, "", f"member {name} is not in the index; it is never read", again)


def _verify_record(
    descriptor: int, record: Mapping, header: FeatureHeader, places: dict[str, list[int]], readers: Counter[str]
) -> str:
    """What is wrong with one record. Its members are removed from ``places`` (name -> [offset, size])."""
    expected = {f"{record['key']}.{name}": place for name, place in record["members"].items()}
    lost = [name for name in expected if places.pop(name, None) != expected[name]]
    if what := misplaced(record, os.fstat(descriptor).st_size):
        return what
    try:
        video = decode_record(record, lambda offset, size: os.pread(descriptor, size, offset), header)
        readers[video.reader] += 1
    except DAMAGE as error:
        return str(error) or type(error).__name__
    return f"reading the tar in sequence does not find {', '.join(lost)} where the index has it" if lost else ""


def _walk(tar: Path) -> tuple[dict[str, list[int]], str]:
    """Member name -> [offset, size] as a sequential reader finds them, and what stopped it."""
    places = {}
    try:
        with tarfile.open(tar, "r:", tarinfo=StrictTarInfo) as archive:
            for member in archive:
                places[member.name] = [member.offset_data, member.size]
    except (tarfile.TarError, OSError) as error:
        return places, str(error)
    return places, ""
