"""Conversation formats: the fixed text around questions and answers, and its tokens."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from transformers import PreTrainedTokenizerBase

IGNORE = -100
"""Label of a token that is not supervised."""
VIDEO_ID = -200
"""Stands for all frames of the video until they are spliced in."""
VIDEO = "<video>"


@dataclass(frozen=True)
class ChatFormat:
    """The text around the turns of a dialogue.

    The prompt is ``system``, then for each turn ``user`` question ``assistant`` ``before_answer`` answer ``end``.
    """

    system: str
    user: str
    assistant: str
    before_answer: str
    after_answer: str
    end: str
    """A special token of the vocabulary, or nothing."""
    joined: bool = False
    """Tokenised in one piece up to the video and behind it, as formats made of special tokens are."""
    asks: bool = True
    """False: only the video stands in front of the answer; the question is dropped."""


VICUNA = ChatFormat(
    system="A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions. ",
    user="USER: ",
    assistant=" ASSISTANT:",
    before_answer=" ",
    after_answer="",
    end="</s>",
)
CHAT_FORMATS = {
    "vicuna_v1": VICUNA,
    "vicuna_videoexpert": replace(VICUNA, assistant=" VideoExpert:"),  # as the paper prints its templates
    "phi3": ChatFormat(
        system="<|system|>\nYou are a helpful AI assistant.<|end|>",
        user="\n<|user|>\n",
        assistant="<|end|>\n<|assistant|>\n",
        before_answer="",
        after_answer="",
        end="<|end|>",
        joined=True,
    ),
    "qwen2": ChatFormat(
        system="<|im_start|>system\nYou are a helpful assistant.<|im_end|>",
        user="\n<|im_start|>user\n",
        assistant="<|im_end|>\n<|im_start|>assistant\n",
        before_answer="",
        after_answer="",
        end="<|im_end|>",
        joined=True,
    ),
    "plain": ChatFormat("", user="", assistant="", before_answer="", after_answer="\n", end="", asks=False),
    "bare": ChatFormat("", user="\n", assistant="", before_answer="", after_answer="", end=""),  # no language model
}


def chat_format(name: str, system: str | None = None) -> ChatFormat:
    """A format by name, with another system text if one is given.

    Raises:
        ValueError: the name is unknown.
    """
    if name not in CHAT_FORMATS:
        raise ValueError(f"unknown chat format {name!r}; known: {', '.join(CHAT_FORMATS)}")
    return CHAT_FORMATS[name] if system is None else replace(CHAT_FORMATS[name], system=system)


class ChatEncoder:
    """Turns of text to token ids and labels, segment by segment, so that every label is known by construction.

    SentencePiece tokenizers of the Llama family put a ``▁`` in front of every text they are given. The released
    models were trained with the tokens that transformers 4.31 made: a text that follows an end token loses that
    ``▁`` (``USER`` becomes ``US``, ``ER``), the text that follows the video keeps it.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, chat: ChatFormat):
        self.tokenizer = tokenizer
        self.chat = chat
        probe = tokenizer("a").input_ids
        self.bos = [tokenizer.bos_token_id] if probe[0] == tokenizer.bos_token_id else []
        self.end = [tokenizer.convert_tokens_to_ids(chat.end)] if chat.end else []
        self.adds_prefix = tokenizer.convert_ids_to_tokens(self._raw("a"))[0].startswith("▁")

    def _raw(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False)

    def _continue(self, text: str) -> list[int]:
        """Ids of a text in the middle of a sequence."""
        if not self.adds_prefix:
            return self._raw(text)
        if text.startswith(" "):
            return self._raw(text[1:])  # the tokenizer's own prefix is that space
        ids = self._raw(text)
        first = self.tokenizer.convert_ids_to_tokens(ids[:1])
        if first and first[0].startswith("▁"):
            bare = first[0][1:]
            ids[:1] = [self.tokenizer.convert_tokens_to_ids(bare)] if bare else []
        return ids

    def segments(self, turns: list[tuple[str, str | None]]) -> Iterator[tuple[str, str]]:
        """(text, role) pairs that make up a dialogue; joined, the texts are the prompt as people read it.

        Roles: ``start`` (in front of the video, or all of a first prompt), ``video``, ``after_video``, ``next`` (a
        later prompt), ``answer`` and ``end``.
        """
        chat = self.chat
        for number, (question, answer) in enumerate(turns):
            question = question if chat.asks else ""
            if number == 0 and VIDEO not in question:
                question = f"{VIDEO}\n{question}"
            before, video, after = f"{chat.user}{question}{chat.assistant}".partition(VIDEO)
            yield (chat.system + before, "start") if number == 0 else (before, "next")
            if video:
                yield video, "video"
                yield after, "after_video"
            if answer is not None:
                yield chat.before_answer + answer + chat.after_answer, "answer"
                yield chat.end, "end"

    def encode(self, turns: list[tuple[str, str | None]]) -> tuple[list[int], list[int]]:
        """Ids and labels of a dialogue; the video stands in it as one ``VIDEO_ID``.

        Args:
            turns: (question, answer) pairs. The last answer may be None: it is to be generated. The video stands
                where a question says ``<video>``, or else on a line of its own before the first question.

        Returns:
            ids and labels of the same length; only answers and their end tokens are supervised.
        """
        ids, labels = list(self.bos), [IGNORE] * len(self.bos)
        for segment, role in (self._joined if self.chat.joined else self._separate)(turns):
            ids += segment
            labels += segment if role in ("answer", "end") else [IGNORE] * len(segment)
        return ids, labels

    def _separate(self, turns: list[tuple[str, str | None]]) -> Iterator[tuple[list[int], str]]:
        """Ids of each segment by itself, and its role."""
        for text, role in self.segments(turns):
            if role == "video":
                yield [VIDEO_ID], role
            elif role == "end":
                yield self.end, role
            elif text:
                yield (self._continue if role in ("next", "answer") else self._raw)(text), role

    def _joined(self, turns: list[tuple[str, str | None]]) -> Iterator[tuple[list[int], str]]:
        """Each id of the text before the video and of the text behind it, with the role of its first character."""
        text, roles = "", []
        for part, role in [*self.segments(turns), ("", "video")]:
            if role != "video":
                text, roles = text + part, roles + [role] * len(part)
                continue
            if text:
                tokens = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
                for token, (start, _) in zip(tokens.input_ids, tokens.offset_mapping, strict=True):
                    yield [token], roles[start]
            if part:
                yield [VIDEO_ID], role
            text, roles = "", []
