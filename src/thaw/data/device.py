"""Decoded images on the accelerator: whole batches are gathered, cropped and mirrored there, by numbers drawn here."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.ops import roi_align

from thaw.config import AugmentConfig
from thaw.data.sampling import FILLER, NO_LABEL, Position
from thaw.data.transforms import EvaluationTransform
from thaw.seeding import derive_seed

SHARE_OF_FREE_MEMORY = 1 / 2  # of the accelerator, that the images may take
TRIES = 10  # of RandomResizedCrop, to draw a box that fits
NUMBERS = 4 * TRIES + 1  # random ones, that a box and its mirroring take


class Crops(NamedTuple):
    """A batch given as image indices and crop boxes, to be cut on the accelerator.

    Attributes:
        split: Whose images.
        side: Of the square that each crop is resized to, in pixels.
        indices: Images (B,).
        boxes: Left, top, right and bottom (B, 4) in pixels; whole numbers, which no precision of a training rounds.
        mirrored: Whether to flip each from left to right (B,).
        labels: Labels (B,).
    """

    split: str
    side: int
    indices: Tensor
    boxes: Tensor
    mirrored: Tensor
    labels: Tensor

    def map(self, function: Callable[[Tensor], Tensor]) -> "Crops":
        """A function of each of the tensors."""
        return Crops(self.split, self.side, *map(function, self[2:]))


class CropDataset(Dataset[Crops]):
    """Whole batches of crops: random boxes in images of known sizes, or all of each image.

    Args:
        split: Whose images.
        sizes: Height and width of each image.
        labels: Labels (N,).
        options: How to draw boxes, a function of (seed, epoch, draw); None takes the whole images.
        seed: Seed of the run.
        side: Epoch -> side of the square that its crops are resized to, in pixels.
    """

    def __init__(
        self,
        split: str,
        sizes: Sequence[tuple[int, int]],
        labels: Tensor,
        options: AugmentConfig | None,
        seed: int,
        side: Callable[[int], int],
    ) -> None:
        self.split = split
        self.sizes = torch.tensor(sizes)
        self.labels = labels
        self.options = options
        self.seed = seed
        self.side = side
        self.epoch = -1
        height, width = self.sizes.T
        self.boxes = torch.stack([torch.zeros_like(width), torch.zeros_like(height), width, height], dim=1)
        self.mirrored = torch.zeros(len(sizes), dtype=torch.bool)

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitems__(self, positions: list[Position]) -> Crops:
        epoch, draws = positions[0][0], torch.tensor([draw for _, draw in positions])
        indices, is_further = draws % len(self), draws >= len(self)
        self._draw(epoch)
        boxes, mirrored = self.boxes[indices], self.mirrored[indices]
        if self.options is not None and is_further.any():
            each = [self._numbers(1, epoch, len(self), draw) for draw in draws[is_further].tolist()]
            crops = random_crops(self.sizes[indices[is_further]], self.options, torch.cat(each, dim=1))
            boxes[is_further], mirrored[is_further] = crops
        labels = self.labels[indices].masked_fill(draws == FILLER, NO_LABEL)
        return Crops(self.split, self.side(epoch), indices, boxes, mirrored, labels)

    def _draw(self, epoch: int) -> None:
        """Draw the first crops of all images at once, if it has not been done for this epoch."""
        if self.options is not None and epoch != self.epoch:
            numbers = self._numbers(len(self), epoch, len(self))
            self.boxes, self.mirrored = random_crops(self.sizes, self.options, numbers)
            self.epoch = epoch

    def _numbers(self, num_crops: int, *position: int) -> Tensor:
        """Random numbers (NUMBERS, N), for so many crops."""
        generator = torch.Generator().manual_seed(derive_seed(self.seed, *position))
        return torch.rand(NUMBERS, num_crops, generator=generator)


def random_crops(sizes: Tensor, options: AugmentConfig, numbers: Tensor) -> tuple[Tensor, Tensor]:
    """Boxes (N, 4), distributed as those of `v2.RandomResizedCrop`, which draws them one by one; which to mirror (N,).

    Args:
        sizes: Height and width (N, 2) of each image.
        options: Range of the boxes' areas and of their aspect ratios, and how many to mirror.
        numbers: Random ones (NUMBERS, N) in [0, 1).
    """
    drawn = iter(numbers.unbind())

    def uniform(low: float | Tensor, high: float | Tensor) -> Tensor:
        return low + (high - low) * next(drawn)

    height, width = sizes.T
    narrow, wide = options.crop_ratio
    # What it takes where all tries are too large: of the whole image, the middle of an aspect ratio in the range.
    box_width = torch.minimum(width, (height * wide).round())
    box_height = torch.minimum(height, (width / narrow).round())
    left, top = (width - box_width) // 2, (height - box_height) // 2
    pending = torch.ones(len(sizes), dtype=torch.bool)
    for _ in range(TRIES):
        area = height * width * uniform(*options.crop_scale)
        ratio = uniform(math.log(narrow), math.log(wide)).exp()
        tried_width, tried_height = (area * ratio).sqrt().round(), (area / ratio).sqrt().round()
        tried_left = uniform(0, width - tried_width + 1).floor()
        tried_top = uniform(0, height - tried_height + 1).floor()
        fits = (tried_width > 0) & (tried_width <= width) & (tried_height > 0) & (tried_height <= height) & pending
        box_width, box_height = torch.where(fits, tried_width, box_width), torch.where(fits, tried_height, box_height)
        left, top = torch.where(fits, tried_left, left), torch.where(fits, tried_top, top)
        pending &= ~fits
        if not pending.any():
            break
    boxes = torch.stack([left, top, left + box_width, top + box_height], dim=1).long()
    return boxes, numbers[-1] < options.flip


class DeviceImages:
    """Images of different sizes in one tensor (N, 3, H, W), uint8, each in the upper left corner of its place.

    The rest of a place repeats the image's last row and column, for samples between its edge and the next pixel.

    Args:
        images: uint8 (3, h, w) each.
        device: Where they are kept.
    """

    def __init__(self, images: Sequence[Tensor], device: torch.device) -> None:
        height, width = (max(image.shape[side] for image in images) for side in (1, 2))
        self.pixels = torch.empty(len(images), 3, height, width, dtype=torch.uint8, device=device)
        for place, image in zip(self.pixels, images, strict=True):
            h, w = image.shape[1:]
            place[:, :h, :w] = image
            place[:, h:, :w] = place[:, h - 1 : h, :w]
            place[:, :, w:] = place[:, :, w - 1 : w]

    def cut(self, crops: Crops) -> Tensor:
        """The crops as uint8 images (B, 3, side, side).

        Each output pixel is the mean of bilinear samples spread over the area that it stands for (RoIAlign, He et al.
        2017), so shrinking does not alias.
        """
        numbers = torch.arange(len(crops.boxes), device=crops.boxes.device)[:, None]
        regions = torch.cat([numbers, crops.boxes], dim=1).float()
        cut = roi_align(self.pixels[crops.indices].float(), regions, crops.side, sampling_ratio=-1, aligned=True)
        images = cut.round_().clamp_(0, 255).to(torch.uint8)
        return torch.where(crops.mirrored[:, None, None, None], images.flip(-1), images)


def can_cut(options: AugmentConfig, transform: EvaluationTransform) -> bool:
    """True if training images need nothing but random crops, resized bilinearly, and horizontal mirroring."""
    return options.only_cuts and transform.interpolation == "bilinear"


def fits_on_device(sizes: Sequence[tuple[int, int]], device: torch.device, batch_size: int, kept: int = 0) -> bool:
    """True if the padded images leave the accelerator enough room to train; other devices than GPUs are not asked.

    Args:
        sizes: Height and width of each.
        device: The accelerator.
        batch_size: Images of which crops are cut at a time: they are gathered, as uint8, and made float32.
        kept: Bytes of other images that it keeps already.
    """
    if device.type != "cuda":
        return True
    place = 3 * max(height for height, _ in sizes) * max(width for _, width in sizes)
    needed = place * (len(sizes) + 5 * min(batch_size, len(sizes)))
    free, _ = torch.cuda.mem_get_info(device)
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # an earlier job's, to be reused
    return needed + kept <= (free + kept) * SHARE_OF_FREE_MEMORY
