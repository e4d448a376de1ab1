"""Decoded images on the accelerator: whole batches are gathered, cropped and mirrored there, by numbers drawn here."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.ops import roi_align
from torchvision.transforms import v2

from thaw.config import AugmentConfig
from thaw.data.sampling import FILLER, NO_LABEL, Position
from thaw.data.transforms import EvaluationTransform
from thaw.seeding import seeded

SHARE_OF_FREE_MEMORY = 1 / 2  # of the accelerator, that the images may take


class Crops(NamedTuple):
    """What a loader gives in place of images: which ones, and what to cut out of them.

    Attributes:
        indices: Images (B,).
        boxes: Left, top, right and bottom (B, 4) in pixels.
        mirrored: Whether to flip each from left to right (B,).
        labels: Labels (B,).
    """

    indices: Tensor
    boxes: Tensor
    mirrored: Tensor
    labels: Tensor


class CropDataset(Dataset[Crops]):
    """Random boxes in images of known sizes: the same that the training transform would draw on the CPU.

    Args:
        sizes: Height and width of each image.
        labels: Labels (N,).
        options: Its policy is `default`.
        seed: Seed of the run.
    """

    def __init__(self, sizes: Sequence[tuple[int, int]], labels: Tensor, options: AugmentConfig, seed: int) -> None:
        self.sizes = sizes
        self.labels = labels
        self.flip = options.flip
        self.crop = v2.RandomResizedCrop(1, tuple(options.crop_scale), tuple(options.crop_ratio))
        self.seed = seed

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, position: Position) -> Crops:
        epoch, index = position
        with seeded(self.seed, epoch, index % len(self)):
            box = self.crop.make_params([torch.empty(3, *self.sizes[index], device="meta")])
            mirrored = torch.rand(1) < self.flip
        left, top = box["left"], box["top"]
        edges = torch.tensor([left, top, left + box["width"], top + box["height"]], dtype=torch.float32)
        label = torch.tensor(NO_LABEL) if index == FILLER else self.labels[index]
        return Crops(torch.tensor(index), edges, mirrored[0], label)


class DeviceImages:
    """Images of different sizes in one tensor (N, 3, H, W), uint8, each in the upper left corner of its place.

    The rest of a place repeats the image's last row and column, for samples between its edge and the next pixel.

    Args:
        images: uint8 (3, h, w) each.
        device: Where they are kept.
    """

    def __init__(self, images: Sequence[Tensor], device: torch.device) -> None:
        height, width = (max(image.shape[side] for image in images) for side in (1, 2))
        self.places = torch.empty(len(images), 3, height, width, dtype=torch.uint8, device=device)
        for place, image in zip(self.places, images, strict=True):
            h, w = image.shape[1:]
            place[:, :h, :w] = image
            place[:, h:, :w] = place[:, h - 1 : h, :w]
            place[:, :, w:] = place[:, :, w - 1 : w]

    def cut(self, crops: Crops, side: int) -> Tensor:
        """The crops as uint8 images (B, 3, side, side).

        Each output pixel is the mean of bilinear samples spread over the area that it stands for (RoIAlign, He et al.
        2017), so shrinking does not alias.
        """
        numbers = torch.arange(len(crops.boxes), device=crops.boxes.device)[:, None]
        regions = torch.cat([numbers, crops.boxes], dim=1)  # float32: half precision would move large coordinates
        cut = roi_align(self.places[crops.indices].float(), regions, side, sampling_ratio=-1, aligned=True)
        images = cut.round_().clamp_(0, 255).to(torch.uint8)
        return torch.where(crops.mirrored[:, None, None, None], images.flip(-1), images)


def can_cut(options: AugmentConfig, transform: EvaluationTransform) -> bool:
    """True if random crops, resized bilinearly, and mirror images are all that happens to a training image."""
    return options.policy == "default" and not options.erasing and transform.interpolation == "bilinear"


def fits_on_device(sizes: Sequence[tuple[int, int]], device: torch.device) -> bool:
    """True if the padded images leave the accelerator enough room to train; other devices than GPUs are not asked."""
    if device.type != "cuda":
        return True
    needed = 3 * len(sizes) * max(height for height, _ in sizes) * max(width for _, width in sizes)
    free, _ = torch.cuda.mem_get_info(device)
    return needed <= free * SHARE_OF_FREE_MEMORY
