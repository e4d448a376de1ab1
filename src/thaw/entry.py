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
from contextlib import suppress
from pathlib import Path
from string import Template
from typing import Any, cast

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError

from thaw.backbone_names import BACKBONE_NAMES
from thaw.config import Config, register
from thaw.errors import ThawError
from thaw.explain import explain, refuse_unknown

Experiment = Callable[[Config, Path, str], Any]


def run_experiment(
    experiment: Experiment,
    conf: Path,
    close_sweep: Callable[[Path], None] | None = None,
    help_file: str = "help.txt",
    can_resume: bool = True,
) -> None:
    """Run an experiment once, or with `-m` once for each combination, with the options of the command line.

    Every failure is named. Exit code 2 where all of them are the user's to mend, 1 where one is not.

    Args:
        experiment: Called with the checked options, the folder for its results and the command that asked for it.
        conf: Folder of Hydra's files.
        close_sweep: Called with the folder of a sweep when its jobs are done and one at least has not failed.
        help_file: What `--help` prints, in `conf`.
        can_resume: Whether `resume=RUN` stands for the options of RUN.
    """
    show_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # else Hydra prints what it likes and exits 1
    failures: list[tuple[str, Exception]] = []
    results: list[Any] = []

    def job(values: DictConfig) -> Any:
        context = HydraConfig.get()
        folder, overrides = Path(os.path.relpath(context.runtime.output_dir)), list(context.overrides.task)
        try:
            config = _accept(values)
            results.append(experiment(config, folder, shlex.join(["python", Path(sys.argv[0]).name, *overrides])))
            return results[-1]
        except Exception as error:
            failures.append((" ".join(overrides), error))
            _remove_if_rejected(folder)
            if context.mode == RunMode.MULTIRUN or show_traceback:
                raise
            return None

    try:
        if {"-h", "--help"} & set(sys.argv):
            print(_help(conf, help_file), end="")
            return
        register()
        program = Path(sys.argv[0]).stem
        OmegaConf.register_new_resolver("thaw.program", lambda: program, replace=True)
        OmegaConf.register_new_resolver(
            "thaw.suffix", lambda: "" if program == "train" else f"_{program}", replace=True
        )
        if can_resume:
            sys.argv[1:] = expand_resume(sys.argv[1:])
        _check(conf, sys.argv[1:])
        hydra.main(version_base="1.3", config_path=str(conf), config_name="config")(job)()
    except BrokenPipeError:  # `| head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except Exception as error:
        if show_traceback:
            raise
        if not failures:
            failures.append(("", error))
    if HydraConfig.initialized():  # by SweepStart
        sweep = Path(HydraConfig.get().sweep.dir)
        _remove_if_rejected(sweep)
        if results and close_sweep:
            close_sweep(sweep)
    if failures:
        sys.exit(_report(failures, sweep=len(failures) > 1 or "-m" in sys.argv or "--multirun" in sys.argv))


class SweepStart(Callback):
    """Tells where a sweep's folder is: Hydra makes it before it looks whether the choices exist."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Let `HydraConfig` know the sweep, as it knows each job."""
        HydraConfig.instance().set_config(config)


def _check(conf: Path, arguments: list[str]) -> None:
    """Refuse the options of a single run before Hydra makes a folder, sets up logging and composes twice more."""
    if any(argument.startswith(("-", "hydra.mode=")) for argument in arguments):
        return
    with hydra.initialize_config_dir(str(conf), version_base="1.3"), suppress(InterpolationResolutionError):
        _accept(hydra.compose("config", arguments))  # ${hydra:...} is known to the job only


def _accept(values: DictConfig) -> Config:
    """The options as what they are checked to be."""
    refuse_unknown(values)
    return cast(Config, OmegaConf.to_object(values))


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
    """Remove the folder of a job or of a sweep if nothing but Hydra has written to it."""
    log_file = f"{Path(sys.argv[0]).stem}.log"
    if folder.is_dir() and all(path.name in (".hydra", log_file, "multirun.yaml") for path in folder.iterdir()):
        shutil.rmtree(folder, ignore_errors=True)  # another process of the job may be at it


def _help(conf: Path, name: str) -> str:
    """The text of a file with the names filled in that are too many to write down twice."""
    experiments = sorted(path.stem for path in (conf / "experiment").glob("*.yaml"))
    template = Template((conf / name).read_text(encoding="utf-8"))
    return template.substitute(BACKBONES=_fill(BACKBONE_NAMES), EXPERIMENTS=_fill(experiments))


def _fill(names: Iterable[str]) -> str:
    indent = " " * 14
    return textwrap.fill(" ".join(names), 108, initial_indent=indent, subsequent_indent=indent)
