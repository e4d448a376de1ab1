import csv
import json
from pathlib import Path
from typing import Any

import pytest

from thaw.cli import main
from thaw.compare import compare, leaderboard
from thaw.errors import ThawError


def write_run(folder: Path, overrides: str, acc: float, test: float | None = None) -> None:
    folder.mkdir(parents=True)

    def metrics(value: float) -> dict[str, Any]:
        return {"acc": value, "n": 200, "macro_f1": value, "loss": 1.0, "acc_ci95": [0, 1]}

    summary = {
        "val": metrics(min(acc + 0.02, 1)),
        "last": metrics(acc),
        "test": None if test is None else metrics(test),
        "seconds": {"total": 10.0},
        "params": {"total": 10, "trainable": 5},
        "command": f"python train.py {overrides}",
    }
    (folder / "summary.json").write_text(json.dumps(summary))


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    for seed, acc in enumerate((0.90, 0.94)):
        write_run(tmp_path / f"a{seed}", f"dataset=digits strategy=frozen seed={seed} hydra.run.dir=a{seed}", acc)
        write_run(tmp_path / f"b{seed}", f"dataset=digits strategy=finetune seed={seed}", acc + 0.03)
    return tmp_path


def test_seeds_are_pooled_and_what_differs_is_shown_best_first(sweep: Path) -> None:
    best, other = compare([sweep])
    assert (best.options, other.options) == ({"strategy": "finetune"}, {"strategy": "frozen"})
    row = other.row()
    assert (row["runs"], row["n"]) == (2, 200)
    assert row["acc"] == pytest.approx(0.92)
    assert row["spread"] == pytest.approx(0.0283, abs=1e-4)
    assert (row["ci95_low"], row["ci95_high"]) == (pytest.approx(0.8740, abs=1e-3), pytest.approx(0.9503, abs=1e-3))


def test_the_test_split_is_what_counts_where_there_is_one(tmp_path: Path) -> None:
    write_run(tmp_path / "run", "strategy=frozen", acc=0.9, test=0.7)
    assert compare([tmp_path])[0].row()["acc"] == 0.7
    assert "accuracy (test)" in leaderboard(compare([tmp_path]))


def test_the_command_prints_the_table_and_writes_it(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = sweep / "table.csv"
    assert main(["compare", str(sweep), "--csv", str(table)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].split()[0] == "strategy"
    assert "0.9200 ± 0.0283" in printed[2]
    with table.open(newline="") as file:
        assert [row["strategy"] for row in csv.DictReader(file)] == ["finetune", "frozen"]


def test_a_folder_without_runs_is_a_users_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ThawError, match="No finished runs in"):
        compare([tmp_path])
    assert main(["compare", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("No finished runs in")
