import csv
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from shutil import copytree

import pytest
import torch
from PIL import Image

from thaw.cli import main
from thaw.inspection.prediction_files import read_predictions, write_predictions
from thaw.inspection.predictions import Predictions
from thaw.run import Run
from written_runs import write_run


def test_the_command_prints_the_table_and_writes_it_in_every_form(
    finished_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, text, picture = (tmp_path / f"table.{suffix}" for suffix in ("csv", "md", "png"))
    options = ["--csv", str(table), "--markdown", str(text), "--plot", str(picture)]
    assert main(["compare", str(finished_run.folder), *options]) == 0
    accuracy = f"{finished_run.summary['last']['acc']:.4f}"
    assert accuracy in capsys.readouterr().out
    assert accuracy in text.read_text()
    assert picture.read_bytes().startswith(b"\x89PNG")
    with table.open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert float(row["acc"]) == finished_run.summary["last"]["acc"]
    assert (row["runs"], row["n"], row["verdict"], row["p"]) == ("1", "9", "", "")


def test_a_folder_whose_name_is_not_utf8_is_written_as_its_bytes(tmp_path: Path) -> None:
    write_run(tmp_path / os.fsdecode(b"caf\xe9"), "seed=1")
    table, text = tmp_path / "table.csv", tmp_path / "table.md"
    assert main(["compare", str(tmp_path), "--csv", str(table), "--markdown", str(text)]) == 0
    assert b"/caf\xe9," in table.read_bytes()
    assert b"| caf\xe9 |" in text.read_bytes()


def test_a_chart_of_another_kind_is_refused_before_the_runs_are_read(
    finished_run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", str(finished_run.folder), "--plot", "table.doc"]) == 2
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "--plot must end in .png or .svg or .pdf, got 'table.doc'.\n")


@pytest.mark.parametrize("flag", ["--csv", "--predictions"])
def test_a_table_is_no_other_file(finished_run: Run, capsys: pytest.CaptureFixture[str], flag: str) -> None:
    assert main(["compare", str(finished_run.folder), flag, "table.xls"]) == 2
    assert capsys.readouterr().err == f"{flag} must end in .csv, got 'table.xls'.\n"


@pytest.mark.parametrize("flag", ["--csv", "--markdown", "--plot", "--predictions", "--top-losses"])
def test_a_file_without_a_folder_is_refused_before_the_runs_are_read(
    finished_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], flag: str
) -> None:
    path = tmp_path / "nowhere" / ("table.csv" if flag in ("--csv", "--predictions") else "table.png")
    assert main(["compare", str(finished_run.folder), flag, str(path)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == f"{flag}={path} cannot be written: there is no folder {path.parent}.\n"


def write_fold(folder: Path, rate: float, fold: int, num_wrong: int, classes: Sequence[str] = ("ants", "bees")) -> Run:
    """A run of one of three folds of ten ants each, the first of which it takes for bees."""
    options = f"optimizer.lr={rate} dataset.num_folds=3 dataset.fold={fold}"
    run = Run(write_run(folder / f"{rate}_{fold}", options, n=10, wrong=range(num_wrong), images=f"fold{fold}"))
    logits = torch.tensor([[1.0 + i + fold / 10, 0.0] for i in range(10)])
    logits[:num_wrong] *= -1
    paths = [f"fold{fold}/{i}.jpg" for i in range(10)]
    predictions = Predictions(paths, torch.zeros(10, dtype=torch.long), logits, classes)
    write_predictions(run.predictions_last_csv, {"val": predictions})
    return run


def test_the_answers_of_all_folds_of_the_best_setting_are_written_highest_loss_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [write_fold(tmp_path, 0.1, fold, num_wrong=fold) for fold in range(3)]
    for fold in range(3):
        write_fold(tmp_path, 0.2, fold, num_wrong=5)
    table = tmp_path / "all.csv"
    assert main(["compare", str(tmp_path), "--predictions", str(table)]) == 0
    printed = capsys.readouterr().out
    assert "\nlr 0.1, seed 0, val of 3 folds, last epoch; no image is judged by a run" in printed
    assert "\naccuracy           0.9000 (95 % interval" in printed
    assert re.search("\nants +bees +3\n", printed)
    assert printed.endswith(f"\nPredictions, highest loss first, are in {table}\n")
    with table.open(newline="") as file:
        header, *rows = csv.reader(file)
    expected = [line for run in runs for line in csv.reader(run.predictions_last_csv.read_text().splitlines())]
    assert [header] == expected[:1]
    assert sorted(rows) == sorted(row for row in expected if row != header)
    losses = [float(row[4]) for row in rows]
    assert losses == sorted(losses, reverse=True)
    assert [row[1] for row in rows[:3]] == ["fold2/1.jpg", "fold2/0.jpg", "fold1/0.jpg"]


def test_the_images_of_highest_loss_are_drawn(
    finished_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "wrong.jpg"
    assert main(["compare", str(finished_run.folder), "--top-losses", str(picture)]) == 0
    assert capsys.readouterr().out.endswith(f"\nThe images of highest loss are in {picture}\n")
    with Image.open(picture) as grid:
        assert grid.size == (6 * 210, 35 + 2 * 260)  # all nine images of val, in two rows


def test_where_the_images_are_gone_no_picture_is_drawn(
    finished_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(copytree(finished_run.folder, tmp_path / "run"))
    config, root = run.folder / "config.yaml", finished_run.dataset.root
    config.write_text(config.read_text().replace(root, str(tmp_path / "gone")))
    picture = tmp_path / "wrong.png"
    assert main(["compare", str(run.folder), "--top-losses", str(picture)]) == 2
    expected = f"dataset.root must be a folder that exists, got '{tmp_path / 'gone'}'.\n"
    assert capsys.readouterr().err.endswith(expected)
    assert not picture.exists()


def test_the_answers_of_a_run_are_written_without_scores(
    finished_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "all.csv"
    assert main(["compare", str(finished_run.folder), "--predictions", str(table)]) == 0
    assert "precision" not in capsys.readouterr().out
    assert read_predictions(table).keys() == {"val"}
    own = finished_run.predictions_last_csv.read_text().splitlines()
    assert sorted(table.read_text().splitlines()) == sorted(own)


@pytest.mark.parametrize(
    ("end", "refusal"),
    [
        (lambda folder: write_fold(folder, 0.1, 2, 1, ("ants", "wasps")), "has other classes than"),
        (lambda folder: write_fold(folder, 0.1, 2, 1).predictions_last_csv.unlink(), "cannot be read as predictions"),
        (
            lambda folder: write_run(folder / "other", "dataset=digits", n=9),
            "there is none of settings on other images",
        ),
    ],
    ids=["other classes", "lost", "other images"],
)
def test_answers_that_cannot_be_put_together_are_refused(
    end: Callable[[Path], object], refusal: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for fold in range(2):
        write_fold(tmp_path, 0.1, fold, num_wrong=1)
    end(tmp_path)
    assert main(["compare", str(tmp_path), "--predictions", str(tmp_path / "all.csv")]) == 2
    assert refusal in capsys.readouterr().err
    assert not (tmp_path / "all.csv").exists()


def test_a_reader_that_has_read_enough_ends_it_without_a_word(finished_run: Run) -> None:
    command = [sys.executable, "-m", "thaw.cli", "compare", str(finished_run.folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert process.returncode == 141


def test_two_tables_have_a_file_each(finished_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = str(tmp_path / "table.csv")
    assert main(["compare", str(finished_run.folder), "--csv", table, "--predictions", table]) == 2
    assert capsys.readouterr().err == f"Two flags name one file to write: {table}, {table}.\n"
