"""Train an image classifier: `thaw train` from any folder, `python train.py` from a checkout and by its `conf/`."""

import shlex
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from thaw.config import Config
from thaw.launch.composing import CONF
from thaw.launch.entry import run_experiment
from thaw.launch.program import Program
from thaw.overrides import key_of

if TYPE_CHECKING:
    from thaw.comparison.repeats import Setting


def main(conf: Path = CONF) -> None:
    """Run the trainings of the command line.

    Args:
        conf: Folder of the presets.
    """
    run_experiment(experiment, conf, close_sweep)


def experiment(config: Config, folder: Path, command: str) -> float:
    """Train, and return what a search maximises; torch is imported only here, after the options are accepted."""
    from thaw.importing import heavy_imports
    from thaw.summary import objective

    with heavy_imports():
        from thaw.training.train import train

    return objective(train(config, folder, command), config.trainer.monitor)


def close_sweep(folder: Path) -> None:
    """Print the leaderboard of a sweep's runs and what to type next; keep it in its folder, as table and picture."""
    from thaw.comparison.accuracy_chart import accuracy_chart
    from thaw.comparison.compare import compare
    from thaw.comparison.runs import find_runs
    from thaw.inspection.figures import write_figure
    from thaw.training.closing import next_lines

    runs = find_runs(folder)
    if not runs:
        return
    leaderboard = compare([folder])
    print(leaderboard)
    leaderboard.write_csv(folder / "comparison.csv")
    write_figure(accuracy_chart(leaderboard), folder / "comparison.png")
    has_events = any(run.events.is_dir() for run in runs)
    for line in next_lines(leaderboard.best, folder if has_events else None, _training_on_all(leaderboard.leader)):
        print(line)


def _training_on_all(setting: "Setting | None") -> list[str]:
    """The words that train the model to use after a cross-validation: on all images but a few; none after no folds."""
    if setting is None or (first := setting.records[0]).fold is None:
        return []
    typed = shlex.split(first.summary["command"] or "")[2:]
    others = ("dataset.num_folds", "dataset.fold", "dataset.val_fraction")
    kept = [option for option in typed if key_of(option) not in others]
    num_folds = first.num_folds
    if setting.answers and first.config.get("dataset.csv_fold", "null") == "null":  # given folds stay as they are
        _, images = setting.answers.images
        most = min(10, *Counter(label for _, label in images).values())
        if setting.answers.groups:
            most = min(most, len(set(setting.answers.groups)))
        num_folds = max(num_folds, most)
    # Not by `dataset.val_fraction`, which leaves a val of the data's own as large as it is.
    return [*Program(Path(sys.argv[0])).typed, *kept, f"dataset.num_folds={num_folds}", "dataset.fold=0"]


if __name__ == "__main__":
    main()
