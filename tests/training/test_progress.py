import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import Metric
from torchmetrics.classification import MulticlassCohenKappa

from thaw.config import OptimizerConfig, StrategyConfig
from thaw.data.transforms import EvaluationTransform
from thaw.model.classifier import Classifier
from thaw.reading import read_metrics
from thaw.training.progress import EpochLog, stage_table
from thaw.training.validation import EvaluationEpochs

NUM_IMAGES = 12


def make_model(strategy: StrategyConfig | None = None, own_metrics: dict[str, Metric] | None = None) -> Classifier:
    transform, optimizer = EvaluationTransform(36, 32), OptimizerConfig(lr=0.01)
    strategy = strategy or StrategyConfig()
    return Classifier(
        "squeezenet1_1", ["ants", "bees"], transform, strategy=strategy, optimizer=optimizer, own_metrics=own_metrics
    )


def fit(
    path: Path,
    max_epochs: int,
    callbacks: Sequence[pl.Callback] = (),
    resume: Path | None = None,
    strategy: StrategyConfig | None = None,
    monitor: str = "val/acc",
    own_metrics: dict[str, Metric] | None = None,
    **flags: Any,
) -> tuple[EpochLog, pl.Trainer]:
    """Train on stored features: eight to train on and four to validate."""
    torch.manual_seed(0)
    features, labels = torch.randn(NUM_IMAGES, 512), torch.arange(NUM_IMAGES) % 2
    epochs = EpochLog(path, monitor)
    trainer = pl.Trainer(
        max_epochs=max_epochs,
        accelerator="cpu",
        callbacks=[epochs, *callbacks],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        **flags,
    )
    train = DataLoader(TensorDataset(features[:8], labels[:8]), 4)
    val = DataLoader(TensorDataset(features[8:], labels[8:]), 4)
    trainer.fit(make_model(strategy, own_metrics), train, val, ckpt_path=resume, weights_only=True)
    return epochs, trainer


# ---- TensorBoard


def test_tensorboard_shows_train_and_val_in_one_chart(tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path, name="", version="tensorboard")
    trainer = pl.Trainer(logger=logger, enable_checkpointing=False, accelerator="cpu", max_epochs=1)
    EpochLog(tmp_path / "metrics.csv").on_train_start(trainer, make_model())
    logger.experiment.flush()
    events = EventAccumulator(logger.log_dir).Reload()
    layout = Layout.FromString(events.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0])
    (category,) = layout.category
    tags = {chart.title: list(chart.multiline.tag) for chart in category.chart}
    assert tags["loss"] == ["train/loss", "val/loss"]
    assert tags["learning rates"] == ["lr/.*"]


# ---- metrics.csv


def test_an_epoch_is_a_row(tmp_path: Path) -> None:
    epochs, trainer = fit(tmp_path / "metrics.csv", max_epochs=3)
    rows = read_metrics(tmp_path / "metrics.csv")
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    metrics = {"train/loss", "train/acc", "train/macro_f1", "val/loss", "val/acc", "val/macro_f1", "lr/head"}
    assert all(metrics <= row.keys() for row in rows)
    assert rows[-1]["val/loss"] == pytest.approx(float(trainer.callback_metrics["val/loss"]), rel=1e-5)
    assert rows[0]["seconds"] <= epochs.end - epochs.starts[0]


def test_the_rates_are_those_of_the_epoch(tmp_path: Path) -> None:
    strategy = StrategyConfig(backbone_factor=0.5, first_stage_factor=0.1, head_epochs=1)
    fit(tmp_path / "metrics.csv", 2, strategy=strategy)
    first, second = read_metrics(tmp_path / "metrics.csv")
    stages = sorted(name for name in first if name.startswith("lr/stage_"))
    assert len(stages) == len(make_model().backbone.stages)
    assert {first[name] for name in stages} == {0}
    rates = [second[name] for name in stages]
    assert rates == sorted(rates)
    assert rates[-1] == pytest.approx(0.5 * second["lr/head"], rel=1e-4)
    assert rates[0] == pytest.approx(0.1 * rates[-1], rel=1e-4)


def test_a_resumed_training_drops_what_was_written_after_its_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    _, trainer = fit(path, max_epochs=2)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    before = path.read_text()
    path.write_text(before + before.splitlines()[-1].replace("2,", "3,", 1) + "\n")
    assert len(read_metrics(path)) == 3
    fit(path, max_epochs=2, resume=tmp_path / "last.ckpt")  # no epoch is left
    assert path.read_text() == before
    epochs, _ = fit(path, max_epochs=4, resume=tmp_path / "last.ckpt")
    assert path.read_text().startswith(before)
    assert [row["epoch"] for row in read_metrics(path)] == [1, 2, 3, 4]
    assert len(epochs.starts) == 2


def test_a_training_from_the_start_forgets_an_older_file(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    fit(path, max_epochs=3)
    fit(path, max_epochs=1)
    assert [row["epoch"] for row in read_metrics(path)] == [1]


def test_nothing_is_left_of_an_older_file_of_another_network(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    fit(path, max_epochs=1)
    own = path.read_text().splitlines()[0]
    path.write_text("epoch,seconds,lr/stage_00\n1,0.5,0.1\n")
    fit(path, max_epochs=1)
    assert path.read_text().splitlines()[0] == own
    assert [row["epoch"] for row in read_metrics(path)] == [1]


@pytest.mark.parametrize(("every", "validated"), [(2, [2, 4]), (3, [3, 4]), (4, [4])])
def test_epochs_without_validation_leave_their_fields_empty(tmp_path: Path, every: int, validated: list[int]) -> None:
    fit(tmp_path / "metrics.csv", 4, [EvaluationEpochs(every)])
    rows = read_metrics(tmp_path / "metrics.csv")
    assert [row["epoch"] for row in rows if row["val/acc"] is not None] == validated
    assert all(0 <= row["train/acc"] <= 1 for row in rows)
    assert len({row["lr/head"] for row in rows}) == 4


def test_an_epoch_without_validation_shows_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="thaw"):
        fit(tmp_path / "metrics.csv", 4, [EvaluationEpochs(2)])
    lines = [message for message in caplog.messages if message.startswith("epoch ")]
    assert ["val loss" in line for line in lines] == [False, True, False, True]


def test_an_epoch_that_was_broken_off_does_not_show_the_figures_of_the_one_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="thaw"):
        fit(tmp_path / "metrics.csv", 4, max_steps=3)  # of two an epoch
    whole, broken_off = read_metrics(tmp_path / "metrics.csv")
    assert whole["train/loss"] is not None
    assert broken_off["train/loss"] is broken_off["train/acc"] is None
    assert broken_off["lr/head"] is not None
    lines = [message for message in caplog.messages if message.startswith("epoch ")]
    assert ["train loss" in line for line in lines] == [True, False]


def test_an_epoch_runs_from_start_to_start() -> None:
    epochs = EpochLog(Path("metrics.csv"))
    assert epochs.times == []
    epochs.starts, epochs.end = [10.0, 14.0, 15.0], 17.0
    assert epochs.times == [4.0, 1.0, 2.0]


# ---- the screen


def test_an_epoch_is_a_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="thaw"):
        fit(tmp_path / "metrics.csv", max_epochs=2)
    lines = [message for message in caplog.messages if message.startswith("epoch ")]
    assert len(lines) == 2
    for epoch, line in enumerate(lines, start=1):
        part = r"loss \d+\.\d{4} acc [01]\.\d{4}"
        expected = rf"epoch {epoch}/2 \| train {part} \| val {part} \| \d+\.\d s, \d+ images/s \| lr head \S+"
        assert re.fullmatch(expected, line)


def test_the_line_has_the_macro_f1_where_it_decides(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="thaw"):
        fit(tmp_path / "metrics.csv", 2, [EvaluationEpochs(2)], monitor="val/macro_f1")
    first, second = (message for message in caplog.messages if message.startswith("epoch "))
    assert "macro-F1" not in first  # was not validated
    value = read_metrics(tmp_path / "metrics.csv")[1]["val/macro_f1"]
    assert re.search(rf"\| val loss \S+ acc \S+ macro-F1 {value:.4f} \| ", second)


def test_the_line_and_the_row_have_metrics_of_ones_own(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="thaw"):
        fit(tmp_path / "metrics.csv", 2, [EvaluationEpochs(2)], own_metrics={"kappa": MulticlassCohenKappa(2)})
    first, second = (message for message in caplog.messages if message.startswith("epoch "))
    assert "kappa" not in first  # was not validated
    rows = read_metrics(tmp_path / "metrics.csv")
    assert rows[0]["val/kappa"] is None
    assert re.search(rf"\| val loss \S+ acc \S+ kappa {rows[1]['val/kappa']:.4f} \| ", second)


def test_images_that_are_left_out_are_not_counted(tmp_path: Path) -> None:
    assert fit(tmp_path / "a.csv", max_epochs=2)[0].num_images == NUM_IMAGES
    assert fit(tmp_path / "b.csv", max_epochs=2, limit_train_batches=1)[0].num_images == NUM_IMAGES - 4
    assert fit(tmp_path / "c.csv", 3, [EvaluationEpochs(3)])[0].num_images == NUM_IMAGES
    assert fit(tmp_path / "d.csv", 2, limit_val_batches=0)[0].num_images == NUM_IMAGES - 4


def test_the_line_names_the_range_of_the_backbones_rates(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="thaw"):
        fit(tmp_path / "a.csv", 1, strategy=StrategyConfig(backbone_factor=1, first_stage_factor=0.01))
        fit(tmp_path / "b.csv", 1, strategy=StrategyConfig(backbone_factor=1))
    discriminative, uniform = (line.rpartition(" | ")[2] for line in caplog.messages if line.startswith("epoch "))
    assert re.fullmatch(r"lr head (\S+), backbone \S+ to \1", discriminative)
    assert re.fullmatch(r"lr head (\S+), backbone \1", uniform)


# ---- the table of stages


def test_the_stage_table_says_when_each_stage_learns_and_how_fast() -> None:
    model = make_model(StrategyConfig(backbone_factor=0.1, trainable_stages=2, head_epochs=3))
    header, *rows = [re.split(r" {2,}", line.strip()) for line in stage_table(model, num_epochs=5).splitlines()]
    assert header == ["stage", "parameters", "state", "lr"]
    last = len(model.backbone.stages) - 1
    assert [state for _, _, state, _ in rows] == ["frozen", *["trainable from epoch 4"] * 2, "trainable"]
    assert [rate for *_, rate in rows] == ["0", "0.001", "0.001", "0.01"]
    sizes = [int(size.replace(",", "")) for _, size, _, _ in rows]
    assert sum(sizes) == sum(parameter.numel() for parameter in model.parameters())
    assert rows[0][0].startswith(f"0 to {last - 2} features.0 … ")
    assert rows[1][0].startswith(f"{last - 1} ")
    assert rows[-1][0] == "head"


def test_without_frozen_stages_each_has_its_line() -> None:
    model = make_model(StrategyConfig(backbone_factor=1))
    _, *rows = stage_table(model, num_epochs=1).splitlines()
    assert len(rows) == len(model.backbone.stages) + 1
    assert rows[0].startswith("0 features.0")
    assert len(stage_table(make_model(), num_epochs=1).splitlines()) == 3
