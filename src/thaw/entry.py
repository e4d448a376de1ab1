"""The way from a command line to an experiment: Hydra composes, the options are checked, every mistake is explained.

Imports no torch: a mistake in the options answers at once.
"""

import gc
import logging
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from thaw.command_line import understand
from thaw.composing import accept
from thaw.config import Config, register
from thaw.data.places import data_name
from thaw.errors import ThawError
from thaw.help import help_text
from thaw.overrides import quoted, seen_from
from thaw.processes import STARTED_BY_THAW, Place, ProcessError, count_processes, find_place, start_processes
from thaw.resume import as_begun
from thaw.run import Run, typed_overrides
from thaw.signals import Interrupted, catching, interruptible
from thaw.sweep import (
    ERROR_LOG,
    Failure,
    JobError,
    OutputFolder,
    find_failed,
    find_failures,
    find_jobs,
    is_finished,
    objective,
    record_failure,
    remove_if_empty,
    remove_if_rejected,
)
from thaw.writing import claimed

log = logging.getLogger(__name__)

Experiment = Callable[[Config, Path, str], Any]

SECONDS_TO_SPEAK = 10
"""What the first of several processes has to name a mistake that all have found: torchrun ends it with any other."""


@catching(to_the_end=True)
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
    place, is_started_by_thaw = Place(), STARTED_BY_THAW in os.environ
    show_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1" and not is_started_by_thaw
    os.environ["HYDRA_FULL_ERROR"] = "1"  # else Hydra prints what it likes and exits 1
    os.environ.setdefault("SQLALCHEMY_SILENCE_UBER_WARNING", "1")  # Optuna 2 is bound to SQLAlchemy 1.4
    failures: list[Failure] = []
    ended_by: Interrupted | None = None
    try:
        if {"-h", "--help"} & set(sys.argv):
            print(help_text(conf / help_file), end="")
            return
        try:
            place = find_place()
            _introduce()
            sys.argv[1:], skip_finished = understand(sys.argv[1:], conf, place, can_resume)
            job = _make_job(experiment, Path(sys.argv[0]).absolute(), skip_finished, show_traceback, failures)
            hydra.main(version_base="1.3", config_path=str(conf), config_name="config")(job)()
        except BrokenPipeError:
            raise
        except JobError:  # more of them than the search puts up with; their folders tell why
            pass
        except Exception as error:
            if show_traceback:
                raise
            failures.append(Failure.of(error))
        if place.is_alone:
            failures = _close(OutputFolder.run, OutputFolder.sweep, close_sweep) + failures
    except BrokenPipeError:  # `| head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except (KeyboardInterrupt, Interrupted) as error:
        ended_by = error if isinstance(error, Interrupted) else Interrupted(signal.SIGINT)
        if OutputFolder.sweep is None:  # outside a job there is nothing to say, and a job has said it
            sys.exit(ended_by.code)
        failures = find_failures(OutputFolder.sweep, OutputFolder.failed_before)
    for failure in failures if place.rank == 0 else ():
        print(failure, file=sys.stderr)
    if failures and place.rank > 0:
        time.sleep(SECONDS_TO_SPEAK)
    if OutputFolder.sweep is not None and OutputFolder.sweep.exists() and (failures or ended_by):
        goal = f"Ended by {ended_by.signal}. To go on" if ended_by else "To retry what failed"
        option = shlex.quote(f"sweep.resume={OutputFolder.sweep}")
        print(f"{goal}: the same command and {option}", file=sys.stderr)
    if ended_by:
        sys.exit(ended_by.code)
    if failures:
        sys.exit(2 if all(failure.is_mistake for failure in failures) else 1)


def _introduce() -> None:
    """Tell Hydra of our options, and what conf/config.yaml refers to."""
    register()
    OmegaConf.register_new_resolver("data_name", data_name, replace=True)
    os.environ["THAW_PROGRAM"] = program = Path(sys.argv[0]).stem  # in each job's process, too
    os.environ["THAW_SUFFIX"] = "" if program == "train" else f"_{program}"


def _make_job(
    experiment: Experiment, script: Path, skip_finished: bool, show_traceback: bool, failures: list[Failure]
) -> Callable[[DictConfig], Any]:
    """What Hydra calls for each job: in this process or, by a launcher, in another one on whatever machine."""

    def job(values: DictConfig) -> Any:
        folder, place = seen_from(Path(), Path(HydraConfig.get().runtime.output_dir)), find_place()
        if place.rank > 0:
            logging.disable(logging.WARNING)  # the first process says it
        try:
            lock = claimed(folder)
        except ThawError as error:  # nothing is to be written there, so no error.log
            if show_traceback or HydraConfig.get().mode == RunMode.MULTIRUN:
                raise
            failures.append(Failure.of(error))
            return None
        is_sweep = HydraConfig.get().mode == RunMode.MULTIRUN  # it is the sweep that is gone on with
        with lock, interruptible(folder, place.speaks_for_all and not is_sweep):
            return attempt(values, folder, place, lock)

    def attempt(values: DictConfig, folder: Path, place: Place, lock: ExitStack) -> Any:
        context = HydraConfig.get()
        overrides = typed_overrides()
        if place.speaks_for_all:
            (folder / ERROR_LOG).unlink(missing_ok=True)
        try:
            config, run = accept(values), Run(folder)
            if config.resume:
                config = accept(as_begun(values, Run(config.resume)))
            if skip_finished and is_finished(run, config):
                log.info("Finished already.")
                return objective(run.summary)
            if skip_finished and run.last.exists():
                config.resume = str(folder)
                overrides.append(f"resume={quoted(folder)}")
            if place.is_alone and (number := count_processes(config.trainer)) > 1:
                if config.sweep.prune:
                    raise ThawError("sweep.prune=true cannot stop a trial of several processes: set sweep.prune=false.")
                lock.close()  # the first of them takes it
                start_processes(number, [str(script), *overrides, f"hydra.run.dir={quoted(folder)}"])
                return objective(run.summary) if run.is_finished else None
            typed = [each for each in overrides if not each.startswith("resume=")]  # its options stand there in full
            return experiment(config, folder, shlex.join(["python", script.name, *typed]))
        except Exception as error:
            if isinstance(error, ProcessError) and error.was_silent:
                (folder / ERROR_LOG).unlink(missing_ok=True)  # of the others, who miss it
            try:
                is_first = record_failure(folder, error)
            except OSError:  # better said than written down
                if show_traceback or context.mode == RunMode.MULTIRUN:
                    raise error from None
                failures.append(Failure.of(error))
                return None
            if not place.is_alone:
                failure = Failure.of(error)
                if is_first and not place.started_by_thaw:
                    print(failure, file=sys.stderr)
                raise SystemExit(2 if failure.is_mistake else 1) from None
            if context.mode == RunMode.RUN and show_traceback:
                raise
            if context.mode == RunMode.MULTIRUN and "max_failure_rate" in context.sweeper:
                raise JobError(f"{folder} failed.") from None  # for the search, which counts failures
            return None  # raised, it would keep Hydra's basic sweeper from the batches that are left
        finally:
            if context.mode == RunMode.MULTIRUN:
                gc.collect()  # a Trainer and its data refer to each other: all images would stay for some jobs

    return job


def _close(run: Path | None, sweep: Path | None, close_sweep: Callable[[Path], None] | None) -> list[Failure]:
    """Have a sweep summarised, and remove what came to nothing; returns why the run, or jobs of the sweep, failed."""
    if run is not None and (run / ERROR_LOG).exists():
        failure = Failure((run / ERROR_LOG).read_text(encoding="utf-8").rstrip())
        remove_if_empty(run)
        return [failure]
    if sweep is None or not sweep.exists():
        return []
    failures = find_failures(sweep, OutputFolder.failed_before)
    if close_sweep and len(find_failed(sweep)) < len(find_jobs(sweep)):
        try:
            close_sweep(sweep)
        except BrokenPipeError:
            raise
        except Exception as error:
            failures.append(Failure.of(error))
    remove_if_rejected(sweep)
    return failures
