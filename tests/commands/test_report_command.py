from pathlib import Path

import pytest

from thaw.cli import main
from thaw.run import Run


def test_it_says_where_the_page_is(finished_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.html"
    assert main(["report", str(finished_run.folder), "--out", str(page), "--top", "1"]) == 0
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert capsys.readouterr().out.startswith(f"{page} (0.")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "is not the folder of a finished run: it has no summary.json"),
        (["--top", "-1"], "--top must be at least 0, got -1"),
        (["--out", "page.txt"], "--out must end in .html, got 'page.txt'."),
        (["--out", "nowhere/page.html"], "--out=nowhere/page.html cannot be written: there is no folder nowhere."),
    ],
)
def test_a_mistake_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["report", str(tmp_path), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["report", "--help"])
    assert "Example: thaw report outputs/" in capsys.readouterr().out
