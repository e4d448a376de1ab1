"""Files that cannot be read as images: found in a table, and left out of it."""

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from PIL import Image

from thaw.config import DatasetConfig
from thaw.data.images import BadImage, read_header, read_image
from thaw.data.index import ImageIndex, build_index
from thaw.data.threads import in_threads
from thaw.errors import ThawError, printable

log = logging.getLogger(__name__)

MOST_READ = 10_000
"""Files that are read to their ends before each first training on them; of more, only the headers where none is
left out."""
MOST_LINES = 10
"""Of files that are left out; the others are counted."""


def are_read_whole(index: ImageIndex, on_bad: str) -> bool:
    """Whether files are read to their ends: always if some may be left out, so that the cache does not decide which."""
    return on_bad == "skip" or len(index.samples) <= MOST_READ


def find_unreadable(index: ImageIndex, whole: bool) -> dict[Path, str]:
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
    reasons = in_threads(partial(_fault, read), paths)
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
