import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from thaw.cli import main
from thaw.comparison.runs import find_runs, find_unfinished
from thaw.config import Config, DatasetConfig
from thaw.errors import ThawError
from thaw.run import Run


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    config = Config()
    config.dataset.resize = [64, 64]
    run.write_config(config)
    assert not run.is_finished
    run.write_summary({"val": {"acc": 0.1 + 0.2}})
    assert run.is_finished
    assert run.config["dataset"]["resize"] == [64, 64]
    assert run.config["optimizer"]["lr"] == config.optimizer.lr
    assert run.summary == {"val": {"acc": 0.1 + 0.2}}


def test_its_data_is_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    Path("photos").mkdir()
    run = Run(tmp_path / "run")
    run.write_config(Config(DatasetConfig(root="photos")))
    assert run.dataset.root == run.config["dataset"]["root"] == "photos"
    monkeypatch.chdir(tmp_path / "there")
    assert run.dataset.root == str(tmp_path / "here" / "photos")
    run.write_config(Config(DatasetConfig(root="photos"), resume=str(run.folder)))  # it goes on from there
    assert run.config["dataset"]["root"] == "photos"
    assert run.started_in == tmp_path / "here"
    (tmp_path / "here" / "photos").rename("photos")
    assert run.dataset.root == "photos"
    run.write_config(Config(DatasetConfig(root="photos"), resume=str(run.folder)))
    assert run.started_in == tmp_path / "there"
    (run.folder / "started_in.txt").unlink()  # only some of its files were copied
    monkeypatch.chdir(tmp_path)
    assert run.dataset.root == "photos"


def test_a_run_is_printed_as_it_is_made(finished_run: Run) -> None:
    assert repr(Run("outputs/it's a run")) == str(Run(Path("outputs/it's a run"))) == """Run("outputs/it's a run")"""
    assert repr(Run(finished_run.best)) == f"Run('{finished_run.folder}')"


@pytest.mark.parametrize("name", ["checkpoints/last.ckpt", "summary.json"])
@pytest.mark.parametrize("resume", [None, "elsewhere"])
def test_a_run_is_not_begun_anew_where_one_lies(tmp_path: Path, name: str, resume: str | None) -> None:
    run = Run(tmp_path / "run")
    run.write_config(Config())
    run.write_config(Config(seed=1))  # nothing to lose yet
    run.checkpoints.mkdir()
    (run.folder / name).touch()
    with pytest.raises(
        ThawError, match=rf"^{run.folder} holds a run already, .*: resume={run.folder} .*another folder"
    ):
        run.write_config(Config(seed=2, resume=resume))
    assert run.config["seed"] == 1
    run.write_config(Config(seed=2, resume=f"{tmp_path}/other/../run"))
    assert run.config["seed"] == 2


def test_an_epoch_that_was_validated_in_parts_was_chosen_from_too(changed_run: Callable[[str, object], Run]) -> None:
    run = changed_run("trainer.max_epochs", 1)
    run.metrics_csv.write_text("\n".join(run.metrics_csv.read_text().splitlines()[:2]))
    summary = run.full_summary
    for loss, chosen in ((summary["val"]["loss"], False), (summary["val"]["loss"] + 1, True)):
        run.write_summary({**summary, "last": {**summary["val"], "loss": loss}})
        assert run.chose_epoch == chosen


def test_finished_runs_are_found_in_order(tmp_path: Path) -> None:
    for name in ("b", "a", "unfinished"):
        (tmp_path / name).mkdir()
    for name in ("b", "a"):
        Run(tmp_path / name).write_summary({})
    assert [run.folder.name for run in find_runs(tmp_path)] == ["a", "b"]
    assert [run.folder for run in find_runs(tmp_path / "a")] == [tmp_path / "a"]


def test_runs_that_were_begun_and_have_no_summary_are_unfinished(tmp_path: Path) -> None:
    for name in ("done", "training", "killed/.hydra", "conf"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("done", "training"):
        Run(tmp_path / name).write_config(Config())
    Run(tmp_path / "done").write_summary({})
    (tmp_path / "conf" / "config.yaml").touch()  # no run's: it has no figures
    assert find_unfinished(tmp_path) == [tmp_path / "killed", tmp_path / "training"]


def test_a_range_test_is_no_unfinished_run(tmp_path: Path) -> None:
    Run(tmp_path).write_config(Config())
    (tmp_path / ".hydra").mkdir()
    (tmp_path / "figures" / "learning_rate.png").touch()
    assert find_unfinished(tmp_path) == []
    Run(tmp_path).checkpoints.mkdir()  # of a training that began with one
    assert find_unfinished(tmp_path) == [tmp_path]


def test_the_curve_of_an_earlier_range_test_is_not_taken_for_that_of_a_training(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.write_config(Config())
    run.rate_curve.write_text("find_lr.py's")
    run.write_config(Config(seed=1))  # a training there
    assert not run.rate_curve.exists()
    assert (run.figures / "learning_rate_before.png").read_text() == "find_lr.py's"
    run.rate_curve.write_text("its own")
    run.write_config(Config(seed=1, resume=str(tmp_path)))
    assert run.rate_curve.read_text() == "its own"


def test_what_another_program_of_hydra_is_told_is_not_what_was_typed_for_the_run(tmp_path: Path) -> None:
    script = tmp_path / "mine.py"
    script.write_text(
        """
import hydra
from thaw.config import Config
from thaw.run import Run

@hydra.main(version_base="1.3", config_path=None)
def main(options):
    Run(options.run).write_config(Config())

main()
"""
    )
    arguments = [f"+run={tmp_path / 'run'}", f"hydra.run.dir={tmp_path / 'mine'}"]
    subprocess.run([sys.executable, str(script), *arguments], check=True)
    run = Run(tmp_path / "run")
    assert run.is_started
    assert not run.was_typed


def test_a_folder_that_is_no_run_says_what_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(ThawError, match=r"is not the folder of a finished run: it has no summary\.json"):
        _ = Run(tmp_path).summary
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    with pytest.raises(ThawError, match=rf"no summary\.json\. To finish it: thaw train resume={tmp_path}$"):
        _ = Run(tmp_path).summary
    (tmp_path / "metrics.csv").write_text("epoch,val/acc\n1,0.5\n2,0.6\n")
    with pytest.raises(ThawError, match=r"; to end it where it is: trainer\.max_epochs=2 behind that$"):
        _ = Run(tmp_path).summary


def test_a_folder_that_is_not_there_or_holds_runs_is_told(tmp_path: Path) -> None:
    Run(tmp_path / "outputs" / "ants").write_config(Config())
    with pytest.raises(ThawError, match=r"^There is no folder .*outputs/ant\. Did you mean 'ants'\?$"):
        _ = Run(tmp_path / "outputs" / "ant").summary
    with pytest.raises(ThawError, match=r"^There is no folder nowhere/at/all\.$"):
        _ = Run("nowhere/at/all").summary
    Run(tmp_path / "outputs" / "ants").write_summary({})  # type: ignore[typeddict-item]
    with pytest.raises(ThawError, match=r"no summary\.json\. It holds runs: name one, such as .*outputs/ants\.$"):
        _ = Run(tmp_path / "outputs").summary


@pytest.mark.slow
def test_every_command_takes_that_checkpoint(finished_run: Run, image_folder: Path, tmp_path: Path) -> None:
    run = Run(shutil.copytree(finished_run.folder, tmp_path / "run"))
    best = str(run.best)
    for command in (
        ["predict", best, str(image_folder / "val")],
        ["evaluate", best],
        ["report", best],
        ["compare", best],
        ["export", best, "--format", "torch-export"],
    ):
        assert main(command) == 0
    assert all((run.folder / name).exists() for name in ("evaluation", "report.html", "model.pt2"))


def test_the_classifier_and_the_data_of_a_run_are_loaded_back(finished_run: Run) -> None:
    classifier = finished_run.load_classifier()
    data = finished_run.load_data(classifier)
    data.setup()
    assert classifier.classes == data.classes == ("blue", "green", "red")
    assert classifier.transform == data.transform
    assert not classifier.training
    assert finished_run.load_data().transform == data.transform


def test_a_folder_may_lie_at_home(finished_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(finished_run.folder.parent))
    assert Run(f"~/{finished_run.folder.name}").folder == finished_run.folder


def test_what_a_run_reads_and_writes_may_lie_at_home(
    finished_run: Run, image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(image_folder / "val", tmp_path / "photos")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(finished_run.evaluate(data="~/photos").labels) == 9
    assert finished_run.report("~/report.html", top=0) == tmp_path / "report.html"
