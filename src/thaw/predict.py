"""Images -> what a run's classifier says of each; decoding and inference side by side."""

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from PIL import Image
from torch import Tensor

from thaw.allocator import keep_freed_memory
from thaw.console import silence_hints
from thaw.data.images import BadImage, convert_image, read_image
from thaw.data.inputs import Inputs, Listed, is_one, list_inputs, matches_nothing
from thaw.data.threads import in_threads, num_cores
from thaw.errors import ThawError, abridge, name_some, one_line
from thaw.inspection.figures import INK
from thaw.inspection.grids import Grid, fill
from thaw.rules import require
from thaw.run import Run
from thaw.training.precision import keep_precision
from thaw.tta import check_views
from thaw.writing import drafting, drafting_csv

silence_hints()

MOST_THREADS = 32  # each holds a batch of images and its activations
MIXED = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
"""Precisions at which the weights stay float32, and what is computed in."""


@dataclass(frozen=True)
class Prediction:
    """What was said of one image.

    Attributes:
        path: The file; None of an image in memory.
        top: The likeliest classes and their probabilities, the likeliest first; empty if it could not be read.
        error: Why it could not be read; None if it could.
    """

    path: Path | None
    top: tuple[tuple[str, float], ...] = ()
    error: str | None = None

    def __repr__(self) -> str:
        name = None if self.path is None else str(self.path)
        top = name_some([f"{label!r} {probability:.4f}" for label, probability in self.top], most=3)
        said = top or f"error={self.error!r}"
        return f"Prediction({name!r}, {said})"

    @property
    def label(self) -> str | None:
        """The likeliest class."""
        return self.top[0][0] if self.top else None

    @property
    def probability(self) -> float | None:
        """Of the likeliest class."""
        return self.top[0][1] if self.top else None


class Predictor:
    """The classifier of a run's best epoch, with the transform and the precision that `thaw evaluate` takes.

    Args:
        run: A finished run, or its folder; or its `checkpoints/last.ckpt`, for the last epoch.
        device: auto, cpu, gpu, or another accelerator of Lightning's.
        batch_size: Images at a time; default 8 on the CPU, where their activations stay in its cache, else 64.
        tta: Test-time augmentation: the mean of the probabilities over the centre crop and those mirror images that
            the training may have shown, as `thaw evaluate --tta` takes it.

    Raises:
        ThawError: The run is not finished, the device is not there, or the training had no mirror images.
    """

    def __init__(
        self, run: Run | Path | str, device: str = "auto", batch_size: int | None = None, tta: bool = False
    ) -> None:
        run = run if isinstance(run, Run) else Run(run)
        classifier = run.load_classifier()
        self.folder, self.backbone = run.folder, classifier.backbone.name
        self.classes, self.transform = classifier.classes, classifier.transform
        if tta:
            check_views(run.augment, tta)
        self.mirrored_axes = run.augment.mirrored_axes if tta else []
        try:
            fabric = Fabric(
                accelerator=device,
                devices=1,
                precision=cast(Any, keep_precision(run, device)),
                plugins=[LightningEnvironment()],  # whatever SLURM or torchrun say: it is alone
            )
        except (MisconfigurationException, ValueError, RuntimeError, ImportError) as error:
            raise ThawError(f"The device {device!r} cannot be used on this machine: {one_line(error)}") from error
        self.device, self.precision = fabric.device, fabric._precision.precision
        self.module = fabric.setup_module(classifier).module.eval()
        self.batch_size = batch_size or (8 if self.device.type == "cpu" else 64)

    def __repr__(self) -> str:
        classes = f"{len(self.classes)} classes: {name_some(self.classes, most=5)}"
        return f"Predictor({str(self.folder)!r}, {self.backbone}, {classes}; on {self.device})"

    def __call__(self, images: Inputs, top: int = 3) -> Prediction | list[Prediction]:
        """The prediction for one file or image in memory; a list of them for anything else that `predict` takes."""
        predictions = list(self.predict(images, top))
        return predictions[0] if is_one(images) else predictions

    def predict(self, images: Inputs, top: int = 3) -> Iterator[Prediction]:
        """A prediction for each image, in order, as soon as it is there.

        Args:
            images: Files, folders, patterns, images in memory, as in `thaw.data.inputs.list_inputs`.
            top: How many classes each prediction names.

        Raises:
            ThawError: There are no images.
            TypeError: Something is neither a path nor an image.
        """
        return self.stream(list_inputs(images), top)

    def read(self, image: Listed | str) -> Tensor:
        """The image as the network sees it: a uint8 crop (3, S, S), read and cut as in the evaluation."""
        if isinstance(image, Image.Image):
            return self.transform(convert_image(image))
        path, contents = (Path("bytes"), image) if isinstance(image, BytesIO) else (Path(image), None)
        return self.transform(read_image(path, self.transform.decoded_side, contents))

    @torch.inference_mode()
    def classify(self, images: Tensor) -> Tensor:
        """Probabilities (B, K), on the CPU, of uint8 crops (B, 3, S, S)."""
        mixed = MIXED.get(self.precision)  # Fabric's contexts set the default dtype of all threads
        try:
            images = images.to(self.device)
            views = [images, *(images.flip(axes) for axes in self.mirrored_axes)]
            with torch.autocast(self.device.type, mixed, enabled=mixed is not None):
                return torch.stack([self.module(view).softmax(dim=1) for view in views]).mean(dim=0).cpu()
        except torch.OutOfMemoryError as error:
            raise ThawError(
                f"Out of memory on {self.device} with batches of {len(images)}: use smaller ones."
            ) from error

    def stream(self, images: Sequence[Listed], top: int = 3) -> Iterator[Prediction]:
        """What `predict` gives, of files and images that are listed already.

        Several threads each read a batch and classify it: while one decodes another computes, all cores are busy
        without waiting for each other, and no more batches than threads are in memory. They are no more than torch
        may use (`OMP_NUM_THREADS`); a single batch needs none.
        """
        require(top >= 1, "top", "at least 1", top)
        keep_freed_memory()
        cores = min(num_cores(), before := torch.get_num_threads())
        size = max(1, min(self.batch_size, -(-len(images) // cores)))
        batches = [images[start : start + size] for start in range(0, len(images), size)]
        num_threads = max(1, min(cores, len(batches), MOST_THREADS))
        if num_threads == 1:
            for batch in batches:
                yield from self._predict_batch(batch, top)
            return
        share = partial(torch.set_num_threads, cores // num_threads)
        try:
            for predictions in in_threads(lambda batch: self._predict_batch(batch, top), batches, num_threads, share):
                yield from predictions
        finally:
            torch.set_num_threads(before)  # the setting is also that of threads that torch has not seen yet

    def _predict_batch(self, images: Sequence[Listed], top: int) -> list[Prediction]:
        crops = [self._try_to_read(image) for image in images]
        readable = [crop for crop in crops if isinstance(crop, Tensor)]
        tops = iter(self._name_top(self.classify(torch.stack(readable)), top) if readable else ())
        paths = (image if isinstance(image, Path) else None for image in images)
        return [
            Prediction(path, next(tops)) if isinstance(crop, Tensor) else Prediction(path, error=crop)
            for path, crop in zip(paths, crops, strict=True)
        ]

    def _try_to_read(self, image: Listed) -> Tensor | str:
        """The crop, or why there is none."""
        try:
            return self.read(image)
        except BadImage as error:
            return "no file matches" if matches_nothing(image) else error.reason

    def _name_top(self, probabilities: Tensor, top: int) -> Iterator[tuple[tuple[str, float], ...]]:
        """The likeliest classes of each row (B, K), with their probabilities."""
        best = probabilities.topk(min(top, len(self.classes)))
        for values, labels in zip(best.values.tolist(), best.indices.tolist(), strict=True):
            yield tuple((self.classes[label], value) for label, value in zip(labels, values, strict=True))


# ---- what is made of predictions


def write_csv(predictions: Sequence[Prediction], path: Path) -> None:
    """One row a file: path, label, probability, the next classes and theirs, error."""
    most = max(len(prediction.top) for prediction in predictions)
    others = [name for rank in range(2, most + 1) for name in (f"label_{rank}", f"probability_{rank}")]
    with drafting_csv(path) as file:
        writer = csv.DictWriter(file, ["path", "label", "probability", *others, "error"])
        writer.writeheader()
        for prediction in predictions:
            cells = [cell for label, value in prediction.top for cell in (label, f"{value:.6g}")]
            named = zip(["label", "probability", *others], cells, strict=False)
            writer.writerow({"path": prediction.path, **dict(named), "error": prediction.error or ""})


def write_json(predictions: Sequence[Prediction], path: Path) -> None:
    """A list with an object an image: path (null for one in memory), label, probability, top, error."""
    rows = [
        {
            "path": None if prediction.path is None else str(prediction.path),
            "label": prediction.label,
            "probability": prediction.probability,
            "top": [{"label": label, "probability": value} for label, value in prediction.top],
            "error": prediction.error,
        }
        for prediction in predictions
    ]
    text = json.dumps(rows, indent=2, ensure_ascii=False) + "\n"
    with drafting(path) as draft:
        draft.write_text(text, encoding="utf-8", errors="backslashreplace")  # JSON reads such codes back


def photo_grid(images: Sequence[Tensor], shown: Sequence[Prediction], num_files: int) -> Grid:
    """Images (3, S, S) under what was predicted for them and their file names."""
    names = [each.path.name if each.path else "" for each in shown]
    titles = [
        fill(f"{{}} {each.probability:.0%}", each.label or "") + f"\n{abridge(name, 24)}"
        for each, name in zip(shown, names, strict=True)
    ]
    heading = (
        f"Predictions of {len(shown)} of {num_files} images, evenly chosen" if len(shown) < num_files else "Predictions"
    )
    return Grid(images, titles, [INK] * len(titles), heading)
