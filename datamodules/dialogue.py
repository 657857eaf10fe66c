"""From an annotation to an example or a prompt: words, then ids with known labels, then the frames between them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import ClassVar

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from datamodules.batch import Example, Prompt
from datamodules.chat import IGNORE, VIDEO_ID, ChatEncoder
from datamodules.chat_formats import ChatFormat
from datamodules.clip import Clip
from datamodules.rendered import FrameTexts, Rendered, Renderer, Unsayable
from datamodules.schema import Query, Turn, Video
from datamodules.spatial_compression import Compression
from datamodules.splicing import Splicer
from datamodules.templates import introduced
from datamodules.turns import TurnWriter


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
        timed: the adapter is also given when each frame was decoded.
    """

    shares: ClassVar[bool] = True
    """Whether its examples can share a video with others (``data.queries_per_video``)."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        chat: ChatFormat,
        localizer: Renderer,
        style: str = "vtimellm",
        max_text_tokens: int = 2048,
        spatial: Compression | None = None,
        question_tokenizer: PreTrainedTokenizerBase | None = None,
        one_prompt: bool = False,
        timed: bool = False,
    ):
        self.tokenizer = tokenizer
        known = tokenizer.get_vocab()
        self.new_tokens = [token for token in localizer.special_tokens if token not in known]
        """Those of the localizer's tokens that the base model was not trained with."""
        tokenizer.add_tokens(list(localizer.special_tokens), special_tokens=True)
        self.special = {tokenizer.convert_tokens_to_ids(token): token for token in localizer.special_tokens}
        self.encoder = ChatEncoder(tokenizer, chat)
        self.localizer = localizer
        self.writer = TurnWriter(style, one_prompt)
        self.max_text_tokens = max_text_tokens
        self.pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.unk_token_id or 0
        self.splicer = Splicer(self.pad_id, spatial, question_tokenizer, timed)

    def example(self, query: Query, video: Video, random: Random) -> Example:
        """A training example: the spliced sequence with its labels and targets.

        Turns whose answer the localizer has no way to write are left out and counted.

        Raises:
            ValueError: the query's times do not fit the video, or the text is so long that the video or one of the
                localizer's special tokens would be cut off, naming the query.
            Unsayable: no turn is left.
        """
        clip = self._clip(query, video)
        turns = [self._learnable(turn, query) for turn in self.writer.turns(query, random)]
        rendered, counts = self._render_all(turns, clip, random, query)
        asked = [introduced(rendered[0].question, self.writer.style, len(video.features))]
        asked += [turn.question for turn in rendered[1:]]
        ids, labels = self.encoder.encode(list(zip(asked, (turn.answer for turn in rendered), strict=True)))
        kept, kept_labels = ids[: self.max_text_tokens], labels[: self.max_text_tokens]
        lost = {VIDEO_ID: "the video", **self.special}.keys() & set(ids[self.max_text_tokens :])
        if lost:
            names = ", ".join(sorted({VIDEO_ID: "the video", **self.special}[i] for i in lost))
            raise ValueError(
                f"query {query.id}: its text has {len(ids)} tokens, max_text_tokens is {self.max_text_tokens}, and "
                f"{names} would be cut off; raise max_text_tokens"
            )
        texts = self.localizer.frame_texts(clip)
        input_ids, of_video, tokens = self.splicer.splice(kept, video, rendered[0].question, self._between(texts))
        spliced_labels = torch.full_like(input_ids, IGNORE)
        spliced_labels[~of_video] = torch.tensor([x for i, x in zip(kept, kept_labels, strict=True) if i != VIDEO_ID])
        return Example(
            queries=(query,),
            input_ids=input_ids,
            labels=spliced_labels,
            moments=self._moments(input_ids, rendered, query, of_video, texts),
            targets=tuple(turn.targets for turn in rendered),
            counts=counts + Counter(truncated=int(len(ids) > len(kept))),
            **tokens,
        )

    def check_file(self, path: Path) -> None:
        """Refuse a training file with lines that lack what an example needs, before anything is loaded: none here."""

    def prompt(self, query: Query, video: Video, said: Sequence[tuple[str, str]] = ()) -> Prompt:
        """A query to answer, split behind the video so that queries can share what comes before.

        Args:
            query: to answer.
            video: it is about.
            said: questions and answers that come before it in the conversation.
        """
        clip = self._clip(query, video)
        rendered, *later = (self._render(turn, clip, Random(0), query) for turn in self.writer.asked(query))
        first = said[0][0] if said else rendered.question
        asked = [question for question, _ in said] + [rendered.question]
        asked[0] = introduced(asked[0], self.writer.style, len(video.features))
        ids, _ = self.encoder.encode(list(zip(asked, [*(answer for _, answer in said), None], strict=True)))
        texts = self.localizer.frame_texts(clip)
        whole, of_video, tokens = self.splicer.splice(ids, video, first, self._between(texts))
        moments, end = self._moments(whole, [rendered], query, of_video, texts), int(of_video.nonzero().max()) + 1
        masks = {name: tokens[name][:end] for name in ("frame_mask", "spatial_mask") if name in tokens}
        next_ids = [self._next(rendered, turn) for turn in later]
        return Prompt(
            query=query,
            clip=clip,
            prefix_ids=whole[:end],
            suffix_ids=whole[end:],
            moments=moments[end:],
            prefix_moments=moments[:end],
            next_ids=tuple(tuple(ids.tolist()) for ids in next_ids),
            next_moments=tuple(self._moments(ids, [turn], query) for ids, turn in zip(next_ids, later, strict=True)),
            **tokens | masks,
        )

    def _between(self, texts: FrameTexts | None) -> list[list[int]]:
        """Ids of what stands before each frame and behind the last; empty: nothing."""
        return [self.encoder.within(text) for text in (*texts.before, texts.behind)] if texts else []

    def _next(self, first: Rendered, later: Rendered) -> Tensor:
        """Ids (L,) of a later question, as they stand behind any answer to the one before."""
        ids, labels = self.encoder.encode([(first.question, "A"), (later.question, None)])
        answered = max(place for place, label in enumerate(labels) if label != IGNORE)
        return torch.tensor(ids[answered + 1 :])

    def _clip(self, query: Query, video: Video) -> Clip:
        if video.nominal and query.timed:
            raise ValueError(
                f"query {query.id}: it is about times of video {video.id}, which was packed without its length; pack "
                "it again with a durations file that has it"
            )
        if query.duration_s is not None:
            return Clip.of(video, query.duration_s)
        try:
            query.check_inside(video.duration_s)
        except ValueError as error:
            raise ValueError(f"query {query.id}: {error}") from None
        return Clip.of(video, video.duration_s)

    def _learnable(self, turn: Turn, query: Query) -> Turn:
        """The turn; of a query whose moment does not happen with the answer that says so.

        Raises:
            ValueError: there is nothing to learn from.
        """
        if turn.events or turn.answer is not None:
            return turn
        if turn.task != "grounding":
            raise ValueError(f"query {query.id}: a turn without an answer and without events cannot be learned")
        if not query.absent:
            raise ValueError(f"query {query.id}: its events are not known, so it cannot be learned")
        if not self.localizer.no_moment:
            raise ValueError(
                f"query {query.id}: its moment does not happen, and {type(self.localizer).__name__} writes no answer "
                "that says so; leave such queries out of the training data"
            )
        return replace(turn, answer=self.localizer.no_moment)

    def _render(self, turn: Turn, clip: Clip, random: Random, query: Query) -> Rendered:
        try:
            return self.localizer.render(turn, clip, random)
        except Unsayable:
            raise
        except ValueError as error:
            raise ValueError(f"query {query.id}: {error}") from None

    def _render_all(
        self, turns: list[Turn], clip: Clip, random: Random, query: Query
    ) -> tuple[list[Rendered], Counter[str]]:
        """The turns that can be learned, one at least, and how many were left out for each reason."""
        rendered, counts = [], Counter()
        for number, turn in enumerate(turns):
            try:
                rendered.append(self._render(turn, clip, random, query))
            except Unsayable as error:
                counts[str(error)] += 1
                if not rendered and number == len(turns) - 1:
                    raise
        return rendered, counts

    def _moments(
        self,
        ids: Tensor,
        turns: list[Rendered],
        query: Query,
        of_video: Tensor | None = None,
        texts: FrameTexts | None = None,
    ) -> Tensor:
        """What each token of ids (L,) stands for (L, 2), NaN where it is no time token.

        Args:
            ids: of the turns.
            turns: they know their times.
            query: for messages.
            of_video: (L,) where the video stands; None: it is not among them.
            texts: what stands between its frames.

        Raises:
            ValueError: the text holds another number of time tokens than of times.
        """
        moments = torch.full((len(ids), 2), torch.nan)
        names = self.localizer.time_tokens
        at = torch.isin(ids, torch.tensor([i for i, token in self.special.items() if token in names], dtype=ids.dtype))
        inside = torch.zeros_like(at) if of_video is None else of_video
        said, seen = [moment for turn in turns for moment in turn.moments], texts.moments if texts else ()
        for found, places in ((said, at & ~inside), (seen, at & inside)):
            count = int(places.sum())
            if count != len(found):
                raise ValueError(f"query {query.id}: {len(found)} times for {count} {', '.join(names)} in its text")
            if count:
                moments[places] = torch.tensor(found)
        return moments
