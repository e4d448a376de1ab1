import time
from itertools import product
from math import comb

import numpy as np
import pytest
from scipy.stats import binomtest, norm, permutation_test, t

from thaw.inspection.uncertainty import accuracy_interval, effective_size, paired_test, wilson_interval


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


def patients(rng: np.random.Generator, likeness: float) -> tuple[np.ndarray, list[str]]:
    """Chances (600,) of being right of 30 images of each of 20 patients, and the patient of each image."""
    chances = rng.beta(0.8 / likeness - 0.8, 0.2 / likeness - 0.2, 20)  # intraclass correlation: likeness
    return np.repeat(chances, 30), [f"p{number}" for number in range(20) for _ in range(30)]


@pytest.mark.parametrize("likeness", [0.1, 0.4])
def test_the_interval_of_groups_holds_the_truth_as_often_as_it_says(likeness: float) -> None:
    rng = np.random.default_rng(0)
    held = {"groups": 0, "images": 0}
    for _ in range(1000):
        chances, groups = patients(rng, likeness)
        right = rng.random(600) < chances
        for name, (low, high) in {
            "groups": accuracy_interval(right, groups),
            "images": accuracy_interval(right),
        }.items():
            held[name] += low <= 0.8 <= high
    assert held["groups"] / 1000 == pytest.approx(0.94, abs=0.02)
    assert held["images"] < 750


def test_images_of_groups_that_are_not_alike_count_in_full() -> None:
    rng = np.random.default_rng(0)
    groups = [str(number) for number in range(600)]
    right = rng.random(600) < 0.8
    assert effective_size(right, groups) == pytest.approx(599 * (norm.ppf(0.975) / t.ppf(0.975, 599)) ** 2)
    sizes = [effective_size(rng.random(600) < 0.8, [f"p{i % 20}" for i in range(600)]) for _ in range(200)]
    assert np.median(sizes) == pytest.approx(600 * (norm.ppf(0.975) / t.ppf(0.975, 19)) ** 2, rel=0.1)
    assert max(sizes) == 600


def test_images_of_one_kind_count_once_a_group() -> None:
    groups = [f"p{i % 10}" for i in range(60)]
    few = (norm.ppf(0.975) / t.ppf(0.975, 9)) ** 2  # a group is right or wrong: the textbook's variance of ten draws
    assert effective_size(np.array([i % 10 < 7 for i in range(60)]), groups) == pytest.approx(few * 9)
    assert accuracy_interval(np.ones(60), groups) == wilson_interval(10, 10)
    assert accuracy_interval(np.zeros(60), groups) == wilson_interval(0, 10)
    assert effective_size(np.arange(60) % 7 < 5, ["p0"] * 60) == 1
    assert effective_size(np.tile([True, False], 30), [f"p{i // 2}" for i in range(60)]) == 60  # all as good as another


def test_with_errors_in_few_groups_each_counts_as_one_image() -> None:
    groups = [f"p{i // 10}" for i in range(200)]
    for wrong in ([], [0], [0, 1, 2, 3], [0, 10]):
        right = ~np.isin(np.arange(200), wrong)
        assert effective_size(right, groups) == 20
        assert effective_size(~right, groups) == 20
    assert effective_size(~np.isin(np.arange(200), [0, 10, 20]), groups) > 100


def test_groups_of_unequal_sizes_are_as_good_as_fewer_of_equal_ones() -> None:
    sizes = [40, 10, 10, 10, 10, 10, 10]
    groups = [f"p{number}" for number, size in enumerate(sizes) for _ in range(size)]
    assert effective_size(np.ones(100), groups) == pytest.approx(100**2 / (40**2 + 6 * 10**2))
    rng, held = np.random.default_rng(0), 0
    for _ in range(1000):
        sizes = rng.geometric(1 / 20, 5)
        groups = [f"p{number}" for number, size in enumerate(sizes) for _ in range(size)]
        low, high = accuracy_interval(rng.random(len(groups)) < np.repeat(rng.beta(1.2, 0.3, 5), sizes), groups)
        held += low <= 0.8 <= high
    assert held > 930


def test_without_groups_the_interval_is_wilsons() -> None:
    assert accuracy_interval(np.arange(153) < 143) == wilson_interval(143, 153)
    assert accuracy_interval(np.full(10, 0.3)) == pytest.approx(wilson_interval(3, 10))


def test_the_images_of_a_group_flip_together() -> None:
    groups = list("aabbbcddee")
    differences = np.array([1, 1, -1, -1, 0, 1, 1, 1, 1, 1])
    sums = np.array([2, -2, 1, 2, 2])
    flips = [np.dot(signs, sums) for signs in product((-1, 1), repeat=5)]
    assert paired_test(differences, groups) == pytest.approx(np.mean([abs(total) >= 5 for total in flips]))
    assert paired_test(differences, [str(i) for i in range(10)]) == paired_test(differences)


def test_of_groups_it_is_level_where_that_of_images_is_not() -> None:
    rng = np.random.default_rng(0)
    p = {"groups": list[float](), "images": list[float]()}
    for _ in range(300):
        chances, groups = patients(rng, 0.4)
        other, _ = patients(rng, 0.4)
        differences = (rng.random(600) < chances).astype(np.int64) - (rng.random(600) < other)
        p["groups"].append(paired_test(differences, groups))
        p["images"].append(paired_test(differences))
    assert np.mean(np.array(p["groups"]) < 0.05) == pytest.approx(0.05, abs=0.03)
    assert np.mean(np.array(p["images"]) < 0.05) > 0.3
