"""Classes that no folder tells: those that a CSV file names, or a pattern finds in the names of files."""

import csv
import os
import re
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple, NoReturn

from thaw.config import DatasetConfig
from thaw.data.rows import Row
from thaw.data.splits import SPLIT_NAMES
from thaw.data.tables import Lines
from thaw.errors import ThawError, did_you_mean, name_some

COLUMN = re.compile("{([^{}]+)}")
"""In `dataset.csv_path`."""
BAD_LINES = {
    "without a label": "without a label",
    "missing": "of a file that does not exist, as seen from {folder}",
    "repeated": "that repeat an earlier one",
}
"""Why lines are refused or left out, and how to say so."""
SPLIT_LIKE = re.compile(
    r"(is|image|data|train|test|val|cv|k|[\W_])*(splits?|set|subset|partition|folds?|phase|usage|val|valid|validation)"
    r"([\W_]?(id|name|\d+))?|is[\W_]?(train|test)(ing)?",
    re.IGNORECASE,
)
"""Names of columns that probably tell a split."""


class Table(NamedTuple):
    """What a CSV file tells."""

    rows: list[Row]
    unused_splits: list[str]
    """Columns that seem to tell the split, where none is used."""
    left_out: dict[str, list[Row]]
    """Lines that are left out, by reason."""


def read_table(file: Path, options: DatasetConfig) -> Table:
    """One row for each line of a CSV file whose columns tell path, label and perhaps split.

    Args:
        file: `dataset.csv`; the paths in it are as seen from its folder.
        options: What the columns are called.

    Raises:
        ThawError: The file is missing or no such table; a line names no split, or says something else of an image than
            an earlier one; or lines repeat one, lack a label or name no file, and `dataset.on_bad` is error.
    """
    rows: dict[Path, Row] = {}
    bad: list[tuple[str, Row, int]] = []
    split_names = _split_names(options.csv_split)
    needed_by = {
        "csv_path='folder/{column}.jpg'": COLUMN.findall(options.csv_path),
        "csv_label=column": [options.csv_label],
        "csv_split=column": [options.csv_split] if options.csv_split != "split" else [],
        "csv_group=column": [options.csv_group] if options.csv_group is not None else [],
        "csv_fold=column": [options.csv_fold] if options.csv_fold is not None else [],
    }
    needed = list(chain.from_iterable(needed_by.values()))
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            table = Lines(stream, needed)
            columns, lines = table.columns, list(table)
            if missing := [name for name in needed if name not in columns]:
                names = f"{', '.join(needed[:-1])} and {needed[-1]}"
                advice = "" if options.csv_label in columns else _advise_on_flags(columns, [line for _, line in lines])
                advice = advice or did_you_mean(missing[0], columns)
                ways = [f"dataset.{way}" for way, some in needed_by.items() if not set(some) <= set(columns)]
                raise ThawError(
                    f"dataset.csv must have the columns {names}: {file} has {', '.join(columns)}.{advice} Others are "
                    f"named by {' and '.join(ways)}."
                )
            for number, line in lines:
                where = f"dataset.csv: {file}, line {number}"
                row = _read_line(line, file, where, options, split_names)
                if not row.name or not row.path.is_file():
                    bad.append(("missing" if row.name else "without a label", row, number))
                    continue
                earlier = rows.setdefault(row.path, row)
                if earlier is not row:
                    _refuse_contradiction(row, earlier, where)
                    bad.append(("repeated", row, number))
    except OSError as error:
        raise ThawError(
            f"dataset.csv cannot be read: {file} ({error}). It was looked for in {file.absolute().parent}."
        ) from error
    except UnicodeError as error:
        raise ThawError(
            f"dataset.csv must be in UTF-8, as spreadsheets save by 'CSV UTF-8', got {file} ({error})."
        ) from error
    except csv.Error as error:
        raise ThawError(f"dataset.csv cannot be read: {file} ({error}).") from error
    if bad and options.on_bad == "error":
        _refuse(bad, len(rows), file, options.csv_path)
    left_out = {reason: found for reason in BAD_LINES if (found := [row for why, row, _ in bad if why == reason])}
    others = [] if options.csv_split in columns else [name for name in columns if name not in needed]
    unused = [name for name in others if SPLIT_LIKE.fullmatch(name) and _tells_split(name, lines)]
    return Table(list(rows.values()), unused, left_out)


def _refuse_contradiction(row: Row, earlier: Row, where: str) -> None:
    """Refuse a line that says something else of an image than an earlier one.

    Raises:
        ThawError: It does.
    """
    for said, before in zip(row, earlier, strict=True):
        if said != before:
            raise ThawError(f"{where} says {said!r} of an image of which an earlier line says {before!r}: {row.path}.")


def _tells_split(column: str, lines: Sequence[tuple[int, dict[str, str]]]) -> bool:
    """Whether a column holds names of splits, where one of folds holds numbers."""
    return not {_split_of(line, column) for _, line in lines}.isdisjoint(_split_names(column))


def _advise_on_flags(columns: Sequence[str], lines: list[dict[str, str]]) -> str:
    """What to know where each class has a column of its own, of ones and zeros; or nothing."""
    flags = [name for name in columns if lines and all(line[name] in ("0", "1", "0.0", "1.0") for line in lines)]
    if len(flags) < 2:
        return ""
    rule = "Thaw is for one label per image, its name in one column."
    return f" The columns {name_some(flags, most=5)} hold only 0 and 1: {rule}"


def _refuse(bad: list[tuple[str, Row, int]], num_good: int, file: Path, csv_path: str) -> NoReturn:
    """Name the bad lines of a CSV file.

    Args:
        bad: Reason, row and number of each.
        num_good: How many others there are.
        file: The CSV file.
        csv_path: `dataset.csv_path`.
    """
    facts, home = [], file.parent
    for reason, what in BAD_LINES.items():
        found = {line: row.path for why, row, line in bad if why == reason}
        if found:
            shown = {
                line: path.relative_to(home) if path.is_relative_to(home) else path for line, path in found.items()
            }
            some = name_some([f"{path} (line {line})" for line, path in shown.items()], most=3)
            facts.append(f"{len(found)} of {len(bad) + num_good} lines {what.format(folder=home)}: {some}")
    remedy = "Fix or remove them; dataset.on_bad=skip leaves them out."
    if not num_good and all(reason == "missing" for reason, *_ in bad):
        remedy = (
            f"dataset.csv_path={csv_path} makes these paths of the columns, as seen from the file's folder: change it, "
            f"as to 'FOLDER/{csv_path}', or mend the lines."
        )
    if os.sep == "/" and any("\\" in str(row.path) for _, row, _ in bad):
        remedy = "They have backslashes between folders, as Windows writes them: replace them by slashes."
    raise ThawError(f"dataset.csv: {file} has {'; '.join(facts)}. {remedy}")


def require_left(rows: Sequence[Row], left_out: Sequence[Row], classes: Sequence[str] | None) -> None:
    """Refuse a table that has lost all images of a split, or of a class in train, with the lines that are left out.

    Args:
        rows: Those of the others.
        left_out: Those of the lines that are left out.
        classes: `dataset.classes`: another class may be lost.

    Raises:
        ThawError: It has.
    """
    splits, names = {row.split for row in rows}, {row.name for row in rows if row.split in ("", "train")}
    for row in left_out:
        split, name = row.split or "train", row.name
        of_class = f" of {name!r}" if row.split in splits else ""
        is_kept = name and (classes is None or name in classes)
        if row.split not in splits or (split == "train" and is_kept and name not in names):
            raise ThawError(
                f"{split} has no images{of_class} left: dataset.on_bad=skip leaves out all of its files, such as "
                f"{row.path}."
            )


def _split_of(line: Mapping[str, str | None], column: str) -> str:
    """What a line says of its split, in the letters of `_split_names`; empty without such a column."""
    return (line.get(column) or "").strip().lower()


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
    label, split = columns[options.csv_label], _split_of(columns, options.csv_split)
    if options.csv_split in line and split not in split_names:
        flags = f", or true ({split_names['true']}) or false ({split_names['false']})" if "true" in split_names else ""
        raise ThawError(f"{where}: {options.csv_split} must be train, val or test{flags}, got {split!r}.")
    group = "" if options.csv_group is None else columns[options.csv_group].strip()
    if options.csv_group is not None and not group:
        raise ThawError(f"{where} has no {options.csv_group}, by which dataset.csv_group keeps images together.")
    fold = "" if options.csv_fold is None else columns[options.csv_fold].strip()
    if options.csv_fold is not None and not fold and split_names.get(split) != "test":
        raise ThawError(f"{where} has no {options.csv_fold}, by which dataset.csv_fold makes the folds.")
    return Row(file.parent / path, label.strip(), split_names.get(split, ""), file.name, group, fold)


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
