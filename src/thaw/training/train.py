"""One training from options to summary: build, fit, test, summarise."""

import logging
import platform
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from itertools import compress
from pathlib import Path
from statistics import median
from typing import Any, cast

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import LambdaCallback
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from thaw.config import Config
from thaw.data.datamodule import ImageDataModule
from thaw.inspection.charts import calibration_chart, confusion_chart
from thaw.inspection.grids import MOST, choose_for_grid, mix_rows, prediction_grid, top_losses_grid, training_grid
from thaw.inspection.predictions import Predictions, write_predictions
from thaw.model.classifier import Classifier
from thaw.model.strategy import ever_trainable
from thaw.model.tensor_files import read_tensors
from thaw.overrides import in_sweep
from thaw.own_images import caution_of_weights
from thaw.run import Run
from thaw.seeding import seeded
from thaw.summary import Params, Seconds, Summary
from thaw.training.building import build
from thaw.training.checkpoints import BestCheckpoint
from thaw.training.learning_rate import announce_rate, settle_rate
from thaw.training.loggers import log_final_metrics, save_figure
from thaw.training.probe import LinearProbe
from thaw.training.progress import stage_table
from thaw.training.remarks import closing_lines, frozen_epochs, warnings_before
from thaw.training.resuming import (
    EarlierSeconds,
    earlier_seconds,
    require_later,
    require_own_checkpoint,
    require_own_folder,
    require_same_beginning,
)
from thaw.training.trainer import fit, frozen_backbone, make_trainer, predict, prepare
from thaw.writing import naming, naming_events

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
    """
    config = prepare(config)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    run = Run(folder)
    if config.resume:
        require_own_folder(run, config.resume)
        require_later(run, config.trainer.max_epochs)
        require_same_beginning(run, config)
    with naming_events(run.events):
        return _train(config, run, command, callbacks)


def _train(config: Config, run: Run, command: str | None, callbacks: Iterable[pl.Callback]) -> Summary:
    started = time.perf_counter()
    earlier = earlier_seconds(run) if config.resume else EarlierSeconds()
    data, model, weights_line = build(config)
    if config.resume:
        require_own_checkpoint(run.last, model, config.trainer)  # before the run is changed
    config, range_test = settle_rate(config, run, data, model)
    probe = LinearProbe(data, config.starts_from_probe) if config.has_probe else None

    def record(trainer: pl.Trainer, _: pl.LightningModule) -> None:
        if trainer.is_global_zero:
            run.write_config(config)

    if config.resume:  # the options that it goes on with, once it does; and where no epoch is left
        callbacks = [*callbacks, LambdaCallback(on_train_start=record, on_fit_end=record)]
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
    seconds: Seconds = {
        "fit": round(earlier.fit + fit_seconds, 3),
        "epoch_median": round(median([*earlier.epochs, *epochs.times] or [0.0]), 3),
        "total": round(earlier.total + time.perf_counter() - started, 3),
    }
    summary = training.summarise(results, best["epoch"], seconds, command)
    if trainer.is_global_zero:
        training.write(results, summary)
        log.info(closing_lines(run, config, summary))
    return summary


@dataclass(frozen=True)
class Training:
    """The parts of a training.

    Attributes:
        config: The options.
        run: The folder that it writes to.
        trainer: Lightning's Trainer.
        model: The classifier; after `evaluate` it has the best epoch's weights.
        data: The images.
        probe: The linear probe; None where it is off.
    """

    config: Config
    run: Run
    trainer: pl.Trainer
    model: Classifier
    data: ImageDataModule
    probe: LinearProbe | None

    @property
    def has_figures(self) -> bool:
        """True if pictures are drawn."""
        return not in_sweep() if self.config.figures is None else self.config.figures

    def announce(self) -> None:
        """Say what will learn, on what and how, and show the images that it learns from."""
        config, max_epochs = self.config, self.config.trainer.max_epochs
        if max_epochs:
            log.info(stage_table(self.model, max_epochs))
        log.info(
            f"Precision {self.trainer.precision} on {self.trainer.num_devices} x {self.trainer.accelerator.name()}"
        )
        if config.trainer.compile:
            log.info("The first epoch compiles the backbone: some seconds on a GPU, up to minutes on a CPU")
        if num_frozen := sum(map(self.data.features.replace_images, range(max_epochs))):
            log.info(frozen_epochs(num_frozen, config.strategy.feature_views))
        weights = None if config.strategy.from_scratch else config.backbone.weights
        for line in (
            *warnings_before(config, len(self.model.backbone.stages), num_frozen),
            *caution_of_weights(weights, self.data.index.splits),
        ):
            log.warning(line)
        if self.has_figures:
            self._save_training_batch()

    def _save_training_batch(self) -> None:
        """The first images as the network is given them."""
        images, targets = self.data.preview(MOST)
        if self.model.mix is not None:
            with seeded(self.config.seed):
                images, targets = mix_rows(self.model.mix, images, targets)
        grid = training_grid(images, targets, self.data.classes)
        save_figure(self.run, self.trainer, "training_batch.jpg", grid.draw())

    def evaluate(self, best: Mapping[str, Tensor]) -> dict[str, Predictions]:
        """Predictions of the last epoch on val (key last), then of the best on val and, if there is one, on test.

        Args:
            best: Weights of the best epoch.
        """
        results = {"last": predict(self.trainer, self.model, self.data, "val")}
        self.model.load_state_dict(best)
        for split in ("val", "test"):
            if split in self.data.index.splits:
                results[split] = predict(self.trainer, self.model, self.data, split)
        return results

    def summarise(
        self, results: Mapping[str, Predictions], best_epoch: int, seconds: Seconds, command: str | None
    ) -> Summary:
        """The content of summary.json.

        Args:
            results: What `evaluate` returned.
            best_epoch: The best epoch, from 0.
            seconds: How long it took.
            command: How the run was asked for.
        """
        progress: Any = self.trainer.fit_loop.epoch_progress.current
        epochs = progress.processed  # `current_epoch` is one less where `max_time` left nothing to do
        return {
            "val": results["val"].metrics(),
            "last": results["last"].metrics(),
            "test": results["test"].metrics() if "test" in results else None,
            "best_epoch": min(best_epoch + 1, epochs),  # what is saved after the training has the number of the next
            "epochs": epochs,
            "epoch_chosen_on": self.data.index.epoch_chosen_on,
            "seconds": seconds,
            "params": self._count_params(),
            "classes": list(self.data.classes),
            "lr": self.config.optimizer.rate,
            "precision": self.trainer.precision,
            "gpu_memory_gb": self._gpu_memory(),
            "seed": self.config.seed,
            "command": command,
            "versions": _versions(),
            "data_fingerprint": self.data.index.fingerprint,
            "probe": self.probe.metrics if self.probe else None,
        }

    def _count_params(self) -> Params:
        stages = self.model.backbone.stages
        parts = [*(stage.parameters() for stage in stages), self.model.head.parameters()]
        sizes = [sum(parameter.numel() for parameter in part) for part in parts]
        learns = ever_trainable(self.config.strategy, self.config.trainer.max_epochs, len(stages))
        return {"total": sum(sizes), "trainable": sum(compress(sizes, learns))}

    def _gpu_memory(self) -> float | None:
        device = self.trainer.strategy.root_device
        return round(torch.cuda.max_memory_allocated(device) / 1e9, 3) if device.type == "cuda" else None

    def write(self, results: Mapping[str, Predictions], summary: Summary) -> None:
        """Keep the figures, what was said of each image, the pictures and the report; `summary.json` before the last.

        Args:
            results: What `evaluate` returned.
            summary: What `summarise` returned.
        """
        best = {split: predictions for split, predictions in results.items() if split != "last"}
        last = {"val": results["last"]}
        for path, splits in ((self.run.predictions_csv, best), (self.run.predictions_last_csv, last)):
            with naming(path):
                write_predictions(path, splits)
        if self.has_figures:
            split = "test" if "test" in results else "val"
            self._save_figures(split, results[split])
        self.run.write_summary(summary)
        log_final_metrics(self.trainer, self.config, summary)
        if self.config.report:
            log.info(f"Report: {self.run.report()}")

    def _save_figures(self, split: str, predictions: Predictions) -> None:
        """The best epoch's predictions as pictures and charts."""
        mixed, highest = choose_for_grid(predictions), predictions.top_losses(12)
        figures: dict[str, Figure | Image.Image] = {
            "predictions.jpg": prediction_grid(self.data.show(split, mixed), predictions, mixed, split).draw(),
            "top_losses.jpg": top_losses_grid(self.data.show(split, highest), predictions, highest, split).draw(),
            "confusion.png": confusion_chart(predictions, split),
            "calibration.png": calibration_chart(predictions, split),
        }
        for name, figure in figures.items():
            save_figure(self.run, self.trainer, name, figure)


@cache
def _versions() -> dict[str, str]:
    packages = ("thaw", "torch", "torchvision", "lightning", "hydra-core")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}
