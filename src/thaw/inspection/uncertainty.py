"""How sure a figure is: the interval of an accuracy, and the paired test of two classifiers on the same images.

Both take images for independent, unless they are told which belong together, as those of a patient do.

Imports no torch: a comparison of runs reads tables only.
"""

from collections.abc import Sequence
from math import sqrt
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

FEWEST_GROUPS = 3
"""Groups with some right and with some wrong answers that it takes to tell how alike the images of a group are."""


def wilson_interval(num_right: float, n: float) -> tuple[float, float]:
    """95 % Wilson score interval of a proportion (Wilson 1927); of several runs, that of their mean number right."""
    share, z = num_right / n, NormalDist().inv_cdf(0.975)
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return middle - half if num_right else 0.0, middle + half if num_right < n else 1.0


def accuracy_interval(right: NDArray[Any], groups: Sequence[str] = ()) -> tuple[float, float]:
    """95 % interval of an accuracy: Wilson's, of groups that of as many independent images as tell it as surely.

    Args:
        right: Whether an image (N,) is predicted right, or by what share of the runs.
        groups: The group of each image, N; empty where each is its own.
    """
    n = effective_size(right, groups) if groups else len(right)
    return wilson_interval(float(right.sum() * n / len(right)), n)


def effective_size(right: NDArray[Any], groups: Sequence[str]) -> float:
    """How many independent images tell an accuracy as surely as these, of which those of one group may be alike.

    Their number over the design effect: the variance of the accuracy between groups over that between as many
    independent images (Kish 1965), made smaller where there are few groups, whose variance is itself unsure (Korn and
    Graubard 1998). A large group counts for more, so groups of unequal sizes are as good as fewer of equal ones (Kish).
    Where right or wrong answers are in fewer than `FEWEST_GROUPS`, nothing tells how alike the images of a group are,
    and each such group counts as one image.

    Args:
        right: Whether an image (N,) is predicted right, or by what share of the runs.
        groups: The group of each image, N.

    Returns:
        A number from 1 to N.
    """
    from scipy.special import stdtrit  # slow to import

    _, numbers, sizes = np.unique(np.array(groups), return_inverse=True, return_counts=True)
    n, count, share = len(right), len(sizes), float(right.mean())
    num_equal = float(n**2 / (sizes**2).sum())
    num_right = np.bincount(numbers, right)
    if min((num_right > 0).sum(), (num_right < sizes).sum()) < FEWEST_GROUPS:
        return num_equal
    surplus = num_right - share * sizes
    variance = count / (count - 1) * float(surplus @ surplus) / n**2
    few = NormalDist().inv_cdf(0.975) / float(stdtrit(max(num_equal - 1, 0.5), 0.975))
    return float(np.clip(few**2 * share * (1 - share) / variance if variance else n, 1, n))


def paired_test(differences: NDArray[np.int64], groups: Sequence[str] = ()) -> float:
    """Two-sided p of the exact test that two classifiers are right equally often, from their answers image by image.

    If they are, the sign of each image's difference is a fair coin, and their sum is distributed as the sum of so many
    coins of the differences' sizes: the sign-flip test (Fisher 1935, section 21; Pitman 1937). Between two single runs
    every difference is 1, 0 or -1, and it is McNemar's exact test (McNemar 1947): the binomial test of the images on
    which only one of them is right.

    Several runs of a setting, its seeds, answer the same images, so they are no further observations: an image counts
    once, with the share of the runs that are right on it. (Votes or mean probabilities of the runs would judge an
    ensemble, which is better than its members, and the better the more there are.) The test speaks of further images,
    with these runs. It is exact where both settings have equally many runs, and otherwise in the limit of many images.

    Images of one group are no independent coins either: the sign of their sum is one.

    Args:
        differences: How much more often the first is right than the second, one whole number (N,) an image.
        groups: The group of each image, N; empty where each is its own.
    """
    from scipy.signal import convolve
    from scipy.stats import binom  # takes a second to import, and only comparisons need it

    if groups:
        _, numbers = np.unique(np.array(groups), return_inverse=True)
        differences = np.bincount(numbers, differences).astype(np.int64)
    differences = differences // max(1, int(np.gcd.reduce(differences)))
    sizes, counts = np.unique(np.abs(differences[differences != 0]), return_counts=True)
    chances = np.ones(1)  # of the sum of the positive differences being 0, 1, 2, …
    for size, count in zip(sizes.tolist(), counts.tolist(), strict=True):
        coins = np.zeros(size * count + 1)
        coins[::size] = binom.pmf(np.arange(count + 1), count, 0.5)
        chances = convolve(chances, coins)  # long ones by FFT, to some 15 digits after the point
    last = len(chances) - 1
    sums = np.abs(2 * np.arange(last + 1) - last)  # of all differences, their signs aside
    return float(np.clip(chances[sums >= abs(int(differences.sum()))].sum(), 0, 1))
