"""Which turns a record becomes, in the words of a prompt style; nothing here knows frames.

What a record says is filled in as text, see ``markup``.
"""

from dataclasses import replace
from random import Random

from datamodules.markup import Text, fill
from datamodules.options import LETTERS, written_options
from datamodules.schema import CHOICES, Event, Query, Turn
from datamodules.templates import questions

DENSE_SHARE = 0.2
"""Share of stage-2 dialogues that ask once for all events (VTimeLLM, section 3.2)."""


def sentence(caption: str) -> str:
    """A caption as a sentence: capital letter in front, full stop behind."""
    caption = caption.strip()
    return caption[:1].upper() + caption[1:] + ("" if caption.endswith((".", "!", "?")) else ".")


def spoken(text: str) -> dict[str, str]:
    """A sentence as templates have places for it.

    ``{caption}`` is lower-cased and loses one full stop, as in the released evaluation of VTimeLLM, ``{sentence}`` only
    loses the full stop, and ``{text}`` is the sentence as it is.
    """
    text = text.strip()
    short = text.removesuffix(".")
    return {"caption": short.lower(), "sentence": short, "text": text}


class TurnWriter:
    """Writes the questions about a record, to train on it or to ask it.

    Args:
        style: prompt style, a key of the files in ``templates/``; ``STYLE_eval`` is used for questions to answer.
        one_prompt: ask for the option and the moment of a ``grounded_qa`` query at once, not one after the other.
    """

    def __init__(self, style: str, one_prompt: bool = False):
        self.style, self.one_prompt = style, one_prompt

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
                return [Turn(self._choice(random.choice(grounded), query), said, query.task, query.events)]
            question = random.choice(self._questions(query, "qa", self.style))
            return [Turn(self._choice(question, query), answer=letter, task=query.task)]
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
        question = fill(random.choice(questions("grounding", self.style)), spoken(text))
        return Turn(question, task="grounding", events=events, topic=text.strip().removesuffix("."))

    def _choice(self, wording: str, query: Query) -> Text:
        """A question about a query's sentence, with options to choose from where it has some."""
        return fill(wording, {"question": query.text.strip(), **written_options(query), **spoken(query.text)})

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
            answer=Text(sentence(event.caption)),
            task="segment_captioning",
            times={"<s0>": event.start_s, "<e0>": event.end_s},
        )

    def asked(self, query: Query) -> list[Turn]:
        """The turns that ask a query: all of a dialogue; two for ``grounded_qa``, for the option and for the moment.

        The latter has one where its wording asks for both, where the query brings its own words, and in a style that
        asks for moments alone.
        """
        if query.task == "dialogue":
            return [Turn(turn.question, task="dialogue", times=turn.times) for turn in query.turns]
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
            return replace(query.turns[0], answer=None, task=query.task, events=(), topic="")
        if query.task == "events":
            raise ValueError(f"query {query.id}: an 'events' record is training material and cannot be asked")
        wording = self._wording(query)
        event = query.events[0] if query.task == "segment_captioning" else None
        times = {"<s0>": event.start_s, "<e0>": event.end_s} if event else {}
        return Turn(self._choice(wording, query), task=query.task, times=times)

    def _wording(self, query: Query) -> str:
        """Of the published evaluation; a second one asks for option and moment at once."""
        wording = self._questions(query, query.task, f"{self.style}_eval")
        return wording[-1 if query.task == "grounded_qa" and self.one_prompt else 0]
