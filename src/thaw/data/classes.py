"""Images with the names of their classes -> which classes there are, in which order."""

import os
import re
from collections.abc import Collection, Sequence
from pathlib import Path

from thaw.data.rows import Row
from thaw.errors import ThawError, did_you_mean, name_some, printable

WHOLE_NUMBER = re.compile("-?[0-9]{1,100}")
PLAIN = re.compile("[A-Za-z][A-Za-z0-9_-]*")
"""A name that may be typed as it is."""
MOST_TYPED = 5
"""Classes that a message tells to type."""


def keep_classes(rows: list[Row], classes: Collection[str] | None) -> list[Row]:
    """The rows of some classes, or of all."""
    known = sorted({row.name for row in rows})
    for name in classes or ():
        if name not in known:
            near = did_you_mean(name, known)
            raise ThawError(f"dataset.classes has an unknown class: {name!r}.{near} Known are: {name_some(known)}.")
    return [row for row in rows if classes is None or row.name in classes]


def sort_classes(names: Collection[str], by_folder: bool) -> tuple[str, ...]:
    """The classes by label: folders sorted as texts, as torchvision's ImageFolder does, other whole numbers by value.

    Args:
        names: Names of the classes.
        by_folder: Whether folders have these names.
    """
    are_numbers = not by_folder and all(map(WHOLE_NUMBER.fullmatch, names))
    return tuple(sorted(names, key=lambda name: (int(name) if are_numbers else 0, name)))


def learn_classes(splits: dict[str, list[Row]], by_folder: bool, tables: Sequence[str]) -> tuple[str, ...]:
    """The classes of train, which the other splits must not go beyond.

    Args:
        splits: Rows by split.
        by_folder: Whether folders tell the classes.
        tables: CSV files beside the images, which may tell the classes.

    Raises:
        ThawError: Another split has a class that train lacks, or train has only one.
    """
    known = {row.name for row in splits["train"]}
    classes = sort_classes(known, by_folder)
    for split in ("val", "test"):
        strange = [row for row in splits.get(split, []) if row.name not in known]
        if strange:
            name, source = strange[0].name, strange[0].source
            count = sum(row.name == name for row in strange)
            kept = ",".join(classes) if len(classes) <= MOST_TYPED and all(map(PLAIN.fullmatch, classes)) else "…"
            advice = f" dataset.classes=[{kept}] leaves it out." if len(classes) > 1 else ""
            raise ThawError(
                f"{split} has a class that train lacks: {name!r} ({count} image{'s' * (count > 1)} in {source}). "
                f"Classes are taken from train: {name_some(classes)}.{advice}"
            )
    if len(classes) < 2:
        first = splits["train"][0]
        in_class_folder = first.source == first.name  # right below the root, and not labelled otherwise
        deeper = name_deeper_folder([row.path for row in splits["train"]]) if in_class_folder else ""
        advice = deeper + name_tables(tables)
        raise ThawError(f"train must have images of at least two classes, got one: {classes[0]!r}.{advice}")
    return classes


def name_deeper_folder(paths: Collection[Path]) -> str:
    """What may be meant by `dataset.root` where the folder of the only class has its images in several; or nothing."""
    folders = {path.parent for path in paths}
    if len(folders) == 1:
        return ""
    return f" If the classes are the folders in it, set dataset.root={os.path.commonpath(folders)}."


def name_tables(tables: Sequence[str]) -> str:
    """What may be meant by `dataset.csv` where folders tell no classes and CSV files lie beside them; or nothing."""
    if len(tables) > 1:
        return f" {name_some(tables, most=3)} lie there: the one that has the labels is set by dataset.csv=FILE."
    return "".join(f" {printable(name)} lies there: set dataset.csv={printable(name)}." for name in tables)
