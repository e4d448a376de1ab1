"""What a training tells and leaves behind: lines, predictions, pictures and the summary."""

import logging
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from itertools import compress
from math import isfinite
from typing import Any, cast

import lightning.pytorch as pl
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from thaw.config import Config
from thaw.data.datamodule import ImageDataModule
from thaw.inspection.charts import calibration_chart, confusion_chart
from thaw.inspection.curves import curves_figure
from thaw.inspection.grids import MOST, choose_for_grid, mix_rows, prediction_grid, top_losses_grid, training_grid
from thaw.inspection.prediction_files import write_predictions
from thaw.inspection.predictions import Predictions
from thaw.model.classifier import Classifier
from thaw.model.strategy import ever_trainable
from thaw.overrides import in_sweep
from thaw.own_images import caution_of_weights
from thaw.run import Run
from thaw.seeding import seeded
from thaw.summary import Metrics, Params, Seconds, Summary
from thaw.training.loggers import log_final_metrics, save_figure
from thaw.training.probe import LinearProbe
from thaw.training.progress import stage_table
from thaw.training.pruning import is_pruned
from thaw.training.remarks import frozen_epochs, growing_crops, warnings_before
from thaw.training.trainer import predict
from thaw.writing import naming

log = logging.getLogger(__name__)


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
        if len({*self.data.sides[num_frozen:]}) > 1:
            log.info(growing_crops(self.data.sides, num_frozen))
        weights, index = None if config.strategy.from_scratch else config.backbone.weights, self.data.index
        for line in (
            *warnings_before(config, len(self.model.backbone.stages), num_frozen, self.data.sides, index.own_splits),
            *caution_of_weights(weights, index.splits),
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
            "val": self._metrics(results["val"]),
            "last": self._metrics(results["last"]),
            "test": self._metrics(results["test"]) if "test" in results else None,
            "best_epoch": min(best_epoch + 1, epochs),  # what is saved after the training has the number of the next
            "epochs": epochs,
            "monitor_mode": self.model.own_metrics.mode_of(self.config.trainer.monitor),
            "pruned": is_pruned(self.trainer),
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

    def _metrics(self, predictions: Predictions) -> Metrics:
        """Thaw's own figures and the user's, None where one is no number."""
        own = self.model.own_metrics.of(predictions.logits, predictions.labels)
        further = {name: value if isfinite(value) else None for name, value in own.items()}
        return cast(Metrics, {**predictions.metrics(), **further})

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
            self._save_figures(split, results[split], summary)
        self.run.write_summary(summary)
        log_final_metrics(self.trainer, self.config, summary)
        if self.config.report:
            log.info(f"Report: {self.run.report()}")

    def _save_figures(self, split: str, predictions: Predictions, summary: Summary) -> None:
        """The best epoch's predictions, and the way there, as pictures and charts."""
        mixed, highest = choose_for_grid(predictions), predictions.top_losses(12)
        figures: dict[str, Figure | Image.Image] = {
            "predictions.jpg": prediction_grid(self.data.show(split, mixed), predictions, mixed, split).draw(),
            "top_losses.jpg": top_losses_grid(self.data.show(split, highest), predictions, highest, split).draw(),
            "confusion.png": confusion_chart(predictions, split),
            "calibration.png": calibration_chart(predictions, split),
        }
        if summary["epochs"]:
            figures["curves.png"] = curves_figure(self.run.metrics, summary["best_epoch"])
        for name, figure in figures.items():
            save_figure(self.run, self.trainer, name, figure)


@cache
def _versions() -> dict[str, str]:
    packages = ("thaw", "torch", "torchvision", "lightning", "hydra-core")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}
