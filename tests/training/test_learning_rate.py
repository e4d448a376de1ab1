import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from thaw.config import (
    BackboneConfig,
    Config,
    DatasetConfig,
    FindLrConfig,
    LoggerConfig,
    OptimizerConfig,
    StrategyConfig,
    TrainerConfig,
)
from thaw.errors import ThawError
from thaw.run import Run
from thaw.training.learning_rate import find_lr
from thaw.training.train import train

AUTO = OptimizerConfig(lr="auto")
GRADUAL = StrategyConfig("gradual", backbone_factor=0.3, head_epochs=2, unfreeze_epochs=2)


@pytest.fixture
def make(image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Config]:
    """Options of a small training on the CPU."""
    monkeypatch.setenv("THAW_CACHE", str(tmp_path / "cache"))

    def make(**groups: Any) -> Config:
        return Config(
            dataset=DatasetConfig(root=str(image_folder), image_size=64, batch_size=8),
            backbone=BackboneConfig("squeezenet1_1", None),
            trainer=TrainerConfig(max_epochs=3, accelerator="cpu", precision="32"),
            **{"logger": LoggerConfig("csv"), "find_lr": FindLrConfig(30, 1e-5, 10)} | groups,
        )

    return make


def last_state(folder: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    return state


def scalars(folder: Path) -> EventAccumulator:
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return events


def test_the_curve_is_drawn_and_in_tensorboard(
    make: Callable[..., Config], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "found"
    with caplog.at_level(logging.INFO, "thaw"):
        test = find_lr(make(optimizer=AUTO, logger=LoggerConfig()), folder)
    for rate in (test.valley, test.steepest):
        assert f"optimizer.lr={rate:g} " in caplog.text
    assert f"{len(test.rates)} steps from 1e-05" in caplog.text
    assert ("The loss never diverged up to find_lr.highest=" in caplog.text) == (not test.diverged)
    assert (folder / "figures" / "learning_rate.png").stat().st_size > 10_000
    assert not (folder / "checkpoints").exists()
    events = scalars(folder)
    assert [event.value for event in events.Scalars("find_lr/lr")] == pytest.approx(test.rates)
    assert [event.value for event in events.Scalars("find_lr/loss")] == pytest.approx(test.losses)
    assert events.Tags()["images"] == ["figures/learning_rate"]


def test_nothing_is_written_where_no_rate_is_found(make: Callable[..., Config], tmp_path: Path) -> None:
    with pytest.raises(ThawError, match=r"^No optimizer\.lr from 1e-12 to 1e-11 lowers the loss"):
        find_lr(make(find_lr=FindLrConfig(30, 1e-12, 1e-11)), tmp_path / "found")
    assert not (tmp_path / "found").exists()


@pytest.mark.slow
@pytest.mark.parametrize("strategy", [StrategyConfig(), GRADUAL])
def test_a_training_with_the_found_rate_is_the_one_started_with_it_by_hand(
    make: Callable[..., Config], strategy: StrategyConfig, tmp_path: Path
) -> None:
    config = make(optimizer=AUTO, strategy=strategy, logger=LoggerConfig())
    summary = train(config, tmp_path / "auto")
    rate = find_lr(make(strategy=strategy), tmp_path / "found").valley
    assert (summary["lr"], Run(tmp_path / "auto").config["optimizer"]["lr"]) == (rate, rate)
    assert config.optimizer.lr == "auto"
    by_hand = train(replace(config, optimizer=OptimizerConfig(lr=rate)), tmp_path / "hand")
    assert by_hand["last"] == summary["last"]
    auto, hand = last_state(tmp_path / "auto"), last_state(tmp_path / "hand")
    assert [name for name in auto if not torch.equal(auto[name], hand[name])] == []
    assert (tmp_path / "auto" / "figures" / "learning_rate.png").exists()
    assert not (tmp_path / "hand" / "figures" / "learning_rate.png").exists()
    assert f"{rate}" in (tmp_path / "auto" / "config.yaml").read_text()


@pytest.mark.slow
def test_a_resumed_run_keeps_the_rate_that_it_began_with(
    make: Callable[..., Config], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "run"
    train(make(optimizer=AUTO), folder)
    content = OmegaConf.load(folder / "config.yaml")
    content.optimizer.lr = 0.0123  # what no search would find
    OmegaConf.save(content, folder / "config.yaml")
    longer = TrainerConfig(max_epochs=4, accelerator="cpu", precision="32")
    with caplog.at_level(logging.INFO, "thaw"):
        train(replace(make(optimizer=AUTO), trainer=longer, resume=str(folder)), folder)
    assert json.loads((folder / "summary.json").read_text())["lr"] == 0.0123
    assert "Range test" not in caplog.text
