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
from test_stopping import Line, epoch_in
from test_stopping import fit as fit_line
from torch.utils.data import DataLoader, TensorDataset

from thaw.config import OptimizerConfig, StrategyConfig
from thaw.data.transforms import EvaluationTransform
from thaw.errors import ThawError
from thaw.model.classifier import Classifier
from thaw.training import step_losses
from thaw.training.step_losses import LossBar, StepLosses

NO_FILE = Path("last.ckpt")


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


def test_of_batches_that_share_a_step_each_has_its_own_loss() -> None:
    losses, steps = Losses(), StepLosses(NO_FILE, speaks=False)
    trainer = fit(7, [steps, losses], accumulate_grad_batches=3)
    shares = [1 / 3] * 6 + [1.0]  # the last batch has a step to itself
    assert steps.losses == pytest.approx([loss / share for loss, share in zip(losses.values, shares, strict=True)])
    assert sum(steps.losses) / 7 == pytest.approx(float(trainer.callback_metrics["train/loss"]))


def test_the_logger_has_the_mean_loss_of_every_fifty_steps(tmp_path: Path) -> None:
    losses = Losses()
    logger = TensorBoardLogger(tmp_path, name="", version="events", default_hp_metric=False)
    fit(120, [StepLosses(NO_FILE, speaks=False), losses], max_epochs=2, logger=logger)
    logged = EventAccumulator(str(tmp_path / "events")).Reload().Scalars("train/loss_50_steps")
    starts = [0, 50, 120, 170]  # an epoch begins anew
    assert [event.step for event in logged] == [start + 50 for start in starts]
    expected = [sum(losses.values[start : start + 50]) / 50 for start in starts]
    assert [event.value for event in logged] == pytest.approx(expected)


def test_a_short_epoch_logs_no_steps(tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path, name="", version="events", default_hp_metric=False)
    fit(49, [StepLosses(NO_FILE, speaks=False)], logger=logger)
    assert "train/loss_50_steps" not in EventAccumulator(str(tmp_path / "events")).Reload().Tags()["scalars"]


def test_the_bar_shows_the_loss(capsys: pytest.CaptureFixture[str]) -> None:
    steps, losses = StepLosses(NO_FILE, speaks=False), Losses()
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
    monkeypatch.setattr(step_losses, "SECONDS_OF_SILENCE", seconds)
    caplog.set_level(logging.INFO)
    fit(120, [StepLosses(NO_FILE, speaks)])
    lines = [record.getMessage() for record in caplog.records if record.name == step_losses.__name__]
    assert len(lines) == expected
    if lines:
        assert lines[1].startswith("epoch 1/1 | batch 100 of 120 | train loss ")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_is_named_and_nothing_of_it_is_kept(tmp_path: Path, bad: float) -> None:
    with pytest.raises(ThawError) as caught:
        fit_line(Line((2, 1), bad), tmp_path)
    assert str(caught.value).startswith(f"train/loss is {bad} at step 2 of epoch 3: the training has diverged. ")
    assert all(part in str(caught.value) for part in ("optimizer.lr", "trainer.gradient_clip", str(tmp_path)))
    for name in ("best", "last"):
        content = torch.load(tmp_path / f"{name}.ckpt", weights_only=True)
        assert content["epoch"] == 1
        assert content["state_dict"]["weight"].isfinite().all()


def test_the_first_bad_step_is_found_where_the_losses_are_looked_at_later(tmp_path: Path) -> None:
    class Late(StepLosses):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            self.on_device.append(outputs["loss"].detach())  # as on a GPU

    loader = DataLoader(TensorDataset(torch.ones(4)))
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", callbacks=[Late(NO_FILE, speaks=False)], logger=False,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False, num_sanity_val_steps=0,
    )  # fmt: skip
    with pytest.raises(ThawError, match="train/loss is nan at step 3 of epoch 1"):
        trainer.fit(Line((0, 2), float("nan")), loader, loader)


def test_a_weight_that_the_last_step_breaks_is_found_by_the_validation(tmp_path: Path) -> None:
    with pytest.raises(ThawError, match="val/loss is nan after epoch 2"):
        fit_line(Line(breaks_weight=True), tmp_path)
    assert [epoch_in(tmp_path / f"{name}.ckpt") for name in ("best", "last")] == [1, 1]
