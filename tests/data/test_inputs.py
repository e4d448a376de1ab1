from pathlib import Path

import pytest

from thaw.data.inputs import list_images, spread
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


def test_nothing_found_is_said(folder: Path) -> None:
    with pytest.raises(ThawError, match=r"No images in .*\*\.gif"):
        list_images([f"{folder}/*.gif"])
    with pytest.raises(ThawError, match="No images in an empty list"):
        list_images([])
