"""Callback: one CPU thread for training steps too small to share."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from thaw.data.sampling import Batch
from thaw.model.classifier import Classifier

SMALL = 10**7
"""Multiplications that one core does in less time than it takes to wake the others, which may be busy."""


class OneThread(Callback):
    """Does small training steps on a CPU in one thread: those of a head on stored features.

    To wake the other threads takes longer than they help, the more so where they wait for a core.
    """

    def __init__(self) -> None:
        super().__init__()
        self.num_threads = torch.get_num_threads()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        """Leave the other threads asleep."""
        assert isinstance(pl_module, Classifier)
        features = batch[0]
        if features.ndim == 2 and features.numel() * len(pl_module.classes) < SMALL and features.device.type == "cpu":
            torch.set_num_threads(1)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Let all of them work again."""
        torch.set_num_threads(self.num_threads)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Let all of them work in what comes after."""
        torch.set_num_threads(self.num_threads)
