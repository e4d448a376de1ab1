import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from thaw.cli import main
from thaw.config import BackboneConfig, Config, DatasetConfig, LoggerConfig, StrategyConfig, TrainerConfig
from thaw.errors import ThawError
from thaw.inspection.prediction_files import read_predictions
from thaw.inspection.uncertainty import wilson_interval
from thaw.run import Run
from thaw.training.train import train

FILES = {
    "calibration.png", "confusion.png", "least_certain.jpg", "metrics.json", "predictions.csv", "top_losses.jpg"
}  # fmt: skip


@pytest.fixture
def run(finished_run: Run, tmp_path: Path) -> Run:
    """A copy that may be written to."""
    return Run(shutil.copytree(finished_run.folder, tmp_path / "run"))


def test_it_prints_the_scores_and_writes_predictions_metrics_and_figures(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(run.folder)]) == 0
    printed, expected = capsys.readouterr().out, run.summary["val"]
    assert "Best epoch on val, centre crop, 32-true on cpu. The best epoch was chosen on these images" in printed
    low, high = expected["acc_ci95"]
    assert f"{expected['acc']:.4f} (95 % interval {low:.3f} to {high:.3f}, n=9)" in printed
    assert f"Predictions, metrics and figures are in {run.evaluation}" in printed
    assert {path.name for path in run.evaluation.iterdir()} == FILES
    for path in run.evaluation.glob("*.png"):
        with Image.open(path) as image:
            assert min(image.size) > 200


@pytest.mark.parametrize("flag", ["--tta-views", "--least"])
def test_numbers_below_zero_are_refused(run: Run, capsys: pytest.CaptureFixture[str], flag: str) -> None:
    assert main(["evaluate", str(run.folder), flag, "-1"]) == 2
    assert capsys.readouterr().err == f"{flag} must be at least 0, got -1.\n"


def test_the_folder_of_a_run_is_refused_before_the_work(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(run.folder), "--out", str(run.folder)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "is the folder of a run, whose predictions would be lost. Name another one by --out." in printed.err


def test_what_it_writes_agrees_with_the_training_to_the_last_digit(run: Run) -> None:
    assert main(["evaluate", str(run.folder)]) == 0
    metrics = json.loads((run.evaluation / "metrics.json").read_text())
    assert {name: metrics[name] for name in run.summary["val"]} == run.summary["val"]
    assert (run.evaluation / "predictions.csv").read_text() == run.predictions_csv.read_text()
    assert (metrics["split"], metrics["precision"], metrics["device"]) == ("val", "32-true", "cpu")
    assert [score["n"] for score in metrics["per_class"]] == [3, 3, 3]
    expected = read_predictions(run.predictions_csv)["val"].calibration_error()
    assert metrics["calibration_error"] == pytest.approx(expected, abs=1e-5)


def test_the_last_epoch_is_judged_where_its_checkpoint_is_named(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    (run.checkpoints / "best.ckpt").write_text("of another epoch")
    assert main(["evaluate", str(run.last)]) == 0
    assert "Last epoch on val, centre crop, 32-true on cpu.\n" in capsys.readouterr().out  # chosen by nobody
    metrics = json.loads((run.folder / "evaluation_last" / "metrics.json").read_text())
    assert {name: metrics[name] for name in run.summary["last"]} == run.summary["last"]
    judged = run.folder / "evaluation_last" / "predictions.csv"
    assert judged.read_text() == run.predictions_last_csv.read_text()
    with pytest.raises(ThawError, match=r"^A report is of the best epoch: name the run's folder"):
        Run(run.last).report()


def test_other_images_views_and_places_can_be_named(
    finished_run: Run, image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("red", "blue"):
        shutil.copytree(image_folder / "val" / name, tmp_path / "new" / name)
    out, table = tmp_path / "out", tmp_path / "table.csv"
    table.write_text("name,n,precision,recall,f1\n")  # of an earlier evaluation
    arguments = ["--data", str(tmp_path / "new"), "--tta", "--out", str(out), "--csv", str(table)]
    assert main(["evaluate", str(finished_run.folder), *arguments]) == 0
    known = "Of 6 images, the run chose its best epoch on 6, so the figures flatter."
    assert (
        f"Best epoch on all of {tmp_path / 'new'}, mean of 2 views, 32-true on cpu. {known}\n\n"
        in capsys.readouterr().out
    )
    assert {path.name for path in out.iterdir()} == FILES
    assert set(read_predictions(out / "predictions.csv")) == {"all"}
    with table.open(newline="") as file:
        rows = [(row["name"], row["n"]) for row in csv.DictReader(file)]
    assert rows == [("blue", "3"), ("green", "0"), ("red", "3")]
    assert not finished_run.evaluation.exists()


def test_a_checkpoint_alone_judges_other_images(
    finished_run: Run, image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alone, photos = (
        shutil.copy(finished_run.best, tmp_path / "bees.ckpt"),
        shutil.copytree(image_folder, tmp_path / "photos"),
    )
    assert main(["evaluate", str(alone), "--data", str(photos), "--split", "val"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"bees.ckpt on val of {photos}, centre crop, ")
    assert "Which images it has learned from, a checkpoint alone does not tell.\n" in printed
    (folder,) = tmp_path.glob("bees_evaluation_val_of_photos_*")
    said = read_predictions(folder / "predictions.csv")["val"]
    expected = read_predictions(finished_run.predictions_csv)["val"]
    assert said.probabilities.numpy() == pytest.approx(expected.probabilities.numpy(), abs=0.02)
    for flags, message in (
        ([], "its data: name labelled images by --data."),
        (["--data", "photos", "--tta"], "its augmentation: no --tta."),
    ):
        assert main(["evaluate", str(alone), *flags]) == 2
        assert capsys.readouterr().err == f"{alone} is a file alone, without the run that tells {message}\n"


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        (["--split", "train"], "evaluation_train"),
        (["--tta"], "evaluation_tta"),
        (["--tta-views", "2"], "evaluation_2_views"),
        (["--data", "{here}/photos.v2", "--tta", "--tta-views", "1"], "evaluation_tta_1_views_of_photos.v2"),
        (["--data", "labels.csv", "--split", "val"], "evaluation_val_of_labels.csv"),
        (["--data", "site/val"], "evaluation_of_site__val"),
        (["--data", "site_val"], "evaluation_of_site_val"),
        (["--data", "val"], "evaluation_of_val"),
        (["--data", "site__val"], "evaluation_of_site__val_[0-9a-f]{6}"),
        (["--data", f"{'a' * 200}/val"], f"evaluation_of_{'a' * 115}__val_[0-9a-f]{{6}}"),
        (["--data", "breeds.csv", "--csv-label", "kind/breed"], "evaluation_of_breeds.csv_by_kind-breed"),
    ],
)
def test_what_is_evaluated_names_the_folder(
    run: Run, image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str], name: str
) -> None:
    for folder in ("photos.v2", "site/val", "site_val", "val", "site__val", f"{'a' * 200}/val"):
        shutil.copytree(image_folder / "val", tmp_path / folder)
    (tmp_path / "breeds.csv").write_text("path,kind/breed\nval/red/0.png,red\n")
    (tmp_path / "labels.csv").write_text("path,label,split\nphotos.v2/red/0.png,red,val\n")
    (run.folder / "started_in.txt").write_text(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", str(run.folder), *(flag.format(here=tmp_path) for flag in flags)]) == 0
    (folder,) = (path for path in run.folder.iterdir() if re.fullmatch(name, path.name))
    assert {path.name for path in folder.iterdir()} == FILES
    assert not run.evaluation.exists()


def test_a_csv_file_may_have_other_columns(run: Run, image_folder: Path, tmp_path: Path) -> None:
    table, flags = tmp_path / "table.csv", ["--csv-path", f"{image_folder}/val/{{file}}.png", "--csv-label", "kind"]
    table.write_text("file,kind,part\nred/0,red,test\nblue/1,blue,val\n")
    assert main(["evaluate", str(run.folder), "--data", str(table), *flags, "--csv-split", "part"]) == 0
    written = read_predictions(next(run.folder.glob("evaluation_of_*")) / "predictions.csv")
    assert written["test"].labels.tolist() == [2]


def test_of_groups_the_figures_go_by_these(
    finished_run: Run, image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = sorted(path for path in image_folder.rglob("*.png"))
    lines = [f"{path},{path.parent.name},{path.parts[-3]},p{number % 4}" for number, path in enumerate(paths)]
    table = tmp_path / "table.csv"
    table.write_text("\n".join(["path,label,split,patient", *lines]))
    config = Config(
        dataset=DatasetConfig(root=str(tmp_path), csv=table.name, csv_group="patient", image_size=64),
        backbone=BackboneConfig("squeezenet1_1", str(finished_run.best)),
        strategy=StrategyConfig("frozen"),
        trainer=TrainerConfig(max_epochs=1, accelerator="cpu", precision="32"),
        logger=LoggerConfig("csv"),
    )
    summary = train(config, tmp_path / "run")
    own, probe = summary["val"], summary["probe"]
    assert probe
    assert own["groups"] == probe["groups"] == 4
    assert own["acc_ci95"] != list(wilson_interval(own["acc"] * 9, 9))
    assert main(["evaluate", str(tmp_path / "run")]) == 0
    assert ", n=9 in 4 groups)" in capsys.readouterr().out
    metrics = json.loads((tmp_path / "run/evaluation/metrics.json").read_text())
    assert {name: metrics[name] for name in own} == own
    others = [str(tmp_path / "run"), "--data", str(table), "--split", "val"]
    assert main(["evaluate", *others, "--csv-group", "patient"]) == 0
    assert ", n=9 in 4 groups)" in capsys.readouterr().out
    assert main(["evaluate", *others]) == 0
    assert ", n=9)" in capsys.readouterr().out
    Run(tmp_path / "run").report()
    assert "With 9 images in 4 groups, the interval from" in (tmp_path / "run/report.html").read_text()


def test_other_data_of_the_same_name_goes_to_another_folder(
    run: Run, image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("here/new", "there/new"):
        shutil.copytree(image_folder / "val", tmp_path / place)
    (run.folder / "started_in.txt").write_text(str(tmp_path / "here"))
    for where in ("here", "there", "there"):
        monkeypatch.chdir(tmp_path / where)
        assert main(["evaluate", str(run.folder), "--data", "new"]) == 0
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", str(run.folder), "--data", "here/new"]) == 0
    far, near = sorted(path.name for path in run.folder.glob("evaluation_*"))[::-1]
    assert near == "evaluation_of_new"
    assert re.fullmatch("evaluation_of_new_[0-9a-f]{6}", far)


def test_what_tells_the_classes_otherwise_goes_to_another_folder(
    run: Run, image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (run.folder / "started_in.txt").write_text(str(tmp_path))
    (tmp_path / "list.csv").write_text("path,label,a,b\n0.png,red,val,test\n1.png,red,test,val\n")
    for number in (0, 1):
        shutil.copy(image_folder / "val" / "red" / f"{number}.png", tmp_path)
    monkeypatch.chdir(tmp_path)
    for flags in ([], ["--csv-split", "a"], ["--csv-split", "b"], ["--csv-path", "{path}"]):
        assert main(["evaluate", str(run.folder), "--data", "list.csv", *flags]) == 0
    assert len(list(run.folder.glob("evaluation_of_list.csv*"))) == 4


def test_mistakes_end_with_one_line_and_code_2(
    finished_run: Run, image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    table, others = tmp_path / "table.csv", [str(finished_run.folder), "--data"]
    table.write_text("file,kind\n1,red\n")
    for arguments, message in (
        ([str(tmp_path)], "is not the folder of a finished run"),
        ([str(finished_run.folder), "--device", "toaster"], "The device 'toaster' cannot be used here"),
        ([str(finished_run.folder), "--device", "tpu"], "The device 'tpu' cannot be used here"),
        ([str(finished_run.folder), "--split", "test"], "There is no test split in"),
        ([str(finished_run.folder), "--label-pattern", "(.)"], "--label-pattern is for the images of --data"),
        ([str(finished_run.folder), "--csv-label", "kind"], "--csv-label is for the images of --data"),
        ([*others, str(tmp_path), "--csv-label", "x"], f"--csv-label is for a CSV file, and {tmp_path} is a folder."),
        ([*others, str(table), "--label-pattern", "(.)"], f"--label-pattern is for a folder, and {table} is a file."),
        (
            [*others, str(image_folder / "val/red"), "--label-pattern", "("],
            "--label-pattern is no regular expression: '('",
        ),
        (
            [*others, str(table)],
            f"--data must have the columns path and label: {table} has file, kind. Others are named by "
            "--csv-path='folder/{column}.jpg' and --csv-label=column.",
        ),
        ([str(finished_run.folder), "--csv", str(tmp_path / "no" / "x.csv")], "there is no folder"),
        ([str(finished_run.folder), "--csv", str(tmp_path)], " is a folder: name a file."),
        ([*others, str(table), "--csv", str(table)], f"--csv={table} is there already, and no table of classes"),
        ([str(finished_run.folder), "--out", str(tmp_path / "file")], "cannot be written to (File exists)"),
        ([str(finished_run.folder), "--data", str(tmp_path / "absent")], "There is no folder or CSV file"),
    ):
        assert main(["evaluate", *arguments]) == 2
        printed = capsys.readouterr().err
        assert message in printed
        assert len(printed.splitlines()) == 1


def test_views_that_add_nothing_are_told_by_their_flags(
    changed_run: Callable[[str, object], Run], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(changed_run("augment", {"flip": 0}).folder), "--tta"]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("--tta has nothing to add: the run has augment.flip=0")
    assert "Add --tta-views, or leave it out." in printed


def test_a_full_disk_is_told_without_advice_on_trainings(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))  # as on a full disk
    try:
        assert main(["evaluate", str(run.folder)]) == 2
        message = f"{run.evaluation} cannot be written to (File too large). Name another folder by --out.\n"
        assert capsys.readouterr().err == message
        image, table = next(Path(run.dataset.root).rglob("*.png")), run.folder / "table.csv"
        assert main(["predict", str(run.folder), str(image), "--out", str(table)]) == 2
        assert capsys.readouterr().err == f"{table}: File too large. Fix that and start again.\n"
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_the_help_shows_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["evaluate", "--help"])
    assert end.value.code == 0
    assert "Example: thaw evaluate outputs/RUN" in capsys.readouterr().out
