"""`thaw predict` against its two halves: decoding alone and inference alone, in turn, on the same images.

    python benchmarks/predict.py outputs/RUN hymenoptera_data

Inference alone is measured in two ways on images that are decoded already: by a plain loop, with torch's own threads,
and by the threads of `thaw predict`. Prints a Markdown table of medians and ranges, and how many times longer predict
takes than the slower half, round by round. On a CPU both halves want all cores: then their sum is the floor.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from statistics import median

import torch

from thaw.data.inputs import list_images
from thaw.data.threads import in_threads
from thaw.predict import Predictor
from thaw.run import Run


def main() -> None:
    """Measure in turn, then print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("images", nargs="+")
    parser.add_argument("--number", type=int, default=1000, help="the images are repeated up to this number")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    predictor = Predictor(Run(options.run), options.device)
    with tempfile.TemporaryDirectory() as folder:
        paths = link(list_images(options.images), options.number, Path(folder))
        seconds = measure(predictor, paths, options.rounds)
    print(f"{len(paths)} images, {options.rounds} rounds, {os.cpu_count()} cores, {predictor.precision}")
    print("| | median s | range | images/s |\n|---|---|---|---|")
    for name, each in seconds.items():
        middle = median(each)
        print(f"| {name} | {middle:.2f} | {min(each):.2f} to {max(each):.2f} | {len(paths) / middle:.0f} |")
    for forward in ("inference, plain loop", "inference, predict's threads"):
        rows = zip(seconds["predict"], seconds["decoding"], seconds[forward], strict=True)
        ratios = [predict / max(decoding, inference) for predict, decoding, inference in rows]
        print(f"predict / the slower of decoding and {forward}: {show_range(ratios)}")
    names = ("predict", "decoding", "inference, predict's threads")
    ratios = [all_ / (half + other) for all_, half, other in zip(*(seconds[name] for name in names), strict=True)]
    print(f"predict / the sum of both halves, each on all cores: {show_range(ratios)}")


def link(images: list[Path], number: int, folder: Path) -> list[Path]:
    """So many paths, links to the images in turn."""
    paths = []
    for position, image in enumerate(islice(cycle(images), number)):
        path = folder / f"{position:06}{image.suffix}"
        path.symlink_to(image.resolve())
        paths.append(path)
    return paths


def measure(predictor: Predictor, paths: list[Path], rounds: int) -> dict[str, list[float]]:
    """Seconds of each round of each part; the first, which warms up, is not counted."""
    alone = partial(torch.set_num_threads, 1)
    batches = torch.split(torch.stack(list(in_threads(predictor.read, paths))), predictor.batch_size)

    def decode() -> None:
        for _ in in_threads(lambda path: predictor.read(path).shape, paths, initializer=alone):  # no image is kept
            pass

    def infer_in_threads() -> None:
        list(in_threads(predictor.classify, batches, initializer=alone))

    parts: dict[str, Callable[[], object]] = {
        "decoding": decode,
        "inference, plain loop": lambda: [predictor.classify(batch) for batch in batches],
        "inference, predict's threads": infer_in_threads,
        "predict": lambda: list(predictor.predict(paths)),
    }
    seconds: dict[str, list[float]] = {name: [] for name in parts}
    for number in range(rounds + 1):
        for name, part in parts.items():
            started = time.perf_counter()
            part()
            if number:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def show_range(values: list[float]) -> str:
    """Median and range."""
    return f"{median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    main()
