from pathlib import Path

import pytest

from thaw.data.index import ImageIndex
from thaw.data.known_classes import in_known_classes, index_known_classes
from thaw.data.rows import Sample
from thaw.errors import ThawError

KNOWN = ("wasps", "ants", "bees")


def touch(root: Path, *names: str) -> Path:
    """Empty files: nothing is decoded here."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def named(index: ImageIndex, split: str) -> dict[str, str]:
    """The class of each image of a split by its path."""
    return {index.place(path): index.classes[label] for path, label in index.splits[split]}


def test_labels_are_the_classifiers(tmp_path: Path) -> None:
    index = index_known_classes(touch(tmp_path, "bees/1.png", "ants/2.png", "ants/notes.txt"), KNOWN)
    assert index.classes == KNOWN
    assert index.splits == {"all": [Sample(tmp_path / "ants/2.png", 1), Sample(tmp_path / "bees/1.png", 2)]}
    assert index.ignored == {"not images by their names": (tmp_path / "ants/notes.txt",)}


def test_one_class_is_enough(tmp_path: Path) -> None:
    index = index_known_classes(touch(tmp_path, "bees/1.png"), KNOWN)
    assert named(index, "all") == {"bees/1.png": "bees"}


def test_splits_are_kept_and_need_no_train(tmp_path: Path) -> None:
    index = index_known_classes(touch(tmp_path, "val/bees/1.png", "test/ants/2.png"), KNOWN)
    assert named(index, "val") == {"val/bees/1.png": "bees"}
    assert named(index, "test") == {"test/ants/2.png": "ants"}


def test_a_csv_file_needs_no_splits(tmp_path: Path) -> None:
    touch(tmp_path, "1.png", "sub/2.png")
    (tmp_path / "list.csv").write_text("path,label\nsub/2.png,wasps\n1.png,bees\n")
    index = index_known_classes(tmp_path / "list.csv", KNOWN)
    assert named(index, "all") == {"1.png": "bees", "sub/2.png": "wasps"}


def test_a_class_may_be_told_by_the_name_of_the_file(tmp_path: Path) -> None:
    index = index_known_classes(touch(tmp_path, "wasps_1.png", "ants_2.png"), KNOWN, r"^(.+)_\d")
    assert named(index, "all") == {"wasps_1.png": "wasps", "ants_2.png": "ants"}


def test_a_flat_folder_is_told_so_whatever_is_hidden_in_it(tmp_path: Path) -> None:
    touch(tmp_path, "wasps_1.png", ".ipynb_checkpoints/wasps_1.png", "__MACOSX/wasps_1.png")
    with pytest.raises(ThawError, match="has no folders, so nothing tells the classes of its images"):
        index_known_classes(tmp_path, KNOWN)


@pytest.mark.parametrize("stranger", ["bee", "hornets"])
def test_a_class_that_is_not_known_is_refused(stranger: str, tmp_path: Path) -> None:
    touch(tmp_path, "ants/1.png", f"{stranger}/1.png", f"{stranger}/2.png")
    with pytest.raises(ThawError) as error:
        index_known_classes(tmp_path, KNOWN)
    hint = " Did you mean 'bees'?" if stranger == "bee" else ""
    assert f"trained for: '{stranger}' (such as {stranger}/1.png; n=2).{hint} It knows wasps, ants, bees." in str(
        error.value
    )


def test_labels_are_changed_and_nothing_else(tmp_path: Path) -> None:
    samples = {"val": [Sample(tmp_path / "a", 0), Sample(tmp_path / "b", 1)]}
    index = ImageIndex(tmp_path, ("bees", "wasps"), samples, "test", {"hidden": (tmp_path / ".c",)}, ("empty",))
    known = in_known_classes(index, KNOWN)
    assert [sample.label for sample in known.splits["val"]] == [2, 0]
    assert (known.epoch_chosen_on, known.ignored, known.empty_folders) == ("test", index.ignored, ("empty",))
    assert in_known_classes(known, KNOWN) == known
