from collections.abc import Sequence
from pathlib import Path

import pytest
from test_index import error_of, index_of, plant, sizes


def test_val_has_a_class_that_train_lacks(tmp_path: Path) -> None:
    plant(tmp_path, {"train/ants": 2, "train/bees": 2, "val/ants": 1, "val/wasps": 3})
    assert error_of(tmp_path) == (
        "val has a class that train lacks: 'wasps' (3 images in val/wasps). Classes are taken from train: ants, bees. "
        "dataset.classes=[ants,bees] leaves it out."
    )
    assert index_of(tmp_path, classes=["ants", "bees"]).classes == ("ants", "bees")


def test_test_has_a_class_that_train_lacks(tmp_path: Path) -> None:
    plant(tmp_path, {"train/ants": 5, "train/bees": 5, "test/Ants": 1})
    assert error_of(tmp_path, val_fraction=0) == (
        "test has a class that train lacks: 'Ants' (1 image in test/Ants). Classes are taken from train: ants, bees. "
        "dataset.classes=[ants,bees] leaves it out."
    )


@pytest.mark.parametrize(
    ("classes", "advice"),
    [
        ("abcde", " dataset.classes=[a,b,c,d,e] leaves it out."),
        ("abcdef", " dataset.classes=[…] leaves it out."),
        (["red, dark", "blue"], " dataset.classes=[…] leaves it out."),
        ("a", ""),
    ],
)
def test_what_leaves_it_out_can_be_typed(tmp_path: Path, classes: Sequence[str], advice: str) -> None:
    plant(tmp_path, {**{f"train/{name}": 2 for name in classes}, "val/unknown": 4})
    names = ", ".join(sorted(classes))
    assert error_of(tmp_path) == (
        "val has a class that train lacks: 'unknown' (4 images in val/unknown). Classes are taken from train: "
        f"{names}.{advice}"
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
