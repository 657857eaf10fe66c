"""Writing answers token by token, each until it ends: rows that have ended leave the batch.

Shape suffixes: R rows (questions) that are still being answered, P tokens of the prefix, S of a question, L of an
answer, D width, V vocabulary.
"""

from dataclasses import dataclass, field

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from transformers import LogitsProcessorList, PreTrainedModel

from models.certainty import Certainty
from models.decoders import cache_argument
from models.feedback import Writing
from models.inner_states import watching
from models.outputs import Generated
from models.shared_prefix import SharedPrefix


@dataclass(eq=False)
class Writer:
    """Answers questions behind videos that were read; use it once.

    What is likely, sampled and forbidden is as transformers' ``generate`` has it; the loop is ours.

    Args:
        llm: the causal language model.
        cache: the videos; it is changed.
        mask: (R, P + S) 1 for real tokens of the video and the question of each row.
        points: places whose states are kept, see ``localizers.base.StatePoint``.
        writing: gives time tokens their times; None: there are none.
        certainty: knows how likely each token was; None: nobody asked.
        sharded: other processes run the same layers, so that all go on until the last answer of the last one ends.
    """

    llm: PreTrainedModel
    cache: SharedPrefix
    mask: Tensor
    points: tuple[str, ...] = ()
    writing: Writing | None = None
    certainty: Certainty | None = None
    sharded: bool = False
    _steps: list[dict[str, Tensor]] = field(default_factory=list)
    """Of every token the row that it belongs to, and what is known of it."""
    _passes: list[dict[str, Tensor]] = field(default_factory=list)
    """Of every pass the rows, and their states (R, D) at the last token."""

    def write(self, questions: Tensor, settings: dict) -> list[Generated]:
        """One answer a row, as long as it is, with the states around its tokens.

        Args:
            questions: (R, S, D) input vectors.
            settings: of transformers' ``generate``.
        """
        self._rows = torch.arange(len(questions), device=questions.device)
        self._cached = cache_argument(self.llm, self.cache)
        if self.certainty:
            processors = LogitsProcessorList([*settings.get("logits_processor", ()), self.certainty])
            settings = settings | {"logits_processor": processors}
        with watching(self.llm, self.points) as self._seen, self.cache.attended(self.llm):
            self.llm.generate(inputs_embeds=questions, custom_generate=self._loop, **settings)
        return self._answers(len(questions))

    def _loop(self, _, input_ids, logits_processor, stopping_criteria, generation_config, **given) -> Tensor:
        """What ``generate`` calls with the settings that it has worked out; new ids of the rows that ended last."""
        ids, inputs, ended = input_ids, given["inputs_embeds"], self._rows < 0
        while not self._everywhere(here := bool(ended.all())):
            logits = self._read(inputs)
            if not here:
                if ended.any():
                    going = (~ended).nonzero().flatten()
                    logits, ids = logits[going], ids[going]
                    self._keep(going)
                tokens = _chosen(logits_processor(ids, logits), generation_config.do_sample)
                ids = torch.cat([ids, tokens[:, None]], dim=1)
                self._note(tokens)
                ended = stopping_criteria(ids, None)
            inputs = self._inputs(tokens)
        if self.points or self.writing:  # the last tokens have been predicted, but not yet read
            self._read(inputs)
        return ids

    def _everywhere(self, ended: bool) -> bool:
        """Whether all answers have ended, those of other processes too."""
        if not self.sharded:
            return ended
        going = torch.tensor(float(not ended), device=self.mask.device)
        dist.all_reduce(going)
        return going.item() == 0

    def _read(self, inputs: Tensor) -> Tensor:
        """Read input vectors (R, L, D); returns the logits (R, V) of the next token."""
        logits = self.llm(
            inputs_embeds=inputs,
            attention_mask=self.mask,
            position_ids=(self.mask.cumsum(-1) - 1).clamp(min=0)[:, -inputs.shape[1] :],
            logits_to_keep=1,
            use_cache=True,
            **self._cached,
        ).logits[:, -1]
        self.mask = F.pad(self.mask, (0, 1), value=1)
        self._states = {point: calls.pop()[:, -1] for point, calls in self._seen.items()}
        self._passes.append({"row": self._rows, **self._states})
        return logits.float()

    def _inputs(self, tokens: Tensor) -> Tensor:
        """Input vectors (R, 1, D) of new tokens (R,)."""
        inputs = self.llm.get_input_embeddings()(tokens[:, None])
        return self.writing.read(tokens, inputs, self._states) if self.writing else inputs

    def _keep(self, going: Tensor) -> None:
        """Go on with the rows at these places only."""
        self.cache.batch_select_indices(going)
        self.mask, self._rows = self.mask[going], self._rows[going]
        self._states = {point: states[going] for point, states in self._states.items()}
        if self.writing:
            self.writing.videos = self.writing.videos[going]

    def _note(self, tokens: Tensor) -> None:
        likely = {"likely": self.certainty.chosen(tokens)} if self.certainty else {}
        self._steps.append({"row": self._rows, "ids": tokens, **likely})

    def _answers(self, rows: int) -> list[Generated]:
        said, states = _by_row(self._steps, rows), _by_row(self._passes, rows)
        # A token is read once, but the last ones again and again while other processes go on.
        read = zip(self._steps, self.writing.moments if self.writing else (), strict=False)
        moments = _by_row([{"row": step["row"], "moments": times} for step, times in read], rows)
        return [
            Generated(
                ids=one["ids"],
                frames={},
                predicting={point: around[point][: len(one["ids"])] for point in self.points},
                reading={point: around[point][1 : len(one["ids"]) + 1] for point in self.points},
                first={},
                moments=times.get("moments"),
                log_likely=one.get("likely"),
            )
            for one, around, times in zip(said, states, moments, strict=True)
        ]


def _chosen(scores: Tensor, sample: bool) -> Tensor:
    """Tokens (R,) by scores (R, V)."""
    return scores.softmax(-1).multinomial(1).squeeze(1) if sample else scores.argmax(-1)


def _by_row(steps: list[dict[str, Tensor]], rows: int) -> list[dict[str, Tensor]]:
    """What was noted step by step, of all rows that were there: for each row, step by step."""
    if not steps:
        return [{}] * rows
    joined = {name: torch.cat([step[name] for step in steps]) for name in steps[0]}
    row = joined.pop("row")
    order, lengths = row.argsort(stable=True), row.bincount(minlength=rows).tolist()
    parts = {name: values[order].split(lengths) for name, values in joined.items()}
    return [{name: values[number] for name, values in parts.items()} for number in range(rows)]
