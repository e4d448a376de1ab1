from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from test_datamodule import NUM_TRAIN, NUM_VAL, TRANSFORM, LeftAndRight, left_and_right, make_data
from torch import Tensor, nn

from thaw.config import AugmentConfig
from thaw.data.datamodule import ImageDataModule
from thaw.data.feature_views import FrozenBackbone
from thaw.data.images import read_image


def features_of(data: ImageDataModule) -> tuple[dict[int, Tensor], int]:
    """Features by the index of the training image in the first epoch, and how many images were extracted for it."""
    assert data.features.backbone is not None
    assert isinstance(data.features.backbone.module, LeftAndRight)
    before = data.features.backbone.module.seen
    loader: Any = data.train_dataloader()
    indices = [index for _, index in loader.sampler]
    features = torch.cat([inputs for inputs, _ in loader])
    return dict(zip(indices, features, strict=True)), data.features.backbone.module.seen - before


def of_images(data: ImageDataModule, epoch: int) -> Tensor:
    """Features (N, F) of the augmented training images of an epoch."""
    dataset = data.datasets["train"]
    return LeftAndRight()(torch.stack([dataset[epoch, index][0] for index in range(len(dataset))]))


def is_one_of(row: Tensor, candidates: Tensor) -> bool:
    return any(torch.allclose(row, candidate) for candidate in candidates)


@pytest.mark.parametrize("fold", [None, 0, 1])
def test_validation_features_are_those_of_the_validation_images(image_folder: Path, fold: int | None) -> None:
    for split in (fold, None if fold is None else 1 - fold):  # the other fold's must not be taken for this one's
        data = make_data(image_folder, fold=split, num_folds=None if split is None else 2)
        images = torch.cat([images for images, _ in data.val_dataloader()])
        data.features.backbone = left_and_right()
        features = torch.cat([features for features, _ in data.val_dataloader()])
        assert torch.allclose(features, LeftAndRight()(images))


def test_mirror_views_are_the_centre_crop_and_its_mirror_image(image_folder: Path) -> None:
    data = make_data(image_folder)
    data.features.backbone = left_and_right("mirror")
    features, num_extracted = features_of(data)
    crops = torch.stack([TRANSFORM(read_image(sample.path)) for sample in data.index.splits["train"]])
    plain, mirrored = LeftAndRight()(crops), LeftAndRight()(crops.flip(3))
    chosen = [torch.allclose(features[index], plain[index]) for index in range(NUM_TRAIN)]
    assert 0 < sum(chosen) < NUM_TRAIN
    assert all(is_one_of(features[index], torch.stack([plain[index], mirrored[index]])) for index in range(NUM_TRAIN))
    assert num_extracted == 2 * NUM_TRAIN


@pytest.mark.parametrize(
    ("options", "axes"),
    [
        ({}, [(2,)]),
        ({"flip": 0}, []),
        ({"flip": 0, "vertical_flip": 0.1}, [(1,)]),
        ({"vertical_flip": 1}, [(2,), (1,), (1, 2)]),
        ({"vertical_flip": 1, "policy": "none"}, []),
    ],
)
def test_mirror_views_are_all_that_the_options_allow_and_no_others_that_are_stored(
    image_folder: Path, options: dict[str, Any], axes: list[tuple[int, ...]]
) -> None:
    module = nn.Linear(1, 1)
    backbone = FrozenBackbone(module, lambda images: images.flatten(1), lambda epoch: True, "mirror", ())
    for augment in (AugmentConfig(), AugmentConfig(vertical_flip=1), AugmentConfig(**options)):
        data = make_data(image_folder, augment=augment)
        data.features.backbone = backbone
        views = data.features.mirrored().views
    crops = [TRANSFORM(read_image(sample.path)) for sample in data.index.splits["train"]]
    expected = [torch.stack([crop.flip(each).flatten() for crop in crops]) for each in [(), *axes]]
    assert torch.equal(views, torch.stack(expected))


def test_random_views_are_drawn_once_from_the_augmentation(image_folder: Path) -> None:
    data = make_data(image_folder)
    data.features.backbone = left_and_right(3)
    features, num_extracted = features_of(data)
    views = torch.stack([of_images(data, epoch) for epoch in range(3)], dim=1)
    assert all(is_one_of(features[index], views[index]) for index in range(NUM_TRAIN))
    assert num_extracted == 3 * NUM_TRAIN
    assert features_of(data)[1] == 0


def test_fresh_views_are_those_of_the_epochs_own_images(image_folder: Path, cache: Path) -> None:
    data = make_data(image_folder)
    data.features.backbone = left_and_right("fresh")
    features, num_extracted = features_of(data)
    assert torch.allclose(torch.stack([features[index] for index in range(NUM_TRAIN)]), of_images(data, 0))
    assert num_extracted == NUM_TRAIN
    assert not cache.exists()


@pytest.mark.parametrize(
    ("views", "changes", "recomputed"),
    [
        ("mirror", {}, False),
        ("mirror", {"seed": 1}, False),
        ("mirror", {"augment": AugmentConfig(policy="color")}, False),
        ("mirror", {"train_per_class": 3}, True),
        (2, {}, False),
        (2, {"seed": 1}, True),
        (2, {"augment": AugmentConfig(policy="color")}, True),
        (2, {"augment": AugmentConfig(label_smoothing=0.1)}, False),
        (3, {}, True),
    ],
)
def test_the_next_run_computes_only_what_differs(
    image_folder: Path, views: int | str, changes: dict[str, Any], recomputed: bool
) -> None:
    first, second = make_data(image_folder), make_data(image_folder, **changes)
    first.features.backbone = left_and_right("mirror" if views == "mirror" else 2)
    second.features.backbone = left_and_right(views)
    features_of(first)
    assert (features_of(second)[1] > 0) == recomputed


def test_views_by_transforms_of_ones_own_are_not_kept_for_the_next_run(image_folder: Path, cache: Path) -> None:
    data = make_data(image_folder, augment=AugmentConfig(transforms={"mine": {"_target_": "torch.nn.Identity"}}))
    data.features.backbone = left_and_right(2)
    assert features_of(data)[1] == 2 * NUM_TRAIN
    assert features_of(data)[1] == 0
    assert not cache.exists()


@pytest.mark.parametrize(("limit", "size"), [(1.0, NUM_VAL), (0.5, 2), (1, 2)])
def test_a_limit_of_validation_batches_means_the_same_images_as_without_features(
    image_folder: Path, limit: float, size: int
) -> None:
    data = make_data(image_folder, batch_size=2)
    data.features.backbone = left_and_right("mirror")
    data.trainer = pl.Trainer(
        accelerator="cpu",
        limit_val_batches=limit,
        use_distributed_sampler=False,
        enable_checkpointing=False,
        logger=False,
    )
    assert len(next(iter(data.val_dataloader()))[1]) == size
