from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import nn

from thaw.config import OptimizerConfig
from thaw.errors import ThawError
from thaw.model.optimizer import make_optimizer, named_rates, set_rates
from thaw.model.schedule import Pace

NETWORK = nn.ModuleDict({"stage": nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), "head": nn.Linear(4, 2)})
PARTS = [
    {name: parameter for name, parameter in NETWORK.named_parameters() if name.startswith(part)} for part in NETWORK
]
KERNELS = {parameter for parameter in NETWORK.parameters() if parameter.ndim > 1}
APART, TIED = [[0], [1]], [[0, 1]]


def optimizer(ties: Sequence[Sequence[int]] = APART, **options: Any) -> torch.optim.Optimizer:
    return make_optimizer(OptimizerConfig(**options), PARTS, ties, KERNELS, fused=False)


def values(made: torch.optim.Optimizer, key: str) -> Sequence[Any]:
    return [group[key] for group in made.param_groups]


@pytest.mark.parametrize("name", ["sgd", "adamw", "torch.optim.NAdam"])
def test_kernels_decay_and_the_rest_does_not(name: str) -> None:
    made = optimizer(name=name, weight_decay=0.1)
    assert values(made, "parts") == [[0], [0], [1], [1]]
    assert values(made, "weight_decay") == [0.1, 0.0, 0.1, 0.0]
    assert [{parameter.ndim for parameter in group["params"]} for group in made.param_groups] == [{4}, {1}, {2}, {1}]


def test_parts_that_learn_alike_share_groups_and_without_decay_one() -> None:
    made = optimizer(TIED, weight_decay=0.1)
    assert values(made, "parts") == [[0, 1]] * 2
    assert [len(group["params"]) for group in made.param_groups] == [2, 4]
    made = optimizer(TIED)
    assert values(made, "names") == [[name for part in PARTS for name in part]]
    options = OptimizerConfig()
    set_rates(made, options, [1.0, 1.0], Pace(rate=0.5, dip=0.0), low_momentum=0.85)
    assert named_rates(made) == {"lr/stage_00": options.rate / 2, "lr/head": options.rate / 2}


@pytest.mark.parametrize("name", ["sgd", "adamw", "torch.optim.RMSprop"])
def test_rates_are_the_options_times_strategy_times_schedule(name: str) -> None:
    options = OptimizerConfig(name=name, lr=0.2)
    made = make_optimizer(options, PARTS, APART, KERNELS, fused=False)
    set_rates(made, options, [0.1, 1.0], Pace(rate=0.5, dip=0.0), low_momentum=0.85)
    assert named_rates(made) == pytest.approx({"lr/stage_00": 0.01, "lr/head": 0.1})


def test_momentum_dips_as_the_schedule_has_it_and_not_in_a_class_by_its_name() -> None:
    for name, key, before, after in (
        ("sgd", "momentum", 0.95, 0.9),
        ("adamw", "betas", (0.95, 0.999), (0.9, 0.999)),
        ("torch.optim.NAdam", "betas", (0.7, 0.8), (0.7, 0.8)),
        ("torch.optim.RMSprop", "momentum", 0, 0),
    ):
        extra = {"betas": (0.7, 0.8)} if "NAdam" in name else {}
        options = OptimizerConfig(name=name, momentum=0.95, extra=extra)
        made = make_optimizer(options, PARTS, APART, KERNELS, fused=False)
        assert values(made, key) == [before] * 2
        set_rates(made, options, [1.0, 1.0], Pace(rate=1.0, dip=0.5), low_momentum=0.85)
        assert made.param_groups[0][key] == pytest.approx(after)


def test_further_arguments_are_passed_on() -> None:
    made = optimizer(name="adamw", extra={"eps": 1e-4, "betas": [0.9, 0.95], "amsgrad": True})
    assert (values(made, "eps")[0], values(made, "betas")[0][1], values(made, "amsgrad")[0]) == (1e-4, 0.95, True)
    assert isinstance(optimizer(name="torch.optim.Adagrad", extra={"lr_decay": 0.1}), torch.optim.Adagrad)


@pytest.mark.parametrize(
    ("before", "now", "key"),
    [
        ({}, {"weight_decay": 0.1}, "weight_decay"),
        ({"nesterov": True}, {"nesterov": False}, "nesterov"),
        ({"name": "adamw"}, {"name": "adamw", "extra": {"betas": [0.9, 0.95]}}, "betas"),
        ({"name": "torch.optim.NAdam"}, {"name": "torch.optim.NAdam", "weight_decay": 0.1}, "weight_decay"),
    ],
)
def test_an_earlier_state_does_not_bring_its_arguments_along(
    before: dict[str, Any], now: dict[str, Any], key: str
) -> None:
    earlier, later = optimizer(**before), optimizer(**now)
    for group in earlier.param_groups:
        group["lr"] = 0.5
    asked = values(later, key)
    assert values(earlier, key) != asked
    later.load_state_dict(earlier.state_dict())
    assert values(later, key) == asked
    assert set(values(later, "lr")) == {0.5}


@pytest.mark.parametrize(("before", "now"), [(APART, TIED), (TIED, APART)])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_an_earlier_state_is_taken_over_from_other_groups(
    before: Sequence[Sequence[int]], now: Sequence[Sequence[int]], decay: float
) -> None:
    NETWORK.requires_grad_()
    NETWORK["stage"][1].requires_grad_(False)
    earlier, later = optimizer(before, momentum=0.5), optimizer(now, momentum=0.9, weight_decay=decay)
    for number, parameter in enumerate(NETWORK.parameters()):
        parameter.grad = torch.full_like(parameter, number) if parameter.requires_grad else None
    earlier.step()
    later.load_state_dict(earlier.state_dict())
    moments = {parameter: state["momentum_buffer"] for parameter, state in later.state.items()}
    assert moments.keys() == {parameter for parameter in NETWORK.parameters() if parameter.requires_grad}
    for parameter, moment in moments.items():
        assert parameter.grad is not None
        assert torch.equal(moment, parameter.grad)
    assert values(later, "parts") == values(optimizer(now, weight_decay=decay), "parts")


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_an_earlier_state_is_laid_out_as_the_parameters_here(name: str) -> None:
    """As on a GPU, whose weights lie channels-last: fused steps go through the memory of both in its order."""
    kernel = nn.Parameter(torch.zeros(2, 2, 3, 3))
    options = OptimizerConfig(name=name, lr=1.0)
    earlier, later = (make_optimizer(options, [{"kernel": kernel}], [[0]], {kernel}, fused=True) for _ in range(2))
    kernel.grad = torch.arange(36.0).view(2, 2, 3, 3)
    earlier.step()
    state = deepcopy(earlier.state_dict())
    for key, value in state["state"][0].items():
        if value.ndim == 4:
            state["state"][0][key] = value.contiguous(memory_format=torch.channels_last)
    later.load_state_dict(state)
    steps = []
    for each in (earlier, later):
        kernel.data.zero_()
        kernel.grad = torch.zeros_like(kernel)
        each.step()
        steps.append(kernel.detach().clone())
    assert torch.equal(*steps)
    assert steps[0].any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"name": "torch.optim.NAdm"},
            "torch.optim.NAdm cannot be made: module 'torch.optim' has no attribute 'NAdm'\\. Did you",
        ),
        ({"name": "nowhere.Lion"}, "nowhere.Lion cannot be made: No module named 'nowhere'"),
        ({"name": "torch.optim.LBFGS"}, "torch.optim.LBFGS cannot be made: "),
        ({"name": "torch.nn.Linear"}, "torch.nn.Linear cannot be made: "),
        ({"extra": {"rho": 1}}, "sgd cannot be made: .*rho"),
        ({"name": "unittest.mock.Mock"}, "must be a torch.optim.Optimizer of dense gradients, got unittest.mock.Mock"),
        ({"name": "torch.optim.SparseAdam"}, "must be a torch.optim.Optimizer of dense gradients, got torch.optim.Sp"),
        ({"name": "torch.optim.Rprop", "weight_decay": 0.1}, "torch.optim.Rprop knows no weight decay"),
    ],
)
def test_what_is_no_optimizer_of_these_arguments_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ThawError, match=f"optimizer.name[= ]{message}"):
        optimizer(**options)


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"extra": {"lr": 1}}, "lr"),
        ({"extra": {"momentum": 0.5}}, "momentum"),
        ({"name": "torch.optim.NAdam", "extra": {"weight_decay": 1}}, "weight_decay"),
        ({"name": "adamw", "extra": {"betas": [0.5, 0.99]}}, "betas"),
        ({"name": "adamw", "extra": {"betas": [0.9]}}, "betas"),
        ({"name": "adamw", "extra": {"betas": 0.9}}, "betas"),
    ],
)
def test_an_argument_that_contradicts_an_option_is_refused(options: dict[str, Any], key: str) -> None:
    with pytest.raises(ThawError, match=f"optimizer.extra.{key} must be "):
        OptimizerConfig(**options)
