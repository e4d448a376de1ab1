"""Seconds and memory for more and more images: links to the real files, under names of their own.

    python benchmarks/growth.py --data data/hymenoptera_data --sizes 400 4000 40000 --weights squeezenet1_0.pth

For each number of training images, one process of train.py makes a few fine-tuning steps, twice: the second time it
knows that the files are readable. Prints a Markdown table: seconds from the command to the end, the part of them that
more images cost, images/s of the steps, and the highest memory (PSS: loader processes included, what they share counted
once).
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle, islice
from pathlib import Path

import psutil

from thaw.reading import read_metrics

ROOT = Path(__file__).parents[1]
BATCH_SIZE, STEPS, NUM_VAL = 32, 20, 40


def main() -> None:
    """One row for each number of images, and one with many classes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of {train,val}/CLASS/*.jpg")
    parser.add_argument("--weights", type=Path, required=True, help="weights of squeezenet1_0")
    parser.add_argument("--sizes", type=int, nargs="+", default=[400, 4000, 40000])
    parser.add_argument("--classes", type=int, default=1000, help="of the last row; 0 leaves it out")
    options = parser.parse_args()
    print("| training images | classes | first run, s | second, s | images/s in training | memory, GB |")
    print("|---|---|---|---|---|---|")
    rows = [(size, 2) for size in options.sizes]
    if options.classes:
        rows.append((options.sizes[-1], options.classes))
    for size, num_classes in rows:
        with tempfile.TemporaryDirectory() as name, links(options.data, Path(name) / "data", size, num_classes) as root:
            first, second = (train(root, size, options.weights, Path(name), run) for run in ("first", "second"))
            rate = f"{max(first[1], second[1]):.0f}"
            memory = f"{max(first[2], second[2]) / 1e9:.2f}"
            print(f"| {size:,} | {num_classes:,} | {first[0]:.1f} | {second[0]:.1f} | {rate} | {memory} |", flush=True)


@contextmanager
def links(source: Path, root: Path, num_train: int, num_classes: int) -> Iterator[Path]:
    """A data set of links to the source's images, spread over classes regardless of what they show."""
    for split, count in (("train", num_train), ("val", NUM_VAL)):
        files = sorted((source / split).rglob("*.jpg"))
        for number, file in enumerate(islice(cycle(files), count)):
            folder = root / split / f"class_{number % num_classes:04d}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{number:06d}.jpg").symlink_to(file.absolute())
    yield root


def train(root: Path, num_train: int, weights: Path, folder: Path, name: str) -> tuple[float, float, float]:
    """Wall seconds, images per second in training and peak bytes of one process with a few steps."""
    command = [
        *(sys.executable, str(ROOT / "train.py"), "dataset=folder", f"dataset.root={root}", "strategy=finetune"),
        *("backbone=squeezenet1_0", f"backbone.weights={weights.absolute()}", f"dataset.batch_size={BATCH_SIZE}"),
        *("trainer.max_epochs=1", f"+trainer.extra.limit_train_batches={STEPS}", f"hydra.run.dir={folder / name}"),
        "features=off",
    ]
    seconds, peak = measure(command, folder / "cache")
    epoch = read_metrics(folder / name / "metrics.csv")[0]["seconds"]
    return seconds, (min(STEPS * BATCH_SIZE, num_train) + NUM_VAL) / epoch, peak


def measure(command: list[str], cache: Path) -> tuple[float, int]:
    """Wall seconds and peak bytes of a command and its children."""
    started, peak = time.perf_counter(), 0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, env=os.environ | {"THAW_CACHE": str(cache)}) as process:
        while process.poll() is None:
            peak = max(peak, resident(process.pid))
            time.sleep(0.1)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed.")
    return time.perf_counter() - started, peak


def resident(pid: int) -> int:
    """Bytes that a process and its children hold, shared pages counted once (PSS)."""
    total = 0
    for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
        try:
            total += process.memory_full_info().pss
        except psutil.Error:
            continue
    return total


if __name__ == "__main__":
    main()
