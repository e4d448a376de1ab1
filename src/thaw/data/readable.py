"""Whether all files of a data set can be decoded: found out once, not in every run."""

import hashlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import PIL

from thaw.data.cache import cache_folder, file_stamp


def find_bad_once(paths: Sequence[Path], find_bad: Callable[[], dict[Path, str]]) -> dict[Path, str]:
    """Unreadable files and why they are; nothing is read if the same files have all been found readable before.

    Args:
        paths: Image files.
        find_bad: Decodes all of them.
    """
    stamps = "".join(map(file_stamp, paths))
    key = hashlib.sha256((PIL.__version__ + stamps).encode(errors="surrogateescape")).hexdigest()
    marker = cache_folder() / "readable" / key
    if marker.exists():
        return {}
    bad = find_bad()
    if not bad:
        with suppress(OSError):  # a cache that cannot be written costs time, not the run
            marker.parent.mkdir(parents=True, exist_ok=True)
            marker.touch()
    return bad
