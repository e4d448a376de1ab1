"""Validate and translate the command line for Hydra. Imports no torch."""

from itertools import pairwise
from pathlib import Path

import hydra
from hydra._internal.utils import get_args_parser
from omegaconf.errors import InterpolationResolutionError

from thaw.errors import ThawError
from thaw.launch.composing import accept
from thaw.launch.explain import find_option
from thaw.launch.resume import expand_resume, find_resume, refuse_taken
from thaw.launch.sweep_options import expand_sweep, refuse_lone_search
from thaw.overrides import is_multirun, readable
from thaw.ranks import ProcessRank


def translate(arguments: list[str], conf: Path, process: ProcessRank, can_resume: bool) -> tuple[list[str], bool]:
    """The command line as Hydra knows it, and whether finished jobs of a sweep are to be skipped.

    Args:
        arguments: The command line, without the program's name.
        conf: Folder of Hydra's files.
        process: Rank of this process among those that do the same.
        can_resume: Whether `resume=RUN` stands for the options of RUN.

    Raises:
        ThawError: An option is a mistake.
    """
    refuse_flags(arguments)
    arguments = readable(arguments)
    if not process.started_by_thaw:  # else another process has done so
        refuse_lone_search(arguments)
        if can_resume:
            arguments = expand_resume(arguments)
        elif find_resume(arguments):
            raise ThawError("resume=RUN goes on with a training: it is an option of `thaw train`.")
        else:
            refuse_taken(arguments)
    arguments, skip_finished = expand_sweep(arguments)
    _check(conf, arguments)
    if any(pair in (("--cfg", "job"), ("-c", "job")) for pair in pairwise(arguments)) and "--resolve" not in arguments:
        arguments = [*arguments, "--resolve"]  # a preset's values that depend on others, as they are
    return in_company(process, arguments), skip_finished


def refuse_flags(arguments: list[str]) -> None:
    """Refuse `--epochs 3` and `epochs = 3`, which other tools know, before Hydra prints its usage; its own flags pass.

    Raises:
        ThawError: There is a flag that is none of Hydra's, or a space before a value.
    """
    for before, argument, after in zip(["KEY", *arguments], arguments, [*arguments[1:], "VALUE"], strict=False):
        if argument.startswith("="):
            option = f"{before}={argument[1:] or after}"
            raise ThawError(f"Options are written KEY=VALUE without spaces: {option}")
    actions = get_args_parser()._actions
    names = [name for action in actions for name in action.option_strings]
    joined = [
        f"{name}{value}" for action in actions for name in action.option_strings for value in action.choices or ()
    ]
    known = [*names, *joined]
    for argument, following in pairwise([*arguments, ""]):
        flag, _, value = argument.partition("=")
        if not flag.startswith("-") or flag in known:
            continue
        if len(whole := [name for name in names if name.startswith(flag)]) == 1:  # what Hydra would take it for
            raise ThawError(f"Flags are written in full: {whole[0]}, got {flag}.")
        key = find_option(flag.lstrip("-").replace("-", "_"))
        value = value or (following if "=" not in following and not following.startswith("-") else "")
        example = f"{key}={value or 'VALUE'}" if key else "trainer.max_epochs=3"
        raise ThawError(f"Options are written KEY=VALUE, e.g. {example}, got {flag}.")


def in_company(process: ProcessRank, arguments: list[str]) -> list[str]:
    """The options of one process among several, which share a folder and do one job.

    Raises:
        ThawError: Each would choose a folder by its own clock, or do all jobs of a sweep.
    """
    if process.is_alone:
        return arguments
    if is_multirun(arguments):
        raise ThawError("-m under torchrun or srun would be a sweep in each process: start it without, thaw train -m.")
    if not any(argument.startswith("hydra.run.dir=") for argument in arguments):
        raise ThawError("Processes started by torchrun or srun need a folder in common: set hydra.run.dir=FOLDER.")
    return arguments if process.speaks_for_all else [*arguments, "hydra.output_subdir=null"]


def _check(conf: Path, arguments: list[str]) -> None:
    """Refuse the options of a single run before Hydra makes a folder, sets up logging and composes twice more."""
    if any(argument.startswith(("-", "hydra.mode=")) for argument in arguments):
        return
    is_for_hydra = any("${hydra:" in argument for argument in arguments)  # which is known to the job only
    with hydra.initialize_config_dir(str(conf), version_base="1.3"):
        try:
            accept(hydra.compose("config", arguments))
        except InterpolationResolutionError:
            if not is_for_hydra:
                raise
