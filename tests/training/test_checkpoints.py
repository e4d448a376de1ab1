from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from thaw.training.checkpoints import BestCheckpoint, LastCheckpoint
from thaw.training.stopping import LastStep, PhaseEarlyStopping

NAN = float("nan")


class Scripted(pl.LightningModule):
    """Its validation metric is, in each epoch, the next of a list; it notes its epochs."""

    def __init__(self, scores: Sequence[float], metric: str = "val/acc") -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.scores = scores
        self.metric = metric
        self.trained: list[int] = []
        self.validated: list[int] = []

    def on_train_epoch_start(self) -> None:
        self.trained.append(self.current_epoch)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return self.weight.sum()

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log(self.metric, torch.tensor(self.scores[self.current_epoch]))

    def on_validation_epoch_end(self) -> None:
        self.validated.append(self.current_epoch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)


def fit(
    model: Scripted, *callbacks: pl.Callback, resume: Path | None = None, num_batches: int = 2, **flags: Any
) -> None:
    """Train by a few batches an epoch, as many epochs as there are scores."""
    loader = DataLoader(TensorDataset(torch.zeros(num_batches, 1)))
    trainer = pl.Trainer(
        max_epochs=len(model.scores),
        accelerator="cpu",
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=any(isinstance(callback, pl.callbacks.Checkpoint) for callback in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **flags,
    )
    trainer.fit(model, loader, loader, ckpt_path=resume, weights_only=True)


def epoch_in(path: Path) -> int:
    """The epoch, from 0, of which a checkpoint is."""
    epoch: int = torch.load(path, weights_only=True)["epoch"]
    return epoch


# ---- best.ckpt


@pytest.mark.parametrize(
    ("metric", "ties", "scores", "best"),
    [
        ("val/acc", "first", [0.5, 0.7, 0.7, 0.6], 1),
        ("val/acc", "last", [0.5, 0.7, 0.7, 0.6], 2),
        ("val/acc", "last", [0.7, 0.6, 0.7, 0.7], 3),
        ("val/acc", "first", [0.5, 0.7, 0.7, 0.8], 3),
        ("val/acc", "last", [0.5, 0.7, 0.7, 0.8], 3),
        ("val/loss", "first", [0.5, 0.2, 0.2, 0.3], 1),
        ("val/loss", "last", [0.5, 0.2, 0.2, 0.3], 2),
        ("val/macro_f1", "first", [0.1, 0.3, 0.3], 1),
        ("val/acc", "first", [NAN, 0.1, NAN], 1),
        ("val/loss", "last", [NAN, 0.1, NAN], 1),
    ],
)
def test_the_best_epoch_is_kept_and_of_equals_the_first_or_the_last(
    tmp_path: Path, metric: str, ties: str, scores: list[float], best: int
) -> None:
    checkpoint = BestCheckpoint(tmp_path, metric, ties, "min" if metric == "val/loss" else "max")
    fit(Scripted(scores, metric), checkpoint)
    assert Path(checkpoint.best_model_path) == tmp_path / "best.ckpt"
    assert [path.name for path in tmp_path.iterdir()] == ["best.ckpt"]
    assert epoch_in(tmp_path / "best.ckpt") == best


def test_the_best_epoch_is_kept_without_the_optimizer_and_under_an_average_with_that(tmp_path: Path) -> None:
    last = LastCheckpoint(tmp_path / "plain", 0)
    fit(Scripted([0.5, 0.9]), BestCheckpoint(tmp_path / "plain", "val/acc", "first"), last)
    best, full = (torch.load(tmp_path / "plain" / name, weights_only=True) for name in ("best.ckpt", "last.ckpt"))
    assert full.keys() - best.keys() >= {"optimizer_states", "callbacks"}
    assert best["state_dict"].keys() == full["state_dict"].keys()
    averaged = BestCheckpoint(tmp_path / "averaged", "val/acc", "first")
    fit(Scripted([0.5, 0.9]), averaged, pl.callbacks.WeightAveraging(avg_fn=lambda mean, *_: torch.zeros_like(mean)))
    weights = torch.load(tmp_path / "averaged" / "best.ckpt", weights_only=True)["state_dict"].values()
    assert not any(value.any() for value in weights)


@pytest.mark.parametrize("ties", ["first", "last"])
def test_a_resumed_training_keeps_the_best_epoch_from_before(tmp_path: Path, ties: str) -> None:
    fit(Scripted([0.5, 0.9]), BestCheckpoint(tmp_path, "val/acc", ties), LastCheckpoint(tmp_path, 0))
    resumed = Scripted([0.5, 0.9, 0.8, 0.9])
    fit(resumed, BestCheckpoint(tmp_path, "val/acc", ties), resume=tmp_path / "last.ckpt")
    assert resumed.trained == [2, 3]
    assert epoch_in(tmp_path / "best.ckpt") == (1 if ties == "first" else 3)


@pytest.mark.parametrize("ties", ["first", "last"])
def test_a_run_that_was_moved_keeps_its_best_epoch(tmp_path: Path, ties: str) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    fit(Scripted([0.5, 0.9]), BestCheckpoint(old, "val/acc", ties), LastCheckpoint(old, 0))
    old.rename(new)
    best = BestCheckpoint(new, "val/acc", ties)
    fit(Scripted([0.5, 0.9, 0.8, 0.9]), best, resume=new / "last.ckpt")
    assert epoch_in(new / "best.ckpt") == (1 if ties == "first" else 3)
    assert Path(best.best_model_path) == new / "best.ckpt"
    assert not old.exists()


@pytest.mark.parametrize(
    ("scores", "best", "score"),
    [
        ([0.5, 0.6, 0.9, 0.8], 2, 0.9),
        ([0.5, 0.6, 0.3, 0.4], 3, 0.4),
        ([0.5, 0.6, 0.4], 2, 0.4),
        ([0.5, 0.6], None, None),
    ],
    ids=["the same epochs", "worse ones", "one of them", "none of them"],
)
def test_a_best_epoch_that_a_resumed_training_goes_back_behind_is_forgotten(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, scores: list[float], best: int | None, score: float | None
) -> None:
    last = tmp_path / "last.ckpt"
    fit(Scripted([0.5, 0.6]), BestCheckpoint(tmp_path, "val/acc", "first"), LastCheckpoint(tmp_path, 0))
    fit(Scripted([0.5, 0.6, 0.9, 0.8]), BestCheckpoint(tmp_path, "val/acc", "first"), resume=last)
    assert (epoch_in(last), epoch_in(tmp_path / "best.ckpt")) == (1, 2)
    checkpoint = BestCheckpoint(tmp_path, "val/acc", "first")
    fit(Scripted(scores), checkpoint, resume=last)
    assert (epoch_in(tmp_path / "best.ckpt") if checkpoint.best_model_path else None) == best
    assert checkpoint.best_model_score == (None if score is None else pytest.approx(score))
    assert caplog.text.count(f"{tmp_path}/best.ckpt is of epoch 3, and last.ckpt of epoch 2: ") == 1


def test_a_best_epoch_that_was_removed_is_forgotten(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fit(Scripted([0.5, 0.9]), BestCheckpoint(tmp_path, "val/acc", "first"), LastCheckpoint(tmp_path, 0))
    (tmp_path / "best.ckpt").unlink()
    fit(Scripted([0.5, 0.9, 0.8]), BestCheckpoint(tmp_path, "val/acc", "first"), resume=tmp_path / "last.ckpt")
    assert epoch_in(tmp_path / "best.ckpt") == 2
    assert "best.ckpt is missing, and last.ckpt of epoch 2: " in caplog.text


# ---- last.ckpt


class Witness(pl.Callback):
    """The epoch in `last.ckpt`, if there is one, as each epoch begins."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "last.ckpt"
        self.seen: list[int | None] = []

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.seen.append(epoch_in(self.path) if self.path.exists() else None)


@pytest.mark.parametrize(("seconds", "seen"), [(0, [None, 0, 1]), (3600, [None, None, None])])
def test_last_is_written_by_time_and_at_the_end(tmp_path: Path, seconds: float, seen: list[int | None]) -> None:
    witness = Witness(tmp_path)
    fit(Scripted([0.9, 0.1, 0.1]), LastCheckpoint(tmp_path, seconds), witness)
    assert witness.seen == seen
    assert epoch_in(tmp_path / "last.ckpt") == 2


def test_last_is_written_where_the_training_is_stopped_early(tmp_path: Path) -> None:
    model = Scripted([0.5] * 9)
    fit(model, LastCheckpoint(tmp_path, 3600), PhaseEarlyStopping("val/acc", 2, [0]))
    assert model.trained == [0, 1, 2]
    assert epoch_in(tmp_path / "last.ckpt") == 2


def test_last_is_written_where_max_steps_end_the_training(tmp_path: Path) -> None:
    model = Scripted([0.5] * 9)
    fit(model, LastCheckpoint(tmp_path, 3600), LastStep(5))
    assert model.trained == [0, 1, 2]
    assert (tmp_path / "last.ckpt").exists()


def test_best_and_last_are_two_files(tmp_path: Path) -> None:
    fit(Scripted([0.9, 0.1, 0.1]), BestCheckpoint(tmp_path, "val/acc", "first"), LastCheckpoint(tmp_path, 3600))
    assert {path.name: epoch_in(path) for path in tmp_path.iterdir()} == {"best.ckpt": 0, "last.ckpt": 2}
