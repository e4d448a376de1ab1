"""Train an image classifier: `python train.py strategy=frozen backbone=resnet18`; `--help` shows the choices."""

from pathlib import Path

from thaw.config import Config
from thaw.entry import run_experiment


def experiment(config: Config, folder: Path, command: str) -> float:
    """Train, and return the best validation accuracy; torch is imported only here, after the options are accepted."""
    from thaw.training import train

    return float(train(config, folder, command)["val"]["acc"])


def close_sweep(folder: Path) -> None:
    """Print the leaderboard of a sweep's runs, and keep it in its folder as a table and as a picture."""
    from thaw.compare import compare
    from thaw.inspection.accuracy_chart import accuracy_chart

    leaderboard = compare([folder])
    print(leaderboard)
    leaderboard.write_csv(folder / "comparison.csv")
    accuracy_chart(leaderboard).savefig(folder / "comparison.png")


if __name__ == "__main__":
    run_experiment(experiment, Path(__file__).parent / "conf", close_sweep)
