from pathlib import Path

import pytest

from thaw.errors import ThawError
from thaw.run import Run
from thaw.training.resuming import require_later, require_own_folder


def test_a_run_goes_on_in_its_own_folder_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    require_own_folder(Run(tmp_path / "a"), "a")
    with pytest.raises(ThawError, match=r"^resume=a goes on in that folder, and this run is to lie in b\. "):
        require_own_folder(Run("b"), "a")


def test_a_finished_run_goes_on_only_to_a_later_epoch(finished_run: Run, tmp_path: Path) -> None:
    require_later(Run(tmp_path), 1)
    require_later(finished_run, 3)
    for max_epochs in (1, 2):
        with pytest.raises(
            ThawError, match=rf"^resume={finished_run.folder} is finished\. .*, add trainer\.max_epochs=N, above 2\.$"
        ):
            require_later(finished_run, max_epochs)
    with pytest.raises(
        ThawError, match=r"is finished\. trainer\.max_epochs=0, as strategy=probe has it, trains nothing\.$"
    ):
        require_later(finished_run, 0)
