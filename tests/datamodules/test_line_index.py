"""Annotation lines stay on disk: they are checked once, found again, and read one by one."""

import gc
import json
import os
import pickle
import time
import tracemalloc
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from datamodules import kept, line_check, line_index
from datamodules.leakage import overlap
from datamodules.line_index import ROW, LineIndex, check_lines, open_lines
from datamodules.opening import open_sources
from datamodules.pairs import Lines, Pairs, Queries
from datamodules.query_files import query_to_dict, read_queries
from datamodules.sampling import EpochBatches, epoch_order
from datamodules.schema import Query
from datamodules.shards import ShardReader
from datamodules.skips import Skips
from datamodules.sources import Source, TrainingDialogues
from datamodules.temporal import numbers

MANY = 50_000


def grounding(number: int, **more) -> dict:
    event = {"start_s": 1.0, "end_s": 2.0}
    record = {"id": f"q{number}", "video": f"v{number % 500}", "task": "grounding", "text": f"event {number}"}
    return record | {"events": [event], "duration_s": 10.0} | more


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty folder of kept indices; every file is large enough to have one."""
    monkeypatch.setattr(kept, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(kept, "KEPT_FROM", 0)
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> Path:
    """An annotation file of some megabytes."""
    path = tmp_path_factory.mktemp("many") / "many.jsonl"
    with open(path, "w") as file:
        file.writelines(json.dumps(grounding(number)) + "\n" for number in range(MANY))
    return path


def write(path: Path, *records: dict | str) -> Path:
    path.write_text("".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in records))
    return path


def queries_of(index: LineIndex) -> list[Query]:
    return [index.query(place) for place in range(len(index))]


def held() -> int:
    """Queries that are in memory now."""
    gc.collect()
    return sum(isinstance(one, Query) for one in gc.get_objects())


def test_lines_of_a_large_file_are_checked_once_and_none_is_held(many, cache, monkeypatch):
    before = held()
    first = open_lines(many)
    monkeypatch.setattr(line_check, "query_from_dict", lambda record: pytest.fail("a line was checked again"))
    tracemalloc.start()
    second = open_lines(many)
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held() == before
    assert grown < MANY * 4  # of 50,000 lines less than 200 kB, most of it the names of 500 videos
    assert isinstance(second.rows, np.memmap) and len(second) == MANY
    assert np.array_equal(first.rows, second.rows)
    monkeypatch.undo()
    for place in (0, 1, 4321, MANY - 1):
        assert query_to_dict(second.query(place)) == grounding(place)
    assert held() == before


def test_a_worker_gets_no_lines(many, cache):
    """Neither by fork, where nothing is held, nor by pickle: the rows are mapped once more."""
    index = open_lines(many)
    pairs = Pairs([Lines(None, index, range(len(index)))])
    sent = pickle.dumps(TrainingDialogues(pairs, None, 0, "fail"))
    assert len(sent) < 30_000
    assert pickle.loads(sent).pairs[MANY - 1][1].id == f"q{MANY - 1}"


LAYOUTS = {
    "plain": b"%s\n%s\n",
    "no break at the end": b"%s\n%s",
    "of Windows": b"%s\r\n%s\r\n",
    "of old Macs": b"%s\r%s\r",
    "mixed": b"\n\r\n%s\r\r\n \t\n%s\r",
    "with a mark": b"\xef\xbb\xbf%s\n%s\n",
    "empty": b"%.0s%.0s",
    "empty lines": b"\n\n%.0s%.0s\n",
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_any_text_file_is_read_as_before(layout, cache, tmp_path):
    records = [json.dumps(grounding(n, text=text), ensure_ascii=False).encode() for n, text in enumerate("üx")]
    path = tmp_path / "lines.jsonl"
    path.write_bytes(layout % tuple(records))
    expected = list(read_queries(path))
    assert queries_of(open_lines(path)) == expected == queries_of(open_lines(path))


BROKEN = {
    "no JSON": [grounding(0), "{", grounding(1)],
    "a bad record": [grounding(0), "", grounding(1, task="nothing"), grounding(2)],
    "an id twice": [grounding(0), grounding(1), grounding(0, text="again"), "", grounding(0), grounding(1)],
}


@pytest.mark.parametrize("records", BROKEN.values(), ids=BROKEN)
def test_broken_lines_are_refused_or_counted_as_before_also_the_second_time(records, cache, tmp_path):
    path = write(tmp_path / "lines.jsonl", *records)
    with pytest.raises(ValueError) as expected:  # noqa: PT011 (compared below)
        list(read_queries(path))
    known = Skips("skip")
    readable = list(read_queries(path, known))
    for _ in range(2):
        skips = Skips("skip")
        assert queries_of(open_lines(path, skips)) == readable
        assert sorted(map(str, skips.entries)) == sorted(map(str, known.entries))
        with pytest.raises(ValueError) as found:  # noqa: PT011
            open_lines(path)
        assert str(found.value) == str(expected.value)


@pytest.mark.parametrize("records", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("several", [False, True], ids=["in turn", "by processes"])
def test_a_file_in_pieces_is_the_same_file(records, several, tmp_path, monkeypatch):
    """Line numbers, names that are in several pieces, ids that two of them use."""
    path = write(tmp_path / "lines.jsonl", *records, *(grounding(n, source=f"s{n % 2}") for n in range(500, 503)))
    whole, known = check_lines(path, Skips("skip"))
    monkeypatch.setattr(line_check, "PIECE", 40)
    monkeypatch.setattr(line_check.os, "sched_getaffinity", lambda _: range(2 if several else 1))
    assert len(line_check.pieces(path, path.stat().st_size)) > 3
    index, bad = check_lines(path, Skips("skip"))
    assert bad == known
    assert np.array_equal(index.rows, whole.rows)
    assert (list(index.videos), index.sources) == (list(whole.videos), whole.sources)
    assert queries_of(index) == queries_of(whole)
    with pytest.raises(ValueError, match="line 2: not JSON|line 3: unknown task|line 3: id 'q0'"):
        check_lines(path)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_pieces_end_where_lines_do(layout, tmp_path, monkeypatch):
    path = tmp_path / "lines.jsonl"
    path.write_bytes(layout % (b"one", b"two") * 5)
    whole = list(line_check.spans(path, 0, path.stat().st_size))
    monkeypatch.setattr(line_check, "PIECE", 3)
    cuts = line_check.pieces(path, path.stat().st_size)
    assert [span for cut in cuts for span in line_check.spans(path, *cut)] == whole


def test_bytes_that_are_no_text_are_placed_in_the_whole_file(tmp_path, monkeypatch):
    path = tmp_path / "lines.jsonl"
    path.write_bytes(b"".join(json.dumps(grounding(n)).encode() + b"\n" for n in range(3)) + b"\xff\n")
    monkeypatch.setattr(line_check, "PIECE", 40)
    with pytest.raises(ValueError, match=f"invalid start byte at byte {path.stat().st_size - 2}"):
        check_lines(path, Skips("skip"))


def test_of_processes_that_open_a_file_at_once_one_checks_it(cache, tmp_path):
    path, seen = write(tmp_path / "lines.jsonl", grounding(0)), tmp_path / "seen"
    context = get_context("fork")
    ready = context.Barrier(3)

    def start() -> None:
        check = line_index.check_lines

        def checked(*given):
            with open(seen, "a") as file:
                file.write("checked\n")
            time.sleep(0.1)
            return check(*given)

        line_index.check_lines = checked
        ready.wait()
        assert len(open_lines(path)) == 1

    processes = [context.Process(target=start) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert seen.read_text() == "checked\n"
    assert not list(cache.glob("*.lock"))


def test_content_is_read_again_only_where_a_file_was_touched(cache, tmp_path, monkeypatch):
    path, reads = write(tmp_path / "lines.jsonl", grounding(0)), []
    whole = kept.file_fingerprint
    monkeypatch.setattr(kept, "file_fingerprint", lambda file: reads.append(file) or whole(file))
    first = [line_index.fingerprint(path) for _ in range(2)]
    assert len(reads) == 2  # it changed a moment ago, and may again
    monkeypatch.setattr(kept, "SETTLED_S", -60)
    assert [*first, *(line_index.fingerprint(path) for _ in range(3))] == [whole(path)] * 5
    assert len(reads) == 3
    times, moved = path.stat(), tmp_path / "moved.jsonl"
    write(path, grounding(7))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert line_index.fingerprint(path) == whole(path) != first[0]
    path.rename(moved)
    assert line_index.fingerprint(moved) == whole(moved)


def test_a_copy_of_a_file_is_named_by_its_own_path(cache, tmp_path):
    """Its index is found by its content."""
    paths = [write(tmp_path / name, grounding(0), "{") for name in ("first.jsonl", "copy.jsonl")]
    for path in paths:
        skips = Skips("skip")
        open_lines(path, skips)
        assert [entry.where for entry in skips.entries] == [f"{path}, line 2"]


def test_bytes_that_are_no_text_are_refused(cache, tmp_path):
    path = tmp_path / "lines.jsonl"
    path.write_bytes(json.dumps(grounding(0)).encode() + b"\n\xff{}\n")
    with pytest.raises(ValueError, match=r"lines.jsonl: not UTF-8 text \(invalid start byte at byte \d+\)"):
        open_lines(path, Skips("skip"))


def test_a_folder_that_cannot_be_written_to_keeps_nothing(many, cache):
    cache.write_text("a file where the folder would be")
    index = open_lines(many)
    assert (len(index), isinstance(index.rows, np.memmap)) == (MANY, False)
    assert index.query(7).id == "q7"


def test_a_full_disk_leaves_nothing_half_done(cache, tmp_path, monkeypatch):
    def full(file, rows, **_):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(kept.np, "save", full)
    assert len(open_lines(write(tmp_path / "lines.jsonl", grounding(0)))) == 1
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("ending", [".rows.npy", ".text.npy", ".first.npy", ".json"])
@pytest.mark.parametrize("content", [b"", b"{}", b"[", None, b'{"format": "whenlm-lines-0"}'], ids=repr)
def test_a_damaged_index_is_made_anew(ending, content, cache, tmp_path):
    path = write(tmp_path / "lines.jsonl", grounding(0), grounding(1))
    open_lines(path)
    (file,) = cache.glob(f"*{ending}")
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2] if content is None else content)
    assert [query.id for query in queries_of(open_lines(path))] == ["q0", "q1"]
    assert file.read_bytes() == whole


def test_an_index_with_a_pickle_is_not_opened(cache, tmp_path):
    path = write(tmp_path / "lines.jsonl", grounding(0))
    open_lines(path)
    (file,) = cache.glob("*.rows.npy")
    np.save(file, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    assert open_lines(path).rows.dtype == ROW


def test_another_content_is_checked_and_a_copy_is_known(cache, tmp_path, monkeypatch):
    path = write(tmp_path / "lines.jsonl", grounding(0))
    open_lines(path)
    times = path.stat()
    changed = write(path, grounding(7))
    os.utime(changed, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert queries_of(open_lines(path))[0].id == "q7"
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes(path.read_bytes())
    monkeypatch.setattr(line_index, "check_lines", lambda *_: pytest.fail("checked again"))
    assert open_lines(copy).path == copy
    assert queries_of(open_lines(copy))[0].id == "q7"


def test_a_file_that_changes_while_it_is_used_is_named(cache, tmp_path):
    path = write(tmp_path / "lines.jsonl", grounding(0), grounding(1))
    late, early = open_lines(path), open_lines(path)
    assert early.query(0).id == "q0"
    content = path.read_bytes()
    path.write_bytes(content[1:])
    with pytest.raises(ValueError, match=r"lines.jsonl has another size than when it was opened; start again"):
        late.query(0)
    with pytest.raises(ValueError, match=r"lines.jsonl, line 2: not JSON .*the file changed while it was in use"):
        early.query(1)


def test_a_small_file_is_indexed_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(kept, "CACHE", tmp_path / "cache")
    assert len(open_lines(write(tmp_path / "lines.jsonl", grounding(0)))) == 1
    assert not (tmp_path / "cache").exists()


def test_several_files_are_one_sequence(cache, tmp_path):
    sizes = [3, 0, 2]
    files = [write(tmp_path / f"{n}.jsonl", *map(grounding, range(size))) for n, size in enumerate(sizes)]
    parts = [Pairs([Lines(name, check_lines(file)[0], range(size))]) for name, file, size in zip("abc", files, sizes)]  # noqa: B905
    pairs = Pairs.joined(parts)
    expected = [("a", "q0"), ("a", "q1"), ("a", "q2"), ("c", "q0"), ("c", "q1")]
    assert [(reader, query.id) for reader, query in pairs] == expected
    assert [(pairs[n][0], pairs[n][1].id) for n in range(-5, 5)] == 2 * expected
    assert list(map(bool, parts)) == [True, False, True]
    assert [pairs.part_of(place) for place in range(5)] == [0, 0, 0, 1, 1]
    assert len(set(pairs.videos().tolist())) == 5
    assert [query.id for query in Queries(pairs.where(lambda rows: rows["offset"] == 0))] == ["q0", "q0"]
    with pytest.raises(IndexError):
        pairs[5]


def test_the_order_of_an_epoch_is_that_of_queries_in_memory(world, cache, monkeypatch):
    """Shards and videos are numbers now; only which are alike decides about the order."""
    sources = [Source(str(world / kind), world / f"stage{n}.jsonl") for n, kind in ((1, "images"), (2, "videos"))]
    pairs = Pairs.joined(open_sources(sources, lambda header, _: header, "skip")[0])
    readers = [ShardReader(source.shards) for source in sources]
    plain = [(n, query) for n, source in enumerate(sources) for query in read_queries(source.queries)]
    assert [query for _, query in pairs] == [query for _, query in plain]
    shards = [(n, readers[n].shard_of(query.video)) for n, query in plain]
    videos = [(n, query.video) for n, query in plain]
    assert epoch_order(numbers(pairs.shards()), 3, 2) == epoch_order(shards, 3, 2)
    for together in (1, 3):
        now = EpochBatches(
            numbers(pairs.shards()), 5, 1, 1, 2, video_of_sample=numbers(pairs.videos()), together=together
        )
        then = EpochBatches(shards, 5, 1, 1, 2, video_of_sample=videos, together=together)
        assert list(now) == list(then)
    monkeypatch.setattr(LineIndex, "query", lambda *_: pytest.fail("a line was read"))
    found = overlap(Queries(pairs), (query for _, query in plain[:9]))
    assert found == overlap([query for _, query in plain], [query for _, query in plain[:9]])
    assert overlap([query for _, query in plain[:9]], Queries(pairs)).evaluation_queries >= 9
