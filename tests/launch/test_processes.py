import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from thaw.config import TrainerConfig
from thaw.errors import ThawError
from thaw.launch.processes import ProcessError, count_processes, start_processes


def test_there_is_a_process_for_each_device() -> None:
    assert count_processes(TrainerConfig()) == 1
    assert count_processes(TrainerConfig(devices=3)) == 3
    assert [count_processes(TrainerConfig(devices=gpus)) for gpus in ([5], [1, 3])] == [1, 2]
    assert count_processes(TrainerConfig(accelerator="cpu", distribution="ddp")) == 1
    with pytest.raises(ThawError, match=r"num_nodes=2.*torchrun"):
        count_processes(TrainerConfig(num_nodes=2))


PROGRAM = """
import os, sys, time
rank = os.environ["RANK"]
open(sys.argv[1] + "/" + rank, "w").write(" ".join(os.environ[name] for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE")))
if sys.argv[2] == rank:
    os.kill(os.getpid(), 9) if sys.argv[3] == "killed" else os._exit(int(sys.argv[3]))
elif sys.argv[2] != "none":
    time.sleep(60)
"""


SAVES_FIRST = """
import os, signal, sys, time
told = sys.argv[1] + "/told" + os.environ["RANK"]
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143) if os.path.exists(told) else open(told, "w").close())
open(sys.argv[1] + "/" + os.environ["RANK"], "w").close()
time.sleep(60)
"""
LAUNCHER = f"""
import sys
from thaw.launch.processes import start_processes
start_processes(2, ["-c", {SAVES_FIRST!r}, sys.argv[1]])
"""


@pytest.mark.slow
def test_a_signal_is_passed_on_and_so_is_a_second_one(tmp_path: Path) -> None:
    launcher = subprocess.Popen([sys.executable, "-c", LAUNCHER, str(tmp_path)])
    wait_until(lambda: {"0", "1"} <= {path.name for path in tmp_path.iterdir()})
    processes = psutil.Process(launcher.pid).children()
    launcher.terminate()
    wait_until(lambda: {"told0", "told1"} <= {path.name for path in tmp_path.iterdir()})
    assert launcher.poll() is None  # they may save
    launcher.terminate()
    try:
        assert launcher.wait(30) == 143
        assert not any(process.is_running() for process in processes)
    finally:
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        launcher.kill()


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("failing", "how", "message"),
    [
        ("none", "", None),
        ("1", "killed", "Process 1 of 2 was killed by SIGKILL, and the others have been ended"),
        ("0", "1", "Process 0 of 2 has failed with exit code 1; what it said stands above"),
        ("1", "3", "Process 1 of 2 has ended with exit code 3 and said nothing"),
    ],
)
def test_processes_are_started_and_end_together(tmp_path: Path, failing: str, how: str, message: str | None) -> None:
    arguments = ["-c", PROGRAM, str(tmp_path), failing, how]
    if message is None:
        start_processes(2, arguments)
    else:
        with pytest.raises(ProcessError, match=message) as error:
            start_processes(2, arguments)
        assert error.value.was_silent == (how != "1")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"0": "2 2", "1": "2 2"}
