"""Dense captioning from files: ActivityNet Captions, VidChapters, YouCook2 and logs of VTimeLLM."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from metrics.benchmarks.answers import parse_report
from metrics.benchmarks.event_captions import event_rows, event_summary
from metrics.benchmarks.formats.events import events
from metrics.benchmarks.formats.files import FileError, by_id
from metrics.benchmarks.formats.stories import stories
from metrics.benchmarks.formats.windows import video_name
from metrics.benchmarks.result import Job, Result
from metrics.benchmarks.timechat import paragraph_scores, timechat_video_scores
from metrics.means import mean
from metrics.soda import Story, soda_by_video
from metrics.windows import check_windows


@dataclass
class Stories:
    """Predicted stories by the name of their annotated video, and counts."""

    predicted: dict[str, Story | None]
    counts: dict


def matched_stories(job: Job, known: Sequence[str]) -> Stories:
    """The predicted events of the annotated videos, which may be called with or without file ending and "v_".

    Raises:
        FileError: none of them is there, or one is there twice.
    """
    names = {video_name(video): video for video in known}
    found = events(job.predicted)
    pairs = [(names.get(video_name(video)), story) for video, story in found.by_video.items()]
    predicted = by_id([(video, story) for video, story in pairs if video is not None], job.predicted)
    if not predicted:
        first = next(iter(found.by_video), "nothing")
        raise FileError(
            f"{job.predicted}: none of the {len(known)} annotated videos is in it (first there: {first!r}, first "
            f"annotated: {known[0]!r})"
        )
    counts = check_windows({v: s and [event[:2] for event in s] for v, s in predicted.items()}, job.policy)
    missing = sum(video not in predicted for video in known)
    report = {"n": len(known), "missing": missing, **counts, "unknown": len(pairs) - len(predicted)}
    if found.parsed:
        report["parsing"] = parse_report(found.parsed)
    return Stories(predicted, report)


def event_captions(job: Job) -> Result:
    """ActivityNet Captions and VidChapters with one or more reference files: captions, localisation, SODA_c; fractions.

    ``official`` follows the evaluator of VidChapters and VTimeLLM, which leaves videos without prediction out, or
    that of the ActivityNet challenge, which counts them as 0.
    """
    files = [{v: s.events for v, s in stories(path, job.collector).items()} for path in job.annotated]
    known = sorted({video for file in files for video in file})
    found = matched_stories(job, known)
    evaluator = (job.evaluator or "vidchapters") if job.official else None
    keep = evaluator == "challenge"
    rows = event_rows(found.predicted, files, policy=job.policy, keep=keep)
    missing = {video: None for video in known if video not in found.predicted} if keep else {}
    for i, file in enumerate(files, 1):
        if job.official and not keep and not file.keys() & found.predicted.keys():
            continue
        policy_stories = {**found.predicted, **{video: [] for video in missing}}
        for video, values in soda_by_video(policy_stories, [file], "c", "merged", job.policy).items():
            rows[video] = {**rows[video], f"SODA_c of file {i}": values[2]}
    counts = {**found.counts, "soda_references": "average", "reference_files": len(files), "n": len(rows)}
    return Result(rows, counts, caption_summary, answered=set(found.predicted), evaluator=evaluator)


def caption_summary(means: Mapping[str, float]) -> dict[str, float]:
    """The numbers of ``event_summary``, and SODA_c as the mean over the reference files."""
    soda = [value for name, value in means.items() if name.startswith("SODA_c of")]
    rest = {name: value for name, value in means.items() if not name.startswith("SODA_c of")}
    return {"SODA_c": mean(soda), **event_summary(rest)}


def youcook2(job: Job) -> Result:
    """YouCook2 as Vid2Seq and TimeChat report it: per video, then the mean; fractions."""
    pairs = [(v, story.events) for path in job.annotated for v, story in stories(path, job.collector).items()]
    references = by_id(pairs, job.annotated[0])
    found = matched_stories(job, list(references))
    rows = timechat_video_scores(found.predicted, references, job.policy)
    whole = paragraph_scores(found.predicted, references, job.policy)
    evaluator = "timechat" if job.official else None
    return Result(rows, found.counts, whole=whole, answered=set(found.predicted), evaluator=evaluator)
