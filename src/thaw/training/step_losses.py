"""The losses within an epoch: they have to be finite, and are logged, on the progress bar or as a sign of life."""

import logging
import math
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from torch import Tensor

from thaw.errors import ThawError
from thaw.model.classifier import weight_in_step

log = logging.getLogger(__name__)

STEPS = 50
"""Steps whose mean loss is logged; on a GPU, each look at a loss waits for all that is under way there."""
SECONDS_OF_SILENCE = 60.0


class StepLosses(Callback):
    """Stops a training whose loss is infinite or no number, before anything of it is saved, and logs every 50 steps.

    Where there is no bar it prints a line about once a minute. Of several processes each looks at its own images.

    Args:
        last: `last.ckpt`, for the message.
        speaks: Whether it prints lines, for there is no bar.
    """

    def __init__(self, last: Path, speaks: bool) -> None:
        super().__init__()
        self.last, self.speaks = last, speaks
        self.on_device: list[Tensor] = []
        self.losses: list[float] = []
        self.fault = ""
        self.started = self.spoke = 0.0

    @property
    def loss(self) -> float | None:
        """Mean loss of the last steps, 50 at most; None at the beginning of an epoch."""
        recent = self.losses[(len(self.losses) - 1) // STEPS * STEPS :]
        return sum(recent) / len(recent) if recent else None

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the epoch before."""
        self.on_device, self.losses, self.fault = [], [], ""
        self.started = self.spoke = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep the step's loss, and look at it when it is time, or at once where that costs nothing."""
        share = weight_in_step(trainer, batch_idx) / trainer.accumulate_grad_batches  # of the batch in its step
        loss = outputs["loss"].detach()
        self.on_device.append(loss if share == 1 else loss / share)
        is_time = (batch_idx + 1) % STEPS == 0
        if is_time or pl_module.device.type == "cpu":
            self._fetch()
            if trainer.world_size == 1:  # several processes can only agree where all of them ask
                self._require_finite(trainer)
        if is_time:
            self._log(trainer, batch_idx)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the rest, before the epoch can become the best."""
        self._fetch()
        self._require_finite(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at what the last step has left, which no training loss shows any more."""
        loss = trainer.callback_metrics.get("val/loss")
        if loss is not None and not loss.isfinite():
            raise self._error(f"val/loss is {float(loss)} after epoch {trainer.current_epoch + 1}")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the rest of an epoch that is not validated."""
        self._fetch()
        self._require_finite(trainer)

    def _fetch(self) -> None:
        for loss in torch.stack(self.on_device).tolist() if self.on_device else []:
            self.losses.append(loss)
            if not (self.fault or math.isfinite(loss)):
                self.fault = f"{loss} at step {len(self.losses)}"
        self.on_device = []

    def _require_finite(self, trainer: Trainer) -> None:
        if trainer.strategy.reduce_boolean_decision(bool(self.fault), all=False):
            value = self.fault or "no number on another process"
            raise self._error(f"train/loss is {value} of epoch {trainer.current_epoch + 1}")

    def _error(self, fact: str) -> ThawError:
        kept = f"{self.last} is of an earlier epoch. " if self.last.exists() else ""
        return ThawError(
            f"{fact}: the training has diverged. {kept}Lower optimizer.lr, or bound the steps with "
            "trainer.gradient_clip=1.0; trainer.precision=32 shows whether the precision is too low."
        )

    def _log(self, trainer: Trainer, batch_idx: int) -> None:
        loss = sum(self.losses[-STEPS:]) / STEPS
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

    def __init__(self, steps: StepLosses) -> None:
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
