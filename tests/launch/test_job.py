import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import os, sys, time
from thaw.launch.job import interruptible
from thaw.run import Run
run = Run(sys.argv[1])
with interruptible(run):
    if sys.argv[2:] == ["finished"]:
        time.sleep(0.02)  # the clock of files is a coarse one
        run.summary_json.touch()
    os.write(1, b"working\\n")
    time.sleep(60)
"""


def start(folder: Path, *mode: str) -> "subprocess.Popen[str]":
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", PROGRAM, str(folder), *mode], stdout=pipe, stderr=pipe, text=True)


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


def test_a_training_that_is_over_is_not_to_be_gone_on_with(tmp_path: Path) -> None:
    process = start(tmp_path, "finished")
    assert process.stdout is not None
    process.stdout.readline()
    process.terminate()
    assert process.communicate()[1] == (
        f"Ended by SIGTERM after the training: all of it is saved. Next: thaw report {tmp_path}\n"
    )


def test_a_run_that_has_not_gone_on_yet_is_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "summary.json").touch()
    os.utime(tmp_path / "summary.json", (0, 0))
    process = start(tmp_path)
    assert process.stdout is not None
    process.stdout.readline()
    process.terminate()
    assert process.communicate()[1] == f"Ended by SIGTERM before an epoch was begun: {tmp_path} is as it was.\n"
