"""No malicious release of a dependency; that no file can run code is ruff's part (S…, TID251 in pyproject.toml)."""

import re
from importlib.metadata import version
from pathlib import Path


def test_the_malicious_releases_of_lightning_are_outside_the_bounds() -> None:
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    assert '"pytorch-lightning!=2.6.2,!=2.6.3"' in text
    for name in ("lightning", "pytorch-lightning"):
        assert version(name) not in ("2.6.2", "2.6.3")
    least = re.search(r'"lightning>=(\d+)\.(\d+)\.(\d+)', text)
    assert least is not None
    assert tuple(map(int, least.groups())) > (2, 6, 3)
