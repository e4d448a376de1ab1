"""Steps too small to be shared: a head on stored features."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from thaw.data.sampling import Batch
from thaw.model.classifier import Classifier

SMALL = 10**7
"""Multiplications of a step that one core does in less time than it takes to call the others, who may be busy."""


class OneThread(Callback):
    """Has one thread do a training step on a CPU that is small.

    To wake the others takes longer than they help, the more so where other programs keep them waiting for a core.
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
