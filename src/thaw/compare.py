"""Runs side by side: the seeds of one setting pooled, the settings in order of their accuracy."""

import csv
import shlex
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from thaw.console import table_text
from thaw.errors import ThawError
from thaw.run import Run, find_runs

COLUMNS = ["runs", "acc", "spread", "ci95_low", "ci95_high", "n", "best_acc", "macro_f1", "seconds", "trainable"]


@dataclass(frozen=True)
class Setting:
    """The runs that differ in nothing but the seed.

    Attributes:
        options: What tells it from the other settings, by option.
        summaries: Content of each run's summary.json.
    """

    options: dict[str, str]
    summaries: Sequence[dict[str, Any]]

    @property
    def accuracies(self) -> list[float]:
        """Accuracy of each run: on test, or else of the last epoch on val, which no one has chosen."""
        return [(summary["test"] or summary["last"])["acc"] for summary in self.summaries]

    def row(self) -> dict[str, Any]:
        """The setting's figures by column: means over its runs, and their standard deviation as `spread`."""
        from thaw.inspection.predictions import wilson_interval

        judged = [summary["test"] or summary["last"] for summary in self.summaries]
        acc, n = mean(self.accuracies), judged[0]["n"]
        low, high = wilson_interval(round(acc * n), n)
        return {
            "runs": len(judged),
            "acc": acc,
            "spread": stdev(self.accuracies) if len(judged) > 1 else 0.0,
            "ci95_low": low,
            "ci95_high": high,
            "n": n,
            "best_acc": mean(summary["val"]["acc"] for summary in self.summaries),
            "macro_f1": mean(metrics["macro_f1"] for metrics in judged),
            "seconds": mean(summary["seconds"]["total"] for summary in self.summaries),
            "trainable": self.summaries[0]["params"]["trainable"],
        }


def compare(folders: Iterable[Path]) -> list[Setting]:
    """The settings of all runs in the folders, best first.

    Raises:
        ThawError: There are no finished runs.
    """
    folders = list(folders)
    runs = [run for folder in folders for run in find_runs(folder)]
    if not runs:
        raise ThawError(f"No finished runs in {', '.join(map(str, folders))}: expected folders with a summary.json.")
    options = [_options(run) for run in runs]
    names = sorted({name for each in options for name in each})
    differing = [name for name in names if len({each.get(name) for each in options}) > 1]
    groups = defaultdict(list)
    for run, each in zip(runs, options, strict=True):
        groups[tuple(each.get(name, "") for name in differing)].append(run.summary)
    settings = [Setting(dict(zip(differing, values, strict=True)), group) for values, group in groups.items()]
    return sorted(settings, key=lambda setting: -mean(setting.accuracies))


def leaderboard(settings: Sequence[Setting]) -> str:
    """The settings as a table."""
    summary = settings[0].summaries[0]
    judged = "test" if summary["test"] else "val, last epoch"
    columns = [*settings[0].options, "runs", f"accuracy ({judged})", "95 % interval", "n", "best epoch", "seconds"]
    rows = []
    for setting in settings:
        row = setting.row()
        accuracy = f"{row['acc']:.4f}" + (f" ± {row['spread']:.4f}" if row["runs"] > 1 else "")
        interval = f"{row['ci95_low']:.3f} to {row['ci95_high']:.3f}"
        best = f"{row['best_acc']:.4f}"
        rows.append(
            [*setting.options.values(), row["runs"], accuracy, interval, row["n"], best, f"{row['seconds']:.1f}"]
        )
    return table_text(columns, rows)


def write_csv(settings: Sequence[Setting], path: Path) -> None:
    """The settings' figures in full."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*settings[0].options, *COLUMNS])
        writer.writeheader()
        for setting in settings:
            writer.writerow(setting.options | setting.row())


def _options(run: Run) -> dict[str, str]:
    """The options that the run was started with, without the seed and where its results went."""
    overrides = shlex.split(run.summary["command"] or "")[2:]
    options = dict(override.lstrip("+").split("=", 1) for override in overrides if "=" in override)
    return {name: value for name, value in options.items() if name != "seed" and not name.startswith("hydra.")}
