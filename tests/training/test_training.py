import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from thaw.config import BackboneConfig, Config, DatasetConfig, TrainerConfig
from thaw.errors import ThawError
from thaw.training.learning_rate import find_lr
from thaw.training.train import train


@pytest.mark.parametrize("program", [train, find_lr])
def test_a_machine_that_cannot_train_so_is_told_before_the_images_are_read(
    program: Callable[[Config, Path], Any], image_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    accelerator = "tpu" if torch.cuda.is_available() or torch.backends.mps.is_available() else "gpu"
    config = Config(
        dataset=DatasetConfig(root=str(image_folder)),
        backbone=BackboneConfig(weights=None),
        trainer=TrainerConfig(accelerator=accelerator),
    )
    with pytest.raises(ThawError, match=r"^trainer\.\* does not fit this machine"):
        program(config, tmp_path / "run")
    assert caplog.records == []
    assert not (tmp_path / "run").exists()
