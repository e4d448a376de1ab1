import logging
from pathlib import Path
from shutil import copytree

import pytest

from thaw.config import AugmentConfig, BackboneConfig, Config, DatasetConfig, HeadConfig, StrategyConfig, TrainerConfig
from thaw.errors import ThawError
from thaw.training.building import build
from thaw.training.train import train


@pytest.mark.parametrize(("factor", "warns"), [(0.0, True), (1.0, False)])
def test_a_random_backbone_that_stays_frozen_is_warned_of(
    image_folder: Path, caplog: pytest.LogCaptureFixture, factor: float, warns: bool
) -> None:
    caplog.set_level(logging.WARNING)
    dataset, backbone = DatasetConfig(root=str(image_folder), image_size=64), BackboneConfig("squeezenet1_1", None)
    build(Config(dataset, backbone, strategy=StrategyConfig(backbone_factor=factor)))
    assert ("weights are random and stay so" in caplog.text) == warns


def test_a_missing_folder_of_images_is_told_before_weights_are_looked_for(tmp_path: Path) -> None:
    weights = str(tmp_path / "none.pth")
    with pytest.raises(ThawError, match=r"^dataset\.root is not a folder"):
        build(Config(DatasetConfig(root=str(tmp_path / "none")), BackboneConfig("squeezenet1_1", weights)))


def test_images_that_cannot_be_split_are_told_before_weights_are_looked_for(image_folder: Path, tmp_path: Path) -> None:
    images = copytree(image_folder / "train", tmp_path / "images")
    dataset = DatasetConfig(root=str(images), val_fraction=0.05)
    with pytest.raises(ThawError, match=r"^dataset\.val_fraction must give val an image of each class"):
        build(Config(dataset, BackboneConfig("squeezenet1_1", str(tmp_path / "none.pth"))))


def test_crops_that_cannot_grow_from_their_size_are_refused(image_folder: Path) -> None:
    dataset, backbone = DatasetConfig(root=str(image_folder), image_size=64), BackboneConfig("squeezenet1_1", None)
    with pytest.raises(ThawError, match=r"^augment\.start_size=16 does not suit backbone=squeezenet1_1: "):
        build(Config(dataset, backbone, augment=AugmentConfig(start_size=16)))
    with pytest.raises(ThawError, match=r"^augment\.start_size must be at most dataset\.image_size, .*64, got 65\.$"):
        build(Config(dataset, backbone, augment=AugmentConfig(start_size=65)))


@pytest.mark.slow
def test_what_becomes_of_the_head_of_an_earlier_run_is_told(image_folder: Path, tmp_path: Path) -> None:
    images = copytree(image_folder, tmp_path / "images")
    dataset = DatasetConfig(root=str(images), image_size=32, resize=32, num_workers=0)
    trainer = TrainerConfig(max_epochs=1, accelerator="cpu", progress_bar=False)
    train(Config(dataset, BackboneConfig("squeezenet1_1", None), trainer=trainer, figures=False), tmp_path / "run")
    backbone = BackboneConfig("squeezenet1_1", str(tmp_path / "run"))
    for init, told in (
        ("default", "; its head left out (head.init=weights takes it over)"),
        ("weights", "; head taken over"),
    ):
        *_, line = build(Config(dataset, backbone, HeadConfig(init)))
        assert line.endswith(told)
    for split in ("train", "val"):
        (images / split / "red").rename(images / split / "scarlet")
    *_, line = build(Config(dataset, backbone, HeadConfig("weights")))
    assert line.endswith("; head taken over but for the new classes scarlet")
    for split in ("train", "val"):
        for name in ("blue", "green"):
            (images / split / name).rename(images / split / f"dark {name}")
    *_, line = build(Config(dataset, backbone))
    assert line.endswith("; its head left out, for other classes")
