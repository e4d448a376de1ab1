"""What `-m` stands for: `sweep.resume`, and what the folders of a sweep's jobs are called. Imports no torch."""

import shlex
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from thaw.errors import ThawError
from thaw.launch.resume import find_resume, is_requeued
from thaw.launch.sweep import RECORD, STUDY, find_jobs
from thaw.options import IRRELEVANT, flatten, is_one_of
from thaw.overrides import folder_of, is_multirun, key_of, quoted
from thaw.reading import read_yaml

DIRNAME = "hydra.job.config.override_dirname"
"""How Hydra joins the options that a folder is named by."""


def expand_sweep(arguments: list[str]) -> tuple[list[str], bool]:
    """A sweep's options as Hydra knows them: `sweep.resume` as the sweep's folder, and jobs named by what differs.

    Returns:
        The options, and whether finished jobs are to be skipped.

    Raises:
        ThawError: There is nothing to go on with, it is another sweep, or its jobs would not be found.
    """
    resume = find_resume(arguments, "sweep.resume")
    if not is_multirun(arguments):
        if resume is not None:
            raise ThawError(f"{resume} goes on with a sweep: add -m and the options that it was started with.")
        return arguments, False
    if any(key_of(argument) == "hydra.output_subdir" for argument in arguments):
        raise ThawError("hydra.output_subdir cannot be changed in a sweep, whose jobs are found by it: leave it out.")
    if direction := next((each for each in arguments if key_of(each) == "hydra.sweeper.direction"), None):
        raise ThawError(f"{direction} is not to be said: a search takes the better end of trainer.monitor itself.")
    resume = resume or _requeued(arguments)
    overrides, before = _parse(arguments), dict[str, Any]()
    if resume is None:
        _refuse_taken_sweep(arguments)
    else:
        folder = folder_of(resume)
        if not folder.is_dir():
            fault = "is no folder" if folder.exists() else "is not there"
            raise ThawError(f"{_resume(folder)} {fault}. Name the folder of a sweep.")
        before = _read_record(folder)
        if overrides is not None:
            _refuse_another(folder, overrides, before.get("hydra.overrides.task"))
        arguments = [*(each for each in arguments if each is not resume), f"hydra.sweep.dir={quoted(folder)}"]
    return [*arguments, *_name_folders(overrides or [], before)], resume is not None


def refuse_lone_search(arguments: list[str]) -> None:
    """Refuse a search without `-m`, which would be a single training with none of its options; a look at it passes.

    Raises:
        ThawError: It is one.
    """
    if any(argument.startswith(("-", "hydra.mode=")) for argument in arguments):
        return
    for argument in arguments:
        if argument.startswith("sweep=") and argument not in ("sweep=", "sweep=null"):
            raise ThawError(f"{argument} searches by many trainings: add -m.")


def _refuse_taken_sweep(arguments: list[str]) -> None:
    """Refuse a folder that holds a sweep: jobs of both would lie there, under the same numbers.

    Raises:
        ThawError: It does.
    """
    for argument in arguments:
        if key_of(argument) == "hydra.sweep.dir" and find_jobs(folder := folder_of(argument)):
            raise ThawError(
                f"{folder} holds a sweep already. To go on with it: the same command and {_resume(folder)} in place of "
                "hydra.sweep.dir. To begin anew: name another folder, or remove this one."
            )


def _requeued(arguments: list[str]) -> str | None:
    """`sweep.resume` for a sweep that a job of SLURM began and resumes when SLURM restarts it."""
    folders = [folder_of(argument) for argument in arguments if key_of(argument) == "hydra.sweep.dir"]
    return f"sweep.resume={quoted(folders[-1])}" if is_requeued() and folders and find_jobs(folders[-1]) else None


def _resume(sweep: Path) -> str:
    """The option that goes on with a sweep, as a shell takes it."""
    return shlex.quote(f"sweep.resume={sweep}")


def _read_record(sweep: Path) -> dict[str, Any]:
    """What is recorded of a sweep, by full names; nothing of one that was ended before.

    Raises:
        ThawError: The record is damaged.
    """
    path = sweep / RECORD
    return flatten(read_yaml(path)) if path.exists() else {}


def _refuse_another(sweep: Path, overrides: list[Override], options: list[str] | None) -> None:
    """Refuse to resume with other options: their jobs would be numbered from 0, among the earlier ones.

    A search may go on within other bounds, as its study keeps what was tried, but not on other data.

    Raises:
        ThawError: They differ.
    """
    if options is None:
        return
    before, bounds_count = _parse(options) or [], not (sweep / STUDY).exists()
    if _name_jobs(overrides, bounds_count) != _name_jobs(before, bounds_count):
        raise ThawError(
            f"{_resume(sweep)} goes on with the options that it was started with, {shlex.join(options)}. "
            "Start a new sweep for others: thaw compare takes the folders of both."
        )


def _name_jobs(overrides: list[Override], bounds_count: bool) -> list[str | None]:
    """The options that tell what a sweep's jobs are: all but Hydra's own and those that change no result of any job.

    Args:
        overrides: The options.
        bounds_count: Whether those that have several values, or a range of them, are among them.
    """
    own = [each for each in overrides if not each.is_hydra_override()]
    return [
        each.input_line
        for each in own
        if (bounds_count if each.is_sweep_override() else not is_one_of(each.key_or_group, IRRELEVANT))
    ]


def _name_folders(overrides: list[Override], before: dict[str, Any]) -> list[str]:
    """The options that name jobs' folders by what differs among them, or by the pattern of an earlier go."""
    last = {each.key_or_group: each for each in overrides}.values()  # of what is typed twice, as Hydra takes it
    fixed = [each for each in last if not each.is_sweep_override()]
    if len(fixed) == len(last) and all(each.key_or_group != "sweep" for each in fixed):  # a single job
        fixed = [each for each in fixed if is_one_of(each.key_or_group, IRRELEVANT)]  # may be typed when it goes on
    unnamed = {each.key_or_group for each in fixed if not each.is_hydra_override()}
    pattern = before.get("hydra.sweep.subdir")
    names = [f"hydra.sweep.subdir={quoted(pattern)}"] if pattern else []
    return [*names, f"{DIRNAME}.exclude_keys=[{','.join(sorted(unnamed))}]"]


def _parse(arguments: list[str]) -> list[Override] | None:
    """The options as Hydra reads them, without those of sweeps; None where it cannot."""
    others = ("-", "sweep.resume=")
    options = [each for each in arguments if ("=" in each or each.startswith("~")) and not each.startswith(others)]
    try:
        return OverridesParser.create().parse_overrides(options)
    except HydraException:  # Hydra will say so
        return None
