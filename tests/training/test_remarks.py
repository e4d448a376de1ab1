import re
from pathlib import Path
from typing import Any

import pytest
import torch

from thaw.config import (
    AugmentConfig,
    Config,
    DatasetConfig,
    HeadConfig,
    LoggerConfig,
    OptimizerConfig,
    StrategyConfig,
    TrainerConfig,
)
from thaw.inspection.predictions import Predictions
from thaw.run import Run
from thaw.training.remarks import (
    augmentation_left_out,
    chosen_on_a_part,
    closing_lines,
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


SUMMARY = {
    "val": {"acc": 0.9, "acc_ci95": [0.8, 0.95], "n": 50, "macro_f1": 0.71}, "last": {"acc": 0.88}, "test": None,
    "probe": None, "epochs": 8, "best_epoch": 3, "epoch_chosen_on": "val", "gpu_memory_gb": None,
    "seconds": {"total": 9.0, "epoch_median": 1.0, "epoch_longest": 2.0},
}  # fmt: skip
CHOSEN = "at epoch 3 of 8, which was chosen on these images"
ACCURACY = "0.9000 (95 % interval 0.800 to 0.950, n=50), macro-F1 0.7100"


@pytest.mark.parametrize(
    ("monitor", "begin"),
    [
        ("val/acc", f"Best val accuracy {ACCURACY}, at epoch 3 of 8, which was chosen on these images"),
        ("val/loss", f"Val accuracy {ACCURACY}, at epoch 3 of 8, which was chosen on these images for its loss"),
        ("val/kappa", f"Val accuracy {ACCURACY}, at epoch 3 of 8, which was chosen on these images for its kappa"),
        (
            "val/macro_f1",
            f"Val accuracy {ACCURACY}, at epoch 3 of 8, which was chosen on these images for its macro-F1",
        ),
    ],
)
def test_an_epoch_chosen_for_another_figure_is_not_said_to_have_the_best_accuracy(monitor: str, begin: str) -> None:
    config = Config(trainer=TrainerConfig(monitor=monitor), metrics={"kappa": {"_target_": "mine.Kappa"}})
    assert closing_lines(Run("outputs/run"), config, SUMMARY).startswith(f"{begin}; last epoch 0.8800\n")


@pytest.mark.parametrize(("val", "is_chosen"), [(["", ""], False), (["", "0.9"], False), (["0.9", "0.8"], True)])
def test_an_epoch_that_alone_was_validated_is_not_said_to_be_chosen(
    val: list[str], is_chosen: bool, tmp_path: Path
) -> None:
    run = Run(tmp_path)
    run.metrics_csv.write_text("epoch,val/acc\n" + "".join(f"{n},{acc}\n" for n, acc in enumerate(val, start=1)))
    summary = SUMMARY | {"best_epoch": 2, "epochs": 2, "test": SUMMARY["val"]}
    first, second, *_ = closing_lines(run, Config(trainer=TrainerConfig(monitor="val/loss")), summary).splitlines()
    chosen = ", which was chosen on these images for its loss" if is_chosen else ""
    assert first == f"Val accuracy {ACCURACY}, at epoch 2 of 2{chosen}; last epoch 0.8800"
    assert second == f"Test accuracy {ACCURACY}, of {'the epoch chosen on val' if is_chosen else 'that epoch'}"


@pytest.mark.parametrize(("macro_f1", "is_told"), [(0.895, False), (0.889, True), (0.911, True)])
def test_macro_f1_is_told_where_accuracy_hides_it(macro_f1: float, is_told: bool) -> None:
    summary = SUMMARY | {"val": SUMMARY["val"] | {"macro_f1": macro_f1}}
    assert (f"n=50), macro-F1 {macro_f1:.4f}, at epoch 3" in closing_lines(Run("run"), Config(), summary)) == is_told


@pytest.mark.parametrize(("probe", "is_told"), [(0.89, False), (0.9, True), (0.91, True)])
def test_a_training_without_an_epoch_better_than_the_probe_is_told(probe: float, is_told: bool) -> None:
    lines = closing_lines(Run("run"), Config(), SUMMARY | {"probe": {"acc": probe, "acc_ci95": [0.8, 0.95]}})
    assert ("\nNo epoch was better than the probe alone, which strategy=probe gives" in lines) == is_told


@pytest.mark.parametrize(
    ("median", "longest", "told"), [(0.05, 0.9, "0.05 s"), (40.0, 100.0, "40.00 s"), (0.23, 99.0, "0.23 to 99.00 s")]
)
def test_epochs_of_very_different_length_are_told_by_their_range(median: float, longest: float, told: str) -> None:
    summary = SUMMARY | {"seconds": {"total": 460.5, "epoch_median": median, "epoch_longest": longest}}
    assert f"460.5 s in all, {told} an epoch" in closing_lines(Run("run"), Config(), summary)


def test_a_training_that_ends_clearly_below_the_probe_is_told() -> None:
    for low, told in ((0.881, True), (0.879, False)):
        lines = closing_lines(
            Run("outputs/run"), Config(), SUMMARY | {"probe": {"acc": 0.9, "acc_ci95": [low, 0.95], "n": 50}}
        )
        assert "; the probe alone 0.9000\n" in lines
        assert (f"\nThe last epoch is below the probe's 95 % interval, from {low:.3f}: " in lines) == told


@pytest.mark.parametrize(("num_right", "told"), [(6, True), (7, True), (8, False)])
def test_a_classifier_no_better_than_a_single_answer_is_told(num_right: int, told: bool) -> None:
    labels = torch.tensor([0] * 7 + [1] * 3)
    answers = torch.where(torch.arange(10) < num_right, labels, 1 - labels)
    judged = Predictions([""] * 10, labels, torch.eye(2)[answers], ("ants", "bees"))
    lines = closing_lines(Run("outputs/run"), Config(), SUMMARY, judged).splitlines()
    assert ("Always answering 'ants' would reach 0.7000: see macro-F1, and dataset.balance" in lines) == told


def test_tensorboard_is_pointed_to_where_the_run_lies(tmp_path: Path) -> None:
    run = Run(tmp_path / "runs" / "run")
    assert closing_lines(run, Config(), SUMMARY).endswith(f"\n      tensorboard --logdir {tmp_path / 'runs'}")
    assert "--logdir" not in closing_lines(run, Config(logger=LoggerConfig("csv")), SUMMARY)


@pytest.mark.parametrize("resume", [None, "outputs/run"])
def test_the_seconds_are_told_in_all(resume: str | None) -> None:
    config = Config(resume=resume, trainer=TrainerConfig(max_epochs=8))
    assert "\n9.0 s in all, 1.00 s an epoch; " in closing_lines(Run("outputs/run"), config, SUMMARY)


def test_it_is_told_that_a_training_ended_before_its_epochs() -> None:
    config = Config(trainer=TrainerConfig(max_epochs=500))
    assert "\n9.0 s in all, 1.00 s an epoch, 8 of 500 epochs; " in closing_lines(Run("outputs/run"), config, SUMMARY)
