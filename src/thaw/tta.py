"""Test-time augmentation: mean probabilities over the centre crop, mirror images and random views of each image."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

import torch

from thaw.config import AugmentConfig
from thaw.data.datamodule import ImageDataModule
from thaw.data.kept_images import Loader
from thaw.data.sampling import ImageDataset, SequentialPositions
from thaw.data.transforms import Mirrored, training_transform
from thaw.errors import ThawError
from thaw.inspection.predictions import Predictions


def check_views(augment: AugmentConfig, tta: bool, random_views: int | None = None) -> None:
    """Refuse views that add nothing to the centre crop.

    Args:
        augment: The augmentation of the training.
        tta: Whether its mirror images are asked for.
        random_views: How many random views are; None where none can be had.

    Raises:
        ThawError: The training had no mirror images, or no random views.
    """
    if augment.policy == "none" and (tta or random_views):
        option = "random_views" if random_views else "tta"
        raise ThawError(f"`{option}` has nothing to add: the run has augment.policy=none. Leave it out.")
    if tta and not augment.mirrored_axes and not random_views:
        raise ThawError(
            "`tta` has nothing to add: the run has augment.flip=0, which says that mirror images mean something else, "
            f"as those of digits do. {'Leave' if random_views is None else 'Add `random_views`, or leave'} it out."
        )


def other_views(data: ImageDataModule, split: str, tta: bool, random_views: int) -> Iterator[Loader]:
    """Loaders of the mirror images and of random views of a split's images."""
    dataset, augment = data.datasets[split], data.augment
    for axes in augment.mirrored_axes if tta else ():
        mirrored = dataset.through(Mirrored(dataset.transform, axes))
        yield data.images.loader(mirrored, SequentialPositions(range(len(dataset))))
    if not random_views:
        return  # an augmentation of the user's own need not be there
    read = partial(data.index.read, min_size=data.transform.decoded_side)  # whole images; in memory are centre crops
    random = ImageDataset(dataset.samples, training_transform(augment, data.transform), data.seed, read)
    for number in range(random_views):
        yield data.images.loader(random, SequentialPositions(range(len(random)), epoch=number))


def average(views: Sequence[Predictions]) -> Predictions:
    """The mean of the probabilities over several views of the same images; its logits are their logarithms."""
    shares = torch.stack([view.logits.log_softmax(dim=1) for view in views])
    return replace(views[0], logits=shares.logsumexp(dim=0) - math.log(len(views)))
