"""The exponential moving average of the weights, which is evaluated and kept in their place."""

from collections.abc import Iterator
from itertools import chain
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor, nn


class MovingAverage(WeightAveraging):
    """Lightning's average of the weights, on the device and in the precision of the training.

    After t steps it keeps (1 + t) / (10 + t) of itself, and `decay` at most, as TensorFlow's ExponentialMovingAverage:
    else most of a short training's average would be the weights that it began with. What does not change, as a frozen
    weight, stays as it is to the last bit; torch's own does not see to that, and rounds whole numbers, such as Swin's
    table of positions, to others.

    Args:
        decay: What the average keeps of itself in each step, but for the first.
    """

    def __init__(self, decay: float) -> None:
        super().__init__()
        self.decay = decay

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Copy the weights as they will be trained: Lightning converts and moves them only later."""
        trainer.precision_plugin.convert_module(pl_module)
        self._device = trainer.strategy.root_device
        super().setup(trainer, pl_module, stage)
        if self._average_model is not None:
            self._average_model.n_averaged = self._average_model.n_averaged.cpu()  # to be looked at without waiting

    @torch.no_grad()
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lay the average out as the weights, channels-last on a GPU by now, and begin it with the head that is there.

        Where layouts differ, torch moves one tensor after the other.
        """
        assert self._average_model is not None
        is_new = int(self._average_model.n_averaged) == 0
        for mean, value in self._pairs(pl_module):
            mean.data = torch.empty_like(value).copy_(value if is_new else mean)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move the average if the optimizer has made a step.

        All tensors are moved at once. torch's own update copies its counter to the GPU each time, and waits.
        """
        if trainer.global_step > self._latest_update_step:
            self._move(pl_module)
            self._latest_update_step = trainer.global_step

    @torch.no_grad()
    def _move(self, pl_module: LightningModule) -> None:
        assert self._average_model is not None
        steps = int(self._average_model.n_averaged)
        kept = min((1 + steps) / (10 + steps), self.decay) if steps else 0.0
        pairs = self._pairs(pl_module)
        means, weights = zip(*(pair for pair in pairs if pair[0].is_floating_point()), strict=True)
        torch._foreach_lerp_(means, weights, 1 - kept)
        for mean, value in pairs:
            if not mean.is_floating_point():
                mean.copy_(value)
        self._average_model.n_averaged += 1

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the model with the average also where a resumed run had no epoch left."""
        self._copy_average_to_current(pl_module)

    def _pairs(self, pl_module: LightningModule) -> list[tuple[Tensor, Tensor]]:
        """Each tensor of the average, and the module's own."""
        assert self._average_model is not None
        return list(zip(_tensors(self._average_model.module), _tensors(pl_module), strict=True))


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    return chain(module.parameters(), module.buffers())
