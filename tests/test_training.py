from pathlib import Path

import lightning.pytorch as pl
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from thaw.config import Config, OptimizerConfig, StrategyConfig
from thaw.training import log_final_metrics


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
