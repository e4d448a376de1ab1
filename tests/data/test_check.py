from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from thaw.config import DatasetConfig
from thaw.data.check import facts, find_problems
from thaw.data.index import ImageIndex, build_index, survey
from thaw.data.unreadable import are_read_whole, drop_unreadable, find_unreadable
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
    hidden = {"hidden": (index.root / "train/ants/.a.jpg",)}
    assert facts(replace(index, ignored=hidden)).endswith("bees 0); 1 file ignored (hidden: train/ants/.a.jpg)")


def test_facts_say_where_val_is_test(tmp_path: Path) -> None:
    folders = {"train/hotdog": 3, "train/other": 2, "test/hotdog": 4}
    index = plant_folders(tmp_path / "hotdog", folders, val_fraction=0)
    assert facts(index) == "hotdog: train 5 (hotdog 3, other 2), val = test 4 (hotdog 4, other 0)"


def test_facts_of_many_classes_name_the_smallest_and_the_largest(tmp_path: Path) -> None:
    folders = {f"train/class{i}": 5 + (-2 if i == 4 else i == 7) for i in range(9)} | {"val/class3": 1}
    index = plant_folders(tmp_path / "birds", folders)
    assert facts(index) == (
        "birds: train 44 (9 classes: 3 of class4 to 6 of class7), val 1 (9 classes: 0 of class0 to 1 of class3)"
    )


def test_a_class_with_a_comma_in_its_name_is_in_quotes(tmp_path: Path) -> None:
    index = plant_folders(tmp_path / "insects", {"train/ants, red": 3, "train/bees": 2, "val/bees": 1})
    assert facts(index) == 'insects: train 5 ("ants, red" 3, bees 2), val 1 ("ants, red" 0, bees 1)'


# Problems


def test_sound_data_has_no_problems(insects: ImageIndex) -> None:
    assert find_problems(insects) == []


def test_rare_class(tmp_path: Path) -> None:
    index = plant_folders(tmp_path, {"train/ants": 3, "train/bees": 1, "val/ants": 1, "val/bees": 2})
    (finding,) = find_problems(index)
    assert finding.message == "Classes with a single training image: 1 (bees)."
    assert finding.paths == (tmp_path / "train/bees/0.jpg",)


def test_a_class_that_a_split_lacks(tmp_path: Path) -> None:
    folders = {"train/ants": 3, "train/bees": 2, "val/ants": 1, "test/bees": 1}
    (finding,) = find_problems(plant_folders(tmp_path, folders))
    assert finding.message == (
        "Splits that lack a class: 2 (no bees in val, no ants in test). "
        "It is learned, but not judged there: macro-F1 leaves it out, unless it is predicted."
    )


def test_a_class_that_train_lacks_is_not_learned(tmp_path: Path) -> None:
    plant_folders(tmp_path, {"train/ants": 3, "train/bees": 2, "val/ants": 1, "val/bees": 1})
    (tmp_path / "val/wasps").mkdir()
    (tmp_path / "val/wasps/0.jpg").write_text("wasps")
    (finding,) = find_problems(survey(tmp_path, DatasetConfig()))
    assert finding.message == (
        "Classes that are not learned: 1 (no wasps in train). Training refuses the images of them in other splits."
    )


@pytest.mark.parametrize(
    ("classes", "items"),
    [
        (["bee", "Bee", "ant"], ("Bee = bee",)),
        (["ant inv", "Ant_inv", "ant-inv ", "bee"], ("Ant_inv = ant inv = ant-inv",)),
        (["antinv", "ant inv"], ()),
        (["1", "-1", "1-1", "11"], ()),
        (["A", "a"], ()),
    ],
)
def test_class_names_that_differ_in_capitals_or_blanks_only(
    tmp_path: Path, classes: list[str], items: tuple[str, ...]
) -> None:
    lines = [f"{name}{i}.jpg,{name},{split}" for name in classes for i, split in enumerate(("train", "train", "val"))]
    files = {line.partition(",")[0]: line for line in lines}
    index = plant(tmp_path, files | {"labels.csv": "\n".join(["path,label,split", *lines])}, csv="labels.csv")
    findings = find_problems(index)
    assert [finding.title for finding in findings] == [
        "Class names that differ only in capitals, blanks or encoding"
    ] * bool(items)
    assert [finding.items for finding in findings] == [items] * bool(items)
    assert all(finding.is_wrong for finding in findings)


def test_folders_of_like_names(tmp_path: Path) -> None:
    (finding,) = find_problems(plant_folders(tmp_path, {"bee": 5, "ant inv": 5, "Ant_inv": 5, "ant inv ": 5}))
    assert finding.message == (
        "Class names that differ only in capitals, blanks or encoding: 1 (Ant_inv = ant inv = ant inv ). "
        "Each is a class of its own: give those that are meant as one the same name."
    )


def test_a_name_in_two_forms_of_unicode(tmp_path: Path) -> None:
    (finding,) = find_problems(plant_folders(tmp_path, {"bees": 5, "caf\u00e9": 5, "cafe\u0301": 5}))
    assert finding.message.startswith(
        "Class names that differ only in capitals, blanks or encoding: 1 (cafe\u0301 = caf\u00e9). "
    )


@pytest.mark.parametrize(("largest", "found"), [(19, []), (20, ["Classes of very different sizes, 10 times or more"])])
def test_classes_of_very_different_sizes_are_worth_a_thought_but_not_wrong(
    tmp_path: Path, largest: int, found: list[str]
) -> None:
    folders = {"train/ants": largest, "train/bees": 2, "train/wasps": 5}
    findings = find_problems(
        plant_folders(tmp_path, folders | {f"val/{name}": 1 for name in ("ants", "bees", "wasps")})
    )
    assert [finding.title for finding in findings] == found
    assert not any(finding.is_wrong for finding in findings)
    assert [finding.items for finding in findings] == [("ants 20 to bees 2",)] * len(found)


def test_the_stray_of_a_published_archive_is_known(tmp_path: Path) -> None:
    files = {
        "train/ants/imageNotFound.gif": "a",
        "train/ants/0.jpg": "b",
        "train/bees/0.jpg": "c",
        "train/bees/1.jpg": "d",
    }
    val = {"val/ants/0.jpg": "e", "val/bees/0.jpg": "f"}
    finding = find_problems(plant(tmp_path, files | val))[0]
    assert (finding.title, finding.items) == ("Files that belong to no class", ("train/ants/imageNotFound.gif",))
    assert list(finding.leave_out) == [tmp_path / "train/ants/imageNotFound.gif"]


def test_empty_folders(tmp_path: Path) -> None:
    (tmp_path / "train/wasps").mkdir(parents=True)
    (tmp_path / "val/bees").mkdir(parents=True)
    index = plant_folders(tmp_path, {"train/ants": 3, "train/bees": 3, "val/ants": 1})
    finding = find_problems(index)[-1]
    assert finding.message == "Folders without images of a class: 2 (train/wasps, val/bees)."
    assert finding.paths == (tmp_path / "train/wasps", tmp_path / "val/bees")


def test_a_misspelt_split_folder(tmp_path: Path) -> None:
    index = plant_folders(tmp_path, {"train/ants": 9, "train/bees": 9, "vaild/ants": 3, "vaild/bees": 3})
    (finding,) = find_problems(index)
    assert finding.message == "Misspelt split folders: 1 (vaild (val?)). They are not used as splits: rename them."


def test_an_unused_split_is_worth_a_thought(insects: ImageIndex) -> None:
    (finding,) = find_problems(replace(insects, unused_splits=("is_valid",)))
    assert finding.message == (
        "Columns that look like a split and are not used: 1 (is_valid). "
        "Images are split at random instead: dataset.csv_split=is_valid goes by it."
    )
    assert not finding.is_wrong


def test_where_all_images_are_judged_none_is_said_to_be_split_off(insects: ImageIndex) -> None:
    index = replace(insects, splits={"images": insects.samples}, unused_splits=("is_valid",))
    (finding,) = find_problems(index)
    assert finding.advice == "All images are judged alike: --csv-split=is_valid goes by it."


def test_groups_that_the_splits_of_the_data_tear(tmp_path: Path) -> None:
    lines = [
        "a,ants,train,p1",
        "b,bees,train,p2",
        "c,ants,train,p1",
        "d,bees,train,p2",
        "e,ants,val,p1",
        "f,bees,val,p3",
    ]
    lines += ["g,bees,test,p2", "h,ants,test,p1"]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label,split,patient", *lines]))
    files = {line[0]: line for line in lines}
    (finding,) = find_problems(plant(tmp_path, files, csv="labels.csv", csv_group="patient"))
    assert (finding.title, finding.is_wrong) == ("Groups of dataset.csv_group in several splits", True)
    assert finding.items == ("p1 (test, train, val)", "p2 (test, train)")
    assert not find_problems(plant(tmp_path, files, csv="labels.csv"))
    (finding,) = find_problems(survey(tmp_path, DatasetConfig(csv="labels.csv", csv_group="patient")))
    assert finding.title == "Groups of dataset.csv_group in several splits"


def test_missing_files_do_not_stop_the_search_for_copies(insects: ImageIndex) -> None:
    (insects.root / "train/ants/0.jpg").unlink()
    assert find_problems(insects) == []


# Unreadable files


def test_unreadable_files_are_found_with_their_reasons(tmp_path: Path) -> None:
    index = plant_folders(tmp_path, {"train/ants": 3, "train/bees": 2, "val/ants": 2})
    for sample in [*index.splits["train"], *index.splits["val"]]:
        Image.effect_noise((32, 32), 50).save(sample.path)
    truncated, html, missing = (tmp_path / name for name in ("train/bees/1.jpg", "train/ants/2.jpg", "val/ants/0.jpg"))
    truncated.write_bytes(truncated.read_bytes()[:-100])
    html.write_text("<html>404</html>")
    missing.unlink()
    bad = find_unreadable(index, True)
    assert list(bad) == [html, truncated, missing]
    assert bad[html] == "its contents are in no image format that Thaw reads"
    assert bad[truncated].startswith("image file is truncated")
    assert bad[missing] == "No such file or directory"


def test_of_very_many_files_only_the_headers_are_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = plant_folders(tmp_path, {"train/ants": 3, "train/bees": 2, "val/ants": 1})
    for sample in [*index.splits["train"], *index.splits["val"]]:
        Image.effect_noise((32, 32), 50).save(sample.path)
    truncated, html = (tmp_path / name for name in ("train/bees/1.jpg", "train/ants/2.jpg"))
    truncated.write_bytes(truncated.read_bytes()[:-100])
    html.write_text("<html>404</html>")
    monkeypatch.setattr("thaw.data.unreadable.MOST_READ", 6)
    assert are_read_whole(index, "error")
    assert list(find_unreadable(index, True)) == [html, truncated]
    monkeypatch.setattr("thaw.data.unreadable.MOST_READ", 5)
    assert not are_read_whole(index, "error")
    assert are_read_whole(index, "skip")
    with caplog.at_level("INFO", logger="thaw"):
        assert list(find_unreadable(index, False)) == [html]
    assert caplog.messages == [f"6 files: their headers are checked. `thaw check {tmp_path}` reads each to its end"]


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


def test_unreadable_files_are_skipped_and_named(insects: ImageIndex, caplog: pytest.LogCaptureFixture) -> None:
    bad = {insects.root / "train/ants/1.jpg": "reason 1", insects.root / "val/bees/0.jpg": "reason 2"}
    index = drop_unreadable(insects, bad, "skip")
    assert caplog.messages == [
        "2 of 8 files cannot be read as images and are left out:\n"
        "  train/ants/1.jpg: reason 1\n"
        "  val/bees/0.jpg: reason 2"
    ]
    name, ignored = insects.root.name, "2 files ignored (unreadable: train/ants/1.jpg, val/bees/0.jpg)"
    assert facts(index) == f"{name}: train 4 (ants 2, bees 2), val 2 (ants 2, bees 0); {ignored}"
    assert not {path for samples in index.splits.values() for path, _ in samples} & set(bad)
    assert len(insects.splits["train"]) == 5


def test_of_very_many_skipped_files_the_first_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    index = plant_folders(tmp_path, {"train/ants": 20, "train/bees": 2, "val/ants": 1})
    drop_unreadable(index, {tmp_path / f"train/ants/{i}.jpg": f"reason {i}" for i in range(12)}, "skip")
    *_, tenth, more = caplog.messages[0].splitlines()
    assert tenth == "  train/ants/9.jpg: reason 9"
    assert more == f"  … and 2 more: `thaw check {tmp_path} --fix` lists all"


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


def test_lines_that_repeat_others_are_told_and_their_images_kept(tmp_path: Path) -> None:
    plant_folders(tmp_path, {"ants": 9, "bees": 9})
    lines = [f"{name}/{i}.jpg,{name}" for name in ("ants", "bees") for i in range(9)]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label", *lines, lines[0]]))
    options = DatasetConfig(csv="labels.csv", on_bad="skip")
    (finding,) = [each for each in find_problems(survey(tmp_path, options)) if each.title.startswith("Lines")]
    assert finding.message.startswith("Lines of the CSV file that repeat an earlier one: 1 (ants/0.jpg).")
    assert finding.paths == ()
