"""Classes that no folder tells: those that a CSV file names, or a pattern finds in the names of files."""

import csv
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from thaw.config import DatasetConfig
from thaw.data.splits import SPLIT_NAMES, Row
from thaw.errors import ThawError, name_some

COLUMN = re.compile("{([^{}]+)}")
"""In `dataset.csv_path`."""
DELIMITERS = ",;\t"
"""What may stand between the columns of a CSV file: spreadsheets write semicolons where 0.5 is written 0,5."""
SPLIT_LIKE = re.compile(
    r"(is|image|train|test|val|cv|k|[\W_])*(splits?|set|subset|partition|folds?|phase|usage|val|valid|validation)"
    r"([\W_]?(id|name|\d+))?|is[\W_]?(train|test)(ing)?",
    re.IGNORECASE,
)
"""Names of columns that probably tell a split."""


class Table(NamedTuple):
    """What a CSV file tells."""

    rows: list[Row]
    unused_splits: list[str]
    """Columns that seem to tell the split, where none is used."""


def read_table(file: Path, root: Path, options: DatasetConfig) -> Table:
    """One row for each line of a CSV file whose columns tell path, label and perhaps split.

    Args:
        file: `dataset.csv`; the paths in it are as seen from its folder.
        root: Of the data.
        options: What the columns are called.

    Raises:
        ThawError: The file is missing or no such table; or a line lacks a label, or names no split, no file, or one
            that an earlier line names too.
    """
    rows: dict[Path, Row] = {}
    split_names = _split_names(options.csv_split)
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            needed = [*COLUMN.findall(options.csv_path), options.csv_label]
            needed += [options.csv_split] * (options.csv_split != "split")
            delimiter = _delimiter(stream.readline(), needed)
            stream.seek(0)
            lines = csv.DictReader(stream, delimiter=delimiter, skipinitialspace=True)
            columns = lines.fieldnames or []
            if not set(needed) <= set(columns):
                names, others = " and ".join(needed), ", ".join(columns)
                raise ThawError(
                    f"dataset.csv must have the columns {names}: {file} has {others}. Others are named by "
                    "dataset.csv_path='folder/{column}.jpg', dataset.csv_label=column and dataset.csv_split=column."
                )
            for line in lines:
                where = f"dataset.csv: {file}, line {lines.line_num}"
                row = _read_line(line, file, where, options, split_names)
                if row.path in rows:
                    raise ThawError(f"{where} names an image that an earlier line names too: {row.path}.")
                rows[row.path] = row
    except (OSError, UnicodeError, csv.Error) as error:
        raise ThawError(
            f"dataset.csv cannot be read: {file} ({error}). Its path is relative to the data's root, {root}."
        ) from error
    has_splits = options.csv_split in columns
    unused = [] if has_splits else [name for name in columns if name not in needed and SPLIT_LIKE.fullmatch(name)]
    return Table(list(rows.values()), unused)


def _delimiter(header: str, needed: list[str]) -> str:
    """What divides a file's first line into most of the columns that are needed, or else into most columns."""

    def found(delimiter: str) -> tuple[int, int]:
        columns = next(csv.reader([header], delimiter=delimiter, skipinitialspace=True), [])
        return len(set(needed) & set(columns)), len(columns)

    return max(DELIMITERS, key=found)


def _split_names(column: str) -> dict[str, str]:
    """Our name of each split that a column may hold; true and false only where it is called as is_valid is."""
    meant = [split for split in ("train", "val", "test") if split in column.lower()]
    if len(meant) != 1:
        return SPLIT_NAMES
    yes, no = meant[0], "val" if meant == ["train"] else "train"
    return SPLIT_NAMES | {"true": yes, "1": yes, "false": no, "0": no}


def _read_line(
    line: dict[str, str], file: Path, where: str, options: DatasetConfig, split_names: Mapping[str, str]
) -> Row:
    """The row that a line tells; `where` is how to name the line."""
    columns = {name: value or "" for name, value in line.items()}
    path = COLUMN.sub(lambda found: columns[found[1]], options.csv_path)
    label, split = columns[options.csv_label], columns.get(options.csv_split, "").strip().lower()
    if not label.strip():
        raise ThawError(f"{where} has no label.")
    if not (file.parent / path).is_file():
        raise ThawError(
            f"{where} names a file that does not exist: {file.parent / path}. Paths are as seen from the CSV file."
        )
    if options.csv_split in line and split not in split_names:
        flags = f", or true ({split_names['true']}) or false ({split_names['false']})" if "true" in split_names else ""
        raise ThawError(f"{where}: {options.csv_split} must be train, val or test{flags}, got {split!r}.")
    return Row(file.parent / path, label.strip(), split_names.get(split, ""), file.name)


def label_by_name(rows: list[Row], label_pattern: str) -> list[Row]:
    """The rows with the class that the one group of `dataset.label_pattern` finds in each file name.

    Raises:
        ThawError: It is no regular expression with one group, or does not match some name.
    """
    try:
        pattern = re.compile(label_pattern)
    except re.error as error:
        raise ThawError(f"dataset.label_pattern is no regular expression: {label_pattern!r} ({error}).") from error
    if pattern.groups != 1:
        raise ThawError(f"dataset.label_pattern must have one group, got {pattern.groups} in {label_pattern!r}.")
    names = [match[1] if (match := pattern.search(row.path.name)) else None for row in rows]
    unmatched = [row.path.name for row, name in zip(rows, names, strict=True) if not name]
    if unmatched:
        raise ThawError(
            f"dataset.label_pattern={label_pattern!r} finds no class in {len(unmatched)} of {len(rows)} file names: "
            f"{name_some(unmatched, most=5)}."
        )
    return [row._replace(name=name) for row, name in zip(rows, names, strict=True) if name]
