"""Training, reading and answering beside what the machine can do: python -m benchmarks.stages [--size small].

A random Llama with a LoRA learns and answers several dialogues about each video: packed, as this project does it, and
the usual way, one padded dialogue a row with a logit for every token, by transformers' Trainer with PEFT. The limits
are measured in the same run. On CUDA the size is ``large`` (7B in bfloat16, with checkpointing and without, and more
videos a batch until memory ends).
"""

import tempfile
import time
from contextlib import nullcontext
from dataclasses import dataclass
from random import Random

import numpy as np
import torch
from jsonargparse import auto_cli
from rich.table import Table
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from benchmarks.generation import peak_bytes, reset_peak
from benchmarks.limits import best_s, measured, synchronize
from command_line.tables import console
from datamodules.batch import Batch, collate, collate_prompts
from datamodules.chat import chat_format
from datamodules.dialogue import Dialogue
from datamodules.packing import pack
from datamodules.schema import Query, Turn, Video
from localizers import TextTimestamps
from models.adapters import LinearAdapter
from models.checkpoints import add_lora, checkpoint_activations, load_tokenizer, lora_config
from models.video_llm import VideoLLM
from preparation.world.tiny import tiny_tokenizer

FEATURES = 768
TEXT = "a red robot jumps near the box "
BUDGET_S = 420
"""After this no larger batch is begun."""


@dataclass(frozen=True)
class Shape:
    """A language model and its work."""

    width: int
    layers: int
    heads: int
    inner: int
    vocabulary: int
    frames: int = 100
    queries: int = 8
    repeats: int = 6
    """Of a text of seven words, in an answer that is learned."""
    tokens: int = 32
    """Of an answer that is written."""
    dtype: torch.dtype = torch.float32


SIZES = {
    "tiny": Shape(32, 1, 2, 64, 512, frames=6, queries=2, repeats=1, tokens=2),
    "small": Shape(256, 4, 4, 512, 32000),
    "large": Shape(4096, 32, 32, 11008, 32000, tokens=128, dtype=torch.bfloat16),
}


class Subject:
    """A model of a shape, and what it learns and is asked."""

    def __init__(self, shape: Shape, device: torch.device):
        self.shape, self.device = shape, device
        config = LlamaConfig(
            vocab_size=shape.vocabulary,
            hidden_size=shape.width,
            intermediate_size=shape.inner,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            max_position_embeddings=8192,
            torch_dtype=shape.dtype,
        )
        with torch.device(device):
            base = LlamaForCausalLM(config).to(shape.dtype).requires_grad_(False)
        self.weights = sum(p.numel() for p in base.get_decoder().layers.parameters() if p.dim() > 1)
        llm = add_lora(base, lora_config(64, 128, 0.05))
        adapter = LinearAdapter(FEATURES, shape.width).to(device, shape.dtype).requires_grad_(False)
        self.model = VideoLLM(llm, adapter).train()
        learned = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(learned, lr=1e-5)
        with tempfile.TemporaryDirectory() as folder:
            tiny_tokenizer([TEXT, "USER ASSISTANT when does what is this from to"]).save_pretrained(folder)
            self.dialogue = Dialogue(load_tokenizer(folder), chat_format("vicuna_v1"), TextTimestamps())
        features = np.random.default_rng(0).standard_normal((shape.frames, FEATURES)).astype(np.float16)
        self.video = Video("v", float(shape.frames), np.arange(shape.frames, dtype=float), features)

    def precision(self):
        """What a training step and an answer run in."""
        mixed = self.shape.dtype == torch.bfloat16
        return torch.autocast(self.device.type, torch.bfloat16) if mixed else nullcontext()

    def examples(self) -> list:
        """Dialogues of different lengths about the video."""
        made = []
        for number in range(self.shape.queries):
            answer = TEXT * (self.shape.repeats + number % 3 - 1 or 1)
            query = Query(str(number), "v", "dialogue", turns=(Turn("what is this", answer),))
            made.append(self.dialogue.example(query, self.video, Random(0)))
        return made

    def packed(self, videos: int) -> Batch:
        """One row a video."""
        return collate([pack(self.examples()) for _ in range(videos)], 0).to(self.device)

    def padded(self, videos: int) -> Batch:
        """One row a dialogue."""
        return collate(self.examples() * videos, 0).to(self.device)

    def step(self, batch: Batch) -> None:
        """Forward, backward and optimiser."""
        with self.precision():
            loss = self.model(batch).lm_loss
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def usual_step_s(self, batch: Batch, rounds: int) -> float:
        """Shortest wall time of a step of transformers' Trainer on the rows of a batch, after one that does not count.

        Same model, optimiser and precision; nothing is logged, saved or collated.
        """
        rows, inputs = len(batch.input_ids), {name: getattr(batch, name) for name in Usual.INPUTS}
        clock = StepClock(self.device)
        with tempfile.TemporaryDirectory() as folder:
            settings = TrainingArguments(
                folder, max_steps=rounds + 1, per_device_train_batch_size=rows, max_grad_norm=0.0, report_to=[],
                save_strategy="no", logging_strategy="no", disable_tqdm=True, remove_unused_columns=False,
                use_cpu=self.device.type == "cpu", bf16=self.shape.dtype == torch.bfloat16, dataloader_pin_memory=False,
            )  # fmt: skip
            made = {"data_collator": lambda _: inputs, "train_dataset": range(rows), "callbacks": [clock]}
            trainer = Trainer(Usual(self.model), settings, optimizers=(self.optimizer, None), **made)
            trainer.remove_callback(PrinterCallback)
            trainer.train()
        return min(clock.steps_s[1:])

    def answers(self, together: bool, queries: int, tokens: int) -> None:
        """Write answers to so many queries."""
        asked = [Query(str(n), "v", "grounding", TEXT * (n % 3 + 1)) for n in range(queries)]
        prompts = [self.dialogue.prompt(query, self.video) for query in asked]
        groups = [prompts] if together else [[prompt] for prompt in prompts]
        settings = {"max_new_tokens": tokens, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
        with self.precision():
            for group in groups:
                self.model.generate(collate_prompts(group, 0).to(self.device), **settings)

    def step_flops(self, batch: Batch) -> float:
        """Operations of a step that the loss needs: forward and to the inputs of frozen layers; no padding."""
        tokens, supervised = int(batch.attention_mask.sum()), int((batch.labels >= 0).sum())
        lora = sum(p.numel() for p in self.model.parameters() if p.requires_grad)
        return tokens * (4 * self.weights + 6 * lora) + 4 * supervised * self.shape.vocabulary * self.shape.width


class Usual(nn.Module):
    """A language model that is given labels, as Trainer takes it: transformers computes the loss."""

    INPUTS = ("input_ids", "frame_mask", "features", "feature_mask", "attention_mask", "labels")

    def __init__(self, model: VideoLLM):
        super().__init__()
        self.model = model

    def forward(self, input_ids, frame_mask, features, feature_mask, attention_mask, labels):
        """What transformers gives, with its ``loss``."""
        inputs, _ = self.model.embed(input_ids, frame_mask, features, feature_mask)
        return self.model.llm(inputs_embeds=inputs, attention_mask=attention_mask, labels=labels, use_cache=False)


class StepClock(TrainerCallback):
    """Wall time of every step of a Trainer."""

    def __init__(self, device: torch.device):
        self.device, self.steps_s, self._began = device, [], 0.0

    def on_step_begin(self, *_, **__) -> None:
        """Start."""
        synchronize(self.device)
        self._began = time.perf_counter()

    def on_step_end(self, *_, **__) -> None:
        """Stop."""
        synchronize(self.device)
        self.steps_s.append(time.perf_counter() - self._began)


def row_of(name: str, value: float, unit: str, usual: float | None = None, limit: float | None = None, **more) -> dict:
    return {"what": name, "value": value, "unit": unit, "usual": usual, "limit": limit, **more}


def training(subject: Subject, peak_flops: float, rounds: int, until: float) -> list[dict]:
    """Rows of the table about training steps."""
    rows, large = [], subject.device.type == "cuda"
    for saved in (False, True) if large else (False,):
        if saved:
            checkpoint_activations(subject.model.causal_lm)
        videos = 1
        while time.monotonic() < until:
            try:
                rows.append(_trained(subject, videos, peak_flops, rounds, "checkpointing" if saved else "all kept"))
            except torch.OutOfMemoryError:
                torch.cuda.empty_cache()
                break
            videos *= 2
            if not large:
                break
    return rows


def _trained(subject: Subject, videos: int, peak_flops: float, rounds: int, how: str) -> dict:
    reset_peak()
    packed = subject.packed(videos)
    dialogues = videos * subject.shape.queries
    seconds = best_s(lambda: subject.step(packed), subject.device, rounds)
    peak, usual = peak_bytes(), None
    flops = subject.step_flops(packed)
    if subject.device.type != "cuda" or videos == 1:
        padded = subject.padded(videos)
        try:
            usual = dialogues / subject.usual_step_s(padded, rounds)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
    name = f"training, {videos} x {subject.shape.queries} dialogues, {how}"
    more = {"utilisation": flops / seconds / peak_flops, "peak_gb": peak / 1e9}
    more["tokens_per_s"] = int(packed.attention_mask.sum()) / seconds
    return row_of(name, dialogues / seconds, "dialogues/s", usual, dialogues * peak_flops / flops, **more)


def answering(subject: Subject, peak_flops: float, bytes_per_s: float, rounds: int) -> list[dict]:
    """Rows of the table about reading a video and writing answers."""
    subject.model.eval()
    shape, device = subject.shape, subject.device
    read_s = best_s(lambda: subject.answers(True, 1, 1), device, rounds)
    prompt = subject.dialogue.prompt(Query("0", "v", "grounding", TEXT), subject.video)
    tokens = len(prompt.prefix_ids) + len(prompt.suffix_ids)
    limit = peak_flops / (2 * subject.weights)
    rows = [row_of("reading a prompt", tokens / read_s, "tokens/s", None, limit, utilisation=tokens / read_s / limit)]
    reset_peak()
    subject.answers(True, 1, shape.tokens)
    one_gb = peak_bytes() / 1e9
    reset_peak()
    together = best_s(lambda: subject.answers(True, shape.queries, shape.tokens), device, rounds)
    peaks = {"peak_gb": peak_bytes() / 1e9, "peak_gb_of_one": one_gb}
    apart = best_s(lambda: subject.answers(False, shape.queries, shape.tokens), device, max(1, rounds // 2))
    written = shape.queries * shape.tokens
    size = torch.empty(0, dtype=shape.dtype).element_size()
    limit = shape.queries * bytes_per_s / (subject.weights * size + shape.vocabulary * shape.width * size)
    rows.append(
        row_of(f"answering {shape.queries} queries", written / together, "tokens/s", written / apart, limit, **peaks)
    )
    return rows


def measure(shape: Shape, device: torch.device, rounds: int) -> dict:
    """Limits and rows of the table."""
    until = time.monotonic() + BUDGET_S
    limits = measured(1024, shape.width, shape.inner, device, shape.dtype)
    flops, bytes_per_s = (value * 1e9 for value in limits.values())
    subject = Subject(shape, device)
    answered = answering(subject, flops, bytes_per_s, rounds)
    subject.model.train()
    return {"limits": limits, "rows": training(subject, flops, rounds, until) + answered}


def show(found: dict) -> None:
    """The table."""
    table = Table("", "here", "usual way", "to the usual way", "limit", "of the limit", "peak GB")
    for row in found["rows"]:
        usual, limit, peak = row["usual"], row["limit"], row.get("peak_gb")
        ratio = f"{row['value'] / usual:.2f}x" if usual else "-"
        table.add_row(
            row["what"], f"{row['value']:.1f} {row['unit']}", f"{usual:.1f}" if usual else "-", ratio,
            f"{limit:.1f}", f"{row['value'] / limit:.0%}", f"{peak:.2f}" if peak else "-",
        )  # fmt: skip
    console.print(table)
    console.print(", ".join(f"{name} {value:.1f}" for name, value in found["limits"].items()))


def main(size: str | None = None, rounds: int = 3) -> None:
    """Measure and print.

    Args:
        size: ``tiny``, ``small`` or ``large``; None: large on CUDA, else small.
        rounds: timed repetitions of each; the fastest counts.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    show(measure(SIZES[size or ("large" if device.type == "cuda" else "small")], device, rounds))


if __name__ == "__main__":
    auto_cli(main)
