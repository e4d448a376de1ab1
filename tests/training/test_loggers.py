import importlib.util
from pathlib import Path

import lightning.pytorch as pl
import pytest
from lightning.pytorch.loggers import MLFlowLogger, TensorBoardLogger, WandbLogger
from PIL import Image
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.hparams.backend_context import Context as BackendContext
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from thaw.config import Config, DatasetConfig, HeadConfig, LoggerConfig, OptimizerConfig, StrategyConfig, TrainerConfig
from thaw.errors import ThawError
from thaw.run import Run
from thaw.training.loggers import log_final_metrics, make_loggers, save_figure


def test_tensorboard_writes_into_the_run(tmp_path: Path) -> None:
    (logger,) = make_loggers(LoggerConfig("tensorboard"), Run(tmp_path))
    assert isinstance(logger, TensorBoardLogger)
    assert Path(logger.log_dir) == tmp_path / "tensorboard"


def test_csv_is_no_logger_beside_metrics_csv(tmp_path: Path) -> None:
    assert make_loggers(LoggerConfig("csv"), Run(tmp_path)) == []


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_logger_whose_package_is_missing_says_what_to_install(tmp_path: Path, name: str) -> None:
    if importlib.util.find_spec(name):
        pytest.skip(f"{name} is installed")
    with pytest.raises(ThawError, match=rf"^logger={name} needs a package: pip install -e '\.\[{name}\]'\.$"):
        make_loggers(LoggerConfig(name), Run(tmp_path))


def test_each_job_of_a_sweep_has_a_run_of_its_own_in_weights_and_biases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    ids, names = set(), []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (logger,) = make_loggers(LoggerConfig("wandb"), Run(tmp_path / name))
        assert isinstance(logger, WandbLogger)
        ids.add(logger.experiment.id)
        names.append(logger.experiment.name)
    logger.experiment.finish()
    assert (len(ids), names) == (2, ["first", "second"])
    (resumed,) = make_loggers(LoggerConfig("wandb"), Run(tmp_path / "second"))
    assert isinstance(resumed, WandbLogger)
    assert resumed.version == logger.version


def test_further_arguments_reach_weights_and_biases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    (logger,) = make_loggers(LoggerConfig("wandb", extra={"group": "beetles", "tags": ["first"]}), Run(tmp_path))
    assert isinstance(logger, WandbLogger)
    assert (logger.experiment.group, logger.experiment.tags) == ("beetles", ("first",))
    logger.experiment.finish()


@pytest.mark.filterwarnings("default")  # mlflow's own packages deprecate each other's functions
@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_an_argument_that_a_logger_does_not_know_is_a_mistake(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(name)
    monkeypatch.setenv("WANDB_MODE", "offline")
    with pytest.raises(ThawError, match=rf"^logger\.extra does not fit logger={name}: .*'colour'"):
        make_loggers(LoggerConfig(name, extra={"colour": "blue"}), Run(tmp_path))


@pytest.mark.filterwarnings("default")  # mlflow's own packages deprecate each other's functions
@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_pictures_go_where_the_curves_go(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip(name)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    run = Run(tmp_path)
    run.figures.mkdir()
    (logger,) = make_loggers(LoggerConfig(name), run)
    trainer = pl.Trainer(logger=logger, enable_checkpointing=False, accelerator="cpu")
    save_figure(run, trainer, "grid.png", Image.new("RGB", (8, 8), "red"))
    assert (run.figures / "grid.png").exists()
    if isinstance(logger, MLFlowLogger):
        assert [file.path for file in logger.experiment.list_artifacts(logger.run_id, "figures")] == [
            "figures/grid.png"
        ]
    else:
        assert isinstance(logger, WandbLogger)
        logger.experiment.finish()
        assert [path.suffix for path in tmp_path.rglob("media/images/figures/*")] == [".png"]


@pytest.mark.filterwarnings("default")  # mlflow's own packages deprecate each other's functions
@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_tensorboard_may_stand_beside_another(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip(name)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    run = Run(tmp_path)
    run.figures.mkdir()
    loggers = make_loggers(LoggerConfig(name, tensorboard=True), run)
    trainer = pl.Trainer(logger=loggers, enable_checkpointing=False, accelerator="cpu")
    save_figure(run, trainer, "grid.png", Image.new("RGB", (8, 8), "red"))
    figures = {"acc": 0.5, "loss": 0.7, "macro_f1": 0.4}
    log_final_metrics(trainer, Config(), {"val": figures, "last": figures, "test": None})
    events = EventAccumulator(str(run.events)).Reload()
    assert events.Tags()["images"] == ["figures/grid"]
    assert events.Scalars("final/val_acc")[0].value == 0.5
    if isinstance(loggers[1], MLFlowLogger):
        assert loggers[1].experiment.get_run(loggers[1].run_id).data.metrics["final/val_acc"] == 0.5
        assert loggers[1].experiment.list_artifacts(loggers[1].run_id, "figures")
    else:
        assert list(tmp_path.rglob("media/images/figures/*.png"))


@pytest.mark.filterwarnings("default")  # its own packages deprecate each other's functions
def test_mlflow_keeps_a_database_in_the_run_by_default(tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    (logger,) = make_loggers(LoggerConfig("mlflow"), Run(tmp_path))
    assert isinstance(logger, MLFlowLogger)
    logger.log_metrics({"val/acc": 0.5})
    logger.finalize("success")
    assert (tmp_path / "mlflow.db").stat().st_size > 0
    (resumed,) = make_loggers(LoggerConfig("mlflow"), Run(tmp_path))
    assert isinstance(resumed, MLFlowLogger)
    resumed.log_metrics({"val/acc": 0.6})
    history = resumed.experiment.get_metric_history(logger.run_id, "val/acc")
    assert [metric.value for metric in history] == [0.5, 0.6]


def test_tensorboards_table_has_what_is_unusual_and_numbers_as_numbers(tmp_path: Path) -> None:
    config = Config(optimizer=OptimizerConfig(nesterov=True), strategy=StrategyConfig(feature_views=4), report=True)
    figures = {"acc": 0.5, "loss": 0.7, "macro_f1": 0.4}
    of_many = figures | {"top5_acc": 0.9}
    logger = TensorBoardLogger(tmp_path, name="", version="tensorboard", default_hp_metric=False)
    trainer = pl.Trainer(logger=logger, enable_checkpointing=False, accelerator="cpu")
    log_final_metrics(trainer, config, {"val": of_many, "last": figures, "test": None})
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
    assert events.Scalars("final/val_top5_acc")[0].value == pytest.approx(0.9)
    assert "final/last_top5_acc" not in events.Tags()["scalars"]


def test_tensorboards_table_has_the_columns_of_all_runs(tmp_path: Path) -> None:
    figures = {"acc": 0.5, "loss": 0.7, "macro_f1": 0.4}
    for number, head in enumerate((HeadConfig(), HeadConfig(dropout=0.3))):
        logger = TensorBoardLogger(tmp_path, name="", version=f"run{number}", default_hp_metric=False)
        trainer = pl.Trainer(logger=logger, enable_checkpointing=False, accelerator="cpu")
        log_final_metrics(trainer, Config(head=head), {"val": figures, "last": figures, "test": None})
    runs = EventMultiplexer().AddRunsFromDirectory(str(tmp_path)).Reload()
    context = BackendContext(TBContext(data_provider=MultiplexerDataProvider(runs, str(tmp_path))))
    tags = context.hparams_metadata(RequestContext(), "")
    table = context.experiment_from_metadata(RequestContext(), "", True, tags, [])
    assert "head.dropout" in {column.name for column in table.hparam_infos}
    assert "final/last_acc" in {metric.name.tag for metric in table.metric_infos}


@pytest.mark.filterwarnings("default")  # its own packages deprecate each other's functions
def test_a_path_that_is_no_utf_8_does_not_end_a_training_at_its_last_step(tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path, name="", version="tensorboard", default_hp_metric=False)
    config = Config(dataset=DatasetConfig(root="gr\udcf6\udcdfe"))
    figures = {"acc": 0.5, "loss": 1.0, "macro_f1": 0.5}
    log_final_metrics(
        pl.Trainer(logger=logger, accelerator="cpu"), config, {"val": figures, "last": figures, "test": None}
    )
    data = EventAccumulator(str(tmp_path / "tensorboard")).Reload().SummaryMetadata("_hparams_/session_start_info")
    options = HParamsPluginData.FromString(data.plugin_data.content).session_start_info.hparams
    assert options["dataset.root"].string_value == r"gr\udcf6\udcdfe"


def test_a_resumed_run_may_have_other_options_than_mlflow_knows(tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    for max_epochs in (1, 2):
        (logger,) = make_loggers(LoggerConfig("mlflow"), Run(tmp_path))
        assert isinstance(logger, MLFlowLogger)
        trainer = pl.Trainer(logger=logger, enable_checkpointing=False, accelerator="cpu")
        figures = {"acc": max_epochs / 4, "loss": 0.7, "macro_f1": 0.4}
        config = Config(trainer=TrainerConfig(max_epochs=max_epochs))
        log_final_metrics(trainer, config, {"val": figures, "last": figures, "test": None})
    data = logger.experiment.get_run(logger.run_id).data
    assert data.params["trainer.max_epochs"] == "1"
    assert data.metrics["final/val_acc"] == 0.5
