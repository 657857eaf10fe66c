"""Shards and annotation files to batches, the same on one process and on many."""

from collections import Counter
from functools import partial
from itertools import chain

import lightning as L
import torch
from torch.utils.data import DataLoader

from datamodules.batch import Batch, PromptBatch, collate, collate_prompts
from datamodules.dialogue import Dialogue
from datamodules.records import FeatureHeader
from datamodules.sampling import EpochBatches, Part, ResumableLoader
from datamodules.schema import Query
from datamodules.skips import OnError
from datamodules.sources import (
    Pair,
    Prompts,
    Skipped,
    Source,
    StreamedDialogues,
    TrainingDialogues,
    open_sources,
    share_videos,
)


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
        batch_size: dialogues of one process and step; groups of them with ``queries_per_video``.
        eval_batch_size: questions answered together; those about one video share its prefix.
        queries_per_video: training queries that share one copy of their video's frames in one sequence, none seeing
            another. More is faster where a video has many queries, and trains on the same loss.
        num_workers: reading processes.
        seed: of order and wording.
        on_error: ``fail`` at the first sample that cannot be read, or ``skip`` and count.
    """

    def __init__(
        self,
        dialogue: Dialogue,
        train: list[Source] | None = None,
        val: list[Source] | None = None,
        test: list[Source] | None = None,
        batch_size: int = 8,
        eval_batch_size: int = 16,
        queries_per_video: int = 1,
        num_workers: int = 4,
        seed: int = 0,
        on_error: OnError = "fail",
    ):
        super().__init__()
        self.dialogue, self.seed, self.on_error = dialogue, seed, on_error
        self.sources = {"train": train or [], "val": val or [], "test": test or []}
        self.batch_size, self.eval_batch_size, self.num_workers = batch_size, eval_batch_size, num_workers
        self.queries_per_video = queries_per_video
        self.skipped: Counter = Counter()
        """Queries left out before the first batch, by reason."""
        self.header: FeatureHeader | None = None
        """How the features were made; None until a loader was asked for, and for streams."""
        self.mixture: list[tuple[Source, Part]] = []
        """The sources of training, and what an epoch draws from each; empty until asked for, and for streams."""
        self.queries: dict[str, list[Query]] = {}
        """Those of each split whose loader was asked for."""

    def _open(self, split: str) -> list[list[Pair]]:
        """The pairs of each source."""
        reads = self.dialogue.splicer.reads
        opened, skipped = open_sources(self.sources[split], reads, self.on_error, unique=split != "train")
        self.skipped += skipped
        self.queries[split] = [query for pairs in opened for _, query in pairs]
        reader = next(reader for pairs in opened for reader, _ in pairs)
        if self.header:
            used = reads(self.header, "the other split"), reads(reader.header, reader.folder)
            used[0].check_same(used[1], "the other split", f"data.{split}")
        if split == "train" or self.header is None:
            self.header = reader.header
        return opened

    def train_dataloader(self) -> DataLoader:
        """Every sample as often an epoch as its source weighs, in an order of seed and epoch; resumes at any batch.

        Raises:
            ValueError: no training source, or a remote source beside another or without a length of the epoch.
        """
        sources = self.sources["train"]
        if self.queries_per_video > 1 and self.dialogue.splicer.question_tokenizer:
            raise ValueError("the adapter reads a video anew for every question: set data.queries_per_video to 1")
        if not sources:
            raise ValueError("data.train is empty: name at least one source with shards and queries")
        if any(source.remote for source in sources):
            return self._streaming_loader(sources)
        shared = [share_videos(pairs, self.queries_per_video) for pairs in self._open("train")]
        mixed = zip(sources, shared, strict=True)
        self.mixture = [(source, Part(len(groups), source.weight)) for source, groups in mixed if groups]
        groups = [group for groups in shared for group in groups]
        dataset = TrainingDialogues(groups, self.dialogue, self.seed, self.on_error)
        readers: dict[int, int] = {}
        shards = [
            (readers.setdefault(id(reader), len(readers)), reader.shard_of(query.video))
            for (reader, query), *_ in groups
        ]
        trainer, progress = self.trainer, self.trainer.fit_loop.epoch_loop.batch_progress
        done, parts = lambda: progress.current.ready, [part for _, part in self.mixture]
        batches = EpochBatches(shards, self.batch_size, self.seed, trainer.global_rank, trainer.world_size, done, parts)
        return ResumableLoader(dataset, batches, **self._loader_settings(collate))

    def _streaming_loader(self, sources: list[Source]) -> DataLoader:
        if len(sources) > 1:
            raise ValueError("a remote source cannot be mixed with others; download the shards, or train on one")
        if sources[0].weight != 1:
            raise ValueError("a remote source has no weight: it is alone, and has no epochs")
        if not isinstance(self.trainer.limit_train_batches, int):
            raise ValueError("streamed shards have no length: set trainer.limit_train_batches to batches an epoch")
        dataset = StreamedDialogues(sources[0], self.dialogue, self.seed, self.on_error)
        self.queries["train"] = [query for queries in dataset.queries.values() for query in queries]
        return DataLoader(dataset, batch_size=self.batch_size, **self._loader_settings(collate))

    def val_dataloader(self) -> DataLoader | list:
        """Questions of the validation split; none without a source."""
        return self._prompt_loader("val") if self.sources["val"] else []

    def test_dataloader(self) -> DataLoader:
        """Questions of the test split."""
        return self._prompt_loader("test")

    def _prompt_loader(self, split: str) -> DataLoader:
        dataset = Prompts(list(chain.from_iterable(self._open(split))), self.dialogue, self.on_error)
        batches = dataset.batches(self.eval_batch_size, self.trainer.global_rank, self.trainer.world_size)
        return DataLoader(dataset, batch_sampler=batches, **self._loader_settings(collate_prompts))

    def _loader_settings(self, collate) -> dict:
        return {
            "collate_fn": partial(collate_readable, collate=collate, pad_id=self.dialogue.pad_id),
            "num_workers": self.num_workers,
            "pin_memory": torch.cuda.is_available(),
            "persistent_workers": False,
        }
