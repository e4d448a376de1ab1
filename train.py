"""Train an image classifier: `python train.py strategy=frozen backbone=resnet18`; `--help` shows the choices."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from thaw.config import Config


def experiment(config: "Config", folder: Path, command: str) -> float:
    """Train, and return what a search maximises; torch is imported only here, after the options are accepted."""
    from thaw.importing import heavy_imports
    from thaw.launch.sweep import objective

    with heavy_imports():
        from thaw.training.train import train

    return objective(train(config, folder, command), config.trainer.monitor)


def close_sweep(folder: Path) -> None:
    """Print the leaderboard of a sweep's runs and what to type next; keep it in its folder, as table and picture."""
    from thaw.comparison.accuracy_chart import accuracy_chart
    from thaw.comparison.compare import compare
    from thaw.comparison.runs import find_runs
    from thaw.inspection.figures import write_figure
    from thaw.training.remarks import next_lines

    runs = find_runs(folder)
    if not runs:
        return
    leaderboard = compare([folder])
    print(leaderboard)
    leaderboard.write_csv(folder / "comparison.csv")
    write_figure(accuracy_chart(leaderboard), folder / "comparison.png")
    has_events = any(run.events.is_dir() for run in runs)
    for line in next_lines(leaderboard.best, folder if has_events else None):
        print(line)


if __name__ == "__main__":
    try:
        from thaw.launch.entry import run_experiment
    except KeyboardInterrupt:
        sys.exit(130)
    except ModuleNotFoundError as error:
        sys.exit(f"{error}: activate Thaw's environment (. .venv/bin/activate), or install it (pip install -e .).")
    run_experiment(experiment, Path(__file__).absolute().parent / "conf", close_sweep)
