"""Seconds of whole trainings, ours and the peers' in turn, on the same images, weights and machine.

    python benchmarks/training.py --data data --squeezenet squeezenet1_0.pth

Each program is a process of its own. Ours runs all its epochs; a peer's run is cut after `--peer-epochs`, and its
time for all epochs is its start (imports, model) plus its median epoch times their number. Without official weights at
hand, ResNet-18 starts from random ones: the seconds are the same. Peers: the PyTorch tutorial's loop, a plain
LightningModule, fastai (`--fastai` names the Python of an environment that has it). Prints a Markdown table: medians,
each ratio with its range, and the floor: to decode each image once and to do the networks' products at the rate of a
large bf16 matrix product (backward counts as two forward passes).
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import NamedTuple

from floor import Floor

ROOT = Path(__file__).parents[1]
PEERS = ROOT / "benchmarks" / "peers"
EPOCHS = 25


class Job(NamedTuple):
    """What is timed.

    Attributes:
        title: Its name in the table.
        strategy: What the peers are told to do.
        overrides: What train.py is told.
        passes: Forward passes of a training image and of a validation image that the floor counts.
    """

    title: str
    strategy: str
    overrides: tuple[str, ...]
    passes: tuple[int, int]


JOBS = {
    "frozen_fresh": Job(
        "frozen, fresh views", "frozen", ("strategy=frozen", "strategy.feature_views=fresh"), (EPOCHS, 1)
    ),
    "frozen": Job("frozen, our default", "frozen", ("strategy=frozen",), (2, 1)),
    "finetune": Job("fine-tune", "finetune", ("strategy=finetune", "features=off"), (3 * EPOCHS, EPOCHS)),
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
        for name in options.jobs:
            measure(JOBS[name], backbone, str(weights[backbone]), floor, options)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds hymenoptera_data")
    parser.add_argument("--squeezenet", type=Path, required=True, help="weights of squeezenet1_0")
    parser.add_argument("--resnet", type=Path, help="weights of resnet18")
    parser.add_argument("--backbones", nargs="+", default=["squeezenet1_0", "resnet18"])
    parser.add_argument("--jobs", nargs="+", default=list(JOBS), choices=JOBS)
    parser.add_argument("--peers", nargs="+", default=["tutorial", "lightning", "lightning bf16", "fastai"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peer-epochs", type=int, default=2)
    parser.add_argument("--fastai", type=Path, help="Python of an environment with fastai; without it, it is left out")
    options = parser.parse_args()
    options.data, options.squeezenet = options.data.absolute(), options.squeezenet.absolute()
    return options


def measure(job: Job, backbone: str, weights: str, floor: Floor, options: argparse.Namespace) -> None:
    """Run ours and each peer in turn, and print a row for each peer."""
    script: dict[str, tuple[Path | str, str, tuple[str, ...]]] = {
        "tutorial": (sys.executable, "tutorial.py", ()),
        "lightning": (sys.executable, "plain_lightning.py", ("32-true",)),
        "lightning bf16": (sys.executable, "plain_lightning.py", ("bf16-mixed",)),
        "fastai": (options.fastai, "with_fastai.py", ()),
    }
    programs: dict[str, Callable[[], float]] = {
        "ours": lambda: time_ours(backbone, weights, options.data, *job.overrides)
    }
    for name in options.peers:
        python, file, rest = script[name]
        if python is not None:
            images = options.data / "hymenoptera_data"
            arguments = [python, PEERS / file, images, backbone, weights, job.strategy, options.peer_epochs, *rest]
            programs[name] = lambda arguments=arguments: time_peer([str(part) for part in arguments])
    times: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(options.rounds):
        for name, program in programs.items():
            times[name].append(program())
    ours = times.pop("ours")
    for name, theirs in times.items():
        ratios = [their / our for our, their in zip(ours, theirs, strict=True)]
        span = f"{min(ratios):.1f} to {max(ratios):.1f}, {len(ratios)}"
        least = floor.seconds(backbone, job.passes)
        seconds = f"{least:.1f} | {median(ours):.1f} | {name} | {median(theirs):.0f}"
        print(f"| {backbone}, {job.title} | {seconds} | {median(ratios):.1f} | {span} |", flush=True)


def time_ours(backbone: str, weights: str, data: Path, *overrides: str) -> float:
    """Wall seconds of `python train.py …`, nothing stored before it."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            ROOT / "train.py",
            f"dataset.root={data}",
            f"backbone={backbone}",
            f"backbone.weights={weights}",
            *overrides,
            f"trainer.max_epochs={EPOCHS}",
            f"hydra.run.dir={folder}/run",
        ]
        started = time.perf_counter()
        subprocess.run(
            list(map(str, command)), check=True, capture_output=True, env=os.environ | {"THAW_CACHE": f"{folder}/cache"}
        )
        return time.perf_counter() - started


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
