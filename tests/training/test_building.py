import logging
from pathlib import Path

import pytest

from thaw.config import BackboneConfig, Config, DatasetConfig, StrategyConfig
from thaw.errors import ThawError
from thaw.training.building import build


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
