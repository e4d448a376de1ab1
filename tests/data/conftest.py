from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of stored features, in a cache of the test's own."""
    monkeypatch.setenv("THAW_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "features"
