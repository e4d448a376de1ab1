import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf

from thaw.console import ConsoleHandler, LogFile, table_text


def test_long_lines_and_brackets_are_printed_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    handler = ConsoleHandler()
    line = "[bold]a folder called so[/bold] " + "x" * 300
    handler.emit(logging.LogRecord("thaw", logging.INFO, "", 0, line, None, None))
    assert capsys.readouterr().out == line + "\n"


def test_a_record_with_the_wrong_arguments_ends_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for handler in (ConsoleHandler(), LogFile(tmp_path / "train.log")):
        handler.handle(logging.LogRecord("library", logging.WARNING, "", 0, "%d %s", ("a",), None))
        handler.handle(logging.LogRecord("library", logging.WARNING, "", 0, "%d", (1,), None))
        handler.close()
        assert "--- Logging error ---" in capsys.readouterr().err
    assert (tmp_path / "train.log").read_text() == "1\n"


def test_a_letter_that_the_terminal_lacks_is_no_reason_to_fail() -> None:
    command = [sys.executable, "-m", "thaw.cli", "predict", "--help"]
    ascii_only = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, capture_output=True, text=True, env=ascii_only)
    assert (done.returncode, done.stderr) == (0, "")
    assert "auto, cpu, gpu, \\u2026" in done.stdout


def test_a_closed_output_is_no_reason_to_fail() -> None:
    code = "from thaw.console import ensure_output; ensure_output(); import sys; print(1); sys.stdout.isatty()"
    done = subprocess.run(
        f'"{sys.executable}" -c "{code}" >&-', shell=True, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_table_shows_cells_whole_and_as_they_are() -> None:
    cells = ["[bold].jpg", ":smile:", "x" * 300]
    assert table_text(["a", "b", "c"], [cells]).splitlines()[1].split() == cells


def test_a_table_aligns_names_left_and_numbers_right() -> None:
    assert table_text(["stage", "lr"], [["head", 0.01], ["0 conv1", 1]]).splitlines() == [
        "stage      lr",
        "head     0.01",
        "0 conv1     1",
    ]


def test_a_name_in_a_table_does_not_command_the_terminal() -> None:
    assert "\x1b" not in table_text(["class"], [["\x1b[31mred"]])


def test_no_cell_is_cut_however_many_there_are() -> None:
    cells = [f"species_number_{number:03}" for number in range(100)]
    assert table_text(["image", *cells], [["a.jpg", *cells]]).split() == ["image", *cells, "a.jpg", *cells]


OUTPUT_FOLDER = "thaw.launch.sweep.OutputFolder"


def test_a_sweep_says_what_is_new_all_results_and_no_details(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    others = OmegaConf.create({"hydra": HydraConf(mode=RunMode.MULTIRUN)})  # of another program that calls Thaw
    own = OmegaConf.create(
        {"hydra": HydraConf(mode=RunMode.MULTIRUN, callbacks={"folder": {"_target_": OUTPUT_FOLDER}})}
    )
    monkeypatch.setattr(ConsoleHandler, "said", set())
    data = {"msg": "train 244", "name": "thaw.data.datamodule"}
    detail = {"msg": "epoch 1/2", "name": "thaw.training.progress", "is_detail": True}
    result = {"msg": "Finished already.", "name": "thaw.launch.job"}
    for job in (None, others, own):
        monkeypatch.setattr(HydraConfig.instance(), "cfg", job)
        for _ in range(2):
            handler = ConsoleHandler()  # each job has its own
            for record in (data, detail, result):
                handler.emit(logging.makeLogRecord(record | {"levelno": logging.INFO}))
    alone = ["train 244", "epoch 1/2", "Finished already."]
    swept = ["train 244", "Finished already.", "Finished already."]
    assert capsys.readouterr().out.splitlines() == [*alone * 4, *swept]
