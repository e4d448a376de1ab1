import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from thaw.commands import train
from thaw.launch.composing import CONF
from thaw.launch.program import Program
from thaw.run import Run

ROOT = Path(__file__).parents[2]


def test_a_program_is_a_command_or_a_script() -> None:
    command, script = Program(Path(str(train.__file__))), Program(Path("examples/mine.py"))
    assert (command.name, script.name) == ("train", "mine")
    assert (command.typed, script.typed) == (["thaw", "train"], ["python", "examples/mine.py"])
    assert (command.recorded, script.recorded) == (["thaw", "train"], ["python", "mine.py"])
    assert (command.arguments, script.arguments) == (["-m", "thaw.commands.train"], [f"{Path.cwd()}/examples/mine.py"])


def test_the_presets_installed_are_those_at_the_top_of_the_checkout() -> None:
    assert CONF.is_relative_to(ROOT / "src" / "thaw")
    assert CONF.resolve() == ROOT / "conf"


@pytest.mark.slow
def test_a_command_trains_from_any_folder_in_several_processes_and_goes_on(tmp_path: Path, image_folder: Path) -> None:
    def start(*options: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "thaw", "train", *options]
        environment = os.environ | {"THAW_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            command, cwd=tmp_path, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    process = start(
        "dataset=folder", f"dataset.root={image_folder}", "backbone=squeezenet1_1", "backbone.weights=null",
        "strategy=scratch", "dataset.image_size=64", "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2",
        "trainer.max_epochs=1000", "trainer.checkpoint_seconds=0", "hydra.run.dir=run",
    )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("epoch    3/1000"):
            process.send_signal(signal.SIGTERM)
            break
    _, said = process.communicate(timeout=300)
    assert said.splitlines()[-1].startswith("Ended by SIGTERM. To go on from the last saved epoch: thaw train resume=")
    output, said = start("resume=run", "trainer.max_epochs=6", "trainer.devices=1").communicate(timeout=300)
    assert said == ""
    assert output.splitlines()[-2].startswith("Next: thaw report ")
    assert Run(tmp_path / "run").summary["command"].startswith("thaw train dataset=folder ")
