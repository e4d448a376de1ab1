from pathlib import Path

import pytest
from PIL import Image

from thaw.config import DatasetConfig
from thaw.data.examine import count_types, examine, find_bad_files
from thaw.data.finding import Finding
from thaw.data.index import survey


def draw(root: Path, name: str, file_type: str | None = None, size: tuple[int, int] = (64, 48)) -> Path:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    Image.effect_noise(size, 50).convert("RGB").save(root / name, file_type)
    return root / name


def bad_files(root: Path, min_size: int = 32) -> list[Finding]:
    index = survey(root, DatasetConfig())
    return find_bad_files(index, examine(index), min_size)


def test_sound_files_of_every_type_are_sound(tmp_path: Path) -> None:
    for name in ("1.jpg", "2.JPEG", "3.png", "4.webp", "5.gif", "6.bmp", "7.tif", "8.ppm", "9.jfif"):
        draw(tmp_path, f"ants/{name}")
    draw(tmp_path, "ants/10.jpg", "MPO")
    assert bad_files(tmp_path) == []
    assert count_types(examine(survey(tmp_path, DatasetConfig()))).startswith("JPEG 4, ")


def test_unreadable_files_are_left_out_each_with_its_reason(tmp_path: Path) -> None:
    draw(tmp_path, "ants/1.jpg")
    cut, page = draw(tmp_path, "ants/2.jpg"), tmp_path / "ants/3.png"
    cut.write_bytes(cut.read_bytes()[:-200])
    page.write_text("<html>404</html>")
    (finding,) = bad_files(tmp_path)
    assert (finding.title, finding.paths) == ("Files that cannot be read as images", (cut, page))
    assert finding.items[1] == "ants/3.png: its contents are in no image format that Thaw reads"
    assert finding.leave_out[cut].startswith("unreadable: image file is truncated")


def test_a_gif_called_jpg_is_told_but_kept(tmp_path: Path) -> None:
    draw(tmp_path, "ants/1.jpg", "GIF")
    draw(tmp_path, "ants/2.png", "JPEG")
    draw(tmp_path, "ants/3.jpg")
    (finding,) = bad_files(tmp_path)
    assert finding.items == ("ants/1.jpg is GIF, not JPEG", "ants/2.png is JPEG, not PNG")
    assert (finding.title, finding.leave_out) == ("Files of another type than their name says", {})


@pytest.mark.parametrize(("min_size", "tiny"), [(31, []), (32, []), (33, ["2.png"]), (65, ["1.png", "2.png"])])
def test_the_shorter_side_tells_what_is_tiny(tmp_path: Path, min_size: int, tiny: list[str]) -> None:
    draw(tmp_path, "ants/1.png", size=(64, 90))
    draw(tmp_path, "ants/2.png", size=(200, 32))
    findings = bad_files(tmp_path, min_size)
    assert [path.name for finding in findings for path in finding.leave_out] == tiny
    assert all(finding.title == f"Images with a side below {min_size} pixels" for finding in findings)
