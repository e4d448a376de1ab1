from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from thaw.config import (
    AugmentConfig,
    BackboneConfig,
    Config,
    DatasetConfig,
    FindLrConfig,
    OptimizerConfig,
    StrategyConfig,
    TrainerConfig,
)
from thaw.errors import ThawError
from thaw.training.building import build
from thaw.training.range_test import RangeTest, has_diverged, longest_fall, run_range_test, smooth

JOINT = StrategyConfig("joint", backbone_factor=0.5, first_stage_factor=0.1)
GRADUAL = replace(JOINT, head_epochs=2, unfreeze_epochs=3)

Make = Callable[..., Config]


def measured(losses: np.ndarray) -> RangeTest:
    return RangeTest(np.geomspace(1e-6, 10, len(losses)), losses, "the head alone")


def dip(num_steps: int = 100) -> np.ndarray:
    """A loss that is flat up to 1e-4, falls up to 1e-1 and then explodes."""
    exponents = np.linspace(-6, 1, num_steps)
    return np.interp(exponents, [-6, -4, -1, 0, 1], [2.0, 2.0, 0.2, 0.4, 30.0])


@pytest.mark.parametrize(("tail", "expected"), [([0.6, 15, 0.6], False), ([0.6, 15], False), ([4, 8, 15], True)])
def test_a_loss_has_diverged_by_its_latest_values(tail: list[float], expected: bool) -> None:
    losses = [*np.linspace(1.1, 0.6, 70), *tail]
    assert smooth(np.array(losses))[-1] < 2  # far from four times its least: the average alone would miss it
    assert has_diverged(losses) == expected
    assert not has_diverged([])  # where the first is not finite


# ---- what a curve suggests


def test_the_running_mean_starts_at_the_first_loss_and_stays_at_a_constant() -> None:
    assert smooth(np.full(50, 3.0)) == pytest.approx(np.full(50, 3.0))
    assert smooth(np.array([1.0, 2.0])) == pytest.approx([1.0, (0.98 * 0.02 * 1 + 0.02 * 2) / (1 - 0.98**2)])


@pytest.mark.parametrize("seed", range(5))
def test_the_longest_fall_is_the_longest_decreasing_subsequence(seed: int) -> None:
    losses = np.random.default_rng(seed).normal(size=9)
    longest = max(
        (chosen for size in range(1, 10) for chosen in combinations(losses, size)),
        key=lambda chosen: len(chosen) if all(a > b for a, b in pairwise(chosen)) else 0,
    )
    start, end = longest_fall(losses)
    assert end - start in (len(longest), len(longest) - 1)  # one less where it begins with the first step


def test_the_suggestions_lie_where_the_loss_falls() -> None:
    test = measured(dip())
    assert 1e-4 < test.valley < 1e-1
    assert 1e-4 < test.steepest < 1e-1


def test_a_fall_from_where_the_loss_has_exploded_suggests_nothing() -> None:
    bump = np.zeros(100)
    bump[70:75] = 25.0
    losses = np.concatenate([dip()[:70], np.full(30, 1.0)]) + bump
    assert 1e-4 < measured(losses).steepest < 1e-1


def test_noise_hardly_moves_the_valley() -> None:
    generator = np.random.default_rng(0)
    valleys = [measured(dip() + generator.normal(0, 0.15, 100)).valley for _ in range(20)]
    assert max(valleys) / min(valleys) < 4


def test_a_rate_has_two_digits_so_that_it_can_be_pasted() -> None:
    test = measured(dip())
    for rate in (test.valley, test.steepest):
        assert float(f"{rate:g}") == rate == float(f"{rate:.1e}")


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        (np.empty(0), r"^The loss diverges within 0 steps of the range test.*Lower find_lr\.lowest"),
        (dip()[:12], r"^The loss diverges within 12 steps"),
        (np.full(100, 0.7), r"^No optimizer\.lr from 1e-06 to 10 lowers the loss by 5%.* Raise find_lr\.num_steps, or"),
        (np.linspace(1, 2, 100), r"^No optimizer\.lr from"),
    ],
)
def test_without_a_fall_there_is_no_suggestion(losses: np.ndarray, message: str) -> None:
    with pytest.raises(ThawError, match=message):
        measured(losses).require_fall()
    if len(losses) == 100:
        with pytest.raises(ThawError, match=r"Raise find_lr\.highest or find_lr\.num_steps, or set optimizer\.lr"):
            replace(measured(losses), diverged=False).require_fall()


# ---- the measurement


@pytest.fixture
def make(image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Options of a small range test on the CPU."""
    torch.manual_seed(0)
    monkeypatch.setenv("THAW_CACHE", str(tmp_path / "cache"))

    def make(strategy: StrategyConfig | None = None, trainer: dict[str, Any] | None = None, **groups: Any) -> Config:
        return Config(
            dataset=DatasetConfig(root=str(image_folder), image_size=64, batch_size=18),
            backbone=BackboneConfig("squeezenet1_1", None),
            strategy=strategy or StrategyConfig(),
            trainer=TrainerConfig(**{"accelerator": "cpu", "precision": "32", "max_epochs": 5} | (trainer or {})),
            **{"find_lr": FindLrConfig(num_steps=20)} | groups,
        )

    return make


@pytest.fixture
def steps() -> Iterator[list[dict[int, float]]]:
    """The learning rate of each part of the network, for each step of any optimizer."""
    rates: list[dict[int, float]] = []

    def note(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        rates.append({part: group["lr"] for group in optimizer.param_groups for part in group["parts"]})

    handle = register_optimizer_step_pre_hook(note)
    yield rates
    handle.remove()


def measure(config: Config) -> RangeTest:
    torch.manual_seed(0)
    data, model, _ = build(config)
    return run_range_test(config, data, model)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_every_rate_rises_by_one_factor_and_the_strategys_ratios_stay(
    make: Make, steps: list[dict[int, float]], name: str
) -> None:
    test = measure(make(JOINT, optimizer=OptimizerConfig(name), find_lr=FindLrConfig(20, 1e-5, 1e-1)))
    head = max(steps[0])
    assert [step[head] for step in steps] == pytest.approx(np.geomspace(1e-5, 1e-1, 20)[: len(steps)])
    assert test.rates == pytest.approx([step[head] for step in steps][: len(test.rates)])
    for step in steps:
        assert step[head - 1] == pytest.approx(0.5 * step[head])
        assert step[0] == pytest.approx(0.05 * step[head])


def test_a_data_set_of_one_batch_is_cycled_whatever_the_number_of_epochs(
    make: Make, steps: list[dict[int, float]]
) -> None:
    dataset = replace(make().dataset, batch_size=32)
    test = measure(replace(make(trainer={"max_epochs": 1}), dataset=dataset, find_lr=FindLrConfig(40, 1e-6, 1e-1)))
    assert len(test.losses) == len(steps) == 40


def test_a_step_of_several_batches_is_one_point_of_the_curve(make: Make, steps: list[dict[int, float]]) -> None:
    one, several = (measure(make(trainer={"accumulate": accumulate})) for accumulate in (1, 3))
    assert len(one.losses) + len(several.losses) == len(steps)
    assert several.losses[0] == pytest.approx(one.losses[:3].mean(), rel=0.02)  # the rate is next to nothing


def test_stored_features_take_the_images_place_where_the_backbone_is_frozen(make: Make) -> None:
    config = make(find_lr=FindLrConfig(60, 1e-6, 1.0))
    data, model, _ = build(config)
    num_images = 0

    def count(module: torch.nn.Module, inputs: tuple[torch.Tensor]) -> None:
        nonlocal num_images
        num_images += len(inputs[0])

    model.backbone.register_forward_pre_hook(count)
    run_range_test(config, data, model)
    assert num_images == 2 * len(data.index.splits["train"])  # each and its mirror image


@pytest.mark.parametrize(
    ("strategy", "learns", "num_learning"),
    [
        (StrategyConfig(), "the head alone", 0),
        (GRADUAL, "the head alone", 0),
        (replace(GRADUAL, head_epochs=0), "3 of 9 stages and the head", 3),
        (JOINT, "all 9 stages and the head", 9),
    ],
)
def test_what_learns_in_the_first_epoch_is_what_is_tested(
    make: Make, steps: list[dict[int, float]], strategy: StrategyConfig, learns: str, num_learning: int
) -> None:
    test = measure(make(strategy))
    assert test.learns == learns
    assert [sum(rate > 0 for rate in step.values()) for step in steps] == [num_learning + 1] * len(steps)


@pytest.mark.parametrize(("cache", "num_workers"), [("ram", 0), ("none", 2), ("device", 0)])
def test_crops_that_grow_have_the_side_of_the_first_epoch_throughout(make: Make, cache: str, num_workers: int) -> None:
    config = make(JOINT, augment=AugmentConfig(start_size=32), find_lr=FindLrConfig(20, 1e-4, 1e-2))
    data, model, _ = build(replace(config, dataset=replace(config.dataset, cache=cache, num_workers=num_workers)))
    sides: set[int] = set()
    model.backbone.register_forward_pre_hook(lambda module, inputs: sides.add(inputs[0].shape[-1]))
    run_range_test(config, data, model)
    assert sides == {32}
    loader: Any = data.train_dataloader()
    loader.sampler.set_epoch(4)
    (batch,) = loader
    assert data.on_after_batch_transfer(batch, 0)[0].shape[-1] == 64


@pytest.mark.parametrize("highest", [1e6, 1e30])
@pytest.mark.parametrize("extra", [{}, {"detect_anomaly": True, "limit_train_batches": 2}])
def test_a_loss_that_diverges_or_is_no_number_ends_the_test(make: Make, highest: float, extra: dict[str, Any]) -> None:
    augment = AugmentConfig(label_smoothing=0.1)  # else the head tells these colours apart at any rate
    test = measure(make(trainer={"extra": extra}, augment=augment, find_lr=FindLrConfig(150, 1e-6, highest)))
    assert 20 < len(test.losses) < 150
    assert np.isfinite(test.losses).all()
    assert test.valley < 10
    assert test.doubt() is None


def test_a_range_that_ends_before_the_loss_diverges_is_told(make: Make) -> None:
    test = measure(make(find_lr=FindLrConfig(30, 1e-5, 0.05)))
    assert len(test.rates) == 30
    assert test.doubt() == (
        "The loss never diverged up to find_lr.highest=0.05, so the suggestion is weak: try find_lr.highest=0.5"
    )


@pytest.mark.parametrize(("left", "doubts"), [(0.01, False), (0.5, True)])
def test_where_the_images_are_learned_no_higher_rates_are_advised(left: float, doubts: bool) -> None:
    rates = np.geomspace(1e-6, 10, 150)
    losses = np.concatenate([np.ones(40), np.linspace(1, left, 20), np.full(90, left)])
    assert (RangeTest(rates, losses, "the head alone", diverged=False).doubt() is not None) == doubts


def test_model_data_and_generators_are_left_as_they_were(make: Make) -> None:
    config = make(GRADUAL, find_lr=FindLrConfig(20, 1e-4, 1.0))
    data, model, _ = build(config)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    learning = [parameter.requires_grad for parameter in model.parameters()]
    generators = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index,union-attr]
    run_range_test(config, data, model)
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert [name for name in before if not torch.equal(before[name], after[name])] == []
    assert [parameter.requires_grad for parameter in model.parameters()] == learning
    assert all(parameter.grad is None for parameter in model.parameters())
    assert (model.strategy, model.schedule, model.optimizer_options) == (GRADUAL, config.schedule, config.optimizer)
    assert (data.features.backbone, data.trainer) == (None, None)
    assert torch.equal(torch.get_rng_state(), generators[0])
    assert (np.random.get_state()[1] == generators[1]).all()  # type: ignore[index]
