from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
from lightning.pytorch.loggers import MLFlowLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from thaw.config import Config, LoggerConfig, OptimizerConfig, StrategyConfig, TrainerConfig
from thaw.run import Run
from thaw.trainer import make_logger
from thaw.training import closing_lines, log_final_metrics, stages_left_frozen


def test_tensorboards_table_has_what_is_unusual_and_numbers_as_numbers(tmp_path: Path) -> None:
    config = Config(optimizer=OptimizerConfig(nesterov=True), strategy=StrategyConfig(feature_views=4), report=True)
    figures = {"acc": 0.5, "loss": 0.7, "macro_f1": 0.4}
    logger = TensorBoardLogger(tmp_path, name="", version="tensorboard", default_hp_metric=False)
    trainer = pl.Trainer(logger=logger, enable_checkpointing=False, accelerator="cpu")
    log_final_metrics(trainer, config, {"val": figures, "last": figures, "test": None})
    (folder,) = {path.parent for path in tmp_path.rglob("events*")}
    events = EventAccumulator(str(folder)).Reload()
    content = events.PluginTagToContent("hparams")["_hparams_/session_start_info"]
    options = HParamsPluginData.FromString(content).session_start_info.hparams
    assert options["seed"].number_value == 0
    assert options["optimizer.lr"].number_value == config.optimizer.lr
    assert options["strategy.feature_views"].number_value == 4
    assert options["optimizer.nesterov"].string_value == "true"
    assert {"backbone.name", "dataset.name", "strategy.name"} <= set(options)
    assert "augment.flip" not in options
    assert events.Scalars("final/val_acc")[0].value == 0.5


@pytest.mark.filterwarnings("default")  # its own packages deprecate each other's functions
def test_a_resumed_run_may_have_other_options_than_mlflow_knows(tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    for max_epochs in (1, 2):
        logger = make_logger(LoggerConfig("mlflow"), Run(tmp_path))
        assert isinstance(logger, MLFlowLogger)
        trainer = pl.Trainer(logger=logger, enable_checkpointing=False, accelerator="cpu")
        figures = {"acc": max_epochs / 4, "loss": 0.7, "macro_f1": 0.4}
        config = Config(trainer=TrainerConfig(max_epochs=max_epochs))
        log_final_metrics(trainer, config, {"val": figures, "last": figures, "test": None})
    data = logger.experiment.get_run(logger.run_id).data
    assert data.params["trainer.max_epochs"] == "1"
    assert data.metrics["final/val_acc"] == 0.5


@pytest.mark.parametrize(
    ("max_epochs", "options", "line"),
    [
        (5, {}, None),
        (4, {}, "3 of 9 stages never thaw: that takes 5 epochs (strategy.head_epochs=2, strategy.unfreeze_epochs=3), "
        "and trainer.max_epochs=4."),
        (4, {"trainable_stages": 1}, None),
        (4, {"backbone_factor": 0}, None),
        (1, {"unfreeze_epochs": 0, "head_epochs": 0}, None),
    ],
)  # fmt: skip
def test_stages_that_would_thaw_after_the_last_epoch_are_told(
    max_epochs: int, options: dict[str, Any], line: str | None
) -> None:
    strategy = {"backbone_factor": 1, "head_epochs": 2, "unfreeze_epochs": 3} | options
    assert stages_left_frozen(StrategyConfig(**strategy), max_epochs, 9) == line


SUMMARY = {
    "val": {"acc": 0.9, "acc_ci95": [0.8, 0.95], "n": 50}, "last": {"acc": 0.88}, "test": None, "probe": None,
    "epochs": 8, "best_epoch": 3, "epoch_chosen_on": "val", "gpu_memory_gb": None,
    "seconds": {"total": 9.0, "epoch_median": 1.0},
}  # fmt: skip
ACCURACY = "0.9000 (95 % interval 0.800 to 0.950, n=50)"


@pytest.mark.parametrize(
    ("monitor", "begin"),
    [
        ("val/acc", f"Best val accuracy {ACCURACY}, at epoch 3 of 8, which was chosen on these images"),
        ("val/loss", f"Val accuracy {ACCURACY}, at epoch 3 of 8, which was chosen on these images for its loss"),
        (
            "val/macro_f1",
            f"Val accuracy {ACCURACY}, at epoch 3 of 8, which was chosen on these images for its macro-F1",
        ),
    ],
)
def test_an_epoch_chosen_for_another_figure_is_not_said_to_have_the_best_accuracy(monitor: str, begin: str) -> None:
    config = Config(trainer=TrainerConfig(monitor=monitor))
    assert closing_lines(Run("outputs/run"), config, SUMMARY).startswith(f"{begin}; last epoch 0.8800\n")


def test_tensorboard_is_pointed_to_where_the_run_lies(tmp_path: Path) -> None:
    run = Run(tmp_path / "runs" / "run")
    assert closing_lines(run, Config(), SUMMARY).endswith(f"\n      tensorboard --logdir {tmp_path / 'runs'}")
    assert "--logdir" not in closing_lines(run, Config(logger=LoggerConfig("csv")), SUMMARY)
