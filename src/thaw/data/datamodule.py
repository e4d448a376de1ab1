"""From a data set on disk to batches: find, index, check, decode, sample, load."""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, cast

import torch
from lightning.fabric.utilities import suggested_max_num_workers
from lightning.pytorch import LightningDataModule
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, Sampler, default_collate
from torchvision.transforms import v2

from thaw.config import AugmentConfig, DatasetConfig
from thaw.data import check
from thaw.data.device import CropDataset, Crops, DeviceImages, can_cut, fits_on_device
from thaw.data.features import Extract, FeatureStore, compute_features, hash_tensors, make_key
from thaw.data.index import ImageIndex, build_index
from thaw.data.memory import ImageMemory, fits_in_memory
from thaw.data.readable import find_bad_once
from thaw.data.sampling import (
    NO_LABEL,
    EpochSampler,
    FeatureDataset,
    ImageDataset,
    SequentialPositions,
    sample_seconds,
)
from thaw.data.sources import fetch
from thaw.data.transforms import EvaluationTransform, ImageTransform, Mirrored, training_transform
from thaw.processes import find_place

log = logging.getLogger(__name__)

WORKER_SECONDS = 1.0
"""An epoch of less loading needs no loader processes: they take about as long to start."""
MOST_WORKERS = 8
FEATURES_AT_ONCE = 4096
"""In a batch that is only evaluated: a head takes about as long for one image as for all of them."""

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

    @cached_property
    def digest(self) -> str:
        """A hash of the tensors, which stay as they are as long as features stand for images."""
        return hash_tensors(self.module.state_dict())


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
        self._memory: ImageMemory | None = None
        self._device_images: DeviceImages | None = None
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
        paths = [sample.path for samples in index.splits.values() for sample in samples]
        in_memory = self.options.cache in ("ram", "device")
        if self.options.cache == "auto":
            in_memory = fits_in_memory(index, self.transform)
        if in_memory:
            self._memory = memory = ImageMemory(index, self.transform)
            bad = find_bad_once(paths, lambda: memory.load(paths))
        else:
            bad = find_bad_once(paths, lambda: check.find_unreadable(index))
        self.index = check.drop_unreadable(index, bad, self.options.on_bad)
        log.info(check.facts(self.index))
        for finding in check.find_problems(self.index):
            log.warning(finding.message)
        for split, samples in self.index.splits.items():
            transform = training_transform(self.augment, self.transform) if split == "train" else self.transform
            if in_memory and split != "train":
                transform = nn.Identity()  # what is kept of these splits has been through it
            self.datasets[split] = ImageDataset(samples, transform, self.seed, self._read)

    def _read(self, path: Path) -> Tensor:
        """One image, uint8 (3, H, W), from memory if it is kept there."""
        return self.index.read(path, self.transform.decoded_side) if self._memory is None else self._memory(path)

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
        dataset, epoch = self.datasets["train"], self._epoch()
        weights = None
        if self.options.balance == "sampler":
            weights = self.inverse_frequencies()[dataset.labels]
        # An epoch of less than one batch would be no epoch at all.
        drop_last = self.options.drop_last and len(dataset) >= self.options.batch_size
        num_drawn = len(dataset) - (len(dataset) % self.options.batch_size if drop_last else 0)
        sampler = EpochSampler(len(dataset), self.seed, *self._rank(), weights, num_drawn)
        if self.runs_on_features(epoch):
            sampler.set_epoch(epoch)
            return self._feature_loader(self._train_views(epoch), dataset, sampler)
        if "train" not in self._loaders:
            self._loaders["train"] = self.image_loader(self._crops() or dataset, sampler)
        return self._loaders["train"]

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """The batch without images that are no part of the epoch; if it has no others, one stays, without a label."""
        *inputs, labels = batch
        num_images = int((labels != NO_LABEL).sum())  # they come last
        if num_images == len(labels):
            return batch
        parts = [*(values[: max(num_images, 1)] for values in inputs), labels[:num_images]]
        return Crops._make(parts) if isinstance(batch, Crops) else tuple(parts)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Images in place of crops to be cut, on the device that the batch is on."""
        if self._device_images is None or not isinstance(batch, Crops):
            return batch
        return self._device_images.cut(batch, self.transform.crop), batch.labels

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
            # What is reported in the end has to be what `thaw evaluate` finds from the images, to the last digit.
            batch_size = None if all_on_each_process else FEATURES_AT_ONCE
            return self._feature_loader(self.eval_features(split)[0][None], dataset, sampler, batch_size)
        if split not in self._loaders or all_on_each_process:
            self._loaders[split] = self.image_loader(dataset, sampler)
        return self._loaders[split]

    def preview(self) -> Batch:
        """The first training batch as images (B, 3, S, S), also where its epoch runs on features of them."""
        dataset, sampler = self.datasets["train"], EpochSampler(len(self.datasets["train"]), self.seed)
        if self.runs_on_features(0) and self.backbone and self.backbone.views == "mirror":
            transform = v2.Compose([self.transform, v2.RandomHorizontalFlip(0.5 if self._may_mirror() else 0)])
            dataset = ImageDataset(dataset.samples, transform, self.seed, self._read)
        chosen = list(islice(sampler, self.options.batch_size))
        self._decode(dataset, [index for _, index in chosen])
        images, labels = default_collate([dataset[position] for position in chosen])
        return images, labels

    def show(self, split: str, chosen: Sequence[int]) -> list[Tensor]:
        """Some images of a split by index, uint8 (3, S, S), as they are evaluated."""
        dataset = self.datasets[split]
        self._decode(dataset, chosen)
        return [dataset[0, index][0] for index in chosen]

    def _decode(self, dataset: ImageDataset, chosen: Iterable[int]) -> None:
        """Decode some images on all cores, if images are kept in memory."""
        if self._memory is not None:
            self._memory.load(dataset.samples[index].path for index in chosen)

    def _crops(self) -> CropDataset | None:
        """The training images as crops that the device cuts itself; None if they are to be cut on the CPU."""
        device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
        wanted = self.options.cache == "device" or (self.options.cache == "auto" and device.type == "cuda")
        if not wanted or self._memory is None or not can_cut(self.augment, self.transform):
            return None
        dataset = self.datasets["train"]
        images = self._memory.load_all(sample.path for sample in dataset.samples)
        sizes = [(image.shape[1], image.shape[2]) for image in images]
        if not fits_on_device(sizes, device):
            return None
        self._device_images = DeviceImages(images, device)
        log.info(f"Training images: kept on {device}, cut there ({self._device_images.places.nbytes / 1e9:.2f} GB)")
        return CropDataset(sizes, dataset.labels, self.augment, self.seed)

    def image_loader(self, dataset: ImageDataset | CropDataset, sampler: EpochSampler | SequentialPositions) -> Loader:
        """Batches of images (B, 3, S, S), or of crops to be cut, and labels (B,), as the sampler orders them."""
        if isinstance(dataset, ImageDataset):
            self._decode(dataset, range(len(dataset)))
        num_workers = self._num_workers(dataset)
        return DataLoader(
            dataset,
            self.options.batch_size // sampler.num_processes,
            sampler=sampler,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )

    def _feature_loader(
        self,
        views: Tensor,
        dataset: ImageDataset,
        sampler: EpochSampler | SequentialPositions,
        batch_size: int | None = None,
    ) -> Loader:
        batch_size = batch_size or self.options.batch_size // sampler.num_processes
        batches = BatchSampler(cast(Sampler[int], sampler), batch_size, drop_last=False)
        return DataLoader(FeatureDataset(views, dataset.labels, self.seed), batch_size=None, sampler=batches)

    # ---- features

    def runs_on_features(self, epoch: int) -> bool:
        """True if the backbone is still frozen in the epoch, so that its features take the images' place."""
        return self.backbone is not None and self.backbone.is_frozen(epoch)

    def mirror_features(self) -> Batch:
        """Features (V, N, F) of the training images' centre crops and, if they may be mirrored, of their mirror images.

        And labels (N,).
        """
        dataset = self.datasets["train"]
        transforms: list[ImageTransform] = [self.transform]
        if self._may_mirror():
            transforms.append(Mirrored(self.transform))
        plain = [ImageDataset(dataset.samples, step, self.seed, self._read) for step in transforms]
        name = f"train {len(plain)}"
        return self._stored(name, dataset, lambda: torch.stack([self._extract(x, 0) for x in plain])), dataset.labels

    def eval_features(self, split: str) -> Batch:
        """Features (N, F) of a split's images, and labels (N,)."""
        dataset = self.datasets[split]
        features = self._stored(f"evaluation {split}", dataset, lambda: self._extract(dataset, 0)[None])
        return features[0], dataset.labels

    def _train_views(self, epoch: int) -> Tensor:
        """Features (V, N, F) of the training images' V views of this epoch."""
        assert self.backbone is not None
        dataset, views = self.datasets["train"], self.backbone.views
        if views == "fresh":
            return self._extract(dataset, epoch)[None]
        if views == "mirror":
            return self.mirror_features()[0]
        assert isinstance(views, int)
        name = f"train {views} {self.seed} {self.augment}"
        return self._stored(name, dataset, lambda: torch.stack([self._extract(dataset, view) for view in range(views)]))

    def _may_mirror(self) -> bool:
        return self.augment.policy != "none" and self.augment.flip > 0

    def _stored(self, name: str, dataset: ImageDataset, compute: Callable[[], Tensor]) -> Tensor:
        """Features kept in memory for the run, and on disk for the next one."""
        if name not in self._views:
            assert self.backbone is not None
            paths = [sample.path for sample in dataset.samples]
            facts = (name, self.transform, self.options.batch_size, *self.backbone.facts)
            key = make_key(self.backbone.digest, paths, *facts, stamp=self.index.stamp)
            self._views[name] = FeatureStore().get(key, compute)
        return self._views[name]

    def _extract(self, dataset: ImageDataset, epoch: int) -> Tensor:
        """Features (N, F) of every image as the epoch has it, in order."""
        assert self.backbone is not None
        sampler = SequentialPositions(len(dataset), epoch=epoch)
        return compute_features(self.backbone.extract, self.image_loader(dataset, sampler))

    # ---- facts

    def _epoch(self) -> int:
        return self.trainer.current_epoch if self.trainer else 0

    def _rank(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _num_workers(self, dataset: ImageDataset | CropDataset) -> int:
        """Loader processes, by the cost of a few samples."""
        if isinstance(self.options.num_workers, int):
            return self.options.num_workers
        if self._memory is not None and not torch.cuda.is_available() and isinstance(dataset, ImageDataset):
            return 0  # cutting a crop takes little, and the network wants all cores
        if sample_seconds(dataset) * len(dataset) < WORKER_SECONDS:
            return 0
        return min(MOST_WORKERS, suggested_max_num_workers(find_place().num_local))
