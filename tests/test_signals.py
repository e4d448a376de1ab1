import os
import pickle
import signal
import subprocess
import sys

import pytest

from thaw.signals import Interrupted, catching_in_python, deferred

PROGRAM = """
import multiprocessing, os, sys, time, weakref
from thaw.signals import catching
def work():
    os.write(1, b"working\\n")
    time.sleep(60)
multiprocessing.set_start_method("fork")
with catching():
    if sys.argv[1] == "alone":
        work()
    elif sys.argv[1] == "callback":
        thing = {1}
        watch = weakref.ref(thing, lambda _: work())
        del thing
        time.sleep(60)
    else:
        worker = multiprocessing.Process(target=work)
        worker.start()
        os.write(1, b"%d\\n" % worker.pid)
        worker.join()
        print("code", worker.exitcode, flush=True)
"""


def start(mode: str = "alone") -> "subprocess.Popen[str]":
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, mode], stdout=pipe, stderr=pipe, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # where the tests run under nohup
    )  # fmt: skip


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_is_the_usual_code(number: int, code: int) -> None:
    process = start()
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(number)
    assert process.communicate()[1] == ""
    assert process.returncode == code


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_in_a_callback_that_swallows_exceptions_is_not_lost(number: int, code: int) -> None:
    process = start("callback")
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(number)
    assert process.communicate(timeout=30)[1] == ""
    assert process.returncode == code


def test_a_signal_that_is_to_be_ignored_is_ignored() -> None:
    seen = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell script's `&` leaves it
    try:
        process = start()
    finally:
        signal.signal(signal.SIGINT, seen)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    process.terminate()
    process.communicate()
    assert process.returncode == 143


def test_a_worker_minds_sigterm_but_not_the_terminals_ctrl_c() -> None:
    process = start("worker")
    assert process.stdout is not None
    lines = {process.stdout.readline().strip() for _ in range(2)}
    pid = next(int(line) for line in lines if line.isdigit())
    os.kill(pid, signal.SIGINT)
    os.kill(pid, signal.SIGTERM)
    assert process.communicate()[0] == "code 143\n"
    assert process.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2])
def test_a_signal_amid_an_import_waits_for_its_end(number: int) -> None:
    """SIGUSR2 is submitit's, which raises too."""
    seen = []
    previous = signal.signal(number, lambda *_: seen.append("handled"))
    try:
        with deferred():
            signal.raise_signal(number)
            seen.append("imported")
    finally:
        signal.signal(number, previous)
    assert seen == ["imported", "handled"]


def test_a_signal_in_a_launchers_worker_reaches_the_sweep_whole() -> None:
    error = pickle.loads(pickle.dumps(Interrupted(signal.SIGTERM)))
    assert (error.number, error.code, error.signal) == (signal.SIGTERM, 143, "SIGTERM")


@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Interrupted)])
def test_in_python_ctrl_c_stays_what_it_is(number: int, error: type[BaseException]) -> None:
    with pytest.raises(error), catching_in_python():
        signal.raise_signal(number)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
