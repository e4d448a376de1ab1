import random
from collections.abc import Callable

import numpy as np
import pytest
import torch

from thaw.seeding import derive_seed, reseed, seeded


def draw() -> list[float]:
    return torch.rand(4).tolist()


def draw_seeded(*position: int) -> list[float]:
    with seeded(*position):
        return draw()


def draw_reseeded(*position: int) -> list[float]:
    reseed(*position)
    return draw()


@pytest.fixture(autouse=True)
def _own_generator() -> None:
    torch.manual_seed(1)


@pytest.mark.parametrize("draw_at", [draw_seeded, draw_reseeded])
def test_values_depend_on_nothing_but_the_position(draw_at: Callable[..., list[float]]) -> None:
    first = draw_at(0, 1, 2)
    torch.manual_seed(123)
    draw()
    assert draw_at(0, 1, 2) == first


@pytest.mark.parametrize("draw_at", [draw_seeded, draw_reseeded])
def test_neighbouring_positions_have_unlike_values(draw_at: Callable[..., list[float]]) -> None:
    positions = [(seed, epoch, index) for seed in range(5) for epoch in range(5) for index in range(5)]
    values = torch.tensor([draw_at(*position) for position in positions])
    assert len({tuple(row) for row in values.tolist()}) == len(positions)
    assert values.mean().item() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_the_gpus_generator_is_set_too(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[int] = []
    backend, question = (torch.cuda, "is_initialized") if device == "cuda" else (torch.backends.mps, "is_available")
    monkeypatch.setattr(backend, question, lambda: True)
    monkeypatch.setattr(getattr(torch, device), "manual_seed", seeds.append)
    reseed(1, 2)
    assert seeds == [derive_seed(1, 2)]


def test_both_ways_give_the_same_values() -> None:
    assert draw_seeded(3, 4) == draw_reseeded(3, 4)


def test_position_of_another_length_is_another_position() -> None:
    assert len({derive_seed(*position) for position in [(1, 2), (1, 2, 0), (1, 2, 0, 0)]}) == 3


def test_seed_is_mixed_to_64_bits() -> None:
    seeds = [derive_seed(0, index) for index in range(64)]
    assert all(0 <= seed < 2**64 for seed in seeds)
    assert max(seeds) > 2**63


def test_outside_the_generator_goes_on_as_if_nothing_had_been() -> None:
    undisturbed = draw() + draw()
    torch.manual_seed(1)
    before = draw()
    draw_seeded(5)
    assert before + draw() == undisturbed


def test_generator_is_restored_after_an_error() -> None:
    undisturbed = draw()
    torch.manual_seed(1)
    with pytest.raises(ZeroDivisionError), seeded(5):
        raise ZeroDivisionError
    assert draw() == undisturbed


def test_other_generators_are_left_alone() -> None:
    random.seed(1)
    np.random.seed(1)
    states = random.getstate(), np.random.get_state()[1].tolist()
    reseed(1, 2)
    draw_seeded(1, 2)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states


def test_positions_nest() -> None:
    with seeded(1):
        inner, outer = draw_seeded(2), draw()
    assert (inner, outer) == (draw_seeded(2), draw_seeded(1))
