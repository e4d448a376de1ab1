import shutil
from pathlib import Path

import pytest

from thaw.cli import main
from thaw.commands.targets import refuse_unwritable
from thaw.errors import ThawError
from thaw.run import Run


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["predict", "RUN", "RUN", "--out"], "predictions.csv"),
        (["predict", "RUN", "RUN", "--out"], "summary.json"),
        (["evaluate", "RUN", "--csv"], "metrics.csv"),
        (["compare", "RUN", "--csv"], "predictions_last.csv"),
        (["compare", "RUN", "--markdown"], "config.yaml"),
        (["compare", "RUN", "--predictions"], "predictions.csv"),
        (["compare", "RUN", "--markdown"], "train.log"),
    ],
)
def test_a_runs_own_files_are_not_written_over(
    finished_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], name: str
) -> None:
    folder = shutil.copytree(finished_run.folder, tmp_path / "run")
    (folder / "train.log").write_text("what was printed")
    before = (folder / name).read_bytes()
    assert main([word.replace("RUN", str(folder)) for word in [*words, f"RUN/{name}"]]) == 2
    *_, flag = words
    rule = f"{flag}={folder / name} is a file of the run itself, which would be lost: name another.\n"
    assert capsys.readouterr().err == rule
    assert (folder / name).read_bytes() == before


def test_nor_by_a_link(finished_run: Run, tmp_path: Path) -> None:
    (tmp_path / "link.csv").symlink_to(finished_run.predictions_csv)
    with pytest.raises(ThawError, match="is a file of the run itself"):
        refuse_unwritable("--out", tmp_path / "link.csv")


def test_other_files_may_lie_in_the_folder_of_a_run(finished_run: Run, tmp_path: Path) -> None:
    refuse_unwritable("--out", finished_run.folder / "photos.csv", ".csv")
    refuse_unwritable("--out", tmp_path / "predictions.csv", ".csv")
