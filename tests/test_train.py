"""The main job, end to end, as a user runs it."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from thaw.config import Config
from thaw.evaluation import evaluate
from thaw.evaluation_files import write_evaluation
from thaw.run import Run
from thaw.training.train import train

ROOT = Path(__file__).parents[1]
TINY = [
    "backbone=squeezenet1_1",
    "backbone.weights=null",
    "dataset.image_size=64",
    "trainer=cpu",
    "trainer.precision=32",
]
Compose = Callable[..., DictConfig]


def command(*overrides: str) -> list[str]:
    return [sys.executable, str(ROOT / "train.py"), *overrides]


def run(*overrides: str, cwd: Path, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"THAW_CACHE": str(cwd / "cache"), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command(*overrides), cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout
    )


def state_of(path: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(path, weights_only=True)["state_dict"]
    return state


def assert_equal_states(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


@pytest.mark.slow
def test_a_run_folder_is_a_self_contained_record(image_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    done = run(
        *TINY, "dataset=folder", f"dataset.root={image_folder}", "strategy=gradual", "strategy.head_epochs=1",
        "strategy.unfreeze_epochs=2", "trainer.max_epochs=3", f"hydra.run.dir={folder}", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    expected = {
        "checkpoints/best.ckpt", "checkpoints/last.ckpt", "config.yaml", "figures/predictions.jpg",
        "figures/training_batch.jpg", "metrics.csv", "predictions.csv", "predictions_last.csv", "summary.json",
        "train.log",
    }  # fmt: skip
    assert expected <= {str(path.relative_to(folder)) for path in folder.rglob("*")}
    summary = json.loads((folder / "summary.json").read_text())
    assert set(summary) == {
        "val", "last", "test", "best_epoch", "epochs", "monitor_mode", "pruned", "epoch_chosen_on", "seconds", "params",
        "classes", "lr", "probe", "precision", "gpu_memory_gb", "seed", "command", "versions", "data_fingerprint",
    }  # fmt: skip
    assert set(summary["val"]) == {"acc", "acc_ci95", "n", "loss", "macro_f1"}
    assert (summary["epochs"], summary["epoch_chosen_on"], summary["test"]) == (3, "val", None)
    assert summary["classes"] == ["blue", "green", "red"]
    assert summary["val"]["n"] == 9
    assert summary["command"].startswith("python train.py backbone=squeezenet1_1 ")
    assert len((folder / "metrics.csv").read_text().splitlines()) == 1 + 3
    for name, key in (("predictions", "val"), ("predictions_last", "last")):
        with (folder / f"{name}.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert sum(row["label"] == row["predicted"] for row in rows) / 9 == summary[key]["acc"]
    assert all(line in done.stdout for line in ("epoch 3/3 | train loss", "Best val accuracy", "Next: "))
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    assert set(events.Tags()["images"]) == {f"figures/{path.stem}" for path in (folder / "figures").iterdir()}
    assert [len(events.Scalars(f"lr/{name}")) for name in ("head", "stage_08", "stage_00")] == [3, 2, 1]  # as they thaw
    shown = events.Images("figures/predictions")[0]
    assert shown.encoded_image_string == (folder / "figures" / "predictions.jpg").read_bytes()
    with Image.open(folder / "figures" / "predictions.jpg") as drawn:
        assert (shown.width, shown.height) == drawn.size


@pytest.mark.slow
def test_pictures_are_left_out_on_request_and_drawn_by_an_evaluation(image_folder: Path, tmp_path: Path) -> None:
    options = [*TINY, "dataset=folder", f"dataset.root={image_folder}", "trainer.max_epochs=1", "figures=false"]
    done = run(*options, "hydra.run.dir=run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "run" / "figures").iterdir()) == []
    write_evaluation(evaluate(Run(tmp_path / "run")), tmp_path / "drawn")
    assert (tmp_path / "drawn" / "top_losses.jpg").exists()


@pytest.mark.slow
def test_a_killed_and_resumed_run_ends_with_the_weights_of_an_unbroken_one(image_folder: Path, tmp_path: Path) -> None:
    options = [
        *TINY, "dataset=folder", f"dataset.root={image_folder}", "strategy=gradual", "strategy.head_epochs=2",
        "strategy.unfreeze_epochs=2", "trainer.max_epochs=8", "augment.mixup=0.2", "head.dropout=0.2", "logger=csv",
        "augment.start_size=32", "trainer.checkpoint_seconds=0", "dataset.batch_size=4",
    ]  # fmt: skip
    assert run(*options, f"hydra.run.dir={tmp_path / 'unbroken'}", cwd=tmp_path).returncode == 0
    broken = tmp_path / "broken"
    process = subprocess.Popen(
        command(*options, f"hydra.run.dir={broken}"), cwd=tmp_path, stdout=subprocess.DEVNULL,
        env=os.environ | {"THAW_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    killed_after = wait_for_rows(broken / "metrics.csv", at_least=3)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (broken / "summary.json").exists()
    epochs_done = torch.load(broken / "checkpoints" / "last.ckpt", weights_only=True)["epoch"] + 1
    assert 2 <= epochs_done < 8
    assert epochs_done >= killed_after - 1
    resumed = run(f"resume={broken}", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    printed = [line.split("|")[0].strip() for line in resumed.stdout.splitlines() if line.startswith("epoch ")]
    assert printed == [f"epoch {epoch}/8" for epoch in range(epochs_done + 1, 9)]
    assert_equal_states(
        state_of(tmp_path / "unbroken" / "checkpoints" / "last.ckpt"), state_of(broken / "checkpoints" / "last.ckpt")
    )
    rows = [line.split(",")[0] for line in (broken / "metrics.csv").read_text().splitlines()[1:]]
    assert rows == [str(epoch) for epoch in range(1, 9)]
    commands = [Run(tmp_path / name).summary["command"] for name in ("unbroken", "broken")]
    assert commands[0] == commands[1]  # it makes the run again
    before = (broken / "summary.json").read_bytes()
    for place, options in ((broken, []), (broken / "checkpoints" / "last.ckpt", ["trainer.max_epochs=8"])):
        again = run(f"resume={place}", *options, cwd=tmp_path)
        assert (again.returncode, "broken is finished. To train it for longer" in again.stderr) == (2, True)
    assert (broken / "summary.json").read_bytes() == before


@pytest.mark.slow
def test_a_refused_resume_changes_nothing_of_the_run(image_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    options = [*TINY, "dataset=folder", f"dataset.root={image_folder}", "figures=false", "logger=csv"]
    assert run(*options, "trainer.max_epochs=2", f"hydra.run.dir={folder}", cwd=tmp_path).returncode == 0
    (folder / "summary.json").unlink()  # as a kill after the last epoch leaves it
    before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name != "train.log"}
    for option, message in (
        ("trainer.max_epochs=1", "trained for 2 epochs; trainer.max_epochs=1."),
        ("trainer.monitor=val/loss", "was trained with trainer.monitor val/acc, and now it is val/loss."),
    ):
        refused = run(f"resume={folder}", option, cwd=tmp_path)
        assert (refused.returncode, message in refused.stderr) == (2, True)
        assert "trainable" not in refused.stdout
        assert {path: path.read_bytes() for path in before} == before


def wait_for_rows(path: Path, at_least: int, seconds: float = 120) -> int:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        rows = len(path.read_text().splitlines()) - 1 if path.exists() else 0
        if rows >= at_least:
            return rows
        time.sleep(0.02)
    raise AssertionError(f"{path} has not got {at_least} rows in {seconds} s")


@pytest.mark.slow
def test_worker_processes_and_caches_do_not_change_the_result(
    compose: Compose, image_folder: Path, tmp_path: Path
) -> None:
    ways = [("ram", 0), ("none", 0), ("none", 2)]
    for number, (cache, num_workers) in enumerate(ways):
        config = compose(
            *TINY, "dataset=folder", f"dataset.root={image_folder}", "strategy=gradual", "strategy.head_epochs=1",
            "strategy.feature_views=2", "trainer.max_epochs=3", "head.dropout=0.2", "logger=csv", "augment=trivial",
            f"dataset.cache={cache}", f"dataset.num_workers={num_workers}",
        )  # fmt: skip
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("THAW_CACHE", str(tmp_path / f"cache_{number}"))  # the features, too, are made anew
            train(OmegaConf.to_object(config), tmp_path / str(number))  # type: ignore[arg-type]
    states = [state_of(tmp_path / str(number) / "checkpoints" / "last.ckpt") for number in range(len(ways))]
    predictions = [(tmp_path / str(number) / "predictions.csv").read_bytes() for number in range(len(ways))]
    for state, table in zip(states, predictions, strict=True):
        assert_equal_states(state, states[0])
        assert table == predictions[0]


class BreaksOff(pl.Callback):
    """Ends the training as its third epoch begins."""

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch == 2:
            raise RuntimeError("broken off")


@pytest.mark.slow
@pytest.mark.parametrize(("cache", "num_workers"), [("none", 2), ("ram", 2), ("ram", 0)])
def test_loader_processes_go_on_with_the_epoch_that_a_resumed_run_is_in(
    compose: Compose, image_folder: Path, tmp_path: Path, cache: str, num_workers: int
) -> None:
    options = [
        *TINY, "dataset=folder", f"dataset.root={image_folder}", "strategy=finetune", "trainer.max_epochs=4",
        "logger=csv", "dataset.batch_size=4", "trainer.checkpoint_seconds=0", "figures=false",
        f"dataset.cache={cache}", f"dataset.num_workers={num_workers}",
    ]  # fmt: skip
    config: Config = OmegaConf.to_object(compose(*options))  # type: ignore[assignment]
    train(config, tmp_path / "unbroken")
    broken = tmp_path / "broken"
    with pytest.raises(RuntimeError, match="broken off"):
        train(config, broken, callbacks=[BreaksOff()])
    train(replace(config, resume=str(broken)), broken)
    assert_equal_states(*(state_of(tmp_path / name / "checkpoints" / "last.ckpt") for name in ("unbroken", "broken")))


def draw(path: Path, generator: np.random.Generator, shade: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.clip(generator.normal(shade, 40, (70, 80, 3)), 0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The published data sets' layouts with a few generated images each."""
    root = tmp_path_factory.mktemp("data")
    generator = np.random.default_rng(0)
    layouts = {
        "hymenoptera_data": (("train", "val"), ("ants", "bees")),
        "hotdog": (("train", "test"), ("hotdog", "not-hotdog")),
        "Canidae": (("train", "val"), ("dogs", "wolves")),
    }
    for folder, (splits, classes) in layouts.items():
        for split in splits:
            for shade, name in enumerate(classes):
                for number in range(6):
                    draw(root / folder / split / name / f"{number}.png", generator, 60 + 120 * shade)
    for shade, breed in enumerate(("Abyssinian", "scottish_terrier")):
        for number in range(10):
            draw(root / "oxford-iiit-pet" / "images" / f"{breed}_{number}.jpg", generator, 60 + 120 * shade)
    return root


def shrink(root: Path, epochs: int) -> list[str]:
    """What makes a recipe small enough for a test without changing what it does."""
    return [
        f"dataset.root={root}", "dataset.image_size=64", "dataset.resize=64", f"trainer.max_epochs={epochs}",
        "logger=csv", "trainer=cpu", "trainer.precision=32",
    ]  # fmt: skip


RECIPES = {
    "hymenoptera_finetune": ("finetune", {"batch_size": 4}),
    "hymenoptera_frozen": ("frozen", {"batch_size": 4}),
    "hotdog_finetune": ("boosted_head", {"batch_size": 128}),
    "hotdog_scratch": ("scratch", {"batch_size": 128}),
    "canidae_finetune": ("finetune", {"batch_size": 24, "drop_last": True}),
    "canidae_frozen": ("frozen", {"batch_size": 24}),
    "pets_frozen": ("frozen", {"batch_size": 64}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_a_published_recipe_runs_end_to_end(
    name: str, compose: Compose, stand_ins: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THAW_CACHE", str(tmp_path / "cache"))
    config: Any = OmegaConf.to_object(
        compose(f"experiment={name}", "backbone.weights=null", *shrink(stand_ins, epochs=2))
    )
    strategy, dataset = RECIPES[name]
    assert config.strategy.name == strategy
    assert {key: getattr(config.dataset, key) for key in dataset} == dataset
    summary = train(config, tmp_path / "run")
    assert summary["epochs"] == 2
    assert summary["epoch_chosen_on"] == ("test" if name.startswith("hotdog") else "val")
    assert summary["params"]["trainable"] < 5000 or strategy != "frozen"


@pytest.mark.slow
def test_the_stages_of_the_pets_recipe_build_on_each_other(
    compose: Compose, stand_ins: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THAW_CACHE", str(tmp_path / "cache"))

    def stage(name: str, epochs: int, *overrides: str) -> dict[str, Any]:
        config: Any = OmegaConf.to_object(compose(f"experiment={name}", *shrink(stand_ins, epochs), *overrides))
        return train(config, tmp_path / name)

    stage("pets_frozen", 2, "backbone.weights=null")
    first = state_of(tmp_path / "pets_frozen" / "checkpoints" / "best.ckpt")
    weights = f"backbone.weights={tmp_path / 'pets_frozen'}"
    for name in ("pets_unfrozen", "pets_discriminative", "pets_last_stages"):
        # At a rate of next to nothing the weights are still those of stage 1, head included.
        stage(name, 1, weights, "optimizer.lr=1e-30", "optimizer.weight_decay=0")
        second = state_of(tmp_path / name / "checkpoints" / "last.ckpt")
        learned = [key for key in first if "running" not in key and "num_batches" not in key]
        assert [key for key in learned if not torch.allclose(first[key], second[key], atol=1e-20)] == []
    assert stage("pets", 5, "backbone.weights=null")["epochs"] == 5


@pytest.mark.slow
def test_transferred_digits_beat_digits_from_scratch(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    small = [f"dataset.root={tmp_path}", "dataset.image_size=40"]
    first = run(
        "experiment=digits_source", "trainer.max_epochs=3", *small, f"hydra.run.dir={source}",
        cwd=tmp_path, timeout=1200,
    )  # fmt: skip
    assert first.returncode == 0, first.stderr
    sweep = run(
        "-m", "experiment=digits_target", f"backbone.weights={source}", "strategy=frozen,scratch", *small,
        "figures=true", f"hydra.sweep.dir={target}", cwd=tmp_path, timeout=1200,
    )  # fmt: skip
    assert sweep.returncode == 0, sweep.stderr
    assert "(val, last epoch)" in sweep.stdout
    assert len(list(target.glob("*/figures/confusion.png"))) == 2
    frozen, scratch = (Run(target / name).summary for name in ("0_strategy=frozen", "1_strategy=scratch"))
    assert frozen["probe"]["acc"] > scratch["last"]["acc"]
    assert frozen["last"]["acc"] > max(scratch["last"]["acc"], 0.8)
