from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest

from thaw.config import BackboneConfig, Config, DatasetConfig, StrategyConfig, TrainerConfig
from thaw.errors import ThawError
from thaw.run import Run
from thaw.summary import Summary
from thaw.training.callbacks import make_callbacks
from thaw.training.checkpoints import BestCheckpoint
from thaw.training.progress import EpochLog
from thaw.training.stopping import PhaseEarlyStopping
from thaw.training.train import train

Make = Callable[..., list[pl.Callback]]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """The callbacks of a training of nine stages, by its options."""

    def make(strategy: StrategyConfig | None = None, **options: Any) -> list[pl.Callback]:
        config = Config(strategy=strategy or StrategyConfig(), trainer=TrainerConfig(max_epochs=5, **options))
        run = Run(tmp_path)
        return make_callbacks(config, run, 9, EpochLog(run.metrics_csv), None, "max")

    return make


def test_patience_knows_the_phases_of_the_strategy(make: Make) -> None:
    strategy = StrategyConfig(backbone_factor=1, head_epochs=2, unfreeze_epochs=2)
    (stopping,) = (each for each in make(strategy, early_stopping=4) if type(each) is PhaseEarlyStopping)
    assert (stopping.patience, stopping.phase_starts) == (4, [0, 2, 3])


def test_a_callback_of_ones_own_is_made_by_its_class(make: Make) -> None:
    recipe = {"_target_": "lightning.pytorch.callbacks.LambdaCallback"}
    callbacks = make(callbacks={"mine": recipe})
    assert {type(callback) for callback in callbacks} > {pl.callbacks.LambdaCallback, BestCheckpoint}


@pytest.mark.parametrize(
    ("recipe", "reason"),
    [
        ({"_target_": "no.such.Callback"}, "cannot be made: .*no"),
        ({"_target_": "lightning.pytorch.callbacks.Timer", "colour": 1}, "cannot be made: .*colour"),
        ({"_target_": "lightning.pytorch.callbacks.LearningRateFinder"}, "looks .* optimizer.lr=auto finds the rate"),
        ({"_target_": "lightning.pytorch.callbacks.BatchSizeFinder"}, "looks .* dataset.batch_size is yours to set"),
        ({"_target_": "lightning.pytorch.callbacks.RichProgressBar"}, "is a progress bar, and a terminal has Thaw's"),
        ({"_target_": "lightning.pytorch.callbacks.BackboneFinetuning"}, "thaws .* strategy.head_epochs=N"),
        (
            {"_target_": "lightning.pytorch.callbacks.StochasticWeightAveraging", "swa_lrs": 0.01},
            "averages weights: use trainer.ema_decay=0.999",
        ),
        (
            {"_target_": "lightning.pytorch.callbacks.EMAWeightAveraging", "decay": 0.9},
            "averages weights: use trainer.ema_decay=0.999",
        ),
        ({"_target_": "builtins.dict"}, "must be a callback of lightning.pytorch, got builtins.dict[.]"),
        ({"monitor": "val/acc"}, "must be {_target_: MODULE.CLASS, …}, got {'monitor': 'val/acc'}[.]"),
        ("Timer", "must be {_target_: MODULE.CLASS, …}, got 'Timer'[.]"),
    ],
)
def test_what_is_no_callback_for_thaw_is_a_mistake_of_the_users(make: Make, recipe: Any, reason: str) -> None:
    with pytest.raises(ThawError, match=rf"^trainer\.callbacks\.mine {reason}"):
        make(callbacks={"mine": recipe})


@pytest.mark.slow
def test_early_stopping_of_ones_own_looks_where_it_is_validated(image_folder: Path, tmp_path: Path) -> None:
    def fit(monitor: str) -> Summary:
        recipe = {"_target_": "lightning.pytorch.callbacks.EarlyStopping", "monitor": monitor, "patience": 3}
        config = Config(
            dataset=DatasetConfig(root=str(image_folder), image_size=64),
            backbone=BackboneConfig("squeezenet1_1", None),
            trainer=TrainerConfig(accelerator="cpu", max_epochs=4, eval_every=2, callbacks={"own": recipe}),
            figures=False,
        )
        return train(config, tmp_path / f"stops by {monitor.replace('/', ' ')}")

    assert fit("val/loss")["epochs"] == 4  # two validations are no reason to stop
    with pytest.raises(ThawError, match=r"^A callback of trainer\.callbacks stops by what is not there: .*val_loss"):
        fit("val_loss")


def test_checkpoints_of_ones_own_lie_beside_thaws(image_folder: Path, tmp_path: Path) -> None:
    target = "lightning.pytorch.callbacks.ModelCheckpoint"
    recipe = {"_target_": target, "filename": "{epoch}", "every_n_epochs": 1, "save_top_k": -1}
    elsewhere = {**recipe, "every_n_epochs": 2, "dirpath": str(tmp_path / "elsewhere")}
    config = Config(
        dataset=DatasetConfig(root=str(image_folder), image_size=32),
        backbone=BackboneConfig("squeezenet1_1", None),
        trainer=TrainerConfig(accelerator="cpu", max_epochs=2, callbacks={"all": recipe, "elsewhere": elsewhere}),
        figures=False,
    )
    train(config, tmp_path / "run")
    own, others = ({path.name for path in tmp_path.glob(place)} for place in ("run/checkpoints/own/*", "elsewhere/*"))
    assert (own, others) == ({"epoch=0.ckpt", "epoch=1.ckpt"}, {"epoch=1.ckpt"})
    assert not (tmp_path / "run/tensorboard/checkpoints").exists()
