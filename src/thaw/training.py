"""One training from options to summary: build, fit, test, summarise."""

import logging
import platform
import time
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import version
from itertools import compress
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as pl
import torch

from thaw.allocator import keep_freed_memory
from thaw.building import build
from thaw.checkpoints import BestCheckpoint
from thaw.config import Config, recheck
from thaw.console import ensure_output
from thaw.data.datamodule import ImageDataModule
from thaw.evaluation import predict
from thaw.inspection.charts import calibration_chart, confusion_chart
from thaw.inspection.grids import MOST, choose_for_grid, prediction_grid, top_losses_grid, training_grid
from thaw.inspection.predictions import Predictions, write_predictions
from thaw.learning_rate import announce_rate, settle_rate
from thaw.loggers import log_final_metrics, save_figure
from thaw.model.classifier import Classifier
from thaw.model.strategy import ever_trainable
from thaw.model.tensor_files import read_tensors
from thaw.probe import LinearProbe
from thaw.progress import stage_table
from thaw.remarks import closing_lines, warnings_before
from thaw.run import Run
from thaw.trainer import fit, frozen_backbone, make_trainer
from thaw.writing import naming, naming_events

log = logging.getLogger(__name__)


def train(
    config: Config, folder: Path | str, command: str | None = None, callbacks: Iterable[pl.Callback] = ()
) -> dict[str, Any]:
    """Train as the options say; everything about it is in the folder afterwards.

    Args:
        config: The options.
        folder: Where the run is kept; it is made.
        command: How the run was asked for, for the record.
        callbacks: Callbacks for the Trainer, beside those of `trainer.callbacks`.

    Returns:
        The content of `summary.json`.

    Raises:
        ThawError: The options do not fit the data, the weights or the machine.
    """
    config = recheck(config)
    ensure_output()
    keep_freed_memory()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    run = Run(folder)
    run.require_own(config.resume)
    with naming_events(run.events):
        return _train(config, run, command, callbacks)


def _train(config: Config, run: Run, command: str | None, callbacks: Iterable[pl.Callback]) -> dict[str, Any]:
    started = time.perf_counter()
    pl.seed_everything(config.seed, verbose=False)
    data, model, weights_line = build(config)
    config, range_test = settle_rate(config, run, data, model)
    probe = LinearProbe(config.starts_from_probe) if config.has_probe else None
    trainer, epochs = make_trainer(config, run, model, probe, callbacks)
    data.features.backbone = frozen_backbone(config, trainer, model)
    if trainer.is_global_zero:
        run.write_config(config)
        log.info(weights_line)
        if range_test:
            announce_rate(run, trainer, config, range_test)
        if config.trainer.max_epochs:
            log.info(stage_table(model, config.trainer.max_epochs))
        log.info(f"Precision {trainer.precision} on {trainer.num_devices} x {trainer.accelerator.name()}")
        if num_frozen := sum(map(data.features.replace_images, range(config.trainer.max_epochs))):
            views = config.strategy.feature_views
            log.info(f"Epochs 1 to {num_frozen} run on stored features (strategy.feature_views={views})")
        for line in warnings_before(config, len(model.backbone.stages), num_frozen):
            log.warning(line)
        if config.figures:
            save_figure(run, trainer, "training_batch.jpg", training_grid(*data.preview(MOST), data.classes).draw())
    started_fit = time.perf_counter()
    fit(trainer, model, data, run.last if config.resume else None)
    if config.trainer.max_epochs == 0:
        trainer.save_checkpoint(run.last)
    best_checkpoint = cast(BestCheckpoint, trainer.checkpoint_callback)
    if not best_checkpoint.best_model_path:  # ended before its first validation, as by max_time
        trainer.save_checkpoint(run.best)
    seconds = {"fit": time.perf_counter() - started_fit, "epoch_median": epochs.epoch_median}
    best = read_tensors(run.best)
    results = evaluate(trainer, model, data, best)
    seconds["total"] = time.perf_counter() - started
    summary = summarise(config, best, trainer, model, data, results, seconds, command)
    summary["probe"] = probe and probe.metrics
    if trainer.is_global_zero:
        last = {"val": results.pop("last")}
        for path, splits in ((run.predictions_csv, results), (run.predictions_last_csv, last)):
            with naming(path):
                write_predictions(path, splits)
        if config.figures:
            save_result_figures(run, trainer, data, results)
        run.write_summary(summary)
        log_final_metrics(trainer, config, summary)
        if config.report:
            log.info(f"Report: {run.report()}")
        log.info(closing_lines(run, config, summary))
    return summary


def evaluate(
    trainer: pl.Trainer, model: Classifier, data: ImageDataModule, best: Mapping[str, Any]
) -> dict[str, Predictions]:
    """Predictions of the last epoch on val (key last), then of the best on val and, if there is one, on test.

    Args:
        trainer: Which has trained,
        model: with the last epoch's weights; afterwards with those of the best.
        data: The images.
        best: The content of best.ckpt.
    """
    results = {"last": predict(trainer, model, data, "val")}
    model.load_state_dict(best["state_dict"])
    for split in ("val", "test"):
        if split in data.index.splits:
            results[split] = predict(trainer, model, data, split)
    return results


def summarise(
    config: Config,
    best: Mapping[str, Any],
    trainer: pl.Trainer,
    model: Classifier,
    data: ImageDataModule,
    results: dict[str, Predictions],
    seconds: dict[str, float],
    command: str | None,
) -> dict[str, Any]:
    """The content of summary.json."""
    sizes = [sum(parameter.numel() for parameter in stage.parameters()) for stage in model.backbone.stages]
    sizes.append(sum(parameter.numel() for parameter in model.head.parameters()))
    learns = ever_trainable(config.strategy, config.trainer.max_epochs, len(model.backbone.stages))
    return {
        "val": results["val"].metrics(),
        "last": results["last"].metrics(),
        "test": results["test"].metrics() if "test" in results else None,
        "best_epoch": min(best["epoch"] + 1, trainer.current_epoch),
        "epochs": trainer.current_epoch,
        "epoch_chosen_on": data.index.epoch_chosen_on,
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
        "params": {"total": sum(sizes), "trainable": sum(compress(sizes, learns))},
        "classes": list(data.classes),
        "lr": config.optimizer.rate,
        "precision": trainer.precision,
        "gpu_memory_gb": _gpu_memory(trainer),
        "seed": config.seed,
        "command": command,
        "versions": _versions(),
        "data_fingerprint": data.index.fingerprint,
    }


def _gpu_memory(trainer: pl.Trainer) -> float | None:
    """The most that tensors have taken on the GPU so far, in GB; None on another device."""
    device = trainer.strategy.root_device
    return round(torch.cuda.max_memory_allocated(device) / 1e9, 3) if device.type == "cuda" else None


@cache
def _versions() -> dict[str, str]:
    packages = ("thaw", "torch", "torchvision", "lightning", "hydra-core")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


def save_result_figures(run: Run, trainer: pl.Trainer, data: ImageDataModule, results: dict[str, Predictions]) -> None:
    """The best epoch's predictions on test, or else on val, as pictures and charts."""
    split = "test" if "test" in results else "val"
    predictions = results[split]
    mixed, highest = choose_for_grid(predictions), predictions.top_losses(12)
    grid = prediction_grid(data.show(split, mixed), predictions, mixed, split)
    save_figure(run, trainer, "predictions.jpg", grid.draw())
    grid = top_losses_grid(data.show(split, highest), predictions, highest, split)
    save_figure(run, trainer, "top_losses.jpg", grid.draw())
    save_figure(run, trainer, "confusion.png", confusion_chart(predictions, split))
    save_figure(run, trainer, "calibration.png", calibration_chart(predictions, split))
