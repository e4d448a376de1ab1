"""The optimizer: parameter groups by part of the network, and what their rates and momentum are at a moment."""

from collections.abc import Iterable, Sequence
from typing import Any

from torch.nn import Parameter
from torch.optim import SGD, AdamW, Optimizer

from thaw.config import OptimizerConfig
from thaw.model.schedule import Pace


def make_optimizer(options: OptimizerConfig, parts: Sequence[Iterable[Parameter]], fused: bool) -> Optimizer:
    """The optimizer of a network's parts: a group of each with weight decay and one without; they never change.

    Args:
        options: Which, and how.
        parts: Parameters of every stage, first to last, and then of the head.
        fused: Whether all parameters are stepped in one kernel.
    """
    groups: list[dict[str, Any]] = []
    for part, parameters in enumerate(map(list, parts)):
        matrices = [parameter for parameter in parameters if parameter.ndim >= 2]
        vectors = [parameter for parameter in parameters if parameter.ndim < 2]
        groups.append({"params": matrices, "part": part, "weight_decay": options.weight_decay})
        groups.append({"params": vectors, "part": part, "weight_decay": 0.0})
    groups = [group for group in groups if group["params"]]
    common: dict[str, Any] = {"lr": options.rate, "fused": fused}
    if options.name == "adamw":
        return AdamW(groups, betas=(options.momentum, 0.999), **common)
    return SGD(groups, momentum=options.momentum, nesterov=options.nesterov, **common)


def set_rates(
    optimizer: Optimizer, options: OptimizerConfig, factors: Sequence[float], pace: Pace, low_momentum: float
) -> None:
    """Set learning rate and momentum of each group: the options' times the strategy's times the schedule's.

    Args:
        optimizer: One of `make_optimizer`'s; groups of another one are left alone.
        options: What it was made by.
        factors: Of every part: its rate over `options.rate`.
        pace: Where the schedule stands.
        low_momentum: Momentum at the pace's full dip, unless `options.momentum` is lower.
    """
    momentum = options.momentum + pace.dip * (min(low_momentum, options.momentum) - options.momentum)
    for group in (group for group in optimizer.param_groups if "part" in group):
        group["lr"] = options.rate * factors[group["part"]] * pace.rate
        if "betas" in group:
            group["betas"] = (momentum, group["betas"][1])
        else:
            group["momentum"] = momentum


def named_rates(optimizer: Optimizer) -> dict[str, float]:
    """Learning rate of every stage and of the head, by metric name."""
    rates = {group["part"]: group["lr"] for group in optimizer.param_groups}
    head = max(rates)
    return {f"lr/{'head' if part == head else f'stage_{part:02d}'}": rate for part, rate in rates.items()}
