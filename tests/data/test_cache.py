import os
from pathlib import Path

import pytest

from thaw.data.cache import cache_folder, file_stamp


def test_the_folder_is_named_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THAW_CACHE", str(tmp_path / "here"))
    assert cache_folder() == tmp_path / "here"
    monkeypatch.delenv("THAW_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "thaw"


def test_a_folder_that_is_named_needs_no_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    monkeypatch.setenv("THAW_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path


def test_a_stamp_changes_with_path_size_and_time(tmp_path: Path) -> None:
    first, second = tmp_path / "a.png", tmp_path / "b.png"
    for path in (first, second):
        path.write_bytes(b"pixels")
        os.utime(path, ns=(1, 1))
    stamps = {file_stamp(first), file_stamp(second)}
    assert file_stamp(first) in stamps
    os.utime(first, ns=(1, 2))
    stamps.add(file_stamp(first))
    first.write_bytes(b"more pixels")
    os.utime(first, ns=(1, 2))
    stamps.add(file_stamp(first))
    first.unlink()
    stamps.add(file_stamp(first))
    assert len(stamps) == 5


def test_a_stamp_changes_with_a_file_that_takes_the_place_of_another(tmp_path: Path) -> None:
    first, second, aside = (tmp_path / name for name in ("a.bmp", "b.bmp", "c.bmp"))
    for path in (first, second):
        path.write_bytes(path.name.encode())
        os.utime(path, ns=(1, 1))  # as after unpacking
    stamps = {file_stamp(first), file_stamp(second)}
    for source, target in ((first, aside), (second, first), (aside, second)):
        source.rename(target)
    assert not stamps & {file_stamp(first), file_stamp(second)}
