import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.data import DataLoader, TensorDataset

from thaw.config import OptimizerConfig, StrategyConfig
from thaw.data.transforms import EvaluationTransform
from thaw.model.classifier import Classifier
from thaw.training import step_log
from thaw.training.step_log import LossBar, StepLog


class Losses(pl.Callback):
    """What the steps' losses are."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.values.append(float(outputs["loss"]))


def fit(num_steps: int, callbacks: Sequence[pl.Callback], max_epochs: int = 1, **flags: Any) -> pl.Trainer:
    """Train a head on random features, two a step."""
    torch.manual_seed(0)
    features, labels = torch.randn(2 * num_steps, 512), torch.arange(2 * num_steps) % 2
    model = Classifier(
        "squeezenet1_1",
        ["ants", "bees"],
        EvaluationTransform(36, 32),
        strategy=StrategyConfig(),
        optimizer=OptimizerConfig(lr=0.01),
    )
    trainer = pl.Trainer(
        max_epochs=max_epochs,
        accelerator="cpu",
        callbacks=list(callbacks),
        enable_checkpointing=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        **{"logger": False, "enable_progress_bar": False, **flags},
    )
    data = TensorDataset(features, labels)
    trainer.fit(model, DataLoader(data, 2), DataLoader(data, 2 * num_steps))
    return trainer


def test_the_logger_has_the_mean_loss_of_every_fifty_steps(tmp_path: Path) -> None:
    losses = Losses()
    logger = TensorBoardLogger(tmp_path, name="", version="events", default_hp_metric=False)
    fit(120, [StepLog(speaks=False), losses], max_epochs=2, logger=logger)
    logged = EventAccumulator(str(tmp_path / "events")).Reload().Scalars("train/loss_50_steps")
    starts = [0, 50, 120, 170]  # an epoch begins anew
    assert [event.step for event in logged] == [start + 50 for start in starts]
    expected = [sum(losses.values[start : start + 50]) / 50 for start in starts]
    assert [event.value for event in logged] == pytest.approx(expected)


def test_a_short_epoch_logs_no_steps(tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path, name="", version="events", default_hp_metric=False)
    fit(49, [StepLog(speaks=False)], logger=logger)
    assert "train/loss_50_steps" not in EventAccumulator(str(tmp_path / "events")).Reload().Tags()["scalars"]


def test_the_bar_shows_the_loss(capsys: pytest.CaptureFixture[str]) -> None:
    steps, losses = StepLog(speaks=False), Losses()
    shown: list[dict[str, Any]] = []

    class Shown(LossBar):
        def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
            shown.append(super().get_metrics(trainer, pl_module))
            return shown[-1]

    fit(3, [steps, losses, bar := Shown(steps)], enable_progress_bar=True)
    assert isinstance(bar, RichProgressBar)
    assert shown[-1] == {"loss": f"{sum(losses.values) / 3:.4f}"}
    printed = capsys.readouterr().out
    assert "Epoch 1/1 " in printed
    assert "Epoch 0" not in printed


@pytest.mark.parametrize(("speaks", "seconds", "expected"), [(True, 0.0, 2), (True, 3600.0, 0), (False, 0.0, 0)])
def test_a_long_epoch_gives_a_sign_of_life_where_there_is_no_bar(
    speaks: bool, seconds: float, expected: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(step_log, "SECONDS_OF_SILENCE", seconds)
    caplog.set_level(logging.INFO)
    fit(120, [StepLog(speaks)])
    lines = [record.getMessage() for record in caplog.records if record.name == step_log.__name__]
    assert len(lines) == expected
    if lines:
        assert lines[1].startswith("epoch 1/1 | batch 100 of 120 | train loss ")
