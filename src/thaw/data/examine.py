"""Every image file opened and decoded: which cannot be read, are of another type than their name says, or are tiny."""

import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from rich.progress import track
from torch import Tensor

from thaw.data.finding import Finding
from thaw.data.images import BadImage, read_header, read_image
from thaw.data.index import ImageIndex
from thaw.data.threads import in_threads

THUMBNAIL = 16
"""Side of a thumbnail in pixels, S."""
SAME_TYPE = {"MPO": "JPEG", "DIB": "BMP"}
"""Formats whose files rightly bear another's suffix: cameras call a JPEG with a second picture in it .jpg."""


class ImageFile(NamedTuple):
    """What a file turned out to be."""

    path: Path
    format: str
    """Pillow's name of its format; empty if the file cannot be read."""
    shorter_side: int
    """In pixels."""
    fault: str = ""
    """Why it cannot be read; empty if it can."""
    thumbnail: NDArray[np.float16] | None = None
    """See `make_thumbnail`; None if it cannot be read."""


def examine(index: ImageIndex) -> list[ImageFile]:
    """Every image, read to its end; on a terminal with a progress bar."""
    paths = [sample.path for sample in index.samples]
    Image.init()  # once, not in each thread
    files = in_threads(_examine, paths)
    return list(track(files, "Reading images", len(paths), transient=True, disable=not sys.stdout.isatty()))


def _examine(path: Path) -> ImageFile:
    try:
        name, width, height = read_header(path)
        image = read_image(path, THUMBNAIL)  # a JPEG is read to its end at any scale, and fastest at a small one
    except BadImage as error:
        return ImageFile(path, "", 0, error.reason)
    return ImageFile(path, SAME_TYPE.get(name, name), min(width, height), thumbnail=make_thumbnail(image))


def make_thumbnail(image: Tensor) -> NDArray[np.float16]:
    """Mean colours (3, S, S) of S x S parts of a uint8 image (3, H, W)."""
    thumbnail: NDArray[np.float16] = F.adaptive_avg_pool2d(image.float(), THUMBNAIL).half().numpy()
    return thumbnail


def find_bad_files(index: ImageIndex, files: list[ImageFile], min_size: int) -> list[Finding]:
    """What is wrong with single files.

    A file of the wrong type is not left out: Thaw goes by its contents.

    Args:
        index: The images.
        files: What they turned out to be, as `examine` gives it.
        min_size: Least length of the shorter side in pixels.
    """
    unreadable = [file for file in files if file.fault]
    readable = [file for file in files if not file.fault]
    tiny = [file for file in readable if file.shorter_side < min_size]
    wrong = [(file, name) for file in readable if (name := _type_by_suffix(file.path)) not in ("", file.format)]
    findings = [
        Finding(
            "Files that cannot be read as images",
            tuple(f"{index.place(file.path)}: {file.fault}" for file in unreadable),
            "Training refuses them, or skips them with dataset.on_bad=skip.",
            tuple(file.path for file in unreadable),
            {file.path: f"unreadable: {file.fault}" for file in unreadable},
        ),
        Finding(
            "Files of another type than their name says",
            tuple(f"{index.place(file.path)} is {file.format}, not {name}" for file, name in wrong),
            "Thaw goes by the contents; other programs may not.",
            tuple(file.path for file, _ in wrong),
        ),
        Finding(
            f"Images with a side below {min_size} pixels",
            tuple(f"{index.place(file.path)}: {file.shorter_side}" for file in tiny),
            "Enlarged to the network's input they show little.",
            tuple(file.path for file in tiny),
            {file.path: f"tiny: {file.shorter_side} pixels" for file in tiny},
        ),
    ]
    return [finding for finding in findings if finding.items]


def _type_by_suffix(path: Path) -> str:
    """Pillow's name of the format that the suffix stands for; empty if for none."""
    name = Image.registered_extensions().get(path.suffix.lower(), "")
    return SAME_TYPE.get(name, name)


def count_types(files: list[ImageFile]) -> str:
    """How many files there are of each type, in one line."""
    return ", ".join(
        f"{name or 'unreadable'} {count}" for name, count in Counter(file.format for file in files).most_common()
    )
