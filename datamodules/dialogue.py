"""From an annotation to a dialogue, and from a dialogue to tokens with known labels."""

import re
from dataclasses import replace
from random import Random
from string import ascii_uppercase as LETTERS

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from datamodules.batch import Example, Prompt
from datamodules.chat import IGNORE, VIDEO, VIDEO_ID, ChatEncoder, ChatFormat
from datamodules.schema import CHOICES, Event, Query, Turn, Video
from datamodules.templates import questions
from localizers.base import Clip, Localizer, Rendered
from localizers.text_timestamps import sentence
from models.spatial_compression import Compression, spatial_tokens

DENSE_SHARE = 0.2
"""Share of stage-2 dialogues that ask once for all events (VTimeLLM, section 3.2)."""
QUESTION_TOKENS = 256
"""Length at which a question to an adapter is cut (E.T. Chat, released code)."""
WITH_PATCHES = "extract again with --patches true"


def choice(wording: str, query: Query) -> str:
    """A multiple-choice question in a template's words."""
    options = list(zip(LETTERS, query.options, strict=False))
    lines = "\n".join(f"{letter}. {option}" for letter, option in options)
    one_line = " ".join(f"({letter}) {option}" for letter, option in options)
    wording = wording.replace("{question}", query.text.strip())
    return wording.replace("{options}", lines).replace("{options in one line}", one_line)


OPTION = r"\W*([A-Z])(?!\w|\s+\w)"


def chosen(answer: str, options: int) -> int | None:
    """Place of the option whose letter an answer begins with, or names behind "answer is"; None: of none.

    "A dog" names none: the letter of an option stands alone, or has a mark behind it.
    """
    found = re.search(rf"\banswer is{OPTION}", answer) or re.match(OPTION, answer)
    place = LETTERS.index(found[1]) if found else options
    return place if place < options else None


class Dialogue:
    """Writes annotations as the text a model is trained on or asked with.

    Args:
        tokenizer: of the language model.
        chat: the text around questions and answers.
        localizer: writes the times.
        style: prompt style, a key of the files in ``templates/``; ``STYLE_eval`` is used for questions to answer.
        max_text_tokens: text is cut after this many tokens, the video counting as one.
        spatial: S-tokens that stand behind a video's frames; None: there are none.
        question_tokenizer: of an adapter that reads patches with the question in mind; None: it reads features.
        one_prompt: ask for the option and the moment of a ``grounded_qa`` query at once, not one after the other.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        chat: ChatFormat,
        localizer: Localizer,
        style: str = "vtimellm",
        max_text_tokens: int = 2048,
        spatial: Compression | None = None,
        question_tokenizer: PreTrainedTokenizerBase | None = None,
        one_prompt: bool = False,
    ):
        self.tokenizer = tokenizer
        known = tokenizer.get_vocab()
        self.new_tokens = [token for token in localizer.special_tokens if token not in known]
        """Those of the localizer's tokens that the base model was not trained with."""
        tokenizer.add_tokens(list(localizer.special_tokens), special_tokens=True)
        self.special = {tokenizer.convert_tokens_to_ids(token): token for token in localizer.special_tokens}
        self.encoder = ChatEncoder(tokenizer, chat)
        self.localizer = localizer
        self.style = style
        self.max_text_tokens = max_text_tokens
        self.spatial, self.question_tokenizer, self.one_prompt = spatial, question_tokenizer, one_prompt
        self.pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.unk_token_id or 0

    def turns(self, query: Query, random: Random) -> list[Turn]:
        """The turns that train on a query, with wording drawn from the templates.

        An ``events`` record becomes one question for all its events (20 %) or one question an event, in shuffled
        order, each asking either what happened or when; always when in a style without questions for the former.
        """
        if query.task == "dialogue":
            return list(query.turns)
        if query.task == "grounding":
            return [self._grounding(query.text, query.events, random)]
        if query.task == "segment_captioning":
            return [self._segment_captioning(event, random) for event in query.events]
        if query.task in CHOICES:
            if query.answer is None:
                raise ValueError(f"query {query.id}: its right option is not known, so it cannot be learned")
            letter = LETTERS[query.answer]
            if query.task == "grounded_qa" and (grounded := questions("grounded_qa", self.style)):
                said = f"Therefore, the answer is ({letter})."
                return [Turn(choice(random.choice(grounded), query), said, query.task, query.events)]
            question = random.choice(self._questions(query, "qa", self.style))
            return [Turn(choice(question, query), answer=letter, task=query.task)]
        if query.task == "highlights":
            raise ValueError(f"query {query.id}: highlights are asked, not learned; train on its moments")
        dense = questions("dense_captioning", self.style)
        if query.task == "dense_captioning" or (dense and random.random() < DENSE_SHARE):
            question = random.choice(self._questions(query, "dense_captioning", self.style))
            return [Turn(question, task="dense_captioning", events=tuple(sorted(query.events, key=lambda e: e.span)))]
        events = random.sample(query.events, len(query.events))
        only_grounding = not questions("segment_captioning", self.style)
        return [
            self._grounding(event.caption, (event,), random)
            if only_grounding or random.random() < 0.5
            else self._segment_captioning(event, random)
            for event in events
        ]

    def _grounding(self, text: str, events: tuple[Event, ...], random: Random) -> Turn:
        question = random.choice(questions("grounding", self.style))
        topic = text.strip().removesuffix(".")
        return Turn(question.replace("{caption}", topic), task="grounding", events=events, topic=topic)

    def _questions(self, query: Query, task: str, style: str) -> tuple[str, ...]:
        """The wording of a task in a style that must have some."""
        if not (wording := questions(task, style)):
            raise ValueError(
                f"query {query.id}: prompt style {style!r} has no question for the task {task!r}; leave such queries "
                "out, or set on_error to skip"
            )
        return wording

    def _segment_captioning(self, event: Event, random: Random) -> Turn:
        wording = questions("segment_captioning", self.style)
        if not wording:
            raise ValueError(f"prompt style {self.style!r} has no question for the caption of a segment")
        return Turn(
            random.choice(wording),
            answer=sentence(event.caption),
            task="segment_captioning",
            times={"<s0>": event.start_s, "<e0>": event.end_s},
        )

    def asked(self, query: Query) -> list[Turn]:
        """The turns that ask a query: two for ``grounded_qa``, first for the option and then for the moment.

        It has one where its wording asks for both, where the query brings its own words, and in a style that asks for
        moments alone.
        """
        both = query.task == "grounded_qa" and not query.turns and questions("qa", f"{self.style}_eval")
        if not both or "{options" in self._wording(query):
            return [self.question(query)]
        return [self.question(replace(query, task="qa")), self.question(query)]

    def question(self, query: Query) -> Turn:
        """The turn that asks a query in its own words, or in those of the published evaluation, without its answer.

        Raises:
            ValueError: the query's task cannot be asked (``events`` records are training material), or the prompt
                style has no question for it.
        """
        if query.turns:
            return Turn(query.turns[0].question, task=query.task, times=query.turns[0].times)
        if query.task == "events":
            raise ValueError(f"query {query.id}: an 'events' record is training material and cannot be asked")
        wording = self._wording(query)
        text = query.text.strip()
        wording = wording.replace("{caption}", text.lower().removesuffix(".")).replace("{text}", text)
        event = query.events[0] if query.task == "segment_captioning" else None
        times = {"<s0>": event.start_s, "<e0>": event.end_s} if event else {}
        return Turn(choice(wording, query), task=query.task, times=times)

    def _wording(self, query: Query) -> str:
        """Of the published evaluation; a second one asks for option and moment at once."""
        wording = self._questions(query, query.task, f"{self.style}_eval")
        return wording[-1 if query.task == "grounded_qa" and self.one_prompt else 0]

    def example(self, query: Query, video: Video, random: Random) -> Example:
        """A training example: the spliced sequence with its labels and targets.

        Raises:
            ValueError: the query's times do not fit the video, or the text is so long that the video or one of the
                localizer's special tokens would be cut off, naming the query.
        """
        clip = self._clip(query, video)
        rendered = [self._render(turn, clip, random, query) for turn in self.turns(query, random)]
        ids, labels = self.encoder.encode([(turn.question, turn.answer) for turn in rendered])
        kept, kept_labels = ids[: self.max_text_tokens], labels[: self.max_text_tokens]
        lost = {VIDEO_ID: "the video", **self.special}.keys() & set(ids[self.max_text_tokens :])
        if lost:
            names = ", ".join(sorted({VIDEO_ID: "the video", **self.special}[i] for i in lost))
            raise ValueError(
                f"query {query.id}: its text has {len(ids)} tokens, max_text_tokens is {self.max_text_tokens}, and "
                f"{names} would be cut off; raise max_text_tokens"
            )
        input_ids, of_video, tokens = self._splice(kept, video, rendered[0].question)
        spliced_labels = torch.full_like(input_ids, IGNORE)
        spliced_labels[~of_video] = torch.tensor([x for i, x in zip(kept, kept_labels, strict=True) if i != VIDEO_ID])
        return Example(
            queries=(query,),
            input_ids=input_ids,
            labels=spliced_labels,
            references=self._references(input_ids, rendered, query),
            targets=tuple(turn.targets for turn in rendered),
            truncated=int(len(ids) > len(kept)),
            **tokens,
        )

    def prompt(self, query: Query, video: Video) -> Prompt:
        """A query to answer, split behind the video so that queries can share what comes before."""
        clip = self._clip(query, video)
        rendered, *later = (self._render(turn, clip, Random(0), query) for turn in self.asked(query))
        ids, _ = self.encoder.encode([(rendered.question, None)])
        end_of_video = ids.index(VIDEO_ID) + 1
        prefix_ids, _, tokens = self._splice(ids[:end_of_video], video, rendered.question)
        suffix_ids = torch.tensor(ids[end_of_video:])
        return Prompt(
            query=query,
            clip=clip,
            prefix_ids=prefix_ids,
            suffix_ids=suffix_ids,
            references=self._references(suffix_ids, [rendered], query),
            next_ids=self._next(rendered, later[0]) if later else (),
            **tokens,
        )

    def _next(self, first: Rendered, second: Rendered) -> tuple[int, ...]:
        """Ids of the second question, as they stand behind any answer to the first."""
        ids, labels = self.encoder.encode([(first.question, "A"), (second.question, None)])
        answered = max(place for place, label in enumerate(labels) if label != IGNORE)
        return tuple(ids[answered + 1 :])

    def _clip(self, query: Query, video: Video) -> Clip:
        if query.duration_s is not None:
            return Clip.of(video, query.duration_s)
        try:
            query.check_inside(video.duration_s)
        except ValueError as error:
            raise ValueError(f"query {query.id}: {error}") from None
        return Clip.of(video, video.duration_s)

    def _render(self, turn: Turn, clip: Clip, random: Random, query: Query) -> Rendered:
        try:
            return self.localizer.render(turn, clip, random)
        except ValueError as error:
            raise ValueError(f"query {query.id}: {error}") from None

    def _references(self, ids: Tensor, turns: list[Rendered], query: Query) -> Tensor:
        """Frame numbers (L,) of reference tokens, -1 elsewhere.

        Raises:
            ValueError: the questions hold another number of these tokens than of references.
        """
        references = torch.full_like(ids, -1)
        frames = [frame for turn in turns for frame in turn.references]
        if frames:
            token = self.localizer.reference_token
            at = (ids == self.tokenizer.convert_tokens_to_ids(token)).nonzero().flatten()
            if len(at) != len(frames):
                raise ValueError(f"query {query.id}: {len(frames)} times for {len(at)} {token} behind the video")
            references[at] = torch.tensor(frames)
        return references

    def _splice(self, ids: list[int], video: Video, question: str) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Replace the video's placeholder by one position a frame, and then one an S-token.

        Returns:
            ids (L,), where the video stands (L,), and features and masks as Example and Prompt name them.
        """
        frames, tokens = len(video.features), {"features": torch.from_numpy(video.features)}
        if self.question_tokenizer is not None:
            tokens = self._patches(video, question)
        if self.spatial:
            tokens["spatial"] = torch.from_numpy(spatial_tokens(video, self.spatial))
        counts = torch.tensor([frames + len(tokens.get("spatial", ())) if i == VIDEO_ID else 1 for i in ids])
        spliced = torch.tensor(ids).repeat_interleave(counts)
        of_video = spliced == VIDEO_ID
        tokens["frame_mask"] = of_video & (of_video.cumsum(0) <= frames)
        if self.spatial:
            tokens["spatial_mask"] = of_video & ~tokens["frame_mask"]
        return spliced.masked_fill(of_video, self.pad_id), of_video, tokens

    def _patches(self, video: Video, question: str) -> dict[str, Tensor]:
        """Patches in place of features, and the question that they are read with."""
        if video.patches is None:
            raise ValueError(f"video {video.id} has no patch tokens, which the adapter reads; {WITH_PATCHES}")
        text = question.replace(VIDEO, "").strip()
        ids = self.question_tokenizer(text, truncation=True, max_length=QUESTION_TOKENS).input_ids
        return {"features": torch.from_numpy(video.patches), "question_ids": torch.tensor(ids)}
