"""`resume=RUN`: a run goes on with the options that it was started with. Imports no torch."""

import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, cast

import hydra
from omegaconf import DictConfig, OmegaConf

from thaw.config import Config
from thaw.errors import ThawError
from thaw.launch.explain import option_names
from thaw.options import IRRELEVANT, flatten, is_one_of, typed
from thaw.overrides import elements, folder_of, is_multirun, is_option, key_of, quoted
from thaw.ranks import find_rank
from thaw.run import Run
from thaw.writing import claimed

log = logging.getLogger(__name__)

LONGER = {"trainer.max_epochs", "trainer.early_stopping", "trainer.extra.max_steps", "trainer.extra.max_time"}
"""Options that may let a finished run go on; `require_later` tells whether any epoch is left."""
SEARCHPATH = "hydra.searchpath"
"""Hydra's option that names folders of presets."""
GROUPS = {option.name for option in fields(Config) if is_dataclass(option.type)}


def expand_resume(arguments: list[str], in_python: bool = False) -> list[str]:
    """`resume=RUN` as the options that RUN was started with, the same folder, and what stands beside it on the line.

    Args:
        arguments: The command line.
        in_python: Whether RUN may be one that was started from Python, for which nothing was typed.

    Raises:
        ThawError: There is nothing to go on from, or without `resume` the folder holds a run; or presets are gone.
    """
    resume = find_resume(arguments)
    if resume is None:
        refuse_taken(arguments)
        return arguments
    if is_multirun(arguments):
        raise ThawError(f"{resume} goes on with one run: leave -m out. A sweep goes on by sweep.resume=SWEEP.")
    folder = folder_of(resume)
    if folder.name == "last.ckpt":
        folder = folder.parent.parent
    run = Run(folder)
    if folder.is_file() or not run.last.exists():
        is_run = not folder.is_file() and run.is_started
        advice = "It was ended before one was saved: begin anew." if is_run else "Name the folder of a run."
        raise ThawError(f"resume={folder} has no checkpoints/last.ckpt to go on from. {advice}")
    new_keys = {key_of(argument) for argument in arguments}
    if run.is_finished and not new_keys & LONGER:
        is_probe = "strategy=probe" in run.overrides
        advice = "A probe is not trained" if is_probe else "To train it for longer, add trainer.max_epochs=N"
        raise ThawError(f"resume={folder} is finished. {advice}.")
    if not (run.was_typed or in_python):
        raise ThawError(
            f"{folder} was not started by train.py: it has no overrides.yaml. What was started from Python goes on "
            f"there: train(compose({f'resume={folder}'!r}), {str(folder)!r})."
        )
    recorded = _preset_places(run.overrides)
    for place in (each.removeprefix("file://") for each in recorded):
        if "://" not in place and not (presets := run.started_in / place).is_dir():
            raise ThawError(f"resume={folder} began with presets in {presets}: put them back.")
    kept = [override for override in run.overrides if key_of(override) not in {*new_keys, SEARCHPATH}]
    others = [argument for argument in arguments if argument is not resume]
    if recorded:
        places = dict.fromkeys([*recorded, *_preset_places(arguments)])
        others = [argument for argument in others if key_of(argument) != SEARCHPATH]
        others.append(f"{SEARCHPATH}=[{','.join(map(quoted, places))}]")
    own = [*kept, f"hydra.run.dir={quoted(folder)}", f"resume={quoted(folder)}", *others]
    return sorted(own, key=is_option)


def _preset_places(overrides: Iterable[str]) -> list[str]:
    """Where presets are found beside Thaw's own, as the options say."""
    return [place for override in overrides if key_of(override) == SEARCHPATH for place in elements(override)]


def find_resume(arguments: list[str], key: str = "resume") -> str | None:
    """`resume=RUN` as it is typed; None where nothing is resumed."""
    return next((each for each in arguments if each.startswith(f"{key}=") and each != f"{key}=null"), None)


def is_requeued() -> bool:
    """True in a job that SLURM has restarted with the same command, after preemption or a node's failure."""
    return os.environ.get("SLURM_RESTART_COUNT", "0") != "0"


def refuse_taken(arguments: list[str]) -> None:
    """Refuse a folder that holds a run, before Hydra writes there.

    Raises:
        ThawError: It does, or another run is writing there.
    """
    if any(argument.startswith("-") for argument in arguments):
        return
    for argument in arguments:
        if key_of(argument) == "hydra.run.dir":
            folder = folder_of(argument)
            if (folder / ".lock").exists():
                claimed(folder).close()
            if not is_requeued():
                Run(folder).require_new()


def as_begun(values: DictConfig, run: Run, typed: Iterable[str]) -> DictConfig:
    """The options of a resumed run as it has recorded them, and those that are typed for the rest of it.

    Presets may have been changed since; they count where a preset is typed again. What will be different is told.

    Args:
        values: The options that the run was started with and those for the rest, by the presets as they are now.
        run: The run.
        typed: All that is typed for it, before and now.
    """
    own, recorded = values.copy(), run.config
    # As they are written: a preset's value that depends on another option is as before, though that one may not be.
    now, before = (
        OmegaConf.to_container(each, resolve=False) for each in (values, hydra.compose("config", run.overrides))
    )
    typed_anew = {key_of(each) for each in set(typed) - set(run.overrides)}
    for key in option_names():
        value = _value(recorded, key)
        is_as_before = _value(now, key) == _value(before, key) and key not in typed_anew
        if is_as_before and key not in GROUPS:
            OmegaConf.update(own, key, value, merge=False)
    changes = _changes(recorded, cast(dict[str, Any], OmegaConf.to_container(own, resolve=True)))
    if changes and not find_rank().started_by_thaw:  # else the process that started this one has said so
        log.info(f"{run.folder} goes on with {', '.join(changes)}")
    return own


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Options that are no longer what they were, and may change a result, with both values."""
    known = flatten(before)
    return [
        f"{key}={typed(value)} (was {typed(known[key])})"
        for key, value in flatten(now).items()
        if key in known and value != known[key] and not is_one_of(key, IRRELEVANT)
    ]


def _value(options: Any, key: str) -> Any:
    group, _, name = key.rpartition(".")
    return options[group][name] if group else options[name]
