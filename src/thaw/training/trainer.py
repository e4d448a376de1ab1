"""Lightning's Trainer by the options."""

import logging
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import ModelCheckpoint, RichProgressBar
from torch import Tensor

from thaw.allocator import keep_freed_memory
from thaw.config import Config, TrainerConfig, recheck
from thaw.console import ensure_output, silence_hints
from thaw.data.datamodule import ImageDataModule
from thaw.data.failures import loading
from thaw.data.kept_images import Loader
from thaw.errors import ThawError, one_line
from thaw.inspection.predictions import Predictions, collect
from thaw.model.classifier import Classifier
from thaw.model.strategy import phase_starts
from thaw.overrides import place_among_jobs
from thaw.ranks import find_rank
from thaw.run import Run
from thaw.signals import catching_in_python
from thaw.training.callbacks import make_callbacks
from thaw.training.checkpoints import WholeFileIO
from thaw.training.environment import find_environment
from thaw.training.loggers import make_loggers
from thaw.training.precision import choose_precision
from thaw.training.probe import LinearProbe
from thaw.training.progress import EpochLog
from thaw.training.step_losses import LossBar, StepLosses
from thaw.training.validation import EvaluationEpochs

silence_hints()
logging.getLogger("lightning.pytorch.profilers").setLevel(logging.INFO)  # whose table was asked for
logging.getLogger("lightning").handlers.clear()  # else it prints what the root logger prints, too
for message in (
    ".*isinstance.treespec, LeafSpec.*",  # Lightning's own, beside newer releases of torch
    ".*does not have many workers.*",  # images in memory, and features, need none
    ".*in eval mode at the start.*",  # frozen stages are, on purpose
    ".*exists and is not empty.*",  # a resumed run's folder
    ".*Grad strides do not match bucket view strides.*",  # DDP's, on how fast it may be
    ".*can lead to instability due to limitations in PyTorch.*",  # of new loaders in each epoch: ours stay
    ".*srun. command is available.*",  # wherever SLURM is installed
    ".*available but not used.*",  # trainer.accelerator=cpu, beside a GPU
):
    warnings.filterwarnings("ignore", message)


def make_trainer(
    config: Config,
    run: Run,
    model: Classifier,
    probe: LinearProbe | None = None,
    further: Iterable[pl.Callback] = (),
) -> tuple[pl.Trainer, EpochLog]:
    """Lightning's Trainer by the options, and its log of epochs, which times them.

    Args:
        config: The options.
        run: The folder that it writes to.
        model: The classifier.
        probe: The linear probe.
        further: Callbacks beside those of the options.

    Raises:
        ThawError: The options do not fit this machine.
    """
    options = config.trainer
    num_stages = len(model.backbone.stages)
    epochs = EpochLog(run.metrics_csv, options.monitor)
    show_bar = options.progress_bar and sys.stdout.isatty()
    steps = StepLosses(run.last, speaks=not show_bar)
    mode = model.own_metrics.mode_of(options.monitor)
    # Losses first: nothing of a training that has diverged may be saved.
    callbacks = [steps, *make_callbacks(config, run, num_stages, epochs, probe, mode), *further]
    if show_bar:
        callbacks.append(LossBar(steps))
    for callback in callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.dirpath is None:  # one of the user's own
            callback.dirpath = str(run.checkpoints / "own")  # Lightning would choose the logger's folder
    trainer = bare_trainer(
        config,
        num_stages,
        {
            "max_epochs": options.max_epochs,
            "callbacks": callbacks,
            "logger": make_loggers(config.logger, run),
            "log_every_n_steps": 1,
            "enable_progress_bar": show_bar,
            "default_root_dir": run.folder,
            **options.extra,
            "max_steps": -1,  # `LastStep` counts them
        },
    )
    in_order: list[pl.Callback] = getattr(trainer, "callbacks")  # noqa: B009 - Lightning does not type it
    in_order.append(EvaluationEpochs(options.eval_every))  # after its timer, which may end the training
    if options.compile:
        model.backbone.compile()
    return trainer, epochs


def prepare(config: Config) -> Config:
    """Set up the process for a training; returns the options, checked.

    Raises:
        ThawError: The options contradict each other, or name a device, a precision or another flag that cannot be had
            here, which is told before anything is read.
    """
    config = recheck(config)
    ensure_output()
    keep_freed_memory()
    trainer = bare_trainer(config, 1, {"logger": False, "enable_checkpointing": False, **config.trainer.extra})
    if trainer.strategy.root_device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(trainer.strategy.root_device)
    pl.seed_everything(config.seed, verbose=False)
    return config


def bare_trainer(config: Config, num_stages: int, flags: dict[str, Any]) -> pl.Trainer:
    """Lightning's Trainer on the device, at the precision and with the step of the options; `flags` say the rest.

    Raises:
        ThawError: The options do not fit this machine.
    """
    options = config.trainer
    process = find_rank()
    num_local = process.local_world_size
    num_devices = options.num_devices or num_local
    num_nodes = process.world_size // num_local
    if not process.is_alone and (num_devices, max(options.num_nodes, num_nodes)) != (num_local, num_nodes):
        raise ThawError(
            f"trainer.num_nodes={options.num_nodes} trainer.devices={options.devices} is not what has been started: "
            f"{num_nodes} machines with {num_local} processes each. Leave both out."
        )
    if config.dataset.batch_size % process.world_size:
        raise ThawError(
            f"dataset.batch_size={config.dataset.batch_size} cannot be shared equally among {process.world_size} "
            "processes: it must be a multiple of their number."
        )
    common: dict[str, Any] = {
        "accelerator": options.accelerator,
        "devices": choose_devices(options, num_devices),
        "num_nodes": num_nodes,
        "strategy": _distribution(config, num_stages),
        "plugins": [WholeFileIO(), find_environment()],
        "precision": choose_precision(options),
        "gradient_clip_val": options.gradient_clip,
        "accumulate_grad_batches": options.accumulate,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "use_distributed_sampler": False,
        "reload_dataloaders_every_n_epochs": 1,  # the loaders choose between images and features
    }
    try:
        return pl.Trainer(**common | flags)
    except (TypeError, MisconfigurationException, ValueError, ImportError) as error:  # the last of a TPU's library
        raise _misfit(error) from error


def choose_devices(options: TrainerConfig, num_devices: int) -> int | list[int]:
    """How many devices, or which GPUs: jobs that run side by side, a process each, take one after the other."""
    if options.devices != "auto":
        return cast(int | list[int], options.devices)
    place, num_gpus = place_among_jobs(), torch.cuda.device_count()
    is_free = num_devices == 1 and options.accelerator in ("auto", "gpu", "cuda")
    return [place % num_gpus] if place is not None and num_gpus > 1 and is_free else num_devices


def _misfit(error: Exception) -> ThawError:
    if "No supported gpu backend found" in str(error):
        return ThawError("trainer.accelerator=gpu finds no GPU that torch can use: auto takes what there is.")
    return ThawError(f"trainer.* does not fit this machine or Lightning's Trainer: {one_line(error)}")


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
            plugins=[LightningEnvironment()],  # whatever SLURM or torchrun say: it is alone
            precision=cast(Any, precision),
            callbacks=[RichProgressBar(leave=False)] if show_bar else [],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=show_bar,
            enable_model_summary=False,
        )
    except (MisconfigurationException, ValueError, ImportError) as error:
        reason = one_line(error)
        raise ThawError(f"The device {accelerator!r} cannot be used here: {reason} Try --device auto.") from error


def predict(
    trainer: pl.Trainer, model: Classifier, data: ImageDataModule, split: str, loader: Loader | None = None
) -> Predictions:
    """What the model says of every image of a split, or of the views of them that a loader gives."""
    data.images.device = trainer.strategy.root_device  # Lightning tells it where it is given the data, not a loader
    with loading(data), catching_in_python():
        outputs = trainer.predict(model, loader or data.eval_dataloader(split, all_on_each_process=True))
    paths = [data.index.place(sample.path) for sample in data.index.splits[split]]
    return collect(cast(list[tuple[Tensor, Tensor]], outputs), paths, data.classes, data.index.groups_of(split))


def _distribution(config: Config, num_stages: int) -> str:
    """DDP has to be told where some weights get no gradient in an epoch, because their stage is frozen for a while."""
    chosen = config.trainer.distribution
    if chosen == "auto" and not find_rank().is_alone:
        chosen = "ddp"
    learns_always = len(phase_starts(config.strategy, config.trainer.max_epochs, num_stages)) == 1
    return chosen if chosen != "ddp" or learns_always else "ddp_find_unused_parameters_true"


def fit(trainer: pl.Trainer, model: Classifier, data: ImageDataModule, checkpoint: Path | None = None) -> None:
    """Train, from a checkpoint if one is given.

    Raises:
        ThawError: An image cannot be loaded, or a flag does not suit the data.
    """
    try:
        with loading(data), catching_in_python():
            trainer.fit(model, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    except MisconfigurationException as error:
        raise _misfit(error) from error
    except RuntimeError as error:
        if str(error).startswith("Early stopping conditioned on metric"):
            raise ThawError(f"A callback of trainer.callbacks stops by what is not there: {one_line(error)}") from error
        raise
    except ValueError as error:
        if "val_check_interval" in str(error):  # longer than an epoch
            raise _misfit(error) from error
        raise
