"""Every golden file, and every block of the paradigms' files, is read by a test, or there is a reason why not."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.golden

TESTS = Path(__file__).parent
NOT_READ = {
    r"README\.md|.*/README\.md": "for people",
    r".*/tokenizer/.*": "read with its folder, by AutoTokenizer",
    r".*/official_layout/.*": "read with its folder, as a user of released weights does",
    r"paradigms/compressors\..*": "compressors that are not built",
    r"paradigms/rewards\.safetensors": "of the training blocks of rewards.json, which are not built: advantages,"
    " policy_loss, difficulty, sampling, and what time_r1 pays for thoughts",
}
"""Pattern of a path in the folder -> why no test reads it."""
BLOCKS_NOT_READ = {
    r".*/(set|id|note|why|raises|name)": "says what a block or a case is about",
    r"answers/(kinds|parsers_summary|answers/(hard|reversed|style))(/.*)?": "sorts and counts the cases beside it",
    r"compressors/.*": "compressors that are not built",
    r"evidence/cases/text_of_token": "the spans beside it, written out",
    r"frame_texts/molmo2/(out/subtitle|subtitle_mode|subtitles)": "records hold no subtitles: speech is no input here",
    r"frame_texts/qwen3_vl/groups/indices_after_the_call": "a defect: the processor changes its caller's list",
    r"frame_texts/qwen3_vl/qwen_vl_utils_frames/out/sample_fps": "an average; times are those of the frames",
    r"frame_texts/timelens/video_settings(/.*)?": "pixels are chosen where features are made, by other encoders' rules",
    r"frame_texts/unitime/(clips(/.*)?|prompts/frames_per_feature)": "features of several frames are not made",
    r"rewards/(advantages|difficulty|policy_loss)(/.*)?": "training by rewards is not built",
    r"rewards/timelens2/(sampling|specs|completions/parse|intervals/total_of_rollout)(/.*)?": "the same",
    r"rewards/.*/completions/format": "the same: a reward for the form of a thought",
    r"rewards/time_r1/(thinking|empty_target_takes_the_reward_of_the_row_before)(/.*)?": "the same, and a defect of it",
    r"time_distribution/cases/layers": "always three; weights of another number do not load",
    r"time_tokens/grounded_videollm/decode/llm": "which base it is decides nothing here",
    r"time_tokens/grounded_videollm/mark_questions/.*/from": "who speaks; turns are pairs here",
    r"time_tokens/omnivid/target/ious": "of proposals of another model",
    r"time_tokens/vtg_llm/digit_loss/value_without_digit_targets": "of targets that are in no file",
    r"time_tokens/vtg_llm/frame_sentence/(asked|frames_in_video)": "how it chooses frames; their numbers are read",
    r"univtg_saliency/cases/(batch|lengths|size)": "of the tensors, which are read",
    r"univtg_saliency/cases/(classes(/.*)?|intra_classes)": "action labels as sentences, of data that is not read here",
}
"""Pattern of a file and the keys of a block in it -> why no test reads it."""
NAMED = ("cases", "parsers", "scores")
"""Keys of what has a name of its own, which tests go through."""


def named(file: Path) -> set[str]:
    """Patterns of the texts in a test file; what is filled into an f-string may be anything but a folder."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.Constant) else None for part in node.values]
            if re.search(r"\w\w", "".join(filter(None, parts)).partition(".")[0]):  # more than an ending
                found.add("".join("[^/]+" if part is None else re.escape(part) for part in parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(re.escape(node.value))
    return found


def reads(patterns: set[str], file: Path) -> bool:
    """Whether a test with these texts names the file, and the folders that it lies in."""
    whole = re.compile("|".join(patterns))
    if whole.fullmatch(file.as_posix()) or whole.fullmatch(file.with_suffix("").as_posix()):
        return True
    folders = all(whole.fullmatch(part) for part in file.parts[:-1])
    return folders and bool(whole.fullmatch(file.name) or whole.fullmatch(file.stem))


def test_every_golden_file_is_read_or_there_is_a_reason(golden):
    files = [path.relative_to(golden) for path in golden.rglob("*") if path.is_file()]
    tests = [
        named(path) for path in TESTS.rglob("test_*.py") if "golden" in path.read_text() and path != Path(__file__)
    ]
    unread = [
        file.as_posix()
        for file in files
        if not any(re.fullmatch(pattern, file.as_posix()) for pattern in NOT_READ)
        and not any(reads(patterns, file) for patterns in tests)
    ]
    assert not unread, f"no test reads {', '.join(sorted(unread))}"


def test_a_file_that_nobody_reads_is_found():
    patterns = named(TESTS / "test_golden_vtimellm.py")
    assert reads(patterns, Path("models/vtimellm/generation.json"))
    assert not reads(patterns, Path("models/vtimellm/another.json"))
    assert not reads(patterns, Path("elsewhere/vtimellm/generation.json"))


def blocks(content: object, path: str) -> Iterator[str]:
    """All keys of a file, each behind those that it lies under."""
    for each in content if isinstance(content, list) else [content] if isinstance(content, dict) else []:
        for key, value in each.items() if isinstance(each, dict) else ():
            yield f"{path}/{key}"
            for part in value.values() if key in NAMED and isinstance(value, dict) else [value]:
                yield from blocks(part, f"{path}/{key}")


def words(file: Path) -> set[str]:
    """What a test names: words of its texts and of its attributes; a beginning of a name stands for the whole."""
    tree = [*ast.walk(ast.parse(file.read_text()))]
    texts = [node.value for node in tree if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return {node.attr for node in tree if isinstance(node, ast.Attribute)} | set(re.findall(r"\w+", " ".join(texts)))


def test_every_block_of_the_paradigms_is_read_or_there_is_a_reason(golden):
    tests = {path: path.read_text() for path in TESTS.rglob("test_golden_*.py") if path != Path(__file__)}
    unread = set()
    for file in sorted((golden / "paradigms").glob("*.json")):
        readers = [path for path, text in tests.items() if f"paradigms/{file.stem}" in text]
        known = set().union(*map(words, readers))
        begun = tuple(word for word in known if word.endswith("_"))
        for block in blocks(json.loads(file.read_text()), file.stem):
            key = block.rpartition("/")[2]
            excused = any(re.fullmatch(pattern, block) for pattern in BLOCKS_NOT_READ)
            if not (excused or key in known or key.startswith(begun)):
                unread.add(block)
    assert not unread, f"no test reads {', '.join(sorted(unread))}"


def test_a_block_that_nobody_reads_is_found():
    content = {"cases": {"first": {"loss": 1.0}}, "tables": [{"iou": 0.5}]}
    assert [*blocks(content, "file")] == ["file/cases", "file/cases/loss", "file/tables", "file/tables/iou"]
    assert "find_and_merge" in words(TESTS / "localizers/test_golden_evidence.py")
    assert "find_and_forget" not in words(TESTS / "localizers/test_golden_evidence.py")
