import gc
import importlib.util
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from types import ModuleType

import pytest

from thaw.postponed import Postponed, PostponedParents, postpone


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A package that notes each time that it, or a module in it, is made."""
    folder = tmp_path / "ice"
    folder.mkdir()
    (folder / "__init__.py").write_text("made = []\nfrom ice import floe\nmade.append('ice')\ncold = True\n")
    (folder / "floe.py").write_text("import ice\nice.made.append('floe')\nsize = 1\n")
    (folder / "berg.py").write_text("import ice\nice.made.append('berg')\nsize = 2\n")
    monkeypatch.syspath_prepend(tmp_path)
    postpone({"ice": {"color": "blue"}, "ice.floe": {"form": "flat"}})
    yield "ice"
    for name in [name for name in sys.modules if name.partition(".")[0] == "ice"]:
        del sys.modules[name]
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, PostponedParents)]


def made() -> list[str]:
    ice = sys.modules["ice"]
    return [] if isinstance(ice, Postponed) and "made" not in vars(ice) else ice.made


def test_what_is_known_needs_no_module(package: str) -> None:
    ice = importlib.import_module("ice")
    floe = importlib.import_module("ice.floe")
    assert (ice.color, floe.form) == ("blue", "flat")
    assert not hasattr(ice, "__wrapped__")
    assert made() == []


def test_it_is_found_by_who_looks_for_it(package: str) -> None:
    assert importlib.util.find_spec("ice") is not None
    assert made() == []


def test_threads_that_use_it_at_once_make_it_once(package: str) -> None:
    stand_in, gate = importlib.import_module("ice"), threading.Barrier(8)

    def use(_: int) -> bool:
        gate.wait()
        return bool(stand_in.cold)

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(use, range(8)))
    assert made() == ["floe", "ice"]


def test_modules_that_come_meanwhile_do_no_harm(package: str) -> None:
    """A collection of garbage lets another thread import; here it does so itself."""
    stand_in, names = importlib.import_module("ice"), (f"drift{number}" for number in count())
    threshold, drift = gc.get_threshold(), ModuleType("drift")

    def come(phase: str, info: dict[str, int]) -> None:
        sys.modules[next(names)] = drift

    gc.callbacks.append(come)
    gc.set_threshold(1)
    try:
        assert stand_in.cold
    finally:
        gc.set_threshold(*threshold)
        gc.callbacks.remove(come)
        for name in [name for name in sys.modules if name.startswith("drift")]:
            del sys.modules[name]


def test_anything_else_loads_it_once(package: str) -> None:
    stand_in = importlib.import_module("ice")
    assert stand_in.cold
    assert stand_in.cold
    assert sys.modules["ice"] is not stand_in
    assert made() == ["floe", "ice"]
    with pytest.raises(AttributeError, match="'ice' has no attribute 'hot'"):
        assert stand_in.hot


@pytest.mark.parametrize(("name", "size"), [("floe", 1), ("berg", 2)])
def test_a_module_in_it_loads_it_first_and_is_made_once(package: str, name: str, size: int) -> None:
    module = importlib.import_module(f"ice.{name}")
    assert module.size == size
    assert module.__spec__ is not None
    assert getattr(sys.modules["ice"], name).size == size
    assert made() == ["floe", "ice", *(["berg"] if name == "berg" else [])]
    assert importlib.reload(sys.modules[f"ice.{name}"]).size == size


def test_a_module_that_is_not_there_is_said_to_be_missing(package: str) -> None:
    with pytest.raises(ModuleNotFoundError, match=r"ice\.cube"):
        importlib.import_module("ice.cube")


def test_a_module_that_is_there_already_stays(package: str) -> None:
    importlib.import_module("ice").cold  # noqa: B018 - loads it
    postpone({"ice": {}})
    assert not isinstance(sys.modules["ice"], Postponed)
