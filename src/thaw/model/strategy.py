"""Which stages learn and how fast: a pure function of the epoch and the number of stages."""

from dataclasses import replace
from itertools import groupby
from math import ceil

from thaw.config import StrategyConfig


def rate_factors(options: StrategyConfig, epoch: int, num_stages: int) -> list[float]:
    """Learning rate over `optimizer.lr` of every stage, first to last, and then of the head; 0 means frozen.

    Between the first and the last stage the rate is geometric in relative depth, so one setting means the same for
    a backbone of 7 stages and one of 81 (discriminative rates: Howard and Ruder 2018, arXiv:1801.06146).

    Args:
        options: The strategy.
        epoch: Current epoch, from 0.
        num_stages: Stages of the backbone.
    """
    if epoch < options.head_epochs:
        return [0.0] * num_stages + [1.0]
    joint = options.joint_factor if options.head_epochs else 1.0
    first_trainable = num_stages - _num_trainable_stages(options, epoch, num_stages)
    factors = [
        joint * options.backbone_factor * options.first_stage_factor ** (1 - stage / max(num_stages - 1, 1))
        for stage in range(num_stages)
    ]
    return [0.0] * first_trainable + factors[first_trainable:] + [joint]


def _num_trainable_stages(options: StrategyConfig, epoch: int, num_stages: int) -> int:
    # Rounded up, but for what floating point adds: 0.28 * 50 is just above 14.
    share = ceil(options.trainable_fraction * num_stages - 1e-9)
    num_in_the_end = min(options.trainable_stages or share, num_stages)
    if not options.unfreeze_epochs:
        return num_in_the_end
    epochs = min(epoch - options.head_epochs + 1, options.unfreeze_epochs)
    return -(-epochs * num_in_the_end // options.unfreeze_epochs)


def held_at_start(options: StrategyConfig, num_stages: int) -> StrategyConfig:
    """The strategy that keeps to the first epoch's factors for ever."""
    if options.head_epochs:
        return replace(options, name="frozen", backbone_factor=0.0, head_epochs=0)
    return replace(options, unfreeze_epochs=0, trainable_stages=_num_trainable_stages(options, 0, num_stages))


def is_still_frozen(options: StrategyConfig, epoch: int, num_stages: int) -> bool:
    """True if no stage of the backbone learns in the epoch, nor has before: what thaws never freezes again."""
    return not any(rate_factors(options, epoch, num_stages)[:-1])


def rate_groups(options: StrategyConfig, num_stages: int) -> list[list[int]]:
    """Neighbouring parts, stages and then the head (number `num_stages`), that have the same factor in every epoch."""
    epochs = options.head_epochs + options.unfreeze_epochs + 1  # after which nothing changes
    factors = list(zip(*(rate_factors(options, epoch, num_stages) for epoch in range(epochs)), strict=True))
    return [list(parts) for _, parts in groupby(range(num_stages + 1), key=lambda part: factors[part])]


def ever_trainable(options: StrategyConfig, num_epochs: int, num_stages: int) -> list[bool]:
    """For every stage and then the head: does it learn in any of the epochs?"""
    epochs = [rate_factors(options, epoch, num_stages) for epoch in range(num_epochs)]
    return [any(factors) for factors in zip(*epochs, strict=True)]


def phase_starts(options: StrategyConfig, num_epochs: int, num_stages: int) -> list[int]:
    """Epochs, from 0, at which the set of learning stages or their rates change; 0 is the first of any."""
    factors = [rate_factors(options, epoch, num_stages) for epoch in range(num_epochs)]
    return [epoch for epoch in range(num_epochs) if epoch == 0 or factors[epoch] != factors[epoch - 1]]
