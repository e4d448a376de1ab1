import csv
from pathlib import Path

import pytest

from test_writing import small_files
from thaw.comparison.compare import compare
from thaw.comparison.section import WIDTH, shorten
from thaw.launch.composing import compose
from written_runs import write_run


def test_a_table_fits_the_terminal_however_many_options_differ(tmp_path: Path) -> None:
    for number in range(3):
        overrides = " ".join(f"optimizer.option_of_a_long_name_{i}={number}.{i}" for i in range(12))
        write_run(tmp_path / f"{number}", overrides, acc=0.9 - number / 10)
    text = str(compare([tmp_path]))
    assert all(len(line) <= WIDTH for line in text.splitlines())
    assert "#3   option_of_a_long_name_0 2.0, option_of_a_long_name_1 2.1" in text


def test_one_option_is_a_column(tmp_path: Path) -> None:
    for number in range(2):
        write_run(tmp_path / f"{number}", f"optimizer.lr=0.{number + 1}", acc=0.9 - number / 10)
    lines = str(compare([tmp_path])).splitlines()
    assert lines[3].split()[:3] == ["lr", "runs", "accuracy"]
    assert lines[4].split()[:3] == ["0.1", "1", "0.9000"]


def test_markdown_has_a_row_a_setting(tmp_path: Path) -> None:
    for number in range(2):
        write_run(tmp_path / f"{number}", f"dataset.label_pattern='(a|b){number}'", acc=0.9 - number / 10)
    lines = compare([tmp_path]).markdown().splitlines()
    assert lines[0] == "**data: 200 images of 2 classes (val, last epoch)**"
    assert lines[2].startswith("| label_pattern | runs | accuracy | 95 % interval | acc at best epoch |")
    assert lines[4].startswith("| (a\\|b)0 | 1 | 0.9000 | 0.851 to 0.934 | 0.9200 |")
    assert len({line.replace("\\|", "").count("|") for line in lines[2:6]}) == 1


def test_beside_accuracies_on_test_that_of_the_best_epoch_is_said_to_be_on_val(tmp_path: Path) -> None:
    write_run(tmp_path / "run", "strategy=frozen", acc=0.7, test=0.9)
    board = compare([tmp_path])
    assert "val acc at" in str(board).splitlines()[2]
    assert "| val acc at best epoch |" in board.markdown()


def test_long_values_are_shortened() -> None:
    assert shorten("/somewhere/weights/squeezenet.pth") == "squeezenet.pth"
    assert shorten("null") == shorten("") == "–"
    assert len(shorten("a" * 100)) == 28
    assert [shorten(number) for number in ("0.008162428558540437", "1e-05", "0.9", "64")] == [
        "0.008162",
        "1e-05",
        "0.9",
        "64",
    ]


def test_a_table_that_cannot_be_written_leaves_the_one_before(tmp_path: Path) -> None:
    for number in range(9):
        write_run(tmp_path / "runs" / f"{number}", f"optimizer.lr=0.{number + 1}", acc=0.9 - number / 10)
    leaderboard, table = compare([tmp_path / "runs"]), tmp_path / "table.csv"
    table.write_text("old")
    with small_files(), pytest.raises(OSError, match="File too large"):
        leaderboard.write_csv(table)
    assert table.read_text() == "old"
    leaderboard.write_csv(table)
    assert len(table.read_text().splitlines()) == 1 + 9


def test_a_row_names_its_run_also_where_no_option_differs(tmp_path: Path) -> None:
    write_run(tmp_path / "only", "seed=1")
    compare([tmp_path]).write_csv(tmp_path / "table.csv")
    with (tmp_path / "table.csv").open(newline="") as file:
        assert [row["run"] for row in csv.DictReader(file)] == [str(tmp_path / "only")]


def test_a_row_has_every_option_that_differs_also_one_that_a_preset_sets(tmp_path: Path) -> None:
    for strategy in ("frozen", "finetune"):
        write_run(tmp_path / strategy, f"strategy={strategy}", config=compose(f"strategy={strategy}"))
    compare([tmp_path]).write_csv(tmp_path / "table.csv")
    with (tmp_path / "table.csv").open(newline="") as file:
        finetune, frozen = csv.DictReader(file)
    assert (finetune["strategy"], finetune["optimizer.lr"], finetune["trainer.max_epochs"]) == (
        "finetune",
        "0.0003",
        "8",
    )
    assert frozen["optimizer.lr"] == "0.003"
    assert "head.dropout" not in frozen


@pytest.mark.parametrize(("folders", "name"), [(["cv/0", "cv/1"], "cv"), (["cv/0"], "0"), (["a/0", "b/0"], "0")])
def test_runs_that_nothing_else_names_are_called_by_the_folder_that_holds_them(
    tmp_path: Path, folders: list[str], name: str
) -> None:
    for seed, folder in enumerate(folders):
        write_run(tmp_path / folder, f"seed={seed}", seed=seed)
    leaderboard = compare([tmp_path])
    [section] = leaderboard.sections
    assert section.table()[1][0][:2] == [name, str(len(folders))]
    assert section.descriptions == [name]
