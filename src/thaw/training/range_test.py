"""The learning-rate range test (Smith 2017, arXiv:1506.01186): a short training at a rising rate, until it diverges.

Lightning 2.6's own, `Tuner.lr_find`, cannot serve: it gives every parameter group the same rate, so the strategy's
ratios are lost, and it ends after `max_epochs`, on a small data set before it has begun.
"""

import sys
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cached_property
from math import isfinite
from typing import Any

import lightning.pytorch as pl
import numpy as np
from lightning.pytorch.utilities.seed import isolate_rng
from numpy.typing import NDArray
from rich.progress import Progress

from thaw.config import Config, FindLrConfig, ScheduleConfig
from thaw.data.datamodule import ImageDataModule
from thaw.errors import ThawError
from thaw.model.classifier import Classifier
from thaw.model.strategy import held_at_start, rate_factors
from thaw.training.building import frozen_backbone
from thaw.training.probe import LinearProbe
from thaw.training.trainer import bare_trainer, fit

SMOOTHING, DIVERGED = 0.98, 4.0  # fastai's
LATEST = 5  # losses, whose median tells it sooner: a network that has died is soon back at the loss of guessing
LEAST_STEPS, LEAST_FALL = 10, 0.05  # with less there is nothing to suggest
LEARNED = 0.3  # share of the loss that is left where the images have been learned


@dataclass(frozen=True)
class RangeTest:
    """What a range test has measured, and the rates that it suggests.

    Attributes:
        rates: `optimizer.lr` of each step (N,), rising by a constant factor.
        losses: Training loss of each step's batch (N,).
        learns: What learned, in words.
        diverged: Whether the loss did, at the last of these rates.
    """

    rates: NDArray[np.float64]
    losses: NDArray[np.float64]
    learns: str
    diverged: bool = True

    @cached_property
    def smoothed(self) -> NDArray[np.float64]:
        """The losses' exponential moving average (N,), without its bias towards 0."""
        return smooth(self.losses)

    @property
    def valley(self) -> float:
        """The rate halfway down the longest fall of the smoothed loss."""
        start, end = longest_fall(self._middle(self.smoothed))
        return _round(self._middle(self.rates)[start + (end - start) // 2])

    @property
    def steepest(self) -> float:
        """The rate at which the smoothed loss falls fastest on its way to its minimum, by the logarithm of the rate."""
        from scipy.signal import savgol_filter  # takes a second to import

        curve = self._middle(self.smoothed)
        slopes = savgol_filter(curve, min(15, len(curve)), polyorder=1, deriv=1)
        return _round(self._middle(self.rates)[int(np.argmin(slopes[: int(np.argmin(curve)) + 1]))])

    def doubt(self) -> str | None:
        """A line about a range that ends too early, where most of the curve is missing; None where it does not.

        Where the loss has fallen near to 0, as of a head that tells few images apart, higher rates add nothing.
        """
        curve = self._middle(self.smoothed)
        if self.diverged or curve.min() < LEARNED * curve[0]:
            return None
        highest = self.rates[-1]
        return (
            f"The loss never diverged up to find_lr.highest={highest:g}, so the suggestion is weak: try "
            f"find_lr.highest={_round(10 * highest):g}"
        )

    def require_fall(self) -> None:
        """Check that there is something to suggest.

        Raises:
            ThawError: The loss has hardly fallen, or diverged at once.
        """
        curve = self._middle(self.smoothed)
        if len(curve) < LEAST_STEPS:
            raise ThawError(
                f"The loss diverges within {len(self.rates)} steps of the range test, too few to suggest a rate. "
                "Lower find_lr.lowest, or raise find_lr.num_steps."
            )
        if curve.min() > (1 - LEAST_FALL) * curve[0]:
            option = "find_lr.num_steps" if self.diverged else "find_lr.highest or find_lr.num_steps"
            raise ThawError(
                f"No optimizer.lr from {self.rates[0]:.2g} to {self.rates[-1]:.2g} lowers the loss by {LEAST_FALL:.0%} "
                f"within {len(self.rates)} steps. Raise {option}, or set optimizer.lr."
            )

    def _middle(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Without the first tenth, where the average is young, and the last five, where the loss is on its way up."""
        return values[len(values) // 10 : -5]


class RateRamp(pl.Callback):
    """Raises `optimizer.lr` from step to step and notes the loss; the classifier makes each group's rate of it.

    Attributes:
        rates: `optimizer.lr` of each step with a finite loss.
        losses: Their losses.
        diverged: Whether the loss has, which ends the test.
    """

    def __init__(self, options: FindLrConfig, progress: Progress) -> None:
        super().__init__()
        self.ramp = np.geomspace(options.lowest, options.highest, options.num_steps)
        self.progress = progress
        self.task = progress.add_task("Learning-rate range test", total=options.num_steps)
        self.rates: list[float] = []
        self.losses: list[float] = []
        self.diverged = False
        self._parts: list[float] = []

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Set the step's rate, before the classifier's own hook reads it."""
        assert isinstance(pl_module, Classifier)
        pl_module.optimizer_options = replace(pl_module.optimizer_options, lr=float(self.ramp[trainer.global_step]))

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note the step's loss, the mean over its batches and processes; stop where it diverges."""
        # Already divided by the number of batches of the step.
        self._parts.append(float(trainer.strategy.reduce(outputs["loss"], reduce_op="mean")))
        step = len(self.losses)
        if trainer.global_step == step:
            return
        loss = sum(self._parts)
        self._parts.clear()
        if isfinite(loss):
            self.rates.append(float(self.ramp[step]))
            self.losses.append(loss)
        self.diverged = trainer.should_stop = not isfinite(loss) or has_diverged(self.losses)
        self.progress.update(self.task, completed=step + 1)


def has_diverged(losses: Sequence[float]) -> bool:
    """Whether the loss is far above its least: on average, which lags behind, or in most of the latest steps."""
    if not losses:
        return False
    smoothed = smooth(np.array(losses))
    return bool(max(smoothed[-1], np.median(losses[-LATEST:])) > DIVERGED * smoothed.min())


def smooth(losses: NDArray[np.float64]) -> NDArray[np.float64]:
    """Exponential moving average (N,) of losses (N,), each divided by the sum of its weights."""
    average, averages = 0.0, []
    for step, loss in enumerate(losses, start=1):
        average = SMOOTHING * average + (1 - SMOOTHING) * float(loss)
        averages.append(average / (1 - SMOOTHING**step))
    return np.array(averages)


def longest_fall(losses: NDArray[np.float64]) -> tuple[int, int]:
    """Start and end of the longest decreasing subsequence; it is taken to be without gaps, up to its end.

    This is how fastai's `valley` counts, which skips the noise where nothing is learned yet.
    """
    lengths = np.ones(len(losses), dtype=int)
    for step in range(1, len(losses)):
        above = lengths[:step][losses[:step] > losses[step]]
        lengths[step] += above.max(initial=0)
    end = int(np.argmax(lengths))
    return max(end - int(lengths[end]), 0), end


def _round(rate: float) -> float:
    """Two digits: what is printed is what is used, and no more of it is known."""
    return float(f"{rate:.2g}")


def run_range_test(config: Config, data: ImageDataModule, model: Classifier) -> RangeTest:
    """Train a copy of the model at a rising rate; model, data and generators are left as they were.

    What learns, and on crops of which side, is as in the first epoch, because only there are the weights those that the
    test begins with. The rates of what thaws later are the strategy's ratios to it. Epochs are repeated as often as the
    steps need.

    Args:
        config: The options; `optimizer.lr` and the schedule do not matter.
        data: Set up.
        model: As it would be trained.

    Raises:
        ThawError: The loss diverges at once, or never falls, or nothing is to be trained.
    """
    if config.trainer.max_epochs == 0:
        raise ThawError("trainer.max_epochs=0 trains nothing, so there is no optimizer.lr to find.")
    num_stages, num_steps = len(model.backbone.stages), config.find_lr.num_steps
    test = deepcopy(model)
    test.strategy = held_at_start(config.strategy, num_stages)
    test.schedule = ScheduleConfig("constant")
    test.optimizer_options = replace(config.optimizer, lr=config.find_lr.lowest)
    config = replace(config, strategy=test.strategy)
    show_bar = config.trainer.progress_bar and sys.stdout.isatty()
    with Progress(transient=True, disable=not show_bar) as progress, isolate_rng():
        ramp = RateRamp(config.find_lr, progress)
        flags = {
            "max_epochs": num_steps,  # an epoch has one step at least
            "max_steps": num_steps,
            "limit_val_batches": 0,
            # With head.init=auto a random head is tested: from the probe no rate would lower the loss by much.
            "callbacks": [LinearProbe(data, start=True), ramp] if config.head.init == "probe" else [ramp],
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "detect_anomaly": False,  # it would end with an error where the loss diverges
        }
        trainer = bare_trainer(config, num_stages, config.trainer.extra | flags)
        data.features.backbone = frozen_backbone(config, trainer, test)
        with data.without_growth():
            fit(trainer, test, data)
        data.features.backbone = data.trainer = None
    result = RangeTest(np.array(ramp.rates), np.array(ramp.losses), _what_learns(test), ramp.diverged)
    result.require_fall()
    return result


def _what_learns(model: Classifier) -> str:
    assert model.strategy is not None
    factors = rate_factors(model.strategy, 0, len(model.backbone.stages))[:-1]
    num_learning = sum(factor > 0 for factor in factors)
    if not num_learning:
        return "the head alone"
    return f"{'all' if num_learning == len(factors) else f'{num_learning} of'} {len(factors)} stages and the head"
