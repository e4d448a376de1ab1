from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from thaw.config import DatasetConfig
from thaw.data.check import Finding, drop_unreadable, facts, find_problems, find_unreadable
from thaw.data.index import ImageIndex, build_index
from thaw.errors import ThawError


def plant(root: Path, files: dict[str, int] | dict[str, str], **options: Any) -> ImageIndex:
    """The index of image files with the given contents, which need not be an image's."""
    for name, contents in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(str(contents))
    return build_index(root, DatasetConfig(**options))


def plant_folders(root: Path, folders: dict[str, int], **options: Any) -> ImageIndex:
    """The index of so many files in each folder, all different."""
    files = {f"{folder}/{i}.jpg": f"{folder} {i}" for folder, count in folders.items() for i in range(count)}
    return plant(root, files, **options)


@pytest.fixture
def insects(tmp_path: Path) -> ImageIndex:
    return plant_folders(tmp_path, {"train/ants": 3, "train/bees": 2, "val/ants": 2, "val/bees": 1})


# Facts


def test_facts_in_one_line(tmp_path: Path) -> None:
    index = plant_folders(tmp_path / "insects", {"train/ants": 3, "train/bees": 2, "val/ants": 1})
    assert facts(index) == "insects: train 5 (ants 3, bees 2), val 1 (ants 1, bees 0)"
    assert facts(replace(index, ignored={"hidden": 1})).endswith("bees 0); 1 file ignored")
    assert facts(replace(index, ignored={"hidden": 1, "not images": 2})).endswith("bees 0); 3 files ignored")


def test_facts_say_where_val_is_test(tmp_path: Path) -> None:
    folders = {"train/hotdog": 3, "train/other": 2, "test/hotdog": 4}
    index = plant_folders(tmp_path / "hotdog", folders, val_fraction=0)
    assert facts(index) == "hotdog: train 5 (hotdog 3, other 2), val = test 4 (hotdog 4, other 0)"


def test_facts_of_many_classes_name_the_smallest_and_the_largest(tmp_path: Path) -> None:
    folders = {f"train/class{i}": 5 + (-2 if i == 4 else i == 7) for i in range(9)} | {"val/class3": 1}
    index = plant_folders(tmp_path / "birds", folders)
    assert facts(index) == (
        "birds: train 44 (9 classes, from class4 3 to class7 6), val 1 (9 classes, from class0 0 to class3 1)"
    )


# Problems


def test_sound_data_has_no_problems(insects: ImageIndex) -> None:
    assert find_problems(insects) == []


def test_same_image_in_two_splits(tmp_path: Path) -> None:
    train = {"train/ants/a.jpg": 1, "train/ants/b.jpg": 2, "train/bees/c.jpg": 3, "train/bees/d.jpg": 4}
    val = {"val/ants/e.jpg": 1, "val/ants/f.jpg": 1, "val/bees/g.jpg": 4, "val/bees/h.jpg": 9}
    index = plant(tmp_path, train | val)
    paths = ("train/ants/a.jpg", "val/ants/e.jpg", "val/ants/f.jpg", "train/bees/d.jpg", "val/bees/g.jpg")
    assert find_problems(index) == [
        Finding(
            "in_two_splits",
            "Images in two splits: 2 (train/ants/a.jpg = val/ants/e.jpg = val/ants/f.jpg, "
            "train/bees/d.jpg = val/bees/g.jpg). A score on training images misleads: keep one copy of each.",
            tuple(tmp_path / path for path in paths),
        )
    ]


def test_only_the_first_few_are_named(tmp_path: Path) -> None:
    files = {f"{split}/{name}/{i}.jpg": f"{name} {i}" for split in ("train", "val") for name in "ab" for i in range(4)}
    (finding,) = find_problems(plant(tmp_path, files))
    assert finding.message == (
        "Images in two splits: 8 (train/a/0.jpg = val/a/0.jpg, train/a/1.jpg = val/a/1.jpg, "
        "train/a/2.jpg = val/a/2.jpg and 5 more). A score on training images misleads: keep one copy of each."
    )
    assert len(finding.paths) == 16


def test_same_image_with_two_labels_within_train(tmp_path: Path) -> None:
    ants = {"train/ants/a.jpg": 1, "train/ants/b.jpg": 2, "train/ants/copy of b.jpg": 2}
    bees = {"train/bees/c.jpg": 1, "train/bees/d.jpg": 3, "val/bees/e.jpg": 4}
    index = plant(tmp_path, ants | bees)
    assert find_problems(index) == [
        Finding(
            "two_labels",
            "Images with two labels: 1 (train/ants/a.jpg = train/bees/c.jpg). Keep the one labelled right.",
            (tmp_path / "train/ants/a.jpg", tmp_path / "train/bees/c.jpg"),
        )
    ]


def test_same_size_is_not_the_same_image(tmp_path: Path) -> None:
    assert find_problems(plant_folders(tmp_path, {"train/ants": 9, "train/bees": 9, "val/ants": 9})) == []


def test_rare_class(tmp_path: Path) -> None:
    index = plant_folders(tmp_path, {"train/ants": 3, "train/bees": 1, "val/ants": 1, "val/bees": 2})
    message = "Classes with a single training image: 1 (bees)."
    assert find_problems(index) == [Finding("rare_class", message, (tmp_path / "train/bees/0.jpg",))]


def test_empty_folders(tmp_path: Path) -> None:
    (tmp_path / "train/wasps").mkdir(parents=True)
    (tmp_path / "val/bees").mkdir(parents=True)
    index = plant_folders(tmp_path, {"train/ants": 3, "train/bees": 3, "val/ants": 1})
    message = "Folders without images: 2 (train/wasps, val/bees)."
    paths = (tmp_path / "train/wasps", tmp_path / "val/bees")
    assert find_problems(index) == [Finding("empty_folder", message, paths)]


def test_missing_files_do_not_stop_the_search_for_copies(insects: ImageIndex) -> None:
    (insects.root / "train/ants/0.jpg").unlink()
    assert find_problems(insects) == []


# Unreadable files


@pytest.mark.parametrize("threads", [1, 4])
def test_unreadable_files_are_found_with_their_reasons(tmp_path: Path, threads: int) -> None:
    index = plant_folders(tmp_path, {"train/ants": 3, "train/bees": 2, "val/ants": 2})
    for sample in [*index.splits["train"], *index.splits["val"]]:
        Image.effect_noise((32, 32), 50).save(sample.path)
    truncated, html, missing = (tmp_path / name for name in ("train/bees/1.jpg", "train/ants/2.jpg", "val/ants/0.jpg"))
    truncated.write_bytes(truncated.read_bytes()[:-100])
    html.write_text("<html>404</html>")
    missing.unlink()
    bad = find_unreadable(index, threads)
    assert list(bad) == [html, truncated, missing]
    assert bad[html] == "its contents are in no image format that Pillow reads"
    assert bad[truncated].startswith("image file is truncated")
    assert bad[missing] == "No such file or directory"


def test_nothing_to_drop(insects: ImageIndex) -> None:
    assert drop_unreadable(insects, {}, "error") is insects


def test_all_unreadable_files_are_named(insects: ImageIndex) -> None:
    bad = {insects.root / f"train/ants/{i}.jpg": f"reason {i}" for i in range(2)}
    with pytest.raises(ThawError) as caught:
        drop_unreadable(insects, bad, "error")
    assert str(caught.value) == (
        f"2 files in {insects.root} cannot be read as images:\n"
        "  train/ants/0.jpg: reason 0\n"
        "  train/ants/1.jpg: reason 1\n"
        "Repair or remove them; dataset.on_bad=skip leaves them out."
    )


def test_unreadable_files_are_skipped_and_counted(insects: ImageIndex) -> None:
    bad = {insects.root / "train/ants/1.jpg": "reason", insects.root / "val/bees/0.jpg": "reason"}
    index = drop_unreadable(insects, bad, "skip")
    name = insects.root.name
    assert facts(index) == f"{name}: train 4 (ants 2, bees 2), val 2 (ants 2, bees 0); 2 files ignored"
    assert not {path for samples in index.splits.values() for path, _ in samples} & set(bad)
    assert len(insects.splits["train"]) == 5


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["train/bees/0.jpg", "train/bees/1.jpg"], "train has no images of 'bees' left: "),
        (["val/ants/0.jpg", "val/ants/1.jpg", "val/bees/0.jpg"], "val has no images left: "),
    ],
)
def test_skipping_must_leave_every_class_and_split_something(
    insects: ImageIndex, names: list[str], message: str
) -> None:
    with pytest.raises(ThawError) as caught:
        drop_unreadable(insects, {insects.root / name: "reason" for name in names}, "skip")
    assert str(caught.value) == message + "dataset.on_bad=skip leaves out all of its files."
