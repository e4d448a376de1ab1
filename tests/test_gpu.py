"""What only a GPU can show; without one, all of it is skipped."""

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor

from thaw.config import (
    AugmentConfig,
    BackboneConfig,
    Config,
    DatasetConfig,
    LoggerConfig,
    OptimizerConfig,
    StrategyConfig,
    TrainerConfig,
)
from thaw.data.device import CropDataset, Crops, DeviceImages
from thaw.data.sampling import Batch
from thaw.errors import ThawError
from thaw.evaluation import evaluate
from thaw.reading import read_metrics
from thaw.run import Run
from thaw.training.building import build
from thaw.training.train import train
from thaw.training.trainer import fit, make_trainer

ROOT = Path(__file__).parents[1]
GPU = torch.device("cuda")
STRATEGIES = {
    "frozen": StrategyConfig("frozen", backbone_factor=0.0),
    "gradual": StrategyConfig("gradual", backbone_factor=1.0, head_epochs=1, unfreeze_epochs=2),
    "finetune": StrategyConfig("finetune", backbone_factor=1.0),
}

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THAW_CACHE", str(tmp_path / "cache"))


def options(root: Path, strategy: str = "finetune", **trainer: Any) -> Config:
    return Config(
        dataset=DatasetConfig(root=str(root), image_size=64, batch_size=8),
        backbone=BackboneConfig("resnet18", None),
        strategy=STRATEGIES[strategy],
        optimizer=OptimizerConfig(lr=0.01),
        trainer=TrainerConfig(**{"max_epochs": 3, **trainer}),
        logger=LoggerConfig("csv"),
    )


def learns(folder: Path) -> bool:
    losses = [row["train/loss"] for row in read_metrics(folder / "metrics.csv")]
    return losses[-1] < losses[0]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_training_takes_the_gpu_and_all_that_speeds_it_up(
    image_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, strategy: str
) -> None:
    caplog.set_level(logging.INFO, "thaw")
    summary = train(options(image_folder, strategy), tmp_path / "run")
    assert summary["gpu_memory_gb"] > 0
    assert summary["precision"] == ("bf16-mixed" if torch.cuda.is_bf16_supported(False) else "16-mixed")
    for split in ("train", "val"):
        assert (f"Images of {split}: kept on cuda:0" in caplog.text) == (strategy != "frozen")
    assert "GB of the GPU's memory at most" in caplog.text
    assert summary["epochs"] == 3


def test_a_loss_and_a_metric_of_ones_own_are_moved_to_the_gpu(image_folder: Path, tmp_path: Path) -> None:
    config = options(image_folder)
    weight = {"_target_": "torch.tensor", "data": [1.0, 2.0, 3.0]}
    config.loss = {"_target_": "torch.nn.CrossEntropyLoss", "weight": weight}
    config.metrics = {"kappa": {"_target_": "torchmetrics.CohenKappa"}}
    summary = train(config, tmp_path / "run")
    assert -1 <= summary["val"]["kappa"] <= 1  # type: ignore[typeddict-item]
    assert learns(tmp_path / "run")


def test_where_the_images_are_kept_hardly_changes_what_is_learnt(
    image_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "thaw")
    losses = {}
    for cache in ("auto", "ram", "none"):
        config = options(image_folder, precision="32", max_epochs=8)
        config.optimizer.lr = 0.002  # few images in few batches of one size: a higher rate may end above its first loss
        config.dataset.batch_size = 6
        config.dataset.cache = cache
        config.dataset.num_workers = 2
        caplog.clear()
        train(config, tmp_path / cache)
        assert ("kept on cuda:0" in caplog.text) == (cache == "auto")
        losses[cache] = [row["train/loss"] for row in read_metrics(tmp_path / cache / "metrics.csv")]
        assert losses[cache][-1] < losses[cache][0]
    assert losses["ram"][0] == pytest.approx(losses["none"][0], rel=1e-3)
    assert losses["auto"][0] == pytest.approx(losses["ram"][0], rel=0.2)  # other crops


def test_a_run_of_the_gpu_is_evaluated_on_the_cpu(image_folder: Path, tmp_path: Path) -> None:
    train(options(image_folder, precision="32"), tmp_path / "run")
    on_gpu, on_cpu = (evaluate(Run(tmp_path / "run"), device=device) for device in ("gpu", "cpu"))
    assert (on_gpu.predictions.logits - on_cpu.predictions.logits).abs().max() < 0.05  # of TF32 in convolutions


class NoWaiting(pl.Callback):
    """Forbids all that happens between the first and the last step of an epoch to wait, from the second epoch on."""

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        is_inside = trainer.current_epoch > 0 and not trainer.is_last_batch
        torch.cuda.set_sync_debug_mode("error" if is_inside else "default")


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
@pytest.mark.parametrize("augment", [AugmentConfig(), AugmentConfig(mixup=0.2)])
@pytest.mark.parametrize("strategy", ["gradual", "finetune"])
def test_no_step_waits_for_the_gpu(image_folder: Path, tmp_path: Path, augment: AugmentConfig, strategy: str) -> None:
    config = options(image_folder, strategy)
    config.augment = augment
    data, model, _ = build(config)
    trainer, _ = make_trainer(config, Run(tmp_path / "run"), model)
    trainer.callbacks.insert(0, NoWaiting())
    try:
        fit(trainer, model, data)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert trainer.global_step == 3 * 3


def test_the_gpu_cuts_what_the_cpu_cuts() -> None:
    generator = torch.Generator().manual_seed(0)
    images = [torch.randint(256, (3, *size), dtype=torch.uint8, generator=generator) for size in ((60, 80), (90, 50))]
    sizes, labels = [(60, 80), (90, 50)], torch.tensor([0, 1])
    dataset = CropDataset("train", sizes, labels, AugmentConfig(), seed=0, side=lambda epoch: 32 + epoch)

    def cut(crops: Crops, device: torch.device) -> Tensor:
        return DeviceImages(images, device).cut(crops.map(lambda values: values.to(device))).cpu().float()

    for epoch in range(8):
        crops = dataset.__getitems__([(epoch, 0), (epoch, 1)])
        assert (cut(crops, GPU) - cut(crops, torch.device("cpu"))).abs().max() <= 1


@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("precision", ["16-mixed", "bf16-mixed", "32"])
def test_it_learns_at_every_precision(image_folder: Path, tmp_path: Path, precision: str, clip: float | None) -> None:
    train(options(image_folder, precision=precision, gradient_clip=clip, max_epochs=8), tmp_path / "run")
    assert learns(tmp_path / "run")


@pytest.mark.parametrize("devices", [("gpu", "cpu"), ("cpu", "gpu")])
def test_a_run_is_gone_on_with_on_another_device(image_folder: Path, tmp_path: Path, devices: tuple[str, str]) -> None:
    config = options(image_folder, precision="32", max_epochs=2)
    for accelerator in devices:
        config.trainer.accelerator = accelerator
        train(config, tmp_path / "run")
        config.trainer.max_epochs, config.resume = 8, str(tmp_path / "run")
    assert learns(tmp_path / "run")


def test_a_resumed_run_goes_on_from_its_checkpoint(image_folder: Path, tmp_path: Path) -> None:
    config = options(image_folder, "gradual")
    train(config, tmp_path / "run")
    config.trainer.max_epochs = 5
    config.resume = str(tmp_path / "run")
    assert train(config, tmp_path / "run")["epochs"] == 5


@pytest.fixture
def little_memory() -> Iterator[None]:
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(0.002)
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.mark.usefixtures("little_memory")
def test_a_gpu_out_of_memory_is_told_with_what_helps(image_folder: Path, tmp_path: Path) -> None:
    config = options(image_folder)
    config.dataset.image_size = 512
    with pytest.raises(ThawError, match=r"Out of memory with dataset\.batch_size=8\. Try dataset\.batch_size=4"):
        train(config, tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("extra", [["trainer=ddp", "trainer.devices=1"], ["trainer=gpu", "trainer.compile=true"]])
def test_a_process_group_of_one_and_a_compiled_network_train(
    image_folder: Path, tmp_path: Path, extra: list[str]
) -> None:
    command = [
        *(sys.executable, str(ROOT / "train.py"), "dataset=folder", f"dataset.root={image_folder}"),
        *("backbone=resnet18", "backbone.weights=null", "dataset.image_size=64", "strategy=finetune"),
        *("trainer.max_epochs=2", f"hydra.run.dir={tmp_path / 'run'}", *extra),
    ]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ.copy(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert Run(tmp_path / "run").summary["epochs"] == 2
