"""One CPU thread for work too small to share: a callback for training, and a context for the probe."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from thaw.data.sampling import Batch
from thaw.model.classifier import Classifier

SMALL = 10**7
"""Multiplications that one core does in less time than it takes to wake the others, which may be busy."""


@contextmanager
def one_thread() -> Iterator[None]:
    """Inside, torch works in one CPU thread; afterwards in as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class OneThread(Callback):
    """Does small steps on a CPU in one thread, and what lies between them in an epoch: those of a head on features.

    To wake the other threads takes longer than they help, and a scheduler's turn (12 ms) where they wait for a core.
    """

    def __init__(self) -> None:
        super().__init__()
        self.num_threads = torch.get_num_threads()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        """Leave the other threads asleep, or wake them."""
        self._choose(pl_module, batch)

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Leave the other threads asleep, or wake them."""
        self._choose(pl_module, batch)

    def _choose(self, model: LightningModule, batch: Batch) -> None:
        assert isinstance(model, Classifier)
        features = batch[0]
        is_small = features.ndim == 2 and features.numel() * len(model.classes) < SMALL
        torch.set_num_threads(1 if is_small and features.device.type == "cpu" else self.num_threads)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let all of them work again."""
        torch.set_num_threads(self.num_threads)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Let all of them work in what comes after."""
        torch.set_num_threads(self.num_threads)
