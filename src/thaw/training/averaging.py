"""The exponential moving average of the weights, which is evaluated and kept in their place."""

from collections.abc import Callable

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor


class MovingAverage(WeightAveraging):
    """Lightning's average of the weights, on the device and in the precision of the training.

    Args:
        decay: What the average keeps of itself in each step, but for the first.
    """

    def __init__(self, decay: float) -> None:
        super().__init__(avg_fn=moving_average(decay))

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Copy the weights as they will be trained: Lightning converts and moves them only later."""
        trainer.precision_plugin.convert_module(pl_module)
        self._device = trainer.strategy.root_device
        super().setup(trainer, pl_module, stage)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the model with the average also where a resumed run had no epoch left."""
        self._copy_average_to_current(pl_module)


def moving_average(decay: float) -> Callable[[Tensor, Tensor, Tensor | int], Tensor]:
    """The exponential moving average of a tensor, as torch's AveragedModel asks for it, after each step.

    After t steps it keeps (1 + t) / (10 + t) of itself, and `decay` at most, as TensorFlow's ExponentialMovingAverage:
    else most of a short training's average would be the weights that it began with. What does not change, as a frozen
    weight, stays as it is to the last bit; torch's own does not see to that, and rounds whole numbers, such as Swin's
    table of positions, to others.
    """

    def average(mean: Tensor, current: Tensor, num_averaged: Tensor | int) -> Tensor:
        if not mean.is_floating_point():
            return current
        steps = torch.as_tensor(num_averaged, dtype=mean.dtype, device=mean.device)  # on a GPU it stays there
        kept = ((1 + steps) / (10 + steps)).clamp(max=decay)
        return mean.lerp(current, 1 - kept)

    return average
