"""Labelled images from anywhere -> a table in the classes that a classifier knows, whatever their order there."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from thaw.config import DatasetConfig
from thaw.data.index import ImageIndex, survey
from thaw.data.rows import Sample
from thaw.data.scan import has_folders
from thaw.data.shards import refuse_shards
from thaw.errors import ThawError, did_you_mean, name_some


def index_known_classes(
    source: Path,
    classes: Sequence[str],
    label_pattern: str | None = None,
    columns: Mapping[str, Any] | None = None,
) -> ImageIndex:
    """The images of a folder or a CSV file in a classifier's classes, by split; `all` where there are no splits.

    Args:
        source: Class folders, the same below train, val and test, or a CSV file.
        classes: Names by label; the images may be of some of them only.
        label_pattern: Tells the class from the file's name instead, as `dataset.label_pattern` does.
        columns: Of a CSV file, by `csv_path`, `csv_label`, `csv_split` and `csv_group`, as in `dataset`; None takes the
            usual ones.

    Raises:
        ThawError: There are no labelled images, or one is of another class; or what tells the classes is for a folder
            where there is a file, or the other way round.
    """
    if not source.exists():
        raise ThawError(f"There is no folder or CSV file of labelled images at {source}.")
    if source.is_dir() and columns:
        raise ThawError(f"`{next(iter(columns))}` is for a CSV file, and {source} is a folder.")
    if source.is_dir() and label_pattern is None and not has_folders(source):
        refuse_shards(source)
        raise ThawError(
            f"{source} has no folders, so nothing tells the classes of its images. Expected CLASS/*, or the same below "
            "train, val and test; or name the classes by `label_pattern` or in a CSV file."
        )
    if source.is_file() and label_pattern is not None:
        raise ThawError(f"`label_pattern` is for a folder, and {source} is a file.")
    root, csv = (source.parent, source.name) if source.is_file() else (source, None)
    options = DatasetConfig(root=str(root), csv=csv, label_pattern=label_pattern, on_bad="skip", **(columns or {}))
    return in_known_classes(survey(Path(options.root), options), classes)


def in_known_classes(index: ImageIndex, classes: Sequence[str]) -> ImageIndex:
    """The same images, labelled by the order of a classifier's classes.

    Raises:
        ThawError: An image is of another class.
    """
    for label, name in enumerate(index.classes):
        images = [] if name in classes else [sample.path for sample in index.samples if sample.label == label]
        if images:
            raise ThawError(
                f"{index.root} has a class that the classifier was not trained for: {name!r} (such as "
                f"{index.place(images[0])}; n={len(images)}).{did_you_mean(name, classes)} It knows "
                f"{name_some(classes)}. Rename the class, or take it out."
            )
    labels = {old: classes.index(name) for old, name in enumerate(index.classes) if name in classes}
    splits = {
        split: [Sample(path, labels[label]) for path, label in samples] for split, samples in index.splits.items()
    }
    return replace(index, classes=tuple(classes), splits=splits)
