"""Sweeps: what is skipped, retried and continued, and what becomes of jobs in other processes."""

import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from math import isnan
from pathlib import Path

import pytest
import torch
import torchvision

from thaw.config import Config, OptimizerConfig, TrainerConfig
from thaw.errors import ThawError
from thaw.launch import entry
from thaw.launch.failures import Failure, record_failure
from thaw.launch.sweep import find_jobs, is_finished, job_name, remove_if_empty, remove_if_rejected
from thaw.run import Run
from thaw.signals import Interrupted
from thaw.summary import objective

ROOT = Path(__file__).parents[2]
TINY = [
    "backbone=squeezenet1_1",
    "dataset=folder",
    "dataset.image_size=64",
    "trainer=cpu",
    "trainer.precision=32",
    "logger=csv",
]
PARALLEL_EXPERIMENT = f"""
import os
import time
from pathlib import Path
from thaw.launch.entry import run_experiment
from thaw.errors import ThawError

def experiment(config, folder, command):
    import torch

    if config.seed == 3:
        raise ThawError("dataset.root has no images of seed 3.")
    if config.seed == 4:
        raise ZeroDivisionError("a bug of ours")
    (folder / "result.txt").write_text(f"{{os.getpid()}} {{torch.get_num_threads()}}")
    for _ in range(600):  # until the other one is running, too
        if len(list(folder.parent.glob("*/result.txt"))) >= 2:
            return 0.5
        time.sleep(0.1)
    raise TimeoutError

if __name__ == "__main__":
    run_experiment(experiment, Path({str(ROOT / "conf")!r}), lambda sweep: print("closed:", sweep))
"""


def run(script: Path, *overrides: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = os.environ | {"THAW_CACHE": str(cwd / "cache"), "OMP_NUM_THREADS": "1"} | environment
    environment = {name: value for name, value in inherited.items() if value}
    command = [sys.executable, str(script), *overrides]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture
def parallel(tmp_path: Path) -> Path:
    script = tmp_path / "parallel.py"
    script.write_text(PARALLEL_EXPERIMENT)
    return script


# ---- the folder


def test_a_log_is_closed_before_it_is_removed(tmp_path: Path) -> None:
    """Windows removes no open file."""
    handler = logging.FileHandler(tmp_path / "train.log")
    logging.getLogger().addHandler(handler)
    try:
        remove_if_empty(tmp_path)
        assert handler.stream is None
    finally:
        logging.getLogger().removeHandler(handler)
    assert not tmp_path.exists()


def test_a_finished_job_is_known_by_its_options(tmp_path: Path) -> None:
    run, config = Run(tmp_path), Config(optimizer=OptimizerConfig(lr=1e-5))
    assert not is_finished(run, config)
    run.write_config(Config(optimizer=OptimizerConfig(lr=1e-5), resume="elsewhere", figures=False, report=True))
    assert not is_finished(run, config)
    run.write_summary({})
    assert is_finished(run, config)
    with pytest.raises(ThawError, match=r"with optimizer\.lr=1e-05 \(here 0\.003\), seed=0 \(here 1\), and"):
        is_finished(run, Config(seed=1))
    with pytest.raises(ThawError, match=r"holds a run with trainer\.extra\.max_steps=null \(here 3\), and"):
        is_finished(run, replace(config, trainer=TrainerConfig(extra={"max_steps": 3})))


def test_the_rate_that_a_job_has_found_is_the_auto_that_it_was_asked_for(tmp_path: Path) -> None:
    run, config = Run(tmp_path), Config(optimizer=OptimizerConfig(lr="auto"))
    run.write_config(Config(optimizer=OptimizerConfig(lr=0.03)))
    run.write_summary({})
    assert is_finished(run, config)
    with pytest.raises(ThawError, match=r"holds a run with optimizer\.momentum=0\.9 \(here 0\.5\), and"):
        is_finished(run, Config(optimizer=OptimizerConfig(lr="auto", momentum=0.5)))


def test_jobs_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for name in ("10_a", "2_b", "1_c"):
        (tmp_path / name / ".hydra").mkdir(parents=True)
    assert [job.name for job in find_jobs(tmp_path)] == ["1_c", "2_b", "10_a"]


@pytest.mark.parametrize(
    ("monitor", "mode", "value"), [("val/acc", "max", 0.9), ("val/macro_f1", "max", 0.7), ("val/loss", "min", -0.4)]
)
def test_a_search_maximises_the_monitored_metric_of_the_last_epoch(monitor: str, mode: str, value: float) -> None:
    summary = {"val": {"acc": 1.0, "macro_f1": 1.0, "loss": 0.1}, "last": {"acc": 0.9, "macro_f1": 0.7, "loss": 0.4}}
    assert objective(summary | {"monitor_mode": mode}, monitor) == value


@pytest.mark.parametrize(("mode", "value"), [("max", 0.25), ("min", -0.25)])
def test_a_search_knows_which_value_of_a_metric_of_ones_own_is_better(mode: str, value: float) -> None:
    assert objective({"last": {"hinge_loss": 0.25}, "monitor_mode": mode}, "val/hinge_loss") == value
    assert isnan(objective({"last": {"hinge_loss": None}, "monitor_mode": mode}, "val/hinge_loss"))


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ("", ""),
        ("optimizer.lr=0.1,strategy=frozen", "optimizer.lr=0.1,strategy=frozen"),
        ("dataset.root=a/x,seed=1", "dataset.root=a-x,seed=1"),
        ("dataset.root=/data/cats/", "dataset.root=data-cats"),
        ("dataset.root='../my cats/x'", "dataset.root=my cats-x"),
        (r"dataset.root=C:\data\cats.", "dataset.root=C-data-cats"),
        (r"dataset.root=data\ sets/set\ one,seed=1", "dataset.root=data sets-set one,seed=1"),
        (r"dataset.root=a\ b\ \(1\)", "dataset.root=a b (1)"),
        ("backbone.weights=https://host/a.pth?x=1", "backbone.weights=https-host-a.pth-x=1"),
        (f"backbone.weights={'long/' * 50}run/best.ckpt", f"backbone.weights=g-{'long-' * 5}run-best.ckpt"),
        ("+trainer.extra.a={b:1}", "+trainer.extra.a={b-1}"),
        ("optimizer.lr=0.00012611799440372223,seed=1", "optimizer.lr=0.000126,seed=1~9644"),
        ("optimizer.lr=1.083939339967489e-06", "optimizer.lr=1.08e-06~6aae"),
        ("optimizer.lr=0.00025,head.dropout=0.12345", "optimizer.lr=0.00025,head.dropout=0.12345"),
        (f"strategy.name={'n' * 300}", f"strategy.name={'n' * 226}"),
        (f"dataset.classes=[{'犬' * 100}]", f"dataset.classes=[{'犬' * 74}"),
    ],
)
def test_a_jobs_name_is_one_of_a_folder_on_any_system(overrides: str, name: str) -> None:
    assert job_name(overrides) == name


def test_values_that_round_alike_have_folders_of_their_own() -> None:
    assert job_name("head.dropout=0.2049968030313643") != job_name("head.dropout=0.20472105659277803")


@pytest.mark.parametrize(("result", "stays"), [("summary.json", True), ("train.log", False)])
def test_a_sweep_of_rejected_jobs_is_removed(tmp_path: Path, result: str, stays: bool) -> None:
    for name in ("0_a", "1_b"):
        (tmp_path / "sweep" / name / ".hydra").mkdir(parents=True)
        (tmp_path / "sweep" / name / "error.log").touch()
    (tmp_path / "sweep" / "1_b" / result).touch()
    remove_if_rejected(tmp_path / "sweep")
    assert (tmp_path / "sweep").exists() == stays


def test_of_a_rejected_sweep_the_folder_here_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "0_a" / ".hydra").mkdir(parents=True)
    (tmp_path / "0_a" / "error.log").touch()
    monkeypatch.chdir(tmp_path)
    remove_if_rejected(Path())
    assert tmp_path.is_dir()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("is_broken_off", [True, False])
def test_a_sweep_that_a_launcher_leaves_to_slurm_stays(tmp_path: Path, is_broken_off: bool) -> None:
    (tmp_path / "sweep" / ".submitit" / "1_0").mkdir(parents=True)
    assert entry._close(None, tmp_path / "sweep", None, is_broken_off) == []
    assert (tmp_path / "sweep").exists() == is_broken_off


def test_a_failure_that_a_signal_keeps_from_being_told_leaves_no_empty_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(error: BaseException) -> None:
        raise Interrupted(signal.SIGTERM)

    monkeypatch.setattr(Failure, "of", interrupt)
    with pytest.raises(Interrupted):
        record_failure(tmp_path, ValueError())
    assert not (tmp_path / "error.log").exists()


def test_a_mistake_is_told_from_a_bug() -> None:
    assert Failure.of(ThawError("seed must be …")) == Failure("seed must be …")
    assert Failure.of(ThawError("seed must be …")).is_mistake
    try:
        try:
            raise KeyError("first")
        except KeyError as first:
            raise RuntimeError("second") from first
    except RuntimeError as error:
        failure = Failure.of(error)
    assert not failure.is_mistake
    assert failure.text.endswith("RuntimeError: second")


# ---- whole sweeps


@pytest.mark.slow
def test_a_resumed_sweep_skips_the_finished_jobs_and_retries_the_others(image_folder: Path, tmp_path: Path) -> None:
    weights, sweep = tmp_path / "weights.pth", tmp_path / "sweep"
    command = [
        "-m", *TINY, f"dataset.root={image_folder}", "trainer.max_epochs=1", f"backbone.weights=null,{weights}",
    ]  # fmt: skip
    null, file = sweep / "0_backbone.weights=null", sweep / f"1_{job_name(f'backbone.weights={weights}')}"
    first = run(ROOT / "train.py", *command, f"hydra.sweep.dir={sweep}", cwd=tmp_path)
    assert first.returncode == 2
    assert str(weights) in (file / "error.log").read_text()
    assert "sweep.resume=" not in first.stderr  # it would fail again, unless the file comes to be there
    finished = (null / "summary.json").stat()
    torch.save(torchvision.models.squeezenet1_1().state_dict(), weights)
    second = run(ROOT / "train.py", *command, "figures=true", f"sweep.resume={sweep}", cwd=tmp_path)
    assert (second.returncode, second.stderr) == (0, "")
    (line,) = [line for line in second.stdout.splitlines() if line.startswith("Finished already.")]
    assert line == "Finished already. To draw it: thaw report sweep/0_backbone.weights=null"
    assert (null / "summary.json").stat() == finished
    assert not (file / "error.log").exists()
    assert json.loads((file / "summary.json").read_text())["epochs"] == 1
    assert len((sweep / "comparison.csv").read_text().splitlines()) == 1 + 2
    other = run(ROOT / "train.py", *command, "seed=1", f"sweep.resume={sweep}", cwd=tmp_path)
    assert other.returncode == 2
    assert other.stderr.count("goes on with the options that it was started with") == 1
    assert len(find_jobs(sweep)) == 2


@pytest.mark.slow
def test_a_killed_sweep_goes_on_with_the_job_it_was_killed_in(image_folder: Path, tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    command = [
        "-m", *TINY, f"dataset.root={image_folder}", "backbone.weights=null", "strategy=finetune", "seed=1,2",
        "trainer.max_epochs=16", "trainer.checkpoint_seconds=0", "dataset.batch_size=4",
    ]  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *command, f"hydra.sweep.dir={sweep}"],
        cwd=tmp_path, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    metrics, deadline = sweep / "1_seed=2" / "metrics.csv", time.monotonic() + 240
    while not (metrics.exists() and len(metrics.read_text().splitlines()) > 4) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    epochs_done = torch.load(sweep / "1_seed=2" / "checkpoints" / "last.ckpt", weights_only=True)["epoch"] + 1
    assert 3 <= epochs_done < 16
    resumed = run(ROOT / "train.py", *command, f"sweep.resume={sweep}", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    lines = (sweep / "1_seed=2" / "train.log").read_text().splitlines()
    last_begin = max(number for number, line in enumerate(lines) if line.startswith("Weights: "))
    printed = [line.split("|")[0].split()[1] for line in lines[last_begin:] if line.startswith("epoch ")]
    assert printed == [f"{epoch}/16" for epoch in range(epochs_done + 1, 17)]
    assert "epoch 16/16 | " in resumed.stdout
    assert [json.loads(path.read_text())["epochs"] for path in sweep.glob("*/summary.json")] == [16, 16]


@pytest.mark.slow
def test_a_sweep_whose_jobs_find_their_rates_goes_on(image_folder: Path, tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    command = [
        "-m", *TINY, f"dataset.root={image_folder}", "backbone.weights=null", "optimizer.lr=auto",
        "trainer.max_epochs=1", "seed=1,2",
    ]  # fmt: skip
    first = run(ROOT / "train.py", *command, f"hydra.sweep.dir={sweep}", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    (sweep / "1_seed=2" / "summary.json").unlink()
    finished = (sweep / "0_seed=1" / "summary.json").stat()
    second = run(ROOT / "train.py", *command, f"sweep.resume={sweep}", cwd=tmp_path)
    assert (second.returncode, second.stderr) == (0, "")
    assert (sweep / "0_seed=1" / "summary.json").stat() == finished
    assert (sweep / "1_seed=2" / "summary.json").exists()
    assert {path.name for path in sweep.glob("*/figures/*")} == {"learning_rate.png"}


@pytest.mark.slow
@pytest.mark.parametrize(("number", "name", "code"), [(signal.SIGINT, "Ctrl-C", 130), (signal.SIGTERM, "SIGTERM", 143)])
@pytest.mark.parametrize("launcher", ["basic", "joblib"])
def test_a_signal_ends_the_sweep_with_its_failures_and_how_to_go_on(
    tmp_path: Path, parallel: Path, number: int, name: str, code: int, launcher: str
) -> None:
    if launcher == "joblib":
        pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    process = subprocess.Popen(
        [sys.executable, str(parallel), "-m", f"hydra/launcher={launcher}", "seed=3,1", "hydra.sweep.dir=sweep"],
        cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("sweep/*/result.txt")) or not list(tmp_path.glob("sweep/*/error.log")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(number)
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == code
    # joblib's resource tracker, a process of its own, may find that a semaphore was left, or is gone.
    tracker = re.compile(r"^.*resource_tracker\.py.*\n  warnings\.warn.*\n", flags=re.MULTILINE)
    assert tracker.sub("", errors) == (
        "Failed: seed=3\n  dataset.root has no images of seed 3.\n"
        f"Ended by {name}. To go on: the same command and sweep.resume=sweep\n"
    )


# ---- launchers: jobs in other processes


@pytest.mark.slow
def test_joblib_runs_two_jobs_at_once_and_shares_the_threads(tmp_path: Path, parallel: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    done = run(
        parallel, "-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "dataset.root=a/x,b/y", "seed=1,3,4",
        "hydra.sweep.dir=sweep", cwd=tmp_path, OMP_NUM_THREADS="",
    )  # fmt: skip
    assert done.returncode == 1
    jobs = find_jobs(tmp_path / "sweep")
    assert [job.name for job in jobs[:4:3]] == ["0_dataset.root=a-x,seed=1", "3_dataset.root=b-y,seed=1"]
    results = [(job / "result.txt").read_text().split() for job in jobs[:4:3]]
    assert len({pid for pid, _ in results}) == 2
    assert {int(threads) for _, threads in results} == {max(1, len(os.sched_getaffinity(0)) // 2)}
    assert done.stdout.count("closed: sweep\n") == 1
    for seed, reason in ((3, "dataset.root has no images of seed 3.\n"), (4, "Traceback (most recent call last):\n")):
        assert f"Failed: dataset.root=a/x seed={seed}\nFailed: dataset.root=b/y seed={seed}\n  {reason}" in done.stderr
    assert "ZeroDivisionError: a bug of ours" in (jobs[2] / "error.log").read_text()


@pytest.mark.slow
def test_submitit_runs_each_job_in_a_process_of_its_own(tmp_path: Path, parallel: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    done = run(
        parallel, "-m", "hydra/launcher=submitit_local", "dataset.root=a/x,b/y", "seed=1,3", "hydra.sweep.dir=sweep",
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 2
    jobs = find_jobs(tmp_path / "sweep")
    assert [job.name for job in jobs[::2]] == ["0_dataset.root=a-x,seed=1", "2_dataset.root=b-y,seed=1"]
    assert len({(job / "result.txt").read_text().split()[0] for job in jobs[::2]}) == 2
    assert done.stdout.count("closed: sweep\n") == 1
    assert "Failed: dataset.root=b/y seed=3\n  dataset.root has no images of seed 3.\n" in done.stderr


@pytest.mark.slow
def test_two_processes_end_up_with_the_runs_of_one(image_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    command = [
        "-m", *TINY, f"dataset.root={image_folder}", "backbone.weights=null", "trainer.max_epochs=2", "seed=1,2",
    ]  # fmt: skip
    others: list[list[str]] = [[], ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]]
    for name, launcher in zip(("one", "two"), others, strict=True):
        done = run(ROOT / "train.py", *command, *launcher, f"hydra.sweep.dir={tmp_path / name}", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    for job in ("0_seed=1", "1_seed=2"):
        one, two = (json.loads((tmp_path / name / job / "summary.json").read_text()) for name in ("one", "two"))
        assert one["last"] == two["last"]
    assert (tmp_path / "two" / "comparison.csv").exists()
    assert not list(tmp_path.glob("*/*/figures/*"))
