"""Locating a user's images: suffixes, class folders, CSV roots."""

import os
from dataclasses import replace
from itertools import islice
from pathlib import Path

from thaw.config import DatasetConfig

IMAGE_SUFFIXES = frozenset(
    ".apng .avif .bmp .dib .gif .heic .heif .hif .j2k .jfif .jp2 .jpe .jpeg .jpg .mpo .pbm .pfm .pgm .png .pnm .ppm "
    ".tga .tif .tiff .webp".split()
)
LOOKED_AT = 50
"""Entries of a folder that tell whether it is one of images."""


def locate(options: DatasetConfig) -> DatasetConfig:
    """The options with the folder of `dataset.csv` for the data's root, where the file does not lie below the root."""
    if options.name != "folder" or options.csv is None:
        return options
    root, file = Path(options.root), Path(options.csv)
    place, top = (Path(os.path.abspath(path)) for path in (root / file, root))  # noqa: PTH100 - links lie where they are
    if (place.is_file() and place.is_relative_to(top)) or not file.is_file():
        return options
    return replace(options, root=str(file.parent), csv=file.name)


def data_name(name: str, root: str, csv: str | None) -> str:
    """What a data set is called: by its name, or by its folder's where the name only says that it lies in one.

    Args:
        name: `dataset.name`.
        root: `dataset.root`.
        csv: `dataset.csv`.
    """
    place = locate(DatasetConfig(name, root, csv=csv))
    return Path(place.root).resolve().name if name in ("folder", "stream") else name


def name_place(place: Path | str) -> str:
    """Where something is looked for, in words: an address and a path in full are the same from anywhere."""
    is_in_full = Path(place).is_absolute() or "://" in str(place)
    return str(place) if is_in_full else f"{place}, as seen from {Path.cwd()}"


def holds_images(root: Path) -> bool:
    """True if the folder looks like one of images: by class folders in it, or below train; a few entries tell."""
    return _holds_classes(root) or _holds_classes(root / "train")


def _holds_classes(folder: Path) -> bool:
    """True if two folders at least have images right in them."""
    if not folder.is_dir():
        return False
    entries = islice(folder.iterdir(), LOOKED_AT)
    folders = [path for path in entries if path.is_dir() and not path.name.startswith(".")]
    return sum(map(_holds_image, folders)) >= 2


def _holds_image(folder: Path) -> bool:
    return any(path.suffix.lower() in IMAGE_SUFFIXES for path in islice(folder.iterdir(), LOOKED_AT))
