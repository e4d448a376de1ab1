"""The way from a command line to an experiment: Hydra composes, the options are checked, every mistake is explained.

Imports no torch: a mistake in the options answers at once.
"""

import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import hydra
from omegaconf import OmegaConf

from thaw.data.places import data_name
from thaw.launch.composing import register
from thaw.launch.failures import ERROR_LOG, Failure, take_failure
from thaw.launch.help import asked_for, help_text, options_text
from thaw.launch.hydra_arguments import translate
from thaw.launch.job import Experiment, Job, JobError
from thaw.launch.program import Program
from thaw.launch.sweep import (
    SUBMITIT,
    OutputFolder,
    find_failed,
    find_failures,
    find_jobs,
    remove_if_empty,
    remove_if_rejected,
)
from thaw.ranks import STARTED_BY_THAW, ProcessRank, find_rank
from thaw.run import Run
from thaw.signals import Interrupted, catching
from thaw.streams import drop_output

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

    Every failure is named. Exit code 2 where all of them are the user's to fix, 1 where one is not.

    Args:
        experiment: Called with the checked options, the folder for its results and the command that asked for it.
        conf: Folder of Hydra's files.
        close_sweep: Called with the folder of a sweep when its jobs are done and one at least has not failed.
        help_file: What `--help` prints, in `conf`.
        can_resume: Whether `resume=RUN` stands for the options of RUN.
    """
    show_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1" and STARTED_BY_THAW not in os.environ
    process, ended_by, program = ProcessRank(), None, Program(Path(sys.argv[0]))
    try:
        if "--version" in sys.argv:
            print(f"thaw {version('thaw')}")
            return
        if (word := asked_for(sys.argv)) == "":
            print(help_text(conf / help_file, program.is_command), end="")
            return
        try:
            if word:
                print(options_text(word), end="")
                return
            process = find_rank()
            failures = _run_jobs(experiment, program, conf, can_resume, process, show_traceback)
        except Exception as error:
            if show_traceback or isinstance(error, BrokenPipeError):
                raise
            failures = [Failure.of(error)]
        if process.is_alone:
            failures = _close(OutputFolder.run, OutputFolder.sweep, close_sweep, bool(failures)) + failures
    except BrokenPipeError:
        sys.exit(drop_output())
    except (KeyboardInterrupt, Interrupted) as error:
        ended_by = error if isinstance(error, Interrupted) else Interrupted(signal.SIGINT)
        failures = find_failures(OutputFolder.sweep, OutputFolder.failed_before) if OutputFolder.sweep else []
    if code := _tell(failures, ended_by, process):
        sys.exit(code)


def _run_jobs(
    experiment: Experiment, program: Program, conf: Path, can_resume: bool, process: ProcessRank, show_traceback: bool
) -> list[Failure]:
    """Have Hydra run the jobs of the command line; returns why the run failed, where that stands in no folder."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # else Hydra prints what it likes and exits 1
    os.environ.setdefault("SQLALCHEMY_SILENCE_UBER_WARNING", "1")  # Optuna 2 is bound to SQLAlchemy 1.4
    os.environ["THAW_PROGRAM"] = program.name  # for conf/config.yaml, in each job's process
    os.environ["THAW_SUFFIX"] = "" if program.name == "train" else f"_{program.name}"
    OmegaConf.register_new_resolver("data_name", data_name, replace=True)  # for conf/config.yaml
    register()
    sys.argv[1:], skip_finished = translate(sys.argv[1:], conf, process, can_resume)
    job = Job(experiment, program, skip_finished, show_traceback)
    with OutputFolder.claim, suppress(JobError):  # more of them than the search puts up with; their folders tell why
        hydra.main(version_base="1.3", config_path=str(conf), config_name="config")(job)()
    return [job.failure] if job.failure else []


def _close(
    run: Path | None, sweep: Path | None, close_sweep: Callable[[Path], None] | None, is_broken_off: bool
) -> list[Failure]:
    """Have a sweep summarised, and remove what came to nothing; returns why the run, or jobs of the sweep, failed."""
    if run is not None and (run / ERROR_LOG).exists():
        failure = Failure(take_failure(run))
        remove_if_empty(run)
        return [failure]
    if sweep is None or not sweep.is_dir():
        return []
    failures = find_failures(sweep, OutputFolder.failed_before)
    if close_sweep and len(find_failed(sweep)) < len(find_jobs(sweep)):
        try:
            close_sweep(sweep)
        except BrokenPipeError:
            raise
        except Exception as error:
            failures.append(Failure.of(error))
    if not is_broken_off or not (sweep / SUBMITIT).exists():  # its jobs may still run, and what they said lies there
        remove_if_rejected(sweep)
    return failures


def _tell(failures: Sequence[Failure], ended_by: Interrupted | None, process: ProcessRank) -> int:
    """Name the failures, and say how to go on with a sweep; returns the exit code."""
    if process.rank == 0:
        for failure in failures:
            print(failure, file=sys.stderr)
    elif failures:
        time.sleep(SECONDS_TO_SPEAK)
    if OutputFolder.sweep is not None and OutputFolder.sweep.is_dir() and (ended_by or _may_be_retried(failures)):
        goal = f"Ended by {ended_by.signal}. To go on" if ended_by else "To retry what failed"
        option = shlex.quote(f"sweep.resume={OutputFolder.sweep}")
        print(f"{goal}: the same command and {option}", file=sys.stderr)
    if ended_by:
        return ended_by.code
    return min((failure.code for failure in failures), default=0)


def _may_be_retried(failures: Sequence[Failure]) -> bool:
    """True if one of the failures may not come again: a mistake in the options does, and it leaves no epoch saved."""
    failed = find_failed(OutputFolder.sweep) if OutputFolder.sweep and failures else {}
    return any(not failure.is_mistake for failure in failures) or any(Run(job).last.exists() for job in failed)
