"""Images in groups that stay together -> train, val and test, or folds."""

import warnings
from collections import Counter, defaultdict
from fractions import Fraction

import numpy as np

from thaw.data.rows import Row
from thaw.errors import ThawError

FEWEST_PARTS, MOST_PARTS = 10, 50
"""Of groups, some of which make up a split: how finely a fraction is met, as far as rare classes allow."""


def take_groups(split: str, fraction: float, rows: list[Row], seed: int, share: float) -> tuple[list[Row], list[Row]]:
    """The rows that stay in train and those that `split` takes: whole groups, each class as nearly as they allow.

    A group that alone has some class stays in train.
    """
    groups_of: defaultdict[str, set[str]] = defaultdict(set)
    for row in rows:
        groups_of[row.name].add(row.group)
    fixed = {group for groups in groups_of.values() if len(groups) == 1 for group in groups}
    common = [row for row in rows if row.group not in fixed]
    sizes = Counter(row.name for row in common).values()
    several = [len(groups) for groups in groups_of.values() if len(groups) > 1]
    fine = min(MOST_PARTS, max(FEWEST_PARTS, min(several, default=0)))  # finer ones would lack rare classes
    most = min(len({row.group for row in common}), max(sizes, default=0), fine)  # that can be made
    if not common:
        raise ThawError(
            f"dataset.{split}_fraction cannot give {split} a group of dataset.csv_group: each of the {len(fixed)} "
            "would leave train without a class. Add groups, name another column, or leave small classes out with "
            "dataset.classes."
        )
    taken_share = max(Fraction(fraction / share).limit_denominator(most), Fraction(1, most))
    parts = _group_parts(common, taken_share.denominator, seed)
    counts = Counter(row.name for row in rows)

    def misfit(part: list[int]) -> float:
        """By how many images the part has too many or too few of the classes."""
        found = Counter(common[i].name for i in part)
        return sum(abs(found[name] - fraction / share * counts[name] / taken_share.numerator) for name in counts)

    order = np.random.default_rng(seed).permutation(len(parts))  # the largest group is always in the first part
    parts = sorted((parts[i] for i in order), key=misfit)[: taken_share.numerator]
    taken = {common[i].group for part in parts for i in part}
    for _, groups in sorted(groups_of.items()):
        if groups <= taken:  # train would lack the class
            taken.remove(min(groups))
    return [row for row in rows if row.group not in taken], [row for row in rows if row.group in taken]


def fold_groups(rows: list[Row], num_folds: int, fold: int, seed: int) -> tuple[list[Row], list[Row]]:
    """The rows outside and those inside one of the stratified folds, with whole groups in each."""
    count = len({row.group for row in rows})
    if count < num_folds:
        raise ThawError(
            f"dataset.num_folds={num_folds} needs as many groups of dataset.csv_group, and there are {count}. "
            "Lower it, or name another column."
        )
    inside = set(_group_parts(rows, num_folds, seed)[fold])
    return [row for i, row in enumerate(rows) if i not in inside], [rows[i] for i in sorted(inside)]


def _group_parts(rows: list[Row], count: int, seed: int) -> list[list[int]]:
    """So many parts of the rows by number, each with whole groups and a like share of each class."""
    from sklearn.model_selection import StratifiedGroupKFold  # slow to import

    if count == 1:
        return [list(range(len(rows)))]
    names, groups = [row.name for row in rows], [row.group for row in rows]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class")  # it is in as many parts as it can be
        parts = StratifiedGroupKFold(count, shuffle=True, random_state=seed).split(names, names, groups)
        return [inside.tolist() for _, inside in parts]


def find_torn_groups(splits: dict[str, list[Row]]) -> tuple[str, ...]:
    """Groups with images in several splits, as the data's own may be, each with its splits: `p07 (train, val)`."""
    splits_of: defaultdict[str, set[str]] = defaultdict(set)
    for split, rows in splits.items():
        for row in rows:
            splits_of[row.group].add(split)
    return tuple(
        f"{group} ({', '.join(sorted(found))})"
        for group, found in sorted(splits_of.items())
        if group and len(found) > 1
    )
