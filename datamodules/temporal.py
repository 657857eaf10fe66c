"""Shards and annotation files to batches, the same on one process and on many."""

from array import array
from collections import Counter
from collections.abc import Sequence
from functools import partial

import lightning as L
import numpy as np
import torch
from torch.utils.data import DataLoader

from command_line.signals import leave_it_to_the_parent
from datamodules.batch import Batch, PromptBatch, collate, collate_prompts
from datamodules.dialogue import Dialogue
from datamodules.opening import open_sources
from datamodules.pairs import Pairs, Queries
from datamodules.records import FeatureHeader
from datamodules.sampling import EpochBatches, Part, ResumableLoader
from datamodules.schema import TASKS, Query
from datamodules.skips import OnError
from datamodules.sources import (
    Prompts,
    Skipped,
    Source,
    StreamedDialogues,
    TrainingDialogues,
    source_names,
)
from datamodules.video_reader import OnlineEncoding, VideoReader


def collate_readable(samples: list, collate, pad_id: int) -> Batch | PromptBatch:
    """Batch the samples that could be read, and count the others. Where none could, the batch has no queries.

    A sample may also be a list of them.
    """
    samples = [part for sample in samples for part in (sample if isinstance(sample, list) else [sample])]
    skipped = [sample.reason for sample in samples if isinstance(sample, Skipped)]
    readable = [sample for sample in samples if not isinstance(sample, Skipped)]
    return collate(readable, pad_id, Counter(skipped))


class TemporalDataModule(L.LightningDataModule):
    """Batches of dialogues to learn from, and of questions to answer.

    Args:
        dialogue: writes annotations as tokens; the LightningModule has it.
        train: sources of training dialogues, mixed by their weights; or one remote source.
        val: sources of questions asked during training.
        test: sources of questions asked at the end.
        global_batch_size: dialogues of an optimiser step, over all processes. None: as many as ``batch_size``,
            processes and ``trainer.accumulate_grad_batches`` make.
        batch_size: dialogues that one process takes at once.
        eval_batch_size: questions answered together; those about one video share its prefix.
        queries_per_video: training queries, at most, that share one copy of their video's frames in one sequence, none
            seeing another. More is faster where a video has many queries, and trains on the same loss. Batches count
            queries all the same; most is shared where ``batch_size`` is a multiple of it. None: train.py takes eight,
            or a quarter of a step's dialogues where these are fewer than 32, and one where nothing can be shared.
        num_workers: reading processes.
        seed: of order and wording.
        on_error: ``fail`` at the first sample that cannot be read, or ``skip`` and count.
        encoder: of sources that are video files; None: all are shards.
        verify_checksums: read all bytes of the shards before the first batch, and refuse shards that changed on disk.
        answered: ids of test queries that are not asked again.
    """

    def __init__(
        self,
        dialogue: Dialogue,
        train: list[Source] | None = None,
        val: list[Source] | None = None,
        test: list[Source] | None = None,
        global_batch_size: int | None = None,
        batch_size: int = 8,
        eval_batch_size: int = 16,
        queries_per_video: int | None = None,
        num_workers: int = 4,
        seed: int = 0,
        on_error: OnError = "fail",
        encoder: OnlineEncoding | None = None,
        verify_checksums: bool = False,
        answered: list[str] | None = None,
    ):
        super().__init__()
        counts = {"batch_size": batch_size, "eval_batch_size": eval_batch_size, "global_batch_size": global_batch_size}
        for name, value in (counts | {"queries_per_video": queries_per_video}).items():
            if value is not None and value < 1:
                raise ValueError(f"data.{name} must be 1 or more, got {value}")
        if num_workers < 0:
            raise ValueError(f"data.num_workers must be 0 or more, got {num_workers}")
        self.dialogue, self.seed, self.on_error, self.encoder = dialogue, seed, on_error, encoder
        self.verify_checksums = verify_checksums
        self.answered = frozenset(answered or ())
        self.sources = {"train": train or [], "val": val or [], "test": test or []}
        self.global_batch_size, self.batch_size = global_batch_size, batch_size
        self.eval_batch_size, self.num_workers = eval_batch_size, num_workers
        self.queries_per_video = queries_per_video or 1
        self.begin = (0, 0)
        """Epoch, and samples of it that were done, where a run goes on with batches of another size."""
        self.lockstep = False
        """Whether all processes ask the same questions in validation, because they hold one model together."""
        self.skipped: Counter = Counter()
        """Queries left out before the first batch, by reason."""
        self.header: FeatureHeader | None = None
        """How the features were made; None until a loader was asked for, and for streams."""
        self.mixture: list[tuple[Source, Part]] = []
        """The sources of training, and what an epoch draws from each; empty until asked for, and for streams."""
        self.queries: dict[str, Sequence[Query]] = {}
        """Those of each split that was opened."""
        self._opened: dict[str, list[Pairs]] = {}

    def open(self, split: str) -> list[Pairs]:
        """The pairs of each source, whose lines are checked once and read when they are needed.

        Raises:
            ValueError: a source cannot be read, or holds what the model cannot use.
        """
        if split not in self._opened:
            reads, unique = self.dialogue.splicer.reads, split != "train"
            verify = self.verify_checksums and (self.trainer is None or self.trainer.local_rank == 0)  # once a machine
            settings = self.on_error, unique, self.encoder, verify
            opened, skipped = open_sources(self.sources[split], reads, *settings)
            self.skipped += skipped
            self.queries[split] = Queries(joined := Pairs.joined(opened))
            self._check_header(split, joined.parts[0].reader)
            self._opened[split] = opened
        return self._opened[split]

    def _check_header(self, split: str, reader: VideoReader) -> None:
        reads = self.dialogue.splicer.reads
        used = reads(reader.header, reader.folder)
        if self.header:
            reads(self.header, "the other split").check_same(used, "the other split", f"data.{split}")
        if split == "train" or self.header is None:
            self.header = reader.header

    @property
    def streams(self) -> bool:
        """Whether training reads remote shards, which have no length."""
        return any(source.remote for source in self.sources["train"])

    def check_train(self) -> None:
        """Refuse training sources that cannot be: none, or a remote one beside another."""
        sources = self.sources["train"]
        if self.queries_per_video > 1 and self.dialogue.splicer.question_tokenizer:
            raise ValueError("the adapter reads a video anew for every question: set data.queries_per_video to 1")
        if not sources:
            raise ValueError("data.train is empty: name at least one source with shards and queries")
        if self.streams and len(sources) > 1:
            raise ValueError("a remote source cannot be mixed with others; download the shards, or train on one")
        if self.queries_per_video > 1 and not self.dialogue.shares:
            raise ValueError("each query already has two answers behind one video: set data.queries_per_video to 1")
        for source in sources:
            self.dialogue.check_file(source.queries)
        if self.streams and sources[0].weight != 1:
            raise ValueError("a remote source has no weight: it is alone, and has no epochs")

    def training_set(self) -> tuple[TrainingDialogues, list[Part]]:
        """Every training dialogue, and what an epoch draws from each source."""
        self.check_train()
        opened = self.open("train")
        mixed = zip(self.sources["train"], opened, strict=True)
        self.mixture = [(source, Part(len(pairs), source.weight)) for source, pairs in mixed if pairs]
        named = zip(source_names(self.sources["train"]), opened, strict=True)
        names = [name for name, pairs in named if pairs] if len(self.mixture) > 1 else []
        parts = [part for _, part in self.mixture]
        return TrainingDialogues(Pairs.joined(opened), self.dialogue, self.seed, self.on_error, names), parts

    def train_dataloader(self) -> DataLoader:
        """Every sample as often an epoch as its source weighs, in an order of seed and epoch; resumes at any batch.

        Raises:
            ValueError: no training source, or a remote source beside another or without a length of the epoch.
        """
        self.check_train()
        if self.streams:
            return self._streaming_loader(self.sources["train"])
        dataset, parts = self.training_set()
        trainer, progress = self.trainer, self.trainer.fit_loop.epoch_loop.batch_progress
        share = self.batch_size, self.seed, trainer.global_rank, trainer.world_size, lambda: progress.current.ready
        batches = EpochBatches(
            numbers(dataset.pairs.shards()),
            *share,
            parts,
            numbers(dataset.pairs.videos()),
            self.queries_per_video,
            lambda: self.begin,
        )
        return ResumableLoader(dataset, batches, **self._loader_settings(collate))

    def batches_of_epoch(self, size: int) -> int:
        """Batches of ``size`` samples over all processes that an epoch of training has."""
        _, parts = self.training_set()
        return -(-sum(part.draws for part in parts) // size)

    def _streaming_loader(self, sources: list[Source]) -> DataLoader:
        if not isinstance(self.trainer.limit_train_batches, int):
            raise ValueError("streamed shards have no length: set trainer.limit_train_batches to batches an epoch")
        dataset = StreamedDialogues(sources[0], self.dialogue, self.seed, self.on_error)
        self.queries["train"] = dataset.queries.all
        return DataLoader(dataset, batch_size=self.batch_size, **self._loader_settings(collate))

    def val_dataloader(self) -> list[DataLoader]:
        """Questions of the validation split that a metric is about, and its dialogues, for their loss."""
        if not self.sources["val"]:
            return []
        pairs, untold = Pairs.joined(self.open("val")), [TASKS.index(task) for task in ("dialogue", "events")]
        asked = pairs.where(lambda rows: ~np.isin(rows["task"], untold))
        learned = pairs.where(lambda rows: rows["teaches"] & self.dialogue.localizer.generates)
        kinds = ((self._prompt_loader, asked), (self._loss_loader, learned))
        return [loader(some) for loader, some in kinds if some]

    def test_dataloader(self) -> DataLoader:
        """Questions of the test split."""
        pairs = Pairs.joined(self.open("test"))
        if self.answered:
            left = iter([query.id not in self.answered for _, query in pairs])
            pairs = pairs.where(lambda rows: np.fromiter(left, bool, len(rows)))
        return self._prompt_loader(pairs)

    @property
    def _share(self) -> tuple[int, int]:
        """Which of how many parts of an evaluation this process does."""
        return (0, 1) if self.lockstep else (self.trainer.global_rank, self.trainer.world_size)

    def _prompt_loader(self, pairs: Pairs) -> DataLoader:
        dataset = Prompts(pairs, self.dialogue, self.on_error)
        batches = dataset.batches(self.eval_batch_size, *self._share)
        return DataLoader(dataset, batch_sampler=batches, **self._loader_settings(collate_prompts))

    def _loss_loader(self, pairs: Pairs) -> DataLoader:
        """The same dialogues in the same words each time; one that cannot be put into words has no loss."""
        dataset = TrainingDialogues(pairs, self.dialogue, self.seed, "skip")
        batches = EpochBatches(numbers(pairs.shards()), self.eval_batch_size, self.seed, *self._share)
        return DataLoader(dataset, batch_sampler=list(batches), **self._loader_settings(collate))

    def _loader_settings(self, collate) -> dict:
        return {
            "collate_fn": partial(collate_readable, collate=collate, pad_id=self.dialogue.pad_id),
            "num_workers": self.num_workers,
            "pin_memory": torch.cuda.is_available(),
            "persistent_workers": False,
            "worker_init_fn": leave_it_to_the_parent,
        }


def numbers(codes: np.ndarray) -> array:
    """Codes (N,) int64 in as many bytes, which a loop in Python takes one by one faster than numpy's."""
    return array("q", codes.tobytes())
