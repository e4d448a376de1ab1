"""The images of a data set, kept where `dataset.cache` has them, and the loaders that read them from there."""

import logging
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from thaw.config import AugmentConfig, DatasetConfig
from thaw.data.device import SHARE_OF_FREE_MEMORY, CropDataset, Crops, DeviceImages, can_cut, fits_on_device
from thaw.data.index import ImageIndex
from thaw.data.memory import ImageMemory, fits_in_memory
from thaw.data.readable import find_bad_once
from thaw.data.sampling import EpochSampler, GrowingImages, ImageDataset, Position, SequentialPositions
from thaw.data.threads import num_cores
from thaw.data.transforms import EvaluationTransform
from thaw.data.unreadable import are_read_whole, find_unreadable
from thaw.errors import ThawError, first_line
from thaw.signals import outlive

log = logging.getLogger(__name__)

WORKER_SECONDS = 1.0
"""An epoch of less loading needs no loader processes: they take about as long to start."""
MOST_WORKERS = 8
CAN_FORK = sys.platform == "linux"
"""A forked loader process shares the images in memory; to any other one each of them would be sent, and it would import
torch anew. Forking is safe beside CUDA as long as loader processes leave that alone, and is not on macOS."""

Loader = DataLoader[Any]


class EpochLoader(Loader):
    """A DataLoader whose processes begin an epoch once.

    Lightning asks for its iterator twice where it also asks for a new loader in each epoch. At the second time the
    processes would finish what they have begun to load, throw it away, and begin again.
    """

    begun_epoch: int | None = None

    def __iter__(self) -> Any:
        epoch = getattr(self.sampler, "epoch", None)
        begun = self._iterator
        if begun is None or begun._num_yielded or epoch != self.begun_epoch:
            try:
                begun, self.begun_epoch = super().__iter__(), epoch
            except OSError as error:
                raise ThawError(
                    f"Loader processes cannot be started: {error.strerror or first_line(error)}. Load without them by "
                    "dataset.num_workers=0."
                ) from error
        return begun


class KeptImages:
    """The images of an index: decoded each time, or once into memory, and from there onto the accelerator too.

    Args:
        index: The table of the images.
        transform: The evaluation transform.
        options: Size of a batch, where to keep images, and number of loader processes.

    Attributes:
        in_memory: Whether they are kept decoded: training images whole, the others after the evaluation transform.
        device: Where batches go, as far as is known.
        cuts_crops: Whether the device cuts the training images' crops, which are others than the CPU would draw. A
            checkpoint that is resumed tells it; else it is None until the first epoch of images.
    """

    def __init__(self, index: ImageIndex, transform: EvaluationTransform, options: DatasetConfig) -> None:
        self.index = index
        self.transform = transform
        self.options = options
        self.in_memory = fits_in_memory(index, transform) if options.cache == "auto" else options.cache != "none"
        self._memory = ImageMemory(index, transform) if self.in_memory else None
        self.device = torch.device("cpu")
        self.cuts_crops: bool | None = None
        self._on_device: dict[str, DeviceImages] = {}

    def find_unreadable(self) -> dict[Path, str]:
        """Files that cannot be read, with the reasons.

        Images that are kept in memory are decoded into it, unless all files are known to be good. Images in shards are
        left alone: each was read before it was packed.
        """
        if self.index.shards:
            return {}
        paths = [sample.path for sample in self.index.samples]
        if self._memory is not None:
            return find_bad_once(paths, partial(self._memory.load, paths), whole=True)
        whole = are_read_whole(self.index, self.options.on_bad)
        return find_bad_once(paths, partial(find_unreadable, self.index, whole), whole)

    def read(self, path: Path) -> Tensor:
        """One image, uint8 (3, H, W), from memory if it is kept there."""
        return self.index.read(path, self.transform.decoded_side) if self._memory is None else self._memory(path)

    def take(self, dataset: ImageDataset, positions: Sequence[Position]) -> list[tuple[Tensor, int]]:
        """Some images of a data set, and their labels."""
        self._decode(dataset, [draw % len(dataset) for _, draw in positions])
        return [dataset[position] for position in positions]

    def loader(self, dataset: ImageDataset, sampler: EpochSampler | SequentialPositions) -> Loader:
        """Batches of images (B, 3, S, S) and labels (B,), as the sampler orders them."""
        self._decode(dataset, range(len(dataset)))
        num_workers = self._num_workers(dataset)
        return EpochLoader(
            dataset,
            batch_size=self.options.batch_size // sampler.num_processes,  # by name: Lightning replaces it to predict
            sampler=sampler,
            num_workers=num_workers,
            multiprocessing_context=("fork" if CAN_FORK else "spawn") if num_workers else None,
            persistent_workers=num_workers > 0,
            worker_init_fn=outlive if num_workers else None,
            pin_memory=self.device.type == "cuda",
        )

    def crops(self, split: str, dataset: ImageDataset, augment: AugmentConfig | None) -> CropDataset | None:
        """The images as crops that the device cuts itself; None if they are to come from the CPU.

        Args:
            split: Whose images.
            dataset: They and their labels.
            augment: How to draw the crops; None takes the images as they are kept.
        """
        wanted, before = self.options.cache == "device", self.cuts_crops if augment is not None else None
        if self.options.cache == "auto":
            wanted = self.device.type == "cuda" if before is None else before
        crops = self._crops(split, dataset, augment) if wanted else None
        if augment is not None:
            self.cuts_crops = crops is not None
            if before not in (None, self.cuts_crops):
                log.warning("From here on other crops are drawn than the run has begun with (dataset.cache).")
        return crops

    def _crops(self, split: str, dataset: ImageDataset, augment: AugmentConfig | None) -> CropDataset | None:
        if self._memory is None:
            return None
        if augment is not None and not can_cut(augment, self.transform):
            self._tell("they need more than random crops, resized bilinearly, and horizontal mirror images")
            return None
        images = self._memory.load_all(sample.path for sample in dataset.samples)
        sizes = [(image.shape[1], image.shape[2]) for image in images]
        self._on_device.pop(split, None)  # those of another loader, whose room they take
        others = sum(kept.pixels.nbytes for kept in self._on_device.values())
        if not fits_on_device(sizes, self.device, self.options.batch_size, others):
            self._tell(f"they would take more than {SHARE_OF_FREE_MEMORY:.0%} of the free memory of {self.device}")
            return None
        kept = self._on_device[split] = DeviceImages(images, self.device)
        log.info(f"Images of {split}: kept on {self.device} ({kept.pixels.nbytes / 1e9:.2f} GB)")
        side = dataset.side if isinstance(dataset, GrowingImages) else lambda epoch: self.transform.crop
        return CropDataset(split, sizes, dataset.labels, augment, dataset.seed, side)

    def cut(self, crops: Crops) -> Tensor:
        """The images (B, 3, S, S) that crops of `crops` stand for, on the device."""
        return self._on_device[crops.split].cut(crops)

    def _tell(self, reason: str) -> None:
        """Log why images are not cut on the device, where other crops would be drawn."""
        log.info(f"dataset.cache={self.options.cache}: images come from the CPU, for {reason}")

    def _decode(self, dataset: ImageDataset, chosen: Sequence[int]) -> None:
        """Decode some images on all cores, if images are kept in memory."""
        if self._memory is not None:
            self._memory.load(dataset.samples[index].path for index in chosen)

    def _num_workers(self, dataset: ImageDataset) -> int:
        """Loader processes, by the cost of a few samples."""
        if self.in_memory and not CAN_FORK:
            return 0
        if isinstance(self.options.num_workers, int):
            return self.options.num_workers
        if self.in_memory and not torch.cuda.is_available():
            return 0  # cutting a crop takes little, and the network wants all cores
        if _sample_seconds(dataset) * len(dataset) < WORKER_SECONDS:
            return 0
        return min(MOST_WORKERS, max(1, num_cores() - 1))


def _sample_seconds(dataset: ImageDataset) -> float:
    """Seconds that a sample takes in this process, the median of three."""
    seconds = []
    for index in range(min(3, len(dataset))):
        started = time.perf_counter()
        dataset[0, index]
        seconds.append(time.perf_counter() - started)
    return median(seconds)
