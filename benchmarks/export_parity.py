"""How far exported networks are from PyTorch's: one backbone of each family, ONNX by onnxruntime and torch.export.

    python benchmarks/export_parity.py --images hymenoptera_data/val

Weights are random. BatchNorm's and the head's running statistics are measured on noise first, and ConvNeXt's layer
scale, which begins at 1e-6, is set to 0.1: otherwise the signal would die on its way and nothing be compared. Prints a
Markdown table.
"""

import argparse
import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models.convnext import CNBlock

from thaw.data.images import read_image
from thaw.data.inputs import list_images, spread
from thaw.export import export
from thaw.model.classifier import Classifier

BACKBONES = ("resnet18", "squeezenet1_1", "efficientnet_b0", "convnext_tiny", "vit_b_16")
CLASSES = [f"class {number}" for number in range(10)]


def main() -> None:
    """Export each, and print its line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbones", nargs="+", default=BACKBONES)
    parser.add_argument("--images", nargs="+", help="files, folders or patterns; default: noise")
    options = parser.parse_args()
    print("| backbone | format | largest difference of the logits | largest logit | same top class | in batches of |")
    print("|---|---|---|---|---|---|")
    for backbone in options.backbones:
        classifier = make_classifier(backbone)
        images = noise(classifier, 16) if options.images is None else crops(classifier, options.images)
        for form, suffix in (("onnx", "onnx"), ("torch-export", "pt2")):
            with tempfile.TemporaryDirectory() as folder:
                parity = export(classifier, form, Path(folder, f"model.{suffix}"), images)
            same, sizes = f"{parity.num_same} of {parity.num_images}", " and ".join(map(str, parity.batch_sizes))
            print(
                f"| {backbone} | {form} | {parity.difference:.1e} | {parity.scale:.2f} | {same} | {sizes} |", flush=True
            )


def make_classifier(backbone: str) -> Classifier:
    """A classifier of random weights whose logits are neither all equal nor huge."""
    torch.manual_seed(0)
    classifier = Classifier(backbone, CLASSES)
    for module in classifier.modules():
        if isinstance(module, CNBlock):
            nn.init.constant_(module.layer_scale, 0.1)
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = None  # running statistics are then plain means
    with torch.no_grad():
        for _ in range(2):
            classifier.train()(noise(classifier, 16))
    return classifier.eval()


def noise(classifier: Classifier, number: int) -> Tensor:
    """Random uint8 crops (N, 3, S, S)."""
    size = classifier.transform.crop
    return torch.randint(256, (number, 3, size, size), dtype=torch.uint8)


def crops(classifier: Classifier, items: list[str], number: int = 16) -> Tensor:
    """uint8 crops (N, 3, S, S) of files, evenly spread."""
    return torch.stack([classifier.transform(read_image(path)) for path in spread(list_images(items), number)])


if __name__ == "__main__":
    main()
