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
    assert find_bad_once(paths, search, whole=True) == find_bad_once(paths, search, whole=True) == {}
    assert search.times == 1


def test_bad_files_are_searched_and_named_each_time(paths: list[Path]) -> None:
    search = Search({paths[1]: "torn"})
    assert find_bad_once(paths, search, whole=True) == find_bad_once(paths, search, whole=True) == {paths[1]: "torn"}
    assert search.times == 2


def change_size(path: Path) -> None:
    path.write_bytes(b"other pixels")


def change_time(path: Path) -> None:
    os.utime(path, ns=(1, 1))


@pytest.mark.parametrize("change", [change_size, change_time, Path.unlink])
def test_a_changed_file_is_searched_anew(paths: list[Path], change: object) -> None:
    search = Search({})
    find_bad_once(paths, search, whole=True)
    assert callable(change)
    change(paths[2])
    find_bad_once(paths, search, whole=True)
    assert search.times == 2


def test_another_selection_is_searched_anew(paths: list[Path]) -> None:
    search = Search({})
    find_bad_once(paths, search, whole=True)
    find_bad_once(paths[:2], search, whole=True)
    assert search.times == 2


@pytest.mark.parametrize("name", ["0.png/cache", "x" * 300], ids=["below a file", "refused by the system"])
def test_a_cache_that_cannot_be_used_stops_nothing(
    paths: list[Path], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("THAW_CACHE", str(paths[0].parent / name))
    search = Search({})
    assert find_bad_once(paths, search, whole=True) == find_bad_once(paths, search, whole=True) == {}
    assert search.times == 2


def test_headers_that_are_good_say_nothing_of_the_rest(paths: list[Path]) -> None:
    headers, whole = Search({}), Search({paths[1]: "torn"})
    for _ in range(2):
        assert find_bad_once(paths, headers, whole=False) == {}
    assert find_bad_once(paths, whole, whole=True) == {paths[1]: "torn"}
    assert (headers.times, whole.times) == (1, 1)


def test_files_that_are_good_have_good_headers(paths: list[Path]) -> None:
    whole, headers = Search({}), Search({})
    find_bad_once(paths, whole, whole=True)
    find_bad_once(paths, headers, whole=False)
    assert (whole.times, headers.times) == (1, 0)
