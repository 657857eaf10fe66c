"""In which precisions a stage is trained."""

import lightning as L

from datamodules.batch import Batch, PromptBatch


def check_precision(precision: str) -> None:
    """Refuse precisions in which nothing would be learned, or that exchange layers.

    Raises:
        ValueError: all of training is to be in float16, or in Transformer Engine.
    """
    if precision == "16-true":
        raise ValueError(
            "trainer.precision 16-true: what learns would be in float16, where AdamW's eps is 0 and weights become "
            "NaN; use 16-mixed, and model.dtype: float16 for the frozen language model"
        )
    if precision.startswith("transformer-engine"):
        raise ValueError(
            f"trainer.precision {precision}: Transformer Engine takes the place of linear layers, on which LoRA sits; "
            "use bf16-mixed"
        )


def keep_batches(trainer: L.Trainer) -> None:
    """Leave batches as they are, whatever the precision: adapters cast features, and nothing else is a number.

    The casts of Lightning's plugins go into every dataclass and fail at frozen ones, such as the queries.
    """
    trainer.precision_plugin.convert_input = _as_it_is


def _as_it_is(batch: Batch | PromptBatch) -> Batch | PromptBatch:
    return batch
