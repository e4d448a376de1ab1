"""The callbacks of a training, by the options: ours, in the order in which Lightning calls them, and the user's own."""

from typing import Any, cast

import lightning.pytorch as pl
from lightning.pytorch.callbacks import WeightAveraging

from thaw.config import Config
from thaw.errors import ThawError
from thaw.instantiation import make
from thaw.model.strategy import phase_starts
from thaw.run import Run
from thaw.training.averaging import MovingAverage
from thaw.training.checkpoints import BestCheckpoint, LastCheckpoint
from thaw.training.one_thread import OneThread
from thaw.training.probe import LinearProbe
from thaw.training.progress import EpochLog
from thaw.training.pruning import TrialPruning, current_trial
from thaw.training.stopping import Interruption, LastStep, PhaseEarlyStopping


def make_callbacks(
    config: Config,
    run: Run,
    num_stages: int,
    epochs: EpochLog,
    probe: LinearProbe | None,
    mode: str,
) -> list[pl.Callback]:
    """Every callback that the options ask for.

    Args:
        config: The options.
        run: The folder that they write to.
        num_stages: Stages of the backbone.
        epochs: The log of epochs.
        probe: The linear probe.
        mode: `max` or `min`, whichever is better of `trainer.monitor`.

    Raises:
        ThawError: One of the user's own cannot be made.
    """
    options = config.trainer
    last = LastCheckpoint(run.checkpoints, options.checkpoint_seconds)
    callbacks: list[pl.Callback] = [
        epochs,
        BestCheckpoint(run.checkpoints, options.monitor, options.ties, mode),
        last,
        Interruption(last),
        OneThread(),
    ]
    if (max_steps := options.extra.get("max_steps", -1)) != -1:
        callbacks.append(LastStep(max_steps))
    if options.early_stopping:
        starts = phase_starts(config.strategy, options.max_epochs, num_stages)
        callbacks.append(PhaseEarlyStopping(options.monitor, options.early_stopping, starts, mode))
    if probe is not None:
        callbacks.append(probe)
    if options.ema_decay and options.max_epochs:
        callbacks.append(MovingAverage(options.ema_decay))
    if config.sweep.prune and (trial := current_trial(config.sweep)):
        callbacks.append(TrialPruning(trial, options.monitor, mode))
    callbacks += [_make_own(*each) for each in options.callbacks.items()]
    return callbacks


def _make_own(name: str, recipe: Any) -> pl.Callback:
    """A callback of the user's own, of `trainer.callbacks`."""
    callback = make(f"trainer.callbacks.{name}", recipe)
    if not isinstance(callback, pl.Callback):
        raise ThawError(f"trainer.callbacks.{name} must be a callback of lightning.pytorch, got {recipe['_target_']}.")
    if isinstance(callback, (pl.callbacks.LearningRateFinder, pl.callbacks.BatchSizeFinder)):
        raise ThawError(
            f"trainer.callbacks.{name} looks for options where Thaw has none: optimizer.lr=auto finds the rate, and "
            "dataset.batch_size is yours to set."
        )
    if isinstance(callback, pl.callbacks.ProgressBar):
        raise ThawError(f"trainer.callbacks.{name} is a progress bar, and a terminal has Thaw's: leave it out.")
    if isinstance(callback, pl.callbacks.BaseFinetuning):  # of a head on stored features it would thaw nothing
        raise ThawError(
            f"trainer.callbacks.{name} thaws a backbone, as the strategy does: use strategy=discriminative with "
            "strategy.head_epochs=N, or strategy=gradual."
        )
    if isinstance(callback, (pl.callbacks.StochasticWeightAveraging, WeightAveraging)):
        raise ThawError(f"trainer.callbacks.{name} averages weights: use trainer.ema_decay=0.999.")
    if isinstance(callback, pl.callbacks.EarlyStopping) and callback.monitor.startswith("val/"):
        callback._check_on_train_epoch_end = False  # but where it is validated, which trainer.eval_every says
    return cast(pl.Callback, callback)
