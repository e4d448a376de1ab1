"""Images of a split as small JPEGs for a page: what was said of each, and where the classifier looked."""

from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import torch
from torch import Tensor
from torchvision.transforms import v2

from thaw.data.images import BadImage, Read, read_image
from thaw.data.transforms import EvaluationTransform
from thaw.errors import ThawError
from thaw.inspection.grad_cam import grad_cam, overlay
from thaw.inspection.predictions import Predictions
from thaw.model.classifier import Classifier
from thaw.run import Run

SIDE = 224
"""Pixels of a picture; a larger input is shown smaller."""


@dataclass(frozen=True)
class Card:
    """One image and what was said of it."""

    path: str
    actual: str
    predicted: str
    shares: list[tuple[str, float]]
    """The most probable classes, at most three."""
    loss: float
    picture: str | None
    """What the network saw, as a data URI; None where the file is gone."""
    heat: str | None
    """The same with the heat map of the predicted class."""


@dataclass(frozen=True)
class Gallery:
    """The images of a split that are worth a look."""

    top_losses: list[Card]
    least_certain: list[Card]
    note: str
    """Why there are no pictures or no heat maps; empty if there are."""


def make_gallery(run: Run, predictions: Predictions, folder: Path, most: int, read: Read = read_image) -> Gallery:
    """The images of highest loss, with heat maps, and those of lowest confidence.

    Args:
        run: A finished run.
        predictions: Of one split.
        folder: Where the images lie.
        most: How many of each.
        read: What reads them.
    """
    highest, lowest = predictions.top_losses(most), predictions.least_certain(most)
    images: dict[int, Tensor] = {}
    heat: dict[int, Tensor] = {}
    note = ""
    try:
        classifier = run.load_classifier()
        images = read_inputs(folder, predictions.paths, {*highest, *lowest}, classifier.transform, read)
        heat = explain(
            classifier, {index: images[index] for index in highest if index in images}, predictions.predicted
        )
    except ThawError as error:
        note = str(error)
    cards = {index: make_card(predictions, index, images.get(index), heat.get(index)) for index in {*highest, *lowest}}
    return Gallery([cards[index] for index in highest], [cards[index] for index in lowest], note)


def read_inputs(
    folder: Path, paths: Sequence[str], chosen: Iterable[int], transform: EvaluationTransform, read: Read
) -> dict[int, Tensor]:
    """The chosen images (3, S, S) as the network sees them, without those that cannot be read."""
    images = {}
    for index in chosen:
        with suppress(BadImage):
            images[index] = transform(read(folder / paths[index], transform.decoded_side))
    return images


def explain(classifier: Classifier, images: Mapping[int, Tensor], labels: Tensor) -> dict[int, Tensor]:
    """A heat map (S, S) of each image for its label, which is looked up in `labels` (N,).

    Raises:
        ThawError: The backbone has no spatial last stage.
    """
    chosen, maps = list(images), []
    for batch in (chosen[start : start + 16] for start in range(0, len(chosen), 16)):
        maps += list(grad_cam(classifier, torch.stack([images[index] for index in batch]), labels[batch]))
    return dict(zip(chosen, maps, strict=True))


def make_card(predictions: Predictions, index: int, image: Tensor | None, heat: Tensor | None) -> Card:
    """What was said of one image, with its picture and its heat map where they are there."""
    classes = predictions.classes
    shares, labels = predictions.probabilities[index].topk(min(3, len(classes)))
    return Card(
        predictions.paths[index],
        classes[int(predictions.labels[index])],
        classes[int(predictions.predicted[index])],
        [(classes[label], share) for label, share in zip(labels.tolist(), shares.tolist(), strict=True)],
        float(predictions.losses[index]),
        None if image is None else to_data_uri(image),
        None if image is None or heat is None else to_data_uri(overlay(image, heat)),
    )


def to_data_uri(image: Tensor) -> str:
    """A uint8 image (3, H, W) as a JPEG of at most `SIDE` pixels in a `data:` address."""
    picture = v2.functional.to_pil_image(image)
    picture.thumbnail((SIDE, SIDE))
    file = BytesIO()
    picture.save(file, "JPEG", quality=80, optimize=True)
    return f"data:image/jpeg;base64,{b64encode(file.getvalue()).decode()}"
