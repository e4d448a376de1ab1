from dataclasses import dataclass, field
from math import inf, nan
from typing import Annotated, Any

import pytest
from omegaconf import OmegaConf
from omegaconf.errors import ValidationError

from thaw.errors import ThawError
from thaw.rules import POSITIVE, Rule, at_least, check, one_of, require, whole, within


@dataclass
class Options:
    free: str = "any"
    draws: bool | None = None
    shuffles: bool = False
    share: Annotated[float, within("[0, 1)")] = 0.5
    fold: Annotated[int | None, at_least(0)] = None
    workers: Annotated[int | str, whole(0, 8).or_words("auto")] = "auto"
    ties: Annotated[str, one_of("first", "last")] = "first"
    network: Annotated[str, Rule("a network", ("resnet", "vit").__contains__, ("resnet", "vit"), " See help.")] = "vit"
    pair: Annotated[list[float], Rule("two numbers", lambda pair: len(pair) == 2)] = field(
        default_factory=lambda: [0.0, 1.0]
    )

    def __post_init__(self) -> None:
        check(self, "group.")


@pytest.mark.parametrize(
    ("rule", "text", "valid", "invalid"),
    [
        (within("[0, 1)"), "in [0, 1)", [0, 0.999], [-0.001, 1, inf, nan]),
        (within("(0, 1]"), "in (0, 1]", [0.001, 1], [0, 1.001, nan]),
        (within("(-1, 2.5)"), "in (-1, 2.5)", [-0.999, 2.499], [-1, 2.5]),
        (at_least(2), "at least 2", [2, 10**400, inf], [1, -inf, nan]),
        (at_least(0, is_finite=True), "at least 0", [0, 10**400], [-0.001, inf, nan]),
        (whole(2, 9), "a whole number from 2 to 9", [2, 9], [1, 10, nan, 3.0, True, "3", None]),
        (
            whole(1, 9).or_words("all", "few"),
            "all, few or a whole number from 1 to 9",
            [1, "all"],
            [0, True, 1.5, "", []],
        ),
        (POSITIVE, "a positive number", [1e-9, 1], [0, -1, inf, nan]),
        (POSITIVE.or_words("auto"), "auto or a positive number", [1e-9, 1, "auto"], [0, inf, nan, True, "", None]),
        (one_of("a", "b"), "one of a, b", ["a", "b"], ["", "ab", None, ["a"]]),
    ],
)
def test_a_rule_holds_for_what_its_text_says(rule: Rule, text: str, valid: list[Any], invalid: list[Any]) -> None:
    assert rule.text == text
    assert [value for value in valid if not rule.holds(value)] == []
    assert [value for value in invalid if rule.holds(value)] == []


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"share": 1.0}, "group.share must be in [0, 1), got 1.0."),
        ({"draws": "false"}, "group.draws must be null or true or false, got 'false'."),
        ({"shuffles": None}, "group.shuffles must be true or false, got None."),
        ({"fold": -1}, "group.fold must be null or at least 0, got -1."),
        ({"workers": True}, "group.workers must be auto or a whole number from 0 to 8, got True."),
        ({"ties": "frist"}, "group.ties must be one of first, last, got 'frist'. Did you mean 'first'?"),
        ({"network": "resnets"}, "group.network must be a network, got 'resnets'. Did you mean 'resnet'? See help."),
        ({"pair": []}, "group.pair must be two numbers, got []."),
        ({"pair": 1}, "group.pair must be two numbers, got 1."),
        ({"share": "half"}, "group.share must be in [0, 1), got 'half'."),
        ({"fold": "1"}, "group.fold must be null or at least 0, got '1'."),
    ],
)
def test_an_option_that_breaks_its_rule_is_answered_in_one_sentence(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ThawError) as caught:
        Options(**values)
    assert str(caught.value) == message


def test_null_is_valid_where_the_type_has_it_and_what_has_no_rule_is_free() -> None:
    assert Options(free="", fold=None) == Options(free="")


def test_rules_of_several_options_are_answered_alike() -> None:
    require(True, "a and b", "given together", None)
    with pytest.raises(ThawError, match=r"^a and b must be given together, got \(1, None\)\.$"):
        require(False, "a and b", "given together", (1, None))


def test_omegaconf_reads_the_types_through_the_rules() -> None:
    values = OmegaConf.structured(Options)
    values.share, values.fold, values.pair = "0.25", 3, [1, 2]
    assert OmegaConf.to_object(values) == Options(share=0.25, fold=3, pair=[1.0, 2.0])
    for name, wrong in (("share", "many"), ("fold", "1.5"), ("workers", 1.5), ("pair", ["a"]), ("ties", None)):
        with pytest.raises(ValidationError):
            values[name] = wrong
