"""The table of a data set: (path, label) of its images by split, the class names, and what was left out."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from io import BytesIO
from itertools import chain
from pathlib import Path

from torch import Tensor

from thaw.config import DatasetConfig
from thaw.data.cache import file_stamp
from thaw.data.classes import keep_classes, learn_classes, sort_classes
from thaw.data.group_splits import find_torn_groups
from thaw.data.images import read_image
from thaw.data.labels import require_left
from thaw.data.rows import Row, Sample
from thaw.data.scan import Scan, name_ignored, scan_data
from thaw.data.shards import Shards
from thaw.data.splits import by_split, draw, split_as_before, split_rows
from thaw.errors import ThawError


@dataclass(frozen=True)
class ImageIndex:
    """The images of a data set by split, and what was left out of it."""

    root: Path
    classes: tuple[str, ...]
    """Names by label: those of train, sorted; in a survey those of every split; or a classifier's, in its order."""
    splits: dict[str, list[Sample]]
    """`train`, `val` and, where there is one, `test`, each sorted by path; in a survey also `all`, of no split."""
    epoch_chosen_on: str
    """`val`; or `test` where the test images serve as val because there are no others."""
    ignored: dict[str, tuple[Path, ...]]
    """Files and folders left out, by reason."""
    empty_folders: tuple[str, ...]
    """Folders of a class or a split, relative to `root`, that have no image."""
    nested: tuple[str, ...] = ()
    """Class folders whose images lie in several folders, each with these: `round (circle, ring)`."""
    misspelt: tuple[str, ...] = ()
    """Folders whose names are nearly those of a split, each with that split: `vaild (val?)`."""
    unused_splits: tuple[str, ...] = ()
    """Columns of the CSV file that seem to tell the split, where none is used."""
    tables: tuple[str, ...] = ()
    """CSV files beside images that folders label."""
    torn_groups: tuple[str, ...] = ()
    """Groups with images in several splits, each with these: `p07 (train, val)`."""
    own_splits: tuple[str, ...] = ()
    """Splits that the data has itself, in whatever way these are used."""
    num_relabelled: int | None = None
    """Images that `dataset.relabel` gives another class than the data does; None without it."""
    groups: Mapping[Path, str] = field(default_factory=dict)
    """The group of each image that `dataset.csv_group` tells; empty without it."""
    shards: Shards | None = field(default=None, compare=False)
    """The shards that hold the images; None if they are files at their paths."""

    @property
    def samples(self) -> list[Sample]:
        """The images of all splits, one split after the other."""
        return list(chain.from_iterable(self.splits.values()))

    def groups_of(self, split: str) -> list[str]:
        """The group of each image of a split; empty where none is told."""
        return [self.groups[sample.path] for sample in self.splits[split]] if self.groups else []

    def place(self, path: Path) -> str:
        """The path as seen from the data's root, or as it is where it lies elsewhere."""
        root = self.root.absolute() if path.is_absolute() else self.root  # a CSV file may name images in full
        return (path.relative_to(root) if path.is_relative_to(root) else path).as_posix()

    def read(self, path: Path, min_size: int | None = None) -> Tensor:
        """An image, uint8 (3, H, W), from its file or its shard; see `read_image`."""
        return read_image(path, min_size, self.file(path))

    def file(self, path: Path) -> BytesIO | None:
        """An encoded image out of its shard; None where it has a file of its own."""
        return BytesIO(self.shards.contents(path)) if self.shards else None

    def size(self, path: Path) -> int:
        """Bytes of an encoded image; -1 where there is none behind a link, which `find_unreadable` tells."""
        if self.shards:
            return self.shards.images[path].size
        try:
            return path.stat().st_size
        except OSError:
            return -1

    def stamp(self, path: Path) -> str:
        """A line that changes when an image does."""
        return f"{self.shards.images[path].digest}\n" if self.shards else file_stamp(path)

    @cached_property
    def fingerprint(self) -> str:
        """A short hash of every image's split, class, path and size in bytes: equal for equal data sets."""
        digest = hashlib.sha256()
        for split, samples in sorted(self.splits.items()):
            for path, label in samples:
                line = f"{split}/{self.classes[label]}/{self.place(path)}/{self.size(path)}\n"
                digest.update(line.encode(errors="surrogateescape"))
        return digest.hexdigest()[:16]


def build_index(root: Path, options: DatasetConfig) -> ImageIndex:
    """The images, classes and splits of a data set; equal files and options give equal splits.

    Labels come from `dataset.csv`, from `dataset.label_pattern`, or from one folder per class; the last two below
    train, val and test folders or in one tree, which is split here. Shards have those of the folder they were made of.

    Raises:
        ThawError: The files cannot give what the options ask for.
    """
    scan = scan_data(root, options)
    require_left(scan.rows, scan.left_out, options.classes)
    rows = sorted(keep_classes(scan.rows, options.classes))
    rows_by_split = (
        split_as_before(rows, scan.original or scan.rows, scan.excluded, options)
        if options.exclude or options.relabel
        else split_rows(rows, options)
    )
    classes = learn_classes(rows_by_split, scan.by_folder, scan.tables)
    splits = _number(rows_by_split, classes)
    if options.train_per_class is not None:
        splits["train"] = draw(splits["train"], options.train_per_class, options.split_seed)
    epoch_chosen_on = "val" if "val" in splits else "test"
    if epoch_chosen_on == "test":
        splits["val"] = splits.pop("test")
    index = _index(root, classes, splits, epoch_chosen_on, scan, find_torn_groups(rows_by_split))
    own = {row.split for row in rows}
    return replace(index, own_splits=tuple(split for split in ("train", "val", "test") if split in own))


def survey(root: Path, options: DatasetConfig) -> ImageIndex:
    """The images as they lie, to be checked: nothing is split off, and no class refused.

    Images of no split come under `all`; the classes are those of every split.

    Raises:
        ThawError: No images are found, or the CSV file or the pattern cannot be read.
    """
    scan = scan_data(root, options)
    classes = sort_classes({row.name for row in scan.rows}, scan.by_folder)
    rows_by_split = by_split(scan.rows)
    index = _index(root, classes, _number(rows_by_split, classes), "val", scan, find_torn_groups(rows_by_split))
    if not scan.rows:
        others = name_ignored(index.ignored, index.place)
        raise ThawError(f"dataset.root has no images: {root}." + f" {others}." * bool(others))
    return index


def _number(rows_by_split: Mapping[str, list[Row]], classes: tuple[str, ...]) -> dict[str, list[Sample]]:
    """The rows with labels in place of the names of their classes; those of no split come under `all`."""
    labels = {name: label for label, name in enumerate(classes)}
    return {
        split or "all": sorted(Sample(row.path, labels[row.name]) for row in rows_by_split[split])
        for split in ("train", "val", "test", "")
        if split in rows_by_split
    }


def _index(
    root: Path,
    classes: tuple[str, ...],
    splits: dict[str, list[Sample]],
    epoch_chosen_on: str,
    scan: Scan,
    torn_groups: tuple[str, ...],
) -> ImageIndex:
    return ImageIndex(
        root,
        classes,
        splits,
        epoch_chosen_on,
        ignored={reason: tuple(paths) for reason, paths in scan.ignored.items() if paths},
        empty_folders=tuple(scan.empty_folders),
        nested=tuple(scan.nested),
        misspelt=tuple(scan.misspelt),
        unused_splits=tuple(scan.unused_splits),
        tables=tuple(scan.tables),
        torn_groups=torn_groups,
        num_relabelled=scan.num_relabelled,
        groups={row.path: row.group for row in scan.rows if row.group},
        shards=scan.shards,
    )
