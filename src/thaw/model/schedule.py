"""How learning rate and momentum change: a pure function of the time."""

from math import cos, pi
from typing import NamedTuple

from thaw.config import ScheduleConfig


class Pace(NamedTuple):
    """Where a schedule stands: `rate` multiplies the learning rate, `dip` is 0 at full and 1 at low momentum."""

    rate: float
    dip: float


def pace_at(options: ScheduleConfig, epoch: float, num_epochs: int, head_epochs: int = 0) -> Pace:
    """Learning-rate and momentum factors after `epoch` of `num_epochs` epochs.

    Args:
        options: The schedule.
        epoch: Epochs done, in [0, num_epochs); fractional within an epoch.
        num_epochs: Length of the training.
        head_epochs: Epochs in which the head learns alone: with `options.per_phase` a schedule of their own.
    """
    if options.per_phase:
        if epoch < head_epochs:
            num_epochs = head_epochs
        else:
            epoch, num_epochs = epoch - head_epochs, num_epochs - head_epochs
    if epoch < options.warmup_epochs:
        start = _after_warmup(options, 0.0, num_epochs)
        return start._replace(rate=start.rate * epoch / options.warmup_epochs)
    return _after_warmup(options, epoch - options.warmup_epochs, num_epochs - options.warmup_epochs)


def _after_warmup(options: ScheduleConfig, epoch: float, num_epochs: float) -> Pace:
    progress = epoch / num_epochs
    match options.name:
        case "constant":
            return Pace(1.0, 0.0)
        case "step":
            return Pace(options.step_factor ** (epoch // options.step_epochs), 0.0)
        case "cosine":
            return Pace(_anneal(1.0, options.final_factor, progress), 0.0)
        case "one_cycle":
            return _one_cycle(options, progress)
    raise AssertionError(options.name)


def _one_cycle(options: ScheduleConfig, progress: float) -> Pace:
    """Rate up and momentum down, then back (Smith 2018, arXiv:1803.09820), along half cosines as fastai has it."""
    if progress < options.peak_fraction:
        rise = progress / options.peak_fraction
        return Pace(_anneal(options.start_factor, 1.0, rise), _anneal(0.0, 1.0, rise))
    fall = (progress - options.peak_fraction) / (1 - options.peak_fraction)
    return Pace(_anneal(1.0, options.final_factor, fall), _anneal(1.0, 0.0, fall))


def _anneal(start: float, end: float, progress: float) -> float:
    """Value on a half cosine from `start` at 0 to `end` at 1."""
    return end + (start - end) * (1 + cos(pi * progress)) / 2
