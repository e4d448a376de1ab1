from pathlib import Path

import pytest

from thaw.data.image_lists import read_excluded, read_names, relabel, write_excluded
from thaw.data.rows import Row
from thaw.errors import ThawError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("ants/1.jpg", "ants/2, large.jpg", " ants/ 3.jpg "):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).touch()
    return tmp_path / "data"


def test_what_is_written_is_read_back(root: Path, tmp_path: Path) -> None:
    names = {"ants/2, large.jpg": 'tiny: "8" pixels', "ants/1.jpg": "same image as ants/3.jpg", " ants/ 3.jpg ": ""}
    write_excluded(tmp_path / "list.csv", names)
    assert read_excluded(tmp_path / "list.csv", root) == {root / name for name in names}
    write_excluded(tmp_path / "list.csv", {"ants/1.jpg": "unreadable"})  # a list may be made anew
    assert read_excluded(tmp_path / "list.csv", root) == {root / "ants/1.jpg"}


@pytest.mark.parametrize("contents", [b"path,label\n1.jpg,ants\n", b"\xff\xd8\xff", b""])
def test_no_other_file_is_overwritten(tmp_path: Path, contents: bytes) -> None:
    file = tmp_path / "photo.jpg"
    file.write_bytes(contents)
    with pytest.raises(ThawError, match="is there already and no list of images to leave out"):
        write_excluded(file, {"a.jpg": "tiny"})
    assert file.read_bytes() == contents


def test_a_file_that_cannot_be_written_is_a_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(ThawError, match=r"exclude\.csv cannot be written .* Name another file: --fix FILE\."):
        write_excluded(tmp_path / "nowhere" / "exclude.csv", {"a.jpg": "tiny"})


def test_a_name_that_does_not_exist_is_refused(root: Path, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("path,reason\nants/1.jpg,\nants/7.jpg,\n")
    with pytest.raises(
        ThawError, match=r"names 1 of 2 files that are not in .*: ants/7\.jpg\. `thaw check` with --fix makes it anew"
    ):
        read_excluded(tmp_path / "list.csv", root)


def test_links_that_lead_nowhere_can_be_left_out(root: Path, tmp_path: Path) -> None:
    links = {"ants/gone.jpg": "away.jpg", "ants/self.jpg": "self.jpg", "ants/a.jpg": "b.jpg", "ants/b.jpg": "a.jpg"}
    for name, target in links.items():
        (root / name).symlink_to(target)
    write_excluded(tmp_path / "list.csv", dict.fromkeys(links, "unreadable"))
    assert read_excluded(tmp_path / "list.csv", root) == {root / name for name in links}


def test_a_list_that_is_damaged_is_not_taken_for_none(root: Path, tmp_path: Path) -> None:
    file = tmp_path / "list.csv"
    file.write_text('path,reason\nants/3.jpg,"blurred\n')
    with pytest.raises(ThawError, match=r"list\.csv cannot be read \(after line 1: .*Fix it, or name another file"):
        read_names(file)
    file.write_text("\ufeffpath,reason\nants/3.jpg,blurred\n")  # as a spreadsheet saves it
    assert read_names(file) == ["ants/3.jpg"]
    write_excluded(file, {"ants/3.jpg": "blurred"})
    file.write_text('name\n"')
    assert read_names(file) == []


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ("file\nants/1.jpg\n", "must have a column path: .* has file"),
        ("", "must have a column path: .* has none"),
        ('path,reason\nants/1.jpg,"blurred\nants/2.jpg,dark\n', "cannot be read: .*after line 1: "),
        (None, "cannot be read"),
    ],
)
def test_another_table_is_refused(root: Path, tmp_path: Path, contents: str | None, message: str) -> None:
    if contents is not None:
        (tmp_path / "list.csv").write_text(contents)
    with pytest.raises(ThawError, match=f"dataset.exclude {message}"):
        read_excluded(tmp_path / "list.csv", root)


def test_a_list_of_other_classes_changes_those_images_alone(root: Path, tmp_path: Path) -> None:
    rows = [Row(root / f"ants/{name}", name, "train", "ants") for name in ("1.jpg", "2, large.jpg")]
    file = tmp_path / "list.csv"
    file.write_text('path,label,loss\nants/./1.jpg," 2, large.jpg ",7.1\n" ants/ 3.jpg ",1.jpg,\n')
    assert relabel(rows, file, root) == [rows[0]._replace(name="2, large.jpg"), rows[1]]


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ("path,class\nants/1.jpg,ants\n", "must have a column label: .* has path, class"),
        (
            "path,label\nants/1.jpg,ant\n",
            r"gives ants/1\.jpg the class 'ant', which no image has\. Did you mean 'ants'",
        ),
        (
            "path,label\nants/1.jpg\n",
            r"gives ants/1\.jpg the class '', which no image has\. A new one has to be named among all in dataset\.",
        ),
        ("path,label\nants/1.jpg,ants\nants/../ants/1.jpg,bees\n", r"1\.jpg two classes, 'ants' and 'bees'"),
        ("path,label\nants/7.jpg,ants\n", r"names 1 of 1 files that are not in .*: ants/7\.jpg\.$"),
    ],
)
def test_another_list_of_classes_is_refused(root: Path, tmp_path: Path, contents: str, message: str) -> None:
    (tmp_path / "list.csv").write_text(contents)
    rows = [Row(root / "ants/1.jpg", "ants", "", "ants"), Row(root / "ants/2, large.jpg", "bees", "", "ants")]
    with pytest.raises(ThawError, match=f"dataset.relabel:? ?.*{message}"):
        relabel(rows, tmp_path / "list.csv", root)
