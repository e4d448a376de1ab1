"""Class folders, a file-name pattern, a CSV file or shards -> a table of (path, label), class names and splits."""

import csv
import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from io import BytesIO
from pathlib import Path
from typing import TypeAlias

from torch import Tensor

from thaw.config import DatasetConfig
from thaw.data.cache import cache_folder, file_stamp
from thaw.data.exclude import absolute, read_excluded
from thaw.data.images import read_image
from thaw.data.shards import Shards
from thaw.data.splits import Row, Sample, draw, keep_classes, learn_classes, split_rows
from thaw.errors import ThawError, name_some

IMAGE_SUFFIXES = frozenset(
    ".apng .avif .bmp .dib .gif .j2k .jfif .jp2 .jpe .jpeg .jpg .mpo .pbm .pfm .pgm .png .pnm .ppm .tga .tif .tiff "
    ".webp".split()
)
SPLIT_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
Ignored: TypeAlias = defaultdict[str, list[Path]]
"""What is left out, by reason."""
STRAYS = {"hymenoptera": {"train/ants/imageNotFound.gif"}}  # in the published archives, but of no class


@dataclass(frozen=True)
class ImageIndex:
    """The images of a data set by split, and what was left out of it."""

    root: Path
    classes: tuple[str, ...]
    """Names of the classes that train has, sorted; a label is a position in it."""
    splits: dict[str, list[Sample]]
    """`train`, `val` and, where there is one, `test`, each sorted by path."""
    epoch_chosen_on: str
    """`val`; or `test` where val is made of the test images, for want of others."""
    ignored: dict[str, tuple[Path, ...]]
    """Files and folders left out, by reason."""
    empty_folders: tuple[str, ...]
    """Folders of a class or a split, relative to `root`, that have no image."""
    misspelt: tuple[str, ...] = ()
    """Folders whose names are nearly those of a split, each with what it may be meant to be: `vaild (val?)`."""
    shards: Shards | None = field(default=None, compare=False)
    """Where the images lie if not in files at their paths."""

    def place(self, path: Path) -> str:
        """The path as seen from the data's root, or as it is where it lies elsewhere."""
        return (path.relative_to(self.root) if path.is_relative_to(self.root) else path).as_posix()

    def read(self, path: Path, min_size: int | None = None) -> Tensor:
        """An image, uint8 (3, H, W), from its file or its shard; see `read_image`."""
        return read_image(path, min_size, self.file(path))

    def file(self, path: Path) -> BytesIO | None:
        """An encoded image out of its shard; None where it has a file of its own."""
        return BytesIO(self.shards.contents(path)) if self.shards else None

    def size(self, path: Path) -> int:
        """Bytes of an encoded image."""
        return self.shards.images[path].size if self.shards else path.stat().st_size

    def stamp(self, path: Path) -> str:
        """A line that changes when an image does."""
        return f"{self.shards.images[path].digest}\n" if self.shards else file_stamp(path)


@dataclass
class _Scan:
    """What reading a data set comes to."""

    rows: list[Row] = field(default_factory=list)
    ignored: Ignored = field(default_factory=lambda: defaultdict(list))
    empty_folders: list[str] = field(default_factory=list)
    misspelt: list[str] = field(default_factory=list)
    shards: Shards | None = None


def build_index(root: Path, options: DatasetConfig) -> ImageIndex:
    """The images, classes and splits of a data set; equal files and options give equal splits.

    Labels come from `dataset.csv`, from `dataset.label_pattern`, or from one folder per class; the last two below
    train, val and test folders or in one tree, which is split here. Shards have those of the folder they were made of.

    Raises:
        ThawError: The files cannot give what the options ask for.
    """
    scan = _scan(root, options)
    rows_by_split = split_rows(sorted(keep_classes(scan.rows, options.classes)), options)
    classes = learn_classes(rows_by_split)
    labels = {name: label for label, name in enumerate(classes)}
    splits: dict[str, list[Sample]] = {
        split: sorted(Sample(row.path, labels[row.name]) for row in rows_by_split[split])
        for split in ("train", "val", "test")
        if split in rows_by_split
    }
    if options.train_per_class is not None:
        splits["train"] = draw(splits["train"], options.train_per_class, options.split_seed)
    epoch_chosen_on = "val" if "val" in splits else "test"
    if epoch_chosen_on == "test":
        splits["val"] = splits.pop("test")
    return _index(root, classes, splits, epoch_chosen_on, scan)


def survey(root: Path, options: DatasetConfig) -> ImageIndex:
    """The images as they lie, to be checked: nothing is split off, and no class refused.

    Images of no split come under `all`; the classes are those of every split.

    Raises:
        ThawError: No images are found, or the CSV file or the pattern cannot be read.
    """
    scan = _scan(root, options)
    classes = tuple(sorted({row.name for row in scan.rows}))
    labels = {name: label for label, name in enumerate(classes)}
    splits: dict[str, list[Sample]] = {
        split or "all": sorted(Sample(row.path, labels[row.name]) for row in scan.rows if row.split == split)
        for split in ("train", "val", "test", "")
        if any(row.split == split for row in scan.rows)
    }
    if not splits:
        raise ThawError(f"dataset.root has no images: {root}.")
    return _index(root, classes, splits, "val", scan)


def _index(
    root: Path, classes: tuple[str, ...], splits: dict[str, list[Sample]], epoch_chosen_on: str, scan: _Scan
) -> ImageIndex:
    ignored = {reason: tuple(paths) for reason, paths in scan.ignored.items() if paths}
    empty_folders, misspelt = tuple(scan.empty_folders), tuple(scan.misspelt)
    return ImageIndex(root, classes, splits, epoch_chosen_on, ignored, empty_folders, misspelt, scan.shards)


def _scan(root: Path, options: DatasetConfig) -> _Scan:
    """What there is, without the files that `dataset.exclude` names."""
    if options.name == "stream":
        shards = Shards(options.root, cache_folder() / "shards")
        return _Scan(shards.rows, shards=shards)
    excluded = read_excluded(root / options.exclude, root) if options.exclude else frozenset()
    return _read_csv(root / options.csv, excluded) if options.csv else _read_folders(root, options, excluded)


def _read_csv(file: Path, excluded: Collection[Path]) -> _Scan:
    """One row for each line of a file with the columns path, label and perhaps split."""
    rows: dict[Path, Row] = {}
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            lines = csv.DictReader(stream, skipinitialspace=True)
            columns = lines.fieldnames or []
            if not {"path", "label"} <= set(columns):
                raise ThawError(f"dataset.csv must have the columns path and label: {file} has {', '.join(columns)}.")
            for line in lines:
                where = f"dataset.csv: {file}, line {lines.line_num}"
                row = _read_line(line, file, where)
                if row.path in rows:
                    raise ThawError(f"{where} names an image that an earlier line names too: {row.path}.")
                rows[row.path] = row
    except (OSError, UnicodeError, csv.Error) as error:
        raise ThawError(f"dataset.csv cannot be read: {file} ({error}).") from error
    scan = _Scan()
    for row in rows.values():
        if absolute(row.path) in excluded:
            scan.ignored["excluded"].append(row.path)
        else:
            scan.rows.append(row)
    return scan


def _read_line(line: dict[str, str], file: Path, where: str) -> Row:
    path, label, split = (line.get(column) or "" for column in ("path", "label", "split"))
    split = split.strip().lower()
    if not label.strip():
        raise ThawError(f"{where} has no label.")
    if not (file.parent / path).is_file():
        raise ThawError(f"{where} names a file that does not exist: {file.parent / path}.")
    if "split" in line and split not in SPLIT_NAMES:
        raise ThawError(f"{where}: split must be train, val or test, got {split!r}.")
    return Row(file.parent / path, label.strip(), SPLIT_NAMES.get(split, ""), file.name)


def _read_folders(root: Path, options: DatasetConfig, excluded: Collection[Path]) -> _Scan:
    """Every image of the split folders or of the one tree, labelled by file name or by class folder."""
    if not root.is_dir():
        raise ThawError(f"dataset.root must be a folder that exists, got {str(root)!r}.")
    by_name = options.label_pattern is not None
    left_out = dict.fromkeys(excluded, "excluded")
    left_out |= {absolute(root / name): "known strays" for name in STRAYS.get(options.name, ())}
    top = _images_folder(root) if by_name else root
    split_folders = _split_folders(top)
    scan = _Scan(misspelt=[f"{path.relative_to(root).as_posix()} ({split}?)" for path, split in _misspelt(top).items()])
    if top not in split_folders:
        scan.ignored["outside the splits"] += [path for path in _visible(top) if path not in split_folders]
    for folder, split in split_folders.items():
        sources = [folder] if by_name else _class_folders(folder, scan.ignored)
        found = {source: find_images(source, left_out, scan.ignored) for source in sources}
        places = {source: source.relative_to(root).as_posix() for source in [folder, *sources]}
        if not any(found.values()) and split not in ("val", "test"):
            remedy = "Expected one folder per class, or set dataset.label_pattern."
            lack = f"images: {folder}." if by_name else f"class folders: {folder}. {remedy}"
            raise ThawError(f"dataset.root has no {lack}")
        scan.rows += [
            Row(path, source.name, split, places[source]) for source, paths in found.items() for path in paths
        ]
        scan.empty_folders += [places[source] for source in sources or [folder] if not found.get(source)]
    if options.label_pattern is not None:
        scan.rows = _label_by_name(scan.rows, options.label_pattern)
    return scan


def _images_folder(root: Path) -> Path:
    """`root/images`, where pets keeps its images, unless `root` itself has some."""
    images = root / "images"
    has_some = any(path.suffix.lower() in IMAGE_SUFFIXES for path in root.iterdir())
    return images if images.is_dir() and not has_some else root


def _split_folders(root: Path) -> dict[Path, str]:
    """The split of each split folder; or `root` alone, of no split.

    As a class may be called train, such folders are splits only if train holds folders or all folders are splits.
    """
    folders = [path for path in _visible(root) if path.is_dir()]
    splits = {path: SPLIT_NAMES[path.name] for path in folders if path.name in SPLIT_NAMES}
    train = root / "train"
    if splits and (len(splits) == len(folders) or (train in splits and any(path.is_dir() for path in train.iterdir()))):
        return splits
    return {root: ""}


def _misspelt(root: Path) -> dict[Path, str]:
    """Folders that are no splits but nearly bear the name of one, and that split.

    Beside split folders such a folder is not used at all; without any, it counts as one if it holds folders itself,
    for a class may be called trail.
    """
    has_splits = root not in _split_folders(root)
    names: dict[Path, str] = {}
    for path in sorted(root.iterdir()):
        is_other = path.is_dir() and path.name not in SPLIT_NAMES
        if is_other and (has_splits or any(child.is_dir() for child in path.iterdir())):
            near = get_close_matches(path.name.lower(), SPLIT_NAMES, n=1, cutoff=0.7)
            names.update((path, SPLIT_NAMES[name]) for name in near)
    return names


def _class_folders(parent: Path, ignored: Ignored) -> list[Path]:
    visible = _visible(parent)
    ignored["outside class folders"] += [path for path in visible if not path.is_dir()]
    return [path for path in visible if path.is_dir()]


def find_images(folder: Path, left_out: Mapping[Path, str], ignored: Ignored) -> list[Path]:
    """The images in a folder and below it, sorted, but for those that are left out, each for a reason.

    Links to folders are not followed: they could lead in a circle.

    Raises:
        OSError: A folder cannot be listed; without its images the others would be another data set.
    """

    def refuse(error: OSError) -> None:
        raise error

    images = []
    for parent, folders, files in os.walk(folder, onerror=refuse):
        ignored["linked folders"] += [path for name in folders if (path := Path(parent, name)).is_symlink()]
        ignored["hidden"] += [Path(parent, name) for name in folders + files if _is_hidden(name)]
        folders[:] = [name for name in folders if not _is_hidden(name)]
        for path in (Path(parent, name) for name in files if not _is_hidden(name)):
            if path.suffix.lower() not in IMAGE_SUFFIXES:
                ignored["not images by their names"].append(path)
            elif reason := left_out.get(absolute(path)):
                ignored[reason].append(path)
            else:
                images.append(path)
    return sorted(images)


def name_ignored(ignored: Mapping[str, Sequence[Path]], place: Callable[[Path], str] = str) -> str:
    """How many files were left out and, by reason, the first few of them, in one line; empty if there are none.

    Args:
        ignored: Files by reason.
        place: What a file is called.
    """
    count = sum(map(len, ignored.values()))
    names = {why: name_some([place(path) for path in paths], most=3) for why, paths in ignored.items()}
    reasons = "; ".join(f"{why}: {some}" for why, some in names.items() if some)
    return f"{count} file{'s' * (count > 1)} ignored ({reasons})" if count else ""


def _visible(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if not _is_hidden(path.name)]


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _label_by_name(rows: list[Row], label_pattern: str) -> list[Row]:
    """The rows with the class that the pattern's one group finds in each file name."""
    try:
        pattern = re.compile(label_pattern)
    except re.error as error:
        raise ThawError(f"dataset.label_pattern is no regular expression: {label_pattern!r} ({error}).") from error
    if pattern.groups != 1:
        raise ThawError(f"dataset.label_pattern must have one group, got {pattern.groups} in {label_pattern!r}.")
    names = [match[1] if (match := pattern.search(row.path.name)) else None for row in rows]
    unmatched = [row.path.name for row, name in zip(rows, names, strict=True) if not name]
    if unmatched:
        raise ThawError(
            f"dataset.label_pattern={label_pattern!r} finds no class in {len(unmatched)} of {len(rows)} file names: "
            f"{name_some(unmatched, most=5)}."
        )
    return [row._replace(name=name) for row, name in zip(rows, names, strict=True) if name]


def fingerprint(index: ImageIndex) -> str:
    """A short hash of every image's split, class, path and size in bytes: equal for equal data sets."""
    digest = hashlib.sha256()
    for split, samples in sorted(index.splits.items()):
        for path, label in samples:
            digest.update(
                f"{split}/{index.classes[label]}/{index.place(path)}/{index.size(path)}\n".encode(
                    errors="surrogateescape"
                )
            )
    return digest.hexdigest()[:16]
