import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import sklearn.model_selection  # noqa: F401  (slow: here, it counts for no test)

from thaw.config import DatasetConfig
from thaw.data.index import ImageIndex, build_index, survey
from thaw.errors import ThawError


def plant(root: Path, folders: dict[str, int]) -> None:
    """So many images in each folder; the index does not open them, so they can be empty."""
    for folder, count in folders.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            (root / folder / f"{i:03}.jpg").touch()


def index_of(root: Path, **options: Any) -> ImageIndex:
    return build_index(root, DatasetConfig(**options))


def sizes(index: ImageIndex) -> dict[str, dict[str, int]]:
    """Number of images by split and class."""
    return {
        split: dict(sorted(Counter(index.classes[label] for _, label in samples).items()))
        for split, samples in index.splits.items()
    }


def names(index: ImageIndex, split: str) -> list[str]:
    return [path.relative_to(index.root).as_posix() for path, _ in index.splits[split]]


def error_of(root: Path, **options: Any) -> str:
    with pytest.raises(ThawError) as caught:
        index_of(root, **options)
    return str(caught.value)


def test_a_survey_takes_the_images_as_they_lie(tmp_path: Path) -> None:
    plant(tmp_path / "split", {"train/ants": 3, "val/ants": 1, "val/wasps": 2})
    index = survey(tmp_path / "split", DatasetConfig())
    assert index.classes == ("ants", "wasps")
    assert sizes(index) == {"train": {"ants": 3}, "val": {"ants": 1, "wasps": 2}}
    plant(tmp_path / "tree", {"ants": 3})
    assert sizes(survey(tmp_path / "tree", DatasetConfig())) == {"all": {"ants": 3}}
    (tmp_path / "none" / "train" / "ants").mkdir(parents=True)
    with pytest.raises(ThawError, match=r"dataset\.root has no"):
        survey(tmp_path / "none", DatasetConfig())


def test_order_does_not_depend_on_the_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(tmp_path, {"ants": 10, "bees": 10})
    index = index_of(tmp_path)
    walk = os.walk
    monkeypatch.setattr(
        os, "walk", lambda top, **flags: ((*found, files[::-1]) for *found, files in walk(top, **flags))
    )
    assert index_of(tmp_path) == index


def test_a_fingerprint_is_that_of_splits_classes_places_and_sizes(tmp_path: Path) -> None:
    for place in ("here", "there"):
        plant(tmp_path / place, {"train/ants": 2, "train/bees": 2, "val/ants": 1})
    here = index_of(tmp_path / "here").fingerprint
    assert index_of(tmp_path / "there").fingerprint == here
    (tmp_path / "there/train/ants/000.jpg").write_bytes(b"more")
    changed = index_of(tmp_path / "there").fingerprint
    (tmp_path / "there/train/ants/000.jpg").rename(tmp_path / "there/train/ants/002.jpg")
    assert len({here, changed, index_of(tmp_path / "there").fingerprint}) == 3
