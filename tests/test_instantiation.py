import sys
from pathlib import Path

import pytest

from thaw.errors import ThawError
from thaw.instantiation import make


def test_a_class_of_ones_own_is_found_in_the_folder_that_one_works_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "salt_of_mine.py").write_text(
        "class Salt:\n    def __init__(self, share):\n        self.share = share\n"
    )
    (tmp_path / "json.py").write_text("raise AssertionError('this is not the standard library')\n")
    monkeypatch.setattr(sys, "path", [*sys.path])
    with pytest.raises(ThawError, match=r"^augment\.transforms\.salt cannot be made: .*salt_of_mine"):
        make("augment.transforms.salt", {"_target_": "salt_of_mine.Salt", "share": 0.1})
    monkeypatch.chdir(tmp_path)
    assert make("augment.transforms.salt", {"_target_": "salt_of_mine.Salt", "share": 0.1}).share == 0.1
    assert type(make("key", {"_target_": "json.JSONEncoder"})).__module__ == "json.encoder"


def test_a_name_that_its_module_lacks_is_told_once_with_the_one_that_may_be_meant(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(ThawError) as refusal:
        make("metrics.kappa", {"_target_": "torchmetrics.CohenKapa"})
    expected = "metrics.kappa cannot be made: module 'torchmetrics' has no attribute 'CohenKapa'. Did you mean"
    assert str(refusal.value) == f"{expected} 'CohenKappa'?"
    assert caplog.text == ""
