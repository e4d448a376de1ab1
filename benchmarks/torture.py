"""Breaks trainings on purpose, many times, and prints a table of what happened: `python benchmarks/torture.py`.

Each broken run is resumed, perhaps broken again, and its last checkpoint, predictions and curves are compared bit by
bit with those of an unbroken one. Files are mutated by the tests' own fuzzer, at a larger number of cases.
"""

import argparse
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

ROOT = Path(__file__).parents[1]
OPTIONS = [
    "dataset=folder", "backbone=squeezenet1_1", "backbone.weights=null", "dataset.image_size=64", "trainer=cpu",
    "dataset.batch_size=4", "strategy=gradual", "strategy.head_epochs=2", "strategy.unfreeze_epochs=2",
    "trainer.max_epochs=8", "head.dropout=0.2", "logger=csv",
]  # fmt: skip
Moment = Callable[[Path, Path, random.Random], bool]


def num_rows(folder: Path) -> int:
    """Epochs that a run has finished."""
    path = folder / "metrics.csv"
    return len(path.read_text().splitlines()) - 1 if path.exists() else 0


MOMENTS: dict[str, Moment] = {
    "before the first epoch": lambda folder, cache, chance: (folder / ".hydra").is_dir() and chance.random() < 0.005,
    "while features are stored": lambda folder, cache, chance: any(cache.glob("features/*")),
    "inside an epoch": lambda folder, cache, chance: num_rows(folder) >= chance.randint(1, 7),
    "while best.ckpt is written": lambda folder, cache, chance: (folder / "checkpoints/.best.ckpt.part").exists(),
    "while last.ckpt is written": lambda folder, cache, chance: (folder / "checkpoints/.last.ckpt.part").exists(),
    "during the report": lambda folder, cache, chance: num_rows(folder) == 8 and chance.random() < 0.02,
}


def draw_images(root: Path) -> None:
    """Twelve noisy images of each of three colours."""
    generator = np.random.default_rng(0)
    for name, colour in {"blue": (40, 60, 200), "green": (50, 180, 60), "red": (200, 50, 40)}.items():
        (root / name).mkdir(parents=True)
        for number in range(12):
            pixels = np.clip(generator.normal(0, 40, (80, 90, 3)) + colour, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")


def start(place: Path, folder: Path, *options: str) -> subprocess.Popen[str]:
    """Begin a training, or go on with it if it has a checkpoint."""
    cache = place / "cache" / folder.name
    last = folder / "checkpoints" / "last.ckpt"
    choice = [f"resume={folder}"] if last.exists() else [*OPTIONS, f"hydra.run.dir={folder}", *options]
    environment = os.environ | {"THAW_CACHE": str(cache), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")}
    return subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *choice], cwd=place, env=environment, text=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip


def finish(place: Path, folder: Path, *options: str) -> None:
    """Train to the end, whatever came before."""
    if not (folder / "summary.json").exists():
        process = start(place, folder, *options)
        _, errors = process.communicate()
        if process.returncode:
            raise SystemExit(f"{folder} did not go on: code {process.returncode}\n{errors}")


def hit(place: Path, folder: Path, number: int, moment: Moment, chance: random.Random, *options: str) -> str:
    """Send a signal at a moment of a training; returns what came of it."""
    lock = folder / ".lock"  # there as soon as the training listens to signals
    lock.unlink(missing_ok=True)
    process = start(place, folder, *options)
    wish = random.Random(chance.random())
    while process.poll() is None and not (lock.exists() and moment(folder, place / "cache" / folder.name, wish)):
        time.sleep(0.001)
    time.sleep(chance.uniform(0, 0.02))
    process.send_signal(number)
    _, errors = process.communicate()
    if number == signal.SIGKILL:
        return "killed" if process.returncode == -number else "was done"
    if process.returncode == 0:
        return "was done"
    if process.returncode != 128 + number or "Traceback" in errors or "Ended by" not in errors:
        raise SystemExit(f"{folder}: signal {number} gave code {process.returncode}\n{errors}")
    return "ended"


def differences(first: Path, second: Path) -> list[str]:
    """What differs between two finished runs; everything is compared bit by bit, but for seconds."""
    found = [
        name
        for name in ("best", "last")
        if not same(*(torch.load(run / f"checkpoints/{name}.ckpt", weights_only=True) for run in (first, second)))
    ]
    if (first / "predictions.csv").read_bytes() != (second / "predictions.csv").read_bytes():
        found.append("predictions.csv")
    curves = [re.sub(r"(?m)^(\d+),[\d.]+", r"\1", (run / "metrics.csv").read_text()) for run in (first, second)]
    return found + ["metrics.csv"] * (curves[0] != curves[1])


def same(first: dict[str, object], second: dict[str, object]) -> bool:
    """True if weights, buffers and the optimizer's state are equal to the bit."""
    parts = ("state_dict", "optimizer_states", "epoch", "global_step", "thaw")
    return all(equal(first[part], second[part]) for part in parts)


def equal(first: object, second: object) -> bool:
    """Equality that looks into tensors."""
    if isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(equal(first[key], second[key]) for key in first)
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(map(equal, first, second))
    return first == second


def break_runs(place: Path, times: int, precision: str, chance: random.Random) -> list[tuple[str, int, str]]:
    """Rows of the table: signal and moment, how many times, what happened."""
    options = (f"dataset.root={place / 'images'}", f"trainer.precision={precision}")
    unbroken = place / f"unbroken-{precision}"
    finish(place, unbroken, *options)
    outcomes: dict[str, Counter[str]] = {}
    names = list(MOMENTS)
    for attempt in range(times):
        name = names[attempt % len(names)]
        number = signal.SIGKILL if attempt // len(names) % 2 == 0 else (signal.SIGTERM, signal.SIGINT)[attempt % 2]
        # A signal has its line; last.ckpt is held back in half of the runs, so that a signal has to wait.
        held_back = f"trainer.checkpoint_seconds={0 if attempt % 3 else 3600 * (number != signal.SIGKILL)}"
        folder = place / f"{precision}-{attempt}"
        outcome = hit(place, folder, number, MOMENTS[name], chance, *options, held_back)
        if chance.random() < 0.3 and not (folder / "summary.json").exists():
            hit(place, folder, number, MOMENTS["inside an epoch"], chance, *options, held_back)
            outcome += " twice"
        finish(place, folder, *options, held_back)
        found = differences(unbroken, folder)
        print(f"{precision} {signal.Signals(number).name} {name}: {outcome}, {found or 'identical'}", flush=True)
        row = f"{signal.Signals(number).name} {name}, {precision}"
        outcomes.setdefault(row, Counter())["different: " + ", ".join(found) if found else "identical"] += 1
    return [
        (row, sum(counts.values()), ", ".join(f"{name} {count}" for name, count in counts.items()))
        for row, counts in outcomes.items()
    ]


def fuzz(cases: int) -> tuple[str, int, str]:
    """The row of the mutated files."""
    command = [sys.executable, "-m", "pytest", "tests/data/test_hostile_images.py", "-k", "mutated"]
    environment = os.environ | {"THAW_FUZZ_CASES": str(cases), "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    return "image files mutated", cases, "an image or BadImage" if done.returncode == 0 else done.stdout[-2000:]


def main() -> int:
    """Print the table; returns 1 if anything was not as it should be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=24, help="runs that are broken, at each precision")
    parser.add_argument("--precision", nargs="*", default=["32", "bf16-mixed"])
    parser.add_argument("--cases", type=int, default=20_000, help="mutated image files; 0 leaves them out")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    rows = []
    with tempfile.TemporaryDirectory() as place:
        draw_images(Path(place) / "images")
        for precision in options.precision:
            rows += break_runs(Path(place), options.times, precision, chance)
    if options.cases:
        rows.append(fuzz(options.cases))
    print("\n| fault | times | outcome |\n|---|---:|---|")
    for row in rows:
        print("| {} | {} | {} |".format(*row))
    return int(any("different" in outcome or "FAILED" in outcome for _, _, outcome in rows))


if __name__ == "__main__":
    sys.exit(main())
