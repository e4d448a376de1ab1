"""Validation rules, written beside the types of options, and the message for a value that breaks one."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, fields
from math import inf
from operator import ge, gt, le, lt
from os import PathLike
from types import NoneType, UnionType
from typing import Annotated, Any, get_args, get_origin

from thaw.errors import ThawError, did_you_mean

NAMES: dict[Any, str] = {
    bool: "true or false", int: "a whole number", float: "a number", str: "a text", list[str]: "a list of texts",
    list[float]: "a list of numbers", list: "a list", dict: "a mapping", NoneType: "null",
}  # fmt: skip
"""What an option's value is called, by its type."""


@dataclass(frozen=True)
class Rule:
    """A condition on a value.

    Attributes:
        text: The condition in words, after "must be".
        holds: Tells whether a value meets it.
        names: Valid words, of which the nearest to a rejected one is offered.
        hint: End of the message.
    """

    text: str
    holds: Callable[[Any], bool]
    names: Collection[str] = ()
    hint: str = ""

    def or_words(self, *words: str) -> "Rule":
        """The same rule for numbers, or one of some words instead."""

        def holds(value: object) -> bool:
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            return value in words or (is_number and self.holds(value))

        return Rule(f"{', '.join(words)} or {self.text}", holds)


def one_of(*names: str) -> Rule:
    """One of some words, of which the nearest to another is offered."""
    return Rule(f"one of {', '.join(names)}", names.__contains__, names)


def within(interval: str) -> Rule:
    """A number in an interval, written as in `[0, 1)`: a square bracket takes its end in, a round one does not."""
    low, high = map(float, interval[1:-1].split(","))
    above, below = gt if interval[0] == "(" else ge, lt if interval[-1] == ")" else le
    return Rule(f"in {interval}", lambda value: above(value, low) and below(value, high))


def at_least(low: int, is_finite: bool = False) -> Rule:
    """A number that is not lower, nor infinite if `is_finite`."""
    return Rule(f"at least {low}", lambda value: value >= low and (not is_finite or value < inf))


def whole(low: int, high: int) -> Rule:
    """A whole number between two, or one of them."""
    return Rule(
        f"a whole number from {low} to {high}",
        lambda value: isinstance(value, int) and not isinstance(value, bool) and low <= value <= high,
    )


POSITIVE = Rule("a positive number", lambda value: 0 < value < inf)


def require(valid: bool, key: str, rule: str, value: object, hint: str = "") -> None:
    """Answer a rejected value.

    Raises:
        ThawError: It is not valid.
    """
    if not valid:
        raise ThawError(f"{key} must be {rule}, got {value!r}.{hint}")


def check(options: Any, prefix: str = "") -> None:
    """Check each option of a dataclass by the rule beside its type, `Annotated[type, rule]`, and by its type.

    Hydra checks the types as well, but Python lets any value be given.

    Raises:
        ThawError: One breaks its rule, or is of another type; `prefix` stands before its name.
    """
    for option in fields(options):
        key, value, kind, rule = f"{prefix}{option.name}", getattr(options, option.name), option.type, None
        if get_origin(kind) is Annotated:
            kind, rule = get_args(kind)
        kinds = get_args(kind) if isinstance(kind, UnionType) else (kind,)
        null = "null or " * (NoneType in kinds)
        if rule and not (value is None and null) and not _holds(rule, value):
            hint = did_you_mean(value, rule.names) if rule.names and isinstance(value, str) else ""
            require(False, key, null + rule.text, value, hint + rule.hint)
        require(any(_is_a(value, each) for each in kinds), key, in_words(kind), value)


def in_words(kind: Any) -> str:
    """What a value of a type may be; a whole number is a number."""
    parts = sorted(get_args(kind) if isinstance(kind, UnionType) else [kind], key=lambda part: part is not NoneType)
    told = [part for part in parts if part is not int or float not in parts]
    return " or ".join(NAMES.get(part) or NAMES.get(get_origin(part)) or f"a {part.__name__}" for part in told)


def _is_a(value: object, kind: Any) -> bool:
    """Whether a value is of a type: whole numbers are numbers, true and false are none, and paths are texts."""
    if get_origin(kind) is list:
        return isinstance(value, list | tuple) and all(_is_a(each, *get_args(kind)) for each in value)
    wide = {float: int | float, str: str | PathLike, Any: object}.get(kind, get_origin(kind) or kind)
    return isinstance(value, wide) and (kind in (bool, Any) or not isinstance(value, bool))


def _holds(rule: Rule, value: object) -> bool:
    """Whether a value meets a rule, which Python may have set to one of a type that the rule is not for."""
    try:
        return rule.holds(value)
    except TypeError:
        return False
