"""What happens within an epoch: the loss, on the progress bar and to the logger, and a sign of life in a long one."""

import logging
import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from torch import Tensor

log = logging.getLogger(__name__)

STEPS = 50
"""Whose mean loss is logged; on a GPU, each look at a loss waits for all that is under way there."""
SECONDS_OF_SILENCE = 60.0


class StepLog(Callback):
    """Logs the mean training loss of every 50 steps, and prints it about once a minute where there is no bar.

    Of several processes each looks at its own images.

    Args:
        speaks: Whether it prints lines, for there is no bar.

    Attributes:
        loss: Mean loss of the last steps, 50 at most; None at the beginning of an epoch.
    """

    def __init__(self, speaks: bool) -> None:
        super().__init__()
        self.speaks = speaks
        self.loss: float | None = None
        self.losses: list[Tensor] = []
        self.started = self.spoke = 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin anew."""
        self.loss, self.losses = None, []
        self.started = self.spoke = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep the step's loss, and look at it when it is time, or for the bar where that costs nothing."""
        self.losses.append(outputs["loss"].detach())
        is_time = len(self.losses) == STEPS
        if not is_time and (self.speaks or pl_module.device.type != "cpu"):
            return
        self.loss = loss = float(torch.stack(self.losses).mean())
        if not is_time:
            return
        self.losses = []
        for logger in trainer.loggers:
            logger.log_metrics({f"train/loss_{STEPS}_steps": loss}, trainer.global_step)
        now = time.perf_counter()
        if self.speaks and trainer.is_global_zero and now - self.spoke >= SECONDS_OF_SILENCE:
            self.spoke = now
            log.info(
                f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs} | batch {batch_idx + 1} of "
                f"{trainer.num_training_batches} | train loss {loss:.4f} | {now - self.started:.0f} s"
            )


class LossBar(RichProgressBar):
    """Lightning's progress bar with the loss of the last steps, and epochs counted as everywhere else."""

    def __init__(self, steps: StepLog) -> None:
        super().__init__(leave=False)
        self.steps = steps

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """What stands behind the bar: the loss, and what a callback or a subclass logs with `prog_bar=True`."""
        metrics: dict[str, Any] = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)  # of a logger that counts its runs
        return metrics if self.steps.loss is None else {"loss": f"{self.steps.loss:.4f}", **metrics}

    def _get_train_description(self, current_epoch: int) -> str:
        """Which epoch it is, counted from 1 as in the lines below the bar, where Lightning counts from 0."""
        return f"Epoch {current_epoch + 1}/{self.trainer.max_epochs}".ljust(len(self.validation_description))
