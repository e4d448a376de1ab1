"""Callback: which epochs are validated."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


class EvaluationEpochs(Callback):
    """Validates every n-th epoch, and the last one in any case, which Lightning's `check_val_every_n_epoch` may not."""

    def __init__(self, every: int) -> None:
        super().__init__()
        self.every = every

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Have Lightning validate this epoch, or not."""
        epoch = trainer.current_epoch + 1
        is_due = epoch % self.every == 0 or epoch == trainer.max_epochs
        trainer.check_val_every_n_epoch = 1 if is_due else epoch + 1

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Have it validated after all if a callback has just ended the training."""
        if trainer.should_stop:
            trainer.check_val_every_n_epoch = 1
