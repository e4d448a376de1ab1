"""A table of images -> its facts in one line, its probable mistakes, and the table without unreadable files."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TypeAlias

from thaw.data.images import BadImage, read_image
from thaw.data.index import ImageIndex
from thaw.data.splits import Sample
from thaw.errors import ThawError, name_some

Entry: TypeAlias = tuple[str, Sample]
"""A sample and its split."""


@dataclass(frozen=True)
class Finding:
    """A probable mistake in the data, which can be trained on nevertheless."""

    kind: str
    """`in_two_splits`, `two_labels`, `rare_class` or `empty_folder`."""
    message: str
    paths: tuple[Path, ...] = ()
    """Every file or folder it is about; the message names the first few."""


def facts(index: ImageIndex) -> str:
    """Name, splits and class sizes of the data in one line; above eight classes the smallest and the largest only."""
    parts = []
    for split, samples in index.splits.items():
        title = "val = test" if split == "val" and index.epoch_chosen_on == "test" else split
        parts.append(f"{title} {len(samples)} ({_class_sizes(index, samples)})")
    count = sum(index.ignored.values())
    ignored = f"; {count} file{'s' * (count > 1)} ignored" if count else ""
    return f"{index.root.resolve().name}: {', '.join(parts)}{ignored}"


def _class_sizes(index: ImageIndex, samples: list[Sample]) -> str:
    counts = Counter(sample.label for sample in samples)
    sizes = [f"{name} {counts[label]}" for label, name in enumerate(index.classes)]
    if len(sizes) <= 8:
        return ", ".join(sizes)
    by_size = sorted(range(len(sizes)), key=lambda label: counts[label])
    return f"{len(sizes)} classes, from {sizes[by_size[0]]} to {sizes[by_size[-1]]}"


def find_problems(index: ImageIndex) -> list[Finding]:
    """Images in two splits or with two labels, classes with one training image, and folders without images.

    Images are compared byte by byte: a copy that was resized or compressed anew is not found.
    """
    copies = _find_copies(index)
    leaks = [group for group in copies if len({split for split, _ in group}) > 1]
    conflicts = [group for group in copies if len({sample.label for _, sample in group}) > 1]
    train = index.splits.get("train", [])
    counts = Counter(sample.label for sample in train)
    rare = [name for label, name in enumerate(index.classes) if counts[label] < 2]
    lone = [sample.path for sample in train if counts[sample.label] < 2]
    empty = [index.root / name for name in index.empty_folders]
    findings = [
        Finding(
            "in_two_splits",
            f"Images in two splits: {_count_and_name(_show(index, leaks))}. "
            "A score on training images misleads: keep one copy of each.",
            _paths(leaks),
        ),
        Finding(
            "two_labels",
            f"Images with two labels: {_count_and_name(_show(index, conflicts))}. Keep the one labelled right.",
            _paths(conflicts),
        ),
        Finding("rare_class", f"Classes with a single training image: {_count_and_name(rare)}.", tuple(lone)),
        Finding("empty_folder", f"Folders without images: {_count_and_name(index.empty_folders)}.", tuple(empty)),
    ]
    return [finding for finding in findings if finding.paths]


def _find_copies(index: ImageIndex) -> list[list[Entry]]:
    """Groups of images that are the same byte for byte; only files of equal size are read."""
    entries = [(split, sample) for split, samples in index.splits.items() for sample in samples]
    same_size = _group(entries, lambda path: path.stat().st_size)
    return [copies for group in same_size for copies in _group(group, _digest)]


def _group(entries: list[Entry], key: Callable[[Path], Hashable]) -> list[list[Entry]]:
    """The groups of two or more entries whose files have the same key."""
    groups: dict[Hashable, list[Entry]] = defaultdict(list)
    for entry in entries:
        with suppress(OSError):  # a file that cannot be opened is for `find_unreadable` to tell
            groups[key(entry[1].path)].append(entry)
    return [group for group in groups.values() if len(group) > 1]


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _paths(groups: list[list[Entry]]) -> tuple[Path, ...]:
    return tuple(sample.path for _, sample in chain.from_iterable(groups))


def _show(index: ImageIndex, groups: list[list[Entry]]) -> list[str]:
    """Each group as an equation of its files: `train/ants/1.jpg = val/ants/2.jpg`."""
    return [" = ".join(index.place(sample.path) for _, sample in group) for group in groups]


def _count_and_name(names: Sequence[str]) -> str:
    return f"{len(names)} ({name_some(names, most=3)})"


def find_unreadable(index: ImageIndex, threads: int) -> dict[Path, str]:
    """Every file that cannot be decoded, with the reason."""
    paths = [sample.path for sample in chain.from_iterable(index.splits.values())]
    with ThreadPoolExecutor(threads) as pool:
        reasons = pool.map(_why_unreadable, paths)
        return {path: reason for path, reason in zip(paths, reasons, strict=True) if reason}


def _why_unreadable(path: Path) -> str:
    try:
        read_image(path, min_size=1)  # a JPEG is read to its end at any scale, and fastest at the smallest
    except BadImage as error:
        return error.reason
    return ""


def drop_unreadable(index: ImageIndex, bad: dict[Path, str], on_bad: str) -> ImageIndex:
    """The table without its unreadable files.

    Args:
        index: The table.
        bad: Unreadable files and why they are, as `find_unreadable` gives them.
        on_bad: error or skip, as in `dataset.on_bad`.

    Raises:
        ThawError: There is one, and `on_bad` is error; or a split, or a class of train, has no other images.
    """
    if not bad:
        return index
    if on_bad == "error":
        lines = "".join(f"\n  {index.place(path)}: {reason}" for path, reason in bad.items())
        raise ThawError(
            f"{len(bad)} file{'s' * (len(bad) > 1)} in {index.root} cannot be read as images:{lines}\n"
            "Repair or remove them; dataset.on_bad=skip leaves them out."
        )
    splits = {
        split: [sample for sample in samples if sample.path not in bad] for split, samples in index.splits.items()
    }
    for split, samples in splits.items():
        if not samples:
            raise ThawError(f"{split} has no images left: dataset.on_bad=skip leaves out all of its files.")
    left = {sample.label for sample in splits.get("train", [])}
    for label, name in enumerate(index.classes):
        if label not in left and "train" in splits:
            raise ThawError(f"train has no images of {name!r} left: dataset.on_bad=skip leaves out all of its files.")
    return replace(index, splits=splits, ignored={**index.ignored, "unreadable": len(bad)})
