"""Ctrl-C, SIGTERM, SIGUSR1 and SIGHUP as an exception, which ends the program with the usual exit code."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import parent_process, queues
from types import FrameType
from typing import Any

from thaw.streams import outlive_terminal

CAUGHT = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}
LAUNCHERS: list[signal.Signals] = []
"""Signals by which a launcher learns of a time limit or of preemption, where it has set a handler."""
if os.name == "posix":
    CAUGHT[signal.SIGUSR1] = "SIGUSR1"  # which SLURM is often asked to send before the time limit
    CAUGHT[signal.SIGHUP] = "SIGHUP"  # the terminal is closed
    LAUNCHERS.append(signal.SIGUSR2)  # submitit's


class Interrupted(SystemExit):
    """A signal has ended the program; its exit code is 128 and the signal's number, as shells have it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.code: int = 128 + number
        self.number = number
        self.signal = CAUGHT.get(signal.Signals(number), signal.Signals(number).name)


def interrupt(number: int, frame: FrameType | None) -> None:
    """The handler of all of them.

    Raises:
        Interrupted: In the main process, and in a worker but for Ctrl-C. A terminal sends that to the workers too,
            which may still be needed.
    """
    hear_once(number)
    if parent_process() is None or number != signal.SIGINT:
        raise Interrupted(number)


def hear_once(number: int) -> None:
    """Ignore a further SIGHUP, since both the system and a shell send it as a terminal closes."""
    if CAUGHT.get(signal.Signals(number)) == "SIGHUP":
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def catching(to_the_end: bool = False) -> Iterator[None]:
    """Inside, they raise `Interrupted`, also where the exception would be swallowed.

    Args:
        to_the_end: Whether this is all of the program: with everything written, it ignores them while the
            interpreter closes, which takes a moment, and ends with its own exit code. What it prints may go nowhere.
    """
    if to_the_end:
        sys.stdout, sys.stderr = outlive_terminal(sys.stdout), outlive_terminal(sys.stderr)
    if threading.current_thread() is not threading.main_thread():  # only there may signals be handled
        yield
        return
    # A shell script's `&` has Ctrl-C ignored, which is meant for what runs in front.
    heard = [number for number in CAUGHT if signal.getsignal(number) is not signal.SIG_IGN]
    previous = {number: signal.signal(number, interrupt) for number in heard}
    hook = sys.unraisablehook

    def repeat(swallowed: "sys.UnraisableHookArgs") -> None:
        """Send the signal again if the exception was raised in a callback of the interpreter's, which swallows it."""
        if isinstance(swallowed.exc_value, Interrupted):
            signal.signal(swallowed.exc_value.number, interrupt)
            threading.Timer(0.05, os.kill, (os.getpid(), swallowed.exc_value.number)).start()
        else:
            hook(swallowed)

    sys.unraisablehook = repeat
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, signal.SIG_IGN if to_the_end else handler)
        sys.unraisablehook = hook


@contextmanager
def catching_in_python() -> Iterator[None]:
    """As `catching`, where nothing else handles signals, as in a notebook or a script: Ctrl-C is as usual at the end.

    Lightning would make a SystemExit of it, which `except KeyboardInterrupt` misses.

    Raises:
        KeyboardInterrupt: Ctrl-C has ended what is inside.
    """
    pythons_own = (signal.SIG_DFL, signal.SIG_IGN, signal.default_int_handler)
    if any(signal.getsignal(number) not in pythons_own for number in CAUGHT):
        yield
        return
    try:
        with catching():
            yield
    except Interrupted as error:
        if error.number != signal.SIGINT:
            raise
        raise KeyboardInterrupt from None


def outlive(worker: int) -> None:
    """Leave the signals to the main process, which needs this loader process to finish the epoch.

    A terminal and SLURM send them to every process of a job. The main process itself ends its workers by SIGTERM, as it
    does when its interpreter closes. A batch that cannot be handed over ends this process, too: Python would print a
    traceback, drop the batch, and have the main process wait for it.
    """
    tells_sender = sys.platform == "linux"
    for number in CAUGHT if tells_sender else CAUGHT.keys() - {signal.SIGTERM}:
        signal.signal(number, signal.SIG_IGN)
    if tells_sender:  # a blocked signal waits for `sigwaitinfo`, although it is ignored
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_obey_parent, daemon=True).start()
    queues.Queue._on_queue_feeder_error = staticmethod(_end_worker)  # type: ignore[attr-defined]


def _obey_parent() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)


def _end_worker(error: Exception, batch: Any) -> None:
    os.write(2, f"A batch cannot be handed over: {error}\n".encode(errors="replace"))
    os._exit(1)


@contextmanager
def deferred() -> Iterator[None]:
    """Inside, a signal waits for the end; a second one ends the program at once.

    Amid an import the exception would abort the program where C++ initialises a module, or be taken for a module that
    is not there, and the program would go on with half of another one.
    """
    come: list[int] = []

    def wait(number: int, frame: FrameType | None) -> None:
        if come:
            os._exit(128 + number)
        come.append(number)

    heard = (*CAUGHT, *LAUNCHERS)
    handlers = {number: handler for number in heard if callable(handler := signal.getsignal(number))}
    if threading.current_thread() is not threading.main_thread():
        handlers.clear()
    for number in handlers:
        signal.signal(number, wait)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if come:
            signal.raise_signal(come[0])
