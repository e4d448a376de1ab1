import ctypes
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import hydra
import numpy as np
import pytest
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from thaw.config import BackboneConfig, Config, DatasetConfig, LoggerConfig, StrategyConfig, TrainerConfig
from thaw.launch.composing import register
from thaw.run import Run

CONF = Path(__file__).parents[1] / "conf"
COLOURS = {"blue": (40, 60, 200), "green": (50, 180, 60), "red": (200, 50, 40)}
NUM_IMAGES = {"train": {"blue": 4, "green": 6, "red": 8}, "val": {"blue": 3, "green": 3, "red": 3}}


@pytest.fixture(scope="session", autouse=True)
def hear_ctrl_c() -> None:
    """Programs inherit that Ctrl-C is ignored, as it is where the tests themselves are started with `&`."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def compose() -> Iterator[Callable[..., DictConfig]]:
    """The configuration that some options of the command line give, not yet checked."""
    register()
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        yield lambda *overrides: hydra.compose("config", list(overrides))


@pytest.fixture(scope="session")
def obey_permissions() -> Callable[[], None]:
    """What a child process calls before its program, in which root then has no more rights than a file gives him."""

    def give_up() -> None:
        if os.geteuid() == 0:
            for capability in (1, 2):  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH
                ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP

    return give_up


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """18 training and 9 validation images in {train,val}/{blue,green,red}, of the class's colour; not to be changed."""
    root = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for split, counts in NUM_IMAGES.items():
        for name, count in counts.items():
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                height, width = generator.integers(72, 96, 2)
                noise = generator.normal(0, 40, (height, width, 3))
                pixels = np.clip(noise + COLOURS[name], 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{number}.png")
    return root


@pytest.fixture(scope="session")
def finished_run(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """SqueezeNet 1.1 trained from scratch for two epochs on `image_folder` at 64 pixels; not to be changed."""
    from thaw.training.train import train

    config = Config(
        dataset=DatasetConfig(root=str(image_folder), image_size=64, batch_size=8),
        backbone=BackboneConfig("squeezenet1_1", None),
        strategy=StrategyConfig("scratch", backbone_factor=1.0, from_scratch=True),
        trainer=TrainerConfig(max_epochs=2, accelerator="cpu", precision="32"),
        logger=LoggerConfig("csv"),
    )
    folder = tmp_path_factory.mktemp("runs") / "run"
    train(config, folder, "python train.py strategy=scratch")
    return Run(folder)


@pytest.fixture
def changed_run(finished_run: Run, tmp_path: Path) -> Callable[[str, object], Run]:
    """A copy of the finished run with one option changed."""

    def change(key: str, value: object) -> Run:
        folder = tmp_path / "changed"
        shutil.copytree(finished_run.folder, folder)
        config = OmegaConf.load(folder / "config.yaml")
        OmegaConf.update(config, key, value)
        OmegaConf.save(config, folder / "config.yaml")
        return Run(folder)

    return change
