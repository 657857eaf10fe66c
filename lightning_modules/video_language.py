"""The loop around a video language model: what is learned, how, and what is kept. Nothing here is about time."""

from abc import abstractmethod
from pathlib import Path
from typing import ClassVar

import lightning as L
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from datamodules.batch import Batch, PromptBatch
from datamodules.chat import chat_format
from datamodules.chat_formats import ChatFormat
from datamodules.dialogue import Dialogue
from datamodules.records import FeatureHeader
from datamodules.schema import Prediction
from datamodules.spatial_compression import Compression
from lightning_modules.answering import Answering, Generation
from lightning_modules.optimization import Optimization
from lightning_modules.scoring import compute_metrics, new_metrics, update_metrics
from lightning_modules.weights_folder import check_base, load_part, manifest
from localizers.base import Localizer
from models.adapters import Adapter, Linear
from models.checkpoints import Weights, check_keys, fingerprint, load_llm, load_tokenizer, read_weights, write_weights
from models.decoders import width
from models.video_llm import VideoLLM
from models.vocabulary import add_tokens
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
        gradient_checkpointing: recompute activations in the backward pass to save memory.
        optimization: optimiser and schedule.
        generation: decoding in validation and test.
    """

    takes_experts: ClassVar[bool] = False
    """Whether the stage can go on from a run that has experts."""

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
        gradient_checkpointing: bool = False,
        optimization: Optimization = Optimization(),  # noqa: B008 (frozen)
        generation: Generation = Generation(),  # noqa: B008 (frozen)
    ):
        super().__init__()
        self.llm_name, self.localizer, self.previous = llm, localizer, previous
        self.chat, self.system, self.style = chat, system, style
        self.feature_width, self.spatial, self.llm_dtype = feature_width, spatial, getattr(torch, dtype)
        self.gradient_checkpointing = gradient_checkpointing
        self.optimization = optimization
        self.adapter_settings = adapter
        compression = Compression.parse(spatial) if spatial else None
        questions = adapter.question_tokenizer()
        if compression and questions:
            raise ValueError("S-tokens go through the adapter as they are; this one reads patches with a question")
        tokenizer, text = load_tokenizer(llm), (localizer, style, max_text_tokens)
        chat = chat_format(chat, system, tokenizer)
        if localizer.generates and chat.asks and not chat.end:
            raise ValueError(f"chat format {chat.name!r} has no end token, so no answer would ever end; name another")
        self.dialogue = Dialogue(tokenizer, chat, *text, compression, questions, generation.one_prompt)
        self.answering = Answering(self.dialogue, generation)
        self.metrics = new_metrics()
        self.model: VideoLLM | None = None
        self.strict_loading = False  # a checkpoint holds what was trained; `on_load_checkpoint` checks every key

    @abstractmethod
    def build(self, llm: PreTrainedModel, weights: Weights) -> VideoLLM:
        """Put the model together from the frozen base and the previous stage, with the right parts trainable."""

    @abstractmethod
    def weights(self) -> Weights:
        """The adapter and the LoRAs as they are now."""

    def setup(self, stage: str) -> None:
        """Leave batches as they are, whatever the precision: adapters cast features, and nothing else is a number.

        The casts of Lightning's plugins go into every dataclass and fail at frozen ones, such as the queries.
        """
        self.trainer.precision_plugin.convert_input = as_it_is

    def configure_model(self) -> None:
        """Load the base, check that it is the one the previous stage was trained on, and build the stage."""
        if self.model is not None:
            return
        llm = load_llm(self.llm_name, self.llm_dtype).requires_grad_(False)
        self.base = {"name": self.llm_name, "fingerprint": fingerprint(llm)}
        add_tokens(llm, self.dialogue.tokenizer, self.dialogue.new_tokens, self.localizer.token_init)
        previous = read_weights(self.previous) if self.previous else Weights()
        check_base(self.base, previous.manifest.get("base"), f"the previous stage {self.previous}")
        if previous.experts and not self.takes_experts:
            raise ValueError(f"{self.previous} has experts, which cannot be merged; go on from it with ExpertTuning")
        # from_pretrained leaves modules in eval mode, which would switch gradient checkpointing off without a word.
        self.model = self.build(llm, previous).train()
        data = getattr(self._trainer, "datamodule", None)
        self.model.check(sharing=getattr(data, "queries_per_video", 1) > 1)
        if self.gradient_checkpointing:
            self.model.causal_lm.gradient_checkpointing_enable({"use_reentrant": False})

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
        return VideoLLM(llm, adapter, head, self.localizer.states, self.localizer.bidirectional)

    def training_step(self, batch: Batch) -> Tensor:
        """The sum of the language-model loss and the localizer's terms, each logged under its own name."""
        if not batch.queries:  # nothing could be read; this rank still takes part in the reduction
            return 0.0 * sum(parameter.sum() for parameter in self.parameters() if parameter.requires_grad)
        output = self.model(batch)
        ids = {token: number for number, token in self.dialogue.special.items()}
        lm_loss = self.localizer.lm_weight * output.lm_loss
        terms = {"lm": lm_loss, **self.localizer.loss(self.model.head, output.states, batch, ids)}
        loss = sum(terms.values())
        size = len(batch.queries)
        self.log_dict({f"train/{name}_loss": term.detach() for name, term in terms.items()}, batch_size=size)
        self.log("train/loss", loss.detach(), prog_bar=True, batch_size=size)
        return loss

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Log the gradient norm before clipping."""
        norms = [p.grad.norm() for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        self.log("train/grad_norm", torch.stack(norms).norm())

    def configure_optimizers(self) -> dict:
        """See Optimization."""
        trainable = {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}
        return self.optimization.configure(trainable, int(self.trainer.estimated_stepping_batches))

    def answer(self, prompts: PromptBatch) -> list[Prediction]:
        """Generate the answers of a batch and read times from them."""
        return self.answering(self.model, prompts)

    def validation_step(self, batch: PromptBatch) -> list[Prediction]:
        """Answer queries and score the answers."""
        predictions = self.answer(batch)
        update_metrics(self.metrics, zip(batch.queries, predictions, strict=True))
        return predictions

    def on_validation_epoch_end(self) -> None:
        """Log every metric that had a query."""
        self.log_dict(compute_metrics(self.metrics, "val/"))

    def test_step(self, batch: PromptBatch) -> list[Prediction]:
        """Answer queries; ``PredictionWriter`` gathers the answers."""
        return self.answer(batch)

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        """Keep what is trained, and the name and fingerprint of the base it was trained on."""
        trained = {name for name, parameter in self.named_parameters() if parameter.requires_grad}
        checkpoint["state_dict"] = {k: v for k, v in checkpoint["state_dict"].items() if k in trained}
        checkpoint["base"] = self.base

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        """Refuse a checkpoint of another base or with other parameters."""
        check_base(self.base, checkpoint.get("base"), "the checkpoint")
        expected = {name: p.shape for name, p in self.named_parameters() if p.requires_grad}
        check_keys("checkpoint", expected, {k: v.shape for k, v in checkpoint["state_dict"].items()})

    def save_weights(self, folder: Path, header: FeatureHeader | None) -> None:
        """Write a weights folder: what the next stage, evaluation and other people need beside the base.

        Args:
            folder: of the weights.
            header: how the training features were made; None if that is not known.
        """
        weights = self.weights()
        weights.manifest = manifest(self, header)
        write_weights(folder, weights)


def as_it_is(batch: Batch | PromptBatch) -> Batch | PromptBatch:
    """The batch."""
    return batch
