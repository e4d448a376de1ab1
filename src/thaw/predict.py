"""Images -> what a run's classifier says of each; decoding and inference side by side."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from PIL import Image
from torch import Tensor

from thaw.allocator import keep_freed_memory
from thaw.config import TrainerConfig
from thaw.console import silence_hints
from thaw.data.images import BadImage, convert_image, read_image
from thaw.data.inputs import Inputs, Listed, is_one, list_inputs, matches_nothing
from thaw.data.threads import in_threads, num_cores
from thaw.errors import ThawError, name_some, one_line
from thaw.model.classifier import Classifier
from thaw.paths import at_home
from thaw.prediction import Prediction
from thaw.reading import is_alone
from thaw.rules import require
from thaw.run import Run
from thaw.training.precision import choose_precision, keep_precision
from thaw.tta import check_views

silence_hints()

Result = TypeVar("Result")
MOST_THREADS = 32  # each holds a batch of images and its activations
MIXED = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
"""Precisions at which the weights stay float32, and what is computed in."""


class Predictor:
    """The classifier of a run's best epoch, with the transform and the precision that `thaw evaluate` takes.

    Args:
        run: A finished run, or its folder; or its `checkpoints/last.ckpt`, for the last epoch; or a checkpoint that has
            been copied elsewhere, which is all that it takes: without the run's options, `auto` chooses the precision.
        device: auto, cpu, gpu, or another accelerator of Lightning's.
        batch_size: Images at a time; default 8 on the CPU, where their activations stay in its cache, else 64.
        tta: Test-time augmentation: the mean of the probabilities over the centre crop and those mirror images that
            the training may have shown, as `thaw evaluate --tta` takes it.

    Raises:
        ThawError: The run is not finished, the device is not there, or the training had no mirror images, or may have
            had none.
    """

    def __init__(
        self, run: Run | Path | str, device: str = "auto", batch_size: int | None = None, tta: bool = False
    ) -> None:
        if not isinstance(run, Run) and is_alone(path := Path(at_home(run))):
            if tta:
                raise ThawError(f"`tta` needs the whole run, for its augmentation: {path} is a file alone.")
            self.folder, classifier = path, Classifier.load_from_checkpoint(path)
            precision, self.mirrored_axes = choose_precision(TrainerConfig(accelerator=device)), []
        else:
            run = run if isinstance(run, Run) else Run(run)
            self.folder, classifier = run.folder, run.load_classifier()
            if tta:
                check_views(run.augment, tta)
            precision, self.mirrored_axes = keep_precision(run, device), run.augment.mirrored_axes if tta else []
        self.backbone, self.classes, self.transform = classifier.backbone.name, classifier.classes, classifier.transform
        try:
            fabric = Fabric(
                accelerator=device,
                devices=1,
                precision=cast(Any, precision),
                plugins=[LightningEnvironment()],  # whatever SLURM or torchrun say: it is alone
            )
        except (MisconfigurationException, ValueError, RuntimeError, ImportError) as error:
            raise ThawError(f"The device {device!r} cannot be used on this machine: {one_line(error)}") from error
        self.device, self.precision = fabric.device, fabric._precision.precision
        self.module = fabric.setup_module(classifier).module.eval()
        self.batch_size = batch_size or (8 if self.device.type == "cpu" else 64)
        self.num_threads = torch.get_num_threads()  # not later, when calls on other threads may have changed it

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

    def features(self, images: Inputs) -> Tensor:
        """What the head tells the classes by, for a search of alike images or a classifier of another kind.

        Args:
            images: As `predict` takes them.

        Returns:
            Features (N, F), float32, on the CPU, of the centre crops.

        Raises:
            BadImage: One of them cannot be read.
            ThawError: There are no images.
        """
        return torch.cat([*self._in_batches(self._extract_batch, list_inputs(images))])

    def classify(self, images: Tensor) -> Tensor:
        """Probabilities (B, K), on the CPU, of uint8 crops (B, 3, S, S)."""
        with self._computing(len(images)):
            images = images.to(self.device)
            views = [images, *(images.flip(axes) for axes in self.mirrored_axes)]
            return torch.stack([self.module(view).softmax(dim=1) for view in views]).mean(dim=0).cpu()

    def stream(self, images: Sequence[Listed], top: int) -> Iterator[Prediction]:
        """What `predict` gives, of files and images that are listed already."""
        require(top >= 1, "top", "at least 1", top)
        for predictions in self._in_batches(lambda batch: self._predict_batch(batch, top), images):
            yield from predictions

    def _in_batches(self, function: Callable[[Sequence[Listed]], Result], images: Sequence[Listed]) -> Iterator[Result]:
        """What a function makes of each batch, in order.

        Several threads each read a batch and pass it through the network: while one decodes another computes, all cores
        are busy without waiting for each other, and no more batches than threads are in memory. They are no more than
        torch could use at first (`OMP_NUM_THREADS`); a single batch needs none.
        """
        keep_freed_memory()
        cores = min(num_cores(), self.num_threads)
        size = max(1, min(self.batch_size, -(-len(images) // cores)))
        batches = [images[start : start + size] for start in range(0, len(images), size)]
        num_threads = max(1, min(cores, len(batches), MOST_THREADS))
        if num_threads == 1:
            yield from map(function, batches)
            return
        share = partial(torch.set_num_threads, cores // num_threads)
        try:
            yield from in_threads(function, batches, num_threads, share)
        finally:
            torch.set_num_threads(self.num_threads)  # the setting is also that of threads that torch has not seen yet

    @contextmanager
    def _computing(self, num_images: int) -> Iterator[None]:
        """Inside, torch computes at the precision of the classifier, without gradients.

        Raises:
            ThawError: Memory is out.
        """
        mixed = MIXED.get(self.precision)  # Fabric's contexts set the default dtype of all threads
        try:
            with torch.inference_mode(), torch.autocast(self.device.type, mixed, enabled=mixed is not None):
                yield
        except torch.OutOfMemoryError as error:
            raise ThawError(
                f"Out of memory on {self.device} with batches of {num_images}: use smaller ones."
            ) from error

    def _extract_batch(self, images: Sequence[Listed]) -> Tensor:
        crops = torch.stack([self.read(image) for image in images])
        with self._computing(len(crops)):
            module = cast(Classifier, self.module)
            return module.extract(module.normalize(crops.to(self.device))).float().cpu()

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
