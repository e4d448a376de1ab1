"""What decoding large JPEGs at a reduced size costs in accuracy and saves in time.

    python benchmarks/reduced_decoding.py --data data/hymenoptera_data --weights squeezenet1_0.pth

The images are enlarged and saved as JPEG, as a camera would have them. Features of their centre crops are computed of
whole images and of reduced ones, and a probe of each is judged by 5-fold cross-validation. Prints both accuracies, on
how many images the two probes disagree, and the seconds of decoding.
"""

import argparse
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from PIL import Image
from sklearn.model_selection import StratifiedKFold
from torch import Tensor

from thaw.data.images import read_image
from thaw.model.classifier import Classifier
from thaw.model.loading import load_weights
from thaw.model.weights import find_weights
from thaw.training.probe import fit_probe


def main() -> None:
    """Compare, and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of SPLIT/CLASS/IMAGE")
    parser.add_argument("--backbone", default="squeezenet1_0")
    parser.add_argument("--weights", required=True)
    parser.add_argument("--scale", type=int, default=4, help="how many times larger each side is made")
    options = parser.parse_args()
    paths = sorted(path for path in options.data.glob("*/*/*") if path.suffix.lower() in (".jpg", ".jpeg"))
    names = sorted({path.parent.name for path in paths})
    labels = torch.tensor([names.index(path.parent.name) for path in paths])
    weights = find_weights(options.backbone, options.weights)
    model = Classifier(options.backbone, names, weights.transform).eval()
    load_weights(model.backbone, weights)
    sides = {"whole": None, "reduced": model.transform.decoded_side}
    with tempfile.TemporaryDirectory() as folder:
        large = enlarge(paths, Path(folder), options.scale)
        megapixels = sum(width * height for width, height in map(size_of, large)) / len(large) / 1e6
        print(f"{len(large)} images of {megapixels:.1f} megapixels on average\n")
        print("| decoded | seconds of decoding | accuracy of a probe, 5-fold |\n|---|---|---|")
        answers = {}
        for name, side in sides.items():
            features, seconds = extract(model, large, side)
            answers[name] = cross_validate(features, labels)
            accuracy = (answers[name] == labels).double().mean()
            print(f"| {name} | {seconds:.1f} | {accuracy:.4f} |", flush=True)
    print(f"\nThe probes disagree on {int((answers['whole'] != answers['reduced']).sum())} of {len(labels)} images.")


def enlarge(paths: list[Path], folder: Path, scale: int) -> list[Path]:
    """Larger copies of the images, as JPEG of quality 92."""

    def copy(numbered: tuple[int, Path]) -> Path:
        number, path = numbered
        with Image.open(path) as image:
            large = image.convert("RGB").resize((image.width * scale, image.height * scale), Image.Resampling.LANCZOS)
        large.save(folder / f"{number}.jpg", quality=92)
        return folder / f"{number}.jpg"

    with ThreadPoolExecutor() as pool:
        return list(pool.map(copy, enumerate(paths)))


def size_of(path: Path) -> tuple[int, int]:
    """Width and height in pixels."""
    with Image.open(path) as image:
        return image.size


@torch.inference_mode()
def extract(model: Classifier, paths: list[Path], side: int | None) -> tuple[Tensor, float]:
    """Features (N, F) of the centre crops, and the seconds that decoding took, on one core."""
    features, seconds = [], 0.0
    for path in paths:
        started = time.perf_counter()
        image = read_image(path, side)
        seconds += time.perf_counter() - started
        features.append(model.extract(model.normalize(model.transform(image)[None])))
    return torch.cat(features), seconds


def cross_validate(features: Tensor, labels: Tensor) -> Tensor:
    """The class (N,) that a probe of the other folds gives each image."""
    answers = torch.empty_like(labels)
    for train, held_out in StratifiedKFold(5, shuffle=True, random_state=0).split(features, labels):
        probe = fit_probe(features[train][None].clone(), labels[train], int(labels.max()) + 1)
        answers[held_out] = probe(features[held_out]).argmax(dim=1)
    return answers


if __name__ == "__main__":
    main()
