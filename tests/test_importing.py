import gc
import os
import subprocess
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest

from thaw.importing import heavy_imports
from thaw.run import Run


class Knot:
    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    yield
    gc.unfreeze()
    gc.enable()


def test_what_was_made_inside_is_left_alone_and_what_came_later_is_collected() -> None:
    with heavy_imports():
        assert not gc.isenabled()
        kept = weakref.ref(Knot())
    assert gc.isenabled()
    collected = weakref.ref(Knot())
    gc.collect()
    assert kept() is not None
    assert collected() is None


def test_a_collector_that_was_off_stays_off() -> None:
    gc.disable()
    with heavy_imports():
        pass
    assert not gc.isenabled()


@pytest.mark.parametrize(
    ("own", "count"), [({}, "2000"), ({"GOMP_SPINCOUNT": "9"}, "9"), ({"OMP_WAIT_POLICY": "active"}, None)]
)
def test_waiting_threads_sleep_soon_unless_the_user_has_said_how_long(
    monkeypatch: pytest.MonkeyPatch, own: dict[str, str], count: str | None
) -> None:
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in own.items():
        monkeypatch.setenv(name, value)
    with heavy_imports():
        assert os.environ.get("GOMP_SPINCOUNT") == count


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", ["report RUN --out a.html", "compare RUN --plot chart.png", "check IMAGES", "pack IMAGES packed"]
)
def test_a_command_that_imports_torch_leaves_it_alone(
    command: str, finished_run: Run, image_folder: Path, tmp_path: Path
) -> None:
    if command.startswith("pack"):
        pytest.importorskip("litdata")
    places = {"RUN": str(finished_run.folder), "IMAGES": str(image_folder)}
    arguments = [places.get(word, word) for word in command.split()]
    code = "import gc, sys; from thaw.cli import main; main(sys.argv[1:]); sys.exit(gc.get_freeze_count() < 100_000)"
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
