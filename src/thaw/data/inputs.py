"""What a user points at - files, folders, patterns - -> image files."""

import logging
import os
from collections.abc import Iterable, Sequence
from glob import glob, has_magic
from pathlib import Path
from typing import TypeVar

from thaw.data.scan import Ignored, find_images, name_ignored
from thaw.errors import ThawError, name_some

log = logging.getLogger(__name__)

T = TypeVar("T")


def list_images(items: Iterable[Path | str]) -> list[Path]:
    """The files that are meant, in the order given; those of a folder or a pattern sorted.

    Args:
        items: Each is a file; a folder, whose images are taken at any depth; or, as a string, a pattern as in a shell
            (`**` for any depth). Files that are named are taken whatever their suffix, and whether or not they exist.

    Raises:
        ThawError: There are none.
    """
    items, ignored = list(items), Ignored(list)
    paths = [path for item in items for path in _expand(item, ignored)]
    taken = set(paths)  # by a pattern, some in one way and not in another
    left_out = {why: [path for path in dict.fromkeys(files) if path not in taken] for why, files in ignored.items()}
    if line := name_ignored(left_out):
        log.warning(line)
    if not paths:
        where = name_some([str(item) for item in items]) or "an empty list"
        raise ThawError(f"No images in {where}. Name files, folders or patterns.")
    return paths


def spread(items: Sequence[T], most: int) -> list[T]:
    """At most so many of the items, evenly spread."""
    number = min(most, len(items))
    return [items[len(items) * position // number] for position in range(number)]


def _expand(item: Path | str, ignored: Ignored) -> list[Path]:
    path = Path(os.path.expanduser(item))  # noqa: PTH111 - Path.expanduser takes no file that is called ~1.jpg
    if path.is_dir():
        return find_images(path, {}, ignored)
    if isinstance(item, str) and has_magic(item) and not path.exists():
        matches = sorted(glob(str(path), recursive=True))  # noqa: PTH207 - Path.glob takes no absolute pattern
        return list(dict.fromkeys(image for match in matches for image in _expand(Path(match), ignored)))
    return [path]
