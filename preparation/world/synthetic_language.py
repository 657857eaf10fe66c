"""The words of the quickstart world: how its events are named, described and talked about.

A combination is one value a family: ``(0, 0, 0)`` is a red robot that jumps.
"""

from collections.abc import Sequence

import numpy as np

from datamodules.schema import Event, Turn

# Families in the order in which difficulty adds them to sentences; the one behind those that sentences name is named by
# details alone. A value lists its synonyms; a verb has two forms.
FAMILIES = {
    "colour": "red blue green yellow black white purple orange pink grey",
    "actor": "robot/machine dog/hound cat/kitten child/kid woman/lady man/gentleman bird/parrot horse/pony "
    "rabbit/bunny monkey/ape",
    "action": "jumps:jumping/leaps:leaping runs:running/races:racing sleeps:sleeping/rests:resting "
    "sings:singing/hums:humming eats:eating/dines:dining dances:dancing/twirls:twirling waits:waiting/stands:standing "
    "falls:falling/tumbles:tumbling hides:hiding/crouches:crouching digs:digging/shovels:shovelling",
    "place": "park kitchen street garden forest school station museum harbour desert",
    "object": "box table tree bench ball chair lamp fence piano bicycle",
    "garment": "hat scarf coat crown mask belt bag tie cloak vest",
}
BEHIND = {"place": " in the {}", "object": " near the {}", "garment": " with a {}"}
"""How a family is named behind the verb."""
WORDS = {family: tuple(tuple(value.split("/")) for value in values.split()) for family, values in FAMILIES.items()}
SENTENCES = (
    "a {colour} {actor} {does}{object}{place}",
    "the {colour} {actor} is {doing}{object}{place}",
    "one {colour} {actor} {does}{object}{place}",
    "there is a {colour} {actor} {doing}{object}{place}",
)
GROUNDING_QUESTIONS = (
    "I missed the part where {caption}, when was that?",
    "Please look for this: {caption}.",
    "At what time can I see that {caption}?",
    "Is there a moment in which {caption}?",
)
GROUNDING_ANSWERS = ("From {times}.", "It happens from {times}.", "You can see it from {times}.")
FIRST = ("What is the first thing to happen, and when?", "At the start, from {times}, {caption}.")
LAST = ("And how does the video end?", "At the end, from {times}, {caption}.")
IN_DETAIL = ("What does it look like from <s0> to <e0>?", "{detail}.")
CONTENT_WORDS = frozenset(
    form for values in WORDS.values() for value in values for word in value for form in word.split(":")
)
"""The words that name attribute values."""
TEXTS = (
    *SENTENCES, *BEHIND.values(), *GROUNDING_QUESTIONS, *GROUNDING_ANSWERS, *FIRST, *LAST, *IN_DETAIL,
    "and", *sorted(CONTENT_WORDS),
)  # fmt: skip
"""Together they hold every word of the language."""


def caption(rng: np.random.Generator, combination: Sequence[int]) -> str:
    """One of the sentences that say what a combination shows, without a full stop."""
    return str(rng.choice(SENTENCES)).format(**_words(rng, combination))


def detail(rng: np.random.Generator, text: str, family: int, value: int) -> str:
    """A caption with what it leaves out: the value of a family that it does not name."""
    name = list(WORDS)[family]
    return text + BEHIND[name].format(rng.choice(WORDS[name][value]))


def sentence_case(text: str) -> str:
    """With a capital letter in front."""
    return text[0].upper() + text[1:]


def conversation(rng: np.random.Generator, events: Sequence[Event], combinations: Sequence) -> tuple[Turn, ...]:
    """Up to four free questions with answers, as an annotator might write them from the events."""
    turns = []
    for combination in dict.fromkeys(combinations):
        same = [event for event, other in zip(events, combinations, strict=True) if other == combination]
        question = str(rng.choice(GROUNDING_QUESTIONS)).format(caption=caption(rng, combination))
        turns.append(_turn(question, str(rng.choice(GROUNDING_ANSWERS)), same))
    some = events[rng.integers(len(events))]
    turns += [_turn(*FIRST, events[:1]), _turn(*LAST, events[-1:]), _turn(*IN_DETAIL, [some])]
    return tuple(turns[i] for i in rng.permutation(len(turns))[:4])


def _words(rng, combination) -> dict[str, str]:
    words = {"object": "", "place": ""}
    for family, value in zip(WORDS, combination, strict=False):
        word = str(rng.choice(WORDS[family][value]))
        words[family] = BEHIND.get(family, "{}").format(word)
    words["does"], words["doing"] = words.pop("action").split(":")
    return words


def _turn(question: str, answer: str, events: Sequence[Event]) -> Turn:
    """A turn about events; ``{times}`` becomes their spans, as markers."""
    spans = " and from ".join(f"<s{i}> to <e{i}>" for i in range(len(events)))
    times = {f"<{key}{i}>": t for i, event in enumerate(events) for key, t in zip("se", event.span, strict=True)}
    text = answer.format(times=spans, caption=events[0].caption, detail=events[0].detail)
    return Turn(question, sentence_case(text), times=times)
