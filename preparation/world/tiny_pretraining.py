"""Makes the tiny language model of the quickstart; it plays the part of the pretrained Vicuna.

What makes a four-layer model learn to find things within minutes, where plain training sees no progress for thousands
of steps: single words before sentences; positions that know their own number in the middle of the model; and one
attention head, above the middle, that is told to look at the first position of the place to name.

Shape suffixes: B sequences, T positions, L tokens, D width, A places named.
"""

from collections.abc import Iterable
from pathlib import Path

import torch
from rich.progress import track
from torch import Tensor
from torch.nn import functional
from transformers import LlamaForCausalLM

from command_line.tables import say
from datamodules.chat import IGNORE
from preparation.world.position_tasks import POSITION, SYSTEMS, TASK_WORDS, Lesson, PositionTasks, TaskBatch
from preparation.world.synthetic_language import TEXTS
from preparation.world.tiny import save_tiny_lm, tiny_lm, tiny_tokenizer

FIRST_NUMBER = 3
"""Token id of ``00``; the token of number n has id 3 + n."""
LESSONS = (
    (0.08, Lesson("words", dialogues=False, worlds=1)),
    (0.30, Lesson("mixed", dialogues=False, worlds=1)),
    (1.00, Lesson("mixed", dialogues=True, worlds=5)),
)
"""Each lesson and the share of all steps at which it ends."""


def embed(model: LlamaForCausalLM, batch: TaskBatch, noise: torch.Generator) -> Tensor:
    """Input vectors (B, L, D): words, and at the positions noisy sums of words."""
    table = model.get_input_embeddings().weight
    scale = table.detach().std()
    known = (batch.words > 0).float()[..., None]
    sequence = (functional.embedding(batch.words, table) * known).sum(2) / known.sum(2).clamp(min=1).sqrt()
    size, frames, width = sequence.shape

    def draw(*shape: int) -> Tensor:
        return scale * torch.randn(*shape, generator=noise)

    level = 0.6 * torch.rand(size, 1, 1, generator=noise)
    background = (known.sum(2) == 0) * draw(size, 1, width)
    sequence = sequence + background + level * (draw(size, frames, width) + 0.5 * draw(size, 1, width))
    inputs = functional.embedding(batch.ids.clamp(min=0), table)
    return inputs.masked_scatter((batch.ids == POSITION)[..., None], sequence)


def losses(model: LlamaForCausalLM, batch: TaskBatch, noise: torch.Generator) -> dict[str, Tensor]:
    """Named terms: ``answers`` (all their tokens), ``numbers`` (the places in them), ``count`` and ``look``; and the
    share of right number tokens, ``right``."""
    output = model.model(
        inputs_embeds=embed(model, batch, noise), use_cache=False, output_hidden_states=True, output_attentions=True
    )
    middle = len(model.model.layers) // 2
    next_labels = functional.pad(batch.labels[:, 1:], (0, 1), value=IGNORE)
    supervised = next_labels != IGNORE
    logits = model.lm_head(output.last_hidden_state[supervised]).float()
    targets = next_labels[supervised]
    each = functional.cross_entropy(logits, targets, reduction="none")
    numbers = (targets >= FIRST_NUMBER) & (targets < FIRST_NUMBER + 100)
    count = max(int(numbers.sum()), 1)
    at_position = batch.ids == POSITION
    counted = torch.arange(batch.words.shape[1]).repeat(len(batch.ids)) + FIRST_NUMBER
    own = model.lm_head(model.model.norm(output.hidden_states[middle][at_position])).float()
    terms = {
        "answers": each.mean(),
        "numbers": each[numbers].sum() / count,
        "count": 0.5 * functional.cross_entropy(own, counted),
        "right": (logits.argmax(-1) == targets)[numbers].float().sum() / count,
    }
    if len(batch.places):
        row, predicting, first = batch.places.unbind(1)
        terms["look"] = -(output.attentions[middle][row, 0, predicting, first].float() + 1e-6).log().mean()
    return terms


def pretrain_tiny_lm(
    folder: Path, seed: int = 0, steps: int = 3000, texts: Iterable[str] = (), size: int = 16, rate: float = 2e-3
) -> None:
    """Make the tiny language model and write its checkpoint folder.

    Args:
        folder: where to.
        seed: of weights, tasks and noise.
        steps: optimiser steps.
        texts: more texts whose words the tokenizer should know: the question templates.
        size: B, sequences a step.
        rate: peak learning rate; falls to zero over the last five sixths.
    """
    tokenizer = tiny_tokenizer([*texts, *TEXTS, *SYSTEMS, TASK_WORDS])
    model = tiny_lm(len(tokenizer), seed=seed)
    model.set_attn_implementation("eager")  # the only one that returns what it looked at
    tasks, noise = PositionTasks(tokenizer, seed), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / 100, 1.0, max(0.03, 1.2 * (1 - step / steps)))
    )
    right = 0.0
    for step in track(range(steps), "pre-training the tiny language model"):
        lesson = next(lesson for end, lesson in LESSONS if step < end * steps)
        with torch.autocast("cpu", torch.bfloat16):
            terms = losses(model, tasks.batch(size, lesson), noise)
        share = terms.pop("right")
        sum(terms.values()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        right += 0.03 * (share.item() - right) if "look" in terms else 0
        if (step + 1) % 250 == 0:
            say(f"step {step + 1}: {100 * right:.0f} % of the numbers right")
    save_tiny_lm(folder, model, tokenizer)
