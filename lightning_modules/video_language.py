"""The loop around a video language model: what is learned, how, and what is kept. Nothing here is about time."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import ClassVar

import lightning as L
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from datamodules.batch import Batch, PromptBatch
from datamodules.chat import IGNORE, chat_format, check_end
from datamodules.chat_formats import ChatFormat
from datamodules.dialogue import Dialogue
from datamodules.prediction import Prediction
from datamodules.records import FeatureHeader
from datamodules.spatial_compression import Compression
from lightning_modules.answering import Answering, Generation
from lightning_modules.batching import short_step_factor
from lightning_modules.optimization import Optimization
from lightning_modules.precision import keep_batches
from lightning_modules.scoring import compute_metrics, new_metrics, update_metrics
from lightning_modules.strategy import Sharded, StandIn, clip_split, learned_by
from lightning_modules.weights_folder import check_base, load_part, manifest
from localizers.base import Localizer
from models.adapters import Adapter, Linear
from models.checkpoints import (
    Lora,
    Weights,
    best_device,
    check_keys,
    checkpoint_activations,
    compute_type,
    empty_llm,
    fingerprint,
    load_llm,
    load_tokenizer,
    merge_loras,
    read_weights,
)
from models.decoders import width
from models.feedback import Feedback
from models.fingerprints import of_base
from models.outputs import Output
from models.quantization import Quantization, check_quantization, quantize
from models.training_checkpoints import Parts, assemble
from models.video_llm import VideoLLM
from models.vocabulary import add_tokens, normalise_rows
from models.without_llm import WithoutLLM


class VideoLanguageModule(L.LightningModule):
    """One training stage of a video language model.

    Args:
        llm: folder or hub name of the causal language model.
        localizer: how the model says when.
        previous: run folder of the stage before (or released weights); its adapter and LoRAs are the start.
        chat: conversation format: a name of ``datamodules.chat_formats``, ``template`` (what the tokenizer's own chat
            template says), or a ``ChatFormat`` written out.
        system: system text in place of the format's own.
        style: prompt style, a key of the files in ``datamodules/templates``.
        adapter: how frames become input vectors of the language model.
        feature_width: width of a frame feature, or of a patch where the adapter reads patches.
        max_text_tokens: text tokens of a training dialogue; longer ones are cut and counted.
        spatial: S-tokens that stand behind a video's frames, for example ``4x64``; None: there are none.
        dtype: of the frozen language model, for example ``bfloat16``.
        quantization: the frozen language model in 4 bits (``nf4``, QLoRA) or 8 bits (``int8``); None: in ``dtype``.
        gradient_checkpointing: recompute activations in the backward pass to save memory.
        optimization: optimiser and schedule.
        generation: decoding in validation and test.
    """

    takes_experts: ClassVar[bool] = False
    """Whether the stage can go on from a run that has experts."""
    trains: ClassVar[bool] = True
    """Whether every number of the base is worth a fingerprint, which takes seconds."""
    writes: ClassVar[type[Dialogue]] = Dialogue
    """What writes annotations as the text that is learned."""
    merged: Sequence[Lora] = ()
    """LoRAs of the stages before that were merged into the base."""

    def __init__(
        self,
        llm: str,
        localizer: Localizer,
        previous: Path | None = None,
        chat: str | ChatFormat = "vicuna_v1",
        system: str | None = None,
        style: str = "vtimellm",
        adapter: Adapter = Linear(),  # noqa: B008 (frozen)
        feature_width: int = 768,
        max_text_tokens: int = 2048,
        spatial: str | None = None,
        dtype: str = "float32",
        quantization: Quantization | None = None,
        gradient_checkpointing: bool = False,
        optimization: Optimization = Optimization(),  # noqa: B008 (frozen)
        generation: Generation = Generation(),  # noqa: B008 (frozen)
    ):
        super().__init__()
        check_quantization(quantization)
        if max_text_tokens < 1 or feature_width < 1:
            raise ValueError(
                f"max_text_tokens and feature_width must be 1 or more, got {max_text_tokens} and {feature_width}"
            )
        self.quantization = quantization
        self.llm_name, self.localizer, self.previous = llm, localizer, previous
        self.chat, self.system, self.style = chat, system, style
        self.feature_width, self.spatial, self.llm_dtype = feature_width, spatial, compute_type(dtype)
        self.adapter_settings, self.optimization = adapter, optimization
        self.gradient_checkpointing = gradient_checkpointing
        compression = Compression.parse(spatial) if spatial else None
        questions = adapter.question_tokenizer()
        if compression and questions:
            raise ValueError("S-tokens go through the adapter as they are; this one reads patches with a question")
        tokenizer = load_tokenizer(llm)
        text = tokenizer, chat_format(chat, system, tokenizer), localizer, style, max_text_tokens
        self.dialogue = self.writes(*text, compression, questions, generation.one_prompt, adapter.reads_times)
        self.answering = Answering(self.dialogue, generation)
        self.metrics = new_metrics()
        self.model: VideoLLM | None = None
        self.base: dict = {}
        """Name and fingerprint of the base, once it is loaded."""
        self._previous: Weights | None = None
        self._stand_in = StandIn()
        self.strict_loading = False  # a checkpoint holds what was trained; `on_load_checkpoint` checks every key

    @abstractmethod
    def build(self, llm: PreTrainedModel, weights: Weights) -> VideoLLM:
        """Put the model together from the frozen base and the previous stage, with the right parts trainable."""

    def read_previous(self) -> Weights:
        """The weights of the stage before, read once; empty ones where there is none."""
        if self._previous is None:
            self._previous = read_weights(self.previous) if self.previous else Weights()
        return self._previous

    def check_previous(self, weights: Weights) -> None:
        """Raise ValueError for a stage before that this one cannot go on from, and for a conversation format in which
        no answer ends, as far as that is seen without a language model.
        """
        if weights.experts and not self.takes_experts:
            raise ValueError(f"{self.previous} has experts, which cannot be merged; go on from it with ExpertTuning")
        if self.localizer.generates:
            check_end(self.dialogue.encoder.chat)

    def setup(self, stage: str) -> None:
        """See ``precision``."""
        keep_batches(self.trainer)

    def configure_model(self) -> None:
        """Load the base, check that it is the one the previous stage was trained on, and build the stage."""
        if self.model is not None:
            return
        strategy = self._trainer.strategy if self._trainer else None
        if isinstance(strategy, Sharded):
            self.model = strategy.build(self._load, self.structure)
            self.model.sharded = True
            self.base = strategy.broadcast(self.base)
        else:
            self.model = self._load()
        self._previous = None

    def _load(self) -> VideoLLM:
        previous = self.read_previous()
        self.check_previous(previous)
        llm = load_llm(self.llm_name, self.llm_dtype)
        self.base = {"name": self.llm_name, "fingerprint": fingerprint(llm), "dtype": str(self.llm_dtype)}
        self.base |= {"tensors": of_base(llm)} if self.trains else {}
        check_base(self.base, previous.manifest.get("base"), f"the previous stage {self.previous}")
        return self._around(llm, previous)

    def structure(self) -> VideoLLM:
        """The model as ``configure_model`` makes it, with shapes and without numbers: nothing is loaded."""
        with torch.device("meta"):
            return self._around(empty_llm(self.llm_name, self.llm_dtype), self.read_previous())

    def _around(self, llm: PreTrainedModel, previous: Weights) -> VideoLLM:
        llm.requires_grad_(False)
        add_tokens(llm, self.dialogue.tokenizer, self.dialogue.new_tokens, *self.localizer.first_rows)
        # from_pretrained leaves modules in eval mode, which would switch gradient checkpointing off without a word.
        model = self.build(llm, previous).train()
        data = getattr(self._trainer, "datamodule", None)
        model.check(sharing=getattr(data, "queries_per_video", 1) > 1)
        if self.gradient_checkpointing:
            checkpoint_activations(model.causal_lm)
        return model

    def base_with(self, llm: PreTrainedModel, loras: Sequence[Lora] = ()) -> PreTrainedModel:
        """The frozen base with LoRAs merged into it, and then in few bits where that is asked for."""
        llm = merge_loras(llm, loras)
        if self.quantization and llm.device.type != "meta":
            device = self._trainer.strategy.root_device if self._trainer else best_device()
            quantize(llm, self.quantization, self.llm_dtype, device)
        return llm

    def adapter(self, width: int, weights: Weights) -> nn.Module:
        """The visual adapter to ``width``, frozen, with the previous stage's weights if there are any."""
        adapter = self.adapter_settings.build(self.feature_width, width)
        if not weights.adapter:
            self.adapter_settings.start(adapter)
        return load_part("adapter", adapter, weights.adapter).requires_grad_(False)

    def video_llm(self, llm: nn.Module, adapter: nn.Module, weights: Weights) -> VideoLLM:
        """The model as the localizer wants it, its head with the previous stage's weights if there are any.

        Raises:
            ValueError: the language model has a LoRA, and the localizer does without its layers.
        """
        head = self.localizer.head(width(llm))
        if head is not None:
            load_part("head", head, weights.head)
        if not self.localizer.generates:
            if not isinstance(llm, PreTrainedModel):
                name = type(self.localizer).__name__
                raise ValueError(f"{name} has no language model to put a LoRA on; its stage is Baseline")
            return WithoutLLM(llm.get_input_embeddings(), adapter, head, list(self.dialogue.special))
        return VideoLLM(llm, adapter, head, self.localizer.states, self.localizer.bidirectional, self.feedback())

    def feedback(self) -> Feedback | None:
        """How the localizer's time tokens are read with their times."""
        ids = [number for number, token in self.dialogue.special.items() if token in self.localizer.time_tokens]
        return Feedback(self.localizer, tuple(ids)) if ids else None

    def training_step(self, batch: Batch) -> dict:
        """The sum of the language-model loss and the localizer's terms.

        Returns:
            ``loss``, and ``terms`` for the log: each term under its own name, with several sources the language-model
            loss of each, and the share of padding, as (sum, weight).
        """
        batch = self._stand_in(batch) if self.model.sharded else batch
        if not batch.queries:  # nothing could be read; this rank still takes part in the reduction
            nothing = 0.0 * sum(parameter.sum() for parameter in self.parameters() if parameter.requires_grad)
            return {"loss": nothing, "terms": {}}
        output = self.model(batch)
        terms = self.loss_terms(batch, output)
        loss = sum(terms.values())
        self.log("train/loss", loss.detach(), logger=False, batch_size=len(batch.queries))  # for those who monitor it
        logged = {f"{name}_loss": (term.detach(), 1) for name, term in terms.items()} | {"loss": (loss.detach(), 1)}
        logged |= output.losses_of(batch.sources) | output.padding_of(batch.attention_mask)
        return {"loss": loss * short_step_factor(self.trainer), "terms": logged}

    @property
    def ids(self) -> dict[str, int]:
        """Of the localizer's tokens."""
        return {token: number for number, token in self.dialogue.special.items()}

    def loss_terms(self, batch: Batch, output: Output) -> dict[str, Tensor]:
        """What is learned from a batch, by name: the language-model loss and the localizer's terms."""
        lm_loss = self.localizer.lm_weight * output.lm_loss
        terms = {"lm": lm_loss, **self.localizer.loss(self.model.head, output.states, batch, self.ids)}
        if special := self.localizer.word_loss_tokens:
            labels = batch.labels[:, 1:][batch.labels[:, 1:] != IGNORE]
            due = torch.isin(labels, labels.new_tensor([self.ids[token] for token in special]))
            terms |= self.localizer.word_loss(output.words.logits(due), labels[due], self.ids)
        return terms

    def configure_gradient_clipping(self, optimizer, gradient_clip_val=None, gradient_clip_algorithm=None) -> None:
        """As Lightning does; by hand where some gradients are split over processes and others are not."""
        if self.model.sharded and gradient_clip_val and gradient_clip_algorithm in (None, "norm"):
            clip_split(optimizer, gradient_clip_val)
        else:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def optimizer_step(self, *args, **settings) -> None:
        """As Lightning does; then rows of the localizer's tokens are scaled where it wants that."""
        super().optimizer_step(*args, **settings)
        if self.localizer.normalise_rows:
            normalise_rows(self.model.llm, list(self.dialogue.special))

    def configure_optimizers(self) -> dict:
        """See Optimization."""
        trainable = {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}
        return self.optimization.configure(trainable, int(self.trainer.estimated_stepping_batches))

    def answer(self, prompts: PromptBatch) -> list[Prediction]:
        """Generate the answers of a batch and read times from them."""
        return self.answering(self.model, prompts)

    def validation_step(self, batch: PromptBatch | Batch, batch_idx: int = 0, dataloader_idx: int = 0) -> list:
        """Answer queries and score the answers; or add up the loss of dialogues."""
        if isinstance(batch, Batch):
            output = self.model(batch) if batch.queries else None
            if output:
                self.validation_loss += torch.stack([output.row_loss.sum(), output.row_tokens.sum()])
            return []
        predictions = self.answer(batch)
        update_metrics(self.metrics, zip(batch.queries, predictions, strict=True))
        return predictions

    def on_validation_epoch_start(self) -> None:
        """Nothing is summed up yet."""
        self.validation_loss = torch.zeros(2, device=self.device)

    def on_validation_epoch_end(self) -> None:
        """Log every metric that had a query, and the mean cross-entropy over the tokens of all dialogues."""
        scores = compute_metrics(self.metrics, "val/")
        total, tokens = self.trainer.strategy.reduce(self.validation_loss, reduce_op="sum").tolist()
        if tokens:
            scores["val/lm_loss"] = total / tokens
        self.log_dict(scores)

    def test_step(self, batch: PromptBatch) -> list[Prediction]:
        """Answer queries; ``PredictionWriter`` gathers the answers."""
        return self.answer(batch)

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        """Keep what is trained, what a weights folder needs beside it, and the fingerprint of the base."""
        trained = {name for name, parameter in self.named_parameters() if parameter.requires_grad}
        checkpoint["state_dict"] = {k: v for k, v in checkpoint["state_dict"].items() if k in trained}
        checkpoint["base"] = self.base
        header = self.trainer.datamodule.header if self.trainer.datamodule else None
        checkpoint["parts"] = asdict(self.parts(header))

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        """Refuse a checkpoint of another base or with other parameters."""
        check_base(self.base, checkpoint.get("base"), "the checkpoint")
        expected = {name: p.shape for name, p in self.named_parameters() if p.requires_grad}
        check_keys("checkpoint", expected, {k: v.shape for k, v in checkpoint["state_dict"].items()})

    def parts(self, header: FeatureHeader | None) -> Parts:
        """What weights need beside the tensors that learn.

        Args:
            header: how the training features were made; None if that is not known.
        """
        return Parts.of(self.model, manifest(self, header), self.previous, len(self.merged))

    def weights(self, header: FeatureHeader | None = None) -> Weights:
        """The adapter, the head and the LoRAs as they are now; call it on every rank."""
        return assemble(learned_by(self), self.parts(header), list(self.merged))
