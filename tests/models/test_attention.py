"""One rule says which token sees which: the masks that every kernel is given are those of the rule."""

from functools import partial
from random import Random

import pytest
import torch
from torch.nn.attention.flex_attention import create_mask, flex_attention
from transformers import AutoConfig, AutoModelForCausalLM

from datamodules.batch import Batch
from datamodules.chat import IGNORE
from datamodules.packing import Pattern, attention_pattern, block_positions
from models import attention
from models.adapters import LinearAdapter
from models.attention import Ends, block_mask, lay_out
from models.checkpoints import checkpoint_activations
from models.video_llm import VideoLLM

SIZE = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
MIXED = {"sliding_window": 5, "use_sliding_window": True, "layer_types": ["sliding_attention", "full_attention"]}
FAMILIES = {
    "llama": {"num_key_value_heads": 2}, "qwen2": {"num_key_value_heads": 2, **MIXED},
    "mistral": {"num_key_value_heads": 2, "sliding_window": 6},
    "gpt2": {"n_inner": 48, "attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0}, "gpt_neox": {}, "phi": {},
}  # fmt: skip
BIG_HEADS = {"hidden_size": 64}
"""Wide enough for the kernels of FlexAttention."""


def packing(random: Random, rows: int = 3) -> dict[str, torch.Tensor]:
    """Made-up rows: a beginning with frames here and there, up to four dialogues, padding."""
    found = []
    for _ in range(rows):
        shared, dialogues = random.randint(1, 9), [random.randint(1, 6) for _ in range(random.randint(1, 4))]
        blocks = [0] * shared + [number for number, length in enumerate(dialogues, 1) for _ in range(length)]
        frames = [random.random() < 0.6 for _ in range(shared)] + [False] * sum(dialogues)
        found.append((torch.tensor(blocks), torch.tensor(frames)))
    pad = partial(torch.nn.utils.rnn.pad_sequence, batch_first=True)
    blocks, frames = pad([row for row, _ in found], padding_value=-1), pad([row for _, row in found])
    return {"attention_mask": (blocks >= 0).long(), "blocks": blocks, "frame_mask": frames}


def words(rows: dict, window: int | None, packed: bool, frames: bool) -> list:
    """What the pattern is, in words: of every row and token whether it sees each other one."""
    real, blocks, is_frame = (rows[name].tolist() for name in ("attention_mask", "blocks", "frame_mask"))
    length = len(real[0])
    places = block_positions(rows["blocks"]).tolist() if packed else [range(length)] * len(real)

    def seen(row: int, token: int, other: int) -> bool:
        if token == other or not real[row][other]:
            return token == other
        if packed and blocks[row][other] not in (0, blocks[row][token]):
            return False
        if frames and is_frame[row][token] and is_frame[row][other]:
            return True
        return other <= token and (window is None or places[row][token] - places[row][other] < window)

    return [[[seen(row, q, k) for k in range(length)] for q in range(length)] for row in range(len(real))]


@pytest.mark.parametrize("seed", range(8))
def test_the_rule_says_of_every_two_tokens_what_the_words_say(seed):
    random = Random(seed)
    rows, window = packing(random), random.choice((None, 1, 3, 50))
    count, length = rows["blocks"].shape
    for packed, frames in ((True, True), (True, False), (False, True), (False, False)):
        about = (rows["blocks"] if packed else None, rows["frame_mask"] if frames else None)
        mask = attention_pattern(rows["attention_mask"], torch.float32, *about, window)
        rule = Pattern.of(rows["attention_mask"], *about).rule(window)
        assert mask.shape == (count, 1, length, length)
        assert set(mask.unique().tolist()) <= {0.0, torch.finfo(torch.float32).min}
        assert torch.equal(
            create_mask(rule, count, 1, length, length, device="cpu"), mask == 0
        )  # as FlexAttention asks
        assert (mask[:, 0] == 0).tolist() == words(rows, window, packed, frames)


@pytest.mark.parametrize("seed", range(6))
def test_in_one_row_every_sequence_sees_what_it_sees_alone(seed, monkeypatch):
    random = Random(seed)
    rows, window, llm = packing(random, rows=4), random.choice((None, 4)), tiny("llama")
    pattern = Pattern.of(rows["attention_mask"], rows["blocks"], rows["frame_mask"])
    monkeypatch.setattr(attention, "layer_windows", lambda _: {"full_attention": window})
    layout = attention._joined(llm, pattern)
    size, lengths = layout.positions, rows["attention_mask"].sum(-1).tolist()
    assert size % attention.TILE == 0 and sum(lengths) <= size
    (mask,) = create_mask(layout.mask.mask_mod, 1, 1, size, size, device="cpu")[0]
    alone = (
        attention_pattern(rows["attention_mask"], torch.float32, rows["blocks"], rows["frame_mask"], window)[:, 0] == 0
    )
    expected = torch.block_diag(*(one[:length, :length] for one, length in zip(alone, lengths, strict=True)))
    assert torch.equal(mask[: sum(lengths), : sum(lengths)].float(), expected)
    assert not mask[: sum(lengths), sum(lengths) :].any() and not mask[sum(lengths) :, : sum(lengths)].any()


@pytest.mark.parametrize("window", [None, 7])
def test_flex_attention_gives_what_a_dense_mask_gives(window):
    rows = packing(Random(3))
    pattern = Pattern.of(rows["attention_mask"], rows["blocks"], rows["frame_mask"])
    states = torch.randn(3, len(rows["blocks"]), 2, rows["blocks"].shape[1], 16, generator=torch.manual_seed(0))
    found = flex_attention(*states, block_mask=block_mask(pattern, window))
    dense = torch.nn.functional.scaled_dot_product_attention(*states, attn_mask=pattern.dense(torch.float32, window))
    torch.testing.assert_close(found, dense, rtol=1e-4, atol=1e-5)


def tiny(family: str, **settings):
    """A tiny random base without dropout."""
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **SIZE | FAMILIES[family] | settings)).train()


def batch(packed: bool, seed: int = 0) -> Batch:
    """Made-up rows to learn from, of very different lengths."""
    rows, generator = packing(Random(seed)), torch.manual_seed(seed)
    real, frames = rows["attention_mask"].bool(), rows["frame_mask"]
    frames[:, 0] = True
    ids = torch.randint(1, 64, real.shape, generator=generator)
    counts = frames.sum(-1)
    return Batch(
        input_ids=ids,
        labels=ids.masked_fill(~real | frames, IGNORE),
        attention_mask=rows["attention_mask"],
        frame_mask=frames,
        features=torch.randn(len(ids), int(counts.max()), 8, generator=generator),
        feature_mask=torch.arange(int(counts.max())) < counts[:, None],
        queries=(),
        targets=(),
        blocks=rows["blocks"] if packed else None,
    )


def learned(model: VideoLLM, rows: Batch) -> dict:
    """Loss, states at real tokens, and every gradient."""
    model.zero_grad()
    output = model(rows)
    output.lm_loss.backward()
    gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    states = {point: values[rows.attention_mask.bool()] for point, values in output.states.items()}
    return {"loss": output.lm_loss, "rows": output.row_loss, "states": states, "gradients": gradients}


@pytest.mark.parametrize("how", ["plain", "packed", "frames", "saved"])
@pytest.mark.parametrize("family", FAMILIES)
def test_sequences_end_to_end_learn_what_padded_rows_learn(family, how, monkeypatch):
    llm = tiny(family)
    if how == "saved":
        checkpoint_activations(llm)
    model = VideoLLM(llm, LinearAdapter(8, 32), None, ("before_last_layer", "before_norm"), how == "frames").train()
    rows = batch(packed=how != "plain")
    one = learned(model, rows)
    assert model(rows).positions == rows.attention_mask.sum() < rows.attention_mask.numel()
    monkeypatch.setattr(attention, "end_to_end", lambda llm: False)
    assert model(rows).positions == rows.attention_mask.numel()
    torch.testing.assert_close(learned(model, rows), one, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_little_padding_behind_causal_rows_needs_no_mask(family, monkeypatch):
    model, rows = VideoLLM(tiny(family), LinearAdapter(8, 32)).train(), batch(packed=False)
    monkeypatch.setattr(attention, "LITTLE", 0.9)
    pattern = Pattern.of(rows.attention_mask, None, None)
    assert lay_out(model.causal_lm, pattern, torch.float32).mask is None
    one = learned(model, rows)
    monkeypatch.setattr(attention, "end_to_end", lambda llm: False)
    assert torch.equal(lay_out(model.causal_lm, pattern, torch.float32).mask, rows.attention_mask)
    torch.testing.assert_close(learned(model, rows), one, rtol=1e-3, atol=1e-5)


def test_the_share_of_padding_is_told(monkeypatch):
    model, rows = VideoLLM(tiny("llama"), LinearAdapter(8, 32)), batch(packed=True)
    assert [int(number) for number in model(rows).padding_of(rows.attention_mask)["padding"]][0] == 0
    monkeypatch.setattr(attention, "end_to_end", lambda llm: False)
    padding, all_of_them = model(rows).padding_of(rows.attention_mask)["padding"]
    assert (int(padding), all_of_them) == (int((rows.attention_mask == 0).sum()), rows.attention_mask.numel())


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_where_attention_is_causal_no_mask_is_made(family, monkeypatch):
    """So that SDPA takes its flash kernels; layers with a window need one in sequences that are longer."""
    made, given = [], []
    monkeypatch.setattr(Pattern, "dense", lambda self, dtype, window=None: made.append(window))
    sdpa = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        torch.nn.functional, "scaled_dot_product_attention",
        lambda *args, **more: given.append((more["attn_mask"], more["is_causal"])) or sdpa(*args, **more),
    )  # fmt: skip
    rows = batch(packed=False)
    VideoLLM(tiny(family, sliding_window=64), LinearAdapter(8, 32))(rows)
    assert not made and set(given) == {(None, True)}
    model = VideoLLM(tiny(family), LinearAdapter(8, 32))
    mask = lay_out(model.causal_lm, Pattern.of(rows.attention_mask, None, None), torch.float32).mask
    kinds = mask if isinstance(mask, dict) else {"full_attention": mask}
    assert all(isinstance(ends, Ends) for ends in kinds.values())
    assert all(mask is None for *_, mask in kinds["full_attention"].groups)
    assert len(made) == (family == "qwen2") * len({int(size) for size in rows.attention_mask.sum(-1) if size > 5})


@torch.no_grad()
@pytest.mark.parametrize("family", ["qwen2", "mistral"])
def test_a_model_reads_block_masks(family, monkeypatch):
    """The whole way to FlexAttention but its CUDA kernel: without compiling it, and without gradients, CPUs have it."""
    model = VideoLLM(tiny(family, **BIG_HEADS), LinearAdapter(8, 64), None, ("before_norm",), True)
    rows, calls = batch(packed=True), []
    dense = model(rows)
    monkeypatch.setattr(attention, "flexible", lambda llm, pattern: True)

    def kernel(*states, training, **settings):
        calls.append(settings["block_mask"].shape)
        return flex_attention(*states, **settings)

    monkeypatch.setattr("transformers.integrations.flex_attention.compile_friendly_flex_attention", kernel)
    output = model(rows)
    assert calls == [(1, 1, output.positions, output.positions)] * 2 and output.positions % attention.TILE == 0
    torch.testing.assert_close(output.row_loss, dense.row_loss, rtol=1e-4, atol=1e-4)
    real = rows.attention_mask.bool()
    states = [each.states["before_norm"][real] for each in (output, dense)]
    torch.testing.assert_close(*states, rtol=1e-3, atol=1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="FlexAttention has gradients on CUDA only")
@pytest.mark.parametrize("family", ["llama", "qwen2", "mistral"])
def test_the_kernel_learns_what_dense_masks_learn(family, monkeypatch):
    model = VideoLLM(tiny(family, **BIG_HEADS), LinearAdapter(8, 64), None, ("before_norm",), True).cuda()
    for seed in range(3):  # lengths differ
        rows = batch(packed=True, seed=seed).to("cuda")
        flex = learned(model, rows)
        assert isinstance(layer_mask(model, rows), attention.BlockMask)
        with monkeypatch.context() as patch:
            patch.setattr(attention, "end_to_end", lambda llm: False)
            torch.testing.assert_close(flex, learned(model, rows), rtol=1e-2, atol=1e-3)


def layer_mask(model: VideoLLM, rows: Batch):
    """What a layer is told about a batch."""
    pattern = Pattern.of(rows.attention_mask, rows.blocks, rows.frame_mask)
    mask = lay_out(model.causal_lm, pattern, torch.float32).mask
    return next(iter(mask.values())) if isinstance(mask, dict) else mask
