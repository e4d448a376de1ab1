import ntpath
import os
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from thaw.errors import ThawError
from thaw.overrides import FOLDERS, readable, seen_from_here


def meaning(arguments: list[str]) -> dict[str, Any]:
    """The value of each option, as Hydra reads it."""
    return {each.key_or_group: each.value() for each in OverridesParser.create().parse_overrides(arguments)}


def test_several_folders_of_images_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("train", "val"):
        (tmp_path / name).mkdir()
    (tmp_path / "labels.csv").touch()
    for line in (["train", "val"], ["train", "dataset.root=val"], ["labels.csv", "dataset.csv=labels.csv"]):
        with pytest.raises(
            ThawError, match=r"^2 folders or files of images are named, (train, val|labels.csv, labels.csv): name one"
        ):
            readable(line)
    assert meaning(readable(["train", "dataset.csv=labels.csv"])) == {
        "dataset": "folder", "dataset.root": "train", "dataset.csv": "labels.csv"
    }  # fmt: skip


def test_several_loggers_are_refused() -> None:  # Hydra would take the last one
    with pytest.raises(
        ThawError, match=r"^logger=\[tensorboard,wandb\]: one name is taken\. .*logger\.tensorboard=true"
    ):
        readable(["logger=[tensorboard,wandb]"])


def test_folders_of_presets_are_named_in_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    for line in (["--config-dir", "mine"], ["hydra.searchpath=[mine]"], ["hydra.searchpath=[file://mine,pkg://some]"]):
        others = ["pkg://some"] * ("pkg" in line[-1])
        assert meaning(readable(line)) == {"hydra.searchpath": [f"file://{tmp_path / 'mine'}", *others]}


# ---- what Hydra's grammar refuses


@pytest.mark.parametrize(
    "text",
    [
        "photos (1)",
        "größe",
        "x=y",
        "it's",
        "a,b",
        "^(.+)_[0-9]+[.]",
        "[a-z]+(.)",
        r"\d(x)\\",
        "a 'b' (c)",
        "photos",
        "7",
        "2024_11",
        "1e5",
        "1.10",
        "true",
    ],
)
@pytest.mark.parametrize(
    "key", ["dataset.root", "backbone.weights", "dataset.csv_label", "hydra.run.dir", "resume", "logger.project"]
)
def test_a_text_is_what_is_typed(key: str, text: str) -> None:
    assert {name: str(value) for name, value in meaning(readable([f"{key}={text}"])).items()} == {key: text}


@pytest.mark.parametrize(
    "option",
    ["dataset.classes=[a,b]", "dataset.classes=[a", "resume=null", "~seed", "+trainer.extra.x={a:1}", "a='b c'"],
)
def test_what_is_no_plain_text_is_left_to_hydra(option: str) -> None:
    assert readable([option]) == [option]


def test_a_sweep_keeps_its_choices() -> None:
    options = ["dataset.root=a,b", "optimizer.lr=tag(log,interval(1,2))"]
    assert readable([*options, "-m"]) == ["-m", *options]


def test_flags_may_stand_anywhere_on_the_line() -> None:  # argparse would refuse it
    assert readable(["seed=1", "--cfg", "job", "~a"]) == ["--cfg", "job", "seed=1", "~a"]


# ---- folders


def test_a_path_with_a_blank_before_its_equals_sign_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photos = 2").mkdir()
    monkeypatch.chdir(tmp_path)
    assert meaning(readable(["photos = 2"])) == {"dataset": "folder", "dataset.root": "photos = 2"}


@pytest.mark.parametrize("key", FOLDERS)
def test_a_folder_of_results_may_lie_at_home(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert meaning(readable([f"{key}=~/my runs"])) == {key: "/home/me/my runs"}
    assert meaning(readable([f"{key}=./~/runs"])) == {key: "./~/runs"}


@pytest.mark.parametrize("key", FOLDERS)
def test_a_folder_of_results_has_a_name(key: str) -> None:
    with pytest.raises(ThawError, match=rf"^{key}= names no folder: is a variable not set\?$"):
        readable(["dataset=digits", f"{key}="])


def test_presets_may_lie_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path.parent))
    assert meaning(readable([f"--config-dir=~/{tmp_path.name}"])) == {"hydra.searchpath": [f"file://{tmp_path}"]}


@pytest.mark.parametrize("arguments", [["--config-dir"], ["-cd="]])
def test_no_folder_of_presets_is_not_the_working_directory(arguments: list[str]) -> None:
    with pytest.raises(ThawError, match=r"is not a folder: nothing is named\."):
        readable(arguments)


@pytest.mark.parametrize("place", ["nowhere", "file://nowhere", "'no where'", "here,nowhere"])
def test_a_search_path_that_is_not_there_is_refused(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # Hydra only warns of it
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    with pytest.raises(
        ThawError, match=r"^hydra\.searchpath is not a folder: .*no ?where\. Name one that holds presets"
    ):
        readable([f"hydra.searchpath=[{place}]"])


@pytest.mark.parametrize("value", ["[pkg://some.package]", "null", "here", "[a"])
def test_what_else_a_search_path_may_be_is_left_to_hydra(
    value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    (written,) = readable([f"hydra.searchpath={value}"])
    assert written.replace("'", "") == f"hydra.searchpath={value}"


def test_a_folder_on_another_drive_has_no_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert seen_from_here(tmp_path / "outputs" / "run") == Path("outputs/run")
    monkeypatch.setattr(os.path, "relpath", ntpath.relpath)
    assert seen_from_here(Path("D:\\runs\\one")) == Path("D:\\runs\\one")


# ---- images without a key


def test_a_folder_or_a_table_by_itself_is_the_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos, 2").mkdir()
    (tmp_path / "labels.csv").touch()
    assert meaning(readable(["photos, 2", "seed=1"])) == {
        "dataset": "folder",
        "dataset.root": "photos, 2",
        "seed": 1,
    }
    assert meaning(readable(["seed=1", "labels.csv"])) == {"dataset": "folder", "dataset.csv": "labels.csv", "seed": 1}
    monkeypatch.setenv("HOME", str(tmp_path))
    assert meaning(readable(["~/photos, 2", "~seed"]))["dataset.root"] == str(tmp_path / "photos, 2")
    assert readable(["-m", "photos, 2"])[0] == "-m"
    assert readable(["-m", "photos, 2"])[1:] == ["dataset=folder", "dataset.root='photos, 2'"]


@pytest.mark.parametrize("arguments", [["--cfg", "job"], ["--info", "job"], ["job.csv"], ["--multirun", "other"]])
def test_the_value_of_a_flag_is_no_folder_nor_what_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job").mkdir()
    assert readable(arguments) == arguments
