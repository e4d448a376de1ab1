"""What `-m` stands for: `sweep.resume`, and what the folders of a sweep's jobs are called. Imports no torch."""

import shlex
from pathlib import Path
from typing import cast

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import OmegaConf

from thaw.differences import IRRELEVANT, is_one_of
from thaw.errors import ThawError
from thaw.overrides import folder_of, is_multirun, key_of, quoted
from thaw.sweep import find_jobs


def expand_sweep(arguments: list[str]) -> tuple[list[str], bool]:
    """A sweep's options as Hydra knows them: `sweep.resume` as the sweep's folder, and jobs named by what differs.

    Returns:
        The options, and whether finished jobs are to be skipped.

    Raises:
        ThawError: There is nothing to go on with, or it is another sweep.
    """
    resume = next((argument for argument in arguments if argument.startswith("sweep.resume=")), None)
    if not is_multirun(arguments):
        if resume is not None:
            raise ThawError(f"{resume} goes on with a sweep: add -m and the options that it was started with.")
        return arguments, False
    overrides = _parse(arguments)
    if resume is None:
        _refuse_taken_sweep(arguments)
    else:
        folder = folder_of(resume)
        if not folder.is_dir():
            raise ThawError(f"sweep.resume={folder} is not there. Name the folder of a sweep.")
        if overrides is not None:
            _refuse_another(folder, overrides)
        arguments = [*(each for each in arguments if each is not resume), f"hydra.sweep.dir={quoted(folder)}"]
    return [*arguments, *_name_by_what_differs(overrides or [])], resume is not None


def _refuse_taken_sweep(arguments: list[str]) -> None:
    """Refuse a folder that holds a sweep: jobs of both would lie there, under the same numbers.

    Raises:
        ThawError: It does.
    """
    for argument in arguments:
        if key_of(argument) == "hydra.sweep.dir" and find_jobs(folder := folder_of(argument)):
            option = shlex.quote(f"sweep.resume={folder}")
            raise ThawError(
                f"{folder} holds a sweep already. To go on with it: the same command and {option} in place of "
                "hydra.sweep.dir. To begin anew: name another folder, or remove this one."
            )


def _refuse_another(sweep: Path, overrides: list[Override]) -> None:
    """Refuse to go on with other options: their jobs would be numbered anew, among those of the earlier ones.

    A search has no such jobs, and keeps no `multirun.yaml`.

    Raises:
        ThawError: They differ.
    """
    path = sweep / "multirun.yaml"
    before = OmegaConf.select(OmegaConf.load(path), "hydra.overrides.task") if path.exists() else None
    if before is None:
        return
    options = cast(list[str], OmegaConf.to_container(before))
    if _name_jobs(overrides) != _name_jobs(_parse(options) or []):
        raise ThawError(
            f"sweep.resume={sweep} goes on with the options that it was started with, {' '.join(options)}. "
            "Start a new sweep for others: thaw compare takes the folders of both."
        )


def _name_jobs(overrides: list[Override]) -> list[str | None]:
    """The options that tell what a sweep's jobs are: all but Hydra's own and those that change no result of any job."""
    own = [each for each in overrides if not each.is_hydra_override()]
    return [each.input_line for each in own if each.is_sweep_override() or not is_one_of(each.key_or_group, IRRELEVANT)]


def _name_by_what_differs(overrides: list[Override]) -> list[str]:
    """The option that leaves what all jobs share out of their folders' names."""
    fixed = [each for each in overrides if not each.is_sweep_override()]
    if len(fixed) == len(overrides) and all(each.key_or_group != "sweep" for each in fixed):
        fixed = []  # a single job
    slashed = [each for each in overrides if "/" in (each.input_line or "")]  # would be folders within folders
    unnamed = sorted({each.key_or_group for each in [*fixed, *slashed] if not each.is_hydra_override()})
    return [f"hydra.job.config.override_dirname.exclude_keys=[{','.join(unnamed)}]"]


def _parse(arguments: list[str]) -> list[Override] | None:
    """The options as Hydra reads them, without those of sweeps; None where it cannot."""
    others = ("-", "sweep.resume=")
    options = [each for each in arguments if ("=" in each or each.startswith("~")) and not each.startswith(others)]
    try:
        return OverridesParser.create().parse_overrides(options)
    except HydraException:  # Hydra will say so
        return None
