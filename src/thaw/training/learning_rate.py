"""A learning rate found by a range test: printed and drawn by find_lr.py, taken over by `optimizer.lr=auto`."""

import logging
import time
from dataclasses import replace
from pathlib import Path

import lightning.pytorch as pl
from lightning.pytorch.loggers import TensorBoardLogger

from thaw.config import Config
from thaw.data.datamodule import ImageDataModule
from thaw.inspection.rate_curve import rate_curve
from thaw.model.classifier import Classifier
from thaw.run import Run
from thaw.training.building import build
from thaw.training.loggers import save_figure, tensorboard
from thaw.training.range_test import RangeTest, run_range_test
from thaw.training.trainer import bare_trainer, prepare
from thaw.writing import claimed, naming_events

log = logging.getLogger(__name__)


def find_lr(config: Config, folder: Path | str) -> RangeTest:
    """Suggest learning rates by a range test; its curve is in the folder afterwards.

    Args:
        config: The options, as for a training.
        folder: Where the curve is kept; it is made.

    Returns:
        What was measured, with the suggestions `valley` and `steepest`.

    Raises:
        ThawError: The options do not fit the data, the weights or the machine, or no rate can be suggested.
    """
    config = prepare(config)
    run = Run(folder)
    with claimed(run.folder, "folder"), naming_events(run.events):
        return _find_lr(config, run)


def _find_lr(config: Config, run: Run) -> RangeTest:
    started = time.perf_counter()
    data, model, weights_line = build(config)
    test = run_range_test(config, data, model)
    loggers = [tensorboard(run)] if config.logger.has_tensorboard else []
    trainer = bare_trainer(config, len(model.backbone.stages), {"logger": loggers, "default_root_dir": run.folder})
    if trainer.is_global_zero:
        run.write_config(config)
        log.info(weights_line)
        save_range_test(run, trainer, config, test)
        log.info(f"{_facts(test)}, {time.perf_counter() - started:.1f} s")
        log.info(f"optimizer.lr={test.valley:<8g} valley: halfway down the longest fall of the loss; auto takes it")
        log.info(f"optimizer.lr={test.steepest:<8g} steepest: where it falls fastest")
        if doubt := test.doubt():
            log.info(doubt)
        log.info(f"The curve is in {run.rate_curve}")
    return test


def settle_rate(config: Config, run: Run, data: ImageDataModule, model: Classifier) -> tuple[Config, RangeTest | None]:
    """The options with a number in place of `optimizer.lr=auto`, and the range test if one was needed.

    A resumed run keeps the number that it began with.
    """
    if config.optimizer.lr != "auto":
        return config, None
    test = None if config.resume else run_range_test(config, data, model)
    rate = test.valley if test else run.config["optimizer"]["lr"]
    model.optimizer_options = replace(config.optimizer, lr=rate)
    return replace(config, optimizer=model.optimizer_options), test


def announce_rate(run: Run, trainer: pl.Trainer, config: Config, test: RangeTest) -> None:
    """One line about the rate that a training has found for itself, one more if it is in doubt, and its curve."""
    save_range_test(run, trainer, config, test)
    log.info(f"optimizer.lr={test.valley:g} (steepest: {test.steepest:g}). {_facts(test)}")
    if doubt := test.doubt():
        log.info(doubt)


def save_range_test(run: Run, trainer: pl.Trainer, config: Config, test: RangeTest) -> None:
    """Keep the curve as a picture, and show it and its numbers in TensorBoard."""
    heading = f"Learning-rate range test, strategy {config.strategy.name}: {test.learns} learning"
    figure = rate_curve(test.rates, test.losses, test.smoothed, test.valley, test.steepest, heading)
    save_figure(run, trainer, run.rate_curve.name, figure)
    curves = {"lr": test.rates, "loss": test.losses, "running_mean": test.smoothed}
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            for name, values in curves.items():
                for step, value in enumerate(values):
                    logger.experiment.add_scalar(f"find_lr/{name}", value, step)


def _facts(test: RangeTest) -> str:
    return f"Range test of {test.learns}: {len(test.rates)} steps from {test.rates[0]:.2g} to {test.rates[-1]:.2g}"
