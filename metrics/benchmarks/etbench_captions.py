"""Dense captions of E.T. Bench (DVC and SLC): where the events are, and what is said of them."""

from collections.abc import Mapping, Sequence

from metrics.benchmarks.answers import Parsed
from metrics.benchmarks.event_answers import read_events
from metrics.benchmarks.event_captions import group_scores, matched_pairs
from metrics.benchmarks.official_events import etbench_events
from metrics.captions import tokenizer
from metrics.dense_captioning import video_localization
from metrics.means import Row, harmonic, mean
from metrics.similarity import pair_similarities

CAPTIONS = ("Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "METEOR", "Rouge-L", "CIDEr")
NAMES = {"Rouge-L": "ROUGE_L"}


def events_of(sample: Mapping, policy: str) -> Parsed:
    """The events of an answer, unless somebody has read it already (``parsed``)."""
    if "parsed" in sample:
        return sample["parsed"]
    return etbench_events(sample["a"]) if policy == "official" else read_events(sample["a"], sample.get("duration"))


def caption_rows(samples: Sequence[Mapping], policy: str, thresholds: Sequence[float]) -> tuple[list[Row], int]:
    """The values of each video, fractions, and how many answers could not be read.

    ``sound``: every sample counts and a failed one scores 0 everywhere. ``official``: samples are keyed by video, so
    that a later one replaces an earlier one, and a failed one enters no mean.

    Args:
        samples: DVC or SLC records of one source.
        policy: ``sound`` or ``official``.
        thresholds: IoU thresholds.

    Returns:
        One row a sample; empty for one that was replaced or failed.
    """
    official = policy == "official"
    failed, stories = 0, {}
    for i, sample in enumerate(samples):
        answer = events_of(sample, policy)
        failed += not answer.windows
        if answer.windows or not official:
            events = [(*window, text) for window, text in zip(answer.windows, answer.captions, strict=True)]
            target = [(*window, text) for window, text in zip(sample["tgt"], sample["g"], strict=True)]
            stories[sample["video"] if official else i] = (i, events, target)
    groups = [matched_pairs(events, [target], t, policy) for _, events, target in stories.values() for t in thresholds]
    scores, similarities = group_scores(groups), similarity(groups)
    rows: list[Row] = [{} for _ in samples]
    for k, (i, events, target) in enumerate(stories.values()):
        own = slice(k * len(thresholds), (k + 1) * len(thresholds))
        windows = [event[:2] for event in events], [[event[:2] for event in target]]
        located = zip(thresholds, video_localization(*windows, thresholds, policy), strict=True)
        row = {name: mean(score[name] for score in scores[own]) for name in CAPTIONS}
        row |= {"SentSim": mean(similarities[own])}
        for t, (precision, recall) in located:
            row |= {f"Precision@{t:g}": precision, f"Recall@{t:g}": recall}
        rows[i] = {named(name, official): value for name, value in row.items()}
    return rows, failed


def named(name: str, official: bool) -> str:
    """The name of a value; under ``sound`` CIDEr says the scope of its idf."""
    return "CIDEr(video idf)" if name == "CIDEr" and not official else NAMES.get(name, name)


def similarity(groups: Sequence[Sequence[tuple[str, str]]]) -> list[float]:
    """The mean sentence similarity of each group of pairs of captions; 0 for no pair."""
    tokens = tokenizer()(text for group in groups for pair in group for text in pair)
    values = iter(pair_similarities([(tokens[a], tokens[b]) for group in groups for a, b in group]))
    return [mean(next(values) for _ in group) if group else 0.0 for group in groups]


def caption_summary(means: Mapping[str, float], thresholds: Sequence[float], scale: float) -> dict[str, float]:
    """F1 of the mean precision and recall, and the means of the caption scores; 0 where nothing was read.

    Args:
        means: of the columns of ``caption_rows``.
        thresholds: IoU thresholds.
        scale: of precision and recall.
    """
    shares = {
        f"F1@{t:g}": harmonic(means.get(f"Precision@{t:g}", 0.0) * scale, means.get(f"Recall@{t:g}", 0.0) * scale)
        for t in thresholds
    }
    nothing = {NAMES.get(name, name): 0.0 for name in (*CAPTIONS, "SentSim")}
    captions = {name: value for name, value in means.items() if "@" not in name} or nothing
    return {**shares, "F1": mean(shares.values()), **captions}
