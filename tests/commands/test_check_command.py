import csv
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from shutil import copy, copytree

import pytest
from omegaconf import DictConfig
from PIL import Image

from thaw.cli import main
from thaw.config import DatasetConfig
from thaw.data.datamodule import ImageDataModule
from thaw.data.index import build_index
from thaw.data.places import locate
from thaw.data.transforms import EvaluationTransform


@pytest.fixture
def dirty(image_folder: Path, tmp_path: Path) -> Path:
    """The images with a damaged one, a copy of a validation image in train, and one with two labels."""
    root = copytree(image_folder, tmp_path / "photos")
    copy(root / "val/red/0.png", root / "train/red/leak.png")
    copy(root / "train/red/1.png", root / "train/blue/red.png")
    (root / "train/green/0.png").write_text("<html>404</html>")
    return root


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, which is not the data's."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def contents(root: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_a_sound_folder_is_said_to_be(image_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(image_folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("train 18 (blue 4, green 6, red 8), val 9 (blue 3, green 3, red 3)")
    assert lines[1:] == ["PNG 27", "", "Nothing is wrong."]


def test_what_is_wrong_is_told_and_nothing_changed(dirty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(dirty)
    assert main(["check", str(dirty)]) == 1
    printed = capsys.readouterr().out
    assert "Files that cannot be read as images: 1." in printed
    assert "  train/red/leak.png = val/red/0.png\n" in printed
    assert "  train/blue/red.png = train/red/1.png\n" in printed
    assert printed.endswith(
        f"3 kinds of mistake, 4 images to leave out\nList them for dataset.exclude: thaw check {dirty} --fix\n"
    )
    assert contents(dirty) == before


def test_the_list_of_a_fix_makes_the_folder_sound_and_training_reads_it(
    dirty: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(dirty)
    assert main(["check", str(dirty), "--fix"]) == 1
    option = f"dataset.exclude={here / 'exclude.csv'}"
    assert capsys.readouterr().out.endswith(f"\nexclude.csv lists them. Train with {option}\n")
    assert contents(dirty) == before
    with (here / "exclude.csv").open(newline="") as file:
        names = [row["path"] for row in csv.DictReader(file)]
    assert names == ["train/blue/red.png", "train/green/0.png", "train/red/1.png", "train/red/leak.png"]

    assert main(["check", str(dirty), "--exclude", "exclude.csv"]) == 0
    for exclude in (str(here / "exclude.csv"), "exclude.csv"):
        data = ImageDataModule(DatasetConfig(root=str(dirty), exclude=exclude), EvaluationTransform(64, 64))
        data.setup()
        used = {data.index.place(sample.path) for samples in data.index.splits.values() for sample in samples}
        assert len(used) == 25
        assert not used & set(names)


def test_a_list_within_the_data_is_named_as_seen_from_there(dirty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(dirty), "--fix", str(dirty / "list.csv")]) == 1
    assert capsys.readouterr().out.endswith(f"{dirty / 'list.csv'} lists them. Train with dataset.exclude=list.csv\n")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("name,age\nbee,3\n", "exclude.csv is there already and no list of images to leave out. Name another: --fix"),
        ("path,reason\ncats/1.jpg,tiny\n", "exclude.csv is a list of other data: none of its files is in "),
    ],
)
def test_another_file_is_not_overwritten(
    dirty: Path, here: Path, content: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "exclude.csv").write_text(content)
    assert main(["check", str(dirty), "--fix"]) == 2
    assert capsys.readouterr().err.startswith(message)
    assert (here / "exclude.csv").read_text() == content


def test_a_further_list_has_what_was_left_out_before(dirty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    known = dirty / "exclude.csv"
    known.write_text("path,reason\ntrain/green/1.png,blurred\n")
    assert main(["check", str(dirty), "--exclude", str(known)]) == 1
    assert capsys.readouterr().out.endswith(f"dataset.exclude: thaw check {dirty} --exclude {known} --fix\n")
    assert main(["check", str(dirty), "--exclude", str(known), "--fix"]) == 1
    assert known.read_text() == "path,reason\ntrain/green/1.png,blurred\n"
    known = Path("exclude.csv")
    with known.open(newline="") as file:
        reasons = {row["path"]: row["reason"] for row in csv.DictReader(file)}
    assert reasons["train/green/1.png"] == "blurred"
    assert "train/green/0.png" in reasons
    assert main(["check", str(dirty), "--exclude", str(known)]) == 0


def test_what_is_to_be_typed_can_be_typed(
    image_folder: Path, tmp_path: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flat = tmp_path / "my photos"
    copytree(image_folder / "train" / "red", flat)
    copy(flat / "0.png", flat / "9.png")
    assert main(["check", str(flat), "--label-pattern", "([0-9])"]) == 1
    command = capsys.readouterr().out.splitlines()[-1].partition("thaw ")[2]
    assert main(shlex.split(command)) == 1
    assert capsys.readouterr().out.endswith(f"Train with dataset.exclude={here / 'exclude.csv'}\n")


@pytest.mark.parametrize("name", ["lists, (1)", "it's größer", "a=b"])
def test_the_option_that_is_printed_can_be_typed(
    dirty: Path, name: str, compose: Callable[..., DictConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    file = dirty.parent / f"{name}.csv"
    assert main(["check", str(dirty), "--fix", str(file)]) == 1
    option = capsys.readouterr().out.rpartition("Train with ")[2]
    assert compose(*shlex.split(option)).dataset.exclude == str(file)


def test_a_list_elsewhere_is_named_in_full(dirty: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["check", str(dirty), "--fix", str(tmp_path / "list.csv")])
    assert capsys.readouterr().out.endswith(f"Train with dataset.exclude={tmp_path / 'list.csv'}\n")
    assert main(["check", str(dirty), "--exclude", str(tmp_path / "list.csv")]) == 0


@pytest.mark.parametrize("folder", ["", "large/"])
def test_a_folder_too_high_is_told_of(
    image_folder: Path, tmp_path: Path, folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    copytree(image_folder / "train", tmp_path / f"data/photos/{folder}")
    assert main(["check", str(tmp_path / "data")]) == 1
    place = (tmp_path / "data/photos" / folder).as_posix()
    assert (
        "\nImages of one class only: 1. Training needs two classes at least. If the classes are the folders in it, set "
        f"dataset.root={place}.\n  photos\n"
    ) in capsys.readouterr().out
    assert main(["check", str(tmp_path / "data/photos" / folder)]) == 0


def test_folders_in_class_folders_are_no_mistake(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for place in ("warm/red", "cold/blue", "cold/green"):
        copytree(image_folder / "train" / Path(place).name, tmp_path / "data" / place)
    assert main(["check", str(tmp_path / "data")]) == 0
    printed = capsys.readouterr().out
    assert "\nClass folders that hold folders: 1. All images in them are of that one class" in printed
    assert "\n  cold (blue, green)\n\nNothing is wrong.\n" in printed


def test_one_class_without_folders_in_it(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copytree(image_folder / "train/red", tmp_path / "data/red")
    assert main(["check", str(tmp_path / "data")]) == 1
    assert "\nImages of one class only: 1. Training needs two classes at least.\n  red\n" in (capsys.readouterr().out)


def test_a_table_beside_the_images_is_named(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in ("flat/train", "deep/images"):
        root = copytree(image_folder / "train/red", tmp_path / folder).parent
        (root / "labels.csv").write_text("path,label\n")
    assert main(["check", str(tmp_path / "flat")]) == 2
    assert capsys.readouterr().err.endswith(" labels.csv lies there: set --csv=labels.csv.\n")
    assert main(["check", str(tmp_path / "deep")]) == 1
    assert "two classes at least. labels.csv lies there: set dataset.csv=labels.csv.\n" in capsys.readouterr().out


def test_labels_may_be_in_a_table_or_in_the_names(image_folder: Path, tmp_path: Path) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    rows = ["path,label,split"]
    for path in image_folder.rglob("*.png"):
        split, label, _ = path.relative_to(image_folder).parts
        copy(path, flat / f"{label}_{split}_{path.name}")
        rows.append(f"flat/{label}_{split}_{path.name},{label},{split}")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    assert main(["check", str(flat), "--pattern", "^([a-z]+)_"]) == 0
    assert main(["check", str(flat), "--csv", str(tmp_path / "labels.csv")]) == 0
    assert main(["check", str(tmp_path), "--csv", "labels.csv"]) == 0


def test_a_table_may_have_other_columns(image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [path.relative_to(image_folder).parts for path in sorted(image_folder.rglob("*.png"))]
    lines = [f"{split}/{kind}/{Path(name).stem},{kind},{split == 'val'}" for split, kind, name in rows]
    table = tmp_path / "labels.csv"
    table.write_text("\n".join(["id,kind,is_valid", *lines, "val/red/gone,red,True"]))
    path = f"{image_folder}/{{id}}.png"
    flags = ["--csv", str(table), "--csv-path", path, "--csv-label", "kind", "--csv-split", "is_valid"]
    assert main(["check", str(image_folder), *flags]) == 1
    assert "Lines of the CSV file whose image does not exist: 1. " in capsys.readouterr().out
    table.write_text("\n".join(["id,kind,is_valid", *lines]))
    assert main(["check", str(image_folder), *flags]) == 0
    assert "train 18 (blue 4, green 6, red 8), val 9 (blue 3, green 3, red 3)" in capsys.readouterr().out
    assert main(["check", str(image_folder), *flags, "--min-size", "500"]) == 1
    command = capsys.readouterr().out.splitlines()[-1].partition("thaw ")[2]
    assert main(shlex.split(command)) == 1
    assert "exclude.csv lists them" in capsys.readouterr().out


def test_lines_of_a_table_without_a_file_or_a_label_are_listed(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [f"{path},{path.parent.name}" for path in sorted(image_folder.rglob("*.png"))]
    lines[0] = lines[0].partition(",")[0] + ","
    lost = [f"gone/{number}.png" for number in range(5)]
    table = tmp_path / "labels.csv"
    table.write_text("\n".join(["path,label", *lines, *(f"{name},grey" for name in lost)]) + "\n")
    assert main(["check", str(tmp_path), "--csv", str(table)]) == 1
    printed, errors = capsys.readouterr()
    assert "Lines of the CSV file without a label: 1. " in printed
    assert "Lines of the CSV file whose image does not exist: 5. " in printed
    assert all(f"  {name}\n" in printed for name in lost)
    assert printed.endswith("2 kinds of mistake, 0 images to leave out\n")
    assert not errors


def test_the_folder_may_be_a_link(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copytree(image_folder, tmp_path / "disk/deep/photos")
    copy(image_folder / "val/red/0.png", tmp_path / "disk/deep/photos/train/red/leak.png")
    rows = [
        f"photos/{path.relative_to(image_folder).as_posix()},{path.parent.name}" for path in image_folder.rglob("*.png")
    ]
    (tmp_path / "photos").symlink_to("disk/deep/photos")
    (tmp_path / "labels.csv").write_text("\n".join(["path,label", *rows, "photos/train/red/leak.png,red"]))
    monkeypatch.chdir(tmp_path)
    assert main(["check", "photos", "--fix"]) == 1
    assert main(["check", "photos", "--exclude", "exclude.csv"]) == 0
    capsys.readouterr()
    assert main(["check", "photos", "--csv", "labels.csv"]) == 1
    assert "\n  photos/train/red/leak.png = photos/val/red/0.png\n" in capsys.readouterr().out
    assert main(["check", "photos", "--csv", "labels.csv", "--fix", "for_csv.csv"]) == 1
    assert "Train with dataset.exclude=for_csv.csv\n" in capsys.readouterr().out
    options = DatasetConfig(root="photos", csv="labels.csv", exclude="for_csv.csv")
    index = build_index(Path(locate(options).root), locate(options))  # as a training does
    assert [path.name for path in index.ignored["excluded"]] == ["leak.png"]
    for exclude in ("for_csv.csv", str(tmp_path / "for_csv.csv")):
        assert main(["check", "photos", "--csv", "labels.csv", "--exclude", exclude]) == 0


def test_a_csv_file_is_checked_as_a_training_takes_it(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = copytree(image_folder, tmp_path / "photos")
    rows = [f"{path.relative_to(photos).as_posix()},{path.parent.name}" for path in photos.rglob("*.png")]
    (photos / "labels.csv").write_text("\n".join(["path,label", *rows]))
    assert main(["check", str(photos / "labels.csv")]) == 0
    printed = capsys.readouterr().out
    assert main(["check", str(photos), "--csv", "labels.csv"]) == 0
    assert printed == capsys.readouterr().out


def test_where_nothing_is_to_be_left_out_no_list_is_written(
    image_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", str(image_folder), "--fix"]) == 0
    assert capsys.readouterr().out.endswith("No image is to be left out, so exclude.csv is not written.\n")
    assert not Path("exclude.csv").exists()


def test_what_was_added_to_a_list_by_hand_is_kept(
    dirty: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(dirty)
    assert main(["check", ".", "--fix"]) == 1
    assert main(["check", ".", "--fix"]) == 1  # anew, with the same
    made = Path("exclude.csv").read_text()
    Path("exclude.csv").write_text(made + '"train/blue/0.png","mine: blurred"\n')
    capsys.readouterr()
    assert main(["check", ".", "--fix"]) == 2
    assert capsys.readouterr().err == (
        "exclude.csv names 1 of the images for reasons of its own: train/blue/0.png. Keep them by --exclude "
        "exclude.csv, or name another file: --fix FILE.\n"
    )
    assert main(["check", ".", "--exclude", "exclude.csv", "--fix"]) in (0, 1)
    assert "mine: blurred" in Path("exclude.csv").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "FOLDER must be a folder that exists, got 'nowhere'."),
        (["my labels.csv"], "--csv must have the columns path and label: my labels.csv has file, kind. Others are "),
        (["train/red/0.png"], "FOLDER must be a folder or a CSV file, got the file 'train/red/0.png'.\n"),
        (
            [".", "--csv", "my labels.csv"],
            "--csv must have the columns path and label: my labels.csv has file, kind. Others are named by "
            "--csv-path='folder/{column}.jpg' and --csv-label=column.",
        ),
        ([".", "--csv-label", "kind"], "--csv must be given beside --csv-label, got None."),
        ([".", "--csv", "my labels.csv", "--csv-path", "file"], "--csv-path must be made of columns in braces, such "),
        ([".", "--label-pattern", "("], "--label-pattern is no regular expression: '('"),
        ([".", "--pattern", "("], "--label-pattern is no regular expression: '('"),
        ([".", "--csv", "none.csv"], "--csv cannot be read: none.csv ("),
        ([".", "--exclude", "none.csv"], "--exclude cannot be read: none.csv ("),
    ],
)
def test_misuse(
    arguments: list[str],
    message: str,
    image_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(copytree(image_folder, tmp_path / "photos"))
    Path("my labels.csv").write_text("file,kind\n")
    assert main(["check", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith(message)
    assert not re.search("--[a-z]+_", error)  # options that have no flag go by their own names
    assert "data's root" not in error  # paths of flags are seen from where one is


def test_images_that_look_the_same_are_told_and_with_near_left_out(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = copytree(image_folder, tmp_path / "photos")
    photo = Image.effect_noise((8, 6), 100).resize((160, 120))
    photo.save(root / "val/red/photo.png")
    photo.resize((80, 60)).save(root / "train/red/smaller.png")
    assert main(["check", str(root)]) == 0
    assert "  train/red/smaller.png ~ val/red/photo.png\n" in capsys.readouterr().out
    assert main(["check", str(root), "--near"]) == 1
    assert capsys.readouterr().out.endswith(f"List them for dataset.exclude: thaw check {root} --near --fix\n")
    assert main(["check", str(root), "--near", "--fix"]) == 1
    assert '"train/red/smaller.png","looks the same as val/red/photo.png"' in Path("exclude.csv").read_text()
    assert main(["check", str(root), "--exclude", "exclude.csv"]) == 0
    assert capsys.readouterr().out.endswith("Nothing is wrong.\n")
