"""One job of a command: an experiment in its folder, and what becomes of a failure. Imports no torch."""

import gc
import logging
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from thaw.config import Config
from thaw.errors import ThawError
from thaw.launch.composing import accept
from thaw.launch.failures import ERROR_LOG, Failure, record_failure
from thaw.launch.processes import ProcessError, count_processes, start_processes
from thaw.launch.program import Program
from thaw.launch.resume import as_begun, is_requeued
from thaw.launch.sweep import is_finished
from thaw.overrides import in_sweep, quoted, seen_from_here, typed_overrides
from thaw.ranks import ProcessRank, find_rank
from thaw.run import Run
from thaw.signals import Interrupted, catching
from thaw.summary import objective
from thaw.writing import claimed

log = logging.getLogger(__name__)

Experiment = Callable[[Config, Path, str], Any]


class JobError(ThawError):
    """A job has failed, and why stands in the `error.log` of its folder."""


@dataclass
class Job:
    """What Hydra calls for each job: in this process or, by a launcher, in another one on whatever machine.

    Attributes:
        experiment: Called with the checked options, the folder for its results and the command that asked for it.
        program: The program, for jobs of several processes.
        skip_finished: Whether a job that has finished in an earlier go is left as it is.
        show_traceback: Whether the error of a single run is raised.
        failure: Why a single run has failed, where that could not be left in its folder.
    """

    experiment: Experiment
    program: Program
    skip_finished: bool
    show_traceback: bool
    failure: Failure | None = None

    def __call__(self, values: DictConfig) -> Any:
        """What the experiment returns; None if it failed, for Hydra would print what it likes of an error.

        Raises:
            JobError: To a search, which counts failures. Hydra's basic sweeper would leave out the batches to come.
            Exception: To a sweeper, if the error could not be left in the job's folder.
            SystemExit: This is one of several processes, and has failed.
        """
        context, process = HydraConfig.get(), find_rank()
        folder, is_sweep = seen_from_here(Path(context.runtime.output_dir)), context.mode == RunMode.MULTIRUN
        if process.rank > 0:
            logging.disable(logging.WARNING)  # the first process says it
        speaks = process.speaks_for_all and not is_sweep  # it is the sweep that is resumed
        try:
            with (
                claimed(folder, f"hydra.{'sweep' if is_sweep else 'run'}.dir") as lock,
                interruptible(Run(folder), speaks),
            ):
                return self._record(values, folder, process, lock)
        except JobError:
            if is_sweep and "max_failure_rate" in context.sweeper:
                raise
        except Exception as error:
            if is_sweep or self.show_traceback:
                raise
            self.failure = Failure.of(error)
        finally:
            if is_sweep:
                gc.collect()  # a Trainer and its data refer to each other: all images would stay for some jobs
        return None

    def _record(self, values: DictConfig, folder: Path, process: ProcessRank, lock: ExitStack) -> Any:
        """What the experiment returns, or else why it failed in the folder's `error.log`.

        Raises:
            JobError: It failed.
            Exception: It failed, and that cannot be written down, or the traceback is to be shown.
            SystemExit: It failed in one of several processes.
        """
        if process.speaks_for_all:
            (folder / ERROR_LOG).unlink(missing_ok=True)
        try:
            return self._run(values, folder, process, lock)
        except Exception as error:
            if isinstance(error, ProcessError) and error.was_silent:
                (folder / ERROR_LOG).unlink(missing_ok=True)  # of the others, who miss it
            is_first = record_failure(folder, error)
            if not process.is_alone:
                failure = Failure.of(error)
                if is_first and not process.started_by_thaw:
                    print(failure, file=sys.stderr)
                raise SystemExit(failure.code) from None
            if self.show_traceback and HydraConfig.get().mode == RunMode.RUN:
                raise
            raise JobError(f"{folder} failed.") from None

    def _run(self, values: DictConfig, folder: Path, process: ProcessRank, lock: ExitStack) -> Any:
        """What the experiment returns, or what a search is to know of one that has finished before."""
        config, run, overrides = accept(values), Run(folder), typed_overrides() or []
        if config.resume:
            config = accept(as_begun(values, Run(config.resume), overrides))
        goes_on = self.skip_finished or (is_requeued() and not config.resume)
        if goes_on and is_finished(run, config):
            is_undrawn = any(getattr(config, key) and not run.config[key] for key in ("figures", "report"))
            advice = f" To draw it: {shlex.join(['thaw', 'report', str(folder)])}" if is_undrawn else ""
            log.info(f"Finished already.{advice}")
            return objective(run.summary, config.trainer.monitor)
        if goes_on and run.last.exists():
            config.resume = str(folder)
            overrides.append(f"resume={quoted(folder)}")
        if process.is_alone and (number := count_processes(config.trainer)) > 1:
            if config.sweep.prune:
                raise ThawError("sweep.prune=true cannot stop a trial of several processes: set sweep.prune=false.")
            lock.close()  # the first of them takes it
            if config.figures is None and in_sweep():
                overrides.append("figures=false")  # to them it is a run of its own
            start_processes(number, [*self.program.arguments, *overrides, f"hydra.run.dir={quoted(folder)}"])
            return objective(run.summary, config.trainer.monitor) if run.is_finished else None
        typed = [each for each in overrides if not each.startswith("resume=")]  # its options stand there in full
        return self.experiment(config, folder, shlex.join([*self.program.recorded, *typed]))


@contextmanager
def interruptible(run: Run, speaks: bool = True) -> Iterator[None]:
    """Inside, signals raise `Interrupted`; on its way out one line says how the run goes on.

    Args:
        run: The run.
        speaks: Whether this process prints the line.
    """
    begun = time.time()
    with catching():
        try:
            yield
        except Interrupted as error:
            if speaks:
                print(_advice(error, run, begun), file=sys.stderr)
            raise


def _advice(error: Interrupted, run: Run, begun: float) -> str:
    if run.is_finished:
        if run.summary_json.stat().st_mtime < begun:  # to be trained for longer
            return f"Ended by {error.signal} before an epoch was begun: {run.folder} is as it was."
        command = shlex.join(["thaw", "report", str(run.folder)])
        return f"Ended by {error.signal} after the training: all of it is saved. Next: {command}"
    if run.last.exists():
        command = shlex.join([*Program(Path(sys.argv[0])).typed, f"resume={run.folder}"])
        there = f" (to end there: trainer.max_epochs={epochs} behind it)" if (epochs := run.num_epochs) else ""
        return f"Ended by {error.signal}. To go on from the last saved epoch: {command}{there}"
    return f"Ended by {error.signal} before an epoch was saved in {run.folder}: start anew."
