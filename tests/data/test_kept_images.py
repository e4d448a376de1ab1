import errno
import logging
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import lightning.pytorch as pl
import pytest
from test_datamodule import NUM_VAL, assert_equal_batches, batches_of, make_data
from torch.utils.data import DataLoader

from thaw.config import AugmentConfig
from thaw.data import index, kept_images
from thaw.data.datamodule import ImageDataModule
from thaw.data.device import CropDataset
from thaw.data.images import read_image
from thaw.data.kept_images import Loader
from thaw.data.sampling import Batch, ImageDataset, SequentialPositions
from thaw.errors import ThawError
from thaw.signals import outlive

KEPT = ("ram", "none", "device")


@pytest.mark.parametrize("policy", ["none", "default", "color"])
def test_images_in_memory_and_from_files_give_equal_batches(image_folder: Path, policy: str) -> None:
    in_memory, from_files = (
        make_data(image_folder, augment=AugmentConfig(policy=policy), cache=cache) for cache in ("ram", "none")
    )
    for epoch in (0, 3):
        assert_equal_batches(
            batches_of(in_memory.train_dataloader(), epoch), batches_of(from_files.train_dataloader(), epoch)
        )
    assert_equal_batches(batches_of(in_memory.val_dataloader()), batches_of(from_files.val_dataloader()))


def test_worker_processes_change_nothing(image_folder: Path) -> None:
    alone, by_workers = (make_data(image_folder, num_workers=number) for number in (0, 2))
    for epoch in (0, 1):
        assert_equal_batches(
            batches_of(alone.train_dataloader(), epoch), batches_of(by_workers.train_dataloader(), epoch)
        )


def test_loader_processes_get_images_in_memory_by_being_forked(
    image_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_memory, from_files, on_device = (make_data(image_folder, num_workers=2, cache=cache) for cache in KEPT)
    for data in (in_memory, from_files):  # in a job of joblib's, the default is its own, in which none can start
        context = data.train_dataloader().multiprocessing_context
        assert context is not None
        assert context.get_start_method() == "fork"
    monkeypatch.setattr(kept_images, "CAN_FORK", False)
    in_memory, from_files, on_device = (make_data(image_folder, num_workers=2, cache=cache) for cache in KEPT)
    assert in_memory.train_dataloader().num_workers == on_device.train_dataloader().num_workers == 0
    assert from_files.train_dataloader().num_workers == 2
    assert len(batches_of(in_memory.val_dataloader())) == 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP])
@pytest.mark.parametrize("how", ["fork", "spawn"])
def test_loader_processes_outlive_a_signal_to_all(image_folder: Path, how: str, number: int) -> None:
    loader = make_data(image_folder, num_workers=1, cache="none").train_dataloader()
    loader.multiprocessing_context = how
    batches = iter(loader)
    first = next(batches)
    for process in multiprocessing.active_children():  # by another process, as a shell is
        subprocess.run([sys.executable, "-c", f"import os; os.kill({process.pid}, {int(number)})"], check=True)
    time.sleep(0.1)
    assert [first, *batches]


@pytest.mark.parametrize("start", ["", "fork", "spawn"])
@pytest.mark.parametrize("end", ["", "raise ValueError"])
def test_a_program_ends_while_its_loader_processes_wait(
    image_folder: Path, tmp_path: Path, start: str, end: str
) -> None:
    program = tmp_path / "program.py"
    program.write_text(f"""
import multiprocessing, sys
from pathlib import Path
from test_datamodule import make_data
def work():
    global loader
    loader = make_data(Path({str(image_folder)!r}), num_workers=1, cache="none").train_dataloader()
    next(iter(loader))
    {end}
if __name__ == "__main__" and {start!r}:
    process = multiprocessing.get_context({start!r}).Process(target=work)
    process.start()
    process.join()
    sys.exit(process.exitcode)
elif __name__ == "__main__":
    work()
""")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    done = subprocess.run(
        [sys.executable, program], env=environment, timeout=60, check=False, capture_output=True, text=True
    )
    assert done.returncode == bool(end)
    assert re.findall(r"^\w*Error", done.stderr, re.MULTILINE) == ["ValueError"] * bool(end), done.stderr


def test_that_no_loader_process_can_be_started_is_told(image_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(process: object) -> None:
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    data = make_data(image_folder, num_workers=1, cache="none")
    monkeypatch.setattr(multiprocessing.process.BaseProcess, "start", refuse)
    with pytest.raises(ThawError, match=r"^Loader processes cannot be started: Resource temporarily unavailable\."):
        iter(data.train_dataloader())


class Unsendable:
    """What a loader process cannot hand over, as where /dev/shm is full."""

    def __reduce__(self) -> str:
        raise OSError("No space left on device")


def test_a_batch_that_cannot_be_handed_over_is_no_endless_wait() -> None:
    loader = DataLoader([Unsendable()], batch_size=None, num_workers=1, worker_init_fn=outlive, timeout=30)
    with pytest.raises(RuntimeError, match="exited unexpectedly"):
        next(iter(loader))


def test_a_small_set_is_kept_in_memory_and_needs_no_workers(image_folder: Path) -> None:
    data = make_data(image_folder, cache="auto", num_workers="auto")
    assert data.train_dataloader().num_workers == 0


def test_workers_come_where_an_epoch_of_images_takes_longer_than_their_start(image_folder: Path) -> None:
    data = make_data(image_folder, cache="none", num_workers="auto")
    assert data.train_dataloader().num_workers == 0
    few = data.datasets["train"]
    many = ImageDataset([*few.samples] * 20_000, few.transform, seed=0)  # a second, at 3 microseconds each
    assert data.images.loader(many, SequentialPositions(range(len(many)))).num_workers > 0


@pytest.mark.parametrize("with_trainer", [False, True])
@pytest.mark.parametrize("cache", KEPT)
def test_memory_is_not_pinned_for_a_gpu_that_does_not_compute(
    image_folder: Path, monkeypatch: pytest.MonkeyPatch, cache: str, with_trainer: bool
) -> None:
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    data = make_data(image_folder, cache=cache)
    if with_trainer:
        data.trainer = trainer
        data.setup("fit")
    assert not data.train_dataloader().pin_memory
    assert not data.val_dataloader().pin_memory


def test_images_on_the_device_are_those_of_the_cpu(image_folder: Path) -> None:
    on_cpu, on_device = (make_data(image_folder, cache=cache) for cache in ("ram", "device"))
    for epoch in (0, 1):
        cut = cut_batches(on_device, on_device.train_dataloader(), epoch)
        expected = batches_of(on_cpu.train_dataloader(), epoch)
        assert [labels.tolist() for _, labels in cut] == [labels.tolist() for _, labels in expected]
        assert [images.shape for images, _ in cut] == [images.shape for images, _ in expected]
    assert_equal_batches(cut_batches(on_device, on_device.val_dataloader()), batches_of(on_cpu.val_dataloader()))


def cut_batches(data: ImageDataModule, loader: Loader, epoch: int = 0) -> list[Batch]:
    return [data.on_after_batch_transfer(batch, 0) for batch in batches_of(loader, epoch)]


def test_that_the_device_does_not_cut_is_said(image_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = make_data(image_folder, cache="device")
    data.images.transform = replace(data.transform, interpolation="bicubic")
    with caplog.at_level(logging.INFO, logger="thaw"):
        assert isinstance(data.train_dataloader().dataset, ImageDataset)
    assert caplog.messages[-1] == (
        "dataset.cache=device: images come from the CPU, for they need more than random crops, resized bilinearly, and "
        "horizontal mirror images"
    )


def test_a_run_that_is_gone_on_with_draws_crops_where_it_has_drawn_them(
    image_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    on_cpu, on_device = (make_data(image_folder, cache=cache) for cache in ("ram", "device"))
    for begun, kind in ((on_cpu, ImageDataset), (on_device, CropDataset)):
        assert begun.state_dict()["cuts_crops"] is None
        begun.train_dataloader()
        resumed = make_data(image_folder, cache="auto")
        resumed.load_state_dict(begun.state_dict())
        assert isinstance(resumed.train_dataloader().dataset, kind)
    caplog.clear()
    resumed = make_data(image_folder, cache="auto")
    resumed.images.transform = replace(resumed.transform, interpolation="bicubic")
    resumed.load_state_dict(on_device.state_dict())
    resumed.train_dataloader()
    assert caplog.messages[-1] == "From here on other crops are drawn than the run has begun with (dataset.cache)."


def test_readable_files_are_read_when_they_are_needed_and_not_before(
    image_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_data(image_folder)  # finds all files readable
    read: list[Path] = []
    monkeypatch.setattr(index, "read_image", lambda path, *rest: read.append(path) or read_image(path, *rest))
    data = make_data(image_folder)
    assert read == []
    data.preview(most=24)
    assert len(read) == 4
    for _ in range(2):
        list(data.val_dataloader())
    assert len(read) == 4 + NUM_VAL
