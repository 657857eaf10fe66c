"""Broken inputs, and the words with which each is refused. A row more is a case more of every test of its table."""

import copy
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from datamodules.records import FeatureHeader
from datamodules.schema import Video
from models.checkpoints import lora_config, write_weights
from models.weights import Lora, Weights
from preparation.features.shard_writer import ShardWriter

EVENT = {"start_s": 1.0, "end_s": 4.0, "caption": "a man runs"}
GROUNDING = {"id": "q", "video": "v0", "task": "grounding", "text": "a man runs", "events": [EVENT], "duration_s": 10.0}
QA = {"id": "q", "video": "v0", "task": "qa", "text": "who runs?", "options": ["a man", "a dog"], "answer": 1}
DENSE = {"id": "q", "video": "v0", "task": "dense_captioning", "events": [EVENT]}
TURN = {"question": "when?", "answer": "From <s0> to <e0>.", "times": {"<s0>": 1.0, "<e0>": 4.0}}
DIALOGUE = {"id": "q", "video": "v0", "task": "dialogue", "turns": [TURN], "duration_s": 10.0}
DEEP = "[" * 100_000
HUGE = "1" + "0" * 400


@dataclass(frozen=True)
class Line:
    """A line that is no query."""

    name: str
    text: str
    words: str
    """Of the message, a pattern."""


def line(name: str, good: dict, words: str, **change: Any) -> Line:
    """A good record with other values; ``...`` takes a key out."""
    record = {key: value for key, value in (good | change).items() if value is not ...}
    return Line(name, json.dumps(record), words)


def turn(name: str, words: str, **change: Any) -> Line:
    """A dialogue with another turn."""
    return line(f"turn: {name}", DIALOGUE, words, turns=[{k: v for k, v in (TURN | change).items() if v is not ...}])


LINES = (
    Line("empty object", "{}", "key 'id' is missing"),
    Line("list", "[1, 2]", "the content must be an object"),
    Line("null", "null", "the content must be an object"),
    Line("number", "3", "the content must be an object"),
    Line("text", '"x"', "the content must be an object"),
    Line("not JSON", "{'id': 1}", "not JSON"),
    Line("half a line", json.dumps(GROUNDING)[:40], "not JSON"),
    Line("html", "<html><body>404</body></html>", "not JSON"),
    Line("deep list", DEEP, "nested too deeply"),
    Line("deep value", '{"id": ' + DEEP, "nested too deeply"),
    Line("key twice", '{"id": "a", "id": "b"}', "key 'id' is there twice"),
    Line("huge number", json.dumps(GROUNDING).replace("10.0", HUGE), "duration_s must be a "),
    Line("very huge number", json.dumps(GROUNDING).replace("10.0", "9" * 5000), "."),
    Line("infinite number", json.dumps(GROUNDING).replace("10.0", "1e999"), "duration_s must be a finite number"),
    Line("NaN", json.dumps(GROUNDING).replace("10.0", "NaN"), "duration_s must be a finite number"),
    Line(
        "half a character", json.dumps(GROUNDING).replace("a man runs", "\\ud800"), "must be text that can be written"
    ),
    line("later version", GROUNDING, "version 2 is of another WhenLM", version=2),
    line("unknown key", GROUNDING, "unknown key 'txt'", txt="x"),
    line("no video", GROUNDING, "key 'video' is missing", video=...),
    line("id is a number", GROUNDING, "id must be text, got 3", id=3),
    line("id is null", GROUNDING, "id must be text, got None", id=None),
    line("id is empty", GROUNDING, "id must be a non-empty string", id=""),
    line("text is a list", GROUNDING, "text must be text", text=["a"]),
    line("100 000 words", GROUNDING, "text must have at most 30000 characters", text="word " * 100_000),
    line("unknown task", GROUNDING, "unknown task", task="find"),
    line("task is null", GROUNDING, "task must be text", task=None),
    line("source is a number", GROUNDING, "source must be text", source=3),
    line("duration as text", GROUNDING, "duration_s must be a number", duration_s="10"),
    line("duration is true", GROUNDING, "duration_s must be a number", duration_s=True),
    line("negative duration", GROUNDING, "duration_s must be positive", duration_s=-1),
    line("events are text", GROUNDING, "events must be a list", events="ab"),
    line("events are an object", GROUNDING, "events must be a list", events={"start_s": 1}),
    line("event is null", GROUNDING, "events.0 must be an object", events=[None]),
    line("event of two numbers", GROUNDING, "events.0 must be an object", events=[[1, 2]]),
    line("event without end", GROUNDING, "events.0: key 'end_s' is missing", events=[{"start_s": 1}]),
    line("time as text", GROUNDING, "events.0.start_s must be a number", events=[EVENT | {"start_s": "1"}]),
    line("end before start", GROUNDING, "end_s must be after start_s", events=[EVENT | {"start_s": 5}]),
    line("no length", GROUNDING, "end_s must be after start_s", events=[EVENT | {"start_s": 4}]),
    line("negative start", GROUNDING, "start_s must not be negative", events=[EVENT | {"start_s": -1}]),
    line("outside the video", GROUNDING, "outside the video", events=[EVENT | {"end_s": 99}]),
    line("caption is a number", DENSE, "events.0.caption must be text", events=[EVENT | {"caption": 3}]),
    line("caption is empty", DENSE, "non-empty caption", events=[EVENT | {"caption": " "}]),
    line("detail is a list", DENSE, "events.0.detail must be text", events=[EVENT | {"detail": ["x"]}]),
    line("nothing to describe", DENSE, "at least one event", events=[]),
    line("options as text", QA, "options must be a list", options="ab"),
    line("option is a number", QA, "options.0 must be text", options=[1, 2]),
    line("one option", QA, "two options or more", options=["a"], answer=0),
    line("the right option twice", QA, "options must differ", options=["a", "a "], answer=0),
    line("27 options", QA, "27 options, and only 26", options=[f"o{n}" for n in range(27)]),
    line("answer as text", QA, "answer must be a whole number", answer="B"),
    line("answer outside", QA, "place of one of 2 options", answer=2),
    line("negative answer", QA, "answer must", answer=-1),
    line("saliency without clip_s", GROUNDING, "saliency needs clip_s", saliency=[[1]]),
    line("saliency of texts", GROUNDING, "saliency.0.0 must be a number", saliency=[["x"]], clip_s=2),
    line("absent with events", GROUNDING, "without events can be absent", absent=True),
    line("part of nothing", GROUNDING, "part: key 'file' is missing", part={"start_s": 0, "end_s": 1}),
    line("no turns", DIALOGUE, "at least one turn", turns=[]),
    line("turns are text", DIALOGUE, "turns must be a list", turns="ab"),
    line("turn is null", DIALOGUE, "turns.0 must be an object", turns=[None]),
    turn("question is a number", "turns.0.question must be text", question=3),
    turn("question is null", "turns.0.question must be text", question=None),
    turn("answer is a number", "turns.0.answer must be text", answer=3),
    turn("no question", "turns.0: key 'question' is missing", question=...),
    turn("unknown task", "unknown task 'find' of a turn", task="find"),
    turn("no time", "marker without a time", times={"<s0>": 1.0}),
    turn("time as text", r"turns.0.times.<s0> must be a number", times={"<s0>": "1", "<e0>": 4}),
    turn("negative time", "before the beginning of the video", times={"<s0>": -1.0, "<e0>": 4}),
    turn("end before start", "its end before it", times={"<s0>": 4.0, "<e0>": 1.0}),
    turn("time outside the video", "outside the video of 10.0 s", times={"<s0>": 1.0, "<e0>": 99.0}),
    turn("event outside the video", "outside the video of 10.0 s", events=[{"start_s": 50, "end_s": 60}]),
    turn("event ends before it starts", "end_s must be after start_s", events=[{"start_s": 5, "end_s": 2}]),
    turn("times are a list", "turns.0.times must be an object", times=[1.0]),
)
"""Lines of an annotation file."""

PREDICTION = {"query_id": "q", "video": "v0", "task": "grounding", "answer": "x", "spans": [[1.0, 2.0, 0.5]]}
ANSWERS = (
    Line("empty object", "{}", "key 'query_id' is missing"),
    Line("list", "[]", "must be an object"),
    Line("deep", DEEP, "nested too deeply"),
    Line("not JSON", "{", "not JSON"),
    line("id is a number", PREDICTION, "query_id must be text", query_id=3),
    line("answer is null", PREDICTION, "answer must be text", answer=None),
    line("span of one", PREDICTION, r"\[start, end\]", spans=[[1.0]]),
    line("span of texts", PREDICTION, "spans.0.0 must be a number", spans=[["1", "2"]]),
    line("spans are null", PREDICTION, "spans must be a list", spans=None),
    line("captions of numbers", PREDICTION, "captions.0 must be text", captions=[1]),
    line("option as text", PREDICTION, "option must be a whole number", option="A"),
    line("later version", PREDICTION, "version", version=2),
)
"""Lines of a prediction file."""


def edit(path: Path, *place: str | int, value: Any = ...) -> None:
    """Put another value into a JSON file; ``...`` takes the key out."""
    content = json.loads(path.read_text())
    inside = content
    for key in place[:-1]:
        inside = inside[key]
    if value is ...:
        del inside[place[-1]]
    else:
        inside[place[-1]] = value
    path.write_text(json.dumps(content))


def write(path: Path, content: str | bytes) -> None:
    """Put other content into a file."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


HEADER = FeatureHeader("clip", "image_embeds", "224", "uniform 4", width=8)


def shards(folder: Path) -> Path:
    """A whole folder of two shards with three videos."""
    with ShardWriter(folder, HEADER, 2) as writer:
        for number in range(3):
            features = np.full((4, 8), number, np.float16)
            writer.add(Video(f"v{number}", 10.0, np.linspace(0, 9, 4), features))
    return folder


def spoil(folder: Path, member: str, change: Callable[[bytes], bytes]) -> None:
    """Other bytes in a member of the first record, as many as before."""
    index = json.loads((folder / FIRST).read_text())
    at, size = index["records"][0]["members"][member]
    with open(folder / "shard-000000.tar", "r+b") as tar:
        tar.seek(at)
        changed = change(tar.read(size))
        tar.seek(at)
        tar.write(changed[:size].ljust(size))


FIRST = "shard-000000.index.json"
INDICES: dict[str, Callable[[Path], None]] = {
    f"{file}: {name}": (lambda folder, file=file, content=content: write(folder / file, content))
    for file in ("index.json", FIRST)
    for name, content in {
        "empty": "", "null": "null", "list": "[]", "number": "3", "html": "<html>", "half": '{"format": "whenlm',
        "deep": DEEP, "not UTF-8": b"\xff\xfe{}", "no keys": "{}", "another format": '{"format": "x"}',
        "format is a number": '{"format": 3}', "format alone": '{"format": "whenlm-shards-1"}',
    }.items()
}  # fmt: skip
INDICES |= {
    f"index.json: {'.'.join(map(str, place))} {value!r:.20}": (
        lambda folder, place=place, value=value: edit(folder / "index.json", *place, value=value)
    )
    for place, value in (
        (("header",), ...), (("header",), None), (("header",), []), (("header", "width"), ...),
        (("header", "width"), "8"), (("header", "width"), 8.5), (("header", "encoder"), 3), (("header", "x"), 1),
        (("shards",), ...), (("shards",), None), (("shards",), "ab"), (("shards", 0), 3), (("shards", 0, "file"), ...),
        (("shards", 0, "file"), 3), (("shards", 0, "file"), "../x.tar"), (("shards", 0, "file"), "shard-000001.tar"),
        (("shards", 0, "bytes"), ...), (("shards", 0, "bytes"), "1"), (("shards", 0, "bytes"), -1),
        (("shards", 0, "bytes"), 10**12), (("shards", 0, "records"), "2"), (("shards", 0, "sha256"), None),
    )
}  # fmt: skip
INDICES |= {
    f"{FIRST}: {'.'.join(map(str, place))} {value!r:.20}": (
        lambda folder, place=place, value=value: edit(folder / FIRST, *place, value=value)
    )
    for place, value in (
        (("records",), ...), (("records",), None), (("records",), {}), (("records", 0), None), (("records", 0), []),
        (("records", 0, "id"), ...), (("records", 0, "id"), 3), (("records", 0, "id"), ""),
        (("records", 0, "key"), None),
        (("records", 0, "members"), ...), (("records", 0, "members"), []), (("records", 0, "members"), {}),
        (("records", 0, "members", "video.json"), ...), (("records", 0, "members", "features.npy"), ...),
        (("records", 0, "members", "features.npy"), None), (("records", 0, "members", "features.npy"), [1]),
        (("records", 0, "members", "features.npy"), ["a", "b"]), (("records", 0, "members", "features.npy"), [-5, 10]),
        (("records", 0, "members", "features.npy"), [512, -10]),
        (("records", 0, "members", "features.npy"), [512, 15 * 10**9]),
        (("records", 0, "members", "features.npy"), [512, 10**30]),
        (("records", 0, "members", "features.npy"), [512.5, 64]),
    )
}  # fmt: skip
"""What is done to the indices of a folder of shards; none can be used afterwards."""


def npy(header: str, body: bytes = b"\0" * 64) -> bytes:
    """An .npy file of version 1 with this header."""
    padded = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(padded)) + padded + body


def array(kind: str, shape: str, fortran: bool) -> bytes:
    """An .npy file that promises an array of this type and shape."""
    return npy(f"{{'descr': '{kind}', 'fortran_order': {fortran}, 'shape': {shape}, }}")


MEMBERS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "zeros": ("features.npy", lambda old: bytes(len(old))),
    "text": ("features.npy", lambda old: b"<html>".ljust(len(old))),
    "an open bracket": ("features.npy", lambda old: npy("{'descr': '<f2', 'fortran_order': False, 'shape': (4, 8")),
    "an open string": ("features.npy", lambda old: npy("{'descr': '<f2, 'fortran_order': False, 'shape': (4, 8), }")),
    "a header that is no object": ("features.npy", lambda old: npy("[1, 2, 3]")),
    "objects": ("features.npy", lambda old: array("|O", "(4, 8)", False)),
    "a shape of texts": ("features.npy", lambda old: array("<f2", "('a',)", False)),
    "15 GB": ("features.npy", lambda old: array("<f2", "(8000000000,)", False)),
    "15 GB the other way": (
        "features.npy",
        lambda old: array("<f2", "(1000000000, 8)", True),
    ),
    "a negative shape": ("features.npy", lambda old: array("<f2", "(-1, 8)", False)),
    "another type": ("features.npy", lambda old: array("<f4", "(2, 8)", False)),
    "version 9": ("features.npy", lambda old: old[:6] + b"\x09\x00" + old[8:]),
    "a header of 65535": ("features.npy", lambda old: old[:8] + b"\xff\xff" + old[10:]),
    "NaN": ("features.npy", lambda old: old[:-64] + np.full(32, np.nan, np.float16).tobytes()),
    "about null": ("video.json", lambda old: b"null"),
    "about a list": ("video.json", lambda old: b"[1]"),
    "about deep": ("video.json", lambda old: b"[" * len(old)),
    "about not UTF-8": ("video.json", lambda old: b"\xff" * len(old)),
    "about without times": ("video.json", lambda old: b'{"id": "v0", "duration_s": 10.0}'),
    "about with texts for times": (
        "video.json", lambda old: b'{"id": "v0", "duration_s": 10.0, "frame_times_s": ["0", "1", "2", "3"]}',
    ),
    "about with true for times": (
        "video.json", lambda old: b'{"id": "v0", "duration_s": 10.0, "frame_times_s": [true, true, true, true]}',
    ),
    "about with another id": ("video.json", lambda old: old.replace(b'"v0"', b'"v9"')),
    "about with a negative length": ("video.json", lambda old: old.replace(b"10.0", b"-1.0")),
}  # fmt: skip
"""Member of the first record, and what its bytes become; the record cannot be used afterwards."""


def weights(folder: Path) -> Path:
    """A whole weights folder with every kind of part."""
    lora = {f"base_model.model.q_proj.lora_{side}.weight": torch.ones(4, 4) for side in "AB"}
    parts = [Lora(lora_config(4, 8, 0.0, ["q_proj"]), copy.deepcopy(lora)) for _ in range(4)]
    manifest = {
        "stage": "InstructionTuning",
        "base": {"name": "x", "fingerprint": "0"},
        "localizer": {"class_path": "localizers.TextTimestamps", "init_args": {}},
        "chat": "vicuna_v1",
    }
    experts = {"temporal": parts[2], "spatial": parts[3]}
    write_weights(folder, Weights({"weight": torch.ones(4, 2)}, parts[:2], manifest, {"h": torch.ones(2)}, experts))
    return folder


def change_tensors(path: Path, change: Callable[[dict], None]) -> None:
    """Other tensors in a file."""
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def remove(path: Path) -> None:
    """A file or a folder of files less."""
    if path.is_dir():
        for inside in path.iterdir():
            inside.unlink()
        path.rmdir()
    else:
        path.unlink()


TENSOR_FILES = ("adapter.safetensors", "head.safetensors", "lora-1/adapter_model.safetensors",
                "lora-2/adapter_model.safetensors", "temporal/adapter_model.safetensors")  # fmt: skip
FOLDERS: dict[str, tuple[Callable[[Path], None], str]] = {}
"""What is done to a weights folder, and what the message says; none can be used afterwards."""
for file in TENSOR_FILES:
    part = file.removesuffix("/adapter_model.safetensors").removesuffix(".safetensors")
    for name, content in {
        "empty": b"", "html": b"<html>", "half": None, "huge header": struct.pack("<Q", 2**62) + b"{}",
        "header that is no JSON": struct.pack("<Q", 8) + b"{{{{{{{{",
    }.items():  # fmt: skip
        FOLDERS[f"{file}: {name}"] = (
            lambda folder, file=file, content=content: write(
                folder / file, (folder / file).read_bytes()[:-3] if content is None else content
            ),
            Path(file).name,
        )
    FOLDERS[f"{file}: missing"] = (lambda folder, file=file: remove(folder / file), part)
    for name, value in (("NaN", float("nan")), ("infinity", float("inf"))):
        FOLDERS[f"{file}: {name}"] = (
            lambda folder, file=file, value=value: change_tensors(
                folder / file, lambda tensors: next(iter(tensors.values())).fill_(value)
            ),
            f"{file}.* holds NaN or infinity",
        )
    FOLDERS[f"{file}: changed"] = (
        lambda folder, file=file: change_tensors(folder / file, lambda tensors: next(iter(tensors.values())).fill_(3)),
        f"the tensors of {part} are not those",
    )
    FOLDERS[f"{file}: a tensor more"] = (
        lambda folder, file=file: change_tensors(folder / file, lambda tensors: tensors.update(x=torch.ones(1))),
        f"{part} has . tensors",
    )
for part in ("lora-1", "lora-2", "temporal", "spatial"):
    FOLDERS[f"{part}: folder missing"] = (lambda folder, part=part: remove(folder / part), "lora-|the part")
FOLDERS["a LoRA more"] = (lambda folder: (folder / "lora-2").rename(folder / "lora-3"), "no lora-2")
FOLDERS["a LoRA without a number"] = (lambda folder: (folder / "lora-2").rename(folder / "lora-x"), "no lora-2")
for name, content in {
    "empty": "", "null": "null", "list": "[]", "html": "<html>", "half": '{"stage": ', "deep": DEEP, "no keys": "{}",
    "bytes": b"\xff\xfe",
}.items():  # fmt: skip
    for file in ("manifest.json", "lora-1/adapter_config.json"):
        FOLDERS[f"{file}: {name}"] = (
            lambda folder, file=file, content=content: write(folder / file, content),
            rf"{file}: ",
        )
for place, value, words in (
    (("stage",), ..., "key 'stage' is missing"), (("stage",), 3, "stage must be text"), (("x",), 1, "unknown key 'x'"),
    (("base",), [], "base must be an object"), (("base", "fingerprint"), ..., "base: key 'fingerprint' is missing"),
    (("base", "name"), None, "base.name must be text"), (("localizer",), None, "localizer must be an object"),
    (("localizer",), [], "localizer must be an object"), (("localizer", "class_path"), ..., "'class_path' is missing"),
    (("localizer", "class_path"), 3, "class_path must be text"), (("version",), 3, "version 3 is of another WhenLM"),
    (("version",), None, "version"), (("parts",), ..., "key 'parts' is missing"), (("parts",), [], "parts must be"),
    (("parts", "head"), ..., "does not list the part head"), (("parts", "head"), 3, "parts.head must be an object"),
    (("parts", "head", "sha256"), ..., "parts.head: key 'sha256' is missing"),
    (("parts", "lora-9"), {"tensors": 1, "sha256": "x"}, "lists the part lora-9"),
    (("feature_width",), "8", "feature_width must be a whole number"), (("chat",), 3, "chat"),
    (("features",), {"x": 1}, "features"), (("generation",), "x", "generation must be an object"),
):  # fmt: skip
    FOLDERS[f"manifest.json: {'.'.join(place)} {value!r}"] = (
        lambda folder, place=place, value=value: edit(folder / "manifest.json", *place, value=value),
        words,
    )
for key, value, words in (
    ("r", ..., "key 'r' is missing"), ("r", 0, "r must"), ("r", "4", "r must be a whole number"),
    ("lora_alpha", ..., "key 'lora_alpha' is missing"), ("lora_alpha", None, "lora_alpha must be a number"),
    ("lora_alpha", "8", "lora_alpha must be a number"), ("lora_alpha", -1, "lora_alpha must"),
    ("target_modules", ..., "key 'target_modules' is missing"), ("use_dora", True, "use_dora is not understood"),
    ("use_rslora", True, "use_rslora is not understood"), ("peft_type", "IA3", "only plain LoRAs"),
):  # fmt: skip
    FOLDERS[f"adapter_config.json: {key} {value!r}"] = (
        lambda folder, key=key, value=value: edit(folder / "lora-1" / "adapter_config.json", key, value=value),
        f"lora-1.adapter_config.json: .*{words}",
    )
