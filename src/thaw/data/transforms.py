"""How an image becomes the network's input: the evaluation transform as data, the training transform from options."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor
from torchvision.transforms import v2

from thaw.config import AugmentConfig, DatasetConfig
from thaw.errors import ThawError, one_line
from thaw.instantiation import make
from thaw.seeding import seeded

ImageTransform = Callable[[Tensor], Tensor]

STEP = 16
"""Pixels by which crops grow."""
LONG = 32
"""Length over width beyond which an image would, resized as a whole, take far more memory than what is seen of it."""


@dataclass(frozen=True)
class EvaluationTransform:
    """Resize, centre crop, normalise; plain data, so that a run stores exactly what it was evaluated with.

    Called on a uint8 image (3, H, W) it gives a uint8 crop; normalisation is the network's first step.
    """

    resize: int | tuple[int, int]
    """Pixels of the shorter side, or (height, width) exactly."""
    crop: int
    """Side of the square input in pixels."""
    interpolation: str = "bilinear"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    """Mean of the RGB channels of ImageNet, for values in [0, 1]."""
    std: tuple[float, ...] = (0.229, 0.224, 0.225)

    def __call__(self, image: Tensor) -> Tensor:
        """The uint8 crop (3, crop, crop) of a uint8 image (3, H, W)."""
        if max(image.shape[1:]) > LONG * min(image.shape[1:]):
            image = self._shorten(image)
        resized = self._resize(image, [self.resize] if isinstance(self.resize, int) else list(self.resize))
        return cast(Tensor, v2.functional.center_crop(resized, [self.crop, self.crop]))

    def _shorten(self, image: Tensor) -> Tensor:
        """The image with its long side resized, or without ends that lie far outside the crop."""
        height, width = image.shape[1:]
        if not isinstance(self.resize, int):
            return self._resize(image, [self.resize[0], width] if height > width else [height, self.resize[1]])
        kept = LONG * min(height, width) * max(1, self.crop // self.resize)
        top, left = (max(0, (side - kept) // 2) for side in (height, width))
        return image[:, top : height - top, left : width - left]

    def _resize(self, image: Tensor, size: list[int]) -> Tensor:
        mode = v2.InterpolationMode(self.interpolation)
        return cast(Tensor, v2.functional.resize(image, size, mode, antialias=True))

    @property
    def decoded_side(self) -> int:
        """Pixels that the shorter side of an image keeps at least when a large JPEG is decoded at a reduced size.

        Twice what the network sees: random crops have detail to spare, and resizing averages as it does otherwise.
        """
        return 2 * max(self.crop, self.resize if isinstance(self.resize, int) else max(self.resize))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "EvaluationTransform":
        """The inverse of `asdict`; lists, as JSON has them, are as good as tuples."""
        plain: dict[str, Any] = {key: tuple(x) if isinstance(x, list) else x for key, x in values.items()}
        return cls(**plain)

    def with_options(self, options: DatasetConfig) -> "EvaluationTransform":
        """The same with `dataset.image_size` and `dataset.resize`; a new size alone keeps resize over crop.

        Raises:
            ThawError: The resized image would not fill the crop.
        """
        resize, crop = options.resize or self.resize, options.image_size or self.crop
        sides = [resize] if isinstance(resize, int) else list(resize)
        if options.resize is None:
            sides = [round(side * crop / self.crop) for side in sides]
        resize = sides[0] if len(sides) == 1 else (sides[0], sides[1])
        if min(sides) < crop:
            raise ThawError(
                f"dataset.resize must be at least the crop's {crop} pixels, else what is evaluated has black borders; "
                f"got {resize}. Set dataset.resize={crop} or more, or dataset.image_size={min(sides)} or less."
            )
        return replace(self, resize=resize, crop=crop)


@dataclass(frozen=True)
class Mirrored:
    """A mirror image of what a transform gives."""

    transform: ImageTransform
    axes: tuple[int, ...]
    """Of (3, H, W), along which it is flipped: as `augment.mirrored_axes` has them."""

    def __call__(self, image: Tensor) -> Tensor:
        """The transformed image, flipped."""
        return self.transform(image).flip(self.axes)


def training_transform(options: AugmentConfig, evaluation: EvaluationTransform) -> ImageTransform:
    """The random transform of one uint8 image (3, H, W) to one of (3, crop, crop).

    Raises:
        ThawError: One of `augment.transforms` cannot be made, or makes something else of an image.
    """
    further = [_make_further(*each, evaluation.crop) for each in options.transforms.items()]
    if options.policy == "none":
        return cast(ImageTransform, v2.Compose([evaluation, *further])) if further else evaluation
    mean_colour = [round(255 * value) for value in evaluation.mean]
    steps: list[ImageTransform] = []
    if options.degrees:  # first, for most crops leave the corners that it lays bare outside
        steps.append(v2.RandomRotation(options.degrees, v2.InterpolationMode.BILINEAR, fill=mean_colour))
    steps += [
        v2.RandomResizedCrop(
            evaluation.crop,
            scale=tuple(options.crop_scale),
            ratio=tuple(options.crop_ratio),
            interpolation=v2.InterpolationMode(evaluation.interpolation),
            antialias=True,
        ),
        v2.RandomHorizontalFlip(options.flip),
    ]
    if options.vertical_flip:
        steps.append(v2.RandomVerticalFlip(options.vertical_flip))
    match options.policy:
        case "trivial":
            steps.append(v2.TrivialAugmentWide(interpolation=v2.InterpolationMode.BILINEAR))
        case "rand":
            steps.append(v2.RandAugment(interpolation=v2.InterpolationMode.BILINEAR))
        case "color":
            steps.append(v2.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1))
    steps += further
    if options.erasing:
        steps.append(v2.RandomErasing(options.erasing, value=mean_colour))
    return cast(ImageTransform, v2.Compose(steps))


def growing_sides(start: int, end: int, num_epochs: int) -> list[int]:
    """Side of the crops in each epoch, in pixels: progressive resizing, by the shares of MosaicML's Composer.

    The start in the first half of the epochs, the end in the last fifth or the last one, linear between in steps of 16.
    """
    shares = [(epoch / num_epochs - 0.5) / 0.3 for epoch in range(num_epochs - 1)]
    grown = [start + int((end - start) * min(max(share, 0), 1) / STEP) * STEP for share in shares]
    return [*(end if share >= 1 else side for share, side in zip(shares, grown, strict=True)), end]


def _make_further(name: str, recipe: Any, side: int) -> ImageTransform:
    """A transform of `augment.transforms`, tried on an image."""
    key = f"augment.transforms.{name}"
    image = torch.zeros(3, side, side, dtype=torch.uint8)
    transform = make(key, recipe)
    try:
        with seeded(0):
            result = transform(image)
    except Exception as error:  # what a class that is not ours raises
        raise ThawError(f"{key} fails on an image: {one_line(error)}") from error
    if not isinstance(result, Tensor) or (result.shape, result.dtype) != (image.shape, image.dtype):
        kind = f"{tuple(result.shape)} of {result.dtype}" if isinstance(result, Tensor) else type(result).__name__
        raise ThawError(f"{key} must make {tuple(image.shape)} of torch.uint8 of such an image, got {kind}.")
    return cast(ImageTransform, transform)


def mixing_transform(
    options: AugmentConfig, num_classes: int
) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None:
    """Mixup or CutMix of normalised images (B, 3, H, W) and labels (B,), to soft targets (B, K); None if off."""
    mixes: list[torch.nn.Module] = []
    if options.mixup:
        mixes.append(v2.MixUp(alpha=options.mixup, num_classes=num_classes))
    if options.cutmix:
        mixes.append(v2.CutMix(alpha=options.cutmix, num_classes=num_classes))
    return v2.RandomChoice(mixes) if mixes else None
