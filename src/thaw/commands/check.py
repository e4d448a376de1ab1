"""`thaw check`: what is wrong with a folder of images."""

import argparse
import os
import re
import shlex
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thaw.config import DatasetConfig
from thaw.errors import ThawError, name_some, printable
from thaw.importing import heavy_imports
from thaw.overrides import quoted

if TYPE_CHECKING:
    from thaw.data.finding import Finding
    from thaw.data.index import ImageIndex

DESCRIPTION = (
    "Reads every image of a folder and tells what is wrong: unreadable files, files of another type than their name "
    "says, tiny images, byte-identical copies (twice in a split, in two splits, with two labels), images that look the "
    "same, as a resized copy does, classes that are rare, missing from a split or spelt in two ways, empty and "
    "misspelt folders. Nothing in the folder is changed. "
    "Exit code: 0 if all is well, 1 if something is wrong, 2 if the folder cannot be checked."
)
EXAMPLE = "thaw check photos --fix"
FLAGS = {
    "dataset.label_pattern": "--label-pattern",
    "dataset.csv": "--csv",
    "dataset.csv_path": "--csv-path",
    "dataset.csv_label": "--csv-label",
    "dataset.csv_split": "--csv-split",
    "dataset.csv_group": "--csv-group",
    "dataset.exclude": "--exclude",
    "dataset.relabel": "--relabel",
    "dataset.root": "FOLDER",
}
"""What the options are called here, for the messages of mistakes."""
COLUMNS = {"csv_path": "PATTERN", "csv_label": "COLUMN", "csv_split": "COLUMN", "csv_group": "COLUMN"}
"""Options that tell the columns of a CSV file, and of what kind each is."""
LISTS = ("exclude", "relabel")
"""Options that name a list of images."""
MIN_SIZE = 32
"""Default of `--min-size`."""
MOST_LINES = 20
"""Of a finding; the others are counted."""


def add_folder(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that name a folder of images and tell their labels."""
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="CLASS/*, {train,val,test}/CLASS/*, or a CSV file")
    labels = parser.add_mutually_exclusive_group()
    labels.add_argument("--csv", type=Path, metavar="FILE", help="labels are in this file, as in dataset.csv")
    labels.add_argument(
        "--label-pattern",
        "--pattern",
        metavar="REGEX",
        help="labels are in the file names, as in dataset.label_pattern",
    )
    for name, kind in COLUMNS.items():
        parser.add_argument(FLAGS[f"dataset.{name}"], metavar=kind, help=f"beside --csv, as dataset.{name}")
    parser.add_argument("--exclude", type=Path, metavar="FILE", help="leave out what this list names")
    parser.add_argument("--relabel", type=Path, metavar="FILE", help="take the classes of this list")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_folder(parser)
    parser.add_argument(
        "--min-size", type=int, default=MIN_SIZE, metavar="PIXELS", help=f"smallest shorter side; default {MIN_SIZE}"
    )
    parser.add_argument(
        "--near",
        action="store_true",
        help="count images that look the same as copies too: without it they are only listed, for you to look at",
    )
    parser.add_argument(
        "--fix",
        nargs="?",
        type=Path,
        const=Path("exclude.csv"),
        metavar="FILE",
        help="list the images to leave out in this file, for dataset.exclude; default exclude.csv, here and not in the "
        "data's folder. Of copies the one in test is kept, else the one in val, else one; of copies with two labels "
        "none",
    )


def run(options: argparse.Namespace) -> int:
    """Print what is wrong; returns the exit code."""
    with heavy_imports():
        from thaw.data.check import facts, find_problems
        from thaw.data.examine import count_types, examine, find_bad_files
        from thaw.data.image_lists import read_reasons
        from thaw.data.near_copies import find_near_copies

    index = survey_folder(options)
    print(facts(index))
    files = examine(index)
    print(count_types(files))
    findings = [*find_bad_files(index, files, options.min_size), *find_problems(index)]
    left_out = {path for finding in findings for path in finding.leave_out}
    findings += find_near_copies(index, [file for file in files if file.path not in left_out], options.near)
    for finding in findings:
        _print(finding)
    num_wrong = sum(finding.is_wrong for finding in findings)
    reasons = {index.place(path): reason for finding in findings for path, reason in finding.leave_out.items()}
    found = f"{_count(num_wrong, 'kind')} of mistake, {_count(len(reasons), 'image')} to leave out"
    print(f"\n{found if num_wrong else 'Nothing is wrong.'}")
    if options.fix is not None and reasons:
        earlier = read_reasons(_find_list(options), index.root) if options.exclude else {}
        _write(index, earlier | reasons, options.fix)
    elif options.fix is not None:
        print(f"No image is to be left out, so {options.fix} is not written.")
    elif reasons:
        print(printable(f"List them for dataset.exclude: {command_to_fix(options)}"))
    return int(num_wrong > 0)


def _find_list(options: argparse.Namespace) -> Path:
    """The file of `--exclude`, as seen from here or from the folder."""
    file: Path = options.exclude
    return file if file.exists() else options.folder / file


def survey_folder(options: argparse.Namespace) -> "ImageIndex":
    """The folder's images; mistakes are told in the words of the flags."""
    from thaw.data.index import survey
    from thaw.data.places import locate

    def from_root(file: Path | None) -> str | None:
        """Below the folder as seen from there; else in full, for a folder that is a link has other parents."""
        if file is None:
            return None
        if not file.exists() and (options.folder / file).exists():
            return str(file)
        folder, place = options.folder.absolute(), file.absolute()
        return str(place.relative_to(folder) if place.is_relative_to(folder) else place)

    root = options.folder
    is_table = root.is_file() and root.suffix.lower() in (".csv", ".tsv")
    if is_table and options.csv is None:  # as a training takes it
        options.csv, options.folder = root, root.parent
        return survey_folder(options)
    if root.is_file():
        raise ThawError(f"FOLDER must be a folder or a CSV file, got the file {str(root)!r}.")
    columns = {name: value for name in COLUMNS if (value := getattr(options, name)) is not None}
    files = {name: from_root(getattr(options, name)) for name in ("csv", *LISTS)}
    try:
        labels: dict[str, Any] = {"label_pattern": options.label_pattern, **files, **columns}
        dataset = locate(DatasetConfig(root=str(root), on_bad="skip", **labels))
        if dataset.root != str(root):  # as the lists of a CSV file elsewhere, in a training too
            for name in LISTS:
                if (file := getattr(options, name)) is not None:
                    setattr(dataset, name, str(file.absolute()))
        return survey(Path(dataset.root), dataset)
    except ThawError as error:
        raise ThawError(in_flags(str(error))) from error


def in_flags(message: str, flags: Mapping[str, str] = FLAGS) -> str:
    """The message with flags in place of the options that have some; FOLDER, which is none, takes no value."""
    return re.sub(r"dataset\.(?!root=)\w+", lambda found: flags.get(found[0], found[0]), message)


def command_to_fix(options: argparse.Namespace) -> str:
    """What to type to have the images listed that are to be left out, with those that are left out already."""
    names = ("csv", "label_pattern", *LISTS, *COLUMNS)
    flags = {FLAGS[f"dataset.{name}"]: getattr(options, name) for name in names}
    given = chain.from_iterable((flag, str(value)) for flag, value in flags.items() if value is not None)
    near = ["--near"] if getattr(options, "near", False) else []  # `thaw pack` has none of these
    size = ["--min-size", str(least)] if (least := getattr(options, "min_size", MIN_SIZE)) != MIN_SIZE else []
    return shlex.join(["thaw", "check", str(options.folder), *given, *near, *size, "--fix"])


def option_to_type(key: str, place: str) -> str:
    """An option that names a file, a folder or an address, for a shell; in quotes of Hydra's where it asks for them."""
    is_plain = "://" in place or re.fullmatch(r"[\w./:@%+-]+", place, re.ASCII)
    return shlex.quote(f"{key}={place if is_plain else quoted(Path(place))}")


def _print(finding: "Finding") -> None:
    print(f"\n{finding.title}: {len(finding.items)}. {finding.advice}".rstrip())
    for item in finding.items[:MOST_LINES]:
        print(f"  {printable(item)}")
    if (others := len(finding.items) - MOST_LINES) > 0:
        print(f"  … and {others} more")


def _write(index: "ImageIndex", reasons: dict[str, str], file: Path) -> None:
    """Write the list of images to leave out, and print the option that reads it."""
    from thaw.data.image_lists import read_names, write_excluded

    names = read_names(file)
    found = [name for name in names if os.path.lexists(index.root / name)]
    if names and not found:
        raise ThawError(
            f"{file} is a list of other data: none of its files is in {index.root}. Name another: --fix FILE."
        )
    if lost := [name for name in found if name not in reasons]:
        raise ThawError(
            f"{file} names {len(lost)} of the images for reasons of its own: {name_some(lost, most=3)}. Keep them by "
            f"--exclude {file}, or name another file: --fix FILE."
        )
    write_excluded(file, reasons)
    root, place = index.root.resolve(), file.resolve()
    name = place.relative_to(root) if place.is_relative_to(root) else place
    print(printable(f"{file} lists them. Train with {option_to_type('dataset.exclude', str(name))}"))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"
