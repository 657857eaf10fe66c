"""From annotations to tokens: wording, labels, splicing, batches."""

from collections import Counter
from dataclasses import replace
from random import Random

import numpy as np
import pytest
import torch

from datamodules.batch import collate, collate_prompts
from datamodules.chat import IGNORE, ChatEncoder, chat_format
from datamodules.dialogue import Dialogue
from datamodules.schema import Event, Query, Turn, Video
from datamodules.templates import questions
from datamodules.turns import TurnWriter
from localizers import TextTimestamps
from models.checkpoints import load_tokenizer

EVENTS = tuple(
    Event(10.0 * i, 10.0 * i + 5, f"a red robot {verb}") for i, verb in enumerate(("jumps", "sings", "digs"))
)

FIND = Query("f", "v", "grounding", "a red robot jumps", (EVENTS[0],))


@pytest.fixture(scope="module")
def dialogue(llm):
    return Dialogue(load_tokenizer(llm), chat_format("vicuna_v1"), TextTimestamps())


def video(frames: int, name: str = "v") -> Video:
    return Video(name, 40.0, np.linspace(0, 39, frames), np.ones((frames, 8), np.float16))


@pytest.mark.parametrize("task", ["grounding", "dense_captioning", "segment_captioning"])
def test_every_task_has_ten_paraphrases_and_a_wording_for_evaluation(task):
    assert len(set(questions(task, "vtimellm"))) >= 10
    assert len(questions(task, "vtimellm_eval")) == 1


def test_a_style_may_introduce_the_video(llm, dialogue):
    """Box 2 of VTimeLLM; the number of frames is the video's, and only the first question is behind it."""
    tokenizer = load_tokenizer(llm)
    tokenizer.add_tokens(["This is a video with", "frames: "])
    paper = Dialogue(tokenizer, chat_format("vicuna_v1"), TextTimestamps(), style="vtimellm_paper")
    assert paper.writer.question(FIND) == dialogue.writer.question(FIND), "the questions are VTimeLLM's"
    ids = paper.prompt(FIND, video(12)).prefix_ids
    assert tokenizer.decode(ids[:-12]).replace(" ", "").endswith(":Thisisavideowith12frames:")
    turns = (Turn("<video>\nWhat is it?", "A robot."), Turn("And what else?", "Nothing."))
    talk = Query("t", "v", "dialogue", turns=turns)
    example = paper.example(talk, video(12), Random(0))
    assert tokenizer.decode(example.input_ids).count("This is a video with") == 1
    bare = dialogue.example(talk, video(12), Random(0))
    assert (example.labels != IGNORE).sum() == (bare.labels != IGNORE).sum()
    own = Query("o", "v", "dialogue", turns=(Turn("Look at <video> first. What is it?", "A robot."),))
    assert "This is a" not in tokenizer.decode(paper.example(own, video(12), Random(0)).input_ids)


def test_unknown_styles_and_formats_list_the_known_ones():
    with pytest.raises(ValueError, match="it has .*vtimellm"):
        questions("grounding", "vtimelm")
    with pytest.raises(ValueError, match="no templates for task"):
        questions("grounded", "vtimellm")
    with pytest.raises(ValueError, match="known: vicuna_v1, vicuna_videoexpert, phi3, qwen2, plain"):
        chat_format("vicuna")


def test_events_become_one_dense_question_or_one_question_an_event(dialogue):
    query = Query("q", "v", "events", events=EVENTS)
    kinds = Counter()
    for seed in range(600):
        turns = dialogue.writer.turns(query, Random(seed))
        if turns[0].task == "dense_captioning":
            assert len(turns) == 1
            assert turns[0].events == EVENTS
        else:
            assert {t.events[0].span if t.task == "grounding" else tuple(t.times.values()) for t in turns} == {
                event.span for event in EVENTS
            }
        kinds.update(["dense" if turns[0].task == "dense_captioning" else "multi"])
    assert 0.15 < kinds["dense"] / 600 < 0.25


def test_only_answers_and_their_end_are_supervised(dialogue):
    turns = (Turn("what is this?", "a robot."), Turn("and then?", "it sings."))
    example = dialogue.example(Query("q", "v", "dialogue", turns=turns), video(5), Random(0))
    supervised = example.input_ids[example.labels != IGNORE]
    assert dialogue.tokenizer.decode(supervised) == "a robot. </s> it sings. </s>"
    assert torch.equal(example.labels[example.labels != IGNORE], supervised)
    assert example.frame_mask.sum() == 5
    assert (example.labels[example.frame_mask] == IGNORE).all()


def test_plain_format_drops_the_question_and_supervises_the_caption(dialogue, llm):
    encoder = ChatEncoder(load_tokenizer(llm), chat_format("plain"))
    segments = list(encoder.segments([("What is this?", "A robot.")]))
    assert "".join(text for text, _ in segments) == "<video>\nA robot.\n"


def test_the_video_stands_where_the_question_puts_it(dialogue):
    turns = (Turn("look at <video> and say", "a robot."),)
    example = dialogue.example(Query("q", "v", "dialogue", turns=turns), video(3), Random(0))
    at = example.frame_mask.nonzero().flatten().tolist()
    assert dialogue.tokenizer.decode(example.input_ids[at[0] - 2 : at[0]]) == "look at"
    assert at == list(range(at[0], at[0] + 3))


def test_long_dialogues_are_cut_and_counted(dialogue, llm):
    short = Dialogue(load_tokenizer(llm), chat_format("vicuna_v1"), TextTimestamps(), max_text_tokens=45)
    query = Query("q", "v", "dialogue", turns=(Turn("what?", "a robot sings and jumps and digs and waits."),))
    whole, cut = dialogue.example(query, video(4), Random(0)), short.example(query, video(4), Random(0))
    assert len(cut.input_ids) == 45 - 1 + 4 < len(whole.input_ids)
    assert torch.equal(cut.labels, whole.labels[: len(cut.labels)])
    assert collate([cut, whole], 0).counts == Counter(truncated=1)


def test_grounding_is_asked_as_published(dialogue):
    query = Query("q", "v", "grounding", text="  A Robot jumps.. ", events=EVENTS[:1])
    assert dialogue.writer.question(query).question == "During which frames can we see a robot jumps.?"


@pytest.mark.parametrize("style", ["vtimellm", "videoexpert", "meco", "quickstart", "sentence"])
def test_a_sentence_is_written_in_training_as_it_is_asked(style):
    """Lower-cased, or in MeCo's style with its capitals."""
    writer, query = TurnWriter(style), Query("q", "v", "grounding", text="A Robot jumps.", events=EVENTS[:1])
    written = "A Robot jumps" if style == "meco" else "a robot jumps"
    assert written in writer.question(query).question
    asked = {turn.question for seed in range(50) for turn in writer.turns(query, Random(seed))}
    assert all(written in question for question in asked)
    events = replace(query, task="events", text="", events=(replace(EVENTS[0], caption="A Robot jumps."),) * 2)
    turns = [turn for seed in range(50) for turn in writer.turns(events, Random(seed)) if turn.task == "grounding"]
    assert turns and all(written in turn.question and turn.topic == "A Robot jumps" for turn in turns)


def test_the_paper_s_wording_of_videoexpert():
    query = Query("q", "v", "grounding", text="A man opens the door.", events=EVENTS[:1])
    asked = "During which frames a man opens the door happen?"
    assert TurnWriter("videoexpert").question(query).question == asked
    assert asked in {TurnWriter("videoexpert").turns(query, Random(seed))[0].question for seed in range(50)}


def test_times_of_a_video_without_a_known_length_are_refused(dialogue):
    """It was packed with a nominal one, which serves dialogues without times."""
    unknown = replace(video(4), nominal=True)
    talk = Query("t", "v", "dialogue", turns=(Turn("what?", "a robot."),))
    assert len(dialogue.example(talk, unknown, Random(0)).features) == 4
    timed = replace(talk, turns=(Turn("when?", "from <s0> to <e0>.", times={"<s0>": 1, "<e0>": 2}),))
    for query in (timed, Query("g", "v", "grounding", text="x", events=EVENTS[:1], duration_s=40.0)):
        for make in (lambda q: dialogue.example(q, unknown, Random(0)), lambda q: dialogue.prompt(q, unknown)):
            with pytest.raises(ValueError, match=f"query {query.id}: it is about times of video v, which was packed"):
                make(query)


def test_training_material_cannot_be_asked(dialogue):
    with pytest.raises(ValueError, match="query q: an 'events' record"):
        dialogue.writer.question(Query("q", "v", "events", events=EVENTS))


def test_an_event_outside_its_video_is_refused_with_the_query(dialogue):
    query = Query("q7", "v", "events", events=(Event(30.0, 60.0, "x"),))
    with pytest.raises(ValueError, match=r"query q7: event 30.0..60.0 s is outside the video of 40.0 s"):
        dialogue.example(query, video(4), Random(0))


def test_batches_of_different_lengths_pad_without_touching_the_rest(dialogue):
    queries = [Query(str(i), "v", "dialogue", turns=(Turn("what?", "a robot." * (i + 1)),)) for i in range(3)]
    examples = [dialogue.example(query, video(2 + 3 * i), Random(0)) for i, query in enumerate(queries)]
    batch = collate(examples, dialogue.pad_id)
    for row, example in enumerate(examples):
        length = len(example.input_ids)
        assert torch.equal(batch.input_ids[row, :length], example.input_ids)
        assert batch.attention_mask[row].sum() == length
        assert (batch.labels[row, length:] == IGNORE).all()
        assert batch.frame_mask[row].sum() == batch.feature_mask[row].sum() == 2 + 3 * row


def test_queries_about_one_video_share_its_prefix(dialogue):
    queries = [Query(str(i), f"v{i // 3}", "grounding", "a robot " + "jumps " * i) for i in range(6)]
    prompts = [dialogue.prompt(query, video(4 + int(query.id) // 3, query.video)) for query in queries]
    batch = collate_prompts(prompts, dialogue.pad_id)
    assert batch.video_of_query.tolist() == [0, 0, 0, 1, 1, 1]
    assert batch.prefix_ids.shape[0] == 2
    for row, prompt in enumerate(prompts):
        assert torch.equal(batch.suffix_ids[row, -len(prompt.suffix_ids) :], prompt.suffix_ids)
        assert torch.equal(batch.prefix_ids[row // 3][-len(prompt.prefix_ids) :], prompt.prefix_ids)


def test_a_query_without_events_is_asked_and_learned_only_where_there_is_an_answer_to_it(dialogue, llm):
    unknown, absent = Query("q", "v", "grounding", "a dog"), Query("q", "v", "grounding", "a dog", absent=True)

    class Silent(TextTimestamps):
        no_moment = ""

    silent = Dialogue(load_tokenizer(llm), chat_format("vicuna_v1"), Silent())
    for query, words in ((unknown, "its events are not known"), (absent, "Silent writes no answer that says")):
        assert dialogue.prompt(query, video(4)).query == query
        with pytest.raises(ValueError, match=f"query q: .*{words}"):
            silent.example(query, video(4), Random(0))

    class Honest(TextTimestamps):
        no_moment = "It does not happen."

    tokenizer = load_tokenizer(llm)
    made = Dialogue(tokenizer, chat_format("vicuna_v1"), Honest())
    example = made.example(absent, video(4), Random(0))
    said = tokenizer("It does not happen.", add_special_tokens=False).input_ids
    assert (example.labels != IGNORE).sum() >= len(said)
    with pytest.raises(ValueError, match="its events are not known"):
        made.example(unknown, video(4), Random(0))
