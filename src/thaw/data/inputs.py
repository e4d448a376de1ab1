"""What a user points at - files, folders, patterns, images in memory - -> image files and images."""

import logging
import re
from collections.abc import Iterable, Sequence
from glob import glob, has_magic
from io import BytesIO, IOBase
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias, TypeGuard, TypeVar

import numpy as np
from PIL import Image

from thaw.data.scan import Ignored, find_images, name_ignored
from thaw.data.shards import refuse_shards
from thaw.errors import ThawError, name_some
from thaw.paths import at_home

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)

T = TypeVar("T")
Input: TypeAlias = "str | Path | bytes | BinaryIO | Image.Image | np.ndarray[Any, Any] | Tensor"
Inputs: TypeAlias = "Input | Iterable[Input]"
Listed: TypeAlias = Path | BytesIO | Image.Image
"""A file, the contents of one, or a decoded image."""
ACCEPTED = (
    "files, their contents as bytes, folders, patterns, Pillow images, uint8 arrays (H, W, 3) or (H, W) and uint8 "
    "tensors (3, H, W)"
)
ADDRESS = re.compile(r"[a-z][a-z0-9]+:/", re.IGNORECASE)
"""How one begins, also as a `Path`; a single letter is a drive."""


def list_inputs(inputs: Inputs) -> list[Listed]:
    """The files and images that are meant, in the order given; the files of a folder or a pattern sorted.

    Args:
        inputs: One, or several: a file; a folder, whose images are taken at any depth; as a string, a pattern as in a
            shell (`**` for any depth); the contents of a file as bytes, or a binary file that is open; or an image in
            memory: Pillow's, an array uint8 (H, W, 3) in RGB or (H, W) in grey, or a tensor uint8 (3, H, W) or (H, W).
            Files that are named are taken whatever their suffix, and whether or not they exist; so is, as it is
            written, a pattern that matches none.

    Raises:
        ThawError: There are none, or something is an address or no text.
        TypeError: Something is neither a path nor an image.
    """
    items: list[Any] = list(inputs) if _are_several(inputs) else [inputs]
    ignored = Ignored(list)
    found = [_expand(item, ignored) for item in items]
    listed = [image for item, images in zip(items, found, strict=True) for image in images or _unmatched(item)]
    taken = {image for image in listed if isinstance(image, Path)}  # by a pattern, some in one way and not in another
    left_out = {why: [path for path in dict.fromkeys(files) if path not in taken] for why, files in ignored.items()}
    if line := name_ignored(left_out):
        log.warning(line)
    if not any(found):
        for item in items:
            refuse_shards(_path(item))
        where = name_some([str(item) for item in items]) or "an empty list"
        raise ThawError(f"No images in {where}. Name files, folders or patterns.")
    return listed


def list_images(items: Iterable[Path | str]) -> list[Path]:
    """What `list_inputs` finds of files, folders and patterns alone."""
    return [path for path in list_inputs(items) if isinstance(path, Path)]


def is_one(inputs: Inputs) -> bool:
    """True of a file and of an image in memory, False of a folder, a pattern and several of anything."""
    if not isinstance(inputs, str | Path):
        return not _are_several(inputs)
    path = _path(inputs)
    return not path.is_dir() and not _is_pattern(inputs, path)


def matches_nothing(image: Any) -> bool:
    """True of a pattern that stands in a list of files because it matches none."""
    return isinstance(image, Path) and has_magic(str(image)) and not image.exists()


def spread(items: Sequence[T], most: int) -> list[T]:
    """At most so many of the items, evenly spread."""
    number = min(most, len(items))
    return [items[len(items) * position // number] for position in range(number)]


def _are_several(inputs: Any) -> TypeGuard[Iterable[Input]]:
    """True of what is to be taken apart; an array with 2 or 3 axes is an image."""
    is_text = isinstance(inputs, str | bytes | IOBase)
    return isinstance(inputs, Iterable) and not is_text and getattr(inputs, "ndim", 1) in (1, 4)


def _expand(item: Any, ignored: Ignored) -> Sequence[Listed]:
    contents = item.read() if isinstance(item, IOBase) else item
    if isinstance(contents, bytes):
        return [BytesIO(contents)]
    if not isinstance(item, str | Path):
        return [_to_image(item)]
    if "\0" in str(item):
        raise ThawError("No path has a NUL byte in it: standard input (-) takes one path a line, and this is no text.")
    if item == "":
        raise ThawError("An empty name is no file, and not the folder here, which is `.`: is a variable not set?")
    path = _path(item)
    if ADDRESS.match(str(item)) and not path.exists():
        raise ThawError(f"{item} is an address, and nothing is downloaded: download it yourself, and name that file.")
    if path.is_dir():
        return find_images(path, {}, ignored)
    if _is_pattern(item, path):
        matches = sorted(glob(str(path), recursive=True))  # noqa: PTH207 - Path.glob takes no absolute pattern
        return list(dict.fromkeys(image for match in matches for image in _expand(Path(match), ignored)))
    return [path]


def _unmatched(item: str | Path) -> list[Path]:
    """A pattern where no file is found by it; none of a folder."""
    path = _path(item)
    return [path] if _is_pattern(item, path) else []


def _path(item: str | Path) -> Path:
    return Path(at_home(item))


def _is_pattern(item: str | Path, path: Path) -> bool:
    return isinstance(item, str) and has_magic(item) and not path.exists()


def _to_image(item: Any) -> Image.Image:
    """Pillow's image of one in memory.

    Raises:
        TypeError: It is none.
    """
    if isinstance(item, Image.Image):
        return item
    import torch  # here, for paths alone are listed before it is loaded

    got = f"{item.dtype} of shape {tuple(item.shape)}" if hasattr(item, "dtype") else type(item).__name__
    if isinstance(item, torch.Tensor) and item.dtype == torch.uint8:
        item = (item.permute(1, 2, 0) if item.ndim == 3 else item).cpu().numpy()
    is_bytes = isinstance(item, np.ndarray) and item.dtype == np.uint8 and item.size > 0
    if is_bytes and (item.ndim == 2 or item.shape[2:] == (3,)):
        return Image.fromarray(item)
    raise TypeError(f"Expected one or several of {ACCEPTED}, got {got}.")
