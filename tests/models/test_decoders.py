"""Any causal language model: tiny random ones of many families with all systems, or refused with the reason."""

from random import Random

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, LogitsProcessorList

from datamodules.batch import collate, collate_prompts
from datamodules.packing import attention_pattern, pack
from datamodules.schema import Event, Query, Turn, Video
from lightning_modules import BoundaryPerception, ExpertTuning
from lightning_modules.boundary_perception import LoraSettings
from lightning_modules.expert_tuning import ExpertSettings
from localizers import FrameMatching, StructuralTokens, TemporalExpert, TextTimestamps
from models.checkpoints import load_llm
from models.decoders import check_patterns
from models.routed_lora import route
from preparation.world.tiny import tiny_tokenizer

SIZE = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 512, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2,
}  # fmt: skip
WINDOW = {"sliding_window": 16}
"""Shorter than every dialogue here."""
MIXED = {**WINDOW, "layer_types": ["sliding_attention", "full_attention"]}
EXPERTS = {"num_local_experts": 2, "num_experts_per_tok": 1}
FAMILIES = {
    "llama": {}, "qwen2": {}, "qwen2 with windows": {"use_sliding_window": True, **MIXED}, "qwen3": {}, "olmo2": {},
    "granite": {}, "phi": {}, "gpt2": {"n_inner": 48}, "gpt_neox": {},
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "phi3": WINDOW, "mistral": WINDOW, "gemma2": MIXED, "gemma3_text": MIXED, "cohere2": MIXED,
    "gpt_oss": {**MIXED, **EXPERTS},
}  # fmt: skip
"""Family -> settings beside its size."""
SYSTEMS = {
    "text": TextTimestamps(), "meco": StructuralTokens(), "expert": TemporalExpert(head_dim=8),
    "matching": FrameMatching(),
}  # fmt: skip
TEXTS = ("a red robot", "it sings and jumps in the park", "robot")
SETTINGS = {"max_new_tokens": 4, "do_sample": False, "pad_token_id": 0, "eos_token_id": -1}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """Gives the folder of a tiny random base: ``base("gemma2", **settings)``."""
    tokenizer = tiny_tokenizer([*TEXTS, "USER ASSISTANT During which frames can we see From to"])
    made = {}

    def folder(family: str, **settings) -> str:
        key = family, repr(settings)
        if key not in made:
            config = AutoConfig.for_model(family.split()[0], vocab_size=len(tokenizer), **SIZE | settings)
            torch.manual_seed(0)
            llm = AutoModelForCausalLM.from_config(config)
            with torch.no_grad():  # first values are so small that attention hardly matters
                for parameter in llm.parameters():
                    parameter.mul_(4 if parameter.dim() > 1 else 1)
            made[key] = str(tmp_path_factory.mktemp(family.replace(" ", "-")))
            llm.save_pretrained(made[key])
            tokenizer.save_pretrained(made[key])
        return made[key]

    return folder


def module(folder: str, system: str, **settings):
    """A system on a base, as training builds it."""
    torch.manual_seed(0)
    more = {"feature_width": 8, "tune_adapter": True, **settings}
    if system == "expert":
        made = ExpertTuning(folder, SYSTEMS[system], experts=ExpertSettings(4, dropout=0.0), **more)
    else:
        made = BoundaryPerception(folder, SYSTEMS[system], lora=LoraSettings(4, 8, 0.0), **more)
    made.configure_model()
    return made


def video(frames: int, name: str = "v") -> Video:
    features = np.random.default_rng(frames).standard_normal((frames, 8)).astype(np.float16)
    return Video(name, float(frames), np.arange(frames, dtype=float), features)


def query(number: int) -> Query:
    return Query(str(number), "v", "grounding", TEXTS[number], (Event(2.0, 9.0, TEXTS[number]),))


def examples(made) -> list:
    return [made.dialogue.example(query(number), video(20), Random(number)) for number in range(len(TEXTS))]


def terms(made, batch) -> torch.Tensor:
    """All loss terms of a batch."""
    output = made.model(batch)
    ids = {token: number for number, token in made.dialogue.special.items()}
    return torch.stack([output.lm_loss, *made.localizer.loss(made.model.head, output.states, batch, ids).values()])


def one_pass(made, prompt, answer) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Logits (L, V) before, and states (L, D) at the tokens of an answer, read at once as in training."""
    ids = torch.cat([prompt.prefix_ids, prompt.suffix_ids, answer.ids])[None]
    frame_mask = torch.cat([prompt.frame_mask, torch.zeros(len(ids[0]) - len(prompt.frame_mask), dtype=torch.bool)])[
        None
    ]
    inputs, frames = made.model.embed(ids, frame_mask, prompt.features[None], torch.ones(1, len(prompt.features)) > 0)
    if made.model.feedback:
        nothing = torch.full((len(prompt.prefix_ids), 2), torch.nan)
        moments = torch.cat([nothing, prompt.moments, answer.moments])[None]
        inputs = made.model.feedback(made.model.head, inputs, moments, frames)
    with made.model.watch() as seen, route(made.model.llm, frame_mask):
        logits = made.model.causal_lm(
            inputs_embeds=inputs,
            attention_mask=made.model.mask(torch.ones_like(ids), inputs.dtype, frame_mask, None),
            position_ids=torch.arange(ids.shape[1])[None],
            use_cache=False,
        ).logits[0]
    said = len(answer.ids)
    return logits[-said - 1 : -1], {point: calls[0][0, -said:] for point, calls in seen.items()}


def writing(ids: list[int]) -> dict:
    """Settings with which every answer is the given ids."""

    def write(read, scores):
        return torch.full_like(scores, -1e9).index_fill(1, torch.tensor(ids[read.shape[1]]), 0.0)

    return SETTINGS | {"max_new_tokens": len(ids), "logits_processor": LogitsProcessorList([write])}


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_trains_packs_and_answers(family, system, base):
    made = module(base(family, **FAMILIES[family]), system)
    alone = examples(made)
    batch, packed = collate(alone, 0), collate([pack(alone)], 0)
    learned = {name: p for name, p in made.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(learned.values(), lr=3e-3)
    losses = []
    for _ in range(3):
        losses.append(terms(made, batch).sum())
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < losses[0]
    assert all(parameter.grad is not None for parameter in learned.values())
    made.eval()
    with torch.no_grad():
        torch.testing.assert_close(terms(made, packed), terms(made, batch), rtol=1e-4, atol=1e-5)
        asked = [made.dialogue.prompt(query(number), video(20)) for number in (0, 1)]
        asked.append(made.dialogue.prompt(query(2), video(33, "w")))
        together = made.model.generate(collate_prompts(asked, 0), **SETTINGS)
        for prompt, answer in zip(asked, together, strict=True):
            (apart,) = made.model.generate(collate_prompts([prompt], 0), **SETTINGS)
            assert answer.ids.tolist() == apart.ids.tolist() == one_pass(made, prompt, answer)[0].argmax(-1).tolist()
            for point in made.localizer.states:
                torch.testing.assert_close(answer.frames[point], apart.frames[point], rtol=1e-3, atol=1e-4)
                torch.testing.assert_close(answer.reading[point], apart.reading[point], rtol=1e-3, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("family", ["mistral", "gemma2", "gpt_oss", "qwen2 with windows", "llama"])
def test_times_are_read_back_behind_sliding_windows(family, base):
    """Questions of several lengths about two videos: each written time is that of its own video and its own answer."""
    made = module(base(family, **FAMILIES[family]), "matching").eval()
    (vid,) = made.dialogue.special
    times = {"<s0>": 3.0, "<e0>": 9.0}
    asked = [Query("0", "v", "dialogue", turns=(Turn("which frames from <s0> to <e0>?", "a", times=times),)), query(0)]
    prompts = [made.dialogue.prompt(one, video(20)) for one in (*asked, query(1))]
    prompts.append(made.dialogue.prompt(query(2), video(33, "w")))
    said = [vid, 9, vid, vid, 9, vid]
    together = made.model.generate(collate_prompts(prompts, 0), **writing(said))
    alone = [made.model.generate(collate_prompts([prompt], 0), **writing(said))[0] for prompt in prompts]
    for prompt, answer, apart in zip(prompts, together, alone, strict=True):
        torch.testing.assert_close(answer.moments, apart.moments, equal_nan=True)
        assert answer.moments[:, 0].isnan().tolist() == [number != vid for number in said]
        _, at_once = one_pass(made, prompt, answer)
        for point in made.localizer.states:
            torch.testing.assert_close(answer.reading[point], at_once[point], rtol=1e-3, atol=1e-4)
    assert len({tuple(answer.moments[:, 0].nan_to_num(-1).tolist()) for answer in together}) > 1


def ending(made, prompts) -> dict:
    """Settings with which the answers end after different numbers of tokens, by a token that each of them says."""
    vid = next(iter(made.dialogue.special), None)

    def sometimes(read, scores):
        return scores if vid is None or read.shape[1] % 3 else scores.index_fill(1, torch.tensor([vid]), 1e9)

    settings = SETTINGS | {"max_new_tokens": 9, "logits_processor": LogitsProcessorList([sometimes])}
    said = [answer.ids.tolist() for answer in made.model.generate(collate_prompts(prompts, 0), **settings)]
    ends = {said[0][1], said[1][4]} - {vid}
    return settings | {"eos_token_id": sorted(ends)}


@torch.no_grad()
@pytest.mark.parametrize(
    ("family", "system"),
    [("llama", "text"), ("llama", "expert"), ("llama", "matching"), ("gpt2", "text"), ("granite", "meco"),
     ("mistral", "text"), ("mistral", "matching"), ("gemma2", "expert"), ("gpt_oss", "text"), ("qwen3", "matching"),
     ("gpt_neo", "text")],
)  # fmt: skip
def test_answers_that_end_leave_the_batch_and_change_no_other(family, system, base):
    more = {"attention_types": [[["global", "local"], 1]], "num_layers": 2} if family == "gpt_neo" else {}
    made = module(base(family, **(FAMILIES.get(family) or more)), system).eval()
    prompts = [made.dialogue.prompt(query(number), video(20)) for number in (0, 1, 2)]
    prompts += [made.dialogue.prompt(query(number), video(33, "w")) for number in (2, 0)]
    settings, rows = ending(made, prompts), []
    hook = made.model.causal_lm.get_output_embeddings().register_forward_hook(
        lambda _, inputs, __: rows.append(len(inputs[0]))
    )
    together = made.model.generate(collate_prompts(prompts, 0), **settings)
    hook.remove()
    lengths = [len(answer.ids) for answer in together]
    assert len(set(lengths)) > 1
    assert sum(rows) <= sum(lengths) + len(prompts)  # each is read to its end and leaves then
    for prompt, answer in zip(prompts, together, strict=True):
        (alone,) = made.model.generate(collate_prompts([prompt], 0), **settings)
        assert answer.ids.tolist() == alone.ids.tolist()
        torch.testing.assert_close(answer.predicting, alone.predicting, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(answer.reading, alone.reading, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(answer.moments, alone.moments, equal_nan=True)
        assert all(len(states) == len(answer.ids) for states in answer.reading.values())


@torch.no_grad()
@pytest.mark.parametrize("system", ["text", "matching"])
def test_a_process_whose_answers_have_ended_goes_on_with_the_others(system, base, monkeypatch):
    """Where parameters are split, every process runs a layer as often as all others; its answers are the same."""
    made = module(base("llama"), system).eval()
    prompts = [made.dialogue.prompt(query(number), video(20)) for number in (0, 1)]
    settings = ending(made, prompts)
    alone = made.model.generate(collate_prompts(prompts, 0), **settings)
    asked, passes = [], []

    def reduce(going):
        asked.append(going.item())
        going += len(asked) <= 12  # another process writes twelve tokens

    monkeypatch.setattr("models.writer.dist.all_reduce", reduce)
    monkeypatch.setattr(made.model, "sharded", True)
    hook = made.model.causal_lm.register_forward_hook(lambda *_: passes.append(1))
    others = made.model.generate(collate_prompts(prompts, 0), **settings)
    hook.remove()
    assert asked[0] == 1 and asked[-1] == 0
    assert len(passes) == 12 + bool(made.localizer.states)
    for one, other in zip(alone, others, strict=True):
        assert one.ids.tolist() == other.ids.tolist()
        torch.testing.assert_close(one.predicting, other.predicting)
        torch.testing.assert_close(one.reading, other.reading)
        torch.testing.assert_close(one.moments, other.moments, equal_nan=True)


@torch.no_grad()
@pytest.mark.parametrize(("family", "system"), [("llama", "expert"), ("mistral", "text"), ("gemma2", "expert")])
def test_a_video_that_is_read_in_parts_is_answered_as_one_that_is_read_at_once(family, system, base, monkeypatch):
    made = module(base(family, **FAMILIES[family]), system).eval()
    prompts = [made.dialogue.prompt(query(0), video(20)), made.dialogue.prompt(query(1), video(33, "w"))]
    at_once = made.model.generate(collate_prompts(prompts, 0), **SETTINGS)
    monkeypatch.setattr("models.video_llm.CHUNK", 7)
    passes = []
    hook = made.model.causal_lm.get_decoder().register_forward_hook(lambda *_: passes.append(1))
    in_parts = made.model.generate(collate_prompts(prompts, 0), **SETTINGS)
    hook.remove()
    assert len(passes) > 33 / 7
    for one, other in zip(at_once, in_parts, strict=True):
        assert one.ids.tolist() == other.ids.tolist()
        torch.testing.assert_close(one.frames, other.frames, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(one.first, other.first, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(one.reading, other.reading, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("family", ["llama", "gpt2", "granite", "gemma2", "cohere2", "gpt_oss", "opt"])
def test_losses_word_by_word_are_those_of_all_logits_at_once(family, base, monkeypatch):
    """Also where a family scales or caps its logits, and where rows of the last matrix learn."""
    made = module(base(family, **FAMILIES[family]), "meco").eval()
    batch, found, sizes = collate(examples(made), 0), [], []
    labels = batch.labels[:, 1:][batch.labels[:, 1:] >= 0]
    made.model.causal_lm.get_output_embeddings().register_forward_hook(
        lambda *args: sizes.append(args[2].shape[:-1].numel())
    )
    for at_once in (2**25, 3 * made.model.causal_lm.config.vocab_size):
        monkeypatch.setattr("models.words.LOGITS", at_once)
        sizes.clear()
        output = made.model(batch)
        made.zero_grad()
        output.lm_loss.backward()
        gradients = {name: p.grad.clone() for name, p in made.named_parameters() if p.grad is not None}
        found.append((output.lm_loss.detach(), output.row_loss, gradients))
        assert max(sizes) <= max(3, at_once == 2**25 and len(labels))
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-6)
    inputs, _ = made.model.embed(batch.input_ids, batch.frame_mask, batch.features, batch.feature_mask)
    mask = made.model.mask(batch.attention_mask, inputs.dtype, batch.frame_mask, batch.blocks)
    places = torch.arange(inputs.shape[1])[None].expand(len(inputs), -1)
    whole = made.model.causal_lm(inputs_embeds=inputs, attention_mask=mask, position_ids=places).logits[:, :-1]
    torch.testing.assert_close(output.logits, whole[batch.labels[:, 1:] >= 0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(output.lm_loss, torch.nn.functional.cross_entropy(output.logits.float(), labels))


@pytest.mark.parametrize("family", ["gpt2", "gemma2"])
def test_checkpointing_activations_changes_no_gradient(family, base):
    found = []
    for saved in (False, True):
        made = module(base(family, **FAMILIES[family]), "meco", gradient_checkpointing=saved)
        for part in made.modules():  # GPT-2 has dropout of its own
            if isinstance(part, torch.nn.Dropout):
                part.p = 0.0
        terms(made, collate(examples(made), 0)).sum().backward()
        found.append([parameter.grad for parameter in made.parameters() if parameter.requires_grad])
    torch.testing.assert_close(*found)


@pytest.mark.parametrize(
    ("family", "system", "settings", "reason"),
    [
        ("bloom", "text", {}, "BloomForCausalLM takes no position_ids"),
        ("mpt", "meco", {"d_model": 32, "n_heads": 4, "n_layers": 2}, "MptForCausalLM takes no position_ids"),
        ("lfm2", "text", {"layer_types": ["conv", "full_attention"]}, "layers of conv, which keep a running state"),
        ("mamba", "text", {"state_size": 4}, "no LoRA with these settings can be put on MambaForCausalLM"),
        ("opt", "text", {"word_embed_proj_dim": 16}, "words of 16 numbers and states of 32"),
        ("gpt_neo", "meco", {"attention_types": [[["global", "local"], 1]], "num_layers": 2},
         "layers of local_attention, whose attention cannot follow a pattern, and frames that attend to later ones"),
        ("mixtral", "expert", EXPERTS, "sees the tokens that a mixture of experts sends to it"),
        ("gemma3n_text", "text", {"num_kv_shared_layers": 0, "hidden_size_per_layer_input": 8, "laurel_rank": 4,
         "vocab_size_per_layer_input": 256, **MIXED}, "adds something of each word's id to every layer"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_at_load_with_the_reason(family, system, settings, reason, base):
    with pytest.raises(ValueError, match=reason):
        module(base(family, **settings), system)


def test_sharing_a_video_is_refused_where_attention_cannot_be_told(base):
    llm = load_llm(base("gpt_neo", attention_types=[[["global", "local"], 1]], num_layers=2), torch.float32)
    with pytest.raises(ValueError, match="and dialogues that share a video need one"):
        check_patterns(llm, "dialogues that share a video")
    made = module(base("gpt_neo", attention_types=[[["global", "local"], 1]], num_layers=2), "text")
    with pytest.raises(ValueError, match="dialogues that share a video"):
        made.model.check(sharing=True)


def test_a_window_counts_positions_and_frames_reach_beyond_it():
    """Three frames, then two dialogues of two tokens; a token sees itself and one before it."""
    blocks = torch.tensor([[0, 0, 0, 1, 1, 2, 2]])
    frames = blocks == 0
    mask = attention_pattern(torch.ones_like(blocks), torch.float32, blocks, None, window=2)[0, 0] == 0
    assert mask.int().tolist() == [
        [1, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0],
        [0, 1, 1, 0, 0, 0, 0],
        [0, 0, 1, 1, 0, 0, 0],
        [0, 0, 0, 1, 1, 0, 0],
        [0, 0, 1, 0, 0, 1, 0],
        [0, 0, 0, 0, 0, 1, 1],
    ]
    both = attention_pattern(torch.ones_like(blocks), torch.float32, blocks, frames, window=2)[0, 0] == 0
    assert both[:3, :3].all()
    assert torch.equal(both[3:], mask[3:])
