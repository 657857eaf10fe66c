"""How a run is spread over processes."""

from jsonargparse import Namespace

SHARDED = "fsdp2"
"""The name of ``Sharded`` for ``trainer.strategy``."""


def chosen_strategy(strategy: str | Namespace) -> str | Namespace:
    """The configured strategy; every name of FSDP2 means ``Sharded``.

    Raises:
        ValueError: FSDP1 or DeepSpeed is asked for, which keep parameters and checkpoints in forms of their own.
    """
    name = str(strategy.get("class_path", "") if isinstance(strategy, Namespace) else strategy)
    plain = name.rpartition(".")[2].lower().replace("_", "")
    if "deepspeed" in plain or ("fsdp" in plain and plain != SHARDED):
        raise ValueError(
            f"trainer.strategy {name}: parameters are split by FSDP2 alone here, so use --trainer.strategy {SHARDED}; "
            "or use ddp, with model.gradient_checkpointing where memory is short"
        )
    return strategy


def sharded(strategy: str | Namespace) -> bool:
    """Whether processes hold one model together."""
    return False
