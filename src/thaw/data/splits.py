"""Images with the names of their classes -> train, val and test, or folds."""

from collections import Counter
from collections.abc import Collection, Mapping
from functools import partial

import numpy as np

from thaw.config import DatasetConfig
from thaw.data.group_splits import fold_groups, take_groups
from thaw.data.rows import Row, Sample
from thaw.errors import ThawError, name_some

SPLIT_NAMES = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test",
    "testing": "test",
}  # fmt: skip
"""Names of splits in folders and CSV files, each with ours."""
FRACTIONS = [number / 20 for number in range(1, 20)]
"""Fractions that are searched for a better one to suggest."""


def by_split(rows: list[Row]) -> dict[str, list[Row]]:
    """The rows of each split that has any."""
    return {split: [row for row in rows if row.split == split] for split in {row.split for row in rows}}


def split_as_before(
    rows: list[Row], original: list[Row], excluded: list[Row], options: DatasetConfig
) -> dict[str, list[Row]]:
    """The rows of each split, drawn as if no list left an image out or gave it another class.

    So a list changes what is learned of the images that it names, and moves no other one to another split. Images of a
    class that a list brings are drawn by that one; what is left of a class stays in train where that would lack it.

    Args:
        rows: The images that are left, with the classes to learn.
        original: The same and others, with the classes that the data give them.
        excluded: Images that are left out.
        options: How to split.

    Raises:
        ThawError: The options do not suit the images, or nothing is left of a split.
    """
    left, known = {row.path: row for row in rows}, {row.name for row in original}
    names, splits = {row.name for row in rows}, {row.split for row in rows}
    drawn = []
    for row in (*original, *excluded):
        now = left.get(row.path)
        if now and (now.name not in known or row.name not in names):
            drawn.append(now)
        elif row.name in names and row.split in splits:
            drawn.append(row)
    parts = split_rows(sorted(drawn), options)
    found = {split: [left[row.path] for row in part if row.path in left] for split, part in parts.items()}
    if options.csv_fold is None:
        redrawn = {"val"} if options.num_folds is not None else set()
        _fill_train(found, found.keys() - (splits - redrawn) - {"train"})
    for split, part in found.items():
        if not part:
            raise ThawError(f"{split} has no images left: dataset.exclude or dataset.relabel takes all of them away.")
    return found


def _fill_train(splits: dict[str, list[Row]], drawn: Collection[str]) -> None:
    """Move what train lacks a class of there from the splits that were drawn, with the whole of its groups."""
    names = {row.name for row in splits["train"]}
    for split in drawn:
        groups = {row.group for row in splits[split] if row.name not in names} - {""}
        moved = [row for row in splits[split] if row.name not in names or row.group in groups]
        splits["train"] += moved
        splits[split] = [row for row in splits[split] if row not in moved]


def split_rows(rows: list[Row], options: DatasetConfig) -> dict[str, list[Row]]:
    """The rows of each split: the data's own splits, completed as the options ask."""
    seed, share = options.split_seed, 1.0
    take, divide = (take_groups, fold_groups) if any(row.group for row in rows) else (_take, _fold)
    if options.csv_fold is not None:
        divide = partial(_fold_given, options.csv_fold)
    splits = by_split(rows)
    if "" in splits:
        splits["train"] = splits.pop("")
        if options.test_fraction:
            splits["train"], splits["test"] = take("test", options.test_fraction, splits["train"], seed, share)
            share -= options.test_fraction
    if "train" not in splits:
        raise ThawError("train has no images. The data needs some in a train split, or no splits at all.")
    if options.num_folds is not None and options.fold is not None:
        outside_test = sorted(splits["train"] + splits.get("val", []))
        if options.csv_fold is None:
            _check_sizes(outside_test, options.num_folds)
        splits["train"], splits["val"] = divide(outside_test, options.num_folds, options.fold, seed)
    elif "val" not in splits and options.val_fraction:
        splits["train"], splits["val"] = take("val", options.val_fraction, splits["train"], seed, share)
    elif "val" not in splits and "test" not in splits:
        raise ThawError("dataset.val_fraction=0 validates on the test split, and there is none. Use 0.2, for example.")
    return splits


def _take(split: str, fraction: float, rows: list[Row], seed: int, share: float) -> tuple[list[Row], list[Row]]:
    """The rows that stay in train and those that `split` takes, the same fraction of each class.

    A class stays whole where the fraction would leave train less than one image of it.

    Args:
        split: val or test.
        fraction: How much it takes of all images.
        rows: The images to take from.
        seed: Which of them are taken.
        share: How much the rows are of all images.
    """
    counts = Counter(row.name for row in rows)
    shared, size = _count_taken(counts, fraction / share)
    if size < max(1, len(shared)):
        name = min(counts, key=lambda name: (counts[name], name))
        better = _find_fraction(fraction, rows, seed, share)
        advice = f"Set dataset.{split}_fraction={better}, add images," if better else "Add images,"
        raise ThawError(
            f"dataset.{split}_fraction must give {split} an image of each class: it gives {size} of {len(rows)} images "
            f"in {len(counts)} classes, of which {name!r} has {counts[name]}. "
            f"{advice} or leave small classes out with dataset.classes."
        )
    return _divide(rows, shared, size, seed)


def _count_taken(counts: Mapping[str, int], fraction: float) -> tuple[set[str], int]:
    """The classes that give a fraction of their images, and how many images that is; train keeps one of each class."""
    shared = {name for name, count in counts.items() if fraction <= 1 - 1 / count}
    return shared, round(fraction * sum(counts[name] for name in shared))


def _divide(rows: list[Row], shared: Collection[str], size: int, seed: int) -> tuple[list[Row], list[Row]]:
    """The rows that stay, and so many of the shared classes that leave."""
    from sklearn.model_selection import train_test_split  # slow to import

    common = [row for row in rows if row.name in shared]
    names = [row.name for row in common]
    stay, leave = train_test_split(common, test_size=size, random_state=seed, stratify=names)
    return [row for row in rows if row.name not in shared] + stay, leave


def _find_fraction(fraction: float, rows: list[Row], seed: int, share: float) -> float | None:
    """The fraction next to this one that takes an image of every class which has several; None if there is none."""
    counts = Counter(row.name for row in rows)
    several = {name for name, count in counts.items() if count > 1}
    for better in sorted(FRACTIONS, key=lambda each: abs(each - fraction)):
        shared, size = _count_taken(counts, better / share)
        if shared == several and size >= max(1, len(shared)):
            _, leave = _divide(rows, shared, size, seed)
            if {row.name for row in leave} == several:
                return better
    return None


def _fold(rows: list[Row], num_folds: int, fold: int, seed: int) -> tuple[list[Row], list[Row]]:
    """The rows outside and those inside one of the stratified folds."""
    from sklearn.model_selection import StratifiedKFold  # slow to import

    names = [row.name for row in rows]
    folds = StratifiedKFold(num_folds, shuffle=True, random_state=seed).split(names, names)
    outside, inside = list(folds)[fold]
    return [rows[i] for i in outside], [rows[i] for i in inside]


def _check_sizes(rows: list[Row], num_folds: int) -> None:
    for name, count in sorted(Counter(row.name for row in rows).items()):
        if count < num_folds:
            raise ThawError(
                f"dataset.num_folds={num_folds} needs as many images of each class, and {name!r} has {count}. "
                "Lower it, add images, or leave small classes out with dataset.classes."
            )


def _fold_given(column: str, rows: list[Row], num_folds: int, fold: int, seed: int) -> tuple[list[Row], list[Row]]:
    """As `_fold` does, by the folds that the data gives."""
    names = sorted({row.fold for row in rows}, key=lambda name: (len(name), name))  # 10 behind 9
    if len(names) != num_folds:
        why = f"as dataset.csv_fold={column} has the folds {name_some(names)}"
        raise ThawError(f"dataset.num_folds must be {len(names)}, {why}, got {num_folds}.")
    return [row for row in rows if row.fold != names[fold]], [row for row in rows if row.fold == names[fold]]


def draw(samples: list[Sample], per_class: int, seed: int) -> list[Sample]:
    """At most so many samples of each class, those of a smaller number among those of a larger one."""
    drawn: list[Sample] = []
    counts: Counter[int] = Counter()
    for i in np.random.default_rng(seed).permutation(len(samples)):
        if counts[samples[i].label] < per_class:
            counts[samples[i].label] += 1
            drawn.append(samples[i])
    return sorted(drawn)
