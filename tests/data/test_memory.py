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
from thaw.data.memory import decode_all, fits_in_memory
from thaw.data.transforms import EvaluationTransform

TRANSFORM = EvaluationTransform(resize=36, crop=32)


@pytest.fixture
def index(image_folder: Path) -> ImageIndex:
    return build_index(image_folder, DatasetConfig())


def test_training_images_are_kept_whole_and_the_others_after_the_transform(index: ImageIndex) -> None:
    images, bad = decode_all(index.splits, TRANSFORM)
    assert bad == {}
    assert images.keys() == {sample.path for samples in index.splits.values() for sample in samples}
    for path, _ in index.splits["train"]:
        assert torch.equal(images[path], read_image(path))
    for path, _ in index.splits["val"]:
        assert torch.equal(images[path], TRANSFORM(read_image(path)))


def test_unreadable_files_are_named_with_the_reason(index: ImageIndex, tmp_path: Path) -> None:
    broken, missing = tmp_path / "broken.png", tmp_path / "missing.png"
    broken.write_bytes(b"<html>")
    first = index.splits["val"][0]
    samples = [first._replace(path=broken), first, first._replace(path=missing)]
    images, bad = decode_all({"val": samples}, TRANSFORM)
    assert list(images) == [first.path]
    assert bad == {
        broken: "its contents are in no image format that Pillow reads",
        missing: "No such file or directory",
    }


def bytes_in_memory(index: ImageIndex) -> int:
    images, _ = decode_all(index.splits, TRANSFORM)
    return sum(image.numel() for image in images.values())


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
