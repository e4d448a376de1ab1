from dataclasses import replace
from pathlib import Path
from threading import Thread

from thaw.config import DatasetConfig
from thaw.data.check import find_problems
from thaw.data.copies import find_copies
from thaw.data.finding import Finding
from thaw.data.index import ImageIndex, build_index, survey


def plant(root: Path, files: dict[str, int], *, split_off: bool = True) -> ImageIndex:
    """The index of files with the given contents; equal numbers are copies."""
    for name, contents in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(str(contents))
    return (build_index if split_off else survey)(root, DatasetConfig())


def test_same_image_in_two_splits(tmp_path: Path) -> None:
    train = {"train/ants/a.jpg": 1, "train/ants/b.jpg": 2, "train/bees/c.jpg": 3, "train/bees/d.jpg": 4}
    val = {"val/ants/e.jpg": 1, "val/ants/f.jpg": 1, "val/bees/g.jpg": 4, "val/bees/h.jpg": 9}
    (finding,) = find_problems(plant(tmp_path, train | val))
    assert finding.message == (
        "Images in two splits: 2 (train/ants/a.jpg = val/ants/e.jpg = val/ants/f.jpg, "
        "train/bees/d.jpg = val/bees/g.jpg). A score on training images misleads: keep one copy of each."
    )
    paths = ("train/ants/a.jpg", "val/ants/e.jpg", "val/ants/f.jpg", "train/bees/d.jpg", "val/bees/g.jpg")
    assert finding.paths == tuple(tmp_path / path for path in paths)


def test_the_copy_in_the_most_honest_split_is_kept(tmp_path: Path) -> None:
    files = {"train/a/1.jpg": 1, "val/a/1.jpg": 1, "test/a/1.jpg": 1, "train/a/2.jpg": 2, "val/a/2.jpg": 2}
    others = {"train/b/1.jpg": 3, "train/b/2.jpg": 4, "val/b/1.jpg": 5, "test/b/1.jpg": 6}
    (finding,) = find_copies(plant(tmp_path, files | others))
    assert finding.leave_out == {
        tmp_path / "val/a/1.jpg": "same image as test/a/1.jpg",
        tmp_path / "train/a/1.jpg": "same image as test/a/1.jpg",
        tmp_path / "train/a/2.jpg": "same image as val/a/2.jpg",
    }


def test_a_split_by_any_other_name_has_copies_too(tmp_path: Path) -> None:
    index = plant(tmp_path, {"a/1.jpg": 5, "a/1 (copy).jpg": 5, "b/2.jpg": 6}, split_off=False)
    (finding,) = find_copies(replace(index, splits={"training images": index.splits["all"]}))
    assert [path.name for path in finding.leave_out] == ["1 (copy).jpg"]


def test_only_the_first_few_are_named(tmp_path: Path) -> None:
    files = {
        f"{split}/{name}/{i}.jpg": int(f"{i + 1}{ord(name)}")
        for split in ("train", "val")
        for name in "ab"
        for i in range(4)
    }
    (finding,) = find_copies(plant(tmp_path, files))
    assert finding.message == (
        "Images in two splits: 8 (train/a/0.jpg = val/a/0.jpg, train/a/1.jpg = val/a/1.jpg, "
        "train/a/2.jpg = val/a/2.jpg and 5 more). A score on training images misleads: keep one copy of each."
    )
    assert len(finding.paths) == 16


def test_of_an_image_with_two_labels_no_copy_is_kept(tmp_path: Path) -> None:
    ants = {"train/ants/a.jpg": 1, "train/ants/b.jpg": 2}
    bees = {"train/bees/c.jpg": 1, "train/bees/d.jpg": 3, "val/bees/e.jpg": 4}
    (finding,) = find_copies(plant(tmp_path, ants | bees))
    assert finding.message == (
        "Images with two labels: 1 (train/ants/a.jpg = train/bees/c.jpg). Keep the one labelled right."
    )
    assert finding.leave_out == {
        tmp_path / "train/ants/a.jpg": "same image as train/bees/c.jpg, labelled bees",
        tmp_path / "train/bees/c.jpg": "same image as train/ants/a.jpg, labelled ants",
    }


def test_an_image_in_two_splits_with_two_labels_is_left_out_everywhere(tmp_path: Path) -> None:
    files = {"train/a/1.jpg": 1, "val/b/1.jpg": 1, "train/a/2.jpg": 2, "train/b/3.jpg": 3, "val/a/4.jpg": 4}
    findings = find_copies(plant(tmp_path, files))
    assert [finding.title for finding in findings] == ["Images in two splits", "Images with two labels"]
    for finding in findings:
        assert set(finding.leave_out) == {tmp_path / "train/a/1.jpg", tmp_path / "val/b/1.jpg"}


def test_of_copies_in_one_split_the_shortest_name_is_kept(tmp_path: Path) -> None:
    files = {"ants/1 (copy).jpg": 1, "ants/1.jpg": 1, "ants/2.jpg": 2, "bees/3.jpg": 3}
    (finding,) = find_copies(plant(tmp_path, files, split_off=False))
    assert finding.title == "Images twice in a split"
    assert finding.leave_out == {tmp_path / "ants/1 (copy).jpg": "same image as ants/1.jpg"}


def test_same_size_is_not_the_same_image(tmp_path: Path) -> None:
    assert (
        find_copies(plant(tmp_path, {f"{name}/{i}.jpg": 10 * i + ord(name) for name in "ab" for i in range(1, 9)}))
        == []
    )


def test_a_device_has_no_copies(tmp_path: Path) -> None:
    for name in ("a/1.jpg", "b/1.jpg"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).symlink_to("/dev/zero")
    found: list[Finding] | None = None

    def search() -> None:
        nonlocal found
        found = find_copies(survey(tmp_path, DatasetConfig()))

    searcher = Thread(target=search, daemon=True)
    searcher.start()
    searcher.join(timeout=10)
    assert found == []
