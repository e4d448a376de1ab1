"""The files that a flag names to be written."""

import os
from pathlib import Path

from thaw.errors import ThawError

LOGS = ("train.log", "find_lr.log", "error.log")
"""Of a run, by names that `conf/` gives them."""


def refuse_unwritable(flag: str, path: Path, *suffixes: str) -> None:
    """Refuse a file that could not be written, before any work is done.

    Args:
        flag: By which it was named.
        path: The file.
        suffixes: Of which it must have one, if any are given.

    Raises:
        ThawError: It has none of them, it is a folder, its own folder is not there, or it is a file of a run.
    """
    from thaw.run import Run

    if path.is_dir():
        raise ThawError(f"{flag}={path} is a folder: name a file.")
    if suffixes and path.suffix.lower() not in suffixes:
        raise ThawError(f"{flag} must end in {' or '.join(suffixes)}, got '{path}'.")
    for folder in (path.parent, Path(os.path.realpath(path)).parent):  # the second of the file that a link leads to
        if not folder.is_dir():
            raise ThawError(f"{flag}={path} cannot be written: there is no folder {folder}.")
        run = Run(folder)
        own = {*vars(run).values(), *(run.folder / name for name in LOGS)}
        if run.is_started and os.path.realpath(path) in map(os.path.realpath, own):
            raise ThawError(f"{flag}={path} is a file of the run itself, which would be lost: name another.")
