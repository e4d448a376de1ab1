"""What lies on disk - class folders, a file-name pattern, a CSV file or shards - -> rows, and what was left out."""

import os
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import chain
from pathlib import Path
from typing import TypeAlias

from thaw.config import DatasetConfig
from thaw.data.cache import cache_folder
from thaw.data.classes import name_tables
from thaw.data.image_lists import absolute, find_list, read_excluded, relabel
from thaw.data.labels import label_by_name, read_table
from thaw.data.places import IMAGE_SUFFIXES
from thaw.data.rows import Row
from thaw.data.shards import Shards, refuse_shards
from thaw.data.splits import SPLIT_NAMES
from thaw.errors import ThawError, name_some

Ignored: TypeAlias = defaultdict[str, list[Path]]
"""What is left out, by reason."""
STRAYS = {"hymenoptera": {"train/ants/imageNotFound.gif"}}  # in the published archives, but of no class


@dataclass
class Scan:
    """What was found of a data set on disk."""

    rows: list[Row] = field(default_factory=list)
    excluded: list[Row] = field(default_factory=list)
    """What `dataset.exclude` leaves out, which is among `ignored`."""
    original: list[Row] | None = None
    """The rows with the classes that they have without `dataset.relabel`, where that is given."""
    by_folder: bool = True
    """Whether folders tell the classes."""
    ignored: Ignored = field(default_factory=lambda: defaultdict(list))
    left_out: list[Row] = field(default_factory=list)
    """Lines of the CSV file that are among `ignored`."""
    empty_folders: list[str] = field(default_factory=list)
    nested: list[str] = field(default_factory=list)
    """Class folders whose images lie in several folders, each with the first few of these."""
    misspelt: list[str] = field(default_factory=list)
    unused_splits: list[str] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)
    """CSV files beside images that folders label, as seen from the root."""
    num_relabelled: int | None = None
    """Images that `dataset.relabel` gives another class; None without it."""
    shards: Shards | None = None


def scan_data(root: Path, options: DatasetConfig) -> Scan:
    """What there is, without the files that `dataset.exclude` names, and with the classes of `dataset.relabel`.

    Raises:
        ThawError: There are no images, or the CSV file, the pattern, a list or the shards cannot be read.
    """
    if options.name == "stream":
        shards = Shards(options.root, cache_folder() / "shards")
        return Scan(shards.rows, by_folder=shards.by_folder, shards=shards)
    excluded = read_excluded(find_list(root, options.exclude), root) if options.exclude else frozenset()
    scan = _read_csv(root / options.csv, options, excluded) if options.csv else _read_folders(root, options, excluded)
    if options.relabel:
        scan.original = scan.rows
        scan.rows = relabel(scan.rows, find_list(root, options.relabel), root, options.classes)
        scan.num_relabelled = sum(new.name != old.name for new, old in zip(scan.rows, scan.original, strict=True))
    return scan


def _read_csv(file: Path, options: DatasetConfig, excluded: Collection[Path]) -> Scan:
    """Every image that a line of the CSV file names, with the class that it has there."""
    table = read_table(file, options)
    left_out = list(chain.from_iterable(table.left_out.values()))
    scan = Scan(by_folder=False, left_out=left_out, unused_splits=table.unused_splits)
    scan.ignored.update((reason, [row.path for row in rows]) for reason, rows in table.left_out.items())
    for row in table.rows:
        (scan.excluded if absolute(row.path) in excluded else scan.rows).append(row)
    scan.ignored["excluded"] += [row.path for row in scan.excluded]
    return scan


def _read_folders(root: Path, options: DatasetConfig, excluded: Collection[Path]) -> Scan:
    """Every image of the split folders or of the one tree, labelled by file name or by class folder."""
    if not root.is_dir():
        raise ThawError(f"dataset.root must be a folder that exists, got {str(root)!r}.")
    by_name = options.label_pattern is not None
    left_out = dict.fromkeys(excluded, "excluded")
    left_out |= {absolute(root / name): "known strays" for name in STRAYS.get(options.name, ())}
    top = _images_folder(root) if by_name else root
    split_folders = _split_folders(top, by_name)
    has_splits = top not in split_folders
    misspelt = _misspelt(top, has_splits)
    scan = Scan(
        by_folder=not by_name,
        misspelt=[f"{path.relative_to(root).as_posix()} ({split}?)" for path, split in misspelt.items()],
    )
    if has_splits:
        scan.ignored["outside the splits"] += [path for path in _visible(top) if path not in split_folders]
    if top != root:
        scan.ignored["outside images/"] += [path for path in _visible(root) if path.is_dir() and path != top]
    if not by_name:
        lists = [find_list(root, name) for name in (options.exclude, options.relabel) if name]
        trains = [folder for folder, split in split_folders.items() if split == "train"]
        files = [path for folder in (root, *trains) for path in _visible(folder)]
        tables = [path for path in files if path.suffix.lower() in (".csv", ".tsv") and path not in lists]
        scan.tables = [path.relative_to(root).as_posix() for path in tables]
    for folder, split in split_folders.items():
        sources = [folder] if by_name else _class_folders(folder, scan.ignored)
        places = {source: source.relative_to(root).as_posix() for source in [folder, *sources]}
        found = {}
        for source in sources:
            known = len(scan.ignored["excluded"])
            found[source] = find_images(source, left_out, scan.ignored)
            excluded_here = scan.ignored["excluded"][known:]
            scan.excluded += [Row(path, source.name, split, places[source]) for path in excluded_here]
        if not any(found.values()) and split not in ("val", "test"):
            refuse_shards(root)
            if not sources:
                raise ThawError(
                    f"dataset.root has no class folders: {folder}. Expected one folder per class, or set "
                    f"dataset.label_pattern.{name_tables(scan.tables)}"
                )
            others = name_ignored(scan.ignored, lambda path: path.relative_to(root).as_posix())
            raise ThawError(f"dataset.root has no images: {folder}." + f" {others}." * bool(others))
        scan.rows += [
            Row(path, source.name, split, places[source]) for source, paths in found.items() for path in paths
        ]
        if not by_name:
            scan.nested += [f"{places[each]} ({some})" for each in sources if (some := _name_nested(each, found[each]))]
        scan.empty_folders += [places[source] for source in sources or [folder] if not found.get(source)]
    if options.label_pattern is not None:
        scan.rows = label_by_name(scan.rows, options.label_pattern)
        matches = [(row, re.search(options.label_pattern, row.path.name)) for row in scan.excluded]
        scan.excluded = [row._replace(name=match[1]) for row, match in matches if match and match[1]]
    return scan


def _images_folder(root: Path) -> Path:
    """`root/images`, where pets keeps its images, unless `root` itself has some, or splits."""
    images = root / "images"
    has_others = any(
        path.suffix.lower() in IMAGE_SUFFIXES or (path.name.lower() in SPLIT_NAMES and path.is_dir())
        for path in root.iterdir()
    )
    return images if images.is_dir() and not has_others else root


def _split_folders(root: Path, by_name: bool) -> dict[Path, str]:
    """The split of each split folder, in whatever letters it is written; or `root` alone, of no split.

    As a class may be called train, such folders are splits only if train holds folders or all folders are splits; where
    names of files tell the classes, train is no class.

    Raises:
        ThawError: Two of them are the same split, as train and Training are; or they lie one folder deeper, as in an
            unpacked archive, where they would make up a single class.
    """
    folders = [path for path in _visible(root) if path.is_dir()]
    splits = {path: SPLIT_NAMES[path.name.lower()] for path in folders if path.name.lower() in SPLIT_NAMES}
    trains = [path for path, split in splits.items() if split == "train"]
    holds_folders = any(child.is_dir() for train in trains for child in train.iterdir())
    if not splits or not (len(splits) == len(folders) or holds_folders or (by_name and trains)):
        if len(folders) == 1 and folders[0] not in _split_folders(folders[0], by_name):
            raise ThawError(
                f"dataset.root has no folder but {folders[0].name}, and that has the splits: {root}. "
                f"Did you mean {folders[0]}?"
            )
        return {root: ""}
    names = {split: path.name for path, split in splits.items()}
    for path, split in splits.items():
        if path.name != (other := names[split]):
            raise ThawError(f"{root} has both {path.name} and {other}: make them one folder, or rename one.")
    return splits


def _misspelt(root: Path, has_splits: bool) -> dict[Path, str]:
    """Folders that are no splits but nearly bear the name of one, and that split.

    Beside split folders such a folder is not used at all; without any, it counts as one if it holds folders itself,
    for a class may be called trail.
    """
    names: dict[Path, str] = {}
    for path in _visible(root):
        is_other = path.is_dir() and path.name.lower() not in SPLIT_NAMES
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
        folders.sort()  # or what is left out would be told in the file system's order
        files.sort()
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


def _name_nested(folder: Path, images: Collection[Path]) -> str:
    """The folders in a class folder, where its images lie in several places; else nothing."""
    parents = {path.parent for path in images}
    names = sorted({parent.relative_to(folder).parts[0] for parent in parents if parent != folder})
    return name_some(names, most=3) if len(parents) > 1 else ""


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


def has_folders(folder: Path) -> bool:
    """Whether there are folders in it, hidden ones aside: classes or splits, where no pattern tells the classes."""
    return any(path.is_dir() for path in _visible(folder))


def _visible(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if not _is_hidden(path.name)]


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"
