from collections.abc import Callable
from typing import Any

import pytest
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, OneCycleLR, StepLR

from thaw.config import ScheduleConfig
from thaw.model.schedule import pace_at

NAMES = ("constant", "step", "one_cycle", "cosine")
EPOCHS, BATCHES = 20, 50
TIMES = [batch / BATCHES for batch in range(EPOCHS * BATCHES)]


def torchs_groups(make: Callable[[SGD], LRScheduler], num_steps: int) -> list[dict[str, Any]]:
    """The state of torch's scheduler at the start of each step, for a highest rate of 1 and a momentum of 0.9."""
    optimizer = SGD(nn.Linear(1, 1).parameters(), lr=1.0, momentum=0.9)
    scheduler = make(optimizer)
    groups = []
    for _ in range(num_steps):
        groups.append(dict(optimizer.param_groups[0]))
        optimizer.step()
        scheduler.step()
    return groups


# ---- the same as torch's


@pytest.mark.parametrize(("step_epochs", "step_factor"), [(7, 0.1), (1, 0.5), (30, 0.1)])
def test_step_is_torchs(step_epochs: int, step_factor: float) -> None:
    options = ScheduleConfig("step", step_epochs=step_epochs, step_factor=step_factor)
    torchs = torchs_groups(lambda optimizer: StepLR(optimizer, step_epochs, step_factor), EPOCHS)
    ours = [pace_at(options, epoch, EPOCHS).rate for epoch in range(EPOCHS)]
    assert ours == pytest.approx([group["lr"] for group in torchs])


def test_step_holds_within_an_epoch() -> None:
    options = ScheduleConfig("step", step_epochs=2)
    assert {pace_at(options, time, EPOCHS).rate for time in (2, 2.5, 3, 3.99)} == {options.step_factor}


@pytest.mark.parametrize("final_factor", [0.0, 0.1])
def test_cosine_is_torchs(final_factor: float) -> None:
    options = ScheduleConfig("cosine", final_factor=final_factor)
    num_steps = EPOCHS * BATCHES
    torchs = torchs_groups(lambda optimizer: CosineAnnealingLR(optimizer, num_steps, final_factor), num_steps)
    ours = [pace_at(options, time, EPOCHS).rate for time in TIMES]
    assert ours == pytest.approx([group["lr"] for group in torchs])


@pytest.mark.parametrize("peak_fraction", [0.25, 0.5])
def test_one_cycle_is_torchs_but_for_a_step(peak_fraction: float) -> None:
    """Torch's reaches its end with the last step, ours after it."""
    options = ScheduleConfig(
        "one_cycle", peak_fraction=peak_fraction, start_factor=0.1, final_factor=0.01, low_momentum=0.85
    )
    torchs = torchs_groups(
        lambda optimizer: OneCycleLR(
            optimizer,
            max_lr=1.0,
            total_steps=EPOCHS * BATCHES,
            pct_start=peak_fraction,
            div_factor=10,
            final_div_factor=10,
            base_momentum=0.85,
            max_momentum=0.9,
        ),
        EPOCHS * BATCHES,
    )
    paces = [pace_at(options, time, EPOCHS) for time in TIMES]
    assert [pace.rate for pace in paces] == pytest.approx([group["lr"] for group in torchs], abs=0.006)
    momenta = [0.9 + pace.dip * (0.85 - 0.9) for pace in paces]
    assert momenta == pytest.approx([group["momentum"] for group in torchs], abs=0.0003)


# ---- on their own


def test_constant_is_constant() -> None:
    assert {pace_at(ScheduleConfig("constant"), time, EPOCHS) for time in TIMES} == {(1.0, 0.0)}


def test_one_cycle_begins_low_peaks_and_ends_lowest() -> None:
    options = ScheduleConfig("one_cycle", peak_fraction=0.25, start_factor=0.1, final_factor=0.0)
    assert pace_at(options, 0, EPOCHS) == pytest.approx((0.1, 0.0))
    assert pace_at(options, 0.25 * EPOCHS, EPOCHS) == pytest.approx((1.0, 1.0))
    assert pace_at(options, EPOCHS, EPOCHS) == pytest.approx((0.0, 0.0))


@pytest.mark.parametrize("name", ["constant", "step", "cosine"])
def test_only_one_cycle_moves_the_momentum(name: str) -> None:
    assert {pace_at(ScheduleConfig(name, warmup_epochs=2), time, EPOCHS).dip for time in TIMES} == {0.0}


@pytest.mark.parametrize("name", ["constant", "one_cycle", "cosine"])
def test_does_not_depend_on_the_number_of_epochs_but_by_progress(name: str) -> None:
    options = ScheduleConfig(name)
    short, long = ([pace_at(options, part * n, n) for part in (0, 0.125, 0.25, 0.5, 0.875)] for n in (4, 64))
    assert short == long


# ---- warm-up


@pytest.mark.parametrize("name", NAMES)
def test_warmup_begins_at_zero(name: str) -> None:
    assert pace_at(ScheduleConfig(name, warmup_epochs=2), 0, EPOCHS) == (0.0, 0.0)


def test_warmup_rises_linearly() -> None:
    options = ScheduleConfig("constant", warmup_epochs=2.5)
    rates = [pace_at(options, time, EPOCHS).rate for time in (0, 0.5, 1.25, 2.5, 3)]
    assert rates == pytest.approx([0, 0.2, 0.5, 1, 1])


@pytest.mark.parametrize("name", ["constant", "step", "cosine", "one_cycle"])
def test_no_jump_at_the_end_of_warmup(name: str) -> None:
    options = ScheduleConfig(name, warmup_epochs=2, step_epochs=7)
    before, after = (pace_at(options, 2 + offset, EPOCHS) for offset in (-1e-9, 1e-9))
    assert before == pytest.approx(after, abs=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_schedule_fits_into_what_warmup_leaves(name: str) -> None:
    plain, warm = ScheduleConfig(name), ScheduleConfig(name, warmup_epochs=4)
    for time in (0, 3, 8, 15.5):
        assert pace_at(warm, 4 + time, 20) == pytest.approx(pace_at(plain, time, 16))


@pytest.mark.parametrize("warmup_epochs", [3, 5])
@pytest.mark.parametrize("name", NAMES)
def test_warmup_may_be_all_there_is(name: str, warmup_epochs: int) -> None:
    rates = [pace_at(ScheduleConfig(name, warmup_epochs=warmup_epochs), batch / 10, 3).rate for batch in range(30)]
    assert rates == sorted(rates)
