"""Train an image classifier: `python train.py strategy=frozen backbone=resnet18`; `--help` shows the choices."""

from pathlib import Path

from thaw.config import Config
from thaw.entry import run_experiment
from thaw.sweep import objective


def experiment(config: Config, folder: Path, command: str) -> float:
    """Train, and return what a search maximises; torch is imported only here, after the options are accepted."""
    from thaw.training import train

    return objective(train(config, folder, command))


def close_sweep(folder: Path) -> None:
    """Print the leaderboard of a sweep's runs, and keep it in its folder as a table and as a picture."""
    from thaw.compare import compare
    from thaw.inspection.accuracy_chart import accuracy_chart
    from thaw.run import find_runs

    if not find_runs(folder):
        return
    leaderboard = compare([folder])
    print(leaderboard)
    leaderboard.write_csv(folder / "comparison.csv")
    accuracy_chart(leaderboard).savefig(folder / "comparison.png")


if __name__ == "__main__":
    run_experiment(experiment, Path(__file__).parent / "conf", close_sweep)
