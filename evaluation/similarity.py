"""The baseline that needs no training: how alike are a sentence and each frame to a contrastive model?"""

from collections.abc import Iterator
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from command_line.paths import check_there
from datamodules.clip import Clip
from datamodules.kept import file_fingerprint
from datamodules.prediction import Prediction
from datamodules.query_files import read_queries
from datamodules.schema import Query, Video
from datamodules.shards import ShardReader
from datamodules.skips import OnError, Skips

if TYPE_CHECKING:
    from torch import Tensor

MOMENTS = ("grounding", "grounded_qa", "highlights")
"""Tasks with a sentence to look for."""


def similarity(
    shards: str,
    queries: Path,
    output: Path,
    threshold: float,
    rule: Literal["qvhighlights", "cosine"] = "cosine",
    encoder: str | None = None,
    on_error: OnError = "fail",
) -> dict[str, float]:
    """Find sentences by the cosine of sentence and frames alone, without training and without a language model.

    Source: MeCo, Table 3: frames whose cosine is above a threshold, and neighbours among them merged.

    Args:
        shards: projected features of the videos, of a CLIP or a SigLIP.
        queries: annotation file; grounding, grounded_qa and highlights queries are asked, others are left out.
        output: where metrics.json, predictions.jsonl, timelines.png and spans.png go.
        threshold: of the cosine; choose it on validation data.
        rule: ``cosine``, or ``qvhighlights``: the threshold is a share of the way from a video's lowest cosine to its
            highest.
        encoder: CLIP or SigLIP folder or hub name, if it is not where the features name it.
        on_error: what to do with a video that is absent or cannot be read; a skipped query counts as missing.

    Returns:
        the metrics.

    Raises:
        ValueError: the features are in no space that has sentences, or there is nothing to look for.
    """
    check_there(queries=queries, shards=shards)

    from evaluation.reporting import scores_of, write_report
    from preparation.features.text_encoder import TextEncoder

    reader = ShardReader(shards)
    tower = TextEncoder(encoder or reader.header.encoder)
    if reader.header.output != tower.frame_output:
        raise ValueError(
            f"{shards} holds {reader.header.output}, and sentences are in the space of {tower.frame_output}; extract "
            "the features with --space projected"
        )
    asked = [query for query in read_queries(queries) if query.task in MOMENTS]
    if not asked:
        raise ValueError(f"{queries} has no query of a task with a sentence to look for: {', '.join(MOMENTS)}")
    skips, found = Skips(on_error), {}
    for name, group in groupby(sorted(asked, key=lambda query: query.video), key=lambda query: query.video):
        about = list(group)
        try:
            video = reader.read(name)
        except ValueError as error:
            skips.add(f"video {name}", "cannot be read", str(error))
        else:
            sentences = tower([query.text for query in about])
            found |= {one.query_id: one for one in answers(about, video, sentences, rule, threshold)}
    output.mkdir(parents=True, exist_ok=True)
    (output / "predictions.jsonl").write_text("".join(f"{one.to_json()}\n" for one in found.values()))
    answered = [(query, found.get(query.id)) for query in asked]
    protocol = {
        "setting": "no training: cosine of sentence and frames",
        "missing": len(asked) - len(found),
        "queries": {"file": str(queries), "sha256": file_fingerprint(queries)},
        "features": {"shards": str(shards), **asdict(reader.header)},
        "text_encoder": tower.name,
        "rule": rule,
        "threshold": threshold,
    }
    scores = scores_of(answered, reader)
    write_report(output, answered, reader, scores, protocol, f"cosine of sentence and frames on {queries}")
    return scores


def answers(
    queries: list[Query], video: Video, sentences: "Tensor", rule: str, threshold: float
) -> Iterator[Prediction]:
    """The spans of each query of a video, best first.

    Args:
        queries: about this video.
        video: its features (T, D) are projected.
        sentences: (N, D) unit vectors of the queries' texts.
        rule: see ``similarity``.
        threshold: see ``similarity``.
    """
    import torch
    from torch.nn import functional

    from localizers.similarity_maps import segments
    from localizers.structural_tokens import saliency_of_clips

    frames = functional.normalize(torch.from_numpy(video.features).float(), dim=-1)
    for query, cosines in zip(queries, sentences @ frames.T, strict=True):
        clip = Clip.of(video, query.duration_s or video.duration_s)
        found = segments(cosines[None], [True], 1.0, rule, threshold)
        ends_s = [[clip.true_s(end / clip.frames_per_s) for end in (s.start, s.end)] for s in found]
        salient = cosines.tolist()
        if query.clip_s is not None:
            salient = saliency_of_clips(salient, query, clip)
        spans = tuple((a, min(b, clip.duration_s), s.score) for (a, b), s in zip(ends_s, found, strict=True))
        read = rule if spans else None
        yield Prediction(query.id, query.video, query.task, "", spans, saliency=tuple(salient), rule=read)
