import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import sklearn.model_selection  # noqa: F401  (slow: here, it counts for no test)
from test_index import error_of, index_of, names, plant, sizes

from thaw.config import DatasetConfig
from thaw.data.check import facts
from thaw.data.index import ImageIndex, survey
from thaw.data.scan import name_ignored
from thaw.errors import ThawError


def ignored(index: ImageIndex) -> dict[str, int]:
    """Number of files and folders left out, by reason."""
    return {reason: len(paths) for reason, paths in index.ignored.items()}


# Layouts


@pytest.mark.parametrize("val", ["val", "valid", "validation"])
def test_split_folders(tmp_path: Path, val: str) -> None:
    plant(tmp_path, {"train/bees": 3, "train/ants": 2, f"{val}/ants": 1, f"{val}/bees": 1, "test/bees": 4})
    index = index_of(tmp_path)
    assert index.classes == ("ants", "bees")
    assert sizes(index) == {"train": {"ants": 2, "bees": 3}, "val": {"ants": 1, "bees": 1}, "test": {"bees": 4}}
    assert list(index.splits) == ["train", "val", "test"]
    assert index.epoch_chosen_on == "val"
    assert index.ignored == {}
    assert names(index, "train") == [
        *("train/ants/000.jpg", "train/ants/001.jpg"),
        *("train/bees/000.jpg", "train/bees/001.jpg", "train/bees/002.jpg"),
    ]


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [("Train", "Val", "Test"), ("TRAIN", "Validation", "test"), ("training", "validation", "Testing")],
)
def test_split_folders_may_be_written_otherwise(tmp_path: Path, train: str, val: str, test: str) -> None:
    plant(tmp_path, {f"{train}/bees": 3, f"{train}/Ants": 2, f"{val}/Ants": 1, f"{test}/bees": 4, "notes": 0})
    index = index_of(tmp_path)
    assert sizes(index) == {"train": {"Ants": 2, "bees": 3}, "val": {"Ants": 1}, "test": {"bees": 4}}
    assert index.misspelt == ()


@pytest.mark.parametrize(("first", "second"), [("Train", "train"), ("train", "training"), ("val", "valid")])
def test_a_split_in_two_folders_is_refused(tmp_path: Path, first: str, second: str) -> None:
    plant(tmp_path, {f"{place}/{name}": 2 for place in ("train", first, second) for name in ("ants", "bees")})
    if len(list(tmp_path.iterdir())) == 1:
        pytest.skip("no capital letters on this file system")
    assert error_of(tmp_path) == f"{tmp_path} has both {first} and {second}: make them one folder, or rename one."


def test_one_tree_is_split(tmp_path: Path) -> None:
    plant(tmp_path, {"ants": 10, "bees": 20})
    index = index_of(tmp_path, val_fraction=0.2, test_fraction=0.1)
    assert sizes(index) == {
        "train": {"ants": 7, "bees": 14},
        "val": {"ants": 2, "bees": 4},
        "test": {"ants": 1, "bees": 2},
    }
    assert sorted(names(index, "train") + names(index, "val") + names(index, "test")) == [
        *(f"ants/{i:03}.jpg" for i in range(10)),
        *(f"bees/{i:03}.jpg" for i in range(20)),
    ]


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    plant(tmp_path, {"bus": 5, "train": 5, "Test": 5, "training": 5})
    index = index_of(tmp_path)
    assert index.classes == ("Test", "bus", "train", "training")
    assert index.misspelt == ()


def test_images_lie_at_any_depth_under_any_suffix(tmp_path: Path) -> None:
    plant(tmp_path, {"train/ants": 2, "train/bees": 2, "val/ants": 1})
    (tmp_path / "val/ants/black/small").mkdir(parents=True)
    for name in ("A B.JPEG", "é\n.Png", "x.tar.TIFF", "black/small/y.webp", "black/z.bmp"):
        (tmp_path / "val/ants" / name).touch()
    assert len(index_of(tmp_path).splits["val"]) == 6


def test_what_is_no_image_is_left_out_and_counted(tmp_path: Path) -> None:
    plant(tmp_path, {"train/ants": 2, "train/bees": 2, "val/ants": 1, "__MACOSX/train/ants": 2})
    plant(tmp_path, {"train/ants/.cache": 2, "train/ants/__MACOSX": 2, "train/.git": 2, "more/ants": 2})
    for name in ("train/ants/._000.jpg", "train/bees/Thumbs.db", "train/bees/notes.txt", "train/labels.jpg"):
        (tmp_path / name).touch()
    index = index_of(tmp_path)
    assert sizes(index) == {"train": {"ants": 2, "bees": 2}, "val": {"ants": 1}}
    assert ignored(index) == {
        "hidden": 3,
        "not images by their names": 2,
        "outside class folders": 1,
        "outside the splits": 1,
    }


def test_hymenoptera_has_a_known_stray(tmp_path: Path) -> None:
    plant(tmp_path, {"train/ants": 123, "train/bees": 121, "val/ants": 70, "val/bees": 83})
    (tmp_path / "train/ants/imageNotFound.gif").touch()
    index = index_of(tmp_path, name="hymenoptera")
    assert sizes(index) == {"train": {"ants": 123, "bees": 121}, "val": {"ants": 70, "bees": 83}}
    assert ignored(index) == {"known strays": 1}
    assert sizes(index_of(tmp_path))["train"]["ants"] == 124


def test_empty_folders_are_no_classes_but_noted(tmp_path: Path) -> None:
    plant(tmp_path, {"train/ants": 5, "train/bees": 5, "train/wasps": 0, "val/ants": 1, "val/bees": 0, "test": 3})
    index = index_of(tmp_path)
    assert index.classes == ("ants", "bees")
    assert set(index.splits) == {"train", "val"}
    assert index.empty_folders == ("test", "train/wasps", "val/bees")


def test_the_first_few_of_what_is_left_out_are_named() -> None:
    files = {"hidden": [Path("a/.x\n.jpg")], "not images by their names": [Path(f"{i}.txt") for i in range(5)]}
    assert name_ignored(files) == (
        r"6 files ignored (hidden: a/.x\n.jpg; not images by their names: 0.txt, 1.txt, 2.txt and 2 more)"
    )
    assert name_ignored({"hidden": [Path("a/.b")]}, lambda path: path.name) == "1 file ignored (hidden: .b)"
    assert name_ignored({}) == name_ignored({"hidden": []}) == ""


def test_images_of_a_list_are_left_out_before_the_split(tmp_path: Path) -> None:
    plant(tmp_path, {"ants": 10, "bees": 10})
    (tmp_path / "list.csv").write_text("path,reason\nants/000.jpg,tiny\nbees/./003.jpg,\n")
    index = index_of(tmp_path, exclude="list.csv")
    used = {name for split in index.splits for name in names(index, split)}
    assert len(used) == 18
    assert not used & {"ants/000.jpg", "bees/003.jpg"}
    assert ignored(index) == {"excluded": 2, "outside class folders": 1}


def test_a_list_is_named_as_seen_from_the_data_or_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(tmp_path / "data", {"ants": 10, "bees": 10})
    (tmp_path / "data" / "list.csv").write_text("path\nants/000.jpg\n")
    monkeypatch.chdir(tmp_path)
    for name in ("list.csv", "data/list.csv"):
        assert ignored(index_of(Path("data"), exclude=name))["excluded"] == 1


def test_images_of_a_list_are_left_out_of_a_table(tmp_path: Path) -> None:
    plant(tmp_path, {"images": 20})
    rows = [f"../images/{i:03}.jpg,{'ants' if i % 2 else 'bees'}" for i in range(20)]
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists/labels.csv").write_text("\n".join(["path,label", *rows]))
    (tmp_path / "lists/out.csv").write_text("path\nimages/004.jpg\n")
    index = index_of(tmp_path, csv="lists/labels.csv", exclude="lists/out.csv")
    assert sum(map(len, index.splits.values())) == 19
    assert ignored(index) == {"excluded": 1}


def test_a_list_gives_images_another_class_before_the_split(tmp_path: Path) -> None:
    plant(tmp_path, {"ants": 10, "bees": 10})
    (tmp_path / "mended.csv").write_text("split,path,label\nval,ants/000.jpg,bees\ntrain,bees/003.jpg,bees\n")
    (tmp_path / "out.csv").write_text("path\nbees/004.jpg\n")
    index = index_of(tmp_path, relabel="mended.csv", exclude="out.csv")
    assert sum(map(Counter, sizes(index).values()), Counter()) == {"ants": 9, "bees": 10}
    assert [index.classes[label] for path, label in index.samples if path == tmp_path / "ants/000.jpg"] == ["bees"]
    assert index.num_relabelled == 1
    assert index.tables == ()  # neither list is taken for one of all labels
    assert "; 1 relabelled; 3 files ignored (" in facts(index)
    assert index.fingerprint != index_of(tmp_path, exclude="out.csv").fingerprint
    (tmp_path / "mended.csv").write_text("path,label\nbees/003.jpg,bees\n")
    assert "; 0 relabelled; " in facts(index_of(tmp_path, relabel="mended.csv"))
    assert "relabelled" not in facts(index_of(tmp_path))


def test_a_list_gives_lines_of_a_table_another_class(tmp_path: Path) -> None:
    plant(tmp_path, {"images": 20})
    rows = [f"images/{i:03}.jpg,{'ants' if i % 2 else 'bees'}" for i in range(20)]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label", *rows]))
    (tmp_path / "mended.csv").write_text("path;label\nimages/004.jpg;ants\n")  # as a spreadsheet may save it
    index = index_of(tmp_path, csv="labels.csv", relabel="mended.csv")
    assert sum(map(Counter, sizes(index).values()), Counter()) == {"ants": 11, "bees": 9}


def test_a_new_class_of_relabelled_images_is_named_among_all(tmp_path: Path) -> None:
    plant(tmp_path, {"ants": 10, "bees": 10})
    moved = {f"{name}/00{i}.jpg" for name in ("ants", "bees") for i in range(4)}
    (tmp_path / "mended.csv").write_text("\n".join(["path,label", *(f"{path},other" for path in moved)]))
    index = index_of(tmp_path, relabel="mended.csv", classes=["ants", "bees", "other"])
    assert index.classes == ("ants", "bees", "other")
    assert {index.place(path) for path, label in index.samples if label == 2} == moved


def test_a_file_that_no_pattern_fits_can_be_left_out(tmp_path: Path) -> None:
    for name in [f"{name}_{i}.jpg" for name in ("ants", "bees") for i in range(5)] + ["cover.jpg"]:
        (tmp_path / name).touch()
    (tmp_path / "list.csv").write_text("path\ncover.jpg\n")
    pattern = "^(.+)_[0-9]+[.]"
    assert "cover.jpg" in error_of(tmp_path, label_pattern=pattern)
    assert index_of(tmp_path, label_pattern=pattern, exclude="list.csv").classes == ("ants", "bees")


@pytest.mark.parametrize(
    ("folders", "misspelt"),
    [
        (["train/a", "train/b", "vaild/a"], ["vaild (val?)"]),
        (["train/a", "train/b", "tets/a", "val/a"], ["tets (test?)"]),
        (["Train/a", "Train/b", "Tests/a"], ["Tests (test?)"]),
        (["train/a", "train/b", "val/a", "unlabelled", "notes"], []),
        (["trail", "test", "bees"], []),
        (["train/a", "train/b", ".vaild/a"], []),
        (["ants", "bees", ".tests/a"], []),
    ],
)
def test_folders_whose_names_are_nearly_those_of_splits(
    tmp_path: Path, folders: list[str], misspelt: list[str]
) -> None:
    plant(tmp_path, dict.fromkeys(folders, 6))
    assert list(index_of(tmp_path).misspelt) == misspelt


def test_links(tmp_path: Path) -> None:
    plant(tmp_path, {"data/train/ants": 2, "data/val/ants": 1, "elsewhere/bees": 3})
    root = tmp_path / "data"
    (tmp_path / "circle").mkdir()
    (tmp_path / "circle/back").symlink_to(tmp_path / "circle")
    assert error_of(tmp_path / "circle").startswith(f"dataset.root has no images: {tmp_path}/circle. ")
    (root / "train/bees").symlink_to(tmp_path / "elsewhere/bees")
    (root / "train/ants/linked.jpg").symlink_to(root / "train/ants/000.jpg")
    (root / "train/ants/circle").symlink_to(root / "train")
    (root / "train/bees/circle").symlink_to(root / "train/bees")
    index = index_of(root)
    assert sizes(index)["train"] == {"ants": 3, "bees": 3}
    assert ignored(index) == {"linked folders": 2}


@pytest.mark.parametrize("folder", ["", "train"])
def test_no_class_folders(tmp_path: Path, folder: str) -> None:
    plant(tmp_path, {folder: 3} | ({"test": 3} if folder else {}))
    assert error_of(tmp_path) == (
        f"dataset.root has no class folders: {tmp_path / folder}. "
        "Expected one folder per class, or set dataset.label_pattern."
    )


@pytest.mark.parametrize(
    ("places", "tables", "advice"),
    [
        ({"train": 3, "test": 3}, ["labels.csv"], "labels.csv lies there: set dataset.csv=labels.csv."),
        ({"train": 3, "valid": 3}, ["train/_classes.csv"], "train/_classes.csv lies there: set dataset.csv=train/_cla"),
        ({"images": 6}, ["Labels.TSV"], "Labels.TSV lies there: set dataset.csv=Labels.TSV."),
        (
            {"images": 6},
            ["test.csv", "train.csv"],
            "test.csv, train.csv lie there: the one that has the labels is set by dataset.csv=FILE.",
        ),
    ],
)
def test_a_table_beside_images_without_classes_is_named(
    tmp_path: Path, places: dict[str, int], tables: list[str], advice: str
) -> None:
    plant(tmp_path, places)
    for name in tables:
        (tmp_path / name).touch()
    assert f" {advice}" in error_of(tmp_path)
    exclude = tmp_path / "exclude.csv"
    exclude.write_text("path\n")
    assert f" {advice}" in error_of(tmp_path, exclude="exclude.csv")  # which is no table of labels


def test_class_folders_without_images_are_not_said_to_lack(tmp_path: Path) -> None:
    plant(tmp_path, {"ants": 0, "bees": 0})
    assert error_of(tmp_path) == f"dataset.root has no images: {tmp_path}."
    for name in ("ants/1.CR2", "ants/2.CR2", "bees/3"):
        (tmp_path / name).touch()
    others = "3 files ignored (not images by their names: ants/1.CR2, ants/2.CR2, bees/3)"
    for options in ({}, {"label_pattern": "^(.)"}):
        assert error_of(tmp_path, **options) == f"dataset.root has no images: {tmp_path}. {others}."


@pytest.mark.parametrize("beside", [[], ["__MACOSX/photos/.x", "read me.txt"]])
@pytest.mark.parametrize("options", [{}, {"classes": ["ants", "bees"]}, {"label_pattern": "^(.)"}])
def test_splits_one_folder_deeper_are_named(tmp_path: Path, beside: list[str], options: dict[str, Any]) -> None:
    plant(tmp_path, {f"photos/{place}": 3 for place in ("train/ants", "train/bees", "val/ants", "val/bees")})
    for name in beside:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    message = (
        f"dataset.root has no folder but photos, and that has the splits: {tmp_path}. Did you mean {tmp_path}/photos?"
    )
    assert error_of(tmp_path, **options) == message
    with pytest.raises(ThawError, match=re.escape(message)):
        survey(tmp_path, DatasetConfig(**options))


@pytest.mark.parametrize("folder", ["photos", "photos/large"])
def test_classes_one_folder_deeper_are_named(tmp_path: Path, folder: str) -> None:
    plant(tmp_path, {f"{folder}/ants": 5, f"{folder}/bees": 5, "notes": 0})
    assert error_of(tmp_path) == (
        "train must have images of at least two classes, got one: 'photos'. "
        f"If the classes are the folders in it, set dataset.root={tmp_path / folder}."
    )
    assert survey(tmp_path, DatasetConfig()).classes == ("photos",)  # images of one class, for all it can know


def test_folders_in_class_folders_are_told(tmp_path: Path) -> None:
    folders = ["round/circle", "round/ring", "edgy", "edgy/square", "plain", "deep/images/all"]
    plant(tmp_path, dict.fromkeys(folders, 5))
    index = survey(tmp_path, DatasetConfig())
    assert index.classes == ("deep", "edgy", "plain", "round")
    assert index.nested == ("edgy (square)", "round (circle, ring)")
    assert survey(tmp_path, DatasetConfig(label_pattern="^(.)")).nested == ()


def test_root_does_not_exist(tmp_path: Path) -> None:
    assert error_of(tmp_path / "data") == f"dataset.root must be a folder that exists, got '{tmp_path}/data'."
