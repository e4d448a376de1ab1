import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import hydra
import lightning.pytorch as pl
import pytest
import torch
from hydra.core.hydra_config import HydraConfig
from lightning.pytorch.callbacks import Timer
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from thaw.config import BackboneConfig, Config, DatasetConfig, LoggerConfig, StrategyConfig, TrainerConfig
from thaw.data.datamodule import ImageDataModule
from thaw.data.images import read_image
from thaw.errors import ThawError
from thaw.run import Run
from thaw.training.averaging import MovingAverage
from thaw.training.building import build
from thaw.training.checkpoints import BestCheckpoint, LastCheckpoint
from thaw.training.progress import EpochLog
from thaw.training.stopping import PhaseEarlyStopping
from thaw.training.trainer import choose_devices, fit, make_predictor, make_trainer, predict
from thaw.training.validation import EvaluationEpochs

GRADUAL = StrategyConfig(backbone_factor=1, head_epochs=2, unfreeze_epochs=2)
HAS_GPU = torch.cuda.is_available()

Make = Callable[..., pl.Trainer]


@pytest.fixture
def make(image_folder: Path, tmp_path: Path) -> Make:
    """A Trainer by its options, on the CPU unless they say otherwise."""

    def make(strategy: StrategyConfig | None = None, logger: str = "csv", **options: Any) -> pl.Trainer:
        config = Config(
            dataset=DatasetConfig(root=str(image_folder), image_size=64, cache="none"),
            backbone=BackboneConfig("squeezenet1_1", None),
            strategy=strategy or StrategyConfig(),
            trainer=TrainerConfig(**{"accelerator": "cpu", "precision": "32", "max_epochs": 5} | options),
            logger=LoggerConfig(logger),
        )
        _, model, _ = build(config)
        return make_trainer(config, Run(tmp_path / "run"), model)[0]

    return make


def kinds(trainer: pl.Trainer) -> set[type]:
    return {type(callback) for callback in trainer.callbacks}


# ---- the Trainer


@pytest.mark.usefixtures("compose")  # starts Hydra
@pytest.mark.parametrize(
    ("launcher", "options", "devices"),
    [
        ("joblib", {}, [[0], [1], [2], [0]]),
        ("joblib", {"accelerator": "gpu"}, [[0], [1], [2], [0]]),
        ("joblib", {"accelerator": "cpu"}, [1] * 4),
        ("joblib", {"devices": 1}, [1] * 4),
        ("joblib", {"devices": [2, 1]}, [[2, 1]] * 4),
        ("basic", {}, [1] * 4),
    ],
)
def test_jobs_side_by_side_take_one_gpu_after_the_other(
    monkeypatch: pytest.MonkeyPatch, launcher: str, options: dict[str, Any], devices: list[object]
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    config = hydra.compose("config", return_hydra_config=True)
    config.hydra.mode, config.hydra.runtime.choices["hydra/launcher"] = "MULTIRUN", launcher
    monkeypatch.setattr(HydraConfig.instance(), "cfg", config)
    for number, expected in enumerate(devices):
        config.hydra.job.num = number
        assert choose_devices(TrainerConfig(**options), num_devices=1) == expected


def test_without_a_sweep_a_run_takes_the_first_gpu_of_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    assert choose_devices(TrainerConfig(), num_devices=1) == 1


@pytest.mark.parametrize("accelerator", ["cpu", pytest.param("auto", marks=pytest.mark.skipif(HAS_GPU, reason="CPU"))])
def test_gpus_that_are_not_there_are_told(make: Make, accelerator: str) -> None:
    with pytest.raises(ThawError, match=r"^trainer\.\* does not fit this machine or Lightning's Trainer: .*`devices"):
        make(accelerator=accelerator, devices=[1])


def test_the_options_arrive(make: Make) -> None:
    trainer = make(max_epochs=3, gradient_clip=0.5, accumulate=2, precision="64")
    assert (trainer.max_epochs, trainer.gradient_clip_val, trainer.accumulate_grad_batches) == (3, 0.5, 2)
    assert trainer.precision == "64-true"
    assert kinds(trainer) >= {EpochLog, BestCheckpoint, LastCheckpoint, EvaluationEpochs}
    assert not {PhaseEarlyStopping, MovingAverage} & kinds(trainer)
    assert trainer.logger is None


def test_the_best_checkpoint_is_the_one_that_lightning_knows(make: Make) -> None:
    checkpoint = make(monitor="val/loss", ties="last").checkpoint_callback
    assert isinstance(checkpoint, BestCheckpoint)
    assert (checkpoint.monitor, checkpoint.mode, checkpoint.ties) == ("val/loss", "min", "last")


class Learner(pl.LightningModule):
    """Of two weights one learns; beside them lies a table of indices, as Swin and MaxViT have one."""

    def __init__(self) -> None:
        super().__init__()
        self.learning, self.frozen = (torch.nn.Parameter(torch.linspace(0.1, 0.9, 999)) for _ in range(2))
        self.frozen.requires_grad_(False)
        self.register_buffer("indices", torch.arange(999))
        self.passed: list[Tensor] = []

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return self.learning.sum()

    def on_train_batch_end(self, *_: Any) -> None:
        self.passed.append(self.learning.detach().clone())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD([self.learning], lr=0.1)


@pytest.mark.parametrize(("precision", "dtype"), [("64", torch.float64), ("bf16-mixed", torch.float32)])
def test_the_average_is_in_the_precision_of_the_weights(make: Make, precision: str, dtype: torch.dtype) -> None:
    model = Learner()
    trainer = make(ema_decay=0.5, precision=precision)
    trainer.callbacks = [callback for callback in trainer.callbacks if isinstance(callback, MovingAverage)]
    trainer.fit(model, DataLoader(TensorDataset(torch.zeros(5, 1))))
    first, last = model.passed[0], model.passed[-1]
    assert model.learning.dtype == dtype
    assert (model.learning > last).all()
    assert (model.learning < first).all()


class Installer(pl.Callback):
    """Sets the weights before the first step, as the probe does."""

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, Learner)
        torch.nn.init.constant_(pl_module.learning, 7.0)


def test_the_average_begins_with_what_the_probe_has_set(make: Make) -> None:
    model, trainer = Learner(), make(ema_decay=0.5, max_epochs=1, extra={"max_time": "00:00:00:00"})
    others = [callback for callback in trainer.callbacks if isinstance(callback, MovingAverage | Timer)]
    trainer.callbacks = [Installer(), *others]
    trainer.fit(model, DataLoader(TensorDataset(torch.zeros(5, 1))))
    assert trainer.global_step == 0
    assert (model.learning == 7).all()


def test_what_validates_the_last_epoch_comes_after_lightnings_timer(make: Make) -> None:
    trainer = make(max_epochs=2, extra={"max_time": "00:00:01:00"})
    assert [type(callback) for callback in trainer.callbacks].index(Timer) < len(trainer.callbacks) - 1
    assert type(trainer.callbacks[-1]) is EvaluationEpochs


@pytest.mark.parametrize("decay", [0.2, 0.999, 0.9999])
def test_the_average_begins_fast_and_leaves_what_does_not_learn(make: Make, decay: float) -> None:
    model, before = Learner(), Learner()
    trainer = make(ema_decay=decay)
    trainer.callbacks = [callback for callback in trainer.callbacks if isinstance(callback, MovingAverage)]
    trainer.fit(model, DataLoader(TensorDataset(torch.zeros(5, 1))))
    expected, *later = model.passed
    for step, weights in enumerate(later, start=1):
        kept = min(decay, (1 + step) / (10 + step))
        expected = kept * expected + (1 - kept) * weights
    torch.testing.assert_close(model.learning.detach(), expected)
    assert torch.equal(model.frozen, before.frozen)
    assert torch.equal(cast(Tensor, model.indices), cast(Tensor, before.indices))


class LaidOut(Learner):
    """One whose setup lays a kernel out anew, as a classifier's does on a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = torch.nn.Parameter(torch.arange(24.0).view(2, 3, 2, 2), requires_grad=False)

    def setup(self, stage: str) -> None:
        self.to(memory_format=torch.channels_last)


def test_the_average_is_laid_out_as_the_weights(make: Make) -> None:
    model = LaidOut()
    trainer = make(ema_decay=0.5)
    (average,) = trainer.callbacks = [each for each in trainer.callbacks if isinstance(each, MovingAverage)]
    trainer.fit(model, DataLoader(TensorDataset(torch.zeros(5, 1))))
    assert average._average_model is not None
    assert average._average_model.module.kernel.stride() == model.kernel.stride() == (12, 1, 6, 3)
    assert torch.equal(model.kernel, LaidOut().kernel)


@pytest.mark.parametrize(
    ("strategy", "find_unused"),
    [(StrategyConfig(), False), (StrategyConfig(backbone_factor=1), False), (GRADUAL, True)],
)
def test_ddp_expects_idle_weights_only_where_stages_thaw_later(
    make: Make, strategy: StrategyConfig, find_unused: bool
) -> None:
    trainer = make(strategy, distribution="ddp", devices=1)
    assert isinstance(trainer.strategy, pl.strategies.DDPStrategy)
    assert trainer.strategy._ddp_kwargs.get("find_unused_parameters", False) == find_unused


def test_a_profile_that_is_asked_for_is_printed(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    trainer = make(extra={"profiler": "simple"})
    trainer.profiler.describe()  # type: ignore[attr-defined]
    assert "Profiler Report" in caplog.text


@pytest.mark.parametrize("configured", ["", "logging.basicConfig(); "])
def test_a_profile_is_printed_once(configured: str) -> None:
    program = (
        f"import logging; {configured}import thaw.training.trainer; "
        "from lightning.pytorch.profilers import SimpleProfiler; "
        "SimpleProfiler().describe()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (done.stdout + done.stderr).count("Profiler Report") == 1


def test_extra_adds_flags_and_has_the_last_word(make: Make) -> None:
    trainer = make(extra={"min_steps": 7, "log_every_n_steps": 2, "limit_train_batches": 3})
    assert (trainer.min_steps, trainer.log_every_n_steps, trainer.limit_train_batches) == (7, 2, 3)


@pytest.mark.parametrize(
    "options",
    [
        {"extra": {"max_stepps": 7}},
        {"extra": {"limit_train_batches": -1}},
        {"extra": {"profiler": "none such"}},
        {"accelerator": "abacus"},
        {"distribution": "everywhere"},
    ],
    ids=str,
)
def test_what_lightning_refuses_is_a_mistake_of_the_users(make: Make, options: dict[str, Any]) -> None:
    with pytest.raises(ThawError, match=r"^trainer\.\* does not fit this machine or Lightning's Trainer: .+"):
        make(**options)


@pytest.mark.skipif(HAS_GPU, reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_told_with_what_to_say_instead(make: Make) -> None:
    with pytest.raises(ThawError, match=r"^trainer\.accelerator=gpu finds no GPU that torch can use: auto takes what"):
        make(accelerator="gpu")


def test_a_library_that_a_device_needs_is_named(make: Make) -> None:
    with pytest.raises(ThawError, match=r"^trainer\.\* does not fit this machine or Lightning's Trainer: .*torch_xla"):
        make(accelerator="tpu")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"extra": {"limit_train_batches": 0.1}}, "Please increase the `limit_train_batches` argument"),
        ({"extra": {"val_check_interval": 100}}, r"`val_check_interval` \(100\) must be less than or equal"),
        (
            {"callbacks": {"top": {"_target_": "lightning.pytorch.callbacks.ModelCheckpoint", "monitor": "val/auc"}}},
            "could not find the monitored key",
        ),
    ],
    ids=["flag", "interval", "callback"],
)
def test_what_lightning_refuses_once_it_sees_the_data_is_one_too(
    options: dict[str, Any], said: str, image_folder: Path, tmp_path: Path
) -> None:
    config = Config(
        dataset=DatasetConfig(root=str(image_folder), image_size=64),
        backbone=BackboneConfig("squeezenet1_1", None),
        trainer=TrainerConfig(accelerator="cpu", precision="32", max_epochs=1, **options),
        logger=LoggerConfig("csv"),
    )
    data, model, _ = build(config)
    trainer = make_trainer(config, Run(tmp_path / "run"), model)[0]
    with pytest.raises(ThawError, match=rf"^trainer\.\* does not fit .+: .*{said}"):
        fit(trainer, model, data)


# ---- loader processes


def remove_images(data: ImageDataModule) -> None:
    for dataset in data.datasets.values():
        for path, _ in dataset.samples:
            path.unlink()


def kill_loaders(data: ImageDataModule) -> None:
    def read(path: Path) -> torch.Tensor:
        os.kill(os.getpid(), signal.SIGKILL)
        return read_image(path)

    for dataset in data.datasets.values():
        dataset.read = read


def leave_no_room_for_batches(data: ImageDataModule) -> None:
    def read(path: Path) -> torch.Tensor:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # of shared memory too
        return read_image(path)

    for dataset in data.datasets.values():
        dataset.read = read


def have_no_memory(data: ImageDataModule) -> None:
    def read(path: Path) -> torch.Tensor:
        return torch.empty(2**60)

    data.options.num_workers = 0
    for dataset in data.datasets.values():
        dataset.read = read


@pytest.mark.parametrize("does_train", [True, False], ids=["train", "evaluate"])
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (have_no_memory, r"^Out of memory with dataset\.batch_size=32\. Try dataset\.batch_size=16"),
        (remove_images, r"\.png cannot be read as an image: No such file or directory\. `thaw check .* --fix` lists"),
        (
            kill_loaders,
            r"A loader process failed \(.* (killed by signal|exited unexpectedly).*\).* dataset\.num_workers=0",
        ),
        (leave_no_room_for_batches, r"A loader process failed \(.*File too large.*\).* dataset\.num_workers=0"),
    ],
)
def test_what_keeps_images_from_being_loaded_is_told(
    fault: Callable[[ImageDataModule], None], message: str, does_train: bool, image_folder: Path, tmp_path: Path
) -> None:
    root = shutil.copytree(image_folder, tmp_path / "images")
    config = Config(
        dataset=DatasetConfig(root=str(root), image_size=64, cache="none", num_workers=1),
        backbone=BackboneConfig("squeezenet1_1", None),
        strategy=StrategyConfig(backbone_factor=1),
        trainer=TrainerConfig(accelerator="cpu", precision="32", max_epochs=1),
        logger=LoggerConfig("csv"),
    )
    data, model, _ = build(config)
    fault(data)
    trainer = make_trainer(config, Run(tmp_path / "run"), model)[0] if does_train else make_predictor("32", "cpu")
    with pytest.raises(ThawError, match=message):
        fit(trainer, model, data) if does_train else predict(trainer, model, data, "val")
