import csv
import shutil
from pathlib import Path

import pytest

from thaw.cli import main
from thaw.config import DatasetConfig
from thaw.data.index import ImageIndex, build_index
from thaw.data.shards import Shards
from thaw.errors import ThawError
from thaw.export import images_for_proof
from thaw.run import Run

pytest.importorskip("litdata")


def index_of(root: Path) -> ImageIndex:
    return build_index(root, DatasetConfig("stream", str(root)))


def labelled(index: ImageIndex) -> set[tuple[str, str, str]]:
    """Split, path and class of each image."""
    return {
        (split, index.place(path), index.classes[label])
        for split, samples in index.splits.items()
        for path, label in samples
    }


@pytest.mark.parametrize(
    ("name", "option"), [("packed", "dataset.root={}"), ("shards (1)", """'dataset.root='"'"'{}'"'"''""")]
)
def test_it_packs_a_folder_and_says_what_trains_on_it(
    image_folder: Path, tmp_path: Path, name: str, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / name
    assert main(["pack", str(image_folder), str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("train 18 (blue 4, green 6, red 8), val 9 (blue 3, green 3, red 3)")
    assert lines[1:] == [
        "PNG 27",
        "",
        f"Packing 27 images, 1 MB, into {out}",
        f"Train: thaw train dataset=stream {option.format(out)}",
    ]
    assert len(labelled(index_of(out))) == 27
    assert {path.name for path in out.iterdir()} == {"chunk-0-0.bin", "index.json"}


def test_labels_may_be_in_a_table_or_in_the_names(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    rows = [("path", "label", "split")]
    for path in image_folder.rglob("*.png"):
        split, label, name = path.relative_to(image_folder).parts
        rows.append((f"{label}_{split}_{name}", label, split))
        shutil.copy(path, flat / rows[-1][0])
    with (flat / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)

    assert main(["pack", str(flat), str(tmp_path / "by_csv"), "--csv", str(flat / "labels.csv")]) == 0
    assert labelled(index_of(tmp_path / "by_csv")) == {(split, name, label) for name, label, split in rows[1:]}

    text = (flat / "labels.csv").read_text().replace("path,label,split", "file,kind,is_valid")
    (tmp_path / "others.csv").write_text(text.replace("val\r", "1\r").replace("train\r", "0\r"))
    flags = ["--csv", str(tmp_path / "others.csv"), "--csv-path", "flat/{file}", "--csv-label", "kind"]
    assert main(["pack", str(flat), str(tmp_path / "no_splits"), *flags]) == 0
    assert "(is_valid). Images are split at random instead: --csv-split=is_valid goes by it." in capsys.readouterr().out
    assert main(["pack", str(flat), str(tmp_path / "by_others"), *flags, "--csv-split=is_valid"]) == 0
    by_others = {(split, f"flat/{name}", label) for name, label, split in rows[1:]}  # as seen from the file
    assert labelled(index_of(tmp_path / "by_others")) == by_others

    flags = [*flags, "--csv-group=kind"]
    assert main(["pack", str(flat), str(tmp_path / "by_group"), *flags, "--csv-split=is_valid"]) == 0
    assert "Groups of --csv-group in several splits: 3 (blue (train, val), " in capsys.readouterr().out
    by_group = index_of(tmp_path / "by_group")
    assert by_group.groups_of("val") == [by_group.classes[label] for _, label in by_group.splits["val"]]

    assert main(["pack", str(flat), str(tmp_path / "by_name"), "--label-pattern", "^([a-z]+)_"]) == 0
    expected = build_index(flat, DatasetConfig(root=str(flat), label_pattern="^([a-z]+)_"))
    assert labelled(index_of(tmp_path / "by_name")) == labelled(expected)


def test_a_damaged_image_is_named_and_nothing_packed(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = Path(shutil.copytree(image_folder, tmp_path / "photos")), tmp_path / "packed"
    (root / "train/green/0.png").write_text("<html>404</html>")
    assert main(["pack", str(root), str(out)]) == 2
    assert capsys.readouterr().err == (
        "1 of 27 files cannot be read as images:\n"
        "  train/green/0.png: its contents are in no image format that Thaw reads\n"
        f"Repair or remove them, or leave them out: thaw check {root} --fix lists them for --exclude.\n"
    )
    assert not out.exists()
    monkeypatch.chdir(tmp_path)
    assert main(["check", str(root), "--fix"]) == 1
    assert main(["pack", str(root), str(out), "--exclude", "exclude.csv"]) == 0
    assert len(labelled(index_of(out))) == 26


def test_a_copy_in_two_splits_is_told(image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = Path(shutil.copytree(image_folder, tmp_path / "photos"))
    shutil.copy(root / "val/red/0.png", root / "train/red/leak.png")
    assert main(["pack", str(root), str(tmp_path / "packed")]) == 0
    assert "Images in two splits: 1 (train/red/leak.png = val/red/0.png)." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "{tmp}/out"], "FOLDER must be a folder that exists, got 'nowhere'."),
        ([".", "packed"], "OUT must be outside FOLDER, whose images it would join, got packed."),
        ([".", "{tmp}"], "OUT must be a new or empty folder, got {tmp}. Name another, or delete it."),
        ([".", "{tmp}/file"], "OUT must be a new or empty folder, got {tmp}/file. Name another, or delete it."),
        ([".", "{tmp}/file/out"], "{tmp}/file/out cannot be written: "),
        ([".", "{tmp}/out", "--shard-mb", "0"], "--shard-mb must be from 1 to 2000, got 0."),
        ([".", "{tmp}/out", "--label-pattern", "("], "--label-pattern is no regular expression: '('"),
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
    monkeypatch.chdir(image_folder)
    (tmp_path / "file").write_text("text")
    assert main(["pack", *(argument.format(tmp=tmp_path) for argument in arguments)]) == 2
    assert capsys.readouterr().err.startswith(message.format(tmp=tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["check", "SHARDS"],
        ["pack", "SHARDS", "elsewhere"],
        ["predict", "RUN", "SHARDS"],
        ["evaluate", "RUN", "--data", "SHARDS"],
        ["evaluate", "RUN", "--data", "SHARDS", "--label-pattern", "(.)"],
    ],
)
def test_what_is_packed_is_known_by_its_looks(
    image_folder: Path, finished_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    shards = tmp_path / "shards"
    assert main(["pack", str(image_folder), str(shards)]) == 0
    places = {"RUN": str(finished_run.folder), "SHARDS": str(shards)}
    capsys.readouterr()
    assert main([places.get(argument, argument) for argument in arguments]) == 2
    assert capsys.readouterr().err == (
        f"{shards} holds images packed by `thaw pack`, on which dataset=stream dataset.root={shards} trains. For "
        "anything else name the folder that they were packed from.\n"
    )
    with pytest.raises(ThawError, match="holds images packed by"):
        build_index(shards, DatasetConfig(root=str(shards)))


@pytest.mark.parametrize("option", ["label_pattern", "csv", "exclude", "relabel"])
def test_labels_are_fixed_when_they_are_packed(option: str) -> None:
    with pytest.raises(ThawError, match=rf"dataset\.{option} must be null for dataset=stream, as `thaw pack` has it"):
        DatasetConfig("stream", **{option: "text"})


def test_images_of_a_list_are_packed_with_the_class_that_it_gives_them(image_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "mended.csv").write_text("path,label\ntrain/red/0.png,blue\n")
    assert main(["pack", str(image_folder), str(tmp_path / "packed"), "--relabel", str(tmp_path / "mended.csv")]) == 0
    rows = Shards(str(tmp_path / "packed"), tmp_path / "cache").rows
    assert {row.name for row in rows if row.path.as_posix().endswith("train/red/0.png")} == {"blue"}
    assert {row.name for row in rows if row.path.as_posix().endswith("train/red/1.png")} == {"red"}


def test_a_run_finds_its_images_in_the_shards(finished_run: Run, image_folder: Path, tmp_path: Path) -> None:
    assert main(["pack", str(image_folder), str(tmp_path / "packed")]) == 0
    run = Run(shutil.copytree(finished_run.folder, tmp_path / "run"))
    config = (run.folder / "config.yaml").read_text()
    config = config.replace("name: folder", "name: stream").replace(str(image_folder), str(tmp_path / "packed"))
    (run.folder / "config.yaml").write_text(config)
    classifier = finished_run.load_classifier()
    expected, whose = images_for_proof(finished_run, classifier)
    images, also = images_for_proof(run, classifier)
    assert images.equal(expected)
    assert also == whose == "9 images of its data"
    shutil.rmtree(tmp_path / "packed")
    assert "random images" in images_for_proof(run, classifier)[1]
