"""Seconds of a sweep over head, rate, weight decay and seed, with and without stored features.

    python benchmarks/sweep.py -- dataset=hymenoptera backbone=squeezenet1_0 backbone.weights=squeezenet1_0.pth

24 jobs each way; `--seeds 1 --rates 2` is a short version, `--features auto` leaves the slow way out, `--alone 3` times
three of the jobs without stored features, each as a process of its own, and tells what all would take. Everything after
`--` goes to train.py, as `hydra/launcher=joblib hydra.launcher.n_jobs=2` for two jobs at a time. The features are kept
in a new folder, so that the first job has to compute them. Prints a Markdown table; the runs stay in
outputs/benchmarks/sweep.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from itertools import product
from pathlib import Path
from statistics import mean

ROOT = Path(__file__).parents[1]
RATES = ("1e-3", "3e-3", "1e-2", "3e-2")


def main() -> None:
    """Run the sweeps, one after the other, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rates", type=int, default=4)
    parser.add_argument("--features", nargs="+", default=["auto", "off"], choices=["auto", "off"])
    parser.add_argument("--alone", type=int, default=0, help="so many jobs one by one, without stored features")
    parser.add_argument("--folder", type=Path, default=ROOT / "outputs" / "benchmarks" / "sweep")
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_args()
    swept = {
        "optimizer.lr": RATES[: options.rates],
        "optimizer.weight_decay": ("0", "1e-2"),
        "seed": list(map(str, range(1, options.seeds + 1))),
    }
    common = [*options.overrides, "strategy=frozen"]
    print("| features | jobs | total s | start-up s | first job s | each further job s (mean) |")
    print("|---|---|---|---|---|---|")
    for features in options.features:
        folder = options.folder / features
        shutil.rmtree(folder, ignore_errors=True)
        values = [f"{key}={','.join(values)}" for key, values in swept.items()]
        print(measure(features, folder, *common, *values), flush=True)
    if options.alone:
        jobs = [
            [f"{key}={value}" for key, value in zip(swept, values, strict=True)] for values in product(*swept.values())
        ]
        shutil.rmtree(options.folder / "alone", ignore_errors=True)
        seconds = [
            train(*common, *jobs[number], "features=off", f"hydra.run.dir={options.folder / 'alone' / str(number)}")
            for number in range(options.alone)
        ]
        print(f"| off, one by one | {len(jobs)}, by {options.alone} | {len(jobs) * mean(seconds):.1f} | | | |")


def measure(features: str, folder: Path, *overrides: str) -> str:
    """A line of the table: one sweep in one process. A job ends when its summary is written."""
    started = time.time()
    total = train("-m", *overrides, f"features={features}", f"hydra.sweep.dir={folder}", cache=folder / "cache")
    first_starts = min(path.stat().st_mtime for path in folder.glob("*/.hydra/config.yaml"))
    ends = sorted(path.stat().st_mtime for path in folder.glob("*/summary.json"))
    seconds = [total, first_starts - started, ends[0] - first_starts, (ends[-1] - ends[0]) / (len(ends) - 1)]
    return f"| {features} | {len(ends)} | {' | '.join(f'{value:.1f}' for value in seconds)} |"


def train(*arguments: str, cache: Path | None = None) -> float:
    """Seconds of a process of train.py."""
    environment = os.environ | ({"THAW_CACHE": str(cache)} if cache else {})
    started = time.time()
    subprocess.run(
        [sys.executable, str(ROOT / "train.py"), *arguments], env=environment, check=True, stdout=subprocess.DEVNULL
    )
    return time.time() - started


if __name__ == "__main__":
    main()
