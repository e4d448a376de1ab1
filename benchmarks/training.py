"""Seconds of whole trainings, ours and the peers' in turn, on the same images, weights and machine.

    python benchmarks/training.py --data data --squeezenet squeezenet1_0.pth

Each program is a process of its own. What trains on images is cut after `--epochs`, ours and the peers' alike: the time
of all epochs is that of the process plus the median epoch for each one left out. Ours on stored features, or on crops
that grow, runs them all. Without official weights at hand, ResNet-18 starts from random ones: the seconds are the same.
Peers: the PyTorch tutorial's loop, a plain LightningModule, fastai (`--fastai` names the Python of an environment that
has it). Prints a Markdown table: medians, each ratio with its range, and the floor: to decode each image once and to do
the networks' products at the rate of a large matrix product, bf16 or float32, whichever is faster here (backward counts
as two forward passes). Each time goes to stderr.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import NamedTuple

from floor import Floor

from thaw.data.transforms import growing_sides

ROOT = Path(__file__).parents[1]
PEERS = ROOT / "benchmarks" / "peers"
EPOCHS = 25
SIDES = growing_sides(128, 224, EPOCHS)


class Job(NamedTuple):
    """What is timed.

    Attributes:
        title: Its name in the table.
        overrides: What train.py is told.
        passes: Forward passes of a training image and of a validation image that the floor counts, of full size.
        is_cut: Whether not all epochs are run.
    """

    title: str
    overrides: tuple[str, ...]
    passes: tuple[float, float]
    is_cut: bool = True


# By what the peers do.
JOBS = {
    "frozen": [
        Job("frozen, our default", ("strategy=frozen",), (2, 1), is_cut=False),
        Job("frozen, fresh views", ("strategy=frozen", "strategy.feature_views=fresh"), (EPOCHS, 1)),
    ],
    "finetune": [
        Job("fine-tune", ("strategy=finetune",), (3 * EPOCHS, EPOCHS)),
        Job(
            "fine-tune, growing crops",
            ("strategy=finetune", f"augment.start_size={SIDES[0]}"),
            (3 * sum((side / SIDES[-1]) ** 2 for side in SIDES), EPOCHS),
            is_cut=False,
        ),
    ],
}


def main() -> None:
    """Time what is asked for, in turn, and print the table."""
    options = parse()
    weights = {"squeezenet1_0": options.squeezenet, "resnet18": options.resnet or random_weights("resnet18")}
    floor = Floor(options.data / "hymenoptera_data")
    print(f"{floor}\n")
    print(f"| job, {EPOCHS} epochs, whole process | floor, s | ours, s | against | its s | ratio | range, n |")
    print("|---|---|---|---|---|---|---|")
    for backbone in options.backbones:
        for strategy in options.strategies:
            times = measure(strategy, backbone, str(weights[backbone]), options)
            print_rows(JOBS[strategy], backbone, times, floor)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds hymenoptera_data")
    parser.add_argument("--squeezenet", type=Path, required=True, help="weights of squeezenet1_0")
    parser.add_argument("--resnet", type=Path, help="weights of resnet18")
    parser.add_argument("--backbones", nargs="+", default=["squeezenet1_0", "resnet18"])
    parser.add_argument("--strategies", nargs="+", default=list(JOBS), choices=JOBS)
    parser.add_argument("--peers", nargs="+", default=["tutorial", "lightning", "lightning bf16", "fastai"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--fastai", type=Path, help="Python of an environment with fastai; without it, it is left out")
    options = parser.parse_args()
    options.data, options.squeezenet = options.data.absolute(), options.squeezenet.absolute()
    return options


def measure(strategy: str, backbone: str, weights: str, options: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds of each of our jobs, by title, and of each peer, by name, in rounds."""
    scripts: dict[str, tuple[Path | str | None, str, tuple[str, ...]]] = {
        "tutorial": (sys.executable, "tutorial.py", ()),
        "lightning": (sys.executable, "plain_lightning.py", ("32-true",)),
        "lightning bf16": (sys.executable, "plain_lightning.py", ("bf16-mixed",)),
        "fastai": (options.fastai, "with_fastai.py", ()),
    }
    programs: dict[str, Callable[[], float]] = {
        job.title: partial(time_ours, job, backbone, weights, options) for job in JOBS[strategy]
    }
    for name in options.peers:
        python, file, rest = scripts[name]
        if python is not None:
            images = options.data / "hymenoptera_data"
            arguments = [python, PEERS / file, images, backbone, weights, strategy, options.epochs, *rest]
            programs[name] = partial(time_peer, list(map(str, arguments)))
    times: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(options.rounds):
        for name, program in programs.items():
            times[name].append(program())
            print(f"{backbone}, {strategy}, {name}: {times[name][-1]:.1f} s", file=sys.stderr, flush=True)
    return times


def print_rows(jobs: list[Job], backbone: str, times: dict[str, list[float]], floor: Floor) -> None:
    """A row for each of our jobs and each peer."""
    for job in jobs:
        ours, least = times[job.title], floor.seconds(backbone, job.passes)
        for name in [name for name in times if name not in {job.title for job in jobs}]:
            ratios = [their / our for our, their in zip(ours, times[name], strict=True)]
            span = f"{min(ratios):.1f} to {max(ratios):.1f}, {len(ratios)}"
            seconds = f"{least:.1f} | {median(ours):.1f} | {name} | {median(times[name]):.0f}"
            print(f"| {backbone}, {job.title} | {seconds} | {median(ratios):.1f} | {span} |", flush=True)


def time_ours(job: Job, backbone: str, weights: str, options: argparse.Namespace) -> float:
    """Wall seconds of `python train.py …` with all epochs, nothing stored before it."""
    epochs = options.epochs + 1 if job.is_cut else EPOCHS  # in one of them all images are decoded
    with tempfile.TemporaryDirectory() as folder:
        command = [
            *(sys.executable, str(ROOT / "train.py"), f"dataset.root={options.data}", f"backbone={backbone}"),
            *(f"backbone.weights={weights}", *job.overrides, f"trainer.max_epochs={epochs}"),
            f"hydra.run.dir={folder}/run",
        ]
        started = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True, env=os.environ | {"THAW_CACHE": f"{folder}/cache"})
        seconds = time.perf_counter() - started
        summary = json.loads(Path(folder, "run", "summary.json").read_text())
    return seconds + (EPOCHS - epochs) * float(summary["seconds"]["epoch_median"])


def time_peer(command: list[str]) -> float:
    """Wall seconds that all epochs take, from the start of the process, by those that are run."""
    seen = [time.perf_counter()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith(("start", "epoch ")):
                seen.append(time.perf_counter())
    if process.returncode or len(seen) < 3:
        raise SystemExit(f"{' '.join(command)} failed with exit code {process.returncode}.")
    start, *epochs = (later - earlier for earlier, later in pairwise(seen))
    return start + EPOCHS * median(epochs)


def random_weights(backbone: str) -> Path:
    """A state dict of random weights in a file."""
    import torch
    from torchvision.models import get_model

    path = Path(tempfile.gettempdir()) / f"thaw_benchmark_{backbone}.pth"
    torch.save(get_model(backbone).state_dict(), path)
    return path


if __name__ == "__main__":
    main()
