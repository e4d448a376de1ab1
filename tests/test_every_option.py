"""Every option of the schema, mistyped on the command line in every way: one sentence that names it."""

import os
from collections.abc import Callable, Sequence
from types import UnionType
from typing import Any, get_args, get_origin

import pytest
from omegaconf import DictConfig, OmegaConf

from test_config import UNCHECKED, options
from thaw.launch.explain import explain, refuse_unknown, unknown_option

Compose = Callable[..., DictConfig]


TYPES = {name: kind for name, _, kind in options()}
WRONG = {
    int: ["many", "1.5", "nan", "[1]", "{a:1}"],
    float: ["many", "[1]", "{a:1}"],
    bool: ["perhaps", "2.5"],
    str: ["[1]", "{a:1}"],
    list: ["5", "text", "{a:1}"],
    dict: ["5", "text", "[1]"],
    Any: ["text", "[1]", "{a:1}"],
}
ODD = ["", "nan", "-1", "null", "${nothing}"]
BOUNDLESS = {
    "dataset.train_per_class", "dataset.split_seed", "dataset.batch_size", "schedule.step_epochs",
    "strategy.trainable_stages", "strategy.head_epochs", "strategy.unfreeze_epochs", "trainer.num_nodes",
    "trainer.eval_every", "trainer.early_stopping", "trainer.accumulate", "sweep.prune_after_trials",
    "sweep.prune_after_epochs", "seed",
}  # fmt: skip
"""Whole numbers that cost nothing by being huge, or are answered when the data are known."""
ALL = "THAW_EVERY_VALUE" in os.environ
"""Set by `make torture`: each option gets every value, not one of them in turn."""


def wrong_values(kind: Any) -> list[str]:
    """What no part of the type can be read from."""
    parts = get_args(kind) if isinstance(kind, UnionType) else (kind,)
    choices = [set(WRONG.get(get_origin(part) or part, [])) for part in parts if part is not type(None)]
    return sorted(set.intersection(*choices))


def in_turn(values: Sequence[str], number: int) -> Sequence[str]:
    """One of the values for each number, or all of them."""
    return values if ALL or not values else [values[number % len(values)]]


def answer(compose: Compose, override: str) -> str | None:
    """What a user reads; None if the option is accepted."""
    beside = ["dataset.csv=images.csv"] if override.startswith("dataset.csv_") else []  # what they are options of
    beside += ["dataset.num_folds=2", "dataset.fold=0"] * override.startswith("dataset.csv_fold=")
    try:
        values = compose(override, *beside)
        refuse_unknown(values)
        OmegaConf.to_object(values)
    except Exception as error:
        message = explain(error)
        if message is None:
            raise
        return message
    return None


def is_accepted(key: str, value: str) -> bool:
    """Whether one of `ODD` is as good as any: a text where no rule is, a number for true, null for nothing."""
    kind = TYPES[key]
    if value == "null":
        return (kind is Any and key != "trainer.devices") or type(None) in get_args(kind)
    if key == "dataset.root":
        return value in ("nan", "-1")
    is_free = key in UNCHECKED and key != "dataset.csv_path" and kind in (str, str | None)
    return (is_free and value != "${nothing}") or (kind in (bool, bool | None) and value == "-1")


@pytest.mark.slow
def test_a_value_of_the_wrong_type_is_answered_by_name(compose: Compose) -> None:
    cases = [(key, wrong_values(kind)) for key, kind in TYPES.items() if wrong_values(kind)]
    dict(cases)["trainer.devices"].remove("[1]")  # GPU number 1
    assert len(cases) > 60
    for number, (key, values) in enumerate(cases):
        for value in in_turn(values, number):
            message = answer(compose, f"{key}={value}")
            assert message is not None, f"{key}={value} is accepted"
            assert "\n" not in message, message
            assert key in message, message


@pytest.mark.slow
def test_an_odd_value_is_accepted_or_answered_in_one_line(compose: Compose) -> None:
    for number, key in enumerate(TYPES):
        for value in in_turn(ODD, number):
            message = answer(compose, f"{key}={value}")
            assert (message is None) == is_accepted(key, value), f"{key}={value}: {message}"
            assert message is None or ("\n" not in message and key.rpartition(".")[2] in message), message


@pytest.mark.slow
def test_a_huge_number_is_refused_where_it_would_take_all_memory_or_time(compose: Compose) -> None:
    numbers = {key for key, kind in TYPES.items() if int in (kind, *get_args(kind)) and float not in get_args(kind)}
    assert {key for key in numbers if answer(compose, f"{key}=1000000000") is None} == BOUNDLESS


def test_a_misspelt_option_is_answered_with_the_nearest() -> None:
    for key in TYPES:
        assert unknown_option(key + key[-1]).startswith(f"{key + key[-1]} is not an option. Did you mean '{key}'?")
