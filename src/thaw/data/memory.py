"""Decoded images in memory: whether they fit, and reading each of them once."""

import logging
from collections.abc import Iterable
from io import BytesIO
from math import inf
from pathlib import Path

import psutil
import torch
from torch import Tensor

from thaw.data.control_groups import control_groups
from thaw.data.images import BadImage, open_image
from thaw.data.index import ImageIndex
from thaw.data.threads import in_threads
from thaw.data.transforms import EvaluationTransform
from thaw.ranks import find_rank

log = logging.getLogger(__name__)

SHARE_OF_FREE_MEMORY = 1 / 4  # that dataset.cache=auto may take
HEADERS = 64
"""Of training images at most, from which the size of all of them is estimated."""


class ImageMemory:
    """Decoded images by their paths: training images whole, the others after the evaluation transform.

    Filled before loader processes start, so that they share it.

    Args:
        index: Which images are training images.
        transform: The evaluation transform, which is the same in every epoch.
    """

    def __init__(self, index: ImageIndex, transform: EvaluationTransform) -> None:
        self.transform = transform
        self.read = index.read
        self.train = {sample.path for sample in index.splits.get("train", ())}
        self.images: dict[Path, Tensor] = {}

    def __call__(self, path: Path) -> Tensor:
        """The image, uint8 (3, H, W), from memory or, if it has not been loaded, from where it lies."""
        image = self.images.get(path)
        return self._decode(path) if image is None else image

    def load(self, paths: Iterable[Path]) -> dict[Path, str]:
        """Decode what is not there yet; returns the reasons why some files cannot be."""
        missing = [path for path in paths if path not in self.images]
        bad = {}
        for path, result in zip(missing, in_threads(self._try, missing), strict=True):
            if isinstance(result, str):
                bad[path] = result
            else:
                self.images[path] = result
        return bad

    def load_all(self, paths: Iterable[Path]) -> list[Tensor]:
        """The images, in order."""
        paths = list(paths)
        self.load(paths)
        return [self(path) for path in paths]

    def _try(self, path: Path) -> Tensor | str:
        """The decoded image, or why it cannot be."""
        try:
            return self._decode(path)
        except BadImage as error:
            return error.reason

    def _decode(self, path: Path) -> Tensor:
        image = self.read(path, self.transform.decoded_side)
        # A copy: the transform gives a part of a larger image, all of which would stay.
        return image if path in self.train else self.transform(image).clone(memory_format=torch.contiguous_format)


def fits_in_memory(index: ImageIndex, transform: EvaluationTransform) -> bool:
    """True if the decoded images take no more than a share of the free memory; logs the figures."""
    allowed = free_memory() * SHARE_OF_FREE_MEMORY / find_rank().local_world_size
    needed = _estimate_bytes(index, transform, allowed)
    verdict = "decoded once, kept in memory" if needed <= allowed else "decoded anew in each epoch"
    log.info(f"Images: {verdict} ({needed / 1e9:.2f} GB; dataset.cache=auto allows {allowed / 1e9:.2f} GB)")
    return needed <= allowed


def free_memory(root: Path = Path("/")) -> float:
    """Bytes that this process may still take: what the machine has, or less where a control group is limited.

    Args:
        root: Where `proc` and `sys` are.
    """
    names = {1: ("memory.limit_in_bytes", "memory.usage_in_bytes"), 2: ("memory.max", "memory.current")}
    rooms = [_room(*(group / name for name in names[version])) for group, version in control_groups("memory", root)]
    return max(0.0, min([float(psutil.virtual_memory().available), *rooms]))


def _room(limit: Path, usage: Path) -> float:
    """Bytes up to a control group's limit, the files that the system may drop from memory not counted as used."""
    try:
        stat = dict(line.split() for line in limit.with_name("memory.stat").read_text().splitlines())
        files = int(stat.get("total_inactive_file", stat.get("inactive_file", 0)))
        return int(limit.read_text()) - int(usage.read_text()) + files
    except (OSError, ValueError):  # there is no such group, or its limit is `max`
        return inf


def _estimate_bytes(index: ImageIndex, transform: EvaluationTransform, allowed: float) -> float:
    """Bytes of the decoded training images, by the headers of some files, and of the evaluation crops."""
    train = index.splits.get("train", [])
    if index.shards and (encoded := sum(index.size(sample.path) for sample in train)) > allowed:
        return encoded  # decoded they take more: no need to fetch any
    step = max(1, -(-len(train) // HEADERS))
    pixels = [_count_pixels(index.file(sample.path) or sample.path, transform.decoded_side) for sample in train[::step]]
    num_eval = sum(len(samples) for split, samples in index.splits.items() if split != "train")
    return 3 * (sum(pixels) / max(1, len(pixels)) * len(train) + num_eval * transform.crop**2)


def _count_pixels(file: Path | BytesIO, decoded_side: int) -> int:
    try:
        with open_image(file) as image:
            image.draft(None, (decoded_side, decoded_side))
            return image.width * image.height
    except Exception:  # an unreadable file is named when it is decoded
        return 0
