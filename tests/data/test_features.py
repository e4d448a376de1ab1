import errno
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import run
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from thaw.config import AugmentConfig
from thaw.data import features
from thaw.data.features import FeatureStore, compute_features, hash_tensors, make_key
from thaw.data.transforms import EvaluationTransform
from thaw.errors import ThawError

TRANSFORM = EvaluationTransform(resize=36, crop=32)


class Computed:
    """A computation that counts how often it is made."""

    def __init__(self, features: Tensor) -> None:
        self.features = features
        self.times = 0

    def __call__(self) -> Tensor:
        self.times += 1
        return self.features


# ---- the features


def test_features_are_those_of_every_image_in_order() -> None:
    images = torch.randint(256, (10, 3, 4, 4), dtype=torch.uint8)
    batches = [(batch, torch.zeros(len(batch))) for batch in images.split(4)]
    features = compute_features(lambda batch: batch.float().mean(dim=(2, 3)), batches)
    assert torch.equal(features, images.float().mean(dim=(2, 3)))


# ---- the key


@pytest.fixture
def module() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for path in paths:
        path.write_bytes(b"pixels")
    return paths


FACTS = ("train mirror", TRANSFORM, 32, "32-true", "cpu")


def key_of(module: nn.Module, images: list[Path], facts: tuple[object, ...] = FACTS) -> str:
    return make_key(hash_tensors(module.state_dict()), images, *facts)


def test_the_key_is_a_file_name(module: nn.Module, images: list[Path]) -> None:
    assert key_of(module, images).isalnum()


def test_what_is_equal_has_the_same_key(module: nn.Module, images: list[Path]) -> None:
    before = key_of(module, images)
    for path in images:
        path.read_bytes()
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    equal = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2)).eval()
    equal.load_state_dict(module.state_dict())
    facts = (*FACTS[:1], EvaluationTransform(resize=36, crop=32), *FACTS[2:])
    assert key_of(equal, images, facts) == before
    assert key_of(equal.to(memory_format=torch.channels_last), images) == before


@pytest.mark.slow
def test_the_key_is_the_same_in_another_process(module: nn.Module, images: list[Path]) -> None:
    torch.save(module.state_dict(), images[0].with_name("state.pt"))
    code = f"""
import torch
from pathlib import Path
from thaw.data import features
from thaw.data.features import hash_tensors, make_key
from thaw.data.transforms import EvaluationTransform
state = torch.load({str(images[0].with_name("state.pt"))!r})
images = [Path(path) for path in {list(map(str, images))!r}]
facts = "train mirror", EvaluationTransform(resize=36, crop=32), 32, "32-true", "cpu"
print(make_key(hash_tensors(state), images, *facts))
"""
    assert run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == (
        key_of(module, images) + "\n"
    )


def change_weight(module: nn.Module) -> None:
    next(module.parameters()).data.view(-1)[5] += 1e-7


def change_buffer(module: nn.Module) -> None:
    module.get_submodule("1").get_buffer("running_mean")[0] = 1e-7


def change_counter(module: nn.Module) -> None:
    module.get_submodule("1").get_buffer("num_batches_tracked").add_(1)


def change_type(module: nn.Module) -> None:
    module.double()


def change_shape(module: nn.Module) -> None:
    weight = module.get_submodule("2").get_parameter("weight")
    weight.data = weight.data.view(4, 2)


@pytest.mark.parametrize("change", [change_weight, change_buffer, change_counter, change_type, change_shape])
def test_another_tensor_has_another_key(
    module: nn.Module, images: list[Path], change: Callable[[nn.Module], None]
) -> None:
    before = key_of(module, images)
    change(module)
    assert key_of(module, images) != before


def test_other_images_have_another_key(module: nn.Module, images: list[Path]) -> None:
    keys = [key_of(module, chosen) for chosen in (images, images[::-1], images[:2], [*images, images[0]])]
    images[1].write_bytes(b"other pixels")
    keys.append(key_of(module, images))
    stat = images[1].stat()
    os.utime(images[1], ns=(stat.st_atime_ns, stat.st_mtime_ns + 1000))
    keys.append(key_of(module, images))
    images[1].rename(images[1].with_name("renamed.png"))
    keys.append(key_of(module, [images[0], images[1].with_name("renamed.png"), images[2]]))
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("package", ["thaw", "torch", "torchvision", "pillow"])
def test_another_version_has_another_key(
    module: nn.Module, images: list[Path], monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    before, known = key_of(module, images), features.version
    monkeypatch.setattr(features, "version", lambda name: known(name) + "+other" * (name == package))
    features._versions.cache_clear()
    after = key_of(module, images)
    features._versions.cache_clear()
    assert after != before


def test_another_fact_has_another_key(module: nn.Module, images: list[Path]) -> None:
    facts: list[tuple[Any, ...]] = [
        FACTS,
        ("evaluation", *FACTS[1:]),
        ("train 4 0", *FACTS[1:]),
        (FACTS[0], EvaluationTransform(resize=36, crop=28), *FACTS[2:]),
        (FACTS[0], EvaluationTransform(resize=(36, 36), crop=32), *FACTS[2:]),
        (FACTS[0], EvaluationTransform(resize=36, crop=32, mean=(0.5, 0.5, 0.5)), *FACTS[2:]),
        (*FACTS[:2], 64, *FACTS[3:]),
        (*FACTS[:3], "bf16-mixed", "cpu"),
        (*FACTS[:4], "cuda"),
        (*FACTS, "more"),
        (f"train 4 0 {AugmentConfig()}", *FACTS[1:]),
        (f"train 4 0 {AugmentConfig(flip=0)}", *FACTS[1:]),
    ]
    keys = [key_of(module, images, each) for each in facts]
    assert len(set(keys)) == len(keys)


# ---- the store


def test_features_are_computed_once(tmp_path: Path) -> None:
    features = torch.randn(2, 5, 3)
    compute = Computed(features)
    for _ in range(3):
        assert torch.equal(FeatureStore(tmp_path).get("key", compute), features)
    assert compute.times == 1
    FeatureStore(tmp_path).get("another", compute)
    assert compute.times == 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_features_come_back_as_they_were(tmp_path: Path, dtype: torch.dtype) -> None:
    features = torch.randn(4, 6).to(dtype).T  # not contiguous
    FeatureStore(tmp_path).get("key", lambda: features)
    back = FeatureStore(tmp_path).get("key", Computed(torch.empty(0)))
    assert back.dtype == dtype
    assert torch.equal(back, features)


def test_other_users_may_read_what_the_umask_lets_them(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        FeatureStore(tmp_path).get("key", lambda: torch.ones(3))
    finally:
        os.umask(before)
    (file,) = tmp_path.iterdir()
    assert file.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("part", [0.0, 0.3, 0.99])
def test_a_torn_file_is_computed_anew(tmp_path: Path, part: float) -> None:
    features = torch.randn(50, 3)
    FeatureStore(tmp_path).get("key", lambda: features)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[: int(part * file.stat().st_size)])
    compute = Computed(features)
    for _ in range(2):
        assert torch.equal(FeatureStore(tmp_path).get("key", compute), features)
    assert compute.times == 1


def test_the_oldest_leave_where_the_bound_is_passed(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path, gigabytes=3500e-9)  # three of 1000 bytes and their headers
    a, b, c, d = (letter * 64 for letter in "abcd")
    for number, key in enumerate((a, b, c)):
        store.get(key, lambda: torch.zeros(250))
        os.utime(tmp_path / f"{key}.safetensors", (number, number))
    store.get(a, lambda: torch.zeros(250))  # used again, so b is the oldest
    store.get(d, lambda: torch.zeros(250))
    assert sorted(path.stem for path in tmp_path.iterdir()) == [a, c, d]
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 3500


def test_what_is_larger_than_the_bound_is_not_kept_which_is_said_and_drives_nothing_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = FeatureStore(tmp_path, gigabytes=2000e-9)
    store.get("small", lambda: torch.zeros(100))
    assert len(store.get("large", lambda: torch.zeros(5000))) == 5000
    assert [path.stem for path in tmp_path.iterdir()] == ["small"]
    assert caplog.messages == [
        "Features of 2e-05 GB are not stored, as more than 2e-06 GB in all are not kept. To have them the next time, "
        "raise the environment's THAW_CACHE_GB."
    ]


@pytest.mark.parametrize("value", ["0", "0.000001"])
def test_the_bound_is_read_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("THAW_CACHE", str(tmp_path))
    monkeypatch.setenv("THAW_CACHE_GB", value)
    assert FeatureStore().folder == tmp_path / "features"
    assert FeatureStore().gigabytes == float(value)


def test_a_folder_that_cannot_be_written_costs_nothing_but_time(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    features = torch.randn(5, 3)
    compute = Computed(features)
    for _ in range(2):
        assert torch.equal(FeatureStore(tmp_path / "file").get("key", compute), features)
    assert compute.times == 2
    assert (tmp_path / "file").read_text() == "not a folder"


def test_a_folder_that_can_only_be_read_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def touch(path: Path) -> None:
        raise PermissionError(errno.EROFS, "Read-only file system")

    compute = Computed(torch.randn(5, 3))
    FeatureStore(tmp_path).get("key", compute)
    monkeypatch.setattr(Path, "touch", touch)
    assert torch.equal(FeatureStore(tmp_path).get("key", compute), compute.features)
    assert compute.times == 1


def test_nothing_but_the_features_is_left_behind(tmp_path: Path) -> None:
    FeatureStore(tmp_path).get("key", lambda: torch.randn(5, 3))
    assert [path.name for path in tmp_path.iterdir()] == ["key.safetensors"]


def test_a_full_disk_costs_nothing_but_time(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))  # as on a full disk
    try:
        assert len(FeatureStore(tmp_path).get("key", lambda: torch.zeros(5000))) == 5000
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


def test_two_stores_at_once_never_read_half_a_file(tmp_path: Path) -> None:
    features = torch.arange(100_000.0)

    def slow() -> Tensor:
        time.sleep(0.01)
        return features

    def get_some(_: int) -> bool:
        store = FeatureStore(tmp_path)
        return all(torch.equal(store.get(f"key{number}", slow), features) for number in range(5))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(get_some, range(4)))
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"key{number}.safetensors" for number in range(5)]


def test_what_a_kill_has_left_counts_and_leaves_too(tmp_path: Path) -> None:
    left = tmp_path / f".{'0' * 64}.safetensors.89abcdef.part"
    left.write_bytes(bytes(10_000))
    os.utime(left, (0, 0))
    FeatureStore(tmp_path, gigabytes=12_000 / 1e9).get("a", Computed(torch.zeros(1000)))
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


def test_files_of_others_stay_and_do_not_count(tmp_path: Path) -> None:
    for name in ("notes.txt", "model.safetensors", f"{'0' * 64}.part", "download.part"):
        (tmp_path / name).write_bytes(bytes(10_000))
    (tmp_path / "folder").mkdir()
    before = set(tmp_path.iterdir())
    FeatureStore(tmp_path, gigabytes=6_000 / 1e9).get("a" * 64, Computed(torch.zeros(1000)))
    assert set(tmp_path.iterdir()) == before | {tmp_path / f"{'a' * 64}.safetensors"}


@pytest.mark.parametrize("value", ["4 GB", "nan", "inf", "-1", ""])
def test_a_bound_that_is_no_size_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("THAW_CACHE_GB", value)
    with pytest.raises(ThawError, match=f"THAW_CACHE_GB must be a number of gigabytes, 0 or more, got '{value}'"):
        FeatureStore(tmp_path)
