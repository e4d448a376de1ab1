"""From a data set on disk to batches: find, index, check, decode, sample, load."""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, Sampler
from torchvision.transforms import v2

from thaw.config import AugmentConfig, DatasetConfig
from thaw.data import check
from thaw.data.features import Extract, FeatureStore, compute_features, make_key
from thaw.data.index import ImageIndex, build_index
from thaw.data.memory import decode_all, fits_in_memory
from thaw.data.sampling import EpochSampler, FeatureDataset, ImageDataset, Position, SequentialPositions
from thaw.data.sources import fetch
from thaw.data.transforms import EvaluationTransform, ImageTransform, Mirrored, training_transform

log = logging.getLogger(__name__)

Loader = DataLoader[Any]
Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class FrozenBackbone:
    """What the loaders need to know of a backbone to run on its features.

    Attributes:
        module: The backbone, for its tensors.
        extract: uint8 images (B, 3, S, S) -> features (B, F).
        is_frozen: Epoch -> True while no stage has learned yet, nor does in that epoch.
        views: `fresh`, `mirror`, or a number of stored random views (strategy.feature_views).
        facts: What the features depend on beside the module and the images: precision, device.
    """

    module: nn.Module
    extract: Extract
    is_frozen: Callable[[int], bool]
    views: int | str
    facts: tuple[str, ...]


class ImageDataModule(LightningDataModule):
    """The loaders of a data set: batches of uint8 images (B, 3, S, S), or of features (B, F), and labels (B,).

    Attributes:
        index: Paths, labels, class names and splits; there after `setup`.
        transform: The evaluation transform.
        backbone: If it is set, epochs in which it is frozen run on its stored features.
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
        self.backbone: FrozenBackbone | None = None
        self.datasets: dict[str, ImageDataset] = {}
        self._views: dict[str, Tensor] = {}
        self._loaders: dict[str, Loader] = {}

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
        self.load(build_index(fetch(self.options.name, Path(self.options.root)), self.options))

    def load(self, index: ImageIndex) -> None:
        """Check the images of an index, and decode them where they fit into memory; only those of train are augmented.

        Raises:
            ThawError: A file cannot be read, and `dataset.on_bad` is error.
        """
        in_memory = self.options.cache == "ram"
        if self.options.cache == "auto":
            in_memory = fits_in_memory(index, self.transform)
        if in_memory:
            images, bad = decode_all(index.splits, self.transform)
        else:
            images, bad = {}, check.find_unreadable(index, threads=os.cpu_count() or 1)
        self.index = check.drop_unreadable(index, bad, self.options.on_bad)
        log.info(check.facts(self.index))
        for finding in check.find_problems(self.index):
            log.warning(finding.message)
        for split, samples in self.index.splits.items():
            kept = [images[sample.path] for sample in samples] if in_memory else None
            transform = training_transform(self.augment, self.transform) if split == "train" else self.transform
            # What is kept of the other splits has been through the transform.
            self.datasets[split] = ImageDataset(
                samples, nn.Identity() if in_memory and split != "train" else transform, self.seed, kept
            )

    def class_weights(self) -> Tensor | None:
        """Weights (K,) of the classes in the loss, inverse to their frequency; None if not asked for."""
        return self._inverse_frequencies() if self.options.balance == "loss" else None

    # ---- loaders

    def train_dataloader(self) -> Loader:
        """Shuffled training images, augmented, or views of their features."""
        dataset, epoch = self.datasets["train"], self._epoch()
        weights = None
        if self.options.balance == "sampler":
            weights = self._inverse_frequencies()[[sample.label for sample in dataset.samples]]
        sampler = EpochSampler(len(dataset), self.seed, *self._rank(), weights)
        # An epoch of less than one batch would be no epoch at all.
        drop_last = self.options.drop_last and len(sampler) >= self.options.batch_size
        if self.runs_on_features(epoch):
            sampler.set_epoch(epoch)
            return self._feature_loader(self._train_views(epoch), dataset, sampler, drop_last)
        if "train" not in self._loaders:
            self._loaders["train"] = self.image_loader(dataset, sampler, drop_last)
        return self._loaders["train"]

    def val_dataloader(self) -> Loader:
        """Validation images in order, or their features."""
        return self.eval_dataloader("val")

    def test_dataloader(self) -> Loader:
        """Test images in order, or their features."""
        return self.eval_dataloader("test")

    def eval_dataloader(self, split: str, all_on_each_process: bool = False) -> Loader:
        """Images of a split in order, or their features; shared among the processes, or all on each."""
        dataset = self.datasets[split]
        sampler = SequentialPositions(len(dataset), *((0, 1) if all_on_each_process else self._rank()))
        if self.runs_on_features(self._epoch()):
            return self._feature_loader(self._eval_features(split), dataset, sampler, drop_last=False)
        if split not in self._loaders or all_on_each_process:
            self._loaders[split] = self.image_loader(dataset, sampler, drop_last=False)
        return self._loaders[split]

    def preview(self) -> Batch:
        """The first training batch as images (B, 3, S, S), also where its epoch runs on features of them."""
        dataset, sampler = self.datasets["train"], EpochSampler(len(self.datasets["train"]), self.seed)
        if self.runs_on_features(0) and self.backbone and self.backbone.views == "mirror":
            transform = v2.Compose([self.transform, v2.RandomHorizontalFlip(0.5 if self._may_mirror() else 0)])
            dataset = ImageDataset(dataset.samples, transform, self.seed, dataset.images)
        images, labels = next(iter(self.image_loader(dataset, sampler, drop_last=False)))
        return images, labels

    def image_loader(self, dataset: ImageDataset, sampler: Sampler[Position], drop_last: bool = False) -> Loader:
        """Batches of uint8 images (B, 3, S, S) and labels (B,), as the sampler orders them."""
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

    def _feature_loader(
        self, views: Tensor, dataset: ImageDataset, sampler: Sampler[Position], drop_last: bool
    ) -> Loader:
        labels = torch.tensor([sample.label for sample in dataset.samples])
        batches = BatchSampler(cast(Sampler[int], sampler), self.options.batch_size, drop_last)
        return DataLoader(FeatureDataset(views, labels, self.seed), batch_size=None, sampler=batches)

    # ---- features

    def runs_on_features(self, epoch: int) -> bool:
        """True if the backbone is still frozen in the epoch, so that its features take the images' place."""
        return self.backbone is not None and self.backbone.is_frozen(epoch)

    def _train_views(self, epoch: int) -> Tensor:
        """Features (V, N, F) of the training images' V views of this epoch."""
        assert self.backbone is not None
        dataset, views = self.datasets["train"], self.backbone.views
        if views == "fresh":
            return self._extract(dataset, epoch)[None]
        if views == "mirror":
            transforms: list[ImageTransform] = [self.transform]
            if self._may_mirror():
                transforms.append(Mirrored(self.transform))
            plain = [ImageDataset(dataset.samples, step, self.seed, dataset.images) for step in transforms]
            return self._stored(
                f"train {len(plain)}", dataset, lambda: torch.stack([self._extract(x, 0) for x in plain])
            )
        assert isinstance(views, int)
        name = f"train {views} {self.seed} {self.augment}"
        return self._stored(name, dataset, lambda: torch.stack([self._extract(dataset, view) for view in range(views)]))

    def _may_mirror(self) -> bool:
        return self.augment.policy != "none" and self.augment.flip > 0

    def _eval_features(self, split: str) -> Tensor:
        """Features (1, N, F) of a split's images."""
        dataset = self.datasets[split]
        return self._stored("evaluation", dataset, lambda: self._extract(dataset, 0)[None], split)

    def _stored(self, name: str, dataset: ImageDataset, compute: Callable[[], Tensor], split: str = "train") -> Tensor:
        """Features kept in memory for the run, and on disk for the next one."""
        if split not in self._views:
            assert self.backbone is not None
            paths = [sample.path for sample in dataset.samples]
            facts = (name, self.transform, self.options.batch_size, *self.backbone.facts)
            key = make_key(self.backbone.module.state_dict(), paths, *facts)
            self._views[split] = FeatureStore().get(key, compute)
        return self._views[split]

    def _extract(self, dataset: ImageDataset, epoch: int) -> Tensor:
        """Features (N, F) of every image as the epoch has it, in order."""
        assert self.backbone is not None
        sampler = SequentialPositions(len(dataset), epoch=epoch)
        return compute_features(self.backbone.extract, self.image_loader(dataset, sampler, drop_last=False))

    # ---- facts

    def _epoch(self) -> int:
        return self.trainer.current_epoch if self.trainer else 0

    def _rank(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _num_workers(self, dataset: ImageDataset) -> int:
        if isinstance(self.options.num_workers, int):
            return self.options.num_workers
        return 0 if dataset.images is not None else min(8, os.cpu_count() or 1)

    def _inverse_frequencies(self) -> Tensor:
        labels = torch.tensor([sample.label for sample in self.index.splits["train"]])
        counts = torch.bincount(labels, minlength=len(self.classes)).float()
        return len(labels) / (len(self.classes) * counts)
