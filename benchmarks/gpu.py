"""Whole epochs on a GPU against the training step alone, in turn: how much of the time the GPU waits.

    python benchmarks/gpu.py --images 10000 --backbones resnet18 resnet50

The images are generated. An epoch is that of `train.py strategy=finetune`, from its start to the next one's, without
the first, which uploads the images; the steps alone are a plain loop over the same network, at the same precision, on
one batch that lies on the device. Prints a Markdown table: medians, the ratio with its range, and the peak memory.
Runs on a CPU too, with `--images 64 --image-size 64`, which says nothing but that the script works.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torchvision.models import get_model

from thaw.config import TrainerConfig
from thaw.reading import read_metrics
from thaw.training.precision import choose_precision

ROOT = Path(__file__).parents[1]
CLASSES, NUM_VAL = 10, 40


def main() -> None:
    """One row for each backbone."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--backbones", nargs="+", default=["resnet18", "resnet50"])
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("options", nargs="*", help="further options of train.py, as trainer.compile=true")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    print(f"{name}, {options.images} images of {options.image_size} px, batches of {options.batch_size}")
    print("| backbone | epoch, s | steps alone, s | ratio | range, n | peak memory, GB |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        root = draw_images(Path(folder) / "data", options.images, round(options.image_size * 8 / 7))
        for backbone in options.backbones:
            epochs, steps, peaks = [], [], []
            for number in range(options.rounds):
                seconds, peak = time_epoch(root, Path(folder) / f"{backbone}_{number}", backbone, options)
                epochs.append(seconds)
                peaks.append(peak)
                steps.append(time_steps(backbone, device, options))
            ratios = [epoch / step for epoch, step in zip(epochs, steps, strict=True)]
            memory = f"{max(peaks):.1f}" if all(peaks) else "not on a GPU"
            print(
                f"| {backbone} | {median(epochs):.2f} | {median(steps):.2f} | {median(ratios):.2f} | "
                f"{min(ratios):.2f} to {max(ratios):.2f}, {len(ratios)} | {memory} |",
                flush=True,
            )


def draw_images(root: Path, count: int, side: int) -> Path:
    """A data set of smooth noise, as JPEG."""

    def draw(number: int) -> None:
        split = "train" if number < count else "val"
        folder = root / split / f"class_{number % CLASSES}"
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (8, 10, 3), dtype=np.uint8)
        image = Image.fromarray(pixels).resize((side * 5 // 4, side), Image.Resampling.BICUBIC)
        image.save(folder / f"{number:06d}.jpg")

    with ThreadPoolExecutor() as pool:
        list(pool.map(draw, range(count + NUM_VAL)))
    return root


def time_epoch(root: Path, folder: Path, backbone: str, options: argparse.Namespace) -> tuple[float, float]:
    """Median seconds of an epoch in a process of train.py, and its peak memory on the GPU in GB; 0 on a CPU."""
    command = [
        *(sys.executable, ROOT / "train.py", "dataset=folder", f"dataset.root={root}", "strategy=finetune"),
        *(f"backbone={backbone}", "backbone.weights=null", f"dataset.image_size={options.image_size}"),
        *(f"dataset.batch_size={options.batch_size}", f"trainer.max_epochs={options.epochs}", "features=off"),
        *("trainer.checkpoint_seconds=3600", f"hydra.run.dir={folder}", *options.options),
    ]
    subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL)
    seconds = [row["seconds"] for row in read_metrics(folder / "metrics.csv")]
    return median(seconds[1:]), json.loads((folder / "summary.json").read_text())["gpu_memory_gb"] or 0.0


def time_steps(backbone: str, device: torch.device, options: argparse.Namespace) -> float:
    """Seconds of an epoch's training steps, and no more, on random images that lie on the device."""
    model = get_model(backbone, num_classes=CLASSES).to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, fused=True)
    size = (options.batch_size, 3, options.image_size, options.image_size)
    images = torch.randn(size, device=device).to(memory_format=torch.channels_last)
    labels = torch.randint(CLASSES, size[:1], device=device)
    dtype = torch.bfloat16 if choose_precision(TrainerConfig()) == "bf16-mixed" else torch.float16

    def step() -> None:
        with torch.autocast(device.type, dtype, enabled=choose_precision(TrainerConfig()) != "32"):
            loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    for _ in range(5):  # until cuDNN has chosen its algorithms
        step()
    wait(device)
    started = time.perf_counter()
    num_steps = max(1, options.images // options.batch_size)
    for _ in range(num_steps):
        step()
    wait(device)
    return float((time.perf_counter() - started) * options.images / (num_steps * options.batch_size))


def wait(device: torch.device) -> None:
    """Until the device has done what it was asked to."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
