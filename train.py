"""Train an image classifier: `python train.py strategy=frozen backbone=resnet18`; `--help` shows the choices."""

from pathlib import Path
from typing import Any

from thaw.config import Config
from thaw.entry import run_experiment


def experiment(config: Config, folder: Path, command: str) -> Any:
    """Train; torch is imported only here, after the options are accepted."""
    from thaw.training import train

    return train(config, folder, command)["val"]["acc"]


if __name__ == "__main__":
    run_experiment(experiment, Path(__file__).parent / "conf")
