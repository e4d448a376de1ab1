"""Lists of images in CSV files with a column path: those to leave out, and those to give another class."""

import csv
import os
from codecs import BOM_UTF8
from collections.abc import Mapping, Sequence
from pathlib import Path

from thaw.data.rows import Row
from thaw.data.tables import Lines
from thaw.errors import ThawError, did_you_mean, name_some
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
            return [line["path"] for _, line in Lines(stream, ["path"]) if line.get("path")]
    except OSError:
        return []
    except csv.Error as error:
        if not _is_list(file):
            return []
        raise ThawError(f"{file} cannot be read ({error}). Fix it, or name another file: --fix FILE.") from error


def _is_list(file: Path) -> bool:
    """Whether a file begins as a list does, a byte-order mark of a spreadsheet aside."""
    return file.read_bytes().removeprefix(BOM_UTF8).startswith(HEADER)


def find_list(root: Path, name: str) -> Path:
    """`dataset.exclude` or `dataset.relabel` as seen from the data's root, or else from here."""
    return Path(name) if not (root / name).is_file() and Path(name).is_file() else root / name


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
    return {line["path"]: line.get("reason") or "" for line in _read(file, root, "dataset.exclude", ["path"])}


def relabel(rows: Sequence[Row], file: Path, root: Path, classes: Sequence[str] | None = None) -> list[Row]:
    """The rows with the classes that the file gives some of them; that may be the class which they have.

    Args:
        rows: All images, labelled.
        file: With the columns path, relative to `root`, and label, as in `predictions.csv` of a run; others are for
            the reader.
        root: Of the data.
        classes: `dataset.classes`, which may name new ones.

    Raises:
        ThawError: The file is missing or no such table, names a file that does not exist, or a class that none of the
            images has, or gives an image two.
    """
    option = "dataset.relabel"
    known = {name: name for name in classes or ()} | {row.name.strip(): row.name for row in rows}
    names: dict[Path, str] = {}
    for line in _read(file, root, option, ["path", "label"]):
        path, label = absolute(root / line["path"]), (line["label"] or "").strip()
        if label not in known:
            near, new = did_you_mean(label, known), " A new one has to be named among all in dataset.classes."
            raise ThawError(
                f"{option}: {file} gives {line['path']} the class {label!r}, which no image has.{near or new}"
            )
        if (other := names.setdefault(path, known[label])) != known[label]:
            raise ThawError(f"{option}: {file} gives {line['path']} two classes, {other!r} and {label!r}.")
    return [row._replace(name=names.get(absolute(row.path), row.name)) for row in rows]


def _read(file: Path, root: Path, option: str, columns: Sequence[str]) -> list[dict[str, str]]:
    """The lines of a list that name an image.

    Raises:
        ThawError: The file is missing or lacks some of the columns, or names a file that does not exist.
    """
    try:
        with file.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as stream:
            table = Lines(stream, columns)
            for column in columns:
                if column not in table.columns:
                    others = ", ".join(table.columns) or "none"
                    near = did_you_mean(column, table.columns)
                    raise ThawError(f"{option} must have a column {column}: {file} has {others}.{near}")
            lines = [line for _, line in table if line["path"]]
    except (OSError, UnicodeError, csv.Error) as error:
        raise ThawError(
            f"{option} cannot be read: {file} ({error}). It was looked for in {file.absolute().parent}."
        ) from error
    missing = [line["path"] for line in lines if not os.path.lexists(root / line["path"])]  # a dead link is there
    if missing:
        advice = " `thaw check` with --fix makes it anew." if option == "dataset.exclude" else ""
        raise ThawError(
            f"{option}: {file} names {len(missing)} of {len(lines)} files that are not in {root}: "
            f"{name_some(missing, most=3)}.{advice}"
        )
    return lines


def absolute(path: Path) -> Path:
    """The path in full, without `..`; links stay as they are, for an image and a link to it are two."""
    return Path(os.path.abspath(path))  # noqa: PTH100
