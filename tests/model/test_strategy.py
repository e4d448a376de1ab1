from itertools import pairwise
from math import ceil
from pathlib import Path

import pytest

from thaw import compose
from thaw.config import StrategyConfig
from thaw.model.strategy import ever_trainable, held_at_start, is_still_frozen, phase_starts, rate_factors, rate_groups

PRESETS = sorted((Path(__file__).parents[2] / "conf" / "strategy").glob("*.yaml"))
NUM_STAGES = (7, 9, 81)


def preset(name: str) -> tuple[StrategyConfig, int]:
    """The strategy of `conf/strategy/NAME.yaml`, and its number of epochs."""
    config = compose(f"strategy={name}")
    return config.strategy, config.trainer.max_epochs


def rates_by_epoch(name: str, num_stages: int) -> list[list[float]]:
    """Factors of all stages and of the head in every epoch of a preset."""
    options, num_epochs = preset(name)
    return [rate_factors(options, epoch, num_stages) for epoch in range(num_epochs)]


def num_trainable(options: StrategyConfig, epoch: int, num_stages: int) -> int:
    return sum(factor > 0 for factor in rate_factors(options, epoch, num_stages)[:-1])


# ---- presets


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_preset_is_reported_under_its_own_name(path: Path) -> None:
    assert preset(path.stem)[0].name == path.stem


def test_only_scratch_ignores_the_weights() -> None:
    assert [path.stem for path in PRESETS if preset(path.stem)[0].from_scratch] == ["scratch"]


@pytest.mark.parametrize("num_stages", NUM_STAGES)
def test_frozen_never_thaws(num_stages: int) -> None:
    assert all(factors == [0] * num_stages + [1] for factors in rates_by_epoch("frozen", num_stages))


@pytest.mark.parametrize("num_stages", NUM_STAGES)
@pytest.mark.parametrize("name", ["finetune", "scratch"])
def test_every_stage_learns_at_the_heads_rate(name: str, num_stages: int) -> None:
    assert all(factors == [1] * (num_stages + 1) for factors in rates_by_epoch(name, num_stages))


@pytest.mark.parametrize("num_stages", NUM_STAGES)
def test_boosted_head_is_ten_times_as_fast(num_stages: int) -> None:
    assert all(factors == [0.1] * num_stages + [1] for factors in rates_by_epoch("boosted_head", num_stages))


@pytest.mark.parametrize(("num_stages", "expected"), [(7, 3), (9, 4), (81, 28)])
def test_last_stages_are_the_last_third(num_stages: int, expected: int) -> None:
    for factors in rates_by_epoch("last_stages", num_stages):
        assert factors[: -expected - 1] == [0] * (num_stages - expected)
        assert all(0 < factor < 1 for factor in factors[-expected - 1 : -1])


@pytest.mark.parametrize("num_stages", NUM_STAGES)
def test_discriminative_is_slower_the_deeper_once_the_head_has_learned(num_stages: int) -> None:
    first, *_, last = rates_by_epoch("discriminative", num_stages)
    assert first == [0] * num_stages + [1]
    assert 0 < last[0] < last[-1]
    assert all(earlier < later for earlier, later in pairwise(last))


@pytest.mark.parametrize("num_stages", NUM_STAGES)
def test_gradual_thaws_within_its_epochs(num_stages: int) -> None:
    counts = [sum(factor > 0 for factor in factors[:-1]) for factors in rates_by_epoch("gradual", num_stages)]
    assert (counts[0], counts[-1]) == (0, num_stages)
    assert counts == sorted(counts)
    assert len(set(counts)) > 2


# ---- rates


@pytest.mark.parametrize("num_stages", NUM_STAGES)
def test_rates_are_geometric_in_relative_depth(num_stages: int) -> None:
    *stages, head = rate_factors(StrategyConfig(backbone_factor=0.5, first_stage_factor=0.01), 0, num_stages)
    ratios = [later / earlier for earlier, later in pairwise(stages)]
    assert (stages[0], stages[-1], head) == pytest.approx((0.005, 0.5, 1.0))
    assert ratios == pytest.approx([100 ** (1 / (num_stages - 1))] * (num_stages - 1))


def test_middle_stage_has_the_same_rate_in_every_depth() -> None:
    options = StrategyConfig(backbone_factor=1, first_stage_factor=0.01)
    assert [rate_factors(options, 0, n)[n // 2] for n in (3, 7, 9, 81)] == pytest.approx([0.1] * 4)


def test_frozen_stages_do_not_change_the_rates_of_the_others() -> None:
    options = {"backbone_factor": 0.5, "first_stage_factor": 0.01}
    some = rate_factors(StrategyConfig(**options, trainable_stages=3), 0, 9)
    assert some == [0.0] * 6 + rate_factors(StrategyConfig(**options), 0, 9)[6:]


def test_joint_factor_slows_everything_after_the_head_epochs() -> None:
    options = StrategyConfig(backbone_factor=0.5, head_epochs=2, joint_factor=0.1)
    assert rate_factors(options, 1, 3) == [0, 0, 0, 1]
    assert rate_factors(options, 2, 3) == pytest.approx([0.05, 0.05, 0.05, 0.1])


def test_joint_factor_has_nothing_to_do_without_head_epochs() -> None:
    assert rate_factors(StrategyConfig(backbone_factor=0.5, joint_factor=0.1), 0, 2) == [0.5, 0.5, 1]


# ---- which stages learn


@pytest.mark.parametrize(("trainable_stages", "expected"), [(1, 1), (3, 3), (9, 9), (50, 9), (None, 9)])
def test_last_stages(trainable_stages: int | None, expected: int) -> None:
    factors = rate_factors(StrategyConfig(backbone_factor=1, trainable_stages=trainable_stages), 0, 9)
    assert factors == [0] * (9 - expected) + [1] * (expected + 1)


@pytest.mark.parametrize(
    ("fraction", "num_stages", "expected"),
    [
        (1.0, 9, 9),
        (0.5, 8, 4),
        (0.5, 9, 5),
        (0.01, 81, 1),
        (1 / 3, 81, 27),
        (0.28, 50, 14),
        (7 / 41, 41, 7),
    ],
)
def test_last_fraction_is_rounded_up_to_whole_stages(fraction: float, num_stages: int, expected: int) -> None:
    assert num_trainable(StrategyConfig(backbone_factor=1, trainable_fraction=fraction), 0, num_stages) == expected


def test_number_of_stages_wins_over_the_fraction() -> None:
    assert num_trainable(StrategyConfig(backbone_factor=1, trainable_fraction=0.5, trainable_stages=2), 0, 9) == 2


def test_head_learns_alone_at_first() -> None:
    options = StrategyConfig(backbone_factor=1, head_epochs=3)
    assert [num_trainable(options, epoch, 9) for epoch in range(5)] == [0, 0, 0, 9, 9]


@pytest.mark.parametrize("num_stages", NUM_STAGES)
@pytest.mark.parametrize("unfreeze_epochs", [1, 4, 100])
@pytest.mark.parametrize("trainable_fraction", [1.0, 0.5])
def test_stages_thaw_from_the_last_to_the_first(
    num_stages: int, unfreeze_epochs: int, trainable_fraction: float
) -> None:
    options = StrategyConfig(
        backbone_factor=0.5,
        first_stage_factor=0.1,
        head_epochs=2,
        unfreeze_epochs=unfreeze_epochs,
        trainable_fraction=trainable_fraction,
    )
    final = rate_factors(options, 1000, num_stages)
    counts = [num_trainable(options, epoch, num_stages) for epoch in range(2, unfreeze_epochs + 2)]
    assert counts == sorted(counts)  # what has thawed never freezes again
    assert counts[0] >= 1
    assert counts[-1] == ceil(trainable_fraction * num_stages)
    for epoch, count in enumerate(counts, start=2):
        assert rate_factors(options, epoch, num_stages) == [0] * (num_stages - count) + final[num_stages - count :]


@pytest.mark.parametrize(
    ("unfreeze_epochs", "num_stages", "epoch", "expected"),
    [(4, 9, 0, 3), (3, 9, 1, 6), (25, 25, 6, 7)],
)
def test_thawing_is_even(unfreeze_epochs: int, num_stages: int, epoch: int, expected: int) -> None:
    options = StrategyConfig(backbone_factor=1, unfreeze_epochs=unfreeze_epochs)
    assert num_trainable(options, epoch, num_stages) == expected


# ---- what follows from the rates


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (StrategyConfig(), [True] * 6),
        (StrategyConfig(backbone_factor=1), [False] * 6),
        (StrategyConfig(backbone_factor=1, trainable_stages=1), [False] * 6),
        (StrategyConfig(backbone_factor=1, head_epochs=2), [True, True, False, False, False, False]),
    ],
    ids=["frozen", "all", "last stage", "head first"],
)
def test_is_still_frozen(options: StrategyConfig, expected: list[bool]) -> None:
    assert [is_still_frozen(options, epoch, 9) for epoch in range(6)] == expected


@pytest.mark.parametrize(
    ("options", "num_epochs", "expected"),
    [
        (StrategyConfig(), 5, [False, False, False, True]),
        (StrategyConfig(backbone_factor=1), 1, [True] * 4),
        (StrategyConfig(backbone_factor=1, trainable_stages=2), 5, [False, True, True, True]),
        (StrategyConfig(backbone_factor=1, head_epochs=5), 5, [False, False, False, True]),
        (StrategyConfig(backbone_factor=1, head_epochs=5), 6, [True] * 4),
        (StrategyConfig(backbone_factor=1, head_epochs=1, unfreeze_epochs=3), 3, [False, True, True, True]),
    ],
)
def test_ever_trainable(options: StrategyConfig, num_epochs: int, expected: list[bool]) -> None:
    assert ever_trainable(options, num_epochs, 3) == expected


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (StrategyConfig(), [0]),
        (StrategyConfig(head_epochs=3), [0]),
        (StrategyConfig(head_epochs=3, joint_factor=0.1), [0, 3]),
        (StrategyConfig(backbone_factor=1), [0]),
        (StrategyConfig(backbone_factor=1, head_epochs=3), [0, 3]),
        (StrategyConfig(backbone_factor=1, head_epochs=3, unfreeze_epochs=4), [0, 3, 4, 5, 6]),
        (StrategyConfig(backbone_factor=1, unfreeze_epochs=100, trainable_stages=1), [0]),
        (StrategyConfig(backbone_factor=1, head_epochs=10), [0]),
    ],
)
def test_phase_starts(options: StrategyConfig, expected: list[int]) -> None:
    assert phase_starts(options, 10, 8) == expected


@pytest.mark.parametrize("num_stages", NUM_STAGES)
@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_tied_parts_have_one_factor_at_all_times_and_their_neighbours_another(path: Path, num_stages: int) -> None:
    options, _ = preset(path.stem)
    epochs = [rate_factors(options, epoch, num_stages) for epoch in range(50)]
    columns = list(zip(*epochs, strict=True))
    tied = rate_groups(options, num_stages)
    assert [part for tie in tied for part in tie] == list(range(num_stages + 1))
    assert all(len({columns[part] for part in tie}) == 1 for tie in tied)
    assert all(columns[tie[-1]] != columns[following[0]] for tie, following in pairwise(tied))


@pytest.mark.parametrize("num_stages", NUM_STAGES)
@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_a_strategy_held_at_its_start_keeps_to_the_first_epoch(path: Path, num_stages: int) -> None:
    options, num_epochs = preset(path.stem)
    held = held_at_start(options, num_stages)
    first = rate_factors(options, 0, num_stages)
    assert [rate_factors(held, epoch, num_stages) for epoch in range(num_epochs)] == [first] * num_epochs


def test_a_strategy_that_thaws_from_the_first_epoch_on_is_held_with_the_few_stages_of_that_epoch() -> None:
    thawing = StrategyConfig(backbone_factor=0.5, first_stage_factor=0.1, unfreeze_epochs=3, trainable_fraction=0.5)
    for num_stages in NUM_STAGES:
        held = held_at_start(thawing, num_stages)
        assert rate_factors(held, 50, num_stages) == rate_factors(thawing, 0, num_stages)
        assert num_trainable(held, 50, num_stages) < num_trainable(thawing, 50, num_stages)
