"""Conversation formats: which base takes which, the base's own template, and what stands in front."""

from dataclasses import replace

import pytest
import sentencepiece
from tokenizers import AddedToken

from datamodules.chat import IGNORE, VIDEO_ID, ChatEncoder, asking_format, chat_format
from datamodules.chat_formats import CHAT_FORMATS, ChatFormat
from models.checkpoints import load_tokenizer

CHAT_MODELS = {
    "llama-3-8b": {"template"},
    "phi-3-mini-4k-instruct": {"phi3", "template"},
    "qwen2-7b-instruct": {"qwen2", "chatml", "template"},
    "qwen2.5-7b-instruct": {"qwen2", "chatml", "template"},
    "qwen3-0.6b": {"qwen2", "chatml", "template"},
    "smollm2-135m-instruct": {"qwen2", "chatml", "template"},
    "vicuna-7b-v1.5": {"vicuna_v1", "vicuna_videoexpert"},
    "llama-2-7b": {"vicuna_v1", "vicuna_videoexpert"},
}
"""Vocabulary -> the formats with questions that fit it; all take ``plain``."""
TURNS = [("Which?<video>", "A red  robot </s> <|im_end|>."), ("And when?", "From 05 to 20.")]
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
GEMMA = (  # no system text; the assistant is called model
    "<bos>{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system text') }}{% endif %}"
    "<start>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content | trim }}<end>\n{% endfor %}"
    "{% if add_generation_prompt %}<start>model\n{% endif %}"
)
MISTRAL = (  # words in brackets, a space before the answer, nothing to generate behind
    "<bos>{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% elif m.role == 'assistant' %} {{ m.content }}<end>{% endif %}{% endfor %}"
)
TODAY = "{{ strftime_now('%d %b %Y') }}" + CHATML
ONLY_LAST = (  # as Qwen3: thoughts in the last answer alone
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and loop.last %}<think></think>{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think></think>{% endif %}{% endif %}"
)
NUMBERED = "{% for m in messages %}<|im_start|>{{ loop.index }} {{ m.content }}<|im_end|>{% endfor %}"


@pytest.fixture
def base(llm):
    """A tiny tokenizer that can be given special tokens and a chat template."""

    def made(template: str | None, *tokens: str):
        tokenizer = load_tokenizer(llm)
        tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in tokens])
        tokenizer.chat_template = template
        return tokenizer

    return made


def own(tokenizer, turns: list[tuple[str, str | None]], **settings) -> list[int]:
    """Ids that the tokenizer's own chat template gives, the video left out."""
    roles = [("user", question.replace("<video>", "")) for question, _ in turns]
    said = [
        message for role, (_, answer) in zip(roles, turns, strict=True) for message in (role, ("assistant", answer))
    ]
    messages = [{"role": role, "content": text} for role, text in said if text is not None]
    return tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False, enable_thinking=False, **settings)


def words(encoded: tuple[list[int], list[int]]) -> list[int]:
    return [number for number in encoded[0] if number != VIDEO_ID]


@pytest.mark.parametrize("name", CHAT_MODELS)
def test_a_base_takes_its_own_formats_and_no_other(name, loaded):
    tokenizer = loaded(name)
    for chat in {*CHAT_FORMATS, "template"} - {"bare", "plain"}:
        if chat in CHAT_MODELS[name]:
            ChatEncoder(tokenizer, chat_format(chat, None, tokenizer))
            continue
        with pytest.raises(ValueError, match="has no chat template|does not fit") as refused:
            ChatEncoder(tokenizer, chat_format(chat, None, tokenizer))
        assert name in str(refused.value)
        if chat != "template":
            fitting = str(refused.value).split("Formats that fit: ")[1].split(";")[0].split(", ")
            assert set(fitting) == CHAT_MODELS[name] | {"plain"}
            assert f"{chat!r} (end token {CHAT_FORMATS[chat].end!r})" in str(refused.value)
    ChatEncoder(tokenizer, chat_format("plain"))


@pytest.mark.parametrize("name", [name for name, formats in CHAT_MODELS.items() if "template" in formats])
def test_a_chat_model_is_spoken_to_as_its_template_says(name, loaded):
    tokenizer = loaded(name)
    encoder = ChatEncoder(tokenizer, chat_format("template", None, tokenizer))
    question, answer = "[v] Which?", "A red  robot: 5."
    asked = words(encoder.encode([(f"{question}<video>", None)]))
    assert asked == own(tokenizer, [(question, None)], add_generation_prompt=True)
    ids, labels = encoder.encode([(f"{question}<video>", answer)])
    whole = words((ids, labels))
    assert whole == own(tokenizer, [(question, answer)])[: len(whole)]
    assert whole[: len(asked)] == asked
    learned = [label for label in labels if label != IGNORE]
    assert learned == whole[len(asked) :]
    assert learned[-1:] == encoder.end
    assert tokenizer.decode(learned[:-1]) == answer
    if name != "qwen3-0.6b":  # whose earlier answers stand without their empty thoughts
        turns = [(f"{question}<video>", answer), ("And when?", "Later.")]
        more = words(encoder.encode(turns))
        assert more == own(tokenizer, turns)[: len(more)]


@pytest.mark.parametrize("name", CHAT_MODELS)
def test_answers_are_learned_behind_the_words_they_are_asked_with(name, loaded):
    """In every format that fits; and nothing but answers and their end is learned, as text."""
    tokenizer = loaded(name)
    for chat in CHAT_MODELS[name]:
        encoder = ChatEncoder(tokenizer, chat_format(chat, None, tokenizer))
        first = encoder.encode([(TURNS[0][0], None)])[0]
        ids, labels = encoder.encode(TURNS)
        assert ids[: len(first)] == first
        assert ids.count(VIDEO_ID) == 1
        learned = [label for label in labels if label != IGNORE]
        assert [number for number, label in zip(ids, labels, strict=True) if label != IGNORE] == learned
        (end,) = encoder.end
        assert learned.count(end) == 2, "the literal tokens of the first answer are text"
        texts = [tokenizer.decode(run).strip() for run in runs(learned, end)]
        assert texts == [answer for _, answer in TURNS]


def runs(ids: list[int], end: int) -> list[list[int]]:
    """What stands before each end token."""
    places = [-1, *(place for place, number in enumerate(ids) if number == end)]
    return [ids[first + 1 : behind] for first, behind in zip(places, places[1:], strict=False)]


def test_chatml_is_another_name_of_qwen2(loaded):
    one, other = (ChatEncoder(loaded("qwen2-7b-instruct"), chat_format(name)) for name in ("qwen2", "chatml"))
    assert one.encode(TURNS) == other.encode(TURNS)


def test_a_caption_goes_on_from_its_line_and_is_never_unknown(small_vicuna):
    """In ``plain`` the newline and the caption are one text, of which the newline is not learned."""
    tokenizer = load_tokenizer(str(small_vicuna))
    truth = sentencepiece.SentencePieceProcessor(model_file=str(small_vicuna / "tokenizer.model"))
    encoder = ChatEncoder(tokenizer, chat_format("plain"))
    for caption in ("woman in a red dress", "Views of a  shelf", "young </s> <s>", "你好 😀 <unk>", " a", "05 \n20"):
        ids, labels = encoder.encode([("Describe.<video>", caption)])
        assert ids == [tokenizer.bos_token_id, VIDEO_ID, *truth.encode(f"\n{caption}\n")]
        assert tokenizer.convert_ids_to_tokens(ids[2:4]) == ["▁", "<0x0A>"]
        assert labels == [IGNORE] * 4 + ids[4:]
        assert tokenizer.unk_token_id not in ids


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("vicuna-7b-v1.5", "<s>"),
        ("llama-3-8b", "<|begin_of_text|>"),
        ("phi-3-mini-4k-instruct", "<s>"),
        ("qwen2-7b-instruct", "<|im_start|>"),
        ("qwen3-0.6b", "<|im_start|>"),
        ("smollm2-135m-instruct", "<|im_start|>"),
    ],
)
def test_no_picture_stands_in_the_very_first_place(name, first, loaded):
    ids, labels = ChatEncoder(loaded(name), chat_format("plain")).encode([("<video>", "A robot.")])
    assert loaded(name).convert_ids_to_tokens(ids[0]) == first
    assert (ids[1], labels[0]) == (VIDEO_ID, IGNORE)


def test_without_bos_and_template_documents_begin_behind_the_end_of_others(base):
    tokenizer = base(None, "<|endoftext|>")
    tokenizer.bos_token, tokenizer.eos_token = None, "<|endoftext|>"
    tokenizer.backend_tokenizer.post_processor = None
    ids, _ = ChatEncoder(tokenizer, chat_format("plain")).encode([("<video>", "a robot")])
    assert ids[:2] == [tokenizer.eos_token_id, VIDEO_ID]


@pytest.mark.parametrize(
    ("template", "tokens", "prompt", "second"),
    [
        (CHATML, ("<|im_start|>", "<|im_end|>"), "<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n",
         "\n<|im_start|>user\nQ2<|im_end|>\n<|im_start|>assistant\n"),
        (GEMMA, ("<bos>", "<start>", "<end>"), "<bos><start>user\nQ<end>\n<start>model\n",
         "\n<start>user\nQ2<end>\n<start>model\n"),
        (MISTRAL, ("<bos>", "<end>"), "<bos>[INST] Q [/INST]", "[INST] Q2 [/INST]"),
        (TODAY, ("<|im_start|>", "<|im_end|>"), "26 Jul 2024<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n",
         "\n<|im_start|>user\nQ2<|im_end|>\n<|im_start|>assistant\n"),
        (ONLY_LAST, ("<|im_start|>", "<|im_end|>", "<think>", "</think>"),
         "<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n<think></think>",
         "\n<|im_start|>user\nQ2<|im_end|>\n<|im_start|>assistant\n<think></think>"),
    ],
    ids=["chatml", "gemma", "mistral", "today", "only last"],
)  # fmt: skip
def test_templates_of_other_families_are_taken_apart(template, tokens, prompt, second, base):
    tokenizer = base(template, *tokens)
    chat = chat_format("template", None, tokenizer)
    encoder = ChatEncoder(tokenizer, chat)
    segments = list(encoder.segments([("Q<video>", "A"), ("Q2", None)]))
    assert "".join(text for text, role in segments if role in ("start", "after_video")) == prompt
    assert [text for text, role in segments if role == "next"] == [second]
    assert [text.strip() for text, role in segments if role == "answer"] == ["A"]
    assert chat.end in tokens
    assert encoder.bos == [], "the template says what stands first"


def test_a_system_text_goes_where_the_template_puts_it(base):
    tokenizer = base(CHATML, "<|im_start|>", "<|im_end|>")
    assert chat_format("template", "be brief", tokenizer).system == "<|im_start|>system\nbe brief<|im_end|>"
    with pytest.raises(ValueError, match="takes no system text: no system text"):
        chat_format("template", "be brief", base(GEMMA, "<bos>", "<start>", "<end>"))


@pytest.mark.parametrize("template", [NUMBERED, "{{ raise_exception('tools only') }}", "{{ messages[0].content }}"])
def test_a_template_that_cannot_be_followed_is_refused(template, base):
    with pytest.raises(ValueError, match="cannot be taken apart|takes no questions and answers: tools only"):
        chat_format("template", None, base(template, "<|im_start|>", "<|im_end|>"))


def test_an_end_token_that_the_template_does_not_end_with_is_refused(base):
    """As ``</s>`` is to Phi-3: a token of the vocabulary, but answers do not end with it."""
    tokenizer = base(CHATML, "<|im_start|>", "<|im_end|>")
    tokenizer.eos_token = "<|im_end|>"
    with pytest.raises(ValueError, match="its answers end with <|im_end|>. Formats that fit: qwen2, plain, chatml"):
        ChatEncoder(tokenizer, chat_format("vicuna_v1"))


def test_a_format_is_written_out_where_none_is_known(base):
    tokenizer = base(None)
    chat = ChatFormat(user="Question: ", assistant="\nAnswer:", before_answer=" ", end="</s>")
    ids, labels = ChatEncoder(tokenizer, chat).encode([("what is this?", "a robot."), ("and then?", None)])
    assert tokenizer.decode([label for label in labels if label != IGNORE]) == "a robot. </s>"
    assert ids[0] == tokenizer.bos_token_id
    with pytest.raises(ValueError, match="'of the config'.*no special token <|im_end|>"):
        ChatEncoder(tokenizer, replace(chat, end="<|im_end|>"))
    with pytest.raises(ValueError, match="no special token <|user|>"):
        ChatEncoder(tokenizer, replace(chat, user="<|user|>"))


def test_unknown_names_list_the_known_ones(base):
    with pytest.raises(ValueError, match="known: vicuna_v1, vicuna_videoexpert, phi3, qwen2, plain, .*template"):
        chat_format("vicuna")
    with pytest.raises(ValueError, match="has no chat template"):
        chat_format("template", None, base(None))


def test_a_model_that_only_knows_captions_is_asked_in_its_own_format(loaded, base):
    assert asking_format(loaded("vicuna-7b-v1.5")) == CHAT_FORMATS["vicuna_v1"]
    assert asking_format(loaded("phi-3-mini-4k-instruct")).end == "<|end|>"
    tokenizer = base(None, "<|endoftext|>")
    tokenizer.eos_token = "<|endoftext|>"
    assert ChatEncoder(tokenizer, asking_format(tokenizer)).end == [tokenizer.eos_token_id]
