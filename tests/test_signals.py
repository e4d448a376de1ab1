import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import multiprocessing, os, sys, time
from pathlib import Path
from thaw.signals import interruptible
def work():
    os.write(1, b"working\\n")
    time.sleep(60)
multiprocessing.set_start_method("fork")
with interruptible(Path(sys.argv[1])):
    if sys.argv[2] == "alone":
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


def test_a_worker_minds_sigterm_but_not_the_terminals_ctrl_c(tmp_path: Path) -> None:
    process = start(tmp_path, "worker")
    assert process.stdout is not None
    lines = {process.stdout.readline().strip() for _ in range(2)}
    pid = next(int(line) for line in lines if line.isdigit())
    os.kill(pid, signal.SIGINT)
    os.kill(pid, signal.SIGTERM)
    assert process.communicate()[0] == "code 143\n"
    assert process.returncode == 0
