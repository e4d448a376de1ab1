"""What the machine does to a training: no room, no right to write, data that vanish, another run beside it."""

import json
import os
import pty
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from thaw.model.tensor_files import read_tensors
from thaw.run import Run

ROOT = Path(__file__).parents[1]
OPTIONS = [
    "backbone=squeezenet1_1", "backbone.weights=null", "dataset.image_size=64", "trainer=cpu", "trainer.precision=32",
    "trainer.max_epochs=3", "trainer.checkpoint_seconds=0", "logger=csv",
]  # fmt: skip

pytestmark = pytest.mark.slow


def start(
    cwd: Path, *overrides: str, before: Callable[[], None] | None = None, options: Sequence[str] = OPTIONS
) -> "subprocess.Popen[str]":
    """Begin a training; `before` is called first in its process."""
    environment = os.environ | {"THAW_CACHE": str(cwd / "cache"), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *options, *overrides], cwd=cwd, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=before,
    )  # fmt: skip


def refusal(process: "subprocess.Popen[str]") -> str:
    """The one line with which a training has ended by the rules."""
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 2, errors
    lines = errors.splitlines()
    assert len(lines) == 1, errors
    return lines[0]


def wait_for(condition: Callable[[], bool], process: "subprocess.Popen[str]") -> None:
    while not condition():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a small disk in memory, if the system lets us."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(options: str) -> Path:
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(place)], capture_output=True)
        if done.returncode:
            pytest.skip(f"no right to mount: {done.stderr.decode().strip()}")
        return place

    yield mount
    subprocess.run(["umount", str(place)], capture_output=True)


def test_a_disk_that_fills_up_leaves_the_last_good_checkpoint(
    image_folder: Path, tmp_path: Path, mount: Callable[[str], Path]
) -> None:
    disk = mount("size=15m")  # best.ckpt of 2.9 MB, last.ckpt of 5.8 MB and the draft of another
    folder = disk / "run"
    options = ["dataset=folder", f"dataset.root={image_folder}", "strategy=scratch", f"hydra.run.dir={folder}"]
    process = start(tmp_path, *options, "trainer.max_epochs=500")
    wait_for((folder / "checkpoints" / "last.ckpt").exists, process)
    (disk / "filler").write_bytes(bytes(2_000_000))
    message = refusal(process)
    assert "could not be written: No space left on device" in message
    assert "disk/run/checkpoints/" in message
    for name in ("best", "last"):
        assert read_tensors(folder / "checkpoints" / f"{name}.ckpt")["state_dict"]
    assert [path.name for path in (folder / "checkpoints").iterdir() if path.name.endswith(".part")] == []
    (disk / "filler").unlink()
    epochs = read_tensors(folder / "checkpoints" / "last.ckpt")["epoch"] + 1
    resumed = start(tmp_path, f"resume={folder}", f"trainer.max_epochs={epochs + 1}", "strategy=scratch")
    assert resumed.communicate(timeout=300)[1] == ""


def test_a_file_that_may_not_grow_is_named(image_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    options = ["dataset=folder", f"dataset.root={image_folder}", "strategy=frozen", f"hydra.run.dir={folder}"]
    limit = (2_000_000, 2_000_000)
    message = refusal(start(tmp_path, *options, before=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit)))
    assert "best.ckpt could not be written: File too large" in message
    assert list((folder / "checkpoints").iterdir()) == []


@pytest.mark.parametrize(
    ("place", "disk_options", "overrides", "file", "is_trained"),
    [
        ("tensorboard", "size=300k,nr_inodes=1", [], "tensorboard", False),
        ("tensorboard", "size=150k", [], "tensorboard", False),
        ("tensorboard", "size=4k", ["figures=false"], "tensorboard", False),
        ("tensorboard", "size=8k", ["figures=false", "trainer.max_epochs=500"], "tensorboard", True),
        ("figures", "size=100k", ["logger=csv"], "figures/training_batch.jpg", False),
        ("figures", "size=250k", [], "figures/predictions.jpg", True),
        ("train.log", "/dev/full", ["logger=csv"], "train.log", False),
    ],
)
def test_a_disk_without_room_for_what_is_drawn_and_told_is_named(
    image_folder: Path,
    tmp_path: Path,
    mount: Callable[[str], Path],
    place: str,
    disk_options: str,
    overrides: list[str],
    file: str,
    is_trained: bool,
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / place).symlink_to(disk_options if disk_options.startswith("/") else mount(disk_options))
    options = ["dataset=folder", f"dataset.root={image_folder}", "strategy=scratch", f"hydra.run.dir={folder}"]
    message = refusal(start(tmp_path, *options, *overrides, options=[each for each in OPTIONS if "logger" not in each]))
    assert f"run/{file} could not be written: No space left on device" in message
    checkpoints = list((folder / "checkpoints").glob("*"))
    assert len(checkpoints) == 2 * is_trained
    assert all(read_tensors(path)["state_dict"] for path in checkpoints)


def test_a_disk_that_fills_up_during_the_report_keeps_the_rest(
    image_folder: Path, tmp_path: Path, mount: Callable[[str], Path]
) -> None:
    disk = mount("size=18m")
    folder = disk / "run"
    options = ["dataset=folder", f"dataset.root={image_folder}", "strategy=scratch", f"hydra.run.dir={folder}"]
    process = start(tmp_path, *options, "report=true")
    wait_for((folder / "summary.json").exists, process)
    with suppress(OSError), (disk / "filler").open("wb", buffering=0) as filler:
        while True:
            filler.write(bytes(4096))
    message = refusal(process)
    assert "The report cannot be written to disk/run/report.html: No space left on device" in message
    assert not list(folder.glob(".*.part"))
    assert read_tensors(folder / "checkpoints" / "best.ckpt")["state_dict"]
    (disk / "filler").unlink()
    assert Run(folder).report().stat().st_size > 10_000


def test_a_read_only_output_folder_is_named(image_folder: Path, tmp_path: Path, mount: Callable[[str], Path]) -> None:
    folder = mount("ro") / "run"
    message = refusal(start(tmp_path, "dataset=folder", f"dataset.root={image_folder}", f"hydra.run.dir={folder}"))
    assert "disk/run: Read-only file system" in message


@pytest.mark.parametrize("place", ["runs", "images/train/blue/0.png", "images/train/blue", "images/val"])
def test_a_place_without_permission_is_named(
    image_folder: Path, tmp_path: Path, obey_permissions: Callable[[], None], place: str
) -> None:
    root = shutil.copytree(image_folder, tmp_path / "images")
    (tmp_path / "runs").mkdir()
    (tmp_path / place).chmod(0o500 if place == "runs" else 0)
    options = ["dataset=folder", f"dataset.root={root}", "hydra.run.dir=runs/run"]
    process = start(tmp_path, *options, before=obey_permissions)
    errors = process.communicate(timeout=300)[1]
    assert process.returncode == 2
    assert place.removeprefix("images/") in errors
    assert "Permission denied" in errors
    assert "Traceback" not in errors
    assert list((tmp_path / "runs").iterdir()) == []


def test_permission_that_is_lost_during_a_training_leaves_the_last_good_checkpoint(
    image_folder: Path, tmp_path: Path, obey_permissions: Callable[[], None]
) -> None:
    folder = tmp_path / "run"
    options = ["dataset=folder", f"dataset.root={image_folder}", "strategy=scratch", f"hydra.run.dir={folder}"]
    process = start(tmp_path, *options, "trainer.max_epochs=500", before=obey_permissions)
    last = folder / "checkpoints" / "last.ckpt"
    wait_for(last.exists, process)
    last.parent.chmod(0o500)
    assert "ckpt could not be written: Permission denied" in refusal(process)
    assert read_tensors(last)["state_dict"]


def test_a_cache_without_permission_costs_time_alone(
    image_folder: Path, tmp_path: Path, obey_permissions: Callable[[], None]
) -> None:
    (tmp_path / "cache").mkdir(0o500)
    options = ["dataset=folder", f"dataset.root={image_folder}", "strategy=frozen", "hydra.run.dir=run"]
    process = start(tmp_path, *options, before=obey_permissions)
    assert process.communicate(timeout=300)[1] == ""
    assert process.returncode == 0
    assert (tmp_path / "run" / "summary.json").exists()
    assert list((tmp_path / "cache").iterdir()) == []


def unmount(place: Path) -> None:
    """Take a disk away under those who use it."""
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.parametrize("place", ["images/train", "images/val", "."])
def test_data_that_vanish_during_a_training_are_named(
    image_folder: Path, tmp_path: Path, mount: Callable[[str], Path], place: str
) -> None:
    disk = mount("size=10m") if place == "." else tmp_path / "disk"
    root = shutil.copytree(image_folder, disk / "images")
    folder = tmp_path / "run"
    options = ["dataset=folder", f"dataset.root={root}", "strategy=finetune", f"hydra.run.dir={folder}"]
    process = start(tmp_path, *options, "dataset.cache=none", "dataset.num_workers=1", "trainer.max_epochs=500")
    last = folder / "checkpoints" / "last.ckpt"
    wait_for(last.exists, process)
    if place == ".":
        unmount(disk)
    else:
        shutil.rmtree(disk / place)
    message = refusal(process)  # also where the other split's loader process still waits
    assert "cannot be read as an image: No such file or directory" in message
    assert f"{disk / place}/" in message
    assert read_tensors(last)["state_dict"]


@pytest.mark.parametrize("ignores", [False, True])
def test_a_terminal_that_is_closed_costs_no_epoch(image_folder: Path, tmp_path: Path, ignores: bool) -> None:
    run = Run(tmp_path / "run")
    options = ["dataset=folder", f"dataset.root={image_folder}", "strategy=finetune", f"hydra.run.dir={run.folder}"]
    command = [*OPTIONS, *options, f"trainer.max_epochs={20 if ignores else 500}", "trainer.checkpoint_seconds=3600"]
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(tmp_path)
        signal.signal(signal.SIGHUP, signal.SIG_IGN if ignores else signal.SIG_DFL)
        os.environ["OMP_NUM_THREADS"] = "1"
        os.execv(sys.executable, [sys.executable, str(ROOT / "train.py"), *command])
    while not run.metrics_csv.exists() or len(run.metrics_csv.read_text().splitlines()) < 4:
        os.read(terminal, 1000)
    os.kill(child, signal.SIGHUP)  # a shell sends it, and then the system
    os.close(terminal)
    ended, status, deadline = 0, 0, time.monotonic() + 300
    while not ended and time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        time.sleep(0.05)
    if not ended:
        os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
    assert os.waitstatus_to_exitcode(status) == (0 if ignores else 128 + signal.SIGHUP)
    assert run.is_finished == ignores
    assert read_tensors(run.last)["epoch"] >= 2


def test_data_on_a_mount_that_is_gone_are_named(
    image_folder: Path, tmp_path: Path, mount: Callable[[str], Path]
) -> None:
    disk = mount("size=10m")
    root = shutil.copytree(image_folder, disk / "images")
    unmount(disk)
    options = ["dataset=folder", f"dataset.root={root}", "hydra.run.dir=run"]
    assert f"dataset.root is not a folder: {root}." in refusal(start(tmp_path, *options))
    assert not (tmp_path / "run").exists()


def test_a_full_disk_for_features_costs_time_alone(
    image_folder: Path, tmp_path: Path, mount: Callable[[str], Path]
) -> None:
    disk = mount("size=8k")
    (tmp_path / "cache").symlink_to(disk)
    options = ["dataset=folder", f"dataset.root={image_folder}", "strategy=frozen", "hydra.run.dir=run"]
    process = start(tmp_path, *options, "backbone.weights=null")
    assert process.communicate(timeout=300)[1] == ""
    assert (tmp_path / "run" / "summary.json").exists()
    assert list(disk.rglob("*.safetensors")) == []


@pytest.mark.parametrize("content", [None, "", "- dataset=folder\n- 'dataset.ro"], ids=["whole", "empty", "cut"])
def test_a_run_is_neither_begun_anew_nor_resumed_with_other_options(
    image_folder: Path, tmp_path: Path, content: str | None
) -> None:
    folder = tmp_path / "run"
    options = ["dataset=folder", f"dataset.root={image_folder}", "strategy=frozen", "seed=3", f"hydra.run.dir={folder}"]
    assert start(tmp_path, *options).communicate(timeout=300)[1] == ""
    if content is None:
        before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        message = refusal(start(tmp_path, *options, "seed=4"))
        assert f"{folder} holds a run already, which would be lost. To go on with it: resume={folder}" in message
        assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
        return
    expected = Run(folder).config
    expected["trainer"]["max_epochs"], expected["resume"] = 4, str(folder)
    (folder / ".hydra" / "overrides.yaml").write_text(content)  # as a kill leaves it that comes as Hydra writes it
    resumed = start(tmp_path, f"resume={folder}", "trainer.max_epochs=4", options=())
    assert resumed.communicate(timeout=300)[1] == ""
    assert Run(folder).config == expected


def test_two_trainings_at_once_share_data_and_features(tmp_path: Path) -> None:
    options = ["dataset=digits", "strategy=frozen", "dataset.root=data", "dataset.image_size=32"]
    folders = [tmp_path / name for name in ("first", "second")]
    processes = [start(tmp_path, *options, f"hydra.run.dir={folder}") for folder in folders]
    assert [process.communicate(timeout=500)[1] for process in processes] == ["", ""]
    first, second = (torch.load(folder / "checkpoints/last.ckpt", weights_only=True) for folder in folders)
    assert all(torch.equal(tensor, second["state_dict"][name]) for name, tensor in first["state_dict"].items())
    vals = [json.loads((folder / "summary.json").read_text())["val"] for folder in folders]
    assert vals[0] == vals[1]
    assert sorted(path.suffix for path in (tmp_path / "cache" / "features").iterdir()) == [".safetensors"] * 2


def test_two_trainings_in_one_folder_do_not_mix(image_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    options = ["dataset=folder", f"dataset.root={image_folder}", "strategy=scratch", f"hydra.run.dir={folder}"]
    first = start(tmp_path, *options, "trainer.max_epochs=500")
    wait_for((folder / "metrics.csv").exists, first)
    assert "Another run is writing to" in refusal(start(tmp_path, *options))
    assert (folder / "checkpoints").is_dir()
    first.send_signal(signal.SIGTERM)
    assert "train.py resume=" in first.communicate(timeout=300)[1]
    assert first.returncode == 128 + signal.SIGTERM
