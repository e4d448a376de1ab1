import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from thaw.checkpoints import BestCheckpoint, LastCheckpoint, WholeFileIO
from thaw.errors import ThawError
from thaw.signals import Interrupted, catching
from thaw.stopping import FiniteLoss, Interruption


class Line(pl.LightningModule):
    """One weight; in some step its loss becomes what a test asks for, or the step leaves it broken."""

    def __init__(self, bad_step: tuple[int, int] = (-1, -1), bad: float = 1.0, breaks_weight: bool = False) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.bad_step, self.bad, self.breaks_weight = bad_step, bad, breaks_weight

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        loss = (self.weight * batch[0]).sum() ** 2
        return loss * self.bad if (self.current_epoch, batch_idx) == self.bad_step else loss

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self.breaks_weight and (self.current_epoch, batch_idx) == (1, 3):
            torch.nn.init.constant_(self.weight, float("nan"))

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("val/loss", (self.weight * batch[0]).sum())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01, momentum=0.9)


def fit(model: Line, folder: Path, *others: pl.Callback, seconds: float = 0.0, resume: Path | None = None) -> None:
    """Four epochs of four steps; `last.ckpt` after each epoch unless it is to wait."""
    loader = DataLoader(TensorDataset(torch.linspace(0.1, 1, 4)))
    best, last = BestCheckpoint(folder, "val/loss", "first"), LastCheckpoint(folder, seconds)
    trainer = pl.Trainer(
        max_epochs=4,
        accelerator="cpu",
        callbacks=[
            FiniteLoss(last.path),
            best,
            last,
            Interruption(last),
            *others,
        ],
        plugins=[WholeFileIO()],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(model, loader, loader, ckpt_path=resume, weights_only=True)


def epoch_in(path: Path) -> int:
    """The epoch, from 1, of which a checkpoint is."""
    return int(torch.load(path, weights_only=True)["epoch"]) + 1


# ---- numbers


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_is_named_and_nothing_of_it_is_kept(tmp_path: Path, bad: float) -> None:
    with pytest.raises(ThawError) as caught:
        fit(Line((2, 1), bad), tmp_path)
    assert str(caught.value).startswith(f"train/loss is {bad} at step 2 of epoch 3: the training has diverged. ")
    assert all(part in str(caught.value) for part in ("optimizer.lr", "trainer.gradient_clip", str(tmp_path)))
    for name in ("best", "last"):
        content = torch.load(tmp_path / f"{name}.ckpt", weights_only=True)
        assert content["epoch"] == 1
        assert content["state_dict"]["weight"].isfinite().all()


def test_the_first_bad_step_is_found_where_the_losses_are_looked_at_later(tmp_path: Path) -> None:
    class Late(FiniteLoss):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            self.losses.append(outputs["loss"].detach())  # as on a GPU

    loader = DataLoader(TensorDataset(torch.ones(4)))
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", callbacks=[Late(tmp_path / "last.ckpt")], logger=False,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False, num_sanity_val_steps=0,
    )  # fmt: skip
    with pytest.raises(ThawError, match="train/loss is nan at step 3 of epoch 1"):
        trainer.fit(Line((0, 2), float("nan")), loader, loader)


def test_a_weight_that_the_last_step_breaks_is_found_by_the_validation(tmp_path: Path) -> None:
    with pytest.raises(ThawError, match="val/loss is nan after epoch 2"):
        fit(Line(breaks_weight=True), tmp_path)
    assert [epoch_in(tmp_path / f"{name}.ckpt") for name in ("best", "last")] == [1, 1]


# ---- signals


class SendSignal(pl.Callback):
    """Sends this process a signal in the middle of an epoch."""

    def __init__(self, number: int, epoch: int, times: int = 1) -> None:
        self.number, self.epoch, self.times = number, epoch, times

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if (trainer.current_epoch, batch_idx) == (self.epoch, 2):
            for _ in range(self.times):
                os.kill(os.getpid(), self.number)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unbroken")
    fit(Line(), folder)
    return folder / "last.ckpt"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("seconds", "times", "saved"),
    [(0.0, 1, 1), (3600.0, 1, 2), (3600.0, 2, None)],
    ids=["at once", "after the epoch", "at once, by a second signal"],
)
def test_a_signal_ends_with_the_last_finished_epoch_saved(
    tmp_path: Path, unbroken: Path, number: int, seconds: float, times: int, saved: int | None
) -> None:
    with pytest.raises(Interrupted) as caught, catching():
        fit(Line(), tmp_path, SendSignal(number, epoch=1, times=times), seconds=seconds)
    assert caught.value.code == 128 + number
    last = tmp_path / "last.ckpt"
    assert (epoch_in(last) if last.exists() else None) == saved
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    if saved:
        fit(Line(), tmp_path, resume=last)
        states = [torch.load(path, weights_only=True) for path in (unbroken, last)]
        assert torch.equal(*(state["state_dict"]["weight"] for state in states))
        momenta = [state["optimizer_states"][0]["state"][0]["momentum_buffer"] for state in states]
        assert torch.equal(*momenta)


def test_a_failure_that_the_signal_has_caused_is_seen_as_the_signal(tmp_path: Path) -> None:
    class WorkerDies(SendSignal):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            if (trainer.current_epoch, batch_idx) == (self.epoch, 2):
                raise RuntimeError("DataLoader worker (pid 1) is killed by signal: Terminated.")

    with pytest.raises(Interrupted), catching():
        fit(Line(), tmp_path, WorkerDies(signal.SIGTERM, epoch=1), seconds=3600)


def test_a_notebook_keeps_its_own_ctrl_c(tmp_path: Path) -> None:
    seen: list[Callable[..., Any] | int | None] = []

    class Look(pl.Callback):
        def on_train_batch_start(self, *_: Any) -> None:
            seen.append(signal.getsignal(signal.SIGINT))

    fit(Line(), tmp_path, Look())
    assert set(seen) == {signal.default_int_handler}
