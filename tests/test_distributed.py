"""Two processes give what one gives, fail and stop as one, and are started once for each job of a sweep."""

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import cast

import hydra
import numpy as np
import psutil
import pytest
import torch
import torchvision
from omegaconf import OmegaConf
from PIL import Image
from torch import Tensor

from thaw.config import Config
from thaw.launch.composing import register
from thaw.run import Run
from thaw.training.train import train

pytestmark = pytest.mark.slow

Launch = Callable[..., "subprocess.Popen[str]"]

ROOT = Path(__file__).parents[1]
TRAIN = ROOT / "train.py"
STRATEGIES = sorted(path.stem for path in (ROOT / "conf" / "strategy").glob("*.yaml"))
TWO = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]
ONE = ["trainer=cpu"]
NUM_TRAIN, NUM_VAL = 17, 9
"""The last step has one image, for the first process; the second process has one validation image less."""

# Dropout, which SqueezeNet has in its last stage, draws its masks in each process for its own images.
# FAIL="EPOCH RANKS HOW" has processes fail at the start of an epoch.
WITHOUT_DROPOUT = f"""
import os
from pathlib import Path
from thaw.commands import train
from thaw.launch.entry import run_experiment
from thaw.importing import heavy_imports

def experiment(*arguments):
    with heavy_imports():
        import torch
        from thaw.model.classifier import Classifier
    begin = Classifier.on_train_epoch_start

    def begin_or_fail(self):
        begin(self)
        epoch, ranks, how = os.environ.get("FAIL", "- - -").split()
        if str(self.current_epoch) == epoch and os.environ.get("RANK", "0") in ranks:
            if how == "raise":
                raise ZeroDivisionError("a mistake of its own")
            os._exit(int(how))

    Classifier.on_train_epoch_start = begin_or_fail
    torch.nn.Dropout.forward = lambda self, features: features
    return train.experiment(*arguments)

run_experiment(experiment, Path({str(ROOT / "conf")!r}), train.close_sweep)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """17 training and 9 validation images of two classes, two networks' random weights and programs."""
    folder = tmp_path_factory.mktemp("distributed")
    generator = np.random.default_rng(0)
    for split, number in (("train", NUM_TRAIN), ("val", NUM_VAL)):
        for index in range(number):
            path = folder / "images" / split / ("dark", "light")[index % 2] / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = generator.normal((90, 160)[index % 2], 60, (72, 72, 3))
            Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(path)
    torch.manual_seed(0)
    for name in ("squeezenet1_1", "resnet18"):
        torch.save(torchvision.models.get_model(name, weights=None).state_dict(), folder / f"{name}.pth")
    (folder / "without_dropout.py").write_text(WITHOUT_DROPOUT)
    return folder


def command(folder: Path, script: Path, *overrides: str) -> list[str]:
    defaults = [
        "dataset=folder", f"dataset.root={folder / 'images'}", "dataset.batch_size=16", "dataset.image_size=64",
        "dataset.num_workers=0", "backbone=squeezenet1_1", f"backbone.weights={folder / 'squeezenet1_1.pth'}",
        "trainer.precision=32", "logger=csv", "figures=false",
    ]  # fmt: skip
    flags = [each for each in overrides if each.startswith("-")]
    return [sys.executable, str(script), *flags, *defaults, *(each for each in overrides if each not in flags)]


def start(folder: Path, script: Path, *overrides: str, **options: object) -> "subprocess.Popen[str]":
    environment = os.environ | {"THAW_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(  # type: ignore[call-overload,no-any-return]
        command(folder, script, *overrides), cwd=folder, env=environment, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, **options,
    )  # fmt: skip


@pytest.fixture
def launch(folder: Path) -> Iterator[Launch]:
    """Starts `train.py`, and ends it and its processes after the test."""
    started: list[subprocess.Popen[str]] = []

    def launch(*overrides: str, **options: object) -> "subprocess.Popen[str]":
        started.append(start(folder, TRAIN, *overrides, **options))
        return started[-1]

    yield launch
    for launcher in started:
        if launcher.poll() is None:
            for process in [*psutil.Process(launcher.pid).children(recursive=True), launcher]:
                process.kill()
            launcher.communicate()


def train_alone(folder: Path, target: Path, *overrides: str) -> None:
    """What one process gives: the tests' own, which needs no start."""
    train_here(folder, target, *overrides, *ONE)


def train_here(folder: Path, target: Path, *overrides: str) -> None:
    """Train in this process, without dropout."""
    register()
    options = command(folder, TRAIN, *overrides)[2:]
    with pytest.MonkeyPatch.context() as patch, hydra.initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        patch.setattr(torch.nn.Dropout, "forward", lambda self, features: features)
        patch.setenv("THAW_CACHE", str(folder / "cache"))
        train(cast(Config, OmegaConf.to_object(hydra.compose("config", options))), target)


def train_together(folder: Path, target: Path, *overrides: str) -> None:
    """What two processes give; they come from one that has imported all, which is what most of a start takes."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["thaw.training.train"])
    ranks = torchrun_variables()
    processes = [context.Process(target=train_as, args=(rank, folder, target, *overrides)) for rank in ranks]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
    assert [process.exitcode for process in processes] == [0, 0]


def torchrun_variables() -> list[dict[str, str]]:
    """The variables that torchrun gives to each of two processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    common |= {"GROUP_RANK": "0", "TORCHELASTIC_RUN_ID": "test"}
    return [{**common, "RANK": rank, "LOCAL_RANK": rank} for rank in ("0", "1")]


def train_as(rank: dict[str, str], folder: Path, target: Path, *overrides: str) -> None:
    """One of them."""
    os.environ.update(rank)
    train_here(folder, target, *overrides, *TWO)


def run(folder: Path, script: Path, *overrides: str, code: int = 0) -> tuple[str, str]:
    process = start(folder, script, *overrides)
    output, errors = process.communicate(timeout=500)
    assert process.returncode == code, errors
    return output, errors


def state_of(path: Path) -> dict[str, Tensor]:
    state: dict[str, Tensor] = torch.load(path, weights_only=True)["state_dict"]
    return state


def assert_same_weights(first: Path, second: Path, rtol: float = 1e-5, atol: float = 1e-6) -> None:
    """float32 carries 7 digits; sums over images in another order change the last one, in each of some ten steps."""
    one, two = (state_of(path / "checkpoints" / "last.ckpt") for path in (first, second))
    torch.testing.assert_close(two, one, rtol=rtol, atol=atol)


# ---- the same result

PHASES = ["strategy.head_epochs=1", "strategy.unfreeze_epochs=2"]
OPTIONS = {
    "probe": [],
    "discriminative": [PHASES[0], "trainer.max_epochs=3"],
    "gradual": [*PHASES, "trainer.max_epochs=4"],
}


RESNET = ["backbone=resnet18", "trainer.precision=64"]
"""BatchNorm, at 16 digits, of which training amplifies a difference in the last less than float32 would."""


@pytest.mark.parametrize(
    ("strategy", "network"),
    [*((strategy, []) for strategy in STRATEGIES), *((each, RESNET) for each in ("finetune", "frozen", "gradual"))],
)
def test_two_processes_end_with_the_weights_and_figures_of_one(
    folder: Path, tmp_path: Path, strategy: str, network: list[str]
) -> None:
    options = [
        f"strategy={strategy}",
        *OPTIONS.get(strategy, ["trainer.max_epochs=3"]),
        *with_weights(folder, network),
        "dataset.balance=loss",
        "optimizer.lr=1e-3",
    ]
    one, two = (Run(tmp_path / name) for name in ("one", "two"))
    train_alone(folder, one.folder, *options)
    train_together(folder, two.folder, *options)
    if network:
        assert_same_weights(one.folder, two.folder, rtol=1e-9, atol=1e-11)
    else:
        assert_same_weights(one.folder, two.folder)
    for split in ("val", "last"):
        ours, theirs = two.summary[split], one.summary[split]
        assert (ours["n"], ours["acc"], ours["macro_f1"]) == (NUM_VAL, theirs["acc"], theirs["macro_f1"])
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
    assert two.summary["best_epoch"] == one.summary["best_epoch"]
    if strategy != "probe":
        assert_same_metrics(one, two)


def with_weights(folder: Path, network: list[str]) -> list[str]:
    return [*network, f"backbone.weights={folder / 'resnet18.pth'}"] if network else []


def assert_same_metrics(one: Run, two: Run) -> None:
    for ours, theirs in zip(two.metrics, one.metrics, strict=True):
        for name in ("train/acc", "train/macro_f1", "val/acc", "val/macro_f1"):
            assert ours[name] == theirs[name]
        for name in ("train/loss", "val/loss"):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-5)


def test_a_loss_and_metrics_of_ones_own_are_those_of_all_images(folder: Path, tmp_path: Path) -> None:
    options = [
        "strategy=finetune", "trainer.max_epochs=3", "optimizer.lr=1e-3", "loss={_target_: torch.nn.MultiMarginLoss}",
        "+metrics.auc={_target_: torchmetrics.AUROC}", "+metrics.kappa={_target_: torchmetrics.CohenKappa}",
        "trainer.monitor=val/auc",
    ]  # fmt: skip
    one, two = (Run(tmp_path / name) for name in ("one", "two"))
    train_alone(folder, one.folder, *options)
    train_together(folder, two.folder, *options)
    assert_same_weights(one.folder, two.folder)
    assert_same_metrics(one, two)
    for name in ("auc", "kappa"):
        assert two.summary["last"][name] == pytest.approx(one.summary["last"][name])
        assert two.summary["last"][name] == pytest.approx(two.metrics[-1][f"val/{name}"], rel=1e-5)
    assert two.summary["best_epoch"] == one.summary["best_epoch"]


def test_two_processes_draw_what_one_draws(folder: Path, tmp_path: Path) -> None:
    """In the first epoch for fresh features, in the second as images; some are drawn again, in another view."""
    options = ["strategy=gradual", PHASES[0], "trainer.max_epochs=2", *with_weights(folder, RESNET)]
    options += ["dataset.balance=sampler", "strategy.feature_views=fresh", "optimizer.lr=1e-3"]
    one, two = (Run(tmp_path / name) for name in ("one", "two"))
    train_alone(folder, one.folder, *options)
    train_together(folder, two.folder, *options)
    assert_same_weights(one.folder, two.folder, rtol=1e-9, atol=1e-11)
    assert_same_metrics(one, two)


@pytest.mark.parametrize("numbers", [(1, 2, 1), (2, 1, 2)])
def test_a_run_goes_on_with_another_number_of_processes(
    folder: Path, tmp_path: Path, numbers: tuple[int, int, int]
) -> None:
    """It is cut while the head alone learns, on stored features, and again after the backbone has thawed."""
    whole, parts = folder / "whole", tmp_path / "parts"
    options = ["strategy=gradual", "strategy.head_epochs=2", "strategy.unfreeze_epochs=1", "schedule=constant"]
    options += [*with_weights(folder, RESNET), "optimizer.lr=1e-3", "trainer.max_epochs=4"]
    if not whole.exists():
        train_alone(folder, whole, *options)
    for number, epochs in zip(numbers, (1, 3, 4), strict=True):
        resumed = [f"resume={parts}"] if epochs > 1 else []
        start = train_alone if number == 1 else train_together
        start(folder, parts, *options, f"+trainer.extra.max_steps={2 * epochs}", *resumed)
    assert [row["epoch"] for row in Run(parts).metrics] == [1, 2, 3, 4]
    assert_same_weights(whole, parts, rtol=1e-9, atol=1e-11)
    assert_same_metrics(Run(whole), Run(parts))


def test_two_processes_begin_with_the_probe_of_one(folder: Path, tmp_path: Path) -> None:
    """Each fits it for itself; with a rate of next to nothing, the head stays what it was."""
    options = ["strategy=finetune", "head.init=probe", "trainer.max_epochs=1", "optimizer.lr=1e-12"]
    targets = [tmp_path / "one", tmp_path / "two"]
    train_alone(folder, targets[0], *options)
    train_together(folder, targets[1], *options)
    one, two = (state_of(target / "checkpoints" / "last.ckpt") for target in targets)
    for name in ("head.2.weight", "head.2.bias"):
        torch.testing.assert_close(two[name], one[name], rtol=1e-6, atol=1e-7)


# ---- failing and stopping as one


def processes_of(launcher: "subprocess.Popen[str]") -> list[psutil.Process]:
    """The two processes that train, by their ranks."""
    found: dict[str, psutil.Process] = {}
    deadline = time.monotonic() + 60
    while len(found) < 2:
        assert time.monotonic() < deadline, "the processes have not been started"
        for process in psutil.Process(launcher.pid).children():
            with suppress(psutil.Error):  # it has ended meanwhile
                if rank := process.environ().get("RANK"):
                    found[rank] = process
        time.sleep(0.1)
    return [found["0"], found["1"]]


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 120
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} is not there"
        time.sleep(0.05)


ENDLESS = ["strategy=finetune", "trainer.max_epochs=100000", "trainer.checkpoint_seconds=0"]


@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_ends_the_others_and_is_named(
    folder: Path, tmp_path: Path, launch: Launch, victim: int
) -> None:
    target = tmp_path / "killed"
    launcher = launch(*ENDLESS, *TWO, f"hydra.run.dir={target}")
    processes = processes_of(launcher)
    wait_for(target / "checkpoints" / "last.ckpt")
    killed_at = time.monotonic()
    processes[victim].kill()
    _, errors = launcher.communicate(timeout=60)
    assert time.monotonic() - killed_at < 45
    assert launcher.returncode == 2
    assert f"Process {victim} of 2 was killed by SIGKILL, and the others have been ended." in errors
    assert "Traceback" not in errors
    assert not any(process.is_running() for process in processes)
    assert (target / "error.log").exists()


@pytest.mark.parametrize(
    ("victim", "how", "code", "reason"),
    [
        (1, "raise", 1, "ZeroDivisionError: a mistake of its own"),
        (0, "3", 2, "Process 0 of 2 has ended with exit code 3 and said nothing"),
    ],
)
def test_the_reason_is_that_of_the_process_that_failed_first(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, victim: int, how: str, code: int, reason: str
) -> None:
    target = tmp_path / "failed"
    monkeypatch.setenv("FAIL", f"1 {victim} {how}")
    options = ["strategy=finetune", "trainer.max_epochs=2", *TWO, f"hydra.run.dir={target}"]
    _, errors = run(folder, folder / "without_dropout.py", *options, code=code)
    for text in (errors, (target / "error.log").read_text()):
        assert text.count(reason) == 1
        assert text.count("Traceback") == (how == "raise")
        assert "Connection closed" not in text


def test_a_mistake_that_all_processes_find_is_told_once(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "mistaken"
    _, errors = run(folder, TRAIN, *TWO, "dataset.root=nowhere", f"hydra.run.dir={target}", code=2)
    assert errors.count("nowhere") == 1
    assert not target.exists()


@pytest.mark.parametrize(
    ("number", "code", "comes_to_all"),
    [(signal.SIGTERM, 143, False), (signal.SIGINT, 130, False), (signal.SIGTERM, 143, True)],
)
def test_a_signal_saves_once_and_the_run_goes_on(
    folder: Path, tmp_path: Path, launch: Launch, number: signal.Signals, code: int, comes_to_all: bool
) -> None:
    target = tmp_path / "stopped"
    options = ["strategy=finetune", "schedule=constant", "trainer.checkpoint_seconds=1000", f"hydra.run.dir={target}"]
    launcher = launch(*options, *TWO, "trainer.max_epochs=100000", start_new_session=True)
    processes = processes_of(launcher)
    wait_for(target / "metrics.csv")
    for process in processes if comes_to_all else []:  # as from SLURM
        process.send_signal(number)
    os.killpg(launcher.pid, number)  # as a terminal does
    _, errors = launcher.communicate(timeout=60)
    assert launcher.returncode == code, errors
    assert errors.count("To go on from the last saved epoch") == 1
    assert "Traceback" not in errors
    assert not any(process.is_running() for process in processes)
    saved = torch.load(target / "checkpoints" / "last.ckpt", weights_only=True)
    epochs = len(Run(target).metrics)
    assert saved["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"] == epochs
    run(folder, TRAIN, f"resume={target}", f"trainer.max_epochs={epochs + 1}")
    assert [row["epoch"] for row in Run(target).metrics] == list(range(1, epochs + 2))


def test_a_run_that_slurm_starts_anew_goes_on(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "requeued"
    options = ["strategy=finetune", "trainer.max_epochs=2", "trainer.checkpoint_seconds=0", *TWO]
    options.append(f"hydra.run.dir={target}")
    monkeypatch.setenv("FAIL", "1 01 raise")
    run(folder, folder / "without_dropout.py", *options, code=1)
    monkeypatch.setenv("FAIL", "- - -")
    _, errors = run(folder, TRAIN, *options, code=2)
    assert "holds a run already" in errors
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    _, errors = run(folder, TRAIN, *options, "seed=7", code=2)
    assert "holds a run with seed=0 (here 7), and" in errors
    run(folder, TRAIN, *options)
    assert [row["epoch"] for row in Run(target).metrics] == [1, 2]
    output, _ = run(folder, TRAIN, *options)
    assert "Finished already." in output


# ---- who starts them


def test_a_sweep_starts_the_processes_of_each_job_and_no_sweeps(folder: Path, tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    output, errors = run(
        folder, TRAIN, "-m", *TWO, "trainer.max_epochs=1", "head.init=default", "optimizer.lr=1e38,0.002",
        "figures=null", f"hydra.sweep.dir={sweep}", code=2,
    )  # fmt: skip
    jobs = sorted(path.name for path in sweep.iterdir() if path.is_dir())
    assert jobs == ["0_optimizer.lr=1e+38", "1_optimizer.lr=0.002"]
    assert sorted(path.parent.name for path in sweep.rglob("summary.json")) == [jobs[1]]
    assert not (folder / "outputs").exists()  # where processes would go that are told no folder
    assert not list(sweep.rglob("figures/*"))
    assert output.count("Val accuracy") == output.count("(val, last epoch)") == 1
    assert errors.count("the training has diverged") == errors.count("Failed: ") == 1
    assert "Traceback" not in errors


def torchrun(folder: Path, *overrides: str, script: Path = TRAIN) -> tuple[int, str, str]:
    arguments = command(folder, script, *overrides)[1:]
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr=localhost", "--nproc-per-node=2",
         *arguments],
        cwd=folder, env=os.environ | {"THAW_CACHE": str(folder / "cache")}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def test_torchrun_starts_the_processes_of_a_run(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "torchrun"
    options = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.max_epochs=1"]
    code, output, errors = torchrun(folder, *options, f"hydra.run.dir={target}")
    assert code == 0, errors
    assert output.count("on 2 x cpu") == output.count("Val accuracy") == 1
    assert Run(target).summary["last"]["n"] == NUM_VAL
    assert (target / ".hydra" / "overrides.yaml").exists()


@pytest.mark.parametrize(("how", "named"), [("raise", "a mistake of its own"), ("3", "exitcode  : 3 ")])
def test_torchrun_ends_where_a_process_fails(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, named: str
) -> None:
    monkeypatch.setenv("FAIL", f"1 1 {how}")
    options = ["trainer=ddp", "trainer.accelerator=cpu", "strategy=finetune", "trainer.max_epochs=2"]
    target = tmp_path / "torchrun"
    code, _, errors = torchrun(folder, *options, f"hydra.run.dir={target}", script=folder / "without_dropout.py")
    assert code != 0
    assert named in errors
    if how == "raise":
        assert "ZeroDivisionError" in (target / "error.log").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["trainer.devices=4", "hydra.run.dir=four"], "1 machines with 2 processes each"),
        (["dataset.batch_size=15", "hydra.run.dir=fifteen"], "dataset.batch_size=15 cannot be shared equally among 2"),
        ([], "set hydra.run.dir=FOLDER"),
        (["-m", "seed=1,2"], "-m under torchrun or srun"),
    ],
)
def test_torchrun_with_other_options_than_it_has_started(folder: Path, options: list[str], message: str) -> None:
    code, _, errors = torchrun(folder, "trainer=ddp", "trainer.accelerator=cpu", "trainer.max_epochs=1", *options)
    assert code != 0
    assert errors.count(message) == 1
