import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from thaw.signals import Interrupted

PROGRAM = """
import multiprocessing, os, sys, time, weakref
from pathlib import Path
from thaw.signals import interruptible
def work():
    os.write(1, b"working\\n")
    time.sleep(60)
multiprocessing.set_start_method("fork")
with interruptible(Path(sys.argv[1])):
    if sys.argv[2] == "alone":
        work()
    elif sys.argv[2] == "callback":
        thing = {1}
        watch = weakref.ref(thing, lambda _: work())
        del thing
        time.sleep(60)
    elif sys.argv[2] == "finished":
        time.sleep(0.02)  # the clock of files is a coarse one
        Path(sys.argv[1], "summary.json").touch()
        work()
    else:
        worker = multiprocessing.Process(target=work)
        worker.start()
        os.write(1, b"%d\\n" % worker.pid)
        worker.join()
        print("code", worker.exitcode, flush=True)
"""


def start(folder: Path, mode: str = "alone") -> "subprocess.Popen[str]":
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", PROGRAM, str(folder), mode], stdout=pipe, stderr=pipe, text=True)


@pytest.mark.parametrize(("number", "name", "code"), [(signal.SIGINT, "Ctrl-C", 130), (signal.SIGTERM, "SIGTERM", 143)])
def test_a_signal_is_one_line_and_the_usual_code(tmp_path: Path, number: int, name: str, code: int) -> None:
    process = start(tmp_path)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(number)
    assert process.communicate()[1] == f"Ended by {name} before an epoch was saved in {tmp_path}: start anew.\n"
    assert process.returncode == code


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_in_a_callback_that_swallows_exceptions_is_not_lost(tmp_path: Path, number: int, code: int) -> None:
    process = start(tmp_path, "callback")
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(number)
    assert len(process.communicate(timeout=30)[1].splitlines()) == 1
    assert process.returncode == code


def test_the_line_says_how_to_go_on_where_there_is_a_checkpoint(tmp_path: Path) -> None:
    folder = tmp_path / "my runs"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "last.ckpt").touch()
    process = start(folder)
    assert process.stdout is not None
    process.stdout.readline()
    process.terminate()
    assert process.communicate()[1] == (
        f"Ended by SIGTERM. To go on from the last saved epoch: python -c 'resume={folder}'\n"
    )


def test_a_training_that_is_over_is_not_to_be_gone_on_with(tmp_path: Path) -> None:
    process = start(tmp_path, "finished")
    assert process.stdout is not None
    process.stdout.readline()
    process.terminate()
    assert process.communicate()[1] == (
        f"Ended by SIGTERM after the training: all of it is saved. Next: thaw report {tmp_path}\n"
    )


def test_a_summary_of_before_is_not_this_trainings(tmp_path: Path) -> None:
    (tmp_path / "summary.json").touch()
    os.utime(tmp_path / "summary.json", (0, 0))
    process = start(tmp_path)
    assert process.stdout is not None
    process.stdout.readline()
    process.terminate()
    assert "before an epoch was saved" in process.communicate()[1]


def test_a_signal_that_is_to_be_ignored_is_ignored(tmp_path: Path) -> None:
    seen = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell script's `&` leaves it
    try:
        process = start(tmp_path)
    finally:
        signal.signal(signal.SIGINT, seen)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    process.terminate()
    assert process.communicate()[1].startswith("Ended by SIGTERM")


def test_a_worker_minds_sigterm_but_not_the_terminals_ctrl_c(tmp_path: Path) -> None:
    process = start(tmp_path, "worker")
    assert process.stdout is not None
    lines = {process.stdout.readline().strip() for _ in range(2)}
    pid = next(int(line) for line in lines if line.isdigit())
    os.kill(pid, signal.SIGINT)
    os.kill(pid, signal.SIGTERM)
    assert process.communicate()[0] == "code 143\n"
    assert process.returncode == 0


def test_a_signal_in_a_launchers_worker_reaches_the_sweep_whole() -> None:
    error = pickle.loads(pickle.dumps(Interrupted(signal.SIGTERM)))
    assert (error.number, error.code, error.signal) == (signal.SIGTERM, 143, "SIGTERM")
