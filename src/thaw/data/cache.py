"""The cache on disk: its folder, and how it identifies a file."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """Folder for what can be computed again: `$THAW_CACHE`, or `~/.cache/thaw`."""
    named = os.environ.get("THAW_CACHE")
    return Path(named) if named is not None else Path.home() / ".cache" / "thaw"  # there may be no home


def file_stamp(path: Path) -> str:
    """A line that changes when the file does; the error's number if there is none.

    It has the path, the size and two times: of the contents, which a copy or an archive may set, and of any change,
    which a file that has taken the place of another has of its own.
    """
    try:
        stat = path.stat()
    except OSError as error:  # a dangling link, a lost mount
        return f"{path.absolute()}|{error.errno}\n"
    return f"{path.absolute()}|{stat.st_size}|{stat.st_mtime_ns}|{stat.st_ctime_ns}\n"
