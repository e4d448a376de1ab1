"""Whether all files of a data set can be decoded: found out once, not in every run."""

import hashlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import PIL

from thaw.data.cache import cache_folder, file_stamp


def find_bad_once(paths: Sequence[Path], find_bad: Callable[[], dict[Path, str]], whole: bool) -> dict[Path, str]:
    """Unreadable files and why they are; nothing is read if the same files have all been found readable before.

    Args:
        paths: Image files.
        find_bad: Reads all of them.
        whole: Whether it does so to their ends, or reads their headers only.
    """
    stamps = "".join(map(file_stamp, paths))
    key = hashlib.sha256((PIL.__version__ + stamps).encode(errors="surrogateescape")).hexdigest()
    known_whole, known_headers = (cache_folder() / "readable" / f"{key}.{part}" for part in ("whole", "headers"))
    marker = known_whole if whole else known_headers
    with suppress(OSError):  # a cache that cannot be read costs time, not the run
        if known_whole.exists() or marker.exists():
            return {}
    bad = find_bad()
    if not bad:
        with suppress(OSError):  # nor does one that cannot be written
            marker.parent.mkdir(parents=True, exist_ok=True)
            marker.touch()
    return bad
