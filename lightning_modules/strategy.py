"""How a run is spread over processes: each with a whole model (DDP), or all with one together (FSDP2)."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
import torch.distributed as dist
from jsonargparse import Namespace
from lightning.pytorch.strategies import ModelParallelStrategy, StrategyRegistry
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from callbacks.step_log import gradient_norm
from datamodules.batch import Batch
from datamodules.chat import IGNORE
from models.decoders import layers
from models.training_checkpoints import whole

SHARDED = "fsdp2"
"""The name of ``Sharded`` for ``trainer.strategy``."""


class Sharded(ModelParallelStrategy):
    """FSDP2: every process holds a part of each parameter, and gathers a decoder layer while it runs.

    Checkpoints are those of DDP: what learns, whole, in one file, so that a run can go on in the other way.
    """

    def __init__(self):
        super().__init__(save_distributed_checkpoint=False)
        self.replicated: list[nn.Parameter] = []
        """Parameters that cannot be split, because they are single numbers."""

    @property
    def lightning_restore_optimizer(self) -> bool:
        """See ``load_optimizer_state_dict``."""
        return True

    def setup_environment(self) -> None:
        """All processes are one data-parallel group."""
        self._data_parallel_size, self._tensor_parallel_size = self.num_nodes * self.num_processes, 1
        super().setup_environment()

    def build(self, load: Callable[[], nn.Module], empty: Callable[[], nn.Module]) -> nn.Module:
        """A model whose parameters are split, each in its own dtype; the whole of it is in rank 0's memory alone.

        Args:
            load: makes the model on the CPU; called on rank 0.
            empty: makes the same model without numbers; called elsewhere.
        """
        with torch.device("cpu"):
            model = load() if self.is_global_zero else empty()
        whole = {name: value.detach() for name, value in (*model.named_parameters(), *model.named_buffers())}
        mesh = self.device_mesh["data_parallel"]
        scalars = {parameter for parameter in model.parameters() if parameter.ndim == 0}
        for layer in layers(model.causal_lm):
            fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh, ignored_params=scalars)
        register_fsdp_forward_method(model, "generate")
        model = model.to(self.root_device) if self.is_global_zero else model.to_empty(device=self.root_device)
        with torch.no_grad():
            for name, value in (*model.named_parameters(), *model.named_buffers()):
                value.copy_(part_of(self._from_first(whole[name]), value))
        self.replicated = [parameter for parameter in model.parameters() if parameter.ndim == 0]
        return model

    def _from_first(self, value: Tensor) -> Tensor:
        """Rank 0's values on every device."""
        device = self.root_device
        value = value.to(device) if self.is_global_zero else torch.empty(value.shape, dtype=value.dtype, device=device)
        dist.broadcast(value, 0)
        return value

    def post_backward(self, closure_loss: Tensor) -> None:
        """Average the gradients of what is not split. What was accumulated before is equal already, and stays so."""
        super().post_backward(closure_loss)
        for parameter in self.replicated:
            if parameter.grad is not None:
                dist.all_reduce(parameter.grad)
                parameter.grad /= self.world_size

    def lightning_module_state_dict(self) -> dict[str, Tensor]:
        """What learns, whole, on rank 0."""
        learned = learned_by(self.lightning_module)
        return {name: value.cpu() for name, value in learned.items()} if self.is_global_zero else {}

    def load_checkpoint(self, checkpoint_path, weights_only: bool | None = None) -> dict:
        """The same on every process, which takes its part of it."""
        return torch.load(checkpoint_path, map_location="cpu", weights_only=True, mmap=True)

    def load_model_state_dict(self, checkpoint: Mapping, strict: bool = True) -> None:
        """Take this process's part of what was learned; the module has checked the names."""
        learned = checkpoint["state_dict"]
        with torch.no_grad():
            for name, parameter in self.lightning_module.named_parameters():
                if name in learned:
                    parameter.copy_(part_of(learned[name].to(self.root_device), parameter))

    def optimizer_state(self, optimizer: Optimizer) -> dict:
        """Whole, as one process alone would have it."""
        state = getattr(optimizer, "_optimizer", optimizer).state_dict()
        return {**state, "state": {key: on_cpu(moments) for key, moments in state["state"].items()}}

    def load_optimizer_state_dict(self, checkpoint: Mapping) -> None:
        """Take this process's part of each parameter's state."""
        for optimizer, kept in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            state = {
                key: {
                    name: part_of(value.to(parameter.device), parameter) if value.shape == parameter.shape else value
                    for name, value in moments.items()
                }
                for (key, moments), parameter in zip(sorted(kept["state"].items()), parameters, strict=True)
            }
            optimizer.load_state_dict({**kept, "state": state})


StrategyRegistry.register(SHARDED, Sharded, description="FSDP2: processes hold one model together")


class StandIn:
    """Gives a process something to run where nothing of its batch could be read: its last one, without labels.

    The others wait for this one's part of every layer, so that it has to run them too.
    """

    def __init__(self):
        self.last: Batch | None = None

    def __call__(self, batch: Batch) -> Batch:
        """The batch itself where there is something in it. Raises ValueError if there never was."""
        if batch.queries:
            self.last = batch
            return batch
        if self.last is None:
            raise ValueError("nothing of the first batch could be read, see data.on_error")
        return replace(self.last, labels=torch.full_like(self.last.labels, IGNORE), counts=batch.counts)


def clip_split(optimizer: Optimizer, most: float) -> None:
    """Scale gradients, of which some are split over processes and others are not, to a norm of at most ``most``."""
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    factor = float((most / (gradient_norm(gradients) + 1e-6)).clamp(max=1.0))
    for gradient in gradients:
        gradient.mul_(factor)


def part_of(value: Tensor, like: Tensor) -> Tensor:
    """Whole values, the same on every process, split as a parameter is; as they are where it is not."""
    if not isinstance(like, DTensor):
        return value
    return distribute_tensor(value, like.device_mesh, like.placements, src_data_rank=None)


def learned_by(module: nn.Module) -> dict[str, Tensor]:
    """Whole values of what learns, by name; all processes must call it.

    Args:
        module: with a ``VideoLLM`` as ``model``.
    """
    if module.model.sharded:
        module.model.reshard()  # a forward pass leaves what is not in a decoder layer gathered
    return {name: whole(parameter) for name, parameter in module.named_parameters() if parameter.requires_grad}


def on_cpu(moments: dict) -> dict:
    """An optimiser's state of one parameter."""
    return {name: whole(value).cpu() if isinstance(value, Tensor) else value for name, value in moments.items()}


def chosen_strategy(strategy: str | Namespace) -> str | Namespace:
    """The configured strategy; Lightning's own FSDP2, too, means ``Sharded``.

    Raises:
        ValueError: FSDP1 or DeepSpeed is asked for, which keep parameters and checkpoints in forms of their own, or
            tensors are to be split.
    """
    name = str(strategy.get("class_path", "") if isinstance(strategy, Namespace) else strategy)
    plain = name.rpartition(".")[2].lower().replace("_", "")
    if "deepspeed" in plain or ("fsdp" in plain and plain != SHARDED):
        raise ValueError(
            f"trainer.strategy {name}: parameters are split by FSDP2 alone here, so use --trainer.strategy {SHARDED}; "
            "or use ddp, with model.gradient_checkpointing where memory is short"
        )
    if not plain.startswith("modelparallel"):
        return strategy
    settings = strategy.get("init_args") or {} if isinstance(strategy, Namespace) else {}
    if settings.get("tensor_parallel_size", "auto") not in (1, "auto"):
        raise ValueError(f"trainer.strategy {name}: layers are not split, only what holds them: tensor_parallel_size 1")
    return SHARDED


def check_sharded(module) -> None:
    """Refuse what parameters that are split cannot carry.

    Raises:
        ValueError: naming it.
    """
    if not module.localizer.generates:
        raise ValueError(
            f"trainer.strategy {SHARDED}: {type(module).__name__} runs no language model to split; use ddp"
        )
    if module.quantization:
        raise ValueError(
            f"trainer.strategy {SHARDED}: 4-bit and 8-bit weights are not split; use ddp, or no model.quantization"
        )
