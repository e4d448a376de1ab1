from collections.abc import Sequence
from pathlib import Path

import pytest
import sklearn.model_selection  # noqa: F401  (slow: here, it counts for no test)
from test_index import error_of, index_of, names, plant, sizes
from test_scan import ignored

from thaw.config import DatasetConfig
from thaw.data.check import find_problems
from thaw.data.index import survey
from thaw.errors import ThawError

# File-name pattern

PETS = "^(.+)_[0-9]+[.]"


def plant_pets(folder: Path) -> None:
    folder.mkdir(parents=True)
    for name in ("Bengal", "scottish_terrier"):
        for i in range(10):
            (folder / f"{name}_{i}.jpg").touch()


@pytest.mark.parametrize("folder", ["", "images", "deep/er"])
def test_pattern_finds_the_class_in_the_file_name(tmp_path: Path, folder: str) -> None:
    plant_pets(tmp_path / "pets" / folder)
    index = index_of(tmp_path / "pets", label_pattern=PETS)
    assert sizes(index) == {
        "train": {"Bengal": 8, "scottish_terrier": 8},
        "val": {"Bengal": 2, "scottish_terrier": 2},
    }


def test_pattern_looks_only_into_images_where_there_is_such_a_folder(tmp_path: Path) -> None:
    plant_pets(tmp_path / "images")
    plant(tmp_path, {"annotations/trimaps": 3})
    index = index_of(tmp_path, label_pattern=PETS)
    assert len(index.splits["train"]) == 16
    assert ignored(index) == {"outside images/": 1}


def test_a_folder_images_beside_splits_is_none_of_them(tmp_path: Path) -> None:
    for folder in ("train", "val", "images"):
        plant_pets(tmp_path / folder)
    index = index_of(tmp_path, label_pattern=PETS)
    assert {split: len(samples) for split, samples in index.splits.items()} == {"train": 20, "val": 20}
    assert ignored(index) == {"outside the splits": 1}


def test_pattern_in_split_folders(tmp_path: Path) -> None:
    plant_pets(tmp_path / "train")
    plant_pets(tmp_path / "val")
    assert len(index_of(tmp_path, label_pattern=PETS).splits["val"]) == 20


def test_pattern_that_does_not_match_every_file(tmp_path: Path) -> None:
    plant_pets(tmp_path / "images")
    plant(tmp_path / "images", {"": 7})
    assert error_of(tmp_path, label_pattern=PETS) == (
        f"dataset.label_pattern='{PETS}' finds no class in 7 of 27 file names: "
        "000.jpg, 001.jpg, 002.jpg, 003.jpg, 004.jpg and 2 more."
    )


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        (
            "(a",
            "dataset.label_pattern is no regular expression: '(a' (missing ), unterminated subpattern at position 0).",
        ),
        ("a", "dataset.label_pattern must have one group, got 0 in 'a'."),
        ("(a)(b)", "dataset.label_pattern must have one group, got 2 in '(a)(b)'."),
    ],
)
def test_pattern_must_be_one_with_one_group(tmp_path: Path, pattern: str, message: str) -> None:
    plant_pets(tmp_path / "images")
    assert error_of(tmp_path, label_pattern=pattern) == message


def test_pattern_without_images(tmp_path: Path) -> None:
    assert error_of(tmp_path, label_pattern=PETS) == f"dataset.root has no images: {tmp_path}."


# CSV


def write_csv(root: Path, text: str, encoding: str = "utf-8") -> None:
    (root / "labels.csv").write_text(text, encoding=encoding)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_csv_with_splits(tmp_path: Path, encoding: str) -> None:
    plant(tmp_path, {"images": 6})
    write_csv(
        tmp_path,
        'path,label,split,remark\nimages/000.jpg,bees,train,\n"images/001.jpg", ants ,train,"a, b"\n'
        "images/002.jpg,ants,valid,\nimages/003.jpg,ants,Validation,\nimages/004.jpg,bees,val,\nimages/005.jpg,bees,test,\n",
        encoding,
    )
    index = index_of(tmp_path, csv="labels.csv")
    assert sizes(index) == {"train": {"ants": 1, "bees": 1}, "val": {"ants": 2, "bees": 1}, "test": {"bees": 1}}


def test_csv_without_splits_is_split_whatever_its_order(tmp_path: Path) -> None:
    plant(tmp_path / "data", {"images": 20})
    lines = [f"images/{i:03}.jpg,{'ants' if i < 10 else 'bees'}\n" for i in range(20)]
    write_csv(tmp_path / "data", "path,label\n" + "".join(lines))
    index = index_of(tmp_path, csv=str(tmp_path / "data/labels.csv"))
    assert sizes(index) == {"train": {"ants": 8, "bees": 8}, "val": {"ants": 2, "bees": 2}}
    write_csv(tmp_path / "data", "path,label\n" + "".join(reversed(lines)))
    assert index_of(tmp_path, csv="data/labels.csv") == index


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (("10", "2", "-1"), ("-1", "2", "10")),
        (("10", "02", "2"), ("02", "2", "10")),
        (("10", "2", "x"), ("10", "2", "x")),
        (("10", "2", "²"), ("10", "2", "²")),
    ],
)
def test_labels_that_are_whole_numbers_are_classes_in_their_order(
    tmp_path: Path, labels: tuple[str, ...], classes: tuple[str, ...]
) -> None:
    plant(tmp_path, {"": 12})
    (tmp_path / "labelled").mkdir()
    for i in range(12):
        (tmp_path / "labelled" / f"{labels[i % 3]}_{i}.jpg").touch()
    write_csv(tmp_path, "path,label\n" + "".join(f"{i:03}.jpg,{labels[i % 3]}\n" for i in range(12)))
    options = {"csv": "labels.csv", "val_fraction": 0.5}
    index = index_of(tmp_path, **options)
    assert index.classes == survey(tmp_path, DatasetConfig(csv="labels.csv")).classes == classes
    assert sizes(index)["train"] == dict.fromkeys(sorted(labels), 2)
    assert index_of(tmp_path / "labelled", label_pattern="^(.+)_", val_fraction=0.5).classes == classes


def test_folders_that_are_called_by_whole_numbers_are_sorted_as_those_of_torchvision(tmp_path: Path) -> None:
    plant(tmp_path, {"2": 5, "10": 5})
    assert index_of(tmp_path).classes == ("10", "2")


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_csv_may_be_separated_by_semicolons_or_tabs(tmp_path: Path, delimiter: str) -> None:
    plant(tmp_path, {"images": 4})
    lines = [["file", "kind, of insect", "split"]]
    lines += [[f"{i:03}.jpg", "ants" if i < 2 else "bees", "val" if i % 2 else "train"] for i in range(4)]
    text = "\n".join(map(delimiter.join, lines))
    write_csv(tmp_path, text, encoding="utf-8-sig")
    index = index_of(tmp_path, csv="labels.csv", csv_path="images/{file}", csv_label="kind, of insect")
    assert sizes(index) == {"train": {"ants": 1, "bees": 1}, "val": {"ants": 1, "bees": 1}}


@pytest.mark.parametrize(
    ("column", "train", "val"),
    [
        ("is_valid", "False", "True"),
        ("is_valid", "0", "1"),
        ("Set", "train", "valid"),
        ("is_train", "true", "false"),
        ("fold", "Train", "VALIDATION"),
        ("fold", "Training", "val"),
    ],
)
def test_csv_split_names_the_column_of_the_splits(tmp_path: Path, column: str, train: str, val: str) -> None:
    plant(tmp_path, {"": 8})
    lines = [f"{i:03}.jpg,{'ants' if i < 4 else 'bees'},{val if i % 4 == 3 else train}\n" for i in range(8)]
    write_csv(tmp_path, f"path,label,{column}\n" + "".join(lines))
    index = index_of(tmp_path, csv="labels.csv", csv_split=column)
    assert names(index, "val") == ["003.jpg", "007.jpg"]
    assert len(names(index, "train")) == 6
    assert index.unused_splits == ()


def test_csv_split_may_tell_test_from_train(tmp_path: Path) -> None:
    plant(tmp_path, {"": 8})
    lines = [f"{i:03}.jpg,{'ants' if i < 4 else 'bees'},{i % 4 == 3}\n" for i in range(8)]
    write_csv(tmp_path, "path,label,is_test\n" + "".join(lines))
    index = index_of(tmp_path, csv="labels.csv", csv_split="is_test", val_fraction=0.4)
    assert names(index, "test") == ["003.jpg", "007.jpg"]
    assert sorted(index.splits) == ["test", "train", "val"]


def test_csv_split_names_another_column_than_split(tmp_path: Path) -> None:
    plant(tmp_path, {"": 3})
    write_csv(tmp_path, "path,label,split,fold\n000.jpg,ants,val,train\n001.jpg,bees,val,train\n002.jpg,ants,val,val\n")
    assert names(index_of(tmp_path, csv="labels.csv", csv_split="fold"), "val") == ["002.jpg"]


def test_csv_split_that_is_not_there_or_cannot_be_read(tmp_path: Path) -> None:
    plant(tmp_path, {"": 3})
    write_csv(tmp_path, "path,label,fold\n000.jpg,ants,1\n")
    assert error_of(tmp_path, csv="labels.csv", csv_split="is_valid") == (
        "dataset.csv must have the columns path, label and is_valid: "
        f"{tmp_path}/labels.csv has path, label, fold. Others are named by dataset.csv_split=column."
    )
    assert error_of(tmp_path, csv="labels.csv", csv_split="fold") == (
        f"dataset.csv: {tmp_path}/labels.csv, line 2: fold must be train, val or test, got '1'."
    )
    write_csv(tmp_path, "path,label,is_valid\n000.jpg,ants,2\n")
    assert error_of(tmp_path, csv="labels.csv", csv_split="is_valid") == (
        f"dataset.csv: {tmp_path}/labels.csv, line 2: is_valid must be train, val or test, or true (val) or "
        "false (train), got '2'."
    )


@pytest.mark.parametrize(
    ("column", "values"),
    [
        *[(name, "01") for name in ("is_valid", "valid", "is_train")],
        ("Usage", ["Training", "PublicTest"]),
        *[(name, ["Train", " validation"]) for name in ("Split", "set", "Subset", "partition", "fold", "data set")],
    ],
)
def test_a_column_that_looks_like_a_split_and_is_not_used_is_told(
    tmp_path: Path, column: str, values: Sequence[str]
) -> None:
    plant(tmp_path, {"": 10})
    lines = [f"{i:03}.jpg,{'ants' if i < 5 else 'bees'},{values[i % 2]}\n" for i in range(10)]
    write_csv(tmp_path, f"path,label,{column}\n" + "".join(lines))
    assert index_of(tmp_path, csv="labels.csv").unused_splits == (column,)
    write_csv(tmp_path, f"path,{column},validity,settlement\n" + "".join(lines).replace("\n", ",1\n"))
    assert index_of(tmp_path, csv="labels.csv", csv_label=column).unused_splits == ()


@pytest.mark.parametrize("column", ["fold", "k-fold", "phase", "set"])
def test_a_column_of_numbers_tells_no_split_and_is_not_advised(tmp_path: Path, column: str) -> None:
    plant(tmp_path, {"": 10})
    lines = [f"{i:03}.jpg,{'ants' if i < 5 else 'bees'},{i % 5},{'test' if i % 5 else 'train'}\n" for i in range(10)]
    write_csv(tmp_path, f"path,label,{column},usage\n" + "".join(lines))
    assert index_of(tmp_path, csv="labels.csv").unused_splits == ("usage",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        *(
            (
                f"file{delimiter}{label}\n",
                f"dataset.csv must have the columns path and label: {{file}} has file, {label}. Others are named by "
                f"dataset.csv_path='folder/{{{{column}}}}.jpg'{also}.",
            )
            for delimiter, label, also in (
                (";", "label", ""),
                (",", "label", ""),
                (",", "name", " and dataset.csv_label=column"),
            )
        ),
        (
            "path,label\n000.jpg,ants\n001.jpg,\n",
            "dataset.csv: {file} has 1 of 2 lines without a label: 001.jpg (line 3). "
            "Fix or remove them; dataset.on_bad=skip leaves them out.",
        ),
        (
            "path,label\n000.jpg\n9.jpg,ants\n1/8.jpg,ants\n001.jpg,bees\n7.jpg,ants\n6.jpg,\n5.jpg,ants\n4.jpg,bees\n",
            "dataset.csv: {file} has 2 of 8 lines without a label: 000.jpg (line 2), 6.jpg (line 7); "
            "5 of 8 lines of a file that does not exist, as seen from {root}: "
            "9.jpg (line 3), 1/8.jpg (line 4), 7.jpg (line 6) and 2 more. "
            "Fix or remove them; dataset.on_bad=skip leaves them out.",
        ),
        (
            "path,label,split\n000.jpg,ants,dev\n",
            "dataset.csv: {file}, line 2: split must be train, val or test, got 'dev'.",
        ),
        (
            "path,label\n000.jpg,ants\n000.jpg,bees\n",
            "dataset.csv: {file}, line 3 says 'bees' of an image of which an earlier line says 'ants': {root}/000.jpg.",
        ),
        (
            "path,label,split\n000.jpg,ants,train\n000.jpg,ants,val\n",
            "dataset.csv: {file}, line 3 says 'val' of an image of which an earlier line says 'train': {root}/000.jpg.",
        ),
        (
            "path,label\n000.jpg,ants\n001.jpg,bees\n000.jpg,ants\n",
            "dataset.csv: {file} has 1 of 3 lines that repeat an earlier one: 000.jpg (line 4). "
            "Fix or remove them; dataset.on_bad=skip leaves them out.",
        ),
        (
            "path,label\nants\\0.jpg,ants\n001.jpg,bees\n",
            "dataset.csv: {file} has 1 of 2 lines of a file that does not exist, as seen from {root}: "
            "ants\\0.jpg (line 2). They have backslashes between folders, as Windows writes them: replace them by "
            "slashes.",
        ),
        (
            "path,label,split\n000.jpg,ants,train\n001.jpg,bees,train\n002.jpg,wasps,val\n",
            "val has a class that train lacks: 'wasps' (1 image in labels.csv). "
            "Classes are taken from train: ants, bees. dataset.classes=[ants,bees] leaves it out.",
        ),
        ("path,label\n", "train has no images. The data needs some in a train split, or no splits at all."),
    ],
)
def test_csv_mistakes_are_named(tmp_path: Path, text: str, message: str) -> None:
    plant(tmp_path, {"": 3})
    write_csv(tmp_path, text)
    assert error_of(tmp_path, csv="labels.csv") == message.format(file=tmp_path / "labels.csv", root=tmp_path)


def test_a_column_for_each_label_is_not_what_thaw_reads(tmp_path: Path) -> None:
    write_csv(tmp_path, "path,MEL,NV,age,sex\n000.jpg,1.0,0.0,5,1\n001.jpg,0,1,7,0\n002.jpg,0,1,,m\n")
    start = f"dataset.csv must have the columns path and label: {tmp_path}/labels.csv has path, MEL, NV, age, sex. "
    assert error_of(tmp_path, csv="labels.csv") == (
        f"{start}The columns MEL, NV hold only 0 and 1: Thaw is for one label per image, its name in one column. "
        "Others are named by dataset.csv_label=column."
    )
    write_csv(tmp_path, "path,label,one,two\n000.jpg,ants,0,1\n")
    assert "one label" not in error_of(tmp_path, csv="labels.csv", csv_path="{file}")
    write_csv(tmp_path, "path,one,two\n")
    assert "one label" not in error_of(tmp_path, csv="labels.csv")


def test_lines_without_a_file_or_a_label_can_be_left_out(tmp_path: Path) -> None:
    plant(tmp_path, {"": 20})
    lines = [f"{i:03}.jpg,{'ants' if i % 2 else 'bees'}\n" for i in range(24)]
    write_csv(tmp_path, "path,label\n" + "".join(lines).replace("004.jpg,bees", "004.jpg, "))
    index = index_of(tmp_path, csv="labels.csv", on_bad="skip")
    assert sum(map(len, index.splits.values())) == 19
    assert {why: [path.name for path in paths] for why, paths in index.ignored.items()} == {
        "without a label": ["004.jpg"],
        "missing": ["020.jpg", "021.jpg", "022.jpg", "023.jpg"],
    }
    advice = "dataset.on_bad=skip leaves them out; without it training refuses them."
    assert [finding.message for finding in find_problems(index) if "Lines of the CSV file" in finding.title] == [
        f"Lines of the CSV file whose image does not exist: 4 (020.jpg, 021.jpg, 022.jpg and 1 more). {advice}",
        f"Lines of the CSV file without a label: 1 (004.jpg). {advice}",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\nimages/000.jpg,ants\nimages/001.jpg,bees\n", "train has no images left"),
        ("path,label,split\n000.jpg,ants,train\n001.jpg,bees,train\n8.jpg,bees,val\n", "val has no images left"),
        ("path,label\n000.jpg,ants\n001.jpg,bees\n8.jpg,wasps\n", "train has no images of 'wasps' left"),
        (
            "path,label,split\n000.jpg,ants,train\n001.jpg,bees,train\n8.jpg,wasps,train\n002.jpg,wasps,val\n",
            "train has no images of 'wasps' left",
        ),
    ],
)
def test_not_all_images_of_a_split_or_class_are_left_out(tmp_path: Path, text: str, message: str) -> None:
    plant(tmp_path, {"": 3})
    write_csv(tmp_path, text)
    assert error_of(tmp_path, csv="labels.csv", on_bad="skip").startswith(
        f"{message}: dataset.on_bad=skip leaves out all of its files, such as "
    )


def test_a_class_that_is_not_kept_may_lose_all_images(tmp_path: Path) -> None:
    plant(tmp_path, {"": 10})
    lines = [f"{i:03}.jpg,{'ants' if i < 5 else 'bees'}\n" for i in range(10)]
    write_csv(tmp_path, "path,label\n" + "".join(lines) + "8.jpg,wasps\n")
    assert len(index_of(tmp_path, csv="labels.csv", on_bad="skip", classes=["ants", "bees"]).splits["train"]) == 8


def test_csv_of_which_no_file_exists(tmp_path: Path) -> None:
    plant(tmp_path, {"": 3})
    write_csv(tmp_path, "path,label\n000,ants\n001,bees\n")
    for options, path in ({}, "{path}"), ({"csv_path": "{path}.png"}, "{path}.png"):
        assert error_of(tmp_path, csv="labels.csv", **options).endswith(
            f"(line 3). dataset.csv_path={path} makes these paths of the columns, as seen from the file's folder: "
            f"change it, as to 'FOLDER/{path}', or mend the lines."
        )


def test_a_survey_of_a_csv_of_which_no_file_exists_names_them(tmp_path: Path) -> None:
    plant(tmp_path, {"": 3})
    write_csv(tmp_path, "path,label\n000,ants\n001,bees\n")
    with pytest.raises(ThawError, match=r"^dataset\.root has no images: .*2 files ignored \(missing: 000, 001\)\.$"):
        survey(tmp_path, DatasetConfig(csv="labels.csv", on_bad="skip"))


def test_csv_of_other_columns(tmp_path: Path) -> None:
    plant(tmp_path / "data", {"images": 20})
    lines = [f"{i:03},{'ants' if i < 10 else 'bees'}\n" for i in range(20)]
    write_csv(tmp_path / "data", "image id,breed\n" + "".join(lines))
    options = {"csv": "data/labels.csv", "csv_label": "breed"}
    index = index_of(tmp_path, csv_path="images/{image id}.jpg", **options)
    assert sizes(index) == {"train": {"ants": 8, "bees": 8}, "val": {"ants": 2, "bees": 2}}
    message = error_of(tmp_path, csv_path="images/{image_id}.jpg", **options)
    assert message.startswith(f"dataset.csv must have the columns image_id and breed: {tmp_path}/data/labels.csv has ")


def test_csv_that_cannot_be_read(tmp_path: Path) -> None:
    message = error_of(tmp_path, csv="labels.csv")
    assert message.startswith(f"dataset.csv cannot be read: {tmp_path}/labels.csv (")
    assert message.endswith(f"It was looked for in {tmp_path}.")
    write_csv(tmp_path, f"path,label\n0.jpg,{'a' * 200_000}\n")  # no field of a table is so long
    message = error_of(tmp_path, csv="labels.csv")
    assert message.startswith(f"dataset.csv cannot be read: {tmp_path}/labels.csv (after line 1: field larger than ")


@pytest.mark.parametrize("note", ['"5 mm scale', '"5" mm scale'])
def test_csv_with_a_quote_that_would_swallow_the_lines_behind_it(tmp_path: Path, note: str) -> None:
    plant(tmp_path, {"": 20})
    lines = [f"{i:03}.jpg,{'ants' if i % 2 else 'bees'},{note if i == 8 else 'plain'}\n" for i in range(20)]
    write_csv(tmp_path, "path,label,note\n" + "".join(lines))
    message = error_of(tmp_path, csv="labels.csv")
    assert message.startswith(f"dataset.csv cannot be read: {tmp_path}/labels.csv (after line 9: ")
    assert message.endswith("; is a quote missing there, or one too many?).")


def test_lines_that_repeat_others_are_left_out_where_that_is_asked_for(tmp_path: Path) -> None:
    plant(tmp_path, {"": 20})
    lines = [f"{i:03}.jpg,{'ants' if i % 2 else 'bees'}" for i in range(20)]
    write_csv(tmp_path, "\n".join(["path,label", *lines, *lines[:3]]))
    index = index_of(tmp_path, csv="labels.csv", on_bad="skip")
    assert len(index.samples) == 20
    assert [path.name for path in index.ignored["repeated"]] == ["000.jpg", "001.jpg", "002.jpg"]


def test_csv_with_lines_within_quotes(tmp_path: Path) -> None:
    plant(tmp_path, {"": 2})
    write_csv(tmp_path, 'path,label,note\n000.jpg,ants,"two\nlines, ""quoted"""\n001.jpg,bees,\n001.jpg,bees,\n')
    assert "1 of 3 lines that repeat an earlier one: 001.jpg (line 5)" in error_of(tmp_path, csv="labels.csv")


def test_blanks_behind_a_closing_quote_do_not_count(tmp_path: Path) -> None:
    plant(tmp_path, {"": 2})
    write_csv(tmp_path, '"path" ,"label" \n"000.jpg" ,"ants" \n001.jpg, "bees" \n')
    assert survey(tmp_path, DatasetConfig(csv="labels.csv")).classes == ("ants", "bees")


def test_columns_that_differ_by_blanks_alone_are_refused(tmp_path: Path) -> None:
    plant(tmp_path, {"": 2})
    write_csv(tmp_path, "path,label,label \n000.jpg,ants,x\n001.jpg,bees,x\n")
    assert "two columns are called 'label', but for blanks around it" in error_of(tmp_path, csv="labels.csv")


def test_blanks_around_names_of_columns_do_not_count(tmp_path: Path) -> None:
    plant(tmp_path, {"": 3})
    write_csv(tmp_path, "path , label,split \n000.jpg,ants,Valid\n001.jpg,bees,train\n002.jpg,ants,train\n")
    assert names(index_of(tmp_path, csv="labels.csv"), "val") == ["000.jpg"]


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_csv_of_another_encoding(tmp_path: Path, encoding: str) -> None:
    write_csv(tmp_path, "path,label\né.jpg,a\n", encoding)
    message = error_of(tmp_path, csv="labels.csv")
    start = f"dataset.csv must be in UTF-8, as spreadsheets save by 'CSV UTF-8', got {tmp_path}/labels.csv ("
    assert message.startswith(start)
    assert message.endswith(" byte).")  # where the file lies is not the mistake
