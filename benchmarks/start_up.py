"""Seconds until a command has answered or is ready to begin, each as a process of its own, in turn.

    python benchmarks/start_up.py

The imports of a training are measured as `train.py` does them (src/thaw/importing.py), the same with the stand-ins left
out, and as any program would. Prints a Markdown table of medians and ranges of wall-clock and processor time.
"""

import argparse
import resource
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[1]
TRAIN = str(ROOT / "train.py")
IMPORTS = "from thaw import importing\n{change}\nwith importing.heavy_imports():\n    import thaw.training.train"
WAYS = {
    "`train.py --help`": [TRAIN, "--help"],
    "`train.py --cfg job`": [TRAIN, "--cfg", "job"],
    "a mistake in an option (`strategy=frozn`)": [TRAIN, "strategy=frozn"],
    "imports of a training": ["-c", IMPORTS.format(change="")],
    "the same without stand-ins": ["-c", IMPORTS.format(change="importing.POSTPONED.clear()")],
    "the same as any program": ["-c", "import thaw.training.train"],
}


def main() -> None:
    """Measure in turn, then print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    seconds: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for _ in range(rounds):
        for way, arguments in WAYS.items():
            seconds[way].append(measure(arguments))
    print(f"| n={rounds} | s | range | processor, s | range |\n|---|---|---|---|---|")
    for way, pairs in seconds.items():
        columns = (f"{median(each):.2f} | {min(each):.2f} to {max(each):.2f}" for each in zip(*pairs, strict=True))
        print(f"| {way} | {' | '.join(columns)} |")


def measure(arguments: list[str]) -> tuple[float, float]:
    """Wall-clock and processor seconds of Python with the arguments."""
    before, started = _processor_seconds(), time.perf_counter()
    subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    return time.perf_counter() - started, _processor_seconds() - before


def _processor_seconds() -> float:
    """Of all processes that have been waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
