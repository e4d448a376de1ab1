from pathlib import Path

import pytest
import sklearn.model_selection  # noqa: F401  (slow: here, it counts for no test)
from test_index import error_of, index_of, names, plant, sizes


def test_val_without_train(tmp_path: Path) -> None:
    plant(tmp_path, {"val/ants": 3, "val/bees": 3})
    assert error_of(tmp_path).startswith("train has no images. ")


def test_val_is_taken_from_train(tmp_path: Path) -> None:
    plant(tmp_path, {"train/ants": 20, "train/bees": 40, "test/ants": 7, "test/bees": 7})
    index = index_of(tmp_path, val_fraction=0.25, test_fraction=0.5)
    assert sizes(index) == {
        "train": {"ants": 15, "bees": 30},
        "val": {"ants": 5, "bees": 10},
        "test": {"ants": 7, "bees": 7},
    }


def test_val_is_test_without_val_fraction(tmp_path: Path) -> None:
    plant(tmp_path, {"train/ants": 20, "train/bees": 20, "test/ants": 7, "test/bees": 8})
    index = index_of(tmp_path, val_fraction=0)
    assert sizes(index) == {"train": {"ants": 20, "bees": 20}, "val": {"ants": 7, "bees": 8}}
    assert index.epoch_chosen_on == "test"


def test_nothing_to_validate_on(tmp_path: Path) -> None:
    plant(tmp_path, {"train/ants": 20, "train/bees": 20})
    assert error_of(tmp_path, val_fraction=0) == (
        "dataset.val_fraction=0 validates on the test split, and there is none. Use 0.2, for example."
    )


def test_fraction_is_of_all_images(tmp_path: Path) -> None:
    plant(tmp_path, {f"breed{i:02}": 20 for i in range(36)} | {"breed36": 19})  # a tenth of pets: 7390 = 5912 + 1478
    index = index_of(tmp_path, val_fraction=0.2)
    assert {split: len(samples) for split, samples in index.splits.items()} == {"train": 591, "val": 148}


def test_split_depends_on_split_seed_and_nothing_else(tmp_path: Path) -> None:
    for place in ("here", "over/there"):
        plant(tmp_path / place, {"ants": 20, "bees": 20})
    here = index_of(tmp_path / "here")
    assert names(index_of(tmp_path / "over/there"), "val") == names(here, "val")
    assert index_of(tmp_path / "here", batch_size=4) == here
    assert names(index_of(tmp_path / "here", split_seed=1), "val") != names(here, "val")


def test_rare_classes_stay_in_train(tmp_path: Path) -> None:
    plant(tmp_path, {"ants": 20, "bees": 20, "moths": 2, "wasps": 1})
    index = index_of(tmp_path, val_fraction=0.2, test_fraction=0.2)
    assert sizes(index)["train"]["wasps"] == 1
    assert sizes(index)["train"]["moths"] >= 1
    assert len(index.splits["val"]) + len(index.splits["test"]) == 16


@pytest.mark.parametrize("fraction", [0.3, 0.5, 0.6, 0.75])
def test_every_class_of_a_lopsided_tree_is_in_train(tmp_path: Path, fraction: float) -> None:
    plant(tmp_path, {f"class{i:02}": i for i in range(1, 25)})
    index = index_of(tmp_path, val_fraction=fraction)
    assert len(index.classes) == 24
    assert abs(len(index.splits["val"]) - fraction * 300) < 10


@pytest.mark.parametrize(
    ("folders", "fraction", "message"),
    [
        ({"ants": 1, "bees": 1}, 0.2, "it gives 0 of 2 images in 2 classes, of which 'ants' has 1. "),
        ({"ants": 4, "bees": 5}, 0.1, "it gives 1 of 9 images in 2 classes, of which 'ants' has 4. "),
        ({"ants": 4, "bees": 4}, 0.9, "it gives 0 of 8 images in 2 classes, of which 'ants' has 4. "),
    ],
)
def test_too_few_images_to_split(tmp_path: Path, folders: dict[str, int], fraction: float, message: str) -> None:
    plant(tmp_path, folders)
    assert error_of(tmp_path, val_fraction=fraction) == (
        "dataset.val_fraction must give val an image of each class: "
        + message
        + "Change dataset.val_fraction, add images, or leave small classes out with dataset.classes."
    )


def test_folds_cover_all_images_outside_test_once(tmp_path: Path) -> None:
    plant(tmp_path, {"train/ants": 12, "train/bees": 10, "val/ants": 3, "val/bees": 5, "test/ants": 4})
    folds = [index_of(tmp_path, num_folds=5, fold=fold) for fold in range(5)]
    for index in folds:
        assert sizes(index)["val"] == {"ants": 3, "bees": 3}
        assert len(index.splits["test"]) == 4
        assert not set(index.splits["train"]) & set(index.splits["val"])
        assert len(index.splits["train"]) + len(index.splits["val"]) == 30
    assert len({sample for index in folds for sample in index.splits["val"]}) == 30


def test_folds_of_one_tree_leave_test_out(tmp_path: Path) -> None:
    plant(tmp_path, {"ants": 10, "bees": 10})
    folds = [index_of(tmp_path, num_folds=2, fold=fold, test_fraction=0.2) for fold in range(2)]
    assert sizes(folds[0]) == {split: {"ants": n, "bees": n} for split, n in (("train", 4), ("val", 4), ("test", 2))}
    assert folds[0].splits["test"] == folds[1].splits["test"]
    assert folds[0].splits["train"] == folds[1].splits["val"]


def test_class_with_fewer_images_than_folds(tmp_path: Path) -> None:
    plant(tmp_path, {"ants": 10, "bees": 4})
    assert error_of(tmp_path, num_folds=5, fold=0) == (
        "dataset.num_folds=5 needs as many images of each class, and 'bees' has 4. "
        "Lower it, add images, or leave small classes out with dataset.classes."
    )


# Classes


def test_val_has_a_class_that_train_lacks(tmp_path: Path) -> None:
    plant(tmp_path, {"train/ants": 2, "train/bees": 2, "val/ants": 1, "val/wasps": 3})
    assert error_of(tmp_path) == (
        "val has a class that train lacks: 'wasps' (3 images in val/wasps). Classes are taken from train: ants, bees."
    )


def test_test_has_a_class_that_train_lacks(tmp_path: Path) -> None:
    plant(tmp_path, {"train/ants": 5, "train/bees": 5, "test/Ants": 1})
    assert error_of(tmp_path, val_fraction=0) == (
        "test has a class that train lacks: 'Ants' (1 image in test/Ants). Classes are taken from train: ants, bees."
    )


def test_one_class_is_too_few(tmp_path: Path) -> None:
    plant(tmp_path, {"train/ants": 5, "val/ants": 5})
    assert error_of(tmp_path) == "train must have images of at least two classes, got one: 'ants'."


def test_only_some_classes_are_kept_in_sorted_order(tmp_path: Path) -> None:
    plant(tmp_path, {"train/ants": 2, "train/bees": 3, "train/wasps": 4, "val/bees": 1, "val/ants": 1})
    index = index_of(tmp_path, classes=["wasps", "ants"])
    assert index.classes == ("ants", "wasps")
    assert sizes(index) == {"train": {"ants": 2, "wasps": 4}, "val": {"ants": 1}}


def test_unknown_class(tmp_path: Path) -> None:
    plant(tmp_path, {"ants": 5, "bees": 5})
    assert error_of(tmp_path, classes=["ants", "bee"]) == (
        "dataset.classes has an unknown class: 'bee'. Did you mean 'bees'? Known are: ants, bees."
    )


def test_train_per_class_draws_nested_subsets_of_train(tmp_path: Path) -> None:
    plant(tmp_path, {"train/ants": 30, "train/bees": 5, "val/ants": 30, "val/bees": 5})
    whole, ten, three = (index_of(tmp_path, train_per_class=n) for n in (None, 10, 3))
    assert sizes(ten) == {"train": {"ants": 10, "bees": 5}, "val": {"ants": 30, "bees": 5}}
    assert sizes(three)["train"] == {"ants": 3, "bees": 3}
    assert set(three.splits["train"]) < set(ten.splits["train"]) < set(whole.splits["train"])
    assert ten.splits["train"] == sorted(ten.splits["train"])
    assert index_of(tmp_path, train_per_class=10) == ten
    assert index_of(tmp_path, train_per_class=10, split_seed=1) != ten
