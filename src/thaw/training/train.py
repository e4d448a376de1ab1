"""One training from options to summary: build, fit, test, summarise."""

import logging
import time
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import cast

import lightning.pytorch as pl
from lightning.pytorch.callbacks import LambdaCallback

from thaw.config import Config
from thaw.errors import name_some
from thaw.model.tensor_files import read_tensors
from thaw.ranks import writes
from thaw.run import Run
from thaw.summary import Seconds, Summary
from thaw.training.building import build, frozen_backbone
from thaw.training.checkpoints import BestCheckpoint
from thaw.training.closing import closing_lines
from thaw.training.learning_rate import announce_rate, settle_rate
from thaw.training.outcome import Training
from thaw.training.probe import LinearProbe
from thaw.training.resuming import (
    EarlierSeconds,
    earlier_seconds,
    require_later,
    require_own_checkpoint,
    require_own_folder,
    require_same_beginning,
)
from thaw.training.trainer import fit, make_trainer, prepare
from thaw.writing import claimed, naming_events

log = logging.getLogger(__name__)


def train(
    config: Config, folder: Path | str, command: str | None = None, callbacks: Iterable[pl.Callback] = ()
) -> Summary:
    """Train as the options say; everything about it is in the folder afterwards.

    Args:
        config: The options.
        folder: Where the run is kept; it is made.
        command: How the run was asked for, for the record.
        callbacks: Callbacks for the Trainer, beside those of `trainer.callbacks`.

    Returns:
        The content of `summary.json`, a dict.

    Raises:
        ThawError: The options do not fit the data, the weights or the machine.
        KeyboardInterrupt: Ctrl-C, or a notebook's button, has ended it, with its last finished epoch saved.
    """
    config = prepare(config)
    run = Run(folder)
    if config.resume:
        require_own_folder(run, config.resume)
        require_later(run, config.trainer.max_epochs)
        require_same_beginning(run, config)
    with claimed(run.folder, "folder"), naming_events(run.events):
        try:
            return _train(config, run, command, callbacks)
        except KeyboardInterrupt:
            if run.last.exists() and writes():
                place = str(run.folder)
                log.warning(f"To go on from the last saved epoch: train(compose({f'resume={place}'!r}), {place!r})")
            raise


def _train(config: Config, run: Run, command: str | None, callbacks: Iterable[pl.Callback]) -> Summary:
    started = time.perf_counter()
    earlier = earlier_seconds(run) if config.resume else EarlierSeconds()
    data, model, weights_line = build(run.find_again(config) if config.resume else config)
    if config.resume:
        require_own_checkpoint(run.last, model, config.trainer)  # before the run is changed
    config, range_test = settle_rate(config, run, data, model)
    probe = LinearProbe(data, config.starts_from_probe) if config.has_probe else None

    def record(trainer: pl.Trainer, _: pl.LightningModule) -> None:
        if trainer.is_global_zero:
            run.write_config(config)

    if config.resume:  # the options that it goes on with, once it does; and where no epoch is left
        callbacks = [*callbacks, LambdaCallback(on_train_start=record, on_fit_end=record)]
    elif writes():
        run.clear()
    trainer, epochs = make_trainer(config, run, model, probe, callbacks)
    data.features.backbone = frozen_backbone(config, trainer, model)
    training = Training(config, run, trainer, model, data, probe)
    if trainer.is_global_zero:
        if not config.resume:
            run.write_config(config)
        log.info(weights_line)
        if range_test:
            announce_rate(run, trainer, config, range_test)
        training.announce()
    started_fit = time.perf_counter()
    fit(trainer, model, data, run.last if config.resume else None)
    if config.trainer.max_epochs == 0:
        trainer.save_checkpoint(run.last)
    best_checkpoint = cast(BestCheckpoint, trainer.checkpoint_callback)
    if not best_checkpoint.best_model_path:  # ended before its first validation, as by max_time
        trainer.save_checkpoint(run.best)
    fit_seconds = time.perf_counter() - started_fit
    best = read_tensors(run.best)
    results = training.evaluate(best["state_dict"])
    times = [*earlier.epochs, *epochs.times] or [0.0]
    seconds: Seconds = {
        "fit": round(earlier.fit + fit_seconds, 3),
        "epoch_median": round(median(times), 3),
        "epoch_longest": round(max(times), 3),
        "total": round(earlier.total + time.perf_counter() - started, 3),
    }
    summary = training.summarise(results, best["epoch"], seconds, command)
    if trainer.is_global_zero:
        training.write(results, summary)
        if config.resume and run.outdated:
            log.warning(f"Of the run before it was trained for longer, and not made anew: {name_some(run.outdated)}")
        log.info(closing_lines(run, config, summary, results.get("test", results["val"])))
    return summary
