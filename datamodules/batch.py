"""Examples padded into tensors.

Shape suffixes: B dialogues or videos, Q queries, T frames, M S-tokens, L tokens, D feature width.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from datamodules.chat import IGNORE
from datamodules.clip import Clip
from datamodules.schema import Query


@dataclass(frozen=True, eq=False)
class Example:
    """One dialogue about one video, or several (see ``packing``), spliced: every frame has its own token position."""

    queries: tuple[Query, ...]
    input_ids: Tensor
    """(L,) with the pad id at frame positions."""
    labels: Tensor
    """(L,) ``IGNORE`` where nothing is supervised."""
    frame_mask: Tensor
    """(L,) True where a frame's projection stands."""
    moments: Tensor
    """(L, 2) what a time token stands for, in the units of the localizer; NaN: the token is another one."""
    features: Tensor
    """(T, D), or patches (T, P, D) where the adapter reads them with a question in mind."""
    targets: tuple = ()
    """What the localizer returned for each turn."""
    counts: Counter[str] = field(default_factory=Counter)
    """Dialogues that were cut (``truncated``), and turns that were left out, by reason."""
    blocks: Tensor | None = None
    """(L,) 0 for what all dialogues share, then 1, 2, .. for each. None: there is one dialogue."""
    spatial: Tensor | None = None
    """(M, D). None: no S-tokens stand in the sequence."""
    spatial_mask: Tensor | None = None
    """(L,) True where an S-token's projection stands; behind the last frame."""
    question_ids: Tensor | None = None
    """(L_question,) of the adapter's own tokenizer. None: the adapter does not read the question."""
    frame_times_s: Tensor | None = None
    """(T) when each frame was decoded. None: the adapter does not read it."""
    source: str = ""
    """Name of the training source, where there are several."""


@dataclass(frozen=True, eq=False)
class Prompt:
    """A question without its answer: the part up to the video's end, and the part behind it."""

    query: Query
    clip: Clip
    prefix_ids: Tensor
    frame_mask: Tensor
    suffix_ids: Tensor
    moments: Tensor
    """(L_suffix, 2) as in ``Example``."""
    prefix_moments: Tensor
    """(L_prefix, 2) of the time tokens before and between the frames."""
    features: Tensor
    spatial: Tensor | None = None
    spatial_mask: Tensor | None = None
    question_ids: Tensor | None = None
    frame_times_s: Tensor | None = None
    next_ids: tuple[tuple[int, ...], ...] = ()
    """Later questions, each to be put behind the answer to the one before."""
    next_moments: tuple[Tensor, ...] = ()
    """(L_next, 2) of each of them, as in ``Example``."""

    def shares_video(self, other: "Prompt") -> bool:
        """Whether the part up to the video's end is the same.

        Ids do not tell the videos of two folders apart, so the features themselves are compared, last.
        """
        more = [name for name in ("question_ids", "frame_times_s") if getattr(self, name) is not None]
        names = ("prefix_ids", *more, "features")
        alike = torch.equal(self.prefix_moments.nan_to_num(-1), other.prefix_moments.nan_to_num(-1))
        return alike and all(torch.equal(getattr(self, name), getattr(other, name)) for name in names)


class _Tensors:
    """Moves every tensor field; Lightning and DataLoader call these by name."""

    def _map(self, function):
        tensors = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{k: function(v) for k, v in tensors.items() if isinstance(v, Tensor)})

    def to(self, *args, **kwargs):
        """This batch on another device."""
        return self._map(lambda tensor: tensor.to(*args, **kwargs))

    def pin_memory(self):
        """This batch in page-locked memory."""
        return self._map(Tensor.pin_memory)


@dataclass(frozen=True, eq=False)
class Batch(_Tensors):
    """Dialogues to learn from, padded on the right."""

    input_ids: Tensor
    """(B, L)."""
    labels: Tensor
    """(B, L)."""
    attention_mask: Tensor
    """(B, L) 1 for real tokens."""
    frame_mask: Tensor
    """(B, L)."""
    features: Tensor
    """(B, T, D) or (B, T, P, D), zero behind a video's last frame."""
    feature_mask: Tensor
    """(B, T)."""
    queries: tuple[Query, ...]
    targets: tuple
    moments: Tensor | None = None
    """(B, L, 2) what a time token stands for, NaN for other tokens. None: there is no time token."""
    blocks: Tensor | None = None
    """(B, L), -1 at padding. None: no row holds more than one dialogue."""
    spatial: Tensor | None = None
    """(B, M, D). None: no S-tokens."""
    spatial_mask: Tensor | None = None
    """(B, L)."""
    question_ids: Tensor | None = None
    """(B, L_question), -1 at padding. None: the adapter does not read the question."""
    frame_times_s: Tensor | None = None
    """(B, T) when each frame was decoded. None: the adapter does not read it."""
    counts: Counter = field(default_factory=Counter)
    """Samples skipped or truncated on the way, by reason."""
    sources: tuple[str, ...] = ()
    """One a row, see ``Example``."""


@dataclass(frozen=True, eq=False)
class PromptBatch(_Tensors):
    """Questions to answer: each video once, each query pointing at its video."""

    prefix_ids: Tensor
    """(B, L_prefix), padded on the left."""
    prefix_mask: Tensor
    """(B, L_prefix)."""
    frame_mask: Tensor
    """(B, L_prefix)."""
    features: Tensor
    """(B, T, D) or (B, T, P, D)."""
    feature_mask: Tensor
    """(B, T)."""
    suffix_ids: Tensor
    """(Q, L_suffix), padded on the left."""
    suffix_mask: Tensor
    """(Q, L_suffix)."""
    video_of_query: Tensor
    """(Q,) row of each query's video."""
    queries: tuple[Query, ...]
    clips: tuple[Clip, ...]
    """One a query."""
    moments: Tensor | None = None
    """(Q, L_suffix, 2) as in ``Batch``."""
    prefix_moments: Tensor | None = None
    """(B, L_prefix, 2)."""
    spatial: Tensor | None = None
    """(B, M, D). None: no S-tokens."""
    spatial_mask: Tensor | None = None
    """(B, L_prefix)."""
    question_ids: Tensor | None = None
    """(B, L_question) as in ``Batch``; a video that is asked two things then has two rows."""
    frame_times_s: Tensor | None = None
    """(B, T) when each frame was decoded. None: the adapter does not read it."""
    next_ids: tuple[tuple[tuple[int, ...], ...], ...] = ()
    """Of each query, see ``Prompt``."""
    next_moments: tuple[tuple[Tensor, ...], ...] = ()
    counts: Counter = field(default_factory=Counter)


def _pad(rows: list[Tensor], value: float, side: str = "right") -> Tensor:
    if not rows:  # nothing of the batch could be read; only its counts matter
        return torch.empty(0)
    return pad_sequence(rows, batch_first=True, padding_value=value, padding_side=side)


def _pad_moments(rows: list[Tensor], side: str) -> Tensor | None:
    return None if all(row.isnan().all() for row in rows) else _pad(rows, torch.nan, side)


def _pad_questions(samples: list[Example] | list[Prompt]) -> Tensor | None:
    return _pad([s.question_ids for s in samples], -1) if samples and samples[0].question_ids is not None else None


def _pad_times(samples: list[Example] | list[Prompt]) -> Tensor | None:
    return _pad([s.frame_times_s for s in samples], 0.0) if samples and samples[0].frame_times_s is not None else None


def _spatial(samples: list[Example] | list[Prompt], side: str) -> dict[str, Tensor]:
    """S-tokens and where they stand; every video has the same number of them, or none has any."""
    if not samples or samples[0].spatial is None:
        return {}
    masks = _pad([sample.spatial_mask for sample in samples], False, side)
    return {"spatial": torch.stack([sample.spatial for sample in samples]), "spatial_mask": masks}


def collate(examples: list[Example], pad_id: int, counts: Counter | None = None) -> Batch:
    """Pad examples into a Batch."""
    counts = sum((example.counts for example in examples), Counter(counts))
    features = [example.features for example in examples]
    blocks = [torch.zeros_like(e.input_ids) if e.blocks is None else e.blocks for e in examples]
    return Batch(
        input_ids=_pad([e.input_ids for e in examples], pad_id),
        labels=_pad([e.labels for e in examples], IGNORE),
        attention_mask=_pad([torch.ones_like(e.input_ids) for e in examples], 0),
        frame_mask=_pad([e.frame_mask for e in examples], False),
        moments=_pad_moments([e.moments for e in examples], "right"),
        features=_pad(features, 0.0),
        feature_mask=_pad([torch.ones(len(f), dtype=torch.bool) for f in features], False),
        queries=tuple(query for e in examples for query in e.queries),
        targets=tuple(e.targets for e in examples),
        blocks=_pad(blocks, -1) if any(e.blocks is not None for e in examples) else None,
        question_ids=_pad_questions(examples),
        frame_times_s=_pad_times(examples),
        counts=+counts,
        sources=tuple(e.source for e in examples),
        **_spatial(examples, "right"),
    )


def collate_prompts(prompts: list[Prompt], pad_id: int, counts: Counter | None = None) -> PromptBatch:
    """Pad prompts into a PromptBatch; neighbours that share a video and its prefix share a row."""
    videos: list[Prompt] = []
    rows = []
    for prompt in prompts:
        if not (videos and videos[-1].shares_video(prompt)):
            videos.append(prompt)
        rows.append(len(videos) - 1)
    return PromptBatch(
        prefix_ids=_pad([v.prefix_ids for v in videos], pad_id, "left"),
        prefix_mask=_pad([torch.ones_like(v.prefix_ids) for v in videos], 0, "left"),
        frame_mask=_pad([v.frame_mask for v in videos], False, "left"),
        features=_pad([v.features for v in videos], 0.0),
        feature_mask=_pad([torch.ones(len(v.features), dtype=torch.bool) for v in videos], False),
        suffix_ids=_pad([p.suffix_ids for p in prompts], pad_id, "left"),
        suffix_mask=_pad([torch.ones_like(p.suffix_ids) for p in prompts], 0, "left"),
        moments=_pad_moments([p.moments for p in prompts], "left"),
        prefix_moments=_pad_moments([v.prefix_moments for v in videos], "left"),
        video_of_query=torch.tensor(rows),
        queries=tuple(p.query for p in prompts),
        clips=tuple(p.clip for p in prompts),
        question_ids=_pad_questions(videos),
        frame_times_s=_pad_times(videos),
        next_ids=tuple(p.next_ids for p in prompts),
        next_moments=tuple(p.next_moments for p in prompts),
        counts=Counter(counts),
        **_spatial(videos, "left"),
    )


def follow_up(
    prompts: PromptBatch, answers: Sequence[Sequence[int]], moments: Sequence[Tensor | None], pad_id: int
) -> PromptBatch:
    """The next questions of those queries that have one (one at least), behind what was said before.

    Args:
        prompts: the questions before.
        answers: ids of the answer to each, its end token included.
        moments: (L, 2) what the tokens of each answer stood for; None: nothing. It may be longer than the answer.
        pad_id: fills up shorter rows.
    """
    places = [place for place, ids in enumerate(prompts.next_ids) if ids]
    asked, stood_for = [], []
    for place in places:
        real, known = prompts.suffix_mask[place].bool(), moments[place]
        said, more = map(prompts.suffix_ids.new_tensor, (answers[place], prompts.next_ids[place][0]))
        asked.append(torch.cat([prompts.suffix_ids[place][real], said, more]))
        stood_for.append(torch.full((len(asked[-1]), 2), torch.nan, device=more.device))
        before, spoken, after = stood_for[-1].split([int(real.sum()), len(said), len(more)])
        if prompts.moments is not None:
            before[:] = prompts.moments[place][real]
        if known is not None:
            spoken[: len(known)] = known[: len(said)]
        after[:] = prompts.next_moments[place][0]
    return replace(
        prompts,
        suffix_ids=_pad(asked, pad_id, "left"),
        suffix_mask=_pad([torch.ones_like(ids) for ids in asked], 0, "left"),
        moments=_pad_moments(stood_for, "left"),
        video_of_query=prompts.video_of_query[places],
        queries=tuple(prompts.queries[place] for place in places),
        clips=tuple(prompts.clips[place] for place in places),
        next_ids=tuple(prompts.next_ids[place][1:] for place in places),
        next_moments=tuple(prompts.next_moments[place][1:] for place in places),
    )


def frame_states(states: Tensor, batch: Batch | PromptBatch) -> Tensor:
    """(B, T, D), zero behind a video's last frame: of the states (B, L, D) of a batch, those of its frames."""
    frames = states.new_zeros(*batch.feature_mask.shape, states.shape[-1])
    return frames.masked_scatter(batch.feature_mask[..., None], states[batch.frame_mask])
