"""A dialogue as ids and labels, in the words of a conversation format and the tokens of a vocabulary."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import groupby

from transformers import PreTrainedTokenizerBase

from datamodules.chat_formats import CHAT_FORMATS, TEMPLATE, ChatFormat, misfit
from datamodules.chat_templates import answer_ends, first_token, from_template
from datamodules.markup import VIDEO, Text, Token, any_of, literal
from datamodules.tokenizers import Placed, TextEncoder

IGNORE = -100
"""Label of a token that is not supervised."""
VIDEO_ID = -200
"""Stands for all frames of the video until they are spliced in."""
Turns = list[tuple[str, str | None]]
"""Questions and answers; the last answer may be None: it is to be generated."""


def chat_format(
    chat: str | ChatFormat, system: str | None = None, tokenizer: PreTrainedTokenizerBase | None = None
) -> ChatFormat:
    """A conversation format, with another system text if one is given.

    Args:
        chat: a format, the name of one, or ``template``: what the tokenizer's own chat template says.
        system: text in place of the format's own, special tokens included; of ``template`` the words alone.
        tokenizer: of the language model; ``template`` needs it.

    Raises:
        ValueError: the name is unknown, or the tokenizer has no chat template that can be used.
    """
    if chat == TEMPLATE and tokenizer is not None:
        return from_template(tokenizer, system)
    if isinstance(chat, str):
        if chat not in CHAT_FORMATS:
            raise ValueError(f"unknown chat format {chat!r}; known: {', '.join([*CHAT_FORMATS, TEMPLATE])}")
        chat = CHAT_FORMATS[chat]
    return chat if system is None else replace(chat, system=system)


def check_end(chat: ChatFormat) -> None:
    """Raise ValueError if a language model that was trained in a format would not know when an answer ends."""
    if chat.asks and not chat.end:
        raise ValueError(f"chat format {chat.name!r} has no end token, so no answer would ever end; name another")


def asking_format(tokenizer: PreTrainedTokenizerBase) -> ChatFormat:
    """A format with questions for a language model that was trained on captions alone (stage 1).

    Its own where its tokenizer brings a chat template, else Vicuna's words and the model's own end token.
    """
    try:
        return from_template(tokenizer)
    except ValueError:
        return replace(CHAT_FORMATS["vicuna_v1"], end=tokenizer.eos_token or "")


def check_fit(chat: ChatFormat, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a format that is not the language model's.

    Raises:
        ValueError: naming the format, its end token, the model, what does not fit, and the formats that do.
    """
    ends = answer_ends(tokenizer)
    if (reason := misfit(chat, tokenizer, ends)) is None:
        return
    sensible = (one for one in CHAT_FORMATS.values() if one.end or not one.asks)
    fitting = [one.name for one in sensible if misfit(one, tokenizer, ends) is None] + [TEMPLATE] * bool(ends)
    own = f"{{user: .., assistant: .., end: {tokenizer.eos_token!r}}}"
    raise ValueError(
        f"chat format {chat.name!r} (end token {chat.end!r}) does not fit {tokenizer.name_or_path!r}: {reason}. "
        f"Formats that fit: {', '.join(fitting)}; or write one into the config, chat: {own}"
    )


class ChatEncoder:
    """Turns of text to token ids and labels, so that every label is known by construction.

    Special tokens are those that the format writes and the tokens of questions and answers, see ``markup``; all else
    is text, whatever it looks like. What stands between two special tokens is encoded as one text.

    Args:
        tokenizer: of the language model.
        chat: the text around questions and answers.

    Raises:
        ValueError: the format does not fit the language model.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, chat: ChatFormat):
        check_fit(chat, tokenizer)
        self.tokenizer, self.chat = tokenizer, chat
        self.text = TextEncoder(tokenizer)
        added = tokenizer.added_tokens_decoder.items()
        self.ids = {token.content: number for number, token in added if token.content.strip()}
        self.strips = {token.content: (token.lstrip, token.rstrip) for _, token in added}
        self._own = any_of(self.ids)
        self.bos = self._first()
        self.end = [self.ids[chat.end]] if chat.end else []

    def _first(self) -> list[int]:
        """What stands in front of all that the format writes."""
        bos = self.tokenizer.bos_token
        written = bool(bos) and (self.chat.system + self.chat.user).startswith(bos)
        if self.chat.first == "never" or written:
            return []
        if self.tokenizer("a").input_ids[:1] == [self.tokenizer.bos_token_id]:
            return [self.tokenizer.bos_token_id]
        first = first_token(self.tokenizer) if self.chat.first == "always" else None
        return [self.tokenizer.convert_tokens_to_ids(first)] if first else []

    def segments(self, turns: Turns) -> Iterator[tuple[str, str]]:
        """(text, role) pairs that make up a dialogue; joined, the texts are the prompt as people read it.

        Roles: ``start`` (in front of the video, or all of a first prompt), ``video``, ``after_video``, ``next`` (a
        later prompt), ``answer`` and ``end``.
        """
        for role, parts in groupby(self._parts(turns), key=lambda part: part[1]):
            yield "".join(text for text, _ in parts), role

    def _parts(self, turns: Turns) -> Iterator[tuple[Text, str]]:
        """Texts with their roles. The video is a ``Token`` and has the role ``video``."""
        chat = self.chat
        for number, (question, answer) in enumerate(turns):
            role, asked = "next" if number else "start", _asked(question) if chat.asks else Text()
            later = chat.user if chat.later_user is None else chat.later_user
            yield literal(later if number else chat.system + chat.user, self._own), role
            if number == 0:
                before, *behind = asked.part(VIDEO)
                yield before if behind else Text(), role
                yield Text(Token(VIDEO)), "video"
                role, asked = "after_video", Text(*behind) if behind else Text("\n", asked)
            yield asked.change({VIDEO: VIDEO}), role
            yield literal(chat.assistant, self._own), role
            if answer is not None:
                yield literal(chat.before_answer, self._own), "answer"
                yield Text(answer), "answer"
                yield literal(chat.after_answer, self._own), "answer"
                yield literal(chat.end, self._own), "end"

    def encode(self, turns: Turns) -> tuple[list[int], list[int]]:
        """Ids and labels of a dialogue; the video stands in it as one ``VIDEO_ID``.

        Args:
            turns: (question, answer) pairs. The last answer may be None: it is to be generated. The video stands
                where the first question has its token, or, as a plain string, says ``<video>``; or else on a line of
                its own before it.

        Returns:
            ids and labels of the same length; only answers and their end tokens are supervised.
        """
        ids, labels = list(self.bos), [IGNORE] * len(self.bos)
        for number, role in self._encoded(turns):
            ids.append(number)
            labels.append(number if role in ("answer", "end") else IGNORE)
        return ids, labels

    def within(self, text: str) -> list[int]:
        """Ids of a text between the frames of a video; tokens that the vocabulary does not have are left out."""
        ids = []
        for piece in Text(text).pieces:
            if not isinstance(piece, Token):
                ids += [number for number, _ in self.text.inside(piece)]
            elif piece in self.ids:
                ids.append(self.ids[piece])
        return ids

    def _encoded(self, turns: Turns) -> Iterator[tuple[int, str]]:
        """Each id with the role of its first character. Texts on both sides of the video are sequences of their own."""
        text, roles, behind = "", [], None
        for token, piece, role in [*self._pieces(turns), (True, "", "")]:
            if not token:
                text, roles = text + piece, roles + [role] * len(piece)
                continue
            if self.strips.get(behind, (False, False))[1]:
                roles, text = roles[len(text) - len(text.lstrip()) :], text.lstrip()
            if self.strips.get(piece, (False, False))[0]:
                text = text.rstrip()
            yield from ((number, roles[place]) for number, place in self._run(text, behind))
            if piece:
                yield VIDEO_ID if role == "video" else self.ids[piece], role
            text, roles, behind = "", [], None if role == "video" else piece

    def _pieces(self, turns: Turns) -> Iterator[tuple[bool, str, str]]:
        """Whether it is a special token, text, and role of each piece of a dialogue."""
        for text, role in self._parts(turns):
            for piece in text.pieces:
                yield isinstance(piece, Token) and (role == "video" or piece in self.ids), str(piece), role

    def _run(self, text: str, behind: str | None) -> list[Placed]:
        """The tokens of a text behind a special token, or (None) at the beginning of its sequence."""
        if behind is None or self.chat.joined:
            return self.text(text, first=behind is None)
        return self.text.cut(text) if behind == self.chat.end else self.text.inside(text)


def _asked(question: str) -> Text:
    """A question in which the first ``<video>`` is meant, where it does not know better."""
    if isinstance(question, Text):
        return question
    before, video, behind = question.partition(VIDEO)
    return Text(before, Token(video), behind)
