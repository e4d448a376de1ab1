"""The files that a flag names to be written."""

import os
from pathlib import Path

from thaw.errors import ThawError


def refuse_unwritable(flag: str, path: Path) -> None:
    """Refuse what could not be written, before any work is done.

    Raises:
        ThawError: It is a folder, or its own is not there.
    """
    if path.is_dir():
        raise ThawError(f"{flag}={path} is a folder: name a file.")
    for folder in (path.parent, Path(os.path.realpath(path)).parent):  # the second of the file that a link leads to
        if not folder.is_dir():
            raise ThawError(f"{flag}={path} cannot be written: there is no folder {folder}.")
