"""A sweep on disk: a folder of jobs, why some failed, and which are left to do. Imports no torch."""

import logging
import os
import re
import shutil
import sys
from collections import defaultdict
from contextlib import ExitStack, suppress
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar, cast

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from thaw.config import Config
from thaw.errors import ThawError, name_some
from thaw.launch.failures import ERROR_LOG, OTHER_RUN, Failure, take_failure
from thaw.options import IRRELEVANT, in_full, is_one_of
from thaw.run import Run
from thaw.writing import locked, replacing

SUBMITIT = ".submitit"
RECORD = "multirun.yaml"
"""Hydra's record of a sweep, with the options that were typed for it."""
STUDY = "study.db"
"""Optuna's, of a search."""
SWEEPERS_OWN = (RECORD, STUDY, SUBMITIT)
LOCK = ".sweep.lock"
"""Of a sweep; a job of it, whose folder may be the same, has another."""
LONGEST_PATH = 40
"""Letters of a path in a folder's name; its end tells most."""
LONGEST_NAME = 240
"""Bytes of a folder's name after the job's number; systems take 255 for both."""


class OutputFolder(Callback):
    """Remembers where the command's results go, whatever becomes of it; Hydra calls it (conf/config.yaml).

    Attributes:
        run: The folder of the run; None in a sweep.
        sweep: The folder of the sweep; None in a single run.
        failed_before: Jobs of the sweep that have failed in an earlier go, as `find_failed` has them.
        claim: Holds the sweep's folder; left when its jobs are done.
    """

    run: Path | None = None
    sweep: Path | None = None
    failed_before: ClassVar[dict[Path, int]] = {}
    claim: ClassVar[ExitStack] = ExitStack()

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Note the run's folder."""
        OutputFolder.run = Path(config.hydra.run.dir)

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Note the sweep's folder and what has failed there, make it with a record, and take it for this sweep.

        Raises:
            SystemExit: Another sweep is writing there, or it is a search that makes no sense.
        """
        sweep = Path(config.hydra.sweep.dir)
        try:
            _refuse_odd_search(config)
            with suppress(OSError):  # Hydra makes it too, and raises what it only warns of here
                sweep.mkdir(parents=True, exist_ok=True)  # a search opens its study there
                refusal = f"Another sweep is writing to {sweep}: wait for it, or set hydra.sweep.dir=FOLDER."
                self.claim.enter_context(locked(sweep / LOCK, refusal))
                if not (sweep / RECORD).exists():  # a search leaves none itself
                    with replacing(sweep / RECORD) as draft:
                        OmegaConf.save(config, draft)
        except ThawError as error:
            failure = Failure.of(error)
            print(failure, file=sys.stderr)
            raise SystemExit(failure.code) from None
        OutputFolder.sweep = sweep
        OutputFolder.failed_before = find_failed(sweep)


def is_finished(run: Run, config: Config) -> bool:
    """True if the job has finished in an earlier go at the sweep.

    Raises:
        ThawError: The folder holds a run with other options.
    """
    if not run.is_started:
        return False
    before, now = in_full(run.config), in_full(asdict(config))
    if now["optimizer.lr"] == "auto":  # the job has written down what it has found
        now["optimizer.lr"] = before["optimizer.lr"]
    pairs = {key: (before.get(key, "null"), now.get(key, "null")) for key in now | before}
    differing = [
        f"{key}={theirs} (here {own})"
        for key, (theirs, own) in pairs.items()
        if theirs != own and not is_one_of(key, IRRELEVANT)
    ]
    if differing:
        raise ThawError(
            f"{run.folder} {OTHER_RUN} {name_some(differing, most=5)}, and stays as it is. To have this job trained, "
            "move that folder away."
        )
    return run.is_finished


def _refuse_odd_search(config: DictConfig) -> None:
    """Refuse a search for nothing, and one for the luckiest seed, fold or split.

    Raises:
        ThawError: It is one.
    """
    if "storage" not in config.hydra.sweeper:  # of a search alone
        return
    overrides = OverridesParser.create().parse_overrides(list(config.hydra.overrides.task))
    searched = {each.key_or_group: each.input_line for each in overrides if each.is_sweep_override()}
    if not searched and not config.hydra.sweeper.params:
        example = "'optimizer.lr=tag(log,interval(1e-4,1e-1))'"
        raise ThawError(f"The search has nothing to search: add options with bounds or choices, such as {example}.")
    params = {key: f"{key}={space}" for key, space in (config.hydra.sweeper.params or {}).items()}
    for key in ("seed", "dataset.fold", "dataset.split_seed"):
        if key in (both := params | searched):
            raise ThawError(
                f"{both[key]} would be searched, too, for the luckiest value. Search with one, then train what is "
                "found with several: -m, without sweep."
            )


def job_name(overrides: str) -> str:
    """What a job's folder is called after its number: its options, shortened and fit for any system.

    Args:
        overrides: The options that tell it from the other jobs, as Hydra joins them.
    """
    plain = re.sub(r"\\([\\()\[\]:={}\s,])", r"\1", overrides)  # Hydra's escapes, as of a blank
    short = re.sub(r"[^,=]*[/\\][^,=]*", lambda path: path[0][-LONGEST_PATH:].strip("'\"/\\."), plain)
    rounded = re.sub(r"\d+\.\d{6,}(e-?\d+)?", lambda drawn: f"{float(drawn[0]):.3g}", short)  # by a search
    if rounded != short:  # what is drawn when the search goes on may round to the same
        rounded += f"~{sha256(short.encode(errors='surrogateescape')).hexdigest()[:4]}"
    name = re.sub(r'[<>:"/\\|?*]+', "-", rounded)
    return os.fsencode(name)[:LONGEST_NAME].decode(errors="ignore")


OmegaConf.register_new_resolver("job_name", job_name, replace=True)  # here, as a launcher's processes load this, too


def find_jobs(sweep: Path) -> list[Path]:
    """Folders of a sweep's jobs, in order of their numbers."""

    def number(job: Path) -> tuple[int, str]:
        name = str(job.relative_to(sweep))
        digits = name.partition("_")[0]
        return (int(digits) if digits.isdigit() else -1, name)

    return sorted((path.parent for path in sweep.rglob(".hydra")), key=number)


def find_failed(sweep: Path) -> dict[Path, int]:
    """Folders of the jobs that have failed, in order of their numbers, and when, in nanoseconds."""
    logs = {job: job / ERROR_LOG for job in find_jobs(sweep)}
    return {job: log.stat().st_mtime_ns for job, log in logs.items() if log.exists()}


def find_failures(sweep: Path, before: dict[Path, int]) -> list[Failure]:
    """Why jobs of a sweep failed that had not failed before, each reason once, in order of their numbers."""
    jobs: defaultdict[str, list[str]] = defaultdict(list)
    for job, when in find_failed(sweep).items():
        if before.get(job) != when:
            overrides = cast(list[str], OmegaConf.to_container(OmegaConf.load(job / ".hydra" / "overrides.yaml")))
            jobs[take_failure(job)].append(" ".join(overrides))
    return [Failure(text, tuple(alike)) for text, alike in jobs.items()]


def is_empty(job: Path) -> bool:
    """True if nothing but Hydra and our logs have been written to a job's folder."""
    log = f"{os.environ.get('THAW_PROGRAM', 'train')}.log"  # as in conf/hydra/job_logging
    return all(path.name in (".hydra", ERROR_LOG, log) for path in job.iterdir())


def remove_if_empty(job: Path) -> None:
    """Remove the folder of a run that came to nothing; what else lies there is the user's own."""
    if is_empty(job):
        for handler in logging.getLogger().handlers:
            if isinstance(handler, logging.FileHandler) and Path(handler.baseFilename).parent == job.resolve():
                with suppress(OSError):  # a full disk
                    handler.close()  # Windows removes no open file
        _remove(job)


def remove_if_rejected(sweep: Path) -> None:
    """Remove a sweep's folder if none of its jobs got as far as a result."""
    jobs = find_jobs(sweep)
    others = {path for path in sweep.iterdir() if path.name not in SWEEPERS_OWN} - {*jobs}
    if not others and all((job / ERROR_LOG).exists() and is_empty(job) for job in jobs):
        _remove(sweep)


def _remove(folder: Path) -> None:
    """Remove all that is in a folder and, unless it is `.`, the folder itself."""
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    with suppress(OSError):
        folder.rmdir()
