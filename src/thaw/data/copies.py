"""Images that are the same byte for byte: in two splits, with two labels, or twice in one split."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import TypeAlias

from thaw.data.finding import Finding
from thaw.data.images import regular_size
from thaw.data.index import ImageIndex
from thaw.data.rows import Sample

Entry: TypeAlias = tuple[str, Sample]
"""A sample and its split."""
Copies: TypeAlias = list[Entry]
"""Two or more images that are the same."""
KEPT_FIRST = ("test", "val", "train", "all")
"""Of copies in several splits, the one to keep is the first one's: a score on images that were trained on misleads."""


def find_copies(index: ImageIndex) -> list[Finding]:
    """Findings about duplicate images; `find_near_copies` finds resized or recompressed ones."""
    groups = _group_equal(index)
    leaks = [group for group in groups if number_of_splits(group) > 1]
    conflicts = [group for group in groups if number_of_labels(group) > 1]
    repeated = [group for group in groups if number_of_splits(group) == number_of_labels(group) == 1]
    findings = [
        _finding(
            index,
            "Images in two splits",
            leaks,
            "A score on training images misleads: keep one copy of each.",
        ),
        _finding(index, "Images with two labels", conflicts, "Keep the one labelled right."),
        _finding(index, "Images twice in a split", repeated, "They count twice: keep one copy of each."),
    ]
    return [finding for finding in findings if finding.items]


def _finding(index: ImageIndex, title: str, groups: list[Copies], advice: str) -> Finding:
    """Each group is shown as an equation of its files: `train/ants/1.jpg = val/ants/2.jpg`."""
    shown = tuple(" = ".join(index.place(sample.path) for _, sample in group) for group in groups)
    paths = tuple(sample.path for _, sample in chain.from_iterable(groups))
    leave_out: dict[Path, str] = {}
    for group in groups:
        leave_out |= _superfluous(index, group)
    return Finding(title, shown, advice, paths, leave_out)


def _superfluous(index: ImageIndex, group: Copies) -> dict[Path, str]:
    """All copies but one; where their labels contradict each other, all of them, for no one knows which is right."""
    ordered = sorted(group, key=keep_first)
    if number_of_labels(group) > 1:
        others = [*ordered[1:], ordered[0]]
        labels = [index.classes[sample.label] for _, sample in others]
        return {
            sample.path: f"same image as {index.place(other.path)}, labelled {label}"
            for (_, sample), (_, other), label in zip(ordered, others, labels, strict=True)
        }
    kept = index.place(ordered[0][1].path)
    return {sample.path: f"same image as {kept}" for _, sample in ordered[1:]}


def keep_first(entry: Entry) -> tuple[int, int, Path]:
    """A key to sort copies by: the one to keep comes first."""
    split, sample = entry
    place = KEPT_FIRST.index(split) if split in KEPT_FIRST else len(KEPT_FIRST)
    return place, len(sample.path.name), sample.path  # of one split, the shortest: others are called `1 (copy).jpg`


def number_of_splits(group: Copies) -> int:
    """How many splits have one of the copies."""
    return len({split for split, _ in group})


def number_of_labels(group: Copies) -> int:
    """How many labels the copies have."""
    return len({sample.label for _, sample in group})


def count_known(samples: Sequence[Sample], known: Sequence[Sample]) -> int:
    """How many of the images are copies of known ones; all of them in files of their own."""
    entries = [("asked", sample) for sample in samples] + [("known", sample) for sample in known]
    groups = [[split for split, _ in copies] for copies in _group_equal_files(entries)]
    return sum(splits.count("asked") for splits in groups if "known" in splits)


def _group_equal(index: ImageIndex) -> list[Copies]:
    """The groups of equal images, whatever their splits and labels; for shards, from their table."""
    entries = [(split, sample) for split, samples in index.splits.items() for sample in samples]
    if index.shards:
        packed = index.shards.images
        return _group_by(entries, lambda path: (packed[path].size, packed[path].digest))
    return _group_equal_files(entries)


def _group_equal_files(entries: list[Entry]) -> list[Copies]:
    """Only files of equal size are read, and to their ends only those that begin alike."""
    groups = [entries]
    keys: Sequence[Callable[[Path], Hashable]] = (regular_size, _head, _digest)
    for key in keys:
        groups = [copies for group in groups for copies in _group_by(group, key)]
    return groups


def _group_by(entries: list[Entry], key: Callable[[Path], Hashable]) -> list[Copies]:
    """The groups of two or more entries whose files have the same key."""
    groups: dict[Hashable, list[Entry]] = defaultdict(list)
    for entry in entries:
        with suppress(OSError):  # a file that cannot be opened is for `find_unreadable` to tell
            groups[key(entry[1].path)].append(entry)
    return [group for group in groups.values() if len(group) > 1]


def _head(path: Path) -> bytes:
    with path.open("rb", buffering=0) as file:
        return file.read(4096)


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
