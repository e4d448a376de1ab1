"""The optimizer: parameter groups by part of the network, and what their rates and momentum are at a moment."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from pkgutil import resolve_name
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import SGD, AdamW, Optimizer, SparseAdam

from thaw.config import OptimizerConfig
from thaw.errors import ThawError
from thaw.instantiation import look_here_too, reason_of
from thaw.model.schedule import Pace


def make_optimizer(
    options: OptimizerConfig,
    parts: Sequence[Mapping[str, Parameter]],
    ties: Sequence[Sequence[int]],
    kernels: Set[Parameter],
    fused: bool,
) -> Optimizer:
    """The optimizer of a network's parts, with a group for those that learn alike, or two: weight decay and none.

    A GPU would wait for the steps of many groups: each is a call of its own.

    Args:
        options: Which, and how.
        parts: Parameters by name, of every stage, first to last, and then of the head.
        ties: Numbers of the parts that have the same rate at all times.
        kernels: Parameters that decay.
        fused: Whether all parameters of a group are stepped in one kernel, by an optimizer of Thaw's own choice.

    Raises:
        ThawError: There is no such optimizer, or it does not take these arguments.
    """
    groups: list[dict[str, Any]] = []
    for tie in ties:
        named = [pair for part in tie for pair in parts[part].items()]
        for decay, decays in ((options.weight_decay, True), (0.0, False)):
            members = [pair for pair in named if (options.weight_decay > 0 and pair[1] in kernels) == decays]
            names, parameters = [name for name, _ in members], [parameter for _, parameter in members]
            groups.append({"params": parameters, "names": names, "parts": list(tie), "weight_decay": decay})
    groups = [group for group in groups if group["params"]]
    built_in: dict[str, tuple[type[Optimizer], dict[str, Any]]] = {
        "sgd": (SGD, {"momentum": options.momentum, "nesterov": options.nesterov, "fused": fused}),
        "adamw": (AdamW, {"betas": (options.momentum, 0.999), "fused": fused}),
    }
    look_here_too()
    try:
        kind, arguments = built_in[options.name] if options.is_built_in else (resolve_name(options.name), {})
        optimizer = kind(groups, **{"lr": options.rate} | arguments | options.extra)
    except Exception as error:  # what a class that is not ours raises
        raise ThawError(f"optimizer.name={options.name} cannot be made: {reason_of(error)}") from error
    if not isinstance(optimizer, Optimizer) or isinstance(optimizer, SparseAdam):
        raise ThawError(f"optimizer.name must be a torch.optim.Optimizer of dense gradients, got {options.name}.")
    if options.weight_decay and "weight_decay" not in optimizer.defaults:
        raise ThawError(f"optimizer.name={options.name} knows no weight decay: set optimizer.weight_decay=0.")
    _adopt_states(optimizer, {"betas", "weight_decay", *arguments})
    return optimizer


def require_optimizer(options: OptimizerConfig) -> None:
    """Find out whether there is such an optimizer, by one of a single weight.

    Raises:
        ThawError: There is not, or it does not take these arguments.
    """
    known = options if options.lr != "auto" else replace(options, lr=OptimizerConfig.lr)
    make_optimizer(known, [{"weight": Parameter(torch.zeros(1))}], [[0]], set(), fused=False)


def _adopt_states(optimizer: Optimizer, arguments: set[str]) -> None:
    """Have an earlier state that is loaded fit these groups, whichever it was saved in, and arguments stay as they are.

    Args:
        optimizer: One whose groups have the names of their parameters.
        arguments: Names of those that the earlier state would bring its own values of.
    """

    def renew(optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        before = {
            name: (group, state["state"].get(index))
            for group in state["param_groups"]
            for name, index in zip(group["names"], group["params"], strict=True)
        }
        groups, states = [], {}
        for group, own in zip(optimizer.param_groups, optimizer.state_dict()["param_groups"], strict=True):
            kept = {"params", "names", "parts", *arguments} & own.keys()
            groups.append(before[own["names"][0]][0] | {name: own[name] for name in kept})
            earlier = [before[name][1] or {} for name in own["names"]]  # empty where it was frozen until then
            has_momentum = any("momentum_buffer" in known for known in earlier)  # SGD takes all of a group's, or none
            for index, parameter, known in zip(own["params"], group["params"], earlier, strict=True):
                if known:  # laid out as the parameter here: fused steps go through both in the order of memory
                    states[index] = {name: _laid_out(value, parameter) for name, value in known.items()}
                elif has_momentum and parameter.requires_grad:
                    states[index] = {"momentum_buffer": torch.zeros_like(parameter)}
        return {"state": states, "param_groups": groups}

    optimizer.register_load_state_dict_pre_hook(renew)


def _laid_out(value: Any, parameter: Parameter) -> Any:
    """A tensor of the parameter's shape in the parameter's memory format; anything else as it is."""
    if not isinstance(value, Tensor) or value.shape != parameter.shape:
        return value
    return torch.empty_like(parameter, dtype=value.dtype, device=value.device, requires_grad=False).copy_(value)


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
    for group in (group for group in optimizer.param_groups if "parts" in group):
        group["lr"] = options.rate * factors[group["parts"][0]] * pace.rate
        if "betas" in group and options.is_built_in:
            group["betas"] = (momentum, group["betas"][1])
        elif options.is_built_in:
            group["momentum"] = momentum


def named_rates(optimizer: Optimizer) -> dict[str, float]:
    """Learning rate of every stage and of the head, by metric name."""
    rates = {part: group["lr"] for group in optimizer.param_groups for part in group["parts"]}
    head = max(rates)
    return {f"lr/{'head' if part == head else f'stage_{part:02d}'}": rate for part, rate in rates.items()}
