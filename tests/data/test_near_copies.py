from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from thaw.config import DatasetConfig
from thaw.data import near_copies
from thaw.data.check import find_problems
from thaw.data.examine import examine
from thaw.data.finding import Finding
from thaw.data.index import survey
from thaw.data.near_copies import find_near_copies


def photo(seed: int) -> Image.Image:
    """Soft patches of colour."""
    patches = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(patches).resize((320, 240), Image.Resampling.BICUBIC)


def save(image: Image.Image, path: Path, **options: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Ten different images of two classes in two splits."""
    for seed in range(10):
        save(photo(seed), tmp_path / f"{('train', 'val')[seed % 2]}/{'ab'[seed // 2 % 2]}/{seed}.png")
    return tmp_path


def look(root: Path, *, is_wrong: bool = False) -> list[Finding]:
    index = survey(root, DatasetConfig())
    left_out = {path for finding in find_problems(index) for path in finding.leave_out}
    return find_near_copies(index, [file for file in examine(index) if file.path not in left_out], is_wrong)


def test_different_images_do_not_look_the_same(photos: Path) -> None:
    assert look(photos) == []


@pytest.mark.parametrize("edit", ["smaller", "compressed", "brighter", "cropped", "paler"])
def test_an_edited_copy_looks_the_same(photos: Path, edit: str) -> None:
    image = photo(0)
    edited = {
        "smaller": image.resize((100, 75)),
        "compressed": image,
        "brighter": ImageEnhance.Brightness(image).enhance(1.2),
        "cropped": image.crop((3, 2, 317, 238)),
        "paler": ImageEnhance.Contrast(image).enhance(0.7),
    }[edit]
    save(edited, photos / "val/a/other.jpg", quality=30)
    (finding,) = look(photos)
    assert finding.items == ("train/a/0.png ~ val/a/other.jpg",)
    assert finding.advice == "1 in two splits. Look at them; --near counts them as copies."
    assert not finding.is_wrong
    assert finding.leave_out == {}


def test_counted_as_copies_one_of_each_is_kept_and_none_of_two_labels(photos: Path) -> None:
    save(photo(0), photos / "val/a/other.jpg")
    save(photo(1), photos / "val/b/other.jpg")
    (finding,) = look(photos, is_wrong=True)
    assert finding.is_wrong
    assert finding.advice == "1 in two splits, 1 with two labels. Look at what is left out."
    assert finding.leave_out == {
        photos / "train/a/0.png": "looks the same as val/a/other.jpg",
        photos / "val/a/1.png": "looks the same as val/b/other.jpg, labelled b",
        photos / "val/b/other.jpg": "looks the same as val/a/1.png, labelled a",
    }


def test_copies_byte_for_byte_are_told_once(photos: Path) -> None:
    (photos / "val/a/other.png").write_bytes((photos / "train/a/0.png").read_bytes())
    assert [finding.title for finding in find_problems(survey(photos, DatasetConfig()))] == ["Images in two splits"]
    assert look(photos) == []


def test_what_all_images_have_in_common_is_no_likeness(tmp_path: Path) -> None:
    for seed in range(12):  # a small object on white
        page = Image.new("RGB", (320, 240), "white")
        page.paste(photo(seed).resize((60, 60)), (130, 90))
        save(page, tmp_path / f"{'ab'[seed % 2]}/{seed}.png")
    assert look(tmp_path) == []


def test_of_images_that_hang_together_by_others_those_that_differ_are_kept(photos: Path) -> None:
    wide = photo(20).resize((640, 240))
    for start in range(0, 321, 4):  # the camera turns
        save(wide.crop((start, 0, start + 320, 240)), photos / f"train/a/frame{start:03}.png")
    for seed in range(30, 110):
        save(photo(seed), photos / f"train/b/{seed}.png")
    (finding,) = look(photos, is_wrong=True)
    assert len(finding.items) == 1
    assert len(finding.paths) == 81
    left = 81 - len(finding.leave_out)
    assert 4 <= left <= 40
    assert finding.leave_out[photos / "train/a/frame004.png"] == "looks the same as train/a/frame000.png"
    assert "frame000" not in finding.leave_out[photos / "train/a/frame320.png"]


def test_many_equal_files_do_not_hide_one_that_looks_the_same(photos: Path) -> None:
    for number in range(12):
        save(photo(0), photos / f"train/a/copy{number}.png")
    save(photo(0).resize((160, 120)), photos / "val/b/other.png")
    (finding,) = look(photos, is_wrong=True)
    assert set(finding.leave_out) == {photos / "train/a/0.png", photos / "val/b/other.png"}


def test_of_two_images_one_may_be_a_copy(tmp_path: Path) -> None:
    save(photo(0), tmp_path / "a/1.png")
    save(photo(0).resize((160, 120)), tmp_path / "b/2.png")
    assert [finding.items for finding in look(tmp_path)] == [("a/1.png ~ b/2.png",)]


def test_more_images_than_can_be_searched_are_told(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_copies, "MOST_IMAGES", 9)
    (finding,) = look(photos)
    assert finding.message == ("Images not searched for others that look the same: 1 (all 10). There are more than 9.")
    assert not finding.is_wrong


def test_blank_images_are_like_no_other(photos: Path) -> None:
    for grey in (0, 100, 101, 255):
        save(Image.new("RGB", (64, 64), (grey,) * 3), photos / f"train/a/blank{grey}.png")
    assert look(photos) == []


def test_many_copies_are_one_group_of_which_some_are_named(photos: Path) -> None:
    for quality in range(20, 34):
        save(photo(0), photos / f"train/a/q{quality}.jpg", quality=quality)
    (finding,) = look(photos, is_wrong=True)
    (item,) = finding.items
    assert item.startswith("train/a/0.png ~ train/a/q20.jpg ~ ")
    assert item.endswith(" ~ 9 more")
    assert len(finding.paths) == 15
    assert len(finding.leave_out) == 14


def test_unreadable_files_and_folders_of_none_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/1.png").write_text("<html>")
    assert look(tmp_path) == []
    save(photo(1), tmp_path / "b/1.png")
    assert look(tmp_path) == []
