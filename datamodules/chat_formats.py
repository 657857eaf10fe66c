"""Conversation formats: the fixed text around questions and answers, and which of them fit a language model."""

import re
from dataclasses import dataclass, replace
from typing import Literal

from transformers import PreTrainedTokenizerBase

TOKEN = re.compile(r"<[^<>\s]+>")
"""What looks like a special token in the text of a format."""


@dataclass(frozen=True)
class ChatFormat:
    """The text around the turns of a dialogue.

    A dialogue is ``system``, then for each turn ``user`` question ``assistant`` ``before_answer`` answer
    ``after_answer`` ``end``. Special tokens of the language model may stand anywhere in these texts.
    """

    system: str = ""
    user: str = ""
    assistant: str = ""
    before_answer: str = ""
    """Stands in front of an answer, but not at the end of a question that waits for one: mostly a space."""
    after_answer: str = ""
    end: str = ""
    """A special token of the language model, or nothing."""
    joined: bool = False
    """Text behind a special token is encoded as the tokenizer does it, and not as the released VTimeLLM was trained
    with; it matters to SentencePiece vocabularies alone, see ``TextEncoder.cut``."""
    asks: bool = True
    """False: only the video stands in front of the answer; the question is dropped."""
    later_user: str | None = None
    """In place of ``user`` before every question but the first; None: the same."""
    first: Literal["tokenizer", "always", "never"] = "tokenizer"
    """Whether the language model's usual first token stands in front of all: where its tokenizer puts one there; also
    where it puts none; or never, since the format holds all that is needed."""
    name: str = "of the config"


VICUNA = ChatFormat(
    system="A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions. ",
    user="USER: ",
    assistant=" ASSISTANT:",
    before_answer=" ",
    end="</s>",
    name="vicuna_v1",
)
QWEN2 = ChatFormat(
    system="<|im_start|>system\nYou are a helpful assistant.<|im_end|>",
    user="\n<|im_start|>user\n",
    assistant="<|im_end|>\n<|im_start|>assistant\n",
    end="<|im_end|>",
    joined=True,
    name="qwen2",
)
CHAT_FORMATS = {
    "vicuna_v1": VICUNA,
    "vicuna_videoexpert": replace(
        VICUNA, assistant=" VideoExpert:", name="vicuna_videoexpert"
    ),  # the paper's role word
    "phi3": ChatFormat(
        system="<|system|>\nYou are a helpful AI assistant.<|end|>",
        user="\n<|user|>\n",
        assistant="<|end|>\n<|assistant|>\n",
        end="<|end|>",
        joined=True,
        name="phi3",
    ),
    "qwen2": QWEN2,
    "plain": ChatFormat(after_answer="\n", asks=False, first="always", name="plain"),
    "bare": ChatFormat(user="\n", name="bare"),  # no language model
    "chatml": replace(QWEN2, name="chatml"),
}
TEMPLATE = "template"
"""Name of the format that the tokenizer's own chat template gives, see ``datamodules.chat_templates``."""


def misfit(chat: ChatFormat, tokenizer: PreTrainedTokenizerBase, ends: frozenset[str]) -> str | None:
    """Why a language model cannot be talked to in a format; None: it can.

    Args:
        chat: the format.
        tokenizer: of the language model.
        ends: tokens that its answers end with; empty: they are not known.
    """
    known = {token.content for token in tokenizer.added_tokens_decoder.values()}
    texts = (chat.system, chat.user, chat.assistant, chat.before_answer, chat.after_answer, chat.later_user or "")
    needed = dict.fromkeys([chat.end] if chat.end else []) | dict.fromkeys(TOKEN.findall("\n".join(texts)))
    if missing := [token for token in needed if token not in known]:
        return f"its vocabulary has no special token {', '.join(missing)}"
    if chat.end and ends and chat.end not in ends:
        return f"its answers end with {' or '.join(sorted(ends))}"
    return None
