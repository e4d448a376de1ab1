"""What the head learns from while the backbone is frozen: features of views of the images, in the images' place."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor, nn
from torchvision.transforms import v2

from thaw.config import AugmentConfig
from thaw.data.features import Extract, FeatureStore, compute_features, hash_tensors, make_key
from thaw.data.kept_images import KeptImages
from thaw.data.sampling import EpochSampler, FeatureDataset, ImageDataset, SequentialPositions
from thaw.data.transforms import ImageTransform, Mirrored


@dataclass(frozen=True)
class FrozenBackbone:
    """What has to be known of a backbone to run epochs on its features.

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


class FeatureViews:
    """The frozen backbone's features of a data set: several views of each training image, one of any other.

    All but fresh views are computed once: they are kept in memory for the run, and on disk for the next one, unless
    transforms of one's own have made them.

    Args:
        datasets: The images of each split.
        images: What loads them in batches.
        augment: What training images are to be seen as.

    Attributes:
        backbone: Whose features; None runs every epoch on images.
    """

    def __init__(self, datasets: Mapping[str, ImageDataset], images: KeptImages, augment: AugmentConfig) -> None:
        self.datasets = datasets
        self.images = images
        self.augment = augment
        self.backbone: FrozenBackbone | None = None
        self._in_memory: dict[str, Tensor] = {}

    def replace_images(self, epoch: int) -> bool:
        """True if the backbone is still frozen in the epoch, so that its features take the images' place."""
        return self.backbone is not None and self.backbone.is_frozen(epoch)

    def training(self, epoch: int, sampler: EpochSampler) -> FeatureDataset:
        """The training images' views in an epoch, by `strategy.feature_views`; fresh ones are of what is drawn."""
        assert self.backbone is not None
        train, number = self.datasets["train"], self.backbone.views
        if number == "mirror":
            return self.mirrored()
        if number == "fresh":
            draws = sorted(sampler.draws(epoch))
            return _as_dataset(self._extract(train, epoch, draws)[None], train, torch.tensor(draws))
        assert isinstance(number, int)
        shown = replace(self.augment, mixup=0.0, cutmix=0.0, label_smoothing=0.0)  # those come after the features
        name, drawn = f"train {number} {train.seed} {shown}", [(train, view) for view in range(number)]
        views = self._stored(name, drawn, on_disk=not shown.transforms)  # the code of one's own may have changed
        return _as_dataset(views, train)

    def mirrored(self) -> FeatureDataset:
        """The training images' centre crops and, where the augmentation mirrors, their mirror images."""
        train, transforms = self.datasets["train"], self._mirror_transforms()
        upturned = [axes for axes in self.augment.mirrored_axes if -2 in axes]  # two views may be of either kind
        name = f"train {len(transforms)} {upturned or ''}".rstrip()
        return _as_dataset(self._stored(name, [(train.through(step), 0) for step in transforms]), train)

    def evaluation(self, split: str) -> FeatureDataset:
        """The images of a split, each in the one view that is evaluated."""
        dataset = self.datasets[split]
        return _as_dataset(self._stored(f"evaluation {split}", [(dataset, 0)]), dataset)

    def as_images(self) -> ImageDataset:
        """The training images, each in a view that its features may be of."""
        train = self.datasets["train"]
        if self.backbone and self.backbone.views == "mirror":
            return train.through(v2.RandomChoice(self._mirror_transforms()))
        return train

    def _mirror_transforms(self) -> list[ImageTransform]:
        """One for each view of `strategy.feature_views=mirror`."""
        plain = self.images.transform
        return [plain, *(Mirrored(plain, axes) for axes in self.augment.mirrored_axes)]

    def _stored(self, name: str, views: Sequence[tuple[ImageDataset, int]], on_disk: bool = True) -> Tensor:
        """Features (V, N, F) of V views of the same images, from memory, from disk or computed.

        Args:
            name: What tells these views from others of the images.
            views: For each, the images behind its transform, and the epoch to draw them as in.
            on_disk: Whether the next run may have them too.
        """

        def compute() -> Tensor:
            return torch.stack([self._extract(*view) for view in views])

        if name not in self._in_memory:
            assert self.backbone is not None
            paths = [sample.path for sample in views[0][0].samples]
            facts = (name, self.images.transform, self.images.options.batch_size, *self.backbone.facts)
            key = make_key(self.backbone.digest, paths, *facts, stamp=self.images.index.stamp)
            self._in_memory[name] = FeatureStore().get(key, compute) if on_disk else compute()
        return self._in_memory[name]

    def _extract(self, dataset: ImageDataset, epoch: int, draws: Sequence[int] | None = None) -> Tensor:
        """Features (N, F) of draws of an epoch, in order; by default of every image's first."""
        assert self.backbone is not None
        sampler = SequentialPositions(draws or range(len(dataset)), epoch=epoch)
        return compute_features(self.backbone.extract, self.images.loader(dataset, sampler))


def _as_dataset(views: Tensor, images: ImageDataset, draws: Tensor | None = None) -> FeatureDataset:
    return FeatureDataset(views, images.labels, images.seed, draws)
