import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from thaw.config import DatasetConfig
from thaw.data import memory
from thaw.data.images import read_image
from thaw.data.index import ImageIndex, build_index
from thaw.data.memory import ImageMemory, fits_in_memory
from thaw.data.transforms import EvaluationTransform

TRANSFORM = EvaluationTransform(resize=36, crop=32)


@pytest.fixture
def index(image_folder: Path) -> ImageIndex:
    return build_index(image_folder, DatasetConfig())


def paths_of(index: ImageIndex) -> list[Path]:
    return [sample.path for samples in index.splits.values() for sample in samples]


def test_training_images_are_kept_whole_and_the_others_after_the_transform(index: ImageIndex) -> None:
    memory = ImageMemory(index, TRANSFORM)
    unloaded = [memory(path) for path in paths_of(index)]
    assert memory.images == {}
    assert memory.load(paths_of(index)) == {}
    assert memory.images.keys() == set(paths_of(index))
    for path, _ in index.splits["train"]:
        assert torch.equal(memory(path), read_image(path))
    for path, _ in index.splits["val"]:
        assert torch.equal(memory(path), TRANSFORM(read_image(path)))
    assert all(torch.equal(memory(path), image) for path, image in zip(paths_of(index), unloaded, strict=True))


def test_an_image_is_decoded_once(index: ImageIndex, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (40, 40), "red").save(path)
    memory = ImageMemory(index, TRANSFORM)
    memory.load([path])
    path.unlink()
    assert memory.load([path]) == {}
    assert memory(path).shape == (3, 32, 32)


def test_large_jpegs_are_kept_at_a_reduced_size(index: ImageIndex) -> None:
    path = index.splits["train"][0].path.with_suffix(".jpg")
    Image.new("RGB", (1200, 600), "red").save(path)
    train = [index.splits["train"][0]._replace(path=path)]
    large = ImageIndex(index.root, index.classes, {"train": train}, "val", {}, ())
    memory = ImageMemory(large, EvaluationTransform(resize=146, crop=128))
    memory.load([path])
    path.unlink()
    assert memory(path).shape == (3, 300, 600)  # 292 pixels are wanted


def test_unreadable_files_are_named_with_the_reason(index: ImageIndex, tmp_path: Path) -> None:
    broken, missing = tmp_path / "broken.png", tmp_path / "missing.png"
    broken.write_bytes(b"<html>")
    first = index.splits["val"][0].path
    memory = ImageMemory(index, TRANSFORM)
    assert memory.load([broken, first, missing]) == {
        broken: "its contents are in no image format that Thaw reads",
        missing: "No such file or directory",
    }
    assert list(memory.images) == [first]


def bytes_in_memory(index: ImageIndex) -> int:
    memory = ImageMemory(index, TRANSFORM)
    memory.load(paths_of(index))
    return sum(image.numel() for image in memory.images.values())


@pytest.mark.parametrize(("share_of_free", "fits"), [(1.02, True), (0.98, False)])
def test_images_fit_if_they_take_their_share_of_the_free_memory(
    index: ImageIndex,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    share_of_free: float,
    fits: bool,
) -> None:
    free = memory.psutil.virtual_memory()
    share = share_of_free * bytes_in_memory(index) / free.available
    monkeypatch.setattr(memory, "SHARE_OF_FREE_MEMORY", share)
    monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: free)  # it changes by the second
    with caplog.at_level(logging.INFO, logger="thaw"):
        assert fits_in_memory(index, TRANSFORM) == fits
    verdict = "decoded once, kept in memory" if fits else "decoded anew in each epoch"
    assert caplog.messages == [f"Images: {verdict} (0.00 GB; dataset.cache=auto allows 0.00 GB)"]


def test_the_estimate_of_a_large_set_grows_with_it(
    tmp_path: Path, index: ImageIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(np.zeros((100, 80, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    train = [index.splits["train"][0]._replace(path=tmp_path / "a.png")] * 1000
    large = ImageIndex(tmp_path, index.classes, {"train": train}, "val", {}, ())
    free = memory.psutil.virtual_memory()
    monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: free)
    for allowed, fits in ((24_000_001, True), (23_999_999, False)):
        monkeypatch.setattr(memory, "SHARE_OF_FREE_MEMORY", allowed / free.available)
        assert fits_in_memory(large, TRANSFORM) == fits


def test_a_file_without_a_size_does_not_stop_the_estimate(tmp_path: Path, index: ImageIndex) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    train = [sample._replace(path=tmp_path / "a.png") for sample in index.splits["train"]]
    assert fits_in_memory(ImageIndex(tmp_path, index.classes, {"train": train}, "val", {}, ()), TRANSFORM)
