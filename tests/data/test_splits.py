import re
from pathlib import Path
from typing import Any

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


def test_it_is_known_which_splits_are_the_datas_own(tmp_path: Path) -> None:
    plant(tmp_path / "none", {"ants": 20, "bees": 20})
    plant(tmp_path / "some", {"train/ants": 20, "train/bees": 20, "test/ants": 7, "val/wasps": 7})
    assert index_of(tmp_path / "none", test_fraction=0.2).own_splits == ()
    assert index_of(tmp_path / "some", classes=["ants", "bees"]).own_splits == ("train", "test")


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
        (
            {"ants": 1, "bees": 1},
            0.2,
            "it gives 0 of 2 images in 2 classes, of which 'ants' has 1. Add images, or leave",
        ),
        (
            {"ants": 4, "bees": 5},
            0.1,
            "it gives 1 of 9 images in 2 classes, of which 'ants' has 4. Set dataset.val_fraction=0.2, add images, "
            "or leave",
        ),
        (
            {"ants": 4, "bees": 4},
            0.9,
            "it gives 0 of 8 images in 2 classes, of which 'ants' has 4. Set dataset.val_fraction=0.75, add images, "
            "or leave",
        ),
    ],
)
def test_too_few_images_to_split(tmp_path: Path, folders: dict[str, int], fraction: float, message: str) -> None:
    plant(tmp_path, folders)
    assert error_of(tmp_path, val_fraction=fraction) == (
        f"dataset.val_fraction must give val an image of each class: {message} small classes out with dataset.classes."
    )


@pytest.mark.parametrize(
    ("counts", "options"),
    [
        ([2, 2], {}),
        ([1, 2, 2], {}),
        ([2, 2, 2, 3], {}),
        ([2, 40, 40], {"val_fraction": 0.01}),
        ([5] * 12, {"val_fraction": 0.1}),
        ([4, 4], {"val_fraction": 0.1, "test_fraction": 0.25}),
        ([4, 4], {"val_fraction": 0.1, "test_fraction": 0.1}),
        ([200] * 30, {"val_fraction": 0.001}),
    ],
)
def test_the_fraction_that_is_named_gives_val_an_image_of_each_class_that_has_several(
    tmp_path: Path, counts: list[int], options: dict[str, float]
) -> None:
    plant(tmp_path, {f"class{i}": count for i, count in enumerate(counts)})
    for _ in range(2):  # the test split may be mended first
        key, named = re.findall(r"Set dataset\.(\w+)=([0-9.]+),", error_of(tmp_path, **options))[0]
        options = options | {key: float(named)}
        if key == "val_fraction":
            break
    several = {f"class{i}" for i, count in enumerate(counts) if count > 1}
    assert set(sizes(index_of(tmp_path, **options))["val"]) == several


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


def test_train_per_class_draws_nested_subsets_of_train(tmp_path: Path) -> None:
    plant(tmp_path, {"train/ants": 30, "train/bees": 5, "val/ants": 30, "val/bees": 5})
    whole, ten, three = (index_of(tmp_path, train_per_class=n) for n in (None, 10, 3))
    assert sizes(ten) == {"train": {"ants": 10, "bees": 5}, "val": {"ants": 30, "bees": 5}}
    assert sizes(three)["train"] == {"ants": 3, "bees": 3}
    assert set(three.splits["train"]) < set(ten.splits["train"]) < set(whole.splits["train"])
    assert ten.splits["train"] == sorted(ten.splits["train"])
    assert index_of(tmp_path, train_per_class=10) == ten
    assert index_of(tmp_path, train_per_class=10, split_seed=1) != ten


# Groups


def plant_groups(root: Path, groups: dict[str, dict[str, int]]) -> dict[str, str]:
    """A CSV file of so many images by group and class; the group of each image by name."""
    group_of, lines = {}, ["path,label,patient"]
    for group, counts in groups.items():
        for name, count in counts.items():
            for i in range(count):
                path = f"{group}_{name}_{i}.jpg"
                (root / path).touch()
                lines.append(f"{path},{name},{group}")
                group_of[path] = group
    (root / "labels.csv").write_text("\n".join(lines))
    return group_of


PATIENTS = {f"p{i:02}": {"ill" if i % 3 else "well": 2 + i % 4} for i in range(30)}
BY_PATIENT = {"csv": "labels.csv", "csv_group": "patient"}


@pytest.mark.parametrize("labels", ["folders", "names", "table", "groups"])
@pytest.mark.parametrize("options", [{"test_fraction": 0.2}, {"num_folds": 4, "fold": 1, "test_fraction": 0.1}])
def test_lists_of_images_move_no_other_image_to_another_split(
    tmp_path: Path, labels: str, options: dict[str, Any]
) -> None:
    paths = [f"{name}/{name}_{i:02}.jpg" for name in ("ants", "bees") for i in range(40)]
    plant(tmp_path, {"ants": 0, "bees": 0})
    for path in paths:
        (tmp_path / path).touch()
    lines = [f"{path},{path[:4]},p{i % 13}" for i, path in enumerate(paths)]
    (tmp_path / "labels.csv").write_text("path,label,patient\n" + "\n".join(lines))
    data: dict[str, dict[str, Any]] = {
        "folders": {},
        "names": {"label_pattern": "^([a-z]+)_"},
        "table": {"csv": "labels.csv"},
    }
    options = options | data.get(labels, BY_PATIENT)
    before = index_of(tmp_path, **options)
    gone, mended = (
        names(before, "val")[:3] + names(before, "train")[:3],
        names(before, "val")[3:5] + names(before, "test")[:2],
    )
    (tmp_path / "gone.csv").write_text("path\n" + "\n".join(gone))
    (tmp_path / "mended.csv").write_text("path,label\n" + "\n".join(f"{path},bees" for path in mended))
    after = index_of(tmp_path, exclude="gone.csv", relabel="mended.csv", **options)
    for split in before.splits:
        assert names(after, split) == [path for path in names(before, split) if path not in gone]
    assert {
        after.classes[label]
        for split in after.splits
        for path, label in after.splits[split]
        if path.relative_to(tmp_path).as_posix() in mended
    } == {"bees"}
    assert set(after.ignored["excluded"]) == {tmp_path / path for path in gone}


def test_what_lists_leave_nothing_of_does_not_count(tmp_path: Path) -> None:
    plant(
        tmp_path, {"train/ants": 10, "train/bees": 10, "train/odd": 2, "train/moths": 2, "val/ants": 2, "val/bees": 2}
    )
    (tmp_path / "gone.csv").write_text(
        "path\n" + "\n".join(f"{place}/00{i}.jpg" for place in ("train/odd", "val/ants", "val/bees") for i in (0, 1))
    )
    (tmp_path / "mended.csv").write_text("path,label\ntrain/moths/000.jpg,ants\ntrain/moths/001.jpg,bees")
    lists = {"exclude": "gone.csv", "relabel": "mended.csv"}
    assert sizes(index_of(tmp_path, val_fraction=0.5, **lists)) == {
        "train": {"ants": 5, "bees": 6},
        "val": {"ants": 6, "bees": 5},
    }
    assert sizes(index_of(tmp_path, num_folds=11, fold=0, **lists))["val"] == {"ants": 1, "bees": 1}


@pytest.mark.parametrize("options", [{}, {"num_folds": 4, "fold": 0}, {"csv_group": "patient"}])
def test_train_has_what_lists_leave_of_a_class(tmp_path: Path, options: dict[str, Any]) -> None:
    groups = plant_groups(tmp_path, {f"p{i}": {"ants": 5, "bees": 5, "odd": int(i < 5)} for i in range(8)})
    odd, ants = ([path for path in groups if name in path] for name in ("odd", "ants"))
    lists = {"csv": "labels.csv", "exclude": "gone.csv"}
    if "num_folds" not in options:  # which need as many images of a class that a list brings
        lists |= {"relabel": "mended.csv"}
    for i, path in enumerate(ants[:15]):
        (tmp_path / "gone.csv").write_text("\n".join(["path", *odd[: i % 5], *odd[i % 5 + 1 :]]))
        (tmp_path / "mended.csv").write_text(f"path,label\n{path},wasps")
        index = index_of(
            tmp_path, classes=["ants", "bees", "odd", *["wasps"] * ("relabel" in lists)], **lists, **options
        )
        assert all(count == 1 for name, count in sizes(index)["train"].items() if name in ("odd", "wasps"))
        assert sizes(index)["train"].keys() == set(index.classes)
        if "csv_group" in options:
            assert not set(index.groups_of("train")) & set(index.groups_of("val"))


def test_an_excluded_file_need_not_have_a_class(tmp_path: Path) -> None:
    for name in ("ants_1", "ants_2", "ants_3", "bees_1", "bees_2", "bees_3", "_1"):
        (tmp_path / f"{name}.jpg").touch()
    (tmp_path / "gone.csv").write_text("path\n_1.jpg")
    index = index_of(tmp_path, label_pattern="^([a-z]*)_", exclude="gone.csv", val_fraction=0.4)
    assert index.classes == ("ants", "bees")


def test_a_split_of_which_nothing_is_left_is_named(tmp_path: Path) -> None:
    plant(tmp_path, {"ants": 10, "bees": 10})
    val = names(index_of(tmp_path, val_fraction=0.1), "val")
    (tmp_path / "gone.csv").write_text("path\n" + "\n".join(val))
    assert (
        error_of(tmp_path, val_fraction=0.1, exclude="gone.csv")
        == "val has no images left: dataset.exclude or dataset.relabel takes all of them away."
    )


def test_images_are_split_as_ever_without_groups(tmp_path: Path) -> None:
    plant(tmp_path, {"ants": 10, "bees": 10})
    found = [
        {
            split: " ".join(name[0] + name[7] for name in names(index, split))
            for split in index.splits
            if split != "train"
        }
        for index in (
            index_of(tmp_path),
            index_of(tmp_path, test_fraction=0.2),
            index_of(tmp_path, num_folds=4, fold=1),
        )
    ]
    assert found == [
        {"val": "a0 a5 b4 b7"},
        {"val": "a1 a6 b1 b5", "test": "a0 a5 b4 b7"},
        {"val": "a2 a7 a9 b0 b3"},
    ]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("val", "test"), [(0.2, 0), (0.2, 0.1), (0.3, 0.3), (0.5, 0)])
def test_a_group_stays_on_one_side(tmp_path: Path, val: float, test: float, seed: int) -> None:
    group_of = plant_groups(tmp_path, PATIENTS)
    options = {"val_fraction": val, "test_fraction": test, "split_seed": seed} | BY_PATIENT
    index = index_of(tmp_path, **options)
    groups = {split: {group_of[name] for name in names(index, split)} for split in index.splits}
    assert sum(map(len, groups.values())) == len(PATIENTS)
    for split, fraction in (("val", val), ("test", test)):
        if fraction:
            found = sizes(index)[split]
            assert abs(sum(found.values()) - fraction * len(group_of)) < 8
            assert abs(found["well"] / sum(found.values()) - 1 / 3) < 0.15
    assert index_of(tmp_path, **options) == index
    assert index_of(tmp_path, **options | {"split_seed": seed + 10}) != index


def test_the_largest_group_may_be_on_either_side(tmp_path: Path) -> None:
    sizes = {"large": 8} | {f"p{i}": 2 for i in range(16)}
    group_of = plant_groups(tmp_path, {group: {"ill": size, "well": size} for group, size in sizes.items()})
    found = [names(index_of(tmp_path, split_seed=seed, **BY_PATIENT), "val") for seed in range(6)]
    assert 0 < sum("large" in {group_of[name] for name in val} for val in found) < 6


def test_folds_keep_groups_whole(tmp_path: Path) -> None:
    group_of = plant_groups(tmp_path, PATIENTS)
    val = [names(index_of(tmp_path, num_folds=5, fold=fold, **BY_PATIENT), "val") for fold in range(5)]
    assert sorted(name for fold in val for name in fold) == sorted(group_of)
    assert sum(len({group_of[name] for name in fold}) for fold in val) == len(PATIENTS)


def test_the_only_group_of_a_class_stays_in_train(tmp_path: Path) -> None:
    plant_groups(tmp_path, PATIENTS | {"alone": {"rare": 40}, "both": {"rarer": 1, "ill": 9}})
    for seed in range(5):
        index = index_of(tmp_path, split_seed=seed, val_fraction=0.4, **BY_PATIENT)
        assert (sizes(index)["train"]["rare"], sizes(index)["train"]["rarer"]) == (40, 1)
        assert set(sizes(index)["val"]) == {"ill", "well"}


@pytest.mark.parametrize("fraction", [0.3, 0.6, 0.97])
def test_every_class_of_few_groups_is_in_train(tmp_path: Path, fraction: float) -> None:
    group_of = plant_groups(tmp_path, {f"{i}{side}": {f"class{i}": 4} for i in range(20) for side in "lr"})
    for seed in range(5):
        index = index_of(tmp_path, split_seed=seed, val_fraction=fraction, **BY_PATIENT)
        assert len(sizes(index)["train"]) == 20
        assert not {group_of[name] for name in names(index, "train")} & {group_of[name] for name in names(index, "val")}


def test_too_few_groups_to_split(tmp_path: Path) -> None:
    plant_groups(tmp_path, {"a": {"ill": 9}, "b": {"well": 9}})
    assert error_of(tmp_path, **BY_PATIENT) == (
        "dataset.val_fraction cannot give val a group of dataset.csv_group: each of the 2 would leave train without a "
        "class. Add groups, name another column, or leave small classes out with dataset.classes."
    )
    plant_groups(tmp_path, {"a": {"ill": 9, "well": 9}, "b": {"ill": 9, "well": 9}})
    assert {split: len(samples) for split, samples in index_of(tmp_path, **BY_PATIENT).splits.items()} == {
        "train": 18,
        "val": 18,
    }
    assert error_of(tmp_path, num_folds=3, fold=0, **BY_PATIENT) == (
        "dataset.num_folds=3 needs as many groups of dataset.csv_group, and there are 2. Lower it, or name another "
        "column."
    )


def test_class_of_groups_with_fewer_images_than_folds(tmp_path: Path) -> None:
    plant_groups(tmp_path, {f"p{i}": {"ill" if i % 2 else "well": 1} for i in range(8)})
    message = "dataset.num_folds=5 needs as many images of each class, and 'ill' has 4. "
    assert error_of(tmp_path, num_folds=5, fold=0, **BY_PATIENT).startswith(message)


def test_each_image_needs_a_group(tmp_path: Path) -> None:
    plant(tmp_path, {"": 2})
    (tmp_path / "labels.csv").write_text("path,label,patient\n000.jpg,ants,7\n001.jpg,bees, \n")
    assert error_of(tmp_path, **BY_PATIENT) == (
        f"dataset.csv: {tmp_path}/labels.csv, line 3 has no patient, by which dataset.csv_group keeps images together."
    )
    assert error_of(tmp_path, csv="labels.csv", csv_group="series") == (
        f"dataset.csv must have the columns path, label and series: {tmp_path}/labels.csv has path, label, patient. "
        "Others are named by dataset.csv_group=column."
    )


def test_the_largest_group_is_not_always_the_one_that_is_taken(tmp_path: Path) -> None:
    patients = {f"p{i:02}": {"ill" if i % 2 else "well": 40 if i == 0 else 5 + i % 3} for i in range(20)}
    group_of = plant_groups(tmp_path, patients)
    for split in ("val", "test"):
        shares = []
        for seed in range(20):
            index = index_of(
                tmp_path, **{"val_fraction": 0.2, f"{split}_fraction": 0.1, "split_seed": seed} | BY_PATIENT
            )
            taken = names(index, split)
            assert "p00" not in {group_of[name] for name in taken}  # a quarter of all images
            shares.append(len(taken) / len(group_of))
        assert max(shares) < 0.2


@pytest.mark.parametrize("fraction", [0.03, 0.05, 0.1, 0.25])
def test_a_small_fraction_of_many_groups_is_met(tmp_path: Path, fraction: float) -> None:
    group_of = plant_groups(tmp_path, {f"p{i:03}": {"ill" if i % 2 else "well": 3} for i in range(100)})
    index = index_of(tmp_path, val_fraction=fraction, **BY_PATIENT)
    assert len(names(index, "val")) / len(group_of) == pytest.approx(fraction, abs=0.011)


def test_folds_may_be_given_by_a_column(tmp_path: Path) -> None:
    plant(tmp_path, {"": 24})
    lines = [
        f"{i:03}.jpg,{'ants' if i % 2 else 'bees'},{'test' if i >= 22 else 'train'},{8 + i % 4}" for i in range(24)
    ]
    lines[22:] = [line.rpartition(",")[0] + "," for line in lines[22:]]  # of no fold
    (tmp_path / "labels.csv").write_text("\n".join(["path,label,split,part", *lines]))
    options = {"csv": "labels.csv", "csv_fold": "part", "num_folds": 4}
    for fold in range(4):
        index = index_of(tmp_path, fold=fold, **options)
        assert names(index, "val") == [f"{i:03}.jpg" for i in range(22) if i % 4 == fold]
        assert len(names(index, "train")) == 22 - len(names(index, "val"))
        assert names(index, "test") == ["022.jpg", "023.jpg"]
    assert error_of(tmp_path, fold=0, **options | {"num_folds": 5}) == (
        "dataset.num_folds must be 4, as dataset.csv_fold=part has the folds 8, 9, 10, 11, got 5."
    )
    by_group = index_of(tmp_path, fold=0, csv_group="split", **options)  # for the statistics alone
    assert names(by_group, "val") == names(index_of(tmp_path, fold=0, **options), "val")
    assert by_group.groups_of("val") == ["train"] * 6
    (tmp_path / "labels.csv").write_text("path,label,part\n000.jpg,ants,1\n001.jpg,bees,\n")
    assert error_of(tmp_path, fold=0, **options) == (
        f"dataset.csv: {tmp_path}/labels.csv, line 3 has no part, by which dataset.csv_fold makes the folds."
    )


@pytest.mark.parametrize("fraction", [0.07, 0.12, 0.17, 0.22])
def test_a_rare_class_of_several_groups_is_in_val_too(tmp_path: Path, fraction: float) -> None:
    plant_groups(tmp_path, {f"p{i:03}": {"well" if i % 10 else "ill": 3 + i % 7} for i in range(100)})
    for seed in range(10):
        index = index_of(tmp_path, val_fraction=fraction, split_seed=seed, **BY_PATIENT)
        assert sizes(index)["val"].keys() == {"ill", "well"}
