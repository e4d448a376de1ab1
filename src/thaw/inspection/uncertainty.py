"""How sure a figure is: the interval of an accuracy, and the paired test of two classifiers on the same images.

Imports no torch: a comparison of runs reads tables only.
"""

from math import sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray


def wilson_interval(num_right: float, n: int) -> tuple[float, float]:
    """95 % Wilson score interval of a proportion (Wilson 1927); of several runs, that of their mean number right."""
    share, z = num_right / n, NormalDist().inv_cdf(0.975)
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return middle - half if num_right else 0.0, middle + half if num_right < n else 1.0


def paired_test(differences: NDArray[np.int64]) -> float:
    """Two-sided p of the exact test that two classifiers are right equally often, from their answers image by image.

    If they are, the sign of each image's difference is a fair coin, and their sum is distributed as the sum of so many
    coins of the differences' sizes: the sign-flip test (Fisher 1935, section 21; Pitman 1937). Between two single runs
    every difference is 1, 0 or -1, and it is McNemar's exact test (McNemar 1947): the binomial test of the images on
    which only one of them is right.

    Several runs of a setting, its seeds, answer the same images, so they are no further observations: an image counts
    once, with the share of the runs that are right on it. (Votes or mean probabilities of the runs would judge an
    ensemble, which is better than its members, and the better the more there are.) The test speaks of further images,
    with these runs. It is exact where both settings have equally many runs, and otherwise in the limit of many images.

    Args:
        differences: How much more often the first is right than the second, one whole number (N,) an image.
    """
    from scipy.signal import convolve
    from scipy.stats import binom  # takes a second to import, and only comparisons need it

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
