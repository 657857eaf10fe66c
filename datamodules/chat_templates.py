"""The conversation format of a language model, read off the chat template that its tokenizer brings."""

import re

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from datamodules.chat_formats import TEMPLATE, ChatFormat

SAID = ("[question 1]", "[answer 1]", "[question 2]", "[answer 2]")
"""Stand for what is said, to be found again in what a template makes of it."""
DAY = "26 Jul 2024"
TODAY = "{%- macro strftime_now(form) -%}{{ '2024-07-26' if form == '%Y-%m-%d' else '" + DAY + "' }}{%- endmacro -%}"
"""Tells templates that ask for the day always the same one, for a format must not change from day to day."""


def from_template(tokenizer: PreTrainedTokenizerBase, system: str | None = None) -> ChatFormat:
    """The format of a tokenizer's chat template; thinking aloud is switched off where the template knows it.

    A dialogue is rendered with stand-ins for what is said, taken apart, and put together again. A template that writes
    something into the last answer alone (Qwen3: the empty thoughts) is followed there, in every turn: each answer is
    learned behind the words that it is asked with.

    Args:
        tokenizer: of the language model.
        system: text of a system message; None: what the template says without one.

    Raises:
        ValueError: there is no template, it refuses such a dialogue, or it cannot be taken apart.
    """
    name = tokenizer.name_or_path
    if not tokenizer.chat_template:
        raise ValueError(f"the tokenizer of {name!r} has no chat template")
    try:
        whole, single, asked = (_render(tokenizer, SAID[:length], system) for length in (4, 2, 1))
    except TemplateError as error:
        text = "no system text" if system else "no questions and answers"
        raise ValueError(f"the chat template of {name!r} takes {text}: {error}") from None
    pieces = re.split("|".join(map(re.escape, SAID)), whole)
    tokens = [token.content for token in tokenizer.added_tokens_decoder.values()]
    chat = _taken_apart(pieces, asked, tokens) if len(pieces) == 5 else None
    if chat is None or not single.startswith(_joined(chat, SAID[:2])) or (system or "") not in chat.system + chat.user:
        raise ValueError(
            f"the chat template of {name!r} cannot be taken apart into one text before and after each question; write "
            "the format into the config (chat: {system: .., user: .., assistant: .., end: ..})"
        )
    return chat


def _render(tokenizer: PreTrainedTokenizerBase, said: tuple[str, ...], system: str | None) -> str:
    """The text of a dialogue; behind a question, up to where the answer begins."""
    messages = [{"role": "system", "content": system}] if system else []
    messages += [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(said)]
    return tokenizer.apply_chat_template(
        messages,
        chat_template=TODAY + tokenizer.get_chat_template(),
        tokenize=False,
        add_generation_prompt=len(said) % 2 == 1,
        enable_thinking=False,
        date_string=DAY,
    )


def _taken_apart(pieces: list[str], asked: str, tokens: list[str]) -> ChatFormat | None:
    """The format of a dialogue's texts around four stand-ins; None where they do not repeat."""
    lead, earlier, between, last, tail = pieces
    assistant = asked.removeprefix(lead + SAID[0])
    end = re.search("|".join(map(re.escape, sorted(filter(None, tokens), key=len, reverse=True))), between)
    if assistant == asked or not last.startswith(assistant) or not last.startswith(earlier) or end is None:
        return None
    if not tail.startswith(between[: end.end()]):
        return None
    later_user = between[end.end() :]
    repeats = lead.endswith(later_user)
    return ChatFormat(
        system=lead.removesuffix(later_user) if repeats else "",
        user=later_user if repeats else lead,
        assistant=assistant,
        before_answer=last.removeprefix(assistant),
        after_answer=between[: end.start()],
        end=end[0],
        joined=True,
        later_user=None if repeats else later_user,
        first="never",
        name=TEMPLATE,
    )


def _joined(chat: ChatFormat, said: tuple[str, str]) -> str:
    """The text of a dialogue of one turn."""
    question, answer = said
    behind = chat.assistant + chat.before_answer + answer + chat.after_answer + chat.end
    return chat.system + chat.user + question + behind


def answer_ends(tokenizer: PreTrainedTokenizerBase) -> frozenset[str]:
    """The tokens that end an answer by the tokenizer's own account; empty where its template does not tell."""
    try:
        return frozenset({from_template(tokenizer).end, tokenizer.eos_token} - {None})
    except ValueError:
        return frozenset()


def first_token(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """What usually stands first in a language model's sequences: its BOS token, or what its template begins with, or
    else the token that ends one document and so stands before the next; None: it has none of these."""
    if tokenizer.bos_token or not tokenizer.chat_template:
        return tokenizer.bos_token or tokenizer.eos_token
    try:
        lead = _render(tokenizer, SAID[:1], None)
    except TemplateError:
        return tokenizer.eos_token
    found = [token.content for token in tokenizer.added_tokens_decoder.values() if lead.startswith(token.content)]
    return max(found, key=len, default=tokenizer.eos_token)
