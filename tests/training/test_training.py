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


def test_compiling_is_announced_and_done(
    image_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THAW_CACHE", str(tmp_path / "cache"))
    compiled: list[str] = []

    def compile_soon(module: torch.nn.Module, *_: Any, **__: Any) -> None:  # what it would take minutes to do
        compiled.append(type(module).__name__)

    monkeypatch.setattr(torch.nn.Module, "compile", compile_soon)
    config = Config(
        dataset=DatasetConfig(root=str(image_folder), image_size=32),
        backbone=BackboneConfig("squeezenet1_1", weights=None),
        trainer=TrainerConfig(max_epochs=1, compile=True),
        figures=False,
    )
    with caplog.at_level(logging.INFO, "thaw"):
        train(config, tmp_path / "run")
    assert compiled == ["Backbone"]
    assert "The first epoch compiles the backbone: some seconds on a GPU, up to minutes on a CPU" in caplog.messages
