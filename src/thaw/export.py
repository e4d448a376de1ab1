"""A run's classifier -> an ONNX or torch.export file, and the proof that it computes the same.

The exported network takes uint8 RGB crops (B, 3, S, S) and gives float32 logits (B, K). Normalisation is part of it, so
it cannot be forgotten or done twice; resize and crop are left to the caller, and described in the file's metadata.
"""

import csv
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor, nn

from thaw.data.images import BadImage, Read, read_image
from thaw.data.index import build_index
from thaw.data.inputs import list_images, spread
from thaw.data.places import name_place
from thaw.data.sources import data_folder
from thaw.errors import ThawError, name_some
from thaw.model.classifier import Classifier
from thaw.run import Run

TOLERANCE = 1e-4  # of the largest logit, and at least of 1: float32 has seven digits, and networks a hundred layers
NUM_IMAGES = 16

Network = Callable[[Tensor], Tensor]


class DeployedClassifier(nn.Module):
    """The exported network: uint8 crops (B, 3, S, S) -> logits (B, K), in float32 throughout."""

    mean: Tensor
    std: Tensor

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.backbone, self.head = classifier.backbone, classifier.head
        self.register_buffer("mean", classifier.mean)
        self.register_buffer("std", classifier.std)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K) of uint8 crops (B, 3, S, S)."""
        logits: Tensor = self.head(self.backbone((images.float() - self.mean) / self.std))
        return logits


@dataclass(frozen=True)
class Parity:
    """Differences between an exported network and the classifier.

    Attributes:
        difference: Largest absolute difference of the logits.
        scale: Largest absolute logit of the classifier.
        num_same: Images whose top class agrees.
        num_images: Images compared.
        batch_sizes: Batch sizes tried.
    """

    difference: float
    scale: float
    num_same: int
    num_images: int
    batch_sizes: tuple[int, ...]

    @property
    def holds(self) -> bool:
        """True if nothing but rounding differs; False also for logits that are not numbers."""
        return self.num_same == self.num_images and self.difference <= TOLERANCE * max(1.0, self.scale)

    def __str__(self) -> str:
        sizes = " and ".join(map(str, self.batch_sizes))
        return (
            f"largest difference of the logits {self.difference:.1e} (they reach {self.scale:.3g}), same top class for "
            f"{self.num_same} of {self.num_images} images, in batches of {sizes}"
        )


def export(classifier: Classifier, form: str, out: Path, images: Tensor) -> Parity:
    """Write the classifier to a file, once it is proved to compute the same as the classifier.

    Args:
        classifier: In evaluation mode, on the CPU.
        form: onnx or torch-export.
        out: The file; one that is there is replaced only by one that is proved.
        images: uint8 crops (B, 3, S, S) for the proof.

    Raises:
        ThawError: A package is missing, or the exported network computes something else.
    """
    with torch.inference_mode():
        expected = classifier(images)
    target = Path(os.path.realpath(out))  # a link stays
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".export-") as scratch:
        draft = Path(scratch, target.name)  # under its own name, since it names the file of its weights
        write, read = {"onnx": (_write_onnx, _read_onnx), "torch-export": (_write_pt2, _read_pt2)}[form]
        write(classifier, draft)
        parity = measure_parity(read(draft), expected, images)
        if not parity.holds:
            raise ThawError(f"{out} was not written, since the exported network computes something else: {parity}.")
        if not weights_file(draft).exists():
            weights_file(out).unlink(missing_ok=True)  # of a larger one, in the same place
        for file in filter(Path.exists, (weights_file(draft), draft)):
            file.replace(target.with_name(file.name))
    return parity


def weights_file(out: Path) -> Path:
    """Where torch puts the weights of an ONNX file beyond 2 GB, the most that one such file may hold."""
    target = Path(os.path.realpath(out))
    return target.with_name(f"{target.name}.data")


@torch.inference_mode()
def measure_parity(network: Network, expected: Tensor, images: Tensor) -> Parity:
    """Differences between a network and the expected logits (B, K) of images (B, 3, S, S), singly and as one batch."""
    batch_sizes = tuple(sorted({1, len(images)}))
    logits = [
        torch.cat([network(images[start : start + size]) for start in range(0, len(images), size)])
        for size in batch_sizes
    ]
    same = torch.stack([each.argmax(1) == expected.argmax(1) for each in logits]).all(0)
    difference = torch.stack([(each - expected).abs().max() for each in logits]).max()
    return Parity(float(difference), float(expected.abs().max()), int(same.sum()), len(images), batch_sizes)


def describe(classifier: Classifier) -> dict[str, str]:
    """Metadata of the file: class names and preprocessing as JSON, backbone, and versions."""
    transform = classifier.transform
    preprocessing = {
        "resize": transform.resize,
        "resize_rule": "shorter side" if isinstance(transform.resize, int) else "height and width exactly",
        "interpolation": transform.interpolation,
        "antialias": True,
        "center_crop": transform.crop,
        "input": "uint8 RGB, batch x 3 x height x width",
        "decoding": f"upright; a JPEG at the least of 1/1, 1/2, 1/4 and 1/8 of its size whose shorter side has "
        f"{transform.decoded_side} pixels; 16-bit grey scaled to 8 bits, transparency on white",
        "normalization": "inside the network",
        "mean": transform.mean,
        "std": transform.std,
    }
    return {
        "classes": json.dumps(classifier.classes),
        "preprocessing": json.dumps(preprocessing),
        "backbone": classifier.backbone.name,
        "made_by": f"thaw {version('thaw')}, torch {version('torch')}",
    }


# ---- images for the proof


def images_for_proof(run: Run | None, classifier: Classifier, items: Sequence[str] | None = None) -> tuple[Tensor, str]:
    """uint8 crops (B, 3, S, S), and in words whose they are: of given files, else of the run's data, else random.

    Args:
        run: Its data is looked for where it was at the training; None where there is a checkpoint alone.
        classifier: For its transform.
        items: Files, folders or patterns.

    Raises:
        ThawError: Of the given files none can be read.
    """
    nothing = "a checkpoint alone tells no data"
    paths, read, why_none = _evaluated_images(run) if run and not items else ([], read_image, nothing)
    if items:
        paths = list_images(items)
    transform, crops = classifier.transform, []
    for path in spread(paths, NUM_IMAGES):
        with suppress(BadImage):
            crops.append(transform(read(path, transform.decoded_side)))
    if crops:
        return torch.stack(crops), f"{len(crops)} {'given images' if items else 'images of its data'}"
    if items:
        raise ThawError(f"None of the images can be read: {name_some(list(items))}.")
    size, generator = transform.crop, torch.Generator().manual_seed(0)
    noise = torch.randint(256, (NUM_IMAGES, 3, size, size), dtype=torch.uint8, generator=generator)
    return noise, f"{NUM_IMAGES} random images, since {why_none} (--images takes others)"


def _evaluated_images(run: Run) -> tuple[list[Path], Read, str]:
    """The images in the run's `predictions.csv` that are there, what reads them, and why there is none if there is."""
    if not run.predictions_csv.exists():
        return [], read_image, f"there is no {run.predictions_csv.name}"
    options = run.dataset
    root = data_folder(options.name, Path(options.root))
    with run.predictions_csv.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        paths = [root / row["path"] for row in csv.DictReader(file) if row.get("path")]
    if not paths:
        return [], read_image, f"{run.predictions_csv.name} names none of its data"
    read: Read = read_image
    there = [path for path in paths if path.is_file()]
    if options.name == "stream":
        with suppress(ThawError):  # gone, too
            index = build_index(root, options)
            assert index.shards
            there, read = [path for path in paths if path in index.shards.images], index.read
    place = name_place(options.root if options.name == "stream" else root)
    return there, read, f"its data {'cannot be read' if there else 'is not'} at {place}"


# ---- formats


def trace(classifier: Classifier) -> torch.export.ExportedProgram:
    """The deployed classifier's graph, for any batch size."""
    size = classifier.transform.crop
    example = torch.zeros(2, 3, size, size, dtype=torch.uint8)  # a batch of one would be taken for a constant
    batch = torch.export.Dim("batch")
    return torch.export.export(DeployedClassifier(classifier), (example,), dynamic_shapes={"images": {0: batch}})


def _write_onnx(classifier: Classifier, path: Path) -> None:
    try:
        import onnxruntime  # noqa: F401 - before the long work, since the proof needs it
        import onnxscript  # noqa: F401 - torch.onnx needs it
    except ModuleNotFoundError as error:
        raise ThawError(
            f"thaw export --format onnx needs the package {error.name}: pip install -e '.[export]'."
        ) from error
    program = torch.onnx.export(
        trace(classifier),
        dynamo=True,
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes={"images": {0: "batch"}},
        verbose=False,
    )
    assert program is not None
    program.model.metadata_props.update(describe(classifier))
    program.save(path)


def _read_onnx(path: Path) -> Network:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])


def _write_pt2(classifier: Classifier, path: Path) -> None:
    torch.export.save(trace(classifier), path, extra_files=describe(classifier))


def _read_pt2(path: Path) -> Network:
    return torch.export.load(path).module()
