import time
from itertools import product
from math import comb

import numpy as np
import pytest
from scipy.stats import binomtest, norm, permutation_test

from thaw.inspection.uncertainty import paired_test, wilson_interval


@pytest.mark.parametrize(("num_right", "n"), [(0, 1), (1, 1), (0, 153), (153, 153), (143, 153), (1, 10**6)])
def test_wilsons_interval_is_scipys(num_right: int, n: int) -> None:
    interval = binomtest(num_right, n).proportion_ci(0.95, method="wilson")
    assert wilson_interval(num_right, n) == pytest.approx((interval.low, interval.high), abs=1e-12)


def test_between_two_runs_it_is_mcnemars_exact_test_by_hand() -> None:
    # Eight images on which only the first is right, one on which only the second is: the tails of nine fair coins.
    differences = np.array([1] * 8 + [-1] + [0] * 50)
    assert paired_test(differences) == pytest.approx(2 * (comb(9, 0) + comb(9, 1)) / 2**9)


@pytest.mark.parametrize(("first", "second"), [(0, 1), (5, 5), (2, 13), (13, 2), (40, 61), (300, 200)])
def test_between_two_runs_it_is_the_binomial_test_of_the_discordant_images(first: int, second: int) -> None:
    differences = np.array([1] * first + [0] * 7 + [-1] * second)
    assert paired_test(differences) == pytest.approx(binomtest(first, first + second).pvalue, rel=1e-9)


def test_equal_answers_tell_nothing() -> None:
    assert paired_test(np.zeros(20, dtype=np.int64)) == 1.0


def test_over_seeds_it_is_the_share_of_sign_flips_that_are_as_extreme() -> None:
    differences = np.array([5, -2, 3, 0, 1, 4, -1, 2])
    sums = [np.dot(signs, differences) for signs in product((-1, 1), repeat=len(differences))]
    expected = np.mean([abs(total) >= abs(differences.sum()) for total in sums])
    assert paired_test(differences) == pytest.approx(expected)
    assert paired_test(-differences) == paired_test(7 * differences) == paired_test(differences)


def test_over_seeds_it_agrees_with_scipys_permutation_of_pairs() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.binomial(5, 0.9, 200), rng.binomial(5, 0.85, 200)
    drawn = permutation_test(
        (first, second), lambda x, y, axis: (x - y).mean(axis), permutation_type="samples", vectorized=True, rng=rng
    )
    assert paired_test(first - second) == pytest.approx(drawn.pvalue, abs=0.01)


@pytest.mark.slow
def test_many_images_and_seeds_take_seconds() -> None:
    # 52 sizes of differences, whose sum goes up to half a million: 40 seconds, if each step took all pairs of chances.
    rng = np.random.default_rng(0)
    chance = rng.beta(2, 1, 50_000)
    differences = rng.binomial(9, chance) * 10 - rng.binomial(10, chance) * 9
    began = time.process_time()
    p = paired_test(differences)
    assert time.process_time() - began < 15
    z = abs(differences.sum()) / np.sqrt((differences**2).sum())
    assert p == pytest.approx(2 * norm.sf(z), abs=0.001)
    assert 0 <= paired_test(np.abs(differences)) < 1e-12  # no rounding leads below 0


def test_it_is_level_where_a_setting_has_one_run_and_the_other_five() -> None:
    # Equally good runs on images of unequal difficulty: p below 0.05 in about a twentieth of the cases, not more.
    rng = np.random.default_rng(0)
    chance = rng.beta(4, 0.5, 150)
    p = [paired_test(rng.binomial(5, chance) - 5 * rng.binomial(1, chance)) for _ in range(400)]
    assert np.mean(np.array(p) < 0.05) < 0.08
