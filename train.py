"""Train an image classifier: `python train.py strategy=frozen backbone=resnet18`; `--help` shows the choices."""

from pathlib import Path

from thaw.config import Config
from thaw.entry import run_experiment


def experiment(config: Config, folder: Path, command: str) -> float:
    """Train, and return the best validation accuracy; torch is imported only here, after the options are accepted."""
    from thaw.training import train

    return float(train(config, folder, command)["val"]["acc"])


def close_sweep(folder: Path) -> None:
    """Print the table of a sweep's runs, and keep it in its folder."""
    from thaw.compare import compare, leaderboard, write_csv

    settings = compare([folder])
    print(leaderboard(settings))
    write_csv(settings, folder / "comparison.csv")


if __name__ == "__main__":
    run_experiment(experiment, Path(__file__).parent / "conf", close_sweep)
