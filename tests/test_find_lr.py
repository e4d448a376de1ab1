"""The learning-rate search, end to end, as a user runs it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

ROOT = Path(__file__).parents[1]


def run(program: str, *overrides: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"THAW_CACHE": str(cwd / "cache"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / program), *overrides]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_the_printed_option_trains_as_auto_does(image_folder: Path, tmp_path: Path) -> None:
    options = [
        "backbone=squeezenet1_1", "backbone.weights=null", "dataset=folder", f"dataset.root={image_folder}",
        "dataset.image_size=64", "trainer=cpu", "trainer.precision=32", "trainer.max_epochs=2",
    ]  # fmt: skip
    found = run("find_lr.py", *options, cwd=tmp_path)
    assert (found.returncode, found.stderr) == (0, "")
    option, meaning = re.findall(r"^(optimizer\.lr=\S+) +(\w+):", found.stdout, flags=re.MULTILINE)[0]
    assert meaning == "valley"
    (folder,) = tmp_path.glob("outputs/*_find_lr")
    assert f"The curve is in outputs/{folder.name}/figures/learning_rate.png" in found.stdout
    assert option in (folder / "find_lr.log").read_text()

    auto = run("train.py", *options, "optimizer.lr=auto", "hydra.run.dir=auto", cwd=tmp_path)
    assert auto.returncode == 0, auto.stderr
    assert auto.stdout.count("Range test of the head alone") == 1
    assert f"{option} (steepest: " in auto.stdout

    longer = run("train.py", "resume=auto", "trainer.max_epochs=3", cwd=tmp_path)
    assert longer.returncode == 0, longer.stderr
    assert "Range test" not in longer.stdout
    resumed = OmegaConf.load(tmp_path / "auto" / "config.yaml")
    assert f"optimizer.lr={resumed.optimizer.lr:g}" == option


@pytest.mark.slow
def test_a_sweep_tests_one_combination_after_the_other(image_folder: Path, tmp_path: Path) -> None:
    found = run(
        "find_lr.py", "-m", "optimizer=sgd,adamw", "backbone=squeezenet1_1", "backbone.weights=null", "dataset=folder",
        f"dataset.root={image_folder}", "dataset.image_size=64", "trainer=cpu", "hydra.sweep.dir=both", cwd=tmp_path,
    )  # fmt: skip
    assert (found.returncode, found.stderr) == (0, "")
    assert found.stdout.count(" valley: ") == 2
    assert len(list(tmp_path.glob("both/*/figures/learning_rate.png"))) == 2


@pytest.mark.slow
def test_two_processes_find_one_rate_and_train_with_it(image_folder: Path, tmp_path: Path) -> None:
    done = run(
        "train.py", "optimizer.lr=auto", "strategy=last_stages", "trainer=ddp", "trainer.accelerator=cpu",
        "trainer.devices=2", "trainer.precision=32", "trainer.max_epochs=1", "backbone=squeezenet1_1",
        "backbone.weights=null", "dataset=folder", f"dataset.root={image_folder}", "dataset.image_size=64",
        "find_lr.num_steps=30", "logger=csv", "hydra.run.dir=run", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Range test of ") == 1
    rate = re.findall(r"^optimizer\.lr=(\S+) ", done.stdout, flags=re.MULTILINE)[0]
    assert f"lr head {float(rate):.2g}" in done.stdout


def test_a_run_cannot_be_resumed_by_it(tmp_path: Path) -> None:
    refused = run("find_lr.py", "resume=outputs/run", cwd=tmp_path)
    assert refused.returncode == 2
    assert refused.stderr == "resume=RUN goes on with a training: it is an option of `thaw train`.\n"
    assert list(tmp_path.glob("outputs/*")) == []
