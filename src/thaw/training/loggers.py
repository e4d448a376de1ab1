"""Where the curves, the pictures and the table of options go beside the run's own files: TensorBoard, W&B, MLflow."""

from collections.abc import Mapping
from dataclasses import asdict
from secrets import token_hex
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from matplotlib.figure import Figure
from PIL import Image
from tensorboard.compat.proto.summary_pb2 import Summary
from torch.utils.tensorboard.summary import hparams

from thaw.config import TRACKERS, Config, LoggerConfig
from thaw.errors import ThawError, printable
from thaw.inspection.figures import write_figure
from thaw.options import changed, flatten, typed
from thaw.overrides import key_of, typed_overrides
from thaw.ranks import writes
from thaw.run import Run
from thaw.writing import naming

KEY_OPTIONS = {"backbone.name", "dataset.name", "optimizer.lr", "seed", "strategy.name"}
"""Options that tell what a run is, also where they have their default."""


def make_loggers(options: LoggerConfig, run: Run) -> list[Logger]:
    """The loggers by the options; metrics.csv is written in any case. A resumed run goes on with what it has logged.

    Raises:
        ThawError: A package is not installed, or `logger.extra` does not fit it.
    """
    loggers: list[Logger] = [tensorboard(run)] if options.has_tensorboard else []
    return [*loggers, _begin_tracker(options, run)] if options.name in TRACKERS else loggers


def tensorboard(run: Run) -> TensorBoardLogger:
    """TensorBoard's events, in the run's folder."""
    return TensorBoardLogger(run.folder, name="", version=run.events.name, default_hp_metric=False)


def _begin_tracker(options: LoggerConfig, run: Run) -> Logger:
    """W&B or MLflow, with the run's id there written down."""
    try:
        logger = _make_tracker(options, run)
        if writes():
            _ = logger.experiment  # W&B takes its arguments only when it begins
            run.write_tracking_id(str(logger.version))
    except ModuleNotFoundError as error:
        raise ThawError(f"logger={options.name} needs a package: pip install -e '.[{options.name}]'.") from error
    except TypeError as error:
        raise ThawError(f"logger.extra does not fit logger={options.name}: {error}.") from error
    return logger


def _make_tracker(options: LoggerConfig, run: Run) -> WandbLogger | MLFlowLogger:
    """A logger whose runs have an id of their own, elsewhere."""
    if options.name == "wandb":
        import wandb

        wandb.finish()  # an earlier job of this process, whose run this one would be written into
        tracking_id, name = run.tracking_id or token_hex(4), run.folder.name
        return WandbLogger(name, run.folder, id=tracking_id, project=options.project, **options.extra)
    uri, extra = options.uri, options.extra
    if uri is None:
        folder = run.folder.absolute()
        uri, extra = f"sqlite:///{folder / 'mlflow.db'}", {"artifact_location": str(folder / "mlflow"), **extra}
    return MLFlowLogger(options.project, run.folder.name, uri, run_id=run.tracking_id, **extra)


def save_figure(run: Run, trainer: pl.Trainer, name: str, figure: Figure | Image.Image) -> None:
    """Keep a figure under a name with its suffix, and show it in TensorBoard, W&B or MLflow."""
    path = run.figures / name
    with naming(path):
        write_figure(figure, path)
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            logger.log_image(f"figures/{path.stem}", [str(path)])
        elif isinstance(logger, MLFlowLogger):
            logger.experiment.log_artifact(logger.run_id, str(path), run.figures.name)
        elif isinstance(logger, TensorBoardLogger):
            # `add_figure` would draw it a second time, `add_image` compress it a second time.
            with Image.open(path) as kept:
                width, height = kept.size
            image = Summary.Image(encoded_image_string=path.read_bytes(), width=width, height=height, colorspace=4)
            summary = Summary(value=[Summary.Value(tag=f"figures/{path.stem}", image=image)])
            logger.experiment._get_file_writer().add_summary(summary, trainer.global_step)


def log_final_metrics(trainer: pl.Trainer, config: Config, summary: Mapping[str, Any]) -> None:
    """The options and the final figures, side by side in each logger's table of runs."""
    options = {
        name: printable(typed(value)) if isinstance(value, bool) or not isinstance(value, int | float) else value
        for name, value in flatten(asdict(config)).items()
    }
    splits = {split: summary[split] for split in ("val", "last", "test") if summary[split]}
    names = ("acc", "loss", "macro_f1", "top5_acc", *config.metrics)
    metrics = {
        f"final/{split}_{name}": own[name]
        for split, own in splits.items()
        for name in names
        if own.get(name) is not None
    }
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):  # whose table is unreadable with every option in it
            told = KEY_OPTIONS | changed(asdict(config)).keys() | _typed_options()
            _log_table_row(logger, {name: options[name] for name in options if name in told}, metrics)
        else:
            known: dict[str, str] = {}
            if isinstance(logger, MLFlowLogger):  # a resumed run has some already, and none can be changed
                known = logger.experiment.get_run(logger.run_id).data.params
            logger.log_hyperparams({name: options[name] for name in options.keys() - known.keys()})
            logger.log_metrics(metrics)
        logger.finalize("success")
        if isinstance(logger, WandbLogger):
            logger.experiment.finish()  # it sends the rest, which a signal may end only now


def _typed_options() -> set[str]:
    """Options that were typed, or chosen by a sweep: in some of its jobs they have their default."""
    return {key_of(option) for option in typed_overrides() or ()}


def _log_table_row(logger: TensorBoardLogger, options: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
    """A run's row in the table of options, whose columns TensorBoard takes from all runs.

    `log_hyperparams` would also write which columns there are, and of many runs those of one would count for all.
    """
    logger.log_metrics(metrics, 0)
    writer = logger.experiment._get_file_writer()
    _, started, ended = hparams(dict(options), dict(metrics))  # type: ignore[no-untyped-call]
    writer.add_summary(started, 0)
    writer.add_summary(ended, 0)
