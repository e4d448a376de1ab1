import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

from thaw.cli import main
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


@pytest.mark.parametrize("flag", ["--csv", "--markdown", "--plot"])
def test_a_file_without_a_folder_is_refused_before_the_runs_are_read(
    finished_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], flag: str
) -> None:
    path = tmp_path / "nowhere" / "table.png"
    assert main(["compare", str(finished_run.folder), flag, str(path)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == f"{flag}={path} cannot be written: there is no folder {path.parent}.\n"


def test_a_reader_that_has_read_enough_ends_it_without_a_word(finished_run: Run) -> None:
    command = [sys.executable, "-m", "thaw.cli", "compare", str(finished_run.folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert process.returncode == 141
