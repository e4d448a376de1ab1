"""Images to leave out, in a CSV file with the columns path and reason: a check writes it, training reads it."""

import csv
import os
from codecs import BOM_UTF8
from collections.abc import Mapping
from pathlib import Path

from thaw.data.tables import Lines
from thaw.errors import ThawError, name_some
from thaw.writing import drafting_csv

HEADER = b"path,reason"


def write_excluded(file: Path, reasons: Mapping[str, str]) -> None:
    """One row an image: its path as seen from the data's root, and why it is left out.

    Raises:
        ThawError: The file cannot be written, or is another one, which stays as it is.
    """
    try:
        if file.exists() and not _is_list(file):
            raise ThawError(f"{file} is there already and no list of images to leave out. Name another: --fix FILE.")
        with drafting_csv(file) as stream:
            csv.writer(stream).writerow(HEADER.decode().split(","))
            # Quoted, a space that a name begins with is not skipped as one behind a comma is.
            csv.writer(stream, quoting=csv.QUOTE_ALL).writerows(sorted(reasons.items()))
    except OSError as error:
        raise ThawError(f"{file} cannot be written ({error.strerror}). Name another file: --fix FILE.") from error


def read_names(file: Path) -> list[str]:
    """The images that a list names; none where there is no list, or another file.

    Raises:
        ThawError: It is a list that cannot be read to its end.
    """
    try:
        with file.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as stream:
            return [line["path"] for _, line in Lines(stream) if line.get("path")]
    except OSError:
        return []
    except csv.Error as error:
        if not _is_list(file):
            return []
        raise ThawError(f"{file} cannot be read ({error}). Fix it, or name another file: --fix FILE.") from error


def _is_list(file: Path) -> bool:
    """Whether a file begins as a list does, a byte-order mark of a spreadsheet aside."""
    return file.read_bytes().removeprefix(BOM_UTF8).startswith(HEADER)


def read_excluded(file: Path, root: Path) -> frozenset[Path]:
    """The images that the file names, as absolute paths; see `read_reasons`."""
    return frozenset(absolute(root / name) for name in read_reasons(file, root))


def read_reasons(file: Path, root: Path) -> dict[str, str]:
    """The images that the file names, as it names them, and why they are left out; empty where it does not say.

    Args:
        file: With a column path, relative to `root`; other columns are for the reader.
        root: Of the data.

    Raises:
        ThawError: The file is missing or no such table, or names a file that does not exist: a typing error, or a
            list of other data.
    """
    try:
        with file.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as stream:
            lines = Lines(stream)
            if "path" not in lines.columns:
                others = ", ".join(lines.columns) or "none"
                raise ThawError(f"dataset.exclude must have a column path: {file} has {others}.")
            reasons = {line["path"]: line.get("reason") or "" for _, line in lines if line["path"]}
    except (OSError, UnicodeError, csv.Error) as error:
        raise ThawError(
            f"dataset.exclude cannot be read: {file} ({error}). It was looked for in {file.absolute().parent}."
        ) from error
    missing = [name for name in reasons if not os.path.lexists(root / name)]  # a link that leads nowhere is there
    if missing:
        raise ThawError(
            f"dataset.exclude: {file} names {len(missing)} of {len(reasons)} files that are not in {root}: "
            f"{name_some(missing, most=3)}. `thaw check` with --fix makes it anew."
        )
    return reasons


def absolute(path: Path) -> Path:
    """The path in full, without `..`; links stay as they are, for an image and a link to it are two."""
    return Path(os.path.abspath(path))  # noqa: PTH100
