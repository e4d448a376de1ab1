"""From a data set on disk to batches: find, index, check, decode, sample, load."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, cast

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, default_collate

from thaw.config import AugmentConfig, DatasetConfig
from thaw.data import check
from thaw.data.device import CropDataset, Crops
from thaw.data.feature_views import FeatureViews
from thaw.data.index import ImageIndex, build_index
from thaw.data.kept_images import KeptImages, Loader
from thaw.data.places import locate
from thaw.data.sampling import (
    NO_LABEL,
    Batch,
    EpochSampler,
    FeatureDataset,
    GrowingImages,
    ImageDataset,
    SequentialPositions,
)
from thaw.data.sources import fetch
from thaw.data.transforms import EvaluationTransform, growing_sides, training_transform
from thaw.data.unreadable import drop_unreadable
from thaw.errors import ThawError

log = logging.getLogger(__name__)

FEATURES_AT_ONCE = 4096
"""Features in a batch that is only evaluated: a head takes about as long for one as for all of them."""


class ImageDataModule(LightningDataModule):
    """The loaders of a data set: batches of uint8 images (B, 3, S, S), or of features (B, F), and labels (B,).

    Attributes:
        transform: The evaluation transform.
        sides: Side of the training crops in each epoch, in pixels, where they grow; that needs `num_epochs`, the epochs
            of the training. Else empty.
        index: Paths, labels, class names and splits; made by `setup`, as are all below.
        datasets: The images of each split.
        images: Their cache, and the loaders that read from it.
        features: Stored features, in place of images while a backbone is frozen.
    """

    index: ImageIndex
    images: KeptImages
    features: FeatureViews

    def __init__(
        self,
        options: DatasetConfig,
        transform: EvaluationTransform,
        augment: AugmentConfig | None = None,
        seed: int = 0,
        num_epochs: int = 0,
    ) -> None:
        super().__init__()
        self.options = locate(options)
        self.transform = transform.with_options(options)
        self.augment = augment or AugmentConfig()
        self.seed = seed
        start = None if self.augment.policy == "none" else self.augment.start_size
        self.sides = growing_sides(start, self.transform.crop, num_epochs) if start and num_epochs else []
        self.datasets: dict[str, ImageDataset] = {}
        self._loaders: dict[tuple[object, ...], Loader] = {}

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, by label.

        Raises:
            ThawError: `setup` has not been called.
        """
        if not self.datasets:
            raise ThawError("Nothing is known of the images yet: call setup() first.")
        return self.index.classes

    def prepare_data(self) -> None:
        """Download and unpack a named data set that is not there yet."""
        fetch(self.options.name, Path(self.options.root))

    def setup(self, stage: str | None = None) -> None:
        """Index and check the data set, and decode it where it fits into memory; at the first call only.

        At each call of a Trainer also learn its device.

        Raises:
            ThawError: The data set cannot be used as it is; the message says what to do.
        """
        if not self.datasets:
            self.load(build_index(fetch(self.options.name, Path(self.options.root)), self.options))
        if self.trainer is not None and self.images.device != self.trainer.strategy.root_device:
            self.images.device, self.images.cuts_crops = self.trainer.strategy.root_device, None

    def load(self, index: ImageIndex) -> None:
        """Check the images of an index, and decode them where they fit into memory.

        The name of a split decides: train is augmented, and kept whole for that; any other is read as centre crops.

        Raises:
            ThawError: A file cannot be read, and `dataset.on_bad` is error.
        """
        self.images = KeptImages(index, self.transform, self.options)
        self.index = drop_unreadable(index, self.images.find_unreadable(), self.options.on_bad)
        log.info(check.facts(self.index))
        for finding in check.find_problems(self.index):
            log.warning(finding.message)
        for split, samples in self.index.splits.items():
            transform = training_transform(self.augment, self.transform) if split == "train" else self.transform
            if self.images.in_memory and split != "train":
                transform = nn.Identity()  # what is kept of these splits has been through it
            self.datasets[split] = ImageDataset(samples, transform, self.seed, self.images.read)
        self.features = FeatureViews(self.datasets, self.images, self.augment)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps of the data."""
        return {"fingerprint": self.index.fingerprint, "cuts_crops": self.images.cuts_crops}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Refuse to resume with other images: those to validate on may be among those that were trained on.

        Raises:
            ThawError: An image is new, gone, of another size, class or split.
        """
        if state_dict["fingerprint"] != self.index.fingerprint:
            raise ThawError(
                f"resume: the images in {self.index.root} are no longer those that the run was trained and validated "
                "on. Begin anew, from its weights by backbone.weights=RUN head.init=weights."
            )
        self.images.cuts_crops = state_dict["cuts_crops"]

    def class_weights(self) -> Tensor | None:
        """Weights (K,) of the classes in the loss, inverse to their frequency; None if not asked for."""
        return self.inverse_frequencies() if self.options.balance == "loss" else None

    def inverse_frequencies(self) -> Tensor:
        """Weights (K,) of the classes, inverse to the number of their training images; 1 on average over the images."""
        labels = self.datasets["train"].labels
        counts = torch.bincount(labels, minlength=len(self.classes)).float()
        return len(labels) / (len(self.classes) * counts)

    # ---- loaders

    @contextmanager
    def without_growth(self) -> Iterator[None]:
        """Inside, the training crops of every epoch have the side of the first."""
        sides, loaders = self.sides, self._loaders
        if sides:
            self.sides, self._loaders = sides[:1], {}
        try:
            yield
        finally:
            self.sides, self._loaders = sides, loaders

    def train_dataloader(self) -> Loader:
        """Shuffled training images, augmented, or views of their features."""
        self.setup()
        epoch, sampler = self._epoch(), self._train_sampler(*self._rank())
        if self.features.replace_images(epoch):
            loader = self._batch_loader(self.features.training(epoch, sampler), sampler)
        else:
            loader = self._image_loader("train", sampler)
        # Lightning does so when loader processes of a resumed training have begun to draw.
        cast(EpochSampler, loader.sampler).set_epoch(epoch)
        return loader

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """The batch without images that are no part of the epoch; if it has no others, one stays, without a label."""
        *inputs, labels = batch
        num_images = int((labels != NO_LABEL).sum())  # they come last
        if num_images == len(labels):
            return batch
        if isinstance(batch, Crops):
            return batch.map(lambda values: values[: max(num_images, 1)])._replace(labels=labels[:num_images])
        return *(values[: max(num_images, 1)] for values in inputs), labels[:num_images]

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Images in place of crops to be cut, on the device that the batch is on."""
        return (self.images.cut(batch), batch.labels) if isinstance(batch, Crops) else batch

    def val_dataloader(self) -> Loader:
        """Validation images in order, or their features."""
        return self.eval_dataloader("val")

    def test_dataloader(self) -> Loader:
        """Test images in order, or their features."""
        return self.eval_dataloader("test")

    def predict_dataloader(self) -> Loader:
        """Test images if there are some, else validation images."""
        self.setup()
        return self.eval_dataloader("test" if "test" in self.datasets else "val")

    def eval_dataloader(self, split: str, all_on_each_process: bool = False) -> Loader:
        """Images of a split in order, or their features; shared among the processes, or all on each."""
        self.setup()
        dataset = self.datasets[split]
        sampler = SequentialPositions(range(len(dataset)), *((0, 1) if all_on_each_process else self._rank()))
        if self.features.replace_images(self._epoch()):
            # What is reported in the end has to be what `thaw evaluate` finds from the images, to the last digit, and
            # `limit_val_batches` means the same images in each epoch.
            limit = self.trainer.limit_val_batches if self.trainer else 1.0
            is_whole = isinstance(limit, float) and limit == 1.0
            batch_size = FEATURES_AT_ONCE if is_whole and not all_on_each_process else None
            return self._batch_loader(self.features.evaluation(split), sampler, batch_size)
        if all_on_each_process:
            return self.images.loader(dataset, sampler)
        return self._image_loader(split, sampler)

    def preview(self, most: int) -> Batch:
        """Some images (B, 3, S, S) of the first training batch, also where its epoch runs on features of them."""
        dataset = self.features.as_images() if self.features.replace_images(0) else self._training_images()
        first = list(islice(self._train_sampler(), min(most, self.options.batch_size)))
        images, labels = default_collate(self.images.take(dataset, first))
        return images, labels

    def show(self, split: str, chosen: Sequence[int]) -> list[Tensor]:
        """Some images of a split by index, uint8 (3, S, S), as they are evaluated."""
        return [image for image, _ in self.images.take(self.datasets[split], [(0, index) for index in chosen])]

    def _train_sampler(self, rank: int = 0, num_processes: int = 1) -> EpochSampler:
        """Which training images an epoch takes, and in which order; of several processes, this one's share."""
        labels, batch_size = self.datasets["train"].labels, self.options.batch_size
        weights = self.inverse_frequencies()[labels] if self.options.balance == "sampler" else None
        # An epoch of less than one batch would be no epoch at all.
        drop_last = self.options.drop_last and len(labels) >= batch_size
        num_drawn = len(labels) - (len(labels) % batch_size if drop_last else 0)
        return EpochSampler(len(labels), self.seed, rank, num_processes, weights, num_drawn)

    def _training_images(self) -> ImageDataset:
        """The training images as an epoch cuts them."""
        images = self.datasets["train"]
        return GrowingImages(images, self.augment, self.transform, self.sides) if self.sides else images

    def _image_loader(self, split: str, sampler: EpochSampler | SequentialPositions) -> Loader:
        """Images of a split, or crops that the Trainer's device cuts if it keeps them; the same loader each time."""
        key = (split, *self._rank(), self.images.device)
        if key not in self._loaders:
            dataset, augment = (
                (self._training_images(), self.augment) if split == "train" else (self.datasets[split], None)
            )
            crops = self.images.crops(split, dataset, augment)
            self._loaders[key] = self._batch_loader(crops, sampler) if crops else self.images.loader(dataset, sampler)
        return self._loaders[key]

    def _batch_loader(
        self,
        dataset: FeatureDataset | CropDataset,
        sampler: EpochSampler | SequentialPositions,
        batch_size: int | None = None,
    ) -> Loader:
        """Batches as the sampler orders them, of a data set that gives whole ones."""
        batch_size = batch_size or self.options.batch_size // sampler.num_processes
        return DataLoader(
            dataset,
            batch_size=batch_size,  # by name: Lightning replaces it to predict
            sampler=sampler,
            collate_fn=lambda batch: batch,
            pin_memory=self.images.device.type == "cuda",
        )

    def _epoch(self) -> int:
        return self.trainer.current_epoch if self.trainer else 0

    def _rank(self) -> tuple[int, int]:
        """This process's number and that of all of them, among which the samplers share the images.

        Raises:
            ThawError: Lightning would share each share once more, and most images would never be seen.
        """
        if self.trainer is None:
            return 0, 1
        if self.trainer.world_size > 1 and self.trainer._accelerator_connector.use_distributed_sampler:
            raise ThawError(
                f"On {self.trainer.world_size} devices the Trainer must have use_distributed_sampler=False: "
                "ImageDataModule shares the images among them itself."
            )
        return self.trainer.global_rank, self.trainer.world_size
