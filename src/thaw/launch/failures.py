"""Why a command or a job failed: in words, and in the `error.log` of a job's folder. Imports no torch."""

import traceback
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from thaw.launch.explain import explain
from thaw.run import Run
from thaw.signals import Interrupted

ERROR_LOG = "error.log"
OTHER_RUN = "holds a run with"
TRACEBACK = "Traceback (most recent call last)"


@dataclass(frozen=True)
class Failure:
    """Why jobs failed, or the command itself.

    Attributes:
        text: One sentence if it is the user's to fix, else the traceback.
        jobs: What each of the jobs was asked for; empty for the command itself.
    """

    text: str
    jobs: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "\n".join([*(f"Failed: {job}" for job in self.jobs), f"  {self.text}" if self.jobs else self.text])

    @property
    def is_mistake(self) -> bool:
        """True if it is the user's to fix."""
        return TRACEBACK not in self.text

    @property
    def code(self) -> int:
        """The exit code of a process that ends by it."""
        return 2 if self.is_mistake else 1

    @classmethod
    def of(cls, error: BaseException) -> "Failure":
        """What an error comes to."""
        return cls(explain(error) or "".join(traceback.format_exception(error)).rstrip())


def record_failure(job: Path, error: BaseException) -> bool:
    """Keep why a job failed in its folder, where it is found on whichever machine the job has run.

    Returns:
        False if another of its processes has said so first: what follows from that failure is not the reason.

    Raises:
        Exception: The error itself, if it cannot be written down; a full disk may be what failed the job.
        Interrupted: A signal has come first.
    """
    try:
        with (job / ERROR_LOG).open("x", encoding="utf-8", errors="backslashreplace") as file:
            file.write(Failure.of(error).text + "\n")
    except FileExistsError:
        return False
    except (OSError, Interrupted) as end:
        with suppress(OSError):
            (job / ERROR_LOG).unlink()  # it is empty
        if isinstance(end, Interrupted):
            raise
        raise error from None
    return True


def take_failure(job: Path) -> str:
    """Why a job failed; the log goes where the folder holds a run that has not: one finished before, or another one."""
    text = (job / ERROR_LOG).read_text(encoding="utf-8").rstrip()
    if Run(job).is_finished or OTHER_RUN in text:
        (job / ERROR_LOG).unlink()
    return text
