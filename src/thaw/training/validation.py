"""Callback: which epochs are validated."""

from math import inf
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


class EvaluationEpochs(Callback):
    """Validates every n-th epoch, and the last one in any case, which Lightning's `check_val_every_n_epoch` may not.

    It does so at the end of the epoch, wherever else `val_check_interval` has it validated.
    """

    def __init__(self, every: int) -> None:
        super().__init__()
        self.every = every

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Have Lightning validate this epoch, or not."""
        epoch = trainer.current_epoch + 1
        is_due = epoch % self.every == 0 or epoch == trainer.max_epochs
        trainer.check_val_every_n_epoch = 1 if is_due else epoch + 1

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Have the end of the epoch validated, and what a callback has just ended."""
        if trainer.should_stop:
            trainer.check_val_every_n_epoch = 1
        if trainer.is_last_batch:  # both are set anew with the loaders, which each epoch has its own of
            trainer.val_check_batch = trainer.fit_loop.epoch_loop.batch_idx + 1
            trainer._last_val_time = -inf  # type: ignore[attr-defined]
