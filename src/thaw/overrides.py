"""Options as KEY=VALUE texts, as they are typed and as Hydra parses them. Imports no torch."""

import os
import re
from itertools import pairwise
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException
from hydra.types import RunMode

from thaw.errors import ThawError, name_some
from thaw.paths import at_home

TEXTS = (
    "dataset.root", "dataset.csv", "dataset.csv_path", "dataset.csv_label", "dataset.csv_split", "dataset.csv_group",
    "dataset.csv_fold", "dataset.exclude", "dataset.relabel", "dataset.label_pattern", "backbone.weights",
    "strategy.name", "logger.project", "logger.uri", "resume", "sweep.resume", "hydra.run.dir", "hydra.sweep.dir",
)  # fmt: skip
"""Options whose value is a text, which may hold a comma or look like a number."""
FOLDERS = ("resume", "hydra.run.dir", "sweep.resume", "hydra.sweep.dir")
"""Options that name a folder of results, in which `~` is the user's home: no shell replaces it behind `KEY=`."""


def is_multirun(arguments: list[str]) -> bool:
    """True if a command line asks for a sweep."""
    return bool({"-m", "--multirun", "hydra.mode=MULTIRUN"} & set(arguments))


def readable(arguments: list[str]) -> list[str]:
    """The command line with flags first, and texts in quotes where Hydra would parse them as something else.

    `dataset.root=photos (1)`, `dataset.root=2024_11` and `dataset.label_pattern=^(.+)_[0-9]+[.]` mean what they say.
    """
    is_sweep = is_multirun(arguments)
    arguments = _name_images(_name_searchpath(arguments))
    lines = [_readable(each, is_sweep) if is_option(each) else each for each in arguments]
    return sorted(lines, key=is_option)


def is_option(argument: str) -> bool:
    """True of `KEY=VALUE` and of `~KEY`; not of `~/photos`, nor of a path with a blank before its equals sign."""
    return re.match(r"~(?!/)|(?!-)[^\s=]*=", argument) is not None


def _readable(option: str, is_sweep: bool) -> str:
    """The option, its text in quotes where Hydra would parse that as something else.

    Raises:
        ThawError: A folder has no name, which would be the folder here, or none; or several loggers are named.
    """
    key, _, text = option.partition("=")
    if key == "logger" and text.startswith("["):  # of several files Hydra would take all, and the last name
        raise ThawError(
            f"{option}: one name is taken. logger=wandb logger.tensorboard=true has both, and so has mlflow."
        )
    if key in FOLDERS:
        if not text.strip("'\""):
            raise ThawError(f"{option} names no folder: is a variable not set?")
        text = at_home(text)
        option = f"{key}={text}"
    try:
        override = OverridesParser.create().parse_override(option)
        is_plain = key not in TEXTS or (not override.is_sweep_override() and _is_text(override.value(), text))
    except HydraException:
        is_plain = key not in TEXTS and text.startswith(("[", "{", "'", '"'))  # no text: Hydra says what it misses
    return option if is_plain or (is_sweep and "," in text) else f"{key}={quoted(text)}"


def _is_text(value: object, text: str) -> bool:
    """True if what Hydra has read is what was typed, or null: `2024_11` is read as the number 202411."""
    return value is None or isinstance(value, str) or str(value) == text


def _name_searchpath(arguments: list[str]) -> list[str]:
    """`--config-dir FOLDER` as `hydra.searchpath`, which is recorded, resumed and handed on to other processes.

    Raises:
        ThawError: There is no such folder, or none of those that `hydra.searchpath` names; Hydra only warns of it.
    """
    others, folders = [], []
    remaining = iter(arguments)
    for argument in remaining:
        flag, _, value = argument.partition("=")
        if flag == "hydra.searchpath":
            argument = _in_full(argument)
        if flag in ("--config-dir", "-cd"):
            folder = _folder_of_presets(flag, at_home(value or next(remaining, "")))
            folders.append(quoted(f"file://{folder}"))
            continue
        others.append(argument)
    return [*others, f"hydra.searchpath=[{','.join(folders)}]"] if folders else others


def _name_images(arguments: list[str]) -> list[str]:
    """`photos`, a folder of images, as `dataset=folder dataset.root=photos`, and likewise a CSV file.

    Raises:
        ThawError: There are several, of which the last would count.
    """
    options, words = [], []
    for before, argument in pairwise(["", *arguments]):
        path = Path(at_home(argument))
        is_word = not is_option(argument) and (not before.startswith("-") or is_multirun([before]))  # of no flag
        if is_word and path.exists():
            key = "dataset.root" if path.is_dir() else "dataset.csv"
            options += ["dataset=folder", f"{key}={_one_value(path)}"]
            words.append(argument)
        else:
            options.append(argument)
    for key in ("dataset.root", "dataset.csv") if words else ():
        if len(named := [each.partition("=")[2] for each in options if each.startswith(f"{key}=")]) > 1:
            raise ThawError(
                f"{len(named)} folders or files of images are named, {name_some(named)}: name one. Of a folder with "
                "train and val, name the folder that holds both."
            )
    return options


def _one_value(path: Path) -> str:
    """The path for an option, in quotes if a sweep would take its commas for those between values."""
    return quoted(path) if "," in str(path) else str(path)


def _folder_of_presets(option: str, name: str) -> Path:
    """The folder that an option names, in full.

    Raises:
        ThawError: There is none.
    """
    folder = Path(name).absolute()
    if not (name and folder.is_dir()):
        got = folder if name else "nothing is named"
        raise ThawError(f"{option} is not a folder: {got}. Name one that holds presets, as conf/ does.")
    return folder


def _in_full(searchpath: str) -> str:
    """`hydra.searchpath=[…]` with its folders in full, for a run that is resumed from elsewhere.

    Raises:
        ThawError: One of them is not there.
    """
    folders = [
        _folder_of_presets("hydra.searchpath", place.removeprefix("file://"))
        if "://" not in place or place.startswith("file://")
        else place
        for place in elements(searchpath)
    ]
    places = (f"file://{each}" if isinstance(each, Path) else each for each in folders)
    return f"hydra.searchpath=[{','.join(map(quoted, places))}]" if folders else searchpath


def elements(override: str) -> list[str]:
    """The texts in a list; none where it is no list, or Hydra cannot read it and will say so."""
    try:
        value = OverridesParser.create().parse_override(override).value()
    except HydraException:
        return []
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []


def in_sweep() -> bool:
    """True in a job of a sweep of Thaw's."""
    return _is_thaws_job() and HydraConfig.get().mode == RunMode.MULTIRUN


def _is_thaws_job() -> bool:
    """True where Hydra runs a job of Thaw's, and not another program's that calls Thaw."""
    if not HydraConfig.initialized():
        return False
    callbacks = HydraConfig.get().callbacks.values()  # as in conf/config.yaml
    return any(str(each.get("_target_")).startswith("thaw.launch.") for each in callbacks)


def place_among_jobs() -> int | None:
    """The number of a job that a launcher runs beside others of a sweep; None where it has the machine to itself."""
    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:  # of another program, too
        return None
    context = HydraConfig.get()
    return None if context.runtime.choices["hydra/launcher"] == "basic" else int(context.job.num)


def typed_overrides() -> list[str] | None:
    """What was typed for the job that Hydra runs, and where it finds presets of one's own; None without such a job."""
    if not _is_thaws_job():
        return None
    overrides = HydraConfig.get().overrides
    return [*(each for each in overrides.hydra if each.startswith("hydra.searchpath=")), *overrides.task]


def key_of(override: str) -> str:
    """The full name of the option that is set, added or removed."""
    return override.partition("=")[0].lstrip("+~")


def quoted(text: Path | str) -> str:
    """A folder, or another text, as a value on Hydra's command line."""
    return QuotedString(str(text), Quote.single).with_quotes()


def folder_of(override: str) -> Path:
    """The folder that an option names, with or without quotes of Hydra's around it."""
    value = override.partition("=")[2]
    is_quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
    return Path(value[1:-1].replace(f"\\{value[0]}", value[0]) if is_quoted else value)


def seen_from_here(path: Path) -> Path:
    """A path relative to the working directory, or as it is where there is no such way: on another drive of Windows."""
    try:
        return Path(os.path.relpath(path))
    except ValueError:
        return path
