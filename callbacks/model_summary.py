"""What a model consists of, and what of it learns."""

from lightning.pytorch.callbacks import Callback

from command_line.tables import print_table


class TrainedParts(Callback):
    """Prints the numbers of each part when training starts."""

    def on_train_start(self, trainer, pl_module) -> None:
        """On rank 0."""
        if not trainer.is_global_zero:
            return
        rows = []
        for name, part in pl_module.model.named_children():
            sizes = [(p.numel(), p.requires_grad) for p in part.parameters()]
            rows.append((name, f"{sum(n for n, _ in sizes):,}", f"{sum(n for n, learns in sizes if learns):,}"))
        print_table("the model", ("part", "numbers", "that learn"), rows)
