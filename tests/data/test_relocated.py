from pathlib import Path

import pytest

from thaw.config import DatasetConfig
from thaw.data.relocated import find_again


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder beside `tmp_path / "before"`, where paths were given; it is the one here."""
    for folder in ("before/photos", "before/hotdog", "elsewhere"):
        (tmp_path / folder).mkdir(parents=True)
    for file in ("before/photos/labels.csv", "before/all.csv", "before/exclude.csv", "before/photos/own.csv"):
        (tmp_path / file).touch()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path / "elsewhere"


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"root": "photos"}, {"root": "{before}/photos"}),
        ({"root": ".", "name": "hotdog"}, {"root": "{before}"}),
        ({"root": "photos", "name": "stream"}, {"root": "{before}/photos"}),
        ({"root": "photos", "csv": "labels.csv"}, {"root": "{before}/photos"}),
        ({"root": "data", "csv": "all.csv"}, {"root": "{before}/data", "csv": "{before}/all.csv"}),
        ({"root": "photos", "exclude": "own.csv"}, {"root": "{before}/photos"}),
        ({"root": "photos", "exclude": "exclude.csv"}, {"root": "{before}/photos", "exclude": "{before}/exclude.csv"}),
        ({"root": "{before}/photos", "exclude": "exclude.csv"}, {"exclude": "{before}/exclude.csv"}),
        ({"root": "photos", "relabel": "all.csv"}, {"root": "{before}/photos", "relabel": "{before}/all.csv"}),
        ({"root": "{before}/photos"}, {}),
        ({"root": "absent"}, {}),
        ({"root": "photos", "csv": "absent.csv"}, {}),
        ({"root": "s3://bucket/photos", "name": "stream"}, {}),
    ],
)
def test_data_is_found_again_from_another_folder(elsewhere: Path, given: dict[str, str], found: dict[str, str]) -> None:
    before = elsewhere.parent / "before"
    options, expected = (
        {key: value.format(before=before) for key, value in each.items()} for each in (given, given | found)
    )
    assert find_again(DatasetConfig(**options), before) == DatasetConfig(**expected)
    assert find_again(DatasetConfig(**options), Path()) == DatasetConfig(**options)


def test_data_of_the_same_name_here_is_not_that_which_is_meant(elsewhere: Path) -> None:
    before = elsewhere.parent / "before"
    (elsewhere / "photos").mkdir()
    assert find_again(DatasetConfig(root="photos"), before) == DatasetConfig(root=str(before / "photos"))
    (before / "photos").rename(before / "gone")
    assert find_again(DatasetConfig(root="photos"), before) == DatasetConfig(root="photos")
