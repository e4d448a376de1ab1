import re
from dataclasses import replace
from typing import Any

import pytest

from thaw.config import (
    AugmentConfig,
    Config,
    DatasetConfig,
    HeadConfig,
    OptimizerConfig,
    StrategyConfig,
    TrainerConfig,
)
from thaw.training.remarks import (
    augmentation_left_out,
    chosen_on_a_part,
    features_left_out,
    frozen_epochs,
    growing_crops,
    growth_left_out,
    policy_left_out,
    stages_left_frozen,
    warnings_before,
)


@pytest.mark.parametrize(
    ("max_epochs", "options", "line"),
    [
        (5, {}, None),
        (4, {}, "3 of 9 stages never thaw: that takes 5 epochs (strategy.head_epochs=2, strategy.unfreeze_epochs=3), "
        "and trainer.max_epochs=4."),
        (4, {"trainable_stages": 1}, None),
        (0, {}, None),
        (4, {"backbone_factor": 0}, None),
        (1, {"unfreeze_epochs": 0, "head_epochs": 0}, None),
    ],
)  # fmt: skip
def test_stages_that_would_thaw_after_the_last_epoch_are_told(
    max_epochs: int, options: dict[str, Any], line: str | None
) -> None:
    strategy = {"backbone_factor": 1, "head_epochs": 2, "unfreeze_epochs": 3} | options
    assert stages_left_frozen(StrategyConfig(**strategy), max_epochs, 9) == line


@pytest.mark.parametrize(
    ("augment", "views", "named"),
    [
        ({}, "mirror", None),
        ({"policy": "trivial"}, "mirror", "augment.policy=trivial"),
        ({"policy": "trivial"}, "fresh", None),
        ({"policy": "trivial"}, 4, None),
        ({"policy": "none"}, "mirror", None),
        ({"flip": 0.0, "vertical_flip": 0.5, "label_smoothing": 0.1}, "mirror", None),
        (
            {"crop_scale": [0.5, 1.0], "crop_ratio": [1.0, 1.0], "flip": 0.0, "degrees": 10.0, "erasing": 0.5},
            "mirror",
            "augment.crop_scale=[0.5, 1.0], augment.crop_ratio=[1.0, 1.0], augment.degrees=10.0, augment.erasing=0.5",
        ),
        (
            {"transforms": {"blur": {"_target_": "m.Blur", "size": 3}}},
            "mirror",
            "augment.transforms.blur._target_=m.Blur",
        ),
        ({"transforms": {"blur": {"_target_": "m.Blur"}}}, "fresh", None),
        ({"start_size": 160}, "mirror", None),
        ({"flip": 0.1}, "mirror", "augment.flip=0.1"),
        ({"flip": 0.1}, "fresh", None),
        ({"flip": 0.0, "vertical_flip": 0.5}, "mirror", None),
    ],
)
def test_augmentation_that_stored_features_leave_out_is_told(
    augment: dict[str, Any], views: int | str, named: str | None
) -> None:
    config = Config(augment=AugmentConfig(**augment), strategy=StrategyConfig(feature_views=views))
    line = None
    if named:
        line = (
            "Without effect in epochs 1 to 5, which see centre crops and their mirror images equally often: "
            f"{named} (set strategy.feature_views=fresh to train on augmented images)."
        )
    assert augmentation_left_out(config, 5) == line


def test_one_epoch_and_one_option_are_spoken_of_as_one() -> None:
    line = augmentation_left_out(Config(augment=AugmentConfig(degrees=9)), 1)
    assert line is not None
    assert line.startswith("Without effect in epoch 1, which sees centre crops")
    assert frozen_epochs(1, "mirror") == "Epoch 1 runs on stored features (strategy.feature_views=mirror)"
    assert frozen_epochs(5, 3) == "Epochs 1 to 5 run on stored features (strategy.feature_views=3)"
    both = features_left_out(Config(augment=AugmentConfig(mixup=0.2, cutmix=1)), 0)
    assert both is not None
    assert "augment.mixup=0.2 and augment.cutmix=1 mix images" in both


def test_crops_that_grow_are_told_where_they_do_and_where_they_cannot() -> None:
    sides = [128, 128, 160, 224, 224]
    assert (
        growing_crops(sides, 0) == "Crops of 128 pixels until epoch 2, and of 224 from epoch 4 on (augment.start_size)"
    )
    assert growing_crops(sides, 2).startswith("Crops of 160 pixels until epoch 3, and of 224 from epoch 4 on")
    config = Config(augment=AugmentConfig(start_size=128))
    assert [growth_left_out(config, *each) for each in ((sides, 0), (sides, 2), ([], 0))] == [None, None, None]
    begin = "Without effect: augment.start_size=128, as"
    assert growth_left_out(config, sides, 5) == f"{begin} all epochs run on features of images of the full size."
    for each, number in ((sides, 4), (sides, 5), ([224], 1)):
        line = f"{begin} epoch {number}, the first that runs on images, has crops of the full size already."
        assert growth_left_out(config, each, number - 1) == line
        assert line in warnings_before(config, 9, number - 1, each)


def test_augmentation_that_the_policy_leaves_out_is_told() -> None:
    augment = AugmentConfig(policy="none", vertical_flip=0.5, erasing=0.2, mixup=0.2)
    assert policy_left_out(Config(augment=augment)) == (
        "Without effect where augment.policy=none shows images as they are evaluated: augment.vertical_flip=0.5, "
        "augment.erasing=0.2 (set augment=default to train on augmented images)."
    )


@pytest.mark.parametrize(("views", "num_frozen", "is_told"), [("mirror", 1, True), ("mirror", 0, False), (2, 1, False)])
def test_transforms_of_images_as_they_are_evaluated_have_no_effect_on_stored_features_of_them(
    views: int | str, num_frozen: int, is_told: bool
) -> None:
    augment = AugmentConfig(policy="none", erasing=0.2, transforms={"blur": {"_target_": "m.Blur", "size": 3}})
    config = Config(augment=augment, strategy=StrategyConfig(feature_views=views))
    lines = [line for line in warnings_before(config, 9, num_frozen) if "blur" in line]
    told = (
        "Without effect in epoch 1, which sees centre crops: augment.transforms.blur._target_=m.Blur (set "
        "strategy.feature_views=fresh to train on augmented images)."
    )
    assert lines == [told] * is_told


@pytest.mark.parametrize(
    ("strategy", "num_frozen", "is_told"),
    [
        ({}, 0, True),
        ({}, 25, False),
        ({"backbone_factor": 1}, 0, False),
        ({"backbone_factor": 1, "head_epochs": 2}, 0, True),
    ],
)
def test_features_that_mixing_leaves_out_are_told(strategy: dict[str, Any], num_frozen: int, is_told: bool) -> None:
    config = Config(augment=AugmentConfig(mixup=0.2), strategy=StrategyConfig(**strategy))
    lines = [line for line in warnings_before(config, 9, num_frozen) if "augment.mixup=0.2 mixes images" in line]
    assert len(lines) == is_told


@pytest.mark.parametrize(
    ("options", "own", "named"),
    [
        ({}, ("train", "val"), None),
        ({"val_fraction": 0.3, "test_fraction": 0.25}, (), None),
        ({"val_fraction": 0.3}, ("train", "test"), None),
        ({"val_fraction": 0.0}, ("train", "val"), "dataset.val_fraction=0.0"),
        ({"test_fraction": 0.3}, ("train",), "dataset.test_fraction=0.3"),
        (
            {"val_fraction": 0.3, "test_fraction": 0.25},
            ("train", "val", "test"),
            "dataset.val_fraction=0.3, dataset.test_fraction=0.25",
        ),
    ],
)
def test_fractions_of_data_that_is_split_already_are_told(
    options: dict[str, float], own: tuple[str, ...], named: str | None
) -> None:
    told = warnings_before(Config(DatasetConfig(**options)), num_stages=9, num_frozen=0, own_splits=own)
    line = f"Without effect: {named}, as the data has its own splits: {', '.join(own)}."
    assert told == [line] * (named is not None)


def test_a_val_fraction_beside_folds_is_told() -> None:
    options = DatasetConfig(num_folds=5, fold=0, val_fraction=0.1, test_fraction=0.1)
    told = warnings_before(Config(options), num_stages=9, num_frozen=0)
    assert told == ["Without effect: dataset.val_fraction=0.1, as val is fold 0 of 5."]
    assert not warnings_before(Config(replace(options, val_fraction=0.2)), num_stages=9, num_frozen=0)


@pytest.mark.parametrize(
    ("optimizer", "strategy", "line"),
    [
        ({"name": "adamw", "lr": 1e-3}, {"backbone_factor": 1.0}, "AdamW at 0.001 .* try optimizer.lr=0.0001, or "),
        ({"name": "adamw", "lr": 1e-3}, {"backbone_factor": 1.0, "head_epochs": 2, "joint_factor": 0.1}, None),
        ({"name": "adamw", "lr": 1e-3}, {"backbone_factor": 1.0, "joint_factor": 0.1}, "AdamW at 0.001 "),
        ({"name": "adamw", "lr": 1e-3}, {"backbone_factor": 0.3}, None),
        ({"name": "adamw", "lr": 1e-4}, {"backbone_factor": 1.0}, None),
        ({"name": "adamw", "lr": 1e-2}, {"backbone_factor": 0.0}, None),
        ({"name": "adamw", "lr": 1e-2}, {"backbone_factor": 1.0, "from_scratch": True}, None),
        ({"name": "sgd", "lr": 1e-2}, {"backbone_factor": 1.0}, None),
    ],
)
def test_adamw_at_a_rate_for_sgd_is_told(optimizer: dict[str, Any], strategy: dict[str, Any], line: str | None) -> None:
    config = Config(optimizer=OptimizerConfig(**optimizer), strategy=StrategyConfig(**strategy))
    told = warnings_before(config, num_stages=9, num_frozen=0)
    assert len(told) == (line is not None)
    assert re.match(line or "", "".join(told))


@pytest.mark.parametrize(("limit", "is_told"), [(2, True), (1, True), (0.5, True), (1.0, False), (None, False)])
def test_an_epoch_that_is_chosen_on_a_part_of_the_images_is_told(limit: float | None, is_told: bool) -> None:
    line = chosen_on_a_part(Config(trainer=TrainerConfig(extra={"limit_val_batches": limit})))
    assert (line is not None and f"limit_val_batches={limit}: each epoch's val figures" in line) == is_told


def test_nothing_is_told_of_a_training_as_it_is_meant_to_be() -> None:
    assert warnings_before(Config(), num_stages=9, num_frozen=25) == []
    nothing = Config(head=HeadConfig(init="probe"), trainer=TrainerConfig(max_epochs=0))
    assert warnings_before(nothing, num_stages=9, num_frozen=0) == []
