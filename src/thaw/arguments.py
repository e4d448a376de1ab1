"""What is typed, made into what Hydra knows: `resume`, `sweep.resume`, folders that are taken, processes in company.

Imports no torch.
"""

import os
import re
import shlex
from itertools import pairwise
from pathlib import Path
from typing import cast

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from thaw.differences import IRRELEVANT, is_one_of
from thaw.errors import ThawError
from thaw.explain import find_option, option_names
from thaw.processes import Place
from thaw.run import Run, typed_overrides
from thaw.sweep import find_jobs
from thaw.writing import claimed

TEXTS = (
    "dataset.root", "dataset.csv", "dataset.csv_path", "dataset.exclude", "dataset.label_pattern", "backbone.weights",
    "hydra.run.dir", "hydra.sweep.dir",
)  # fmt: skip
"""Options whose value is a text, which may hold a comma."""


def is_multirun(arguments: list[str]) -> bool:
    """True if a command line asks for a sweep."""
    return bool({"-m", "--multirun", "hydra.mode=MULTIRUN"} & set(arguments))


def refuse_flags(arguments: list[str]) -> None:
    """Refuse `--epochs 3`, which other tools know, before Hydra prints its usage; its own flags pass.

    Raises:
        ThawError: There is a flag that is none of Hydra's.
    """
    known = [name for action in get_args_parser()._actions for name in action.option_strings]
    for argument, following in pairwise([*arguments, ""]):
        flag, _, value = argument.partition("=")
        long = flag.startswith("--")  # may be shortened, as a short one may be joined with its value
        if not flag.startswith("-") or any(name.startswith(flag) if long else flag.startswith(name) for name in known):
            continue
        key = find_option(flag.lstrip("-").replace("-", "_"))
        value = value or (following if "=" not in following and not following.startswith("-") else "")
        example = f"{key}={value or 'VALUE'}" if key else "trainer.max_epochs=3"
        raise ThawError(f"Options are written KEY=VALUE, e.g. {example}, got {flag}.")


def readable(arguments: list[str]) -> list[str]:
    """The command line as Hydra's grammar has it: flags first, and texts that it cannot read in quotes.

    `dataset.root=photos (1)` and `dataset.label_pattern=^(.+)_[0-9]+[.]` mean what they say.
    """
    is_sweep = is_multirun(arguments)
    lines = [_readable(each, is_sweep) if _is_option(each) else each for each in _name_searchpath(arguments)]
    return sorted(lines, key=_is_option)


def _is_option(argument: str) -> bool:
    return argument.startswith("~") or ("=" in argument and not argument.startswith("-"))


def _readable(option: str, is_sweep: bool) -> str:
    key, _, text = option.partition("=")
    try:
        override = OverridesParser.create().parse_override(option)
        is_plain = not override.is_sweep_override() or key not in TEXTS
    except HydraException:
        is_plain = key not in TEXTS and text.startswith(("[", "{", "'", '"'))  # no text: Hydra says what it misses
    return option if is_plain or (is_sweep and "," in text) else f"{key}={quoted(text)}"


def _name_searchpath(arguments: list[str]) -> list[str]:
    """`--config-dir FOLDER` as `hydra.searchpath`, which is recorded, resumed and handed on to other processes.

    Raises:
        ThawError: There is no such folder.
    """
    others, folders = [], []
    remaining = iter(arguments)
    for argument in remaining:
        flag, _, value = argument.partition("=")
        if flag not in ("--config-dir", "-cd"):
            others.append(argument)
            continue
        folder = Path(value or next(remaining, "")).absolute()
        if not folder.is_dir():
            raise ThawError(f"{flag} is not a folder: {folder}. Name one that holds presets, as conf/ does.")
        folders.append(quoted(f"file://{folder}"))
    return [*others, f"hydra.searchpath=[{','.join(folders)}]"] if folders else others


def expand_resume(arguments: list[str]) -> list[str]:
    """`resume=RUN` as the options that RUN was started with, the same folder, and what stands beside it on the line.

    Raises:
        ThawError: There is nothing to go on from, or without `resume` the folder holds a run.
    """
    resume = find_resume(arguments)
    if resume is None:
        refuse_taken(arguments)
        return arguments
    folder = _unquoted(resume)
    if folder.name == "last.ckpt":
        folder = folder.parent.parent
    if not (folder / "checkpoints" / "last.ckpt").exists():
        raise ThawError(f"resume={folder} has no checkpoints/last.ckpt to go on from. Name the folder of a run.")
    new_keys = {_key(argument) for argument in arguments}
    if (folder / "summary.json").exists() and "trainer.max_epochs" not in new_keys:
        raise ThawError(f"resume={folder} is finished. To train it for longer, add trainer.max_epochs=N.")
    kept = [override for override in Run(folder).overrides if _key(override) not in new_keys]
    others = [argument for argument in arguments if argument is not resume]
    return [*kept, f"hydra.run.dir={quoted(folder)}", f"resume={quoted(folder)}", *others]


def find_resume(arguments: list[str]) -> str | None:
    """`resume=RUN` as it is typed; None where nothing is to be gone on with."""
    nothing = ("resume=null", "resume=")
    return next((each for each in arguments if each.startswith("resume=") and each not in nothing), None)


def as_begun(values: DictConfig, run: Run) -> DictConfig:
    """The options of a run that is gone on with, as it has recorded them, and those that are typed for the rest of it.

    Presets may have been changed since; they count where a choice of one is typed anew.

    Args:
        values: The options that the run was started with and those for the rest, by the presets as they are now.
        run: The run.
    """
    before, recorded, own = hydra.compose("config", run.overrides), run.config, values.copy()
    typed_anew = {_key(each) for each in set(typed_overrides()) - set(run.overrides)}
    for key in option_names():
        group, _, name = key.rpartition(".")
        value = recorded[group][name] if group else recorded[name]
        is_as_before = OmegaConf.select(values, key) == OmegaConf.select(before, key) and key not in typed_anew
        if is_as_before and (group or not isinstance(value, dict)):  # not whole groups
            OmegaConf.update(own, key, value, merge=False)
    return own


def refuse_taken(arguments: list[str]) -> None:
    """Refuse a folder that holds a run, before Hydra writes there.

    Raises:
        ThawError: It does, or another run is writing there.
    """
    if any(argument.startswith("-") for argument in arguments):
        return
    for argument in arguments:
        if _key(argument) == "hydra.run.dir":
            folder = _unquoted(argument)
            if (folder / ".lock").exists():
                claimed(folder).close()
            Run(folder).require_new()


def expand_sweep(arguments: list[str]) -> tuple[list[str], bool]:
    """A sweep's options as Hydra knows them: `sweep.resume` as the sweep's folder, and jobs named by what differs.

    Returns:
        The options, and whether finished jobs are to be skipped.

    Raises:
        ThawError: There is nothing to go on with, or it is another sweep.
    """
    overrides = _parse(arguments)
    resume = next((argument for argument in arguments if argument.startswith("sweep.resume=")), None)
    if resume is not None:
        folder = _unquoted(resume)
        if not is_multirun(arguments):
            raise ThawError(f"{resume} goes on with a sweep: add -m and the options that it was started with.")
        if not folder.is_dir():
            raise ThawError(f"sweep.resume={folder} is not there. Name the folder of a sweep.")
        if overrides is not None:
            _refuse_another(folder, overrides)
        arguments = [*(each for each in arguments if each is not resume), f"hydra.sweep.dir={quoted(folder)}"]
    elif is_multirun(arguments):
        _refuse_taken_sweep(arguments)
    if is_multirun(arguments):
        arguments = [*arguments, *_name_by_what_differs(overrides or [])]
    return arguments, resume is not None


def _refuse_taken_sweep(arguments: list[str]) -> None:
    """Refuse a folder that holds a sweep: jobs of both would lie there, under the same numbers.

    Raises:
        ThawError: It does.
    """
    for argument in arguments:
        if _key(argument) == "hydra.sweep.dir" and find_jobs(folder := _unquoted(argument)):
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


def in_company(place: Place, arguments: list[str]) -> list[str]:
    """The options of one process among several, which share a folder and do one job.

    Raises:
        ThawError: Each would choose a folder by its own clock, or do all jobs of a sweep.
    """
    if place.is_alone:
        return arguments
    if is_multirun(arguments):
        raise ThawError(
            "-m under torchrun or srun would be a sweep in each process. Leave them out: python train.py -m."
        )
    if not any(argument.startswith("hydra.run.dir=") for argument in arguments):
        raise ThawError("Processes started by torchrun or srun need a folder in common: set hydra.run.dir=FOLDER.")
    return arguments if place.speaks_for_all else [*arguments, "hydra.output_subdir=null"]


def seen_from(folder: Path, path: Path) -> Path:
    """A path relative to a folder, or as it is where there is no such way: on another drive of Windows."""
    try:
        return Path(os.path.relpath(path, folder))
    except ValueError:
        return path


def quoted(text: Path | str) -> str:
    """A folder, or another text, as a value on Hydra's command line."""
    escaped = re.sub(r"(\\*)('|$)", lambda found: 2 * found[1] + found[2].replace("'", r"\'"), str(text))
    return f"'{escaped}'"


def _unquoted(override: str) -> Path:
    """The folder that an option names, with or without quotes of Hydra's around it."""
    value = override.partition("=")[2]
    is_quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
    return Path(value[1:-1].replace(f"\\{value[0]}", value[0]) if is_quoted else value)


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")


def _parse(arguments: list[str]) -> list[Override] | None:
    """The options as Hydra reads them, without those of sweeps; None where it cannot."""
    others = ("-", "sweep.resume=")
    options = [each for each in arguments if ("=" in each or each.startswith("~")) and not each.startswith(others)]
    try:
        return OverridesParser.create().parse_overrides(options)
    except HydraException:  # Hydra will say so
        return None
