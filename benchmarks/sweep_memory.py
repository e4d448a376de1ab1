"""Memory of a process that runs a sweep of 50 jobs, on stored features, after each tenth.

    python benchmarks/sweep_memory.py -- dataset=hymenoptera backbone=squeezenet1_0 backbone.weights=squeezenet1_0.pth

Everything after `--` goes to train.py. Prints a Markdown table; the runs stay in outputs/benchmarks/sweep_memory.
"""

import argparse
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[1]


def main() -> None:
    """Run the sweep and look at its process whenever a job has ended."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=50)
    parser.add_argument("--folder", type=Path, default=ROOT / "outputs" / "benchmarks" / "sweep_memory")
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_args()
    shutil.rmtree(options.folder, ignore_errors=True)
    seeds = ",".join(map(str, range(options.jobs)))
    command = [sys.executable, str(ROOT / "train.py"), "-m", *options.overrides, "strategy=frozen", f"seed={seeds}"]
    process = subprocess.Popen([*command, f"hydra.sweep.dir={options.folder}"], stdout=subprocess.DEVNULL)
    megabytes: list[float] = []
    while process.poll() is None:
        if len(list(options.folder.glob("*/summary.json"))) > len(megabytes):
            megabytes.append(psutil.Process(process.pid).memory_info().rss / 1e6)
        time.sleep(0.05)
    print("| after job | resident memory, MB |\n|---|---|")
    for number, value in enumerate(megabytes, start=1):
        if number in (1, 5) or number % 10 == 0:
            print(f"| {number} | {value:.0f} |")
    sys.exit(process.returncode)


if __name__ == "__main__":
    main()
