from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from thaw.data.inputs import is_one, list_images, list_inputs, matches_nothing, spread
from thaw.errors import ThawError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.jpg", "a.png", "notes.txt", "deep/er/c.JPG", "deep/[1].jpg", ".hidden.jpg"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


def names(folder: Path, *items: Path | str) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in list_images(items)]


def test_a_folder_gives_its_images_at_any_depth_sorted(folder: Path) -> None:
    assert names(folder, folder) == ["a.png", "b.jpg", "deep/[1].jpg", "deep/er/c.JPG"]


def test_what_is_left_out_is_named(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    list_images([folder])
    assert caplog.messages == [
        f"2 files ignored (hidden: {folder}/.hidden.jpg; not images by their names: {folder}/notes.txt)"
    ]


def test_files_are_taken_as_they_are_named_and_in_that_order(folder: Path) -> None:
    named = ["notes.txt", "b.jpg", "missing.jpg", "b.jpg"]
    assert names(folder, *(folder / name for name in named)) == named


def test_a_pattern_means_what_the_shell_would_make_of_it(folder: Path) -> None:
    assert names(folder, f"{folder}/*.jpg") == ["b.jpg"]
    assert names(folder, f"{folder}/d*") == ["deep/[1].jpg", "deep/er/c.JPG"]
    assert names(folder, f"{folder}/**/*.[jJ][pP][gG]") == ["b.jpg", "deep/[1].jpg", "deep/er/c.JPG"]


def test_what_a_deep_pattern_finds_in_several_ways_is_taken_once(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert names(folder, f"{folder}/**") == ["a.png", "b.jpg", "deep/[1].jpg", "deep/er/c.JPG", "notes.txt"]
    assert caplog.messages == [f"1 file ignored (hidden: {folder}/.hidden.jpg)"]


def test_a_file_whose_name_looks_like_a_pattern_is_a_file(folder: Path) -> None:
    assert names(folder, f"{folder}/deep/[1].jpg") == ["deep/[1].jpg"]
    assert names(folder, folder / "deep/[2].jpg") == ["deep/[2].jpg"]


def test_the_home_folder_may_be_written_short(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder))
    assert names(folder, "~/*.png") == ["a.png"]
    assert list_images(["~nobody.jpg"]) == [Path("~nobody.jpg")]


def test_some_are_taken_evenly() -> None:
    assert spread(range(100), 5) == [0, 20, 40, 60, 80]
    assert spread(range(31), 16)[-1] == 29
    assert spread("abc", 5) == ["a", "b", "c"]
    assert spread([], 5) == []


def test_a_pattern_that_matches_nothing_is_kept_beside_others(folder: Path) -> None:
    assert names(folder, f"{folder}/*.gif", f"{folder}/a*", folder / "x.jpg") == ["*.gif", "a.png", "x.jpg"]
    (folder / "empty").mkdir()
    assert names(folder, folder / "empty", f"{folder}/a*") == ["a.png"]
    assert matches_nothing(folder / "*.gif")
    assert not matches_nothing(folder / "deep/[1].jpg")
    assert not matches_nothing(folder / "x.jpg")


def test_nothing_found_is_said(folder: Path) -> None:
    with pytest.raises(ThawError, match=r"No images in .*\*\.gif"):
        list_images([f"{folder}/*.gif", f"{folder}/[x].jpg"])
    with pytest.raises(ThawError, match="No images in an empty list"):
        list_images([])


def test_an_empty_name_is_not_the_folder_here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(ThawError, match="An empty name is no file"):
        list_images([""])
    assert list_images(["."])


@pytest.mark.parametrize("address", ["https://example.org/z.jpg", "s3://bucket/photos", "HTTP://example.org/*.jpg"])
def test_an_address_is_not_taken_for_a_file(folder: Path, address: str) -> None:
    for item in (address, Path(address)):  # in which two slashes are one
        with pytest.raises(ThawError, match=r"^\S+ is an address, and nothing is downloaded: .* that file\.$"):
            list_images([folder, item])


def test_a_file_that_is_called_like_an_address_is_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    Path("http:").mkdir()
    Path("http:/a.jpg").touch()
    assert list_images(["http:/a.jpg"]) == [Path("http:/a.jpg")]


# ---- with images in memory


def test_one_path_is_no_row_of_letters(folder: Path) -> None:
    assert list_inputs(str(folder / "b.jpg")) == list_inputs(folder / "b.jpg") == [folder / "b.jpg"]
    assert list_inputs(str(folder)) == list_inputs(f"{folder}/**/*.*[gG]") == list_images([folder])
    assert list_inputs([folder / "b.jpg", f"{folder}/a*"]) == [folder / "b.jpg", folder / "a.png"]


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_an_array_and_a_tensor_are_the_image_that_they_hold(mode: str) -> None:
    shape = (5, 3, 3) if mode == "RGB" else (5, 3)
    pixels = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    tensor = torch.from_numpy(np.moveaxis(pixels, 2, 0) if mode == "RGB" else pixels)
    for given in (pixels, tensor, Image.fromarray(pixels)):
        (image,) = list_inputs(given)
        assert isinstance(image, Image.Image)
        assert image.mode == mode
        assert np.array_equal(np.asarray(image), pixels)


def test_the_contents_of_a_file_may_be_at_hand(folder: Path) -> None:
    with (folder / "b.jpg").open("rb") as file:
        images = list_inputs([b"contents", file])
    assert [image.getvalue() for image in images if isinstance(image, BytesIO)] == [
        b"contents",
        (folder / "b.jpg").read_bytes(),
    ]
    assert is_one(b"contents")
    assert is_one(BytesIO(b"contents"))


def test_several_may_be_of_several_kinds(folder: Path) -> None:
    image, pixels = Image.new("RGB", (3, 5)), np.zeros((5, 3), np.uint8)
    inputs = list_inputs(item for item in [image, str(folder / "b.jpg"), pixels, folder])
    assert [type(item) for item in inputs[:3]] == [Image.Image, type(folder), Image.Image]
    assert inputs[3:] == list_images([folder])
    assert len(list_inputs(np.zeros((4, 5, 3, 3), np.uint8))) == len(list_inputs(torch.zeros(4, 3, 5, 5).byte())) == 4
    assert list_inputs(np.array(["a.jpg", "b.jpg"])) == [Path("a.jpg"), Path("b.jpg")]


@pytest.mark.parametrize(
    ("given", "got"),
    [
        (5, "int"),
        (StringIO("a.jpg"), "StringIO"),
        (None, "NoneType"),
        (["a.jpg", 5], "int"),
        ([["a.jpg"]], "list"),
        (np.zeros((5, 3, 3)), r"float64 of shape \(5, 3, 3\)"),
        (np.zeros((5, 3, 4), np.uint8), r"uint8 of shape \(5, 3, 4\)"),
        (np.zeros((0, 3, 3), np.uint8), r"uint8 of shape \(0, 3, 3\)"),
        (np.zeros(5, np.uint8), r"uint8 of shape \(\)"),
        (torch.zeros(3, 5, 5), r"torch\.float32 of shape \(3, 5, 5\)"),
        (torch.zeros(5, 5, 3).byte(), r"torch\.uint8 of shape \(5, 5, 3\)"),
    ],
)
def test_what_is_no_image_is_refused_by_what_is_taken(given: Any, got: str) -> None:
    with pytest.raises(TypeError, match=rf"^Expected one or several of files, .* tensors \(3, H, W\), got {got}\.$"):
        list_inputs(given)


def test_one_image_is_told_from_several(folder: Path) -> None:
    in_memory = Image.new("L", (3, 3)), np.zeros((3, 3)), torch.zeros(3, 3, 3)
    for one in (folder / "b.jpg", str(folder / "deep/[1].jpg"), "missing.jpg", *in_memory):
        assert is_one(one)
    for several in (folder, str(folder), f"{folder}/*.jpg", [folder / "b.jpg"], torch.zeros(1, 3, 3, 3)):
        assert not is_one(several)
