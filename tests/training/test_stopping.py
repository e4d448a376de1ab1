import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from test_checkpoints import Scripted
from test_checkpoints import fit as fit_scripted
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from thaw.signals import Interrupted, catching
from thaw.training.checkpoints import BestCheckpoint, LastCheckpoint, WholeFileIO
from thaw.training.step_losses import StepLosses
from thaw.training.stopping import Interruption, PhaseEarlyStopping
from thaw.training.validation import EvaluationEpochs


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
    best, last = BestCheckpoint(folder, "val/loss", "first", "min"), LastCheckpoint(folder, seconds)
    trainer = pl.Trainer(
        max_epochs=4,
        accelerator="cpu",
        callbacks=[
            StepLosses(last.path, speaks=False),
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


# ---- early stopping


@pytest.mark.parametrize(
    ("scores", "patience", "phase_starts", "num_epochs"),
    [
        ([0.5] * 9, 2, [0], 3),
        ([0.5, 0.6, 0.6, 0.7, 0.7, 0.7, 0.9], 2, [0], 6),
        ([0.1, 0.2, 0.3, 0.4], 1, [0], 4),
        ([0.5] * 9, 2, [0, 4], 6),
        ([0.5] * 9, 2, [0, 1], 3),
        ([0.5] * 9, 1, [0, 2, 5], 6),
        ([0.5, 0.4, 0.3, 0.2, 0.1, 0.1, 0.1], 3, [0, 3], 6),
        ([0.5] * 4, 2, [0, 3], 4),
        ([0.9, 0.1, 0.1, 0.1, 0.8, 0.95, 0.1, 0.1, 0.1], 2, [0, 4], 8),
    ],
)
def test_patience_counts_anew_in_each_phase_and_ends_in_the_last_alone(
    scores: list[float], patience: int, phase_starts: list[int], num_epochs: int
) -> None:
    model = Scripted(scores)
    fit_scripted(model, PhaseEarlyStopping("val/acc", patience, phase_starts))
    assert model.trained == list(range(num_epochs))


@pytest.mark.parametrize(
    ("scores", "patience", "said"),
    [
        ([0.5] * 9, 2, "the last 2 validations\n"),
        ([0.5] * 9, 1, "the last validation\n"),
        ([0.1, 0.2, 0.3], 2, ""),
        ([0.5] * 10, 9, ""),
    ],
)
def test_an_early_end_is_told(scores: list[float], patience: int, said: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        fit_scripted(Scripted(scores), PhaseEarlyStopping("val/acc", patience, [0]))
    assert caplog.text.partition("Stopped early: val/acc has not improved in ")[2] == said


def test_an_end_that_waits_for_the_least_number_of_epochs_is_told(caplog: pytest.LogCaptureFixture) -> None:
    model, stopping = Scripted([0.5] * 9), PhaseEarlyStopping("val/acc", 2, [0])
    with caplog.at_level("INFO"):
        fit_scripted(model, stopping, min_epochs=6)
    assert model.trained == list(range(6))
    assert stopping.ended == 9
    assert caplog.text.endswith("Stopped early: val/acc has not improved in the last 5 validations\n")


def test_a_value_that_is_no_number_is_no_improvement_and_no_end() -> None:
    nan = float("nan")
    model = Scripted([nan, 0.5, nan, 0.6, nan, nan, 0.9, 0.9])
    fit_scripted(model, PhaseEarlyStopping("val/acc", 2, [0]))
    assert model.trained == list(range(6))


def test_a_falling_loss_is_an_improvement() -> None:
    model = Scripted([0.5, 0.4, 0.3, 0.3, 0.3, 0.2], "val/loss")
    fit_scripted(model, PhaseEarlyStopping("val/loss", 2, [0], "min"))
    assert model.trained == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("every", [1, 2])
def test_patience_is_counted_in_validations(every: int) -> None:
    model = Scripted([0.5] * 9)
    fit_scripted(model, EvaluationEpochs(every), PhaseEarlyStopping("val/acc", 2, [0]))
    assert model.trained == list(range(3 * every))


@pytest.mark.parametrize("improves_last", [False, True])
def test_validations_within_an_epoch_end_the_training_after_it(improves_last: bool) -> None:
    class Twice(Scripted):
        def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
            is_better = improves_last and self.trainer.is_last_batch
            self.log(self.metric, torch.tensor(self.scores[self.current_epoch] + is_better * self.current_epoch))

    model = Twice([0.5] * 4)
    fit_scripted(model, PhaseEarlyStopping("val/acc", 2, [0]), val_check_interval=0.5)
    num_epochs = 4 if improves_last else 2
    assert (model.trained, model.global_step) == (list(range(num_epochs)), 2 * num_epochs)


def test_a_resumed_training_has_the_patience_that_is_asked_for_now(tmp_path: Path) -> None:
    fit_scripted(Scripted([0.5] * 9), PhaseEarlyStopping("val/acc", 2, [0]), LastCheckpoint(tmp_path, 0))
    resumed = Scripted([0.5] * 9)
    fit_scripted(resumed, PhaseEarlyStopping("val/acc", 5, [0]), resume=tmp_path / "last.ckpt")
    assert resumed.trained == [3, 4, 5]


def test_a_training_that_had_ended_ends_again_unless_more_is_asked_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fit_scripted(Scripted([0.5] * 9), PhaseEarlyStopping("val/acc", 2, [0]), LastCheckpoint(tmp_path, 0))
    for num_epochs, trained in ((9, []), (10, [3, 4])):
        caplog.clear()
        resumed = Scripted([0.5] * num_epochs)
        with caplog.at_level("INFO"):
            fit_scripted(resumed, PhaseEarlyStopping("val/acc", 2, [0]), resume=tmp_path / "last.ckpt")
        assert (resumed.trained, resumed.current_epoch) == (trained, 3 + len(trained))
        assert "Stopped early: val/acc has not improved in" in caplog.text


class StopInEpoch(pl.Callback):
    """Asks for the end, as Lightning's Timer does when `max_time` is over."""

    def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
        trainer.should_stop = trainer.should_stop or trainer.current_epoch == 1


def test_what_else_ends_the_training_ends_it_in_an_earlier_phase_too() -> None:
    model = Scripted([0.5] * 6)
    fit_scripted(model, StopInEpoch(), PhaseEarlyStopping("val/acc", 5, [0, 4]))
    assert model.trained == [0, 1]


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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
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


class EndedByLauncher(BaseException):
    """What a launcher ends a job by."""


def test_a_launchers_signal_is_passed_on_when_the_epoch_is_saved(tmp_path: Path) -> None:
    saved: list[bool] = []

    def launcher(*_: Any) -> None:
        saved.append((tmp_path / "last.ckpt").exists())
        raise EndedByLauncher

    previous = signal.signal(signal.SIGUSR2, launcher)
    try:
        with pytest.raises(EndedByLauncher), catching():
            fit(Line(), tmp_path, SendSignal(signal.SIGUSR2, epoch=1), seconds=3600)
        assert signal.getsignal(signal.SIGUSR2) is launcher
    finally:
        signal.signal(signal.SIGUSR2, previous)
    assert saved == [True]
    assert epoch_in(tmp_path / "last.ckpt") == 2


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
