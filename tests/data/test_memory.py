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
from thaw.data.memory import ImageMemory, fits_in_memory, free_memory
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
        assert memory(path).untyped_storage().nbytes() == 3 * 32 * 32  # and not all of the image that it is a part of
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


def set_free_memory(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    free = memory.psutil.virtual_memory()._replace(available=size)
    monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: free)


@pytest.mark.parametrize(("share_of_free", "fits"), [(1.02, True), (0.98, False)])
def test_images_fit_if_they_take_their_share_of_the_free_memory(
    index: ImageIndex,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    share_of_free: float,
    fits: bool,
) -> None:
    set_free_memory(monkeypatch, round(4 * share_of_free * bytes_in_memory(index)))
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
    for allowed, fits in ((24_000_001, True), (23_999_999, False)):
        set_free_memory(monkeypatch, 4 * allowed)
        assert fits_in_memory(large, TRANSFORM) == fits


def test_a_file_without_a_size_does_not_stop_the_estimate(tmp_path: Path, index: ImageIndex) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    train = [sample._replace(path=tmp_path / "a.png") for sample in index.splits["train"]]
    assert fits_in_memory(ImageIndex(tmp_path, index.classes, {"train": train}, "val", {}, ()), TRANSFORM)


def write_files(folder: Path, contents: dict[str, str]) -> None:
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)


JOB = "sys/fs/cgroup/slurm/job/"
NEW_GROUPS = {
    "proc/self/cgroup": "0::/slurm/job\n",
    f"{JOB}memory.max": "900\n",
    f"{JOB}memory.current": "700\n",
    f"{JOB}memory.stat": "anon 600\ninactive_file 50\n",
    "sys/fs/cgroup/slurm/memory.max": "max\n",
    "sys/fs/cgroup/slurm/memory.current": "700\n",
    "sys/fs/cgroup/slurm/memory.stat": "inactive_file 50\n",
}
OLD = "sys/fs/cgroup/memory/memory."
OLD_GROUPS = {
    "proc/self/cgroup": "5:cpu,cpuacct:/\n4:memory:/docker/0123\n0::/\n",  # as the machine sees it, not the container
    f"{OLD}limit_in_bytes": "900\n",
    f"{OLD}usage_in_bytes": "700\n",
    f"{OLD}stat": "inactive_file 1\ntotal_inactive_file 50\n",
}


@pytest.mark.parametrize(
    ("files", "free"),
    [
        (NEW_GROUPS, 250),
        (NEW_GROUPS | {f"{JOB}memory.current": "2000\n"}, 0),
        (NEW_GROUPS | {"sys/fs/cgroup/slurm/memory.max": "800\n"}, 150),
        (NEW_GROUPS | {f"{JOB}memory.max": "9000\n"}, 1000),
        (OLD_GROUPS, 250),
        (OLD_GROUPS | {f"{OLD}limit_in_bytes": "9223372036854771712\n"}, 1000),
        ({"proc/self/cgroup": "0::/\n"}, 1000),
        ({}, 1000),
    ],
)
def test_a_control_group_limits_the_free_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], free: int
) -> None:
    set_free_memory(monkeypatch, 1000)
    write_files(tmp_path, files)
    assert free_memory(tmp_path) == free
