"""The way from a command line to an experiment: Hydra composes, the options are checked, every mistake is explained.

Imports no torch: a mistake in the options answers at once.
"""

import os
import shlex
import shutil
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from string import Template
from typing import Any, cast

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from thaw.backbone_names import BACKBONE_NAMES
from thaw.config import Config, register
from thaw.errors import ThawError
from thaw.explain import explain, refuse_unknown

Experiment = Callable[[Config, Path, str], Any]


def run_experiment(experiment: Experiment, conf: Path, close_sweep: Callable[[Path], None]) -> None:
    """Run an experiment once, or with `-m` once for each combination, with the options of the command line.

    Every failure is named. Exit code 2 where all of them are the user's to mend, 1 where one is not.

    Args:
        experiment: Called with the checked options, the folder for its results and the command that asked for it.
        conf: Folder of Hydra's files.
        close_sweep: Called with the folder of a sweep when its jobs are done and one at least has not failed.
    """
    show_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # else Hydra prints what it likes and exits 1
    failures: list[tuple[str, Exception]] = []
    sweeps: set[Path] = set()

    def job(values: DictConfig) -> Any:
        context = HydraConfig.get()
        folder, overrides = Path(os.path.relpath(context.runtime.output_dir)), list(context.overrides.task)
        try:
            refuse_unknown(values)
            config = cast(Config, OmegaConf.to_object(values))
            result = experiment(config, folder, shlex.join(["python", Path(sys.argv[0]).name, *overrides]))
            if context.mode == RunMode.MULTIRUN:
                sweeps.add(Path(context.sweep.dir))
            return result
        except Exception as error:
            failures.append((" ".join(overrides), error))
            _remove_if_rejected(folder)
            if context.mode == RunMode.MULTIRUN or show_traceback:
                raise
            return None

    try:
        register()
        _register_help(conf)
        sys.argv[1:] = expand_resume(sys.argv[1:])
        hydra.main(version_base="1.3", config_path=str(conf), config_name="config")(job)()
    except BrokenPipeError:  # `| head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except Exception as error:
        if show_traceback:
            raise
        if not failures:
            failures.append(("", error))
    for sweep in sweeps:
        close_sweep(sweep)
    if failures:
        sys.exit(_report(failures, sweep=len(failures) > 1 or "-m" in sys.argv or "--multirun" in sys.argv))


def expand_resume(arguments: list[str]) -> list[str]:
    """`resume=RUN` as the options that RUN was started with, the same folder, and what stands beside it on the line.

    Raises:
        ThawError: There is nothing to go on from.
    """
    resume = next((argument for argument in arguments if argument.startswith("resume=")), None)
    if resume is None or resume in ("resume=null", "resume="):
        return arguments
    folder = Path(resume.removeprefix("resume="))
    if not (folder / "checkpoints" / "last.ckpt").exists():
        raise ThawError(f"resume={folder} has no checkpoints/last.ckpt to go on from. Name the folder of a run.")
    new_keys = {_key(argument) for argument in arguments}
    if (folder / "summary.json").exists() and "trainer.max_epochs" not in new_keys:
        raise ThawError(f"resume={folder} is finished. To train it for longer, add trainer.max_epochs=N.")
    overrides = folder / ".hydra" / "overrides.yaml"
    if not overrides.exists():
        raise ThawError(f"resume={folder} was not started by train.py: it has no .hydra/overrides.yaml.")
    stored = cast(list[str], OmegaConf.to_container(OmegaConf.load(overrides)))
    kept = [override for override in stored if _key(override) not in new_keys]
    quoted = "'" + str(folder).replace("'", "\\'") + "'"
    others = [argument for argument in arguments if argument is not resume]
    return [*kept, f"hydra.run.dir={quoted}", f"resume={quoted}", *others]


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")


def _report(failures: list[tuple[str, Exception]], sweep: bool) -> int:
    """Print each failure once; returns the exit code."""
    messages = [explain(error) for _, error in failures]
    for (overrides, error), message in zip(failures, messages, strict=True):
        prefix = f"Failed: {overrides}\n  " if sweep and overrides else ""
        text = message or "".join(traceback.format_exception(error))
        print(prefix + text, file=sys.stderr)
    return 2 if all(messages) else 1


def _remove_if_rejected(folder: Path) -> None:
    """Remove a job's folder if nothing but Hydra has written to it, and then the sweep's if nothing else is in it."""
    if all(path.name in (".hydra", "train.log") for path in folder.iterdir()):
        shutil.rmtree(folder)
        if all(path.name == "multirun.yaml" for path in folder.parent.iterdir()) and (
            HydraConfig.get().mode == RunMode.MULTIRUN
        ):
            shutil.rmtree(folder.parent)


def _register_help(conf: Path) -> None:
    """`--help` is conf/help.txt with the names filled in that are too many to write down twice."""

    def text() -> str:
        experiments = sorted(path.stem for path in (conf / "experiment").glob("*.yaml"))
        template = Template((conf / "help.txt").read_text(encoding="utf-8"))
        return template.substitute(BACKBONES=_fill(BACKBONE_NAMES), EXPERIMENTS=_fill(experiments))

    OmegaConf.register_new_resolver("thaw.help", text, replace=True)


def _fill(names: Iterable[str]) -> str:
    indent = " " * 14
    return textwrap.fill(" ".join(names), 108, initial_indent=indent, subsequent_indent=indent)
