"""The optimizer: parameter groups by part of the network, and what their rates and momentum are at a moment."""

from collections.abc import Iterable, Sequence, Set
from pkgutil import resolve_name
from typing import Any

from torch.nn import Parameter
from torch.optim import SGD, AdamW, Optimizer

from thaw.config import OptimizerConfig
from thaw.errors import ThawError, one_line
from thaw.model.schedule import Pace


def make_optimizer(
    options: OptimizerConfig, parts: Sequence[Iterable[Parameter]], kernels: Set[Parameter], fused: bool
) -> Optimizer:
    """The optimizer of a network's parts: a group of each with weight decay and one without; they never change.

    Args:
        options: Which, and how.
        parts: Parameters of every stage, first to last, and then of the head.
        kernels: Those of them that decay.
        fused: Whether all parameters are stepped in one kernel, by one of Thaw's own choice.

    Raises:
        ThawError: There is no such optimizer, or it does not take these arguments.
    """
    groups: list[dict[str, Any]] = []
    for part, parameters in enumerate(map(list, parts)):
        decaying = [parameter for parameter in parameters if parameter in kernels]
        others = [parameter for parameter in parameters if parameter not in kernels]
        groups.append({"params": decaying, "part": part, "weight_decay": options.weight_decay})
        groups.append({"params": others, "part": part, "weight_decay": 0.0})
    groups = [group for group in groups if group["params"]]
    own: dict[str, tuple[type[Optimizer], dict[str, Any]]] = {
        "sgd": (SGD, {"momentum": options.momentum, "nesterov": options.nesterov, "fused": fused}),
        "adamw": (AdamW, {"betas": (options.momentum, 0.999), "fused": fused}),
    }
    try:
        kind, arguments = own[options.name] if options.is_own else (resolve_name(options.name), {})
        optimizer = kind(groups, **{"lr": options.rate} | arguments | options.extra)
    except Exception as error:  # what a class that is not ours raises
        raise ThawError(f"optimizer.name={options.name} cannot be made: {one_line(error)}") from error
    if not isinstance(optimizer, Optimizer):
        raise ThawError(f"optimizer.name must be a torch.optim.Optimizer, got {options.name}.")
    if options.weight_decay and "weight_decay" not in optimizer.defaults:
        raise ThawError(f"optimizer.name={options.name} knows no weight decay: set optimizer.weight_decay=0.")
    _keep_arguments(optimizer, {"betas", "weight_decay", *arguments})
    return optimizer


def _keep_arguments(optimizer: Optimizer, names: set[str]) -> None:
    """Have arguments be what they are now, also after an earlier state was loaded, which would bring its own."""

    def renew(optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        pairs = zip(state["param_groups"], optimizer.param_groups, strict=False)  # of another number, torch tells
        groups = [group | {name: now[name] for name in names & now.keys()} for group, now in pairs]
        return state | {"param_groups": groups}

    optimizer.register_load_state_dict_pre_hook(renew)


def set_rates(
    optimizer: Optimizer, options: OptimizerConfig, factors: Sequence[float], pace: Pace, low_momentum: float
) -> None:
    """Set the learning rate of each group: the options' times the strategy's times the schedule's; and the momentum.

    An optimizer that is named by its class keeps the momentum that it was made with.

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
        if "betas" in group and options.is_own:
            group["betas"] = (momentum, group["betas"][1])
        elif options.is_own:
            group["momentum"] = momentum


def named_rates(optimizer: Optimizer) -> dict[str, float]:
    """Learning rate of every stage and of the head, by metric name."""
    rates = {group["part"]: group["lr"] for group in optimizer.param_groups}
    head = max(rates)
    return {f"lr/{'head' if part == head else f'stage_{part:02d}'}": rate for part, rate in rates.items()}
