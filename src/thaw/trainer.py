"""Lightning's Trainer, its precision, its callbacks and its logger, by the options."""

import logging
import sys
import warnings
from typing import Any, cast

import lightning.pytorch as pl
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import EMAWeightAveraging, RichProgressBar
from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from thaw.checkpoints import BestCheckpoint, EvaluationEpochs, LastCheckpoint, PhaseEarlyStopping
from thaw.config import Config, LoggerConfig, TrainerConfig
from thaw.data.datamodule import ImageDataModule
from thaw.errors import ThawError
from thaw.model.classifier import Classifier
from thaw.model.strategy import phase_starts
from thaw.probe import LinearProbe
from thaw.progress import EpochLog
from thaw.run import Run
from thaw.search import TrialPruning, current_trial

# Lightning's hints on its own products and on what we have decided knowingly.
for name in ("lightning.pytorch", "lightning.fabric"):
    logging.getLogger(name).setLevel(logging.WARNING)
for message in (
    ".*isinstance.treespec, LeafSpec.*",
    ".*does not have many workers.*",
    ".*in eval mode at the start.*",
    ".*exists and is not empty.*",
):
    warnings.filterwarnings("ignore", message)


def make_trainer(
    config: Config, run: Run, data: ImageDataModule, model: Classifier, probe: LinearProbe | None = None
) -> tuple[pl.Trainer, EpochLog]:
    """Lightning's Trainer by the options, and the callback that knows how long an epoch took."""
    options = config.trainer
    num_stages = len(model.backbone.stages)
    epochs = EpochLog(run.metrics_csv, len(data.index.splits["train"]) + len(data.index.splits["val"]))
    callbacks: list[pl.Callback] = [
        epochs,
        BestCheckpoint(run.checkpoints, options.monitor, options.ties),
        LastCheckpoint(run.checkpoints, options.checkpoint_seconds),
        EvaluationEpochs(options.eval_from, options.eval_every),
    ]
    if options.early_stopping:
        starts = phase_starts(config.strategy, options.max_epochs, num_stages)
        callbacks.append(PhaseEarlyStopping(options.monitor, options.early_stopping, starts))
    if options.ema_decay:
        callbacks.append(EMAWeightAveraging(decay=options.ema_decay))
    if probe is not None:
        callbacks.append(probe)
    if config.sweep.prune and (trial := current_trial(config.sweep)):
        callbacks.append(TrialPruning(trial))
    show_bar = options.progress_bar and sys.stdout.isatty()
    if show_bar:
        callbacks.append(RichProgressBar(leave=False))
    flags: dict[str, Any] = {
        "max_epochs": options.max_epochs,
        "accelerator": options.accelerator,
        "devices": options.devices,
        "num_nodes": options.num_nodes,
        "strategy": _distribution(config, num_stages),
        "precision": choose_precision(options),
        "callbacks": callbacks,
        "logger": make_logger(config.logger, run),
        "log_every_n_steps": 1,
        "gradient_clip_val": options.gradient_clip,
        "accumulate_grad_batches": options.accumulate,
        "enable_progress_bar": show_bar,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "use_distributed_sampler": False,
        "reload_dataloaders_every_n_epochs": 1,  # the loaders choose between images and features
        "default_root_dir": run.folder,
    }
    try:
        trainer = pl.Trainer(**flags | options.extra)
    except (TypeError, MisconfigurationException, ValueError) as error:
        raise ThawError(f"trainer.* does not fit this machine or Lightning's Trainer: {error}") from error
    if options.compile:
        model.backbone.compile()
    return trainer, epochs


def make_predictor(precision: str, accelerator: str = "auto") -> pl.Trainer:
    """A Trainer that predicts, on one device, and writes nothing.

    Raises:
        ThawError: The device is not there.
    """
    show_bar = sys.stdout.isatty()
    try:
        return pl.Trainer(
            accelerator=accelerator,
            devices=1,
            precision=cast(Any, precision),
            callbacks=[RichProgressBar(leave=False)] if show_bar else [],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=show_bar,
            enable_model_summary=False,
        )
    except (MisconfigurationException, ValueError) as error:
        raise ThawError(f"The device {accelerator!r} cannot be used here: {error} Try --device auto.") from error


def _distribution(config: Config, num_stages: int) -> str:
    """DDP has to be told where some weights get no gradient in an epoch, because their stage is frozen for a while."""
    chosen = config.trainer.distribution
    learns_always = len(phase_starts(config.strategy, config.trainer.max_epochs, num_stages)) == 1
    return chosen if chosen != "ddp" or learns_always else "ddp_find_unused_parameters_true"


def choose_precision(options: TrainerConfig) -> str:
    """`trainer.precision`, where auto is bf16-mixed on a device that is fast at it, 16-mixed on older GPUs, else 32."""
    if options.precision != "auto":
        return options.precision
    if options.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"
    if options.accelerator not in ("auto", "cpu") or torch.backends.mps.is_available():
        return "32"
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # not in older releases
    return "bf16-mixed" if capabilities.get("amx_bf16") or capabilities.get("avx512_bf16") else "32"


def make_logger(options: LoggerConfig, run: Run) -> Logger | bool:
    """The logger by name; metrics.csv is written in any case.

    Raises:
        ThawError: Its package is not installed.
    """
    try:
        match options.name:
            case "tensorboard":
                return TensorBoardLogger(run.folder, name="", version="tensorboard", default_hp_metric=False)
            case "wandb":
                return WandbLogger(project=options.project, save_dir=run.folder)
            case "mlflow":
                uri = options.uri or f"file:{(run.folder / 'mlruns').absolute()}"
                return MLFlowLogger(experiment_name=options.project, tracking_uri=uri)
    except ModuleNotFoundError as error:
        raise ThawError(f"logger={options.name} needs a package: pip install -e '.[{options.name}]'.") from error
    return False
