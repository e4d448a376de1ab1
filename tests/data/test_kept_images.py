from pathlib import Path

import pytest
import torch
from test_datamodule import NUM_VAL, assert_equal_batches, batches_of, make_data

from thaw.config import AugmentConfig
from thaw.data import index
from thaw.data.images import read_image
from thaw.data.sampling import ImageDataset, SequentialPositions


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


def test_a_small_set_is_kept_in_memory_and_needs_no_workers(image_folder: Path) -> None:
    data = make_data(image_folder, cache="auto", num_workers="auto")
    assert data.train_dataloader().num_workers == 0


def test_workers_come_where_an_epoch_of_images_takes_longer_than_their_start(image_folder: Path) -> None:
    data = make_data(image_folder, cache="none", num_workers="auto")
    assert data.train_dataloader().num_workers == 0
    few = data.datasets["train"]
    many = ImageDataset([*few.samples] * 20_000, few.transform, seed=0)  # a second, at 3 microseconds each
    assert data.images.loader(many, SequentialPositions(len(many))).num_workers > 0


def test_the_device_cuts_the_crops_that_the_cpu_would(image_folder: Path) -> None:
    on_cpu, on_device = (make_data(image_folder, cache=cache) for cache in ("ram", "device"))
    for epoch in (0, 1):
        crops = batches_of(on_device.train_dataloader(), epoch)
        cut = [on_device.on_after_batch_transfer(batch, 0) for batch in crops]
        for (images, labels), (expected, expected_labels) in zip(
            cut, batches_of(on_cpu.train_dataloader(), epoch), strict=True
        ):
            assert torch.equal(labels, expected_labels)
            assert images.shape == expected.shape
            assert (images.float() - expected.float()).abs().mean() < 8  # of noise with a deviation of 40
    assert_equal_batches(batches_of(on_device.val_dataloader()), batches_of(on_cpu.val_dataloader()))


def test_readable_files_are_read_when_they_are_needed_and_not_before(
    image_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_data(image_folder)  # finds all files readable
    read: list[Path] = []
    monkeypatch.setattr(index, "read_image", lambda path, *rest: read.append(path) or read_image(path, *rest))
    data = make_data(image_folder)
    assert read == []
    data.preview()
    assert len(read) == 4
    for _ in range(2):
        list(data.val_dataloader())
    assert len(read) == 4 + NUM_VAL
