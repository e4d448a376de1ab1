"""From a data set on disk to batches: find, index, check, decode, sample, load."""

import logging
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, default_collate
from torchvision.transforms import v2

from thaw.config import AugmentConfig, DatasetConfig
from thaw.data import check
from thaw.data.device import CropDataset, Crops
from thaw.data.features import FeatureStore, FrozenBackbone, compute_features, make_key
from thaw.data.index import ImageIndex, build_index
from thaw.data.kept_images import KeptImages, Loader
from thaw.data.places import locate
from thaw.data.sampling import NO_LABEL, Batch, EpochSampler, FeatureDataset, ImageDataset, SequentialPositions
from thaw.data.sources import fetch
from thaw.data.transforms import EvaluationTransform, ImageTransform, Mirrored, training_transform
from thaw.errors import ThawError

log = logging.getLogger(__name__)

FEATURES_AT_ONCE = 4096
"""In a batch that is only evaluated: a head takes about as long for one image as for all of them."""


class ImageDataModule(LightningDataModule):
    """The loaders of a data set: batches of uint8 images (B, 3, S, S), or of features (B, F), and labels (B,).

    Attributes:
        index: Paths, labels, class names and splits; there after `setup`, as is
        images: what reads the images and loads them in batches.
        transform: The evaluation transform.
        backbone: If it is set, epochs in which it is frozen run on its stored features.
    """

    index: ImageIndex
    images: KeptImages

    def __init__(
        self,
        options: DatasetConfig,
        transform: EvaluationTransform,
        augment: AugmentConfig | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.options = locate(options)
        self.transform = transform.with_options(options)
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
        self.images = KeptImages(index, self.transform, self.options)
        self.index = check.drop_unreadable(index, self.images.find_unreadable(), self.options.on_bad)
        log.info(check.facts(self.index))
        for finding in check.find_problems(self.index):
            log.warning(finding.message)
        for split, samples in self.index.splits.items():
            transform = training_transform(self.augment, self.transform) if split == "train" else self.transform
            if self.images.in_memory and split != "train":
                transform = nn.Identity()  # what is kept of these splits has been through it
            self.datasets[split] = ImageDataset(samples, transform, self.seed, self.images.read)

    def state_dict(self) -> dict[str, str]:
        """What a checkpoint keeps of the data."""
        return {"fingerprint": self.index.fingerprint}

    def load_state_dict(self, state_dict: dict[str, str]) -> None:
        """Refuse to go on with other images: those to validate on may be among those that were trained on.

        Raises:
            ThawError: An image is new, gone, of another size, class or split.
        """
        if state_dict["fingerprint"] != self.index.fingerprint:
            raise ThawError(
                f"resume: the images in {self.index.root} are no longer those that the run was trained and validated "
                "on. Begin anew, from its weights by backbone.weights=RUN head.init=weights."
            )

    def class_weights(self) -> Tensor | None:
        """Weights (K,) of the classes in the loss, inverse to their frequency; None if not asked for."""
        return self.inverse_frequencies() if self.options.balance == "loss" else None

    def inverse_frequencies(self) -> Tensor:
        """Weights (K,) of the classes, inverse to the number of their training images; 1 on average over the images."""
        labels = self.datasets["train"].labels
        counts = torch.bincount(labels, minlength=len(self.classes)).float()
        return len(labels) / (len(self.classes) * counts)

    # ---- loaders

    def train_dataloader(self) -> Loader:
        """Shuffled training images, augmented, or views of their features."""
        dataset, epoch, sampler = self.datasets["train"], self._epoch(), self._train_sampler(*self._rank())
        if self.runs_on_features(epoch):
            sampler.set_epoch(epoch)
            return self._batch_loader(FeatureDataset(self._train_views(epoch), dataset.labels, self.seed), sampler)
        if "train" not in self._loaders:
            self._loaders["train"] = self._crop_loader("train", sampler) or self.images.loader(dataset, sampler)
        return self._loaders["train"]

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
        return self.eval_dataloader("test" if "test" in self.datasets else "val")

    def eval_dataloader(self, split: str, all_on_each_process: bool = False) -> Loader:
        """Images of a split in order, or their features; shared among the processes, or all on each."""
        dataset = self.datasets[split]
        sampler = SequentialPositions(len(dataset), *((0, 1) if all_on_each_process else self._rank()))
        if self.runs_on_features(self._epoch()):
            # What is reported in the end has to be what `thaw evaluate` finds from the images, to the last digit.
            batch_size = None if all_on_each_process else FEATURES_AT_ONCE
            features = FeatureDataset(self.eval_features(split)[0][None], dataset.labels, self.seed)
            return self._batch_loader(features, sampler, batch_size)
        if all_on_each_process:
            return self.images.loader(dataset, sampler)
        if split not in self._loaders:
            self._loaders[split] = self._crop_loader(split, sampler) or self.images.loader(dataset, sampler)
        return self._loaders[split]

    def preview(self, most: int) -> Batch:
        """Some images (B, 3, S, S) of the first training batch, also where its epoch runs on features of them."""
        dataset, sampler = self.datasets["train"], self._train_sampler()
        if self.runs_on_features(0) and self.backbone and self.backbone.views == "mirror":
            view = v2.RandomChoice(self._mirror_transforms())
            dataset = ImageDataset(dataset.samples, view, self.seed, self.images.read)
        first = list(islice(sampler, min(most, self.options.batch_size)))
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

    def _crop_loader(self, split: str, sampler: EpochSampler | SequentialPositions) -> Loader | None:
        """Crops of a split that the Trainer's device cuts; None if it does not keep the images."""
        device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
        augment = self.augment if split == "train" else None
        crops = self.images.crops(split, self.datasets[split], augment, device)
        return self._batch_loader(crops, sampler) if crops else None

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
            batch_size,
            sampler=sampler,
            collate_fn=lambda batch: batch,
            pin_memory=torch.cuda.is_available(),
        )

    # ---- features

    def runs_on_features(self, epoch: int) -> bool:
        """True if the backbone is still frozen in the epoch, so that its features take the images' place."""
        return self.backbone is not None and self.backbone.is_frozen(epoch)

    def mirror_features(self) -> Batch:
        """Features (V, N, F) of the training images' centre crops and, if allowed, their mirror images; labels (N,)."""
        dataset, transforms = self.datasets["train"], self._mirror_transforms()
        views = [(ImageDataset(dataset.samples, step, self.seed, self.images.read), 0) for step in transforms]
        upturned = [axes for axes in self.augment.mirrored_axes if -2 in axes]  # two views may be of either kind
        return self._stored(f"train {len(views)} {upturned or ''}".rstrip(), views), dataset.labels

    def eval_features(self, split: str) -> Batch:
        """Features (N, F) of a split's images, and labels (N,)."""
        dataset = self.datasets[split]
        return self._stored(f"evaluation {split}", [(dataset, 0)])[0], dataset.labels

    def _train_views(self, epoch: int) -> Tensor:
        """Features (V, N, F) of the training images' V views of this epoch."""
        assert self.backbone is not None
        dataset, views = self.datasets["train"], self.backbone.views
        if views == "fresh":
            return self._extract(dataset, epoch)[None]
        if views == "mirror":
            return self.mirror_features()[0]
        assert isinstance(views, int)
        return self._stored(f"train {views} {self.seed} {self.augment}", [(dataset, view) for view in range(views)])

    def _mirror_transforms(self) -> list[ImageTransform]:
        """One for each view of `strategy.feature_views=mirror`."""
        return [self.transform, *(Mirrored(self.transform, axes) for axes in self.augment.mirrored_axes)]

    def _stored(self, name: str, views: Sequence[tuple[ImageDataset, int]]) -> Tensor:
        """Features (V, N, F) of V views of the same images, kept in memory for the run, and on disk for the next one.

        Args:
            name: What tells these views from others of the images.
            views: The images of each after its transform, and the epoch to draw them as in.
        """
        if name not in self._views:
            assert self.backbone is not None
            paths = [sample.path for sample in views[0][0].samples]
            facts = (name, self.transform, self.options.batch_size, *self.backbone.facts)
            key = make_key(self.backbone.digest, paths, *facts, stamp=self.index.stamp)
            self._views[name] = FeatureStore().get(key, lambda: torch.stack([self._extract(*view) for view in views]))
        return self._views[name]

    def _extract(self, dataset: ImageDataset, epoch: int) -> Tensor:
        """Features (N, F) of every image as the epoch has it, in order."""
        assert self.backbone is not None
        sampler = SequentialPositions(len(dataset), epoch=epoch)
        return compute_features(self.backbone.extract, self.images.loader(dataset, sampler))

    # ---- facts

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
