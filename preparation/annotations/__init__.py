"""Published annotation files -> queries in seconds, one short module a dataset.

Every module has ``read(path, on_error, **options) -> (queries, counts of what was left out and why)``.
"""

from collections.abc import Callable
from importlib import import_module

READERS = {
    "activitynet": "ActivityNet Captions: {video: {duration, timestamps, sentences}}",
    "charades_sta": "Charades-STA: text lines (with --durations), or the json layouts in circulation",
    "didemo": "DiDeMo: segments of 5 s from several annotators (train_data.json)",
    "et_instruct": "E.T. Instruct 164K, txt or vid, and MeCo's captions for it",
    "etbench": "E.T. Bench: etbench_txt_v1.0.json or etbench_vid_v1.0.json",
    "internvid": "InternVid: one captioned clip a line",
    "llava": "LLaVA's blip_laion_cc_sbu_558k.json and VideoInstruct100K",
    "nextgqa": "NExT-GQA: the questions (csv) with --grounding gsub_*.json",
    "nextqa": "NExT-QA: multiple choice (csv)",
    "plain": "this project's own jsonl, one query a line, checked",
    "qvhighlights": "QVHighlights: highlight_{train,val,test}_release.jsonl",
    "tvsum": "TVSum: clips scored by 20 annotators",
    "video_chatgpt": "Video-ChatGPT's benchmark of dialogue: generic_qa.json, temporal_qa.json, consistency_qa.json",
    "vtimellm": "VTimeLLM's released dialogues: stage2.json, stage3.json",
    "youcook2": "YouCook2: youcookii_annotations_trainval.json, or the layout of ActivityNet Captions",
    "youtube_highlights": "YouTube Highlights: clips that are highlights or not",
}
"""Name -> what it reads. The name is that of the module."""


def reader(name: str) -> Callable:
    """The ``read`` function of a dataset.

    Raises:
        ValueError: there is no such dataset.
    """
    if name not in READERS:
        raise ValueError(f"unknown dataset {name!r}; known: {', '.join(READERS)}")
    return import_module(f"preparation.annotations.{name}").read
