"""Data sets at the edge of what can be trained on: each gives a right result or a sentence."""

import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from thaw.config import StrategyConfig
from thaw.data.transforms import EvaluationTransform
from thaw.errors import ThawError
from thaw.model.classifier import Classifier
from thaw.reading import read_metrics
from thaw.training.train import train

Train = Callable[..., dict[str, Any]]


def plant(root: Path, counts: dict[str, int], size: tuple[int, int] = (70, 80)) -> Path:
    """Images of noise in the folders, each class of a shade of its own."""
    generator = np.random.default_rng(0)
    for shade, (folder, count) in enumerate(counts.items()):
        (root / folder).mkdir(parents=True)
        for number in range(count):
            pixels = np.clip(generator.normal(60 + 60 * (shade % 3), 40, (*size, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / folder / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights in a file, so that there is a probe and are features."""
    torch.manual_seed(0)
    model = Classifier("squeezenet1_1", ["a", "b"], EvaluationTransform(64, 64), strategy=StrategyConfig())
    path = tmp_path_factory.mktemp("weights") / "random.pth"
    torch.save(model.backbone.network.state_dict(), path)
    return path


@pytest.fixture
def train_on(
    compose: Callable[..., DictConfig], weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Train:
    monkeypatch.setenv("THAW_CACHE", str(tmp_path / "cache"))

    def train_on(root: Path, *overrides: str) -> dict[str, Any]:
        options = [
            "dataset=folder", f"dataset.root={root}", "backbone=squeezenet1_1", f"backbone.weights={weights}",
            "dataset.image_size=64", "trainer=cpu", "trainer.precision=32", "trainer.max_epochs=2", "logger=csv",
        ]  # fmt: skip
        config: Any = OmegaConf.to_object(compose(*options, *overrides))
        return train(config, tmp_path / "run")

    return train_on


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["frozen", "finetune"])
@pytest.mark.parametrize(
    ("counts", "overrides"),
    [
        ({"train/a": 1, "train/b": 1, "val/a": 1, "val/b": 1}, []),
        ({f"{split}/{name}": 1 for split in ("train", "val") for name in "abcdefghij"}, ["dataset.batch_size=1"]),
        ({"train/a": 3, "train/b": 4, "val/a": 1, "val/b": 1}, ["dataset.batch_size=512", "dataset.drop_last=true"]),
        ({"train/a": 3, "train/b": 1, "val/a": 1}, ["dataset.balance=sampler"]),
    ],
    ids=["one image a class", "ten classes of one image", "a batch larger than the data", "val lacks a class"],
)
def test_little_data_is_trained_on_to_the_end(
    counts: dict[str, int], overrides: list[str], strategy: str, train_on: Train, tmp_path: Path
) -> None:
    root = plant(tmp_path / "images", counts)
    summary = train_on(root, f"strategy={strategy}", *overrides)
    assert summary["epochs"] == 2
    assert summary["classes"] == sorted({Path(folder).name for folder in counts})
    assert summary["val"]["n"] == sum(n for folder, n in counts.items() if "val" in folder)
    rows = read_metrics(tmp_path / "run" / "metrics.csv")
    assert all(np.isfinite(row[name]) for row in rows for name in ("train/loss", "val/loss", "val/acc"))


@pytest.mark.parametrize(
    ("counts", "overrides", "message"),
    [
        ({"train/a": 4, "val/a": 2}, [], "train must have images of at least two classes, got one: 'a'"),
        ({"a": 1, "b": 1}, [], "dataset.val_fraction must give val an image of each class"),
        ({"train/a": 2, "train/b": 2, "val/a": 0}, [], "val"),
        ({"train/a": 0, "train/b": 0, "val/a": 1}, [], "dataset.root has no"),
        ({"a": 2, "b": 2}, ["dataset.num_folds=3", "dataset.fold=0"], "dataset.num_folds=3 needs as many images"),
    ],
    ids=["one class", "nothing left to validate on", "empty val", "empty train", "more folds than images"],
)
def test_too_little_data_is_a_sentence(
    counts: dict[str, int], overrides: list[str], message: str, train_on: Train, tmp_path: Path
) -> None:
    with pytest.raises(ThawError) as caught:
        train_on(plant(tmp_path / "images", counts), *overrides)
    assert message in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("size", [(1, 1), (1, 90), (90, 1), (2, 3)])
def test_images_of_a_pixel_are_enlarged(size: tuple[int, int], train_on: Train, tmp_path: Path) -> None:
    counts = {"train/a": 2, "train/b": 2, "val/a": 1, "val/b": 1}
    assert train_on(plant(tmp_path / "images", counts, size), "strategy=finetune")["epochs"] == 2


@pytest.mark.slow
@pytest.mark.parametrize("cache", ["ram", "none"])
@pytest.mark.parametrize("size", [(1, 10**6), (10**6, 1)])
def test_a_line_of_a_million_pixels_takes_little_memory(
    size: tuple[int, int], cache: str, train_on: Train, tmp_path: Path
) -> None:
    root = plant(tmp_path / "images", {"train/a": 1, "train/b": 1, "val/a": 1, "val/b": 1}, size)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert train_on(root, "strategy=frozen", f"dataset.cache={cache}")["epochs"] == 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # KiB


@pytest.mark.slow
def test_a_rate_that_is_far_too_high_stops_the_training_by_name(train_on: Train, tmp_path: Path) -> None:
    root = plant(tmp_path / "images", {"a": 6, "b": 6})
    with pytest.raises(ThawError, match=r"(train|val)/loss is (nan|inf) .*epoch [12].* Lower optimizer\.lr"):
        train_on(root, "strategy=finetune", "optimizer.lr=1e30", "dataset.batch_size=2")
