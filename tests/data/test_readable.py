import os
from pathlib import Path

import pytest

from thaw.data.readable import find_bad_once


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    monkeypatch.setenv("THAW_CACHE", str(tmp_path / "cache"))
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for path in paths:
        path.write_bytes(b"pixels")
    return paths


class Search:
    """A search that finds given bad files and counts how often it is made."""

    def __init__(self, bad: dict[Path, str]) -> None:
        self.bad = bad
        self.times = 0

    def __call__(self) -> dict[Path, str]:
        self.times += 1
        return self.bad


def test_good_files_are_searched_once(paths: list[Path]) -> None:
    search = Search({})
    assert find_bad_once(paths, search) == find_bad_once(paths, search) == {}
    assert search.times == 1


def test_bad_files_are_searched_and_named_each_time(paths: list[Path]) -> None:
    search = Search({paths[1]: "torn"})
    assert find_bad_once(paths, search) == find_bad_once(paths, search) == {paths[1]: "torn"}
    assert search.times == 2


def change_size(path: Path) -> None:
    path.write_bytes(b"other pixels")


def change_time(path: Path) -> None:
    os.utime(path, ns=(1, 1))


@pytest.mark.parametrize("change", [change_size, change_time, Path.unlink])
def test_a_changed_file_is_searched_anew(paths: list[Path], change: object) -> None:
    search = Search({})
    find_bad_once(paths, search)
    assert callable(change)
    change(paths[2])
    find_bad_once(paths, search)
    assert search.times == 2


def test_another_selection_is_searched_anew(paths: list[Path]) -> None:
    search = Search({})
    find_bad_once(paths, search)
    find_bad_once(paths[:2], search)
    assert search.times == 2


def test_a_cache_that_cannot_be_written_stops_nothing(paths: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THAW_CACHE", str(paths[0] / "cache"))  # below a file
    search = Search({})
    assert find_bad_once(paths, search) == find_bad_once(paths, search) == {}
    assert search.times == 2
