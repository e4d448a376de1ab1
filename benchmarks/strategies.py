"""Accuracy and time of every strategy: several seeds on the given split, and 5-fold cross-validation beside them.

Or of any other option's values: `--key strategy.feature_views --values 1 2 4 8 mirror fresh`.

    python benchmarks/strategies.py --seeds 5 -- dataset=hymenoptera backbone=squeezenet1_0 \
        backbone.weights=squeezenet1_0.pth

Everything after `--` goes to train.py. Prints a Markdown table; the runs stay in outputs/benchmarks/KEY.
"""

import argparse
import subprocess
import sys
from pathlib import Path
from statistics import mean, median, stdev

from thaw.comparison.runs import find_runs
from thaw.inspection.uncertainty import wilson_interval

ROOT = Path(__file__).parents[1]
STRATEGIES = ("frozen", "discriminative", "gradual", "last_stages", "boosted_head", "finetune", "scratch")


def main() -> None:
    """Run what has not been run, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--folds", type=int, default=5, help="0 leaves the cross-validation out")
    parser.add_argument("--key", default="strategy")
    parser.add_argument("--values", nargs="+", default=STRATEGIES)
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_args()
    root = ROOT / "outputs" / "benchmarks" / options.key
    seeds = ",".join(str(seed) for seed in range(1, options.seeds + 1))
    folds = ",".join(str(fold) for fold in range(options.folds))
    for value in options.values:
        common = [*options.overrides, f"{options.key}={value}", "logger=csv"]
        run(root / value / "seeds", options.seeds, *common, f"seed={seeds}")
        if options.folds:
            run(
                root / value / "folds",
                options.folds,
                *common,
                f"dataset.num_folds={options.folds}",
                f"dataset.fold={folds}",
            )
    columns = ["last epoch", "95 % interval", "n", "best epoch", "all images, cross-validated", "95 %", "n", "s a run"]
    print("| " + " | ".join([options.key, *columns]) + " |")
    print("|---|---|---|---|---|---|---|---|---|")
    for value in options.values:
        print(row(value, root / value))


def run(folder: Path, num_jobs: int, *overrides: str) -> None:
    """One sweep in one process, unless it is there already; one that was broken off goes on."""
    if len(find_runs(folder)) < num_jobs:
        where = f"{'sweep.resume' if folder.is_dir() else 'hydra.sweep.dir'}={folder}"
        command = [sys.executable, str(ROOT / "train.py"), "-m", *overrides, where]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def row(value: str, folder: Path) -> str:
    """A line of the table; cross-validated accuracy is that of all folds' images together."""
    seeds = [run.summary for run in find_runs(folder / "seeds")]
    last, n = [summary["last"]["acc"] for summary in seeds], seeds[0]["last"]["n"]
    low, high = wilson_interval(mean(last) * n, n)
    cells = [
        value,
        f"{mean(last):.4f} ± {stdev(last):.4f}",
        f"{low:.3f} to {high:.3f}",
        str(n),
        f"{mean(summary['val']['acc'] for summary in seeds):.4f}",
    ]
    folds = [run.summary["last"] for run in find_runs(folder / "folds")]
    if folds:
        n = sum(fold["n"] for fold in folds)
        num_right = sum(round(fold["acc"] * fold["n"]) for fold in folds)
        low, high = wilson_interval(num_right, n)
        cells += [f"{num_right / n:.4f}", f"{low:.3f} to {high:.3f}", str(n)]
    else:
        cells += ["", "", ""]
    cells.append(f"{median(summary['seconds']['total'] for summary in seeds):.0f}")
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
