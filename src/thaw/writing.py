"""Files that are whole or not there at all, and a sentence where they cannot be written."""

import os
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from glob import escape
from pathlib import Path
from secrets import token_hex
from typing import Any, TextIO

from filelock import FileLock, Timeout

from thaw.errors import ThawError
from thaw.ranks import writes

ABANDONED = 3600.0
"""Seconds after which nobody writes to a draft any more."""

_claimed: set[Path] = set()
"""Folders of runs that this process is writing to."""


@contextmanager
def drafting(path: Path) -> Iterator[Path]:
    """A draft beside the file, to be written inside; it takes the file's place when it is safely on the disk.

    A process that is killed meanwhile, or a disk that is full, leaves the file as it was. Of several processes that
    write it, the last one's stays. A link stays as well: the file is the one that it leads to. Anything but a plain
    file, such as /dev/stdout, is written to directly.

    Raises:
        OSError: The system refuses to write.
    """
    if path.exists() and not path.is_file():
        yield path
        return
    target = Path(os.path.realpath(path))  # Path.resolve fails where links lead in a circle
    _clear(target)
    draft = target.with_name(f".{target.name}.{token_hex(4)}.part")
    try:
        yield draft
        _sync(draft, os.O_RDWR)
        draft.replace(target)
        if os.name == "posix":
            with suppress(OSError):  # no matter: the file is there, and some mounts sync no folders
                _sync(target.parent, os.O_RDONLY)  # the new name as well
    except OSError as error:
        if error.errno and error.filename in (None, str(draft)):
            error.filename = str(path)  # the name that the user knows
        raise
    finally:
        with suppress(OSError):  # it is not there, or cannot be
            draft.unlink()


@contextmanager
def drafting_csv(path: Path) -> Iterator[TextIO]:
    """`drafting` for the `csv` module; names of files that are not UTF-8 are written as the bytes that they are.

    Raises:
        OSError: The system refuses to write.
    """
    with drafting(path) as draft, draft.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        yield file


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """`drafting` for a file of a run, whose folder is made.

    Raises:
        ThawError: The system refuses to write.
    """
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with drafting(path) as draft:
            yield draft


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turn an OSError into a ThawError that names the file.

    Raises:
        ThawError: The system refuses to write.
    """
    try:
        yield
    except OSError as error:
        raise ThawError(
            f"{path} could not be written: {error.strerror or error}. Earlier checkpoints are whole. Free some "
            "space, or allow writing there, and go on with resume=RUN; hydra.run.dir=FOLDER puts a new run elsewhere."
        ) from error


@contextmanager
def naming_events(folder: Path) -> Iterator[None]:
    """`naming` for TensorBoard's events, which a thread of its own writes.

    On a full disk that thread ends with a traceback, and what is raised later, perhaps as the cause of something else,
    names no file.

    Raises:
        ThawError: The system refuses to write.
    """
    hook = threading.excepthook

    def is_tensorboards(thread: threading.Thread | None) -> bool:
        return type(thread).__module__.startswith("tensorboard.")

    def pass_over(end: Any) -> None:
        """Leave it to the training's own thread, where the exception is raised again."""
        if not is_tensorboards(end.thread):
            hook(end)

    threading.excepthook = pass_over
    try:
        yield
    except Exception as error:
        if (refusal := _refusal_of_tensorboard(error)) is None:
            raise
        for thread in filter(is_tensorboards, threading.enumerate()):
            thread.join(1)  # it may not have come to the hook
        with naming(folder):
            raise refusal from None
    finally:
        threading.excepthook = hook


def _refusal_of_tensorboard(error: BaseException | None) -> OSError | None:
    """The system's refusal among an error and its causes, if it was TensorBoard that was refused."""
    while error is not None:
        modules = [str(frame.f_globals.get("__name__")) for frame, _ in traceback.walk_tb(error.__traceback__)]
        if isinstance(error, OSError) and any("tensorboard" in module for module in modules):
            return error
        error = error.__cause__
    return None


def claimed(folder: Path, option: str = "hydra.run.dir") -> ExitStack:
    """Claim the folder for one run, of one process or several, until the context is left; again, it changes nothing.

    Args:
        folder: The run's; it is made.
        option: The option that names another folder, for the message.

    Raises:
        ThawError: Another run is writing there.
    """
    place = folder.absolute()
    if not writes() or place in _claimed:
        return ExitStack()
    claim = ExitStack()
    if not folder.exists():
        claim.callback(_remove_if_empty, folder)  # a run that was refused leaves nothing
    with naming(folder):
        folder.mkdir(parents=True, exist_ok=True)
        refusal = f"Another run is writing to {folder}: wait for it, or set {option}=FOLDER."
        claim.enter_context(locked(folder / ".lock", refusal))
    _claimed.add(place)
    claim.callback(_claimed.discard, place)
    return claim


def locked(file: Path, refusal: str) -> ExitStack:
    """Hold a lock file for this process until the context is left.

    Raises:
        ThawError: Another one holds it; the text is `refusal`.
        OSError: The system refuses to write.
    """
    held = ExitStack()
    try:
        held.enter_context(FileLock(file, blocking=False))
    except Timeout as error:
        raise ThawError(refusal) from error
    held.callback(_unlink, file)  # before it is let go: later it may be another's
    return held


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def _unlink(path: Path) -> None:
    """Remove a file; one that cannot be stays, as Windows has it with open files, and FileLock removes it there."""
    with suppress(OSError):
        path.unlink()


def _clear(path: Path) -> None:
    """Remove drafts of a file that kills have left; a younger one may be that of another process."""
    for draft in path.parent.glob(f".{escape(path.name)}.{'[0-9a-f]' * 8}.part"):
        with suppress(OSError):  # another process has just removed it, or it cannot be
            if time.time() - draft.stat().st_mtime > ABANDONED:
                draft.unlink()


def _sync(path: Path, flags: int) -> None:
    """Wait until the disk has it."""
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
