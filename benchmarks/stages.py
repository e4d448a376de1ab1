"""Images per second of each stage that an image passes through: which of them a training waits for.

    python benchmarks/stages.py --data data/hymenoptera_data --backbones squeezenet1_0 resnet18 resnet50

Decoding and cropping are measured on one core, as one loader process does them; forward passes and training steps on
the whole device, at the precision that `trainer.precision=auto` chooses. Weights are random: the seconds are the same.
Prints a Markdown table: the median of a few rounds.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F

from thaw.allocator import keep_freed_memory
from thaw.config import AugmentConfig, TrainerConfig
from thaw.data.images import read_image
from thaw.data.inputs import list_images, spread
from thaw.data.transforms import training_transform
from thaw.model.classifier import Classifier
from thaw.model.weights import default_transform
from thaw.training.precision import choose_precision

ROUNDS = 5


def main() -> None:
    """Measure each stage, and print a row for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of images")
    parser.add_argument("--backbones", nargs="+", default=["squeezenet1_0", "resnet18", "resnet50"])
    parser.add_argument("--batch-size", type=int, default=32)
    options = parser.parse_args()
    keep_freed_memory()
    print("| stage | images/s |\n|---|---|")
    for name, rate in measure_loading(spread(list_images([str(options.data / "train")]), 100)).items():
        print(f"| {name}, one core | {rate:.0f} |", flush=True)
    for backbone in options.backbones:
        for name, rate in measure_network(backbone, options.batch_size).items():
            print(f"| {backbone}, {name} | {rate:.0f} |", flush=True)


def measure_loading(paths: list[Path]) -> dict[str, float]:
    """Images/s of decoding files and of cutting crops out of decoded images."""
    transform = default_transform("resnet18")
    cut = training_transform(AugmentConfig(), transform)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    images = [read_image(path, transform.decoded_side) for path in paths]
    rates = {
        "read and decode JPEG": rate_of(
            lambda: [read_image(path, transform.decoded_side) for path in paths], len(paths)
        ),
        "random crop of a decoded image": rate_of(lambda: [cut(image) for image in images], len(paths)),
        "centre crop of a decoded image": rate_of(lambda: [transform(image) for image in images], len(paths)),
    }
    torch.set_num_threads(threads)
    return rates


def measure_network(backbone: str, batch_size: int) -> dict[str, float]:
    """Images/s of a frozen network's features, and of training all of it."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    precision = choose_precision(TrainerConfig())
    dtype = torch.float16 if precision == "16-mixed" else torch.bfloat16
    model = Classifier(backbone, ("a", "b")).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, fused=True)
    images = torch.randint(256, (batch_size, 3, 224, 224), dtype=torch.uint8, device=device)
    labels = torch.randint(2, (batch_size,), device=device)

    def forward() -> None:
        with torch.no_grad(), torch.autocast(device.type, dtype, enabled=precision != "32"):
            model.eval()(images)

    def step() -> None:
        with torch.autocast(device.type, dtype, enabled=precision != "32"):
            loss = F.cross_entropy(model.train()(images), labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return {
        f"forward, {device.type} {precision}": rate_of(forward, batch_size),
        f"training, {device.type} {precision}": rate_of(step, batch_size),
    }


def rate_of(work: Callable[[], object], num_images: int) -> float:
    """Images/s of work on so many images, after a round to warm up."""
    seconds = []
    for _ in range(1 + ROUNDS):
        started = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return num_images / median(seconds[1:])


if __name__ == "__main__":
    main()
