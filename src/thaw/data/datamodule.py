"""From a data set on disk to batches: find, index, check, decode, sample, load."""

import logging
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import torch
from lightning.pytorch import LightningDataModule
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from thaw.config import AugmentConfig, DatasetConfig
from thaw.data import check
from thaw.data.images import BadImage, read_image
from thaw.data.index import ImageIndex, Sample, build_index
from thaw.data.sources import fetch
from thaw.data.transforms import EvaluationTransform, ImageTransform, training_transform
from thaw.seeding import derive_seed, seeded

log = logging.getLogger(__name__)

CACHE_SHARE = 1 / 4  # of the free memory, for dataset.cache=auto
Position = tuple[int, int]


class ImageDataset(Dataset[tuple[Tensor, int]]):
    """Images after a transform, and their labels; a sample depends on nothing but (seed, epoch, index).

    Args:
        samples: Path and label of each image.
        transform: uint8 image (3, H, W) -> uint8 image (3, S, S); may draw from torch's default generator.
        seed: Seed of the run.
        images: The decoded images, by index, where they are kept in memory; else each is read when it is asked for.
    """

    def __init__(
        self, samples: Sequence[Sample], transform: ImageTransform, seed: int, images: Sequence[Tensor] | None = None
    ) -> None:
        self.samples = samples
        self.transform = transform
        self.seed = seed
        self.images = images

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, position: Position) -> tuple[Tensor, int]:
        epoch, index = position
        sample = self.samples[index]
        image = read_image(sample.path) if self.images is None else self.images[index]
        with seeded(self.seed, epoch, index):
            return self.transform(image), sample.label


class EpochSampler(Sampler[Position]):
    """(epoch, index) of every image in an order that is a function of (seed, epoch).

    Lightning calls `set_epoch`. Of several processes, each takes every n-th image; for training the first images fill
    the last round, so that all processes make the same number of steps.
    """

    def __init__(
        self, num_images: int, seed: int, rank: int = 0, num_processes: int = 1, weights: Tensor | None = None
    ) -> None:
        self.num_images = num_images
        self.seed = seed
        self.rank = rank
        self.num_processes = num_processes
        self.weights = weights
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration belongs to."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.num_images // self.num_processes)

    def __iter__(self) -> Iterator[Position]:
        generator = torch.Generator().manual_seed(derive_seed(self.seed, self.epoch))
        if self.weights is None:
            order = torch.randperm(self.num_images, generator=generator)
        else:
            order = torch.multinomial(self.weights, self.num_images, replacement=True, generator=generator)
        order = order.repeat(2)[: len(self) * self.num_processes]
        for index in order[self.rank :: self.num_processes].tolist():
            yield self.epoch, index


class SequentialPositions(Sampler[Position]):
    """(0, index) of every image in order; of several processes, each takes every n-th image, none twice."""

    def __init__(self, num_images: int, rank: int = 0, num_processes: int = 1) -> None:
        self.indices = range(rank, num_images, num_processes)

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[Position]:
        return ((0, index) for index in self.indices)


class ImageDataModule(LightningDataModule):
    """The loaders of a data set: batches of uint8 images (B, 3, S, S) and labels (B,).

    Attributes:
        index: Paths, labels, class names and splits; there after `setup`.
        transform: The evaluation transform.
    """

    index: ImageIndex

    def __init__(
        self,
        options: DatasetConfig,
        transform: EvaluationTransform,
        augment: AugmentConfig | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.options = options
        self.transform = transform
        self.augment = augment or AugmentConfig()
        self.seed = seed
        self.datasets: dict[str, ImageDataset] = {}

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, by label."""
        return self.index.classes

    def prepare_data(self) -> None:
        """Download and unpack a named data set that is not there yet."""
        fetch(self.options.name, Path(self.options.root))

    def setup(self, stage: str | None = None) -> None:
        """Index and check the data set, and decode it where it fits into memory; at the first call only.

        Raises:
            ThawError: The data set cannot be used as it is; the message says what to do.
        """
        if self.datasets:
            return
        self.index = build_index(fetch(self.options.name, Path(self.options.root)), self.options)
        images = self._decode() if self._decide_cache() else None
        if images is None:
            bad = check.find_unreadable(self.index, threads=os.cpu_count() or 1)
            self.index = check.drop_unreadable(self.index, bad, self.options.on_bad)
        log.info(check.facts(self.index))
        for finding in check.find_problems(self.index):
            log.warning(finding.message)
        for split, samples in self.index.splits.items():
            transform: ImageTransform = self.transform if images is None else keep
            if split == "train":
                transform = training_transform(self.augment, self.transform)
            kept = None if images is None else [images[sample.path] for sample in samples]
            self.datasets[split] = ImageDataset(samples, transform, self.seed, kept)

    def class_weights(self) -> Tensor | None:
        """Weights (K,) of the classes in the loss, inverse to their frequency; None if not asked for."""
        return self._inverse_frequencies() if self.options.balance == "loss" else None

    def train_dataloader(self) -> DataLoader[tuple[Tensor, int]]:
        """Shuffled and augmented training images."""
        dataset = self.datasets["train"]
        weights = None
        if self.options.balance == "sampler":
            weights = self._inverse_frequencies()[[sample.label for sample in dataset.samples]]
        sampler = EpochSampler(len(dataset), self.seed, *self._rank(), weights)
        # An epoch of less than one batch would be no epoch at all.
        drop_last = self.options.drop_last and len(sampler) > self.options.batch_size
        return self._loader(dataset, sampler, drop_last)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, int]]:
        """Validation images in order."""
        return self.eval_dataloader("val")

    def test_dataloader(self) -> DataLoader[tuple[Tensor, int]]:
        """Test images in order."""
        return self.eval_dataloader("test")

    def eval_dataloader(self, split: str, all_on_each_process: bool = False) -> DataLoader[tuple[Tensor, int]]:
        """Images of a split in order, by the evaluation transform; shared among the processes, or all on each."""
        dataset = self.datasets[split]
        rank = (0, 1) if all_on_each_process else self._rank()
        return self._loader(dataset, SequentialPositions(len(dataset), *rank), drop_last=False)

    def _rank(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _loader(
        self, dataset: ImageDataset, sampler: Sampler[Position], drop_last: bool
    ) -> DataLoader[tuple[Tensor, int]]:
        num_workers = self._num_workers(dataset)
        return DataLoader(
            dataset,
            self.options.batch_size,
            sampler=sampler,
            drop_last=drop_last,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )

    def _num_workers(self, dataset: ImageDataset) -> int:
        if isinstance(self.options.num_workers, int):
            return self.options.num_workers
        return 0 if dataset.images is not None else min(8, os.cpu_count() or 1)

    def _inverse_frequencies(self) -> Tensor:
        labels = torch.tensor([sample.label for sample in self.index.splits["train"]])
        counts = torch.bincount(labels, minlength=len(self.classes)).float()
        return len(labels) / (len(self.classes) * counts)

    def _decide_cache(self) -> bool:
        """True if decoded images are to be kept in memory; says why."""
        if self.options.cache != "auto":
            return self.options.cache == "ram"
        needed, allowed = self._estimate_bytes(), psutil.virtual_memory().available * CACHE_SHARE
        verdict = "kept in memory" if needed <= allowed else "decoded anew in each epoch"
        log.info(f"Images: {verdict} ({needed / 1e9:.2f} GB decoded; dataset.cache=auto allows {allowed / 1e9:.2f} GB)")
        return needed <= allowed

    def _estimate_bytes(self, most: int = 256) -> float:
        """Bytes of the decoded training images and the evaluation crops, from the headers of some files."""
        train = self.index.splits["train"]
        probe = train[:: -(-len(train) // most)]
        pixels = [_count_pixels(sample.path) for sample in probe]
        num_eval = sum(len(samples) for split, samples in self.index.splits.items() if split != "train")
        return 3 * (sum(pixels) / len(pixels) * len(train) + num_eval * self.transform.crop**2)

    def _decode(self) -> dict[Path, Tensor]:
        """Every image by its path: of train as it is, of the other splits after the evaluation transform."""
        jobs = {sample.path: split for split, samples in self.index.splits.items() for sample in samples}

        def decode(job: tuple[Path, str]) -> Tensor | BadImage:
            path, split = job
            try:
                image = read_image(path)
            except BadImage as error:
                return error
            return image if split == "train" else self.transform(image)

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            results = dict(zip(jobs, pool.map(decode, jobs.items()), strict=True))
        bad = {path: result.reason for path, result in results.items() if isinstance(result, BadImage)}
        self.index = check.drop_unreadable(self.index, bad, self.options.on_bad)
        return {path: result for path, result in results.items() if isinstance(result, Tensor)}


def keep(image: Tensor) -> Tensor:
    """The image as it is: it went through the evaluation transform when it was decoded."""
    return image


def _count_pixels(path: Path) -> int:
    try:
        with Image.open(path) as image:
            return image.width * image.height
    except Exception:  # an unreadable file is named when it is decoded
        return 0
