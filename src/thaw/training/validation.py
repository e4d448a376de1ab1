"""Callback: which epochs are validated."""

from lightning.pytorch import Callback, LightningModule, Trainer


class EvaluationEpochs(Callback):
    """Validates every n-th epoch from a first one on, and the last epoch in any case.

    Lightning validates where `check_val_every_n_epoch` divides the number of the epoch; it has no first one.
    """

    def __init__(self, first: int, every: int) -> None:
        super().__init__()
        self.first = first
        self.every = every

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make Lightning's condition true or false for this epoch."""
        epoch = trainer.current_epoch + 1
        is_due = (epoch >= self.first and (epoch - self.first) % self.every == 0) or epoch == trainer.max_epochs
        trainer.check_val_every_n_epoch = 1 if is_due else epoch + 1
