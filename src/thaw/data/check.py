"""A table of images -> its facts in one line, its probable mistakes, and the table without unreadable files."""

import logging
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from PIL import Image

from thaw.config import DatasetConfig
from thaw.data.classes import name_deeper_folder, name_tables
from thaw.data.copies import find_copies
from thaw.data.finding import Finding
from thaw.data.images import BadImage, read_header, read_image
from thaw.data.index import ImageIndex, build_index
from thaw.data.scan import STRAYS, name_ignored
from thaw.data.splits import Sample
from thaw.data.threads import in_threads
from thaw.errors import ThawError, printable

log = logging.getLogger(__name__)

UNBALANCED = 10
"""A class with so many times the images of another is worth a remark."""
MOST_READ = 10_000
"""Files that are read to their ends before each first training on them; of more, only the headers where none is
left out."""
MOST_LINES = 10
"""Of files that are left out; the others are counted."""


def facts(index: ImageIndex) -> str:
    """Name, splits, class sizes (above eight, the smallest and the largest only) and ignored files in one line."""
    parts = []
    for split, samples in index.splits.items():
        title = "val = test" if split == "val" and index.epoch_chosen_on == "test" else split
        parts.append(f"{title} {len(samples)} ({_class_sizes(index, samples)})")
    line = f"{index.root.resolve().name}: {', '.join(parts)}"
    return printable("; ".join(filter(None, (line, name_ignored(index.ignored, index.place)))))


def _class_sizes(index: ImageIndex, samples: list[Sample]) -> str:
    counts = Counter(sample.label for sample in samples)
    if len(index.classes) <= 8:
        return ", ".join(f"{name} {counts[label]}" for label, name in enumerate(index.classes))
    by_size = sorted(range(len(index.classes)), key=lambda label: counts[label])
    least, most = (f"{counts[label]} of {index.classes[label]}" for label in (by_size[0], by_size[-1]))
    return f"{len(index.classes)} classes: {least} to {most}"


def find_problems(index: ImageIndex) -> list[Finding]:
    """What is probably wrong with the table: copies, strays, classes and groups, folders, unused splits.

    No image is decoded. Copies are compared byte by byte.
    """
    known = {index.root / name for names in STRAYS.values() for name in names}
    strays = [sample.path for sample in index.samples if sample.path in known]
    findings = [
        *find_copies(index),
        *_find_lost_lines(index),
        Finding(
            "Files that belong to no class",
            tuple(map(index.place, strays)),
            "The published archive has them; leave them out.",
            tuple(strays),
            dict.fromkeys(strays, "belongs to no class"),
        ),
        *_find_class_problems(index),
        Finding(
            "Folders without images",
            index.empty_folders,
            paths=tuple(index.root / name for name in index.empty_folders),
        ),
        Finding(
            "Class folders that hold folders",
            index.nested,
            "All images in them are of that one class; for others, list each image with its own in dataset.csv.",
            is_wrong=False,
        ),
        Finding(
            "Misspelt split folders",
            index.misspelt,
            "They are not used as splits: rename them.",
        ),
        Finding(
            "Groups of dataset.csv_group in several splits",
            index.torn_groups,
            "The data's own splits stay as they are, and a score on groups that were trained on misleads.",
        ),
        Finding(
            "Columns that look like a split and are not used",
            index.unused_splits,
            f"Images are split at random instead: dataset.csv_split={''.join(index.unused_splits[:1])} goes by it.",
            is_wrong=False,
        ),
    ]
    return [finding for finding in findings if finding.items]


def _find_lost_lines(index: ImageIndex) -> list[Finding]:
    """Lines of the CSV file that tell no image or no class."""
    titles = {"missing": "whose image does not exist", "without a label": "without a label"}
    return [
        Finding(
            f"Lines of the CSV file {title}",
            tuple(map(index.place, index.ignored.get(reason, ()))),
            "dataset.on_bad=skip leaves them out; without it training refuses them.",
            index.ignored.get(reason, ()),
        )
        for reason, title in titles.items()
    ]


def _find_class_problems(index: ImageIndex) -> list[Finding]:
    """What the numbers of images of each class tell."""
    counts = {split: Counter(sample.label for sample in samples) for split, samples in index.splits.items()}
    main = "all" if "all" in counts else "train"  # where the classes are learned
    sizes = counts.get(main, Counter())
    rare = {label for label in sizes if sizes[label] == 1}
    lone = [sample.path for sample in index.splits.get(main, ()) if sample.label in rare]
    missing = [
        (split, f"{split} lacks {name}")
        for split, present in counts.items()
        for label, name in enumerate(index.classes)
        if label not in present
    ]
    only = index.classes if len(index.classes) == 1 else ()
    by_size = sorted((size, index.classes[label]) for label, size in sizes.items())
    unbalanced = []
    if by_size:
        (least, smallest), (most, largest) = by_size[0], by_size[-1]
        if most >= UNBALANCED * least:
            unbalanced = [f"{largest} {most} to {smallest} {least}"]
    return [
        Finding(
            "Images of one class only",
            only,
            f"Training needs two classes at least.{_name_deeper(index, only)}",
        ),
        Finding(
            "Class names that differ only in capitals or blanks",
            _find_like_names(index.classes),
            "Each is a class of its own: give those that are meant as one the same name.",
        ),
        Finding(
            f"Classes with a single {'training image' if main == 'train' else 'image'}",
            tuple(index.classes[label] for label in sorted(rare)),
            paths=tuple(lone),
        ),
        Finding(
            "Classes that are not learned",
            tuple(lack for split, lack in missing if split == main),
            "Training refuses the images of them in other splits.",
        ),
        Finding(
            "Splits that lack a class",
            tuple(lack for split, lack in missing if split != main),
            "It is learned, but not judged there: macro-F1 leaves it out, unless it is predicted.",
        ),
        Finding(
            f"Classes of very different sizes, {UNBALANCED} times or more",
            tuple(unbalanced),
            "Accuracy hides the small ones: see macro-F1 (trainer.monitor=val/macro_f1), and dataset.balance.",
            is_wrong=False,
        ),
    ]


def _find_like_names(classes: Sequence[str]) -> tuple[str, ...]:
    """Names that are one but for capitals, and for blanks, hyphens and underscores; single letters may be meant so."""
    alike: defaultdict[str, list[str]] = defaultdict(list)
    for name in classes:
        alike[re.sub(r"[\s_-]+", "_", name.strip().casefold())].append(name)
    return tuple(" = ".join(names) for plain, names in alike.items() if len(names) > 1 and len(plain) > 1)


def _name_deeper(index: ImageIndex, only: tuple[str, ...]) -> str:
    """Where the classes may be, if the only one is a folder right below the root."""
    paths = [sample.path for sample in index.samples] if only else []
    in_class_folder = paths and all(index.place(path).startswith(f"{only[0]}/") for path in paths)
    return (name_deeper_folder(paths) if in_class_folder else "") + (name_tables(index.tables) if only else "")


def are_read_whole(index: ImageIndex, on_bad: str) -> bool:
    """Whether files are read to their ends: always if some may be left out, lest which ones depend on the cache."""
    return on_bad == "skip" or len(index.samples) <= MOST_READ


def find_unreadable(index: ImageIndex, whole: bool, threads: int | None = None) -> dict[Path, str]:
    """Every file that cannot be decoded, or that has no header of an image if not read whole, with the reason.

    Images in shards are left alone: each was read before it was packed.
    """
    if index.shards:
        return {}
    paths = [sample.path for sample in index.samples]
    read: Callable[[Path], object] = partial(read_image, min_size=1)  # to its end, fastest at the smallest scale
    if not whole:
        log.info(f"{len(paths)} files: their headers are checked. `thaw check {index.root}` reads each to its end")
        read = read_header
    Image.init()  # once, not in each thread
    reasons = in_threads(partial(_fault, read), paths, threads)
    return {path: reason for path, reason in zip(paths, reasons, strict=True) if reason}


def _fault(read: Callable[[Path], object], path: Path) -> str:
    """Why a file cannot be read; empty if it can."""
    try:
        read(path)
    except BadImage as error:
        return error.reason
    return ""


def drop_unreadable(index: ImageIndex, bad: dict[Path, str], on_bad: str) -> ImageIndex:
    """The table without its unreadable files, which are named.

    Args:
        index: The table.
        bad: Unreadable files and why they are, as `find_unreadable` gives them.
        on_bad: error or skip, as in `dataset.on_bad`.

    Raises:
        ThawError: There is one, and `on_bad` is error; or a split, or a class of train, has no other images.
    """
    if not bad:
        return index
    lines = [f"\n  {printable(index.place(path))}: {reason}" for path, reason in bad.items()]
    if on_bad == "error":
        raise ThawError(
            f"{len(bad)} file{'s' * (len(bad) > 1)} in {index.root} cannot be read as images:{''.join(lines)}\n"
            "Repair or remove them; dataset.on_bad=skip leaves them out."
        )
    if (others := len(lines) - MOST_LINES) > 0:
        lines[MOST_LINES:] = [f"\n  … and {others} more: `thaw check {index.root} --fix` lists all"]
    log.warning(f"{len(bad)} of {len(index.samples)} files cannot be read as images and are left out:{''.join(lines)}")
    splits = {
        split: [sample for sample in samples if sample.path not in bad] for split, samples in index.splits.items()
    }
    for split, samples in splits.items():
        if not samples:
            raise ThawError(f"{split} has no images left: dataset.on_bad=skip leaves out all of its files.")
    left = {sample.label for sample in splits.get("train", ())}
    for label, name in enumerate(index.classes):
        if "train" in splits and label not in left:
            raise ThawError(f"train has no images of {name!r} left: dataset.on_bad=skip leaves out all of its files.")
    return replace(index, splits=splits, ignored={**index.ignored, "unreadable": tuple(bad)})


def index_again(folder: Path, options: DatasetConfig, trained_on: str) -> tuple[ImageIndex, bool]:
    """A run's data set as it is now, and whether its files are those of the training.

    Args:
        folder: Where it lies.
        options: The run's own; where they say so, unreadable files are left out as they were then.
        trained_on: Its fingerprint at the training.

    Raises:
        ThawError: The files cannot give what the options ask for.
    """
    index = build_index(folder, options)
    if options.on_bad == "skip" and index.fingerprint != trained_on:
        index = drop_unreadable(index, find_unreadable(index, whole=True), options.on_bad)
    return index, index.fingerprint == trained_on
