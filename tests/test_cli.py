import subprocess
import sys
from importlib.metadata import version

import pytest

from thaw.cli import main


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian", "strategy=frozen"], "thaw has no command 'trian'. Did you mean 'train'? "),
        (["preditc", "RUN"], "thaw has no command 'preditc'. Did you mean 'predict'? "),
        (["sing"], "thaw has no command 'sing'. `thaw --help` lists all.\n"),
    ],
)
def test_a_command_that_there_is_not_is_one_line(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith(message)
    assert printed.err.count("\n") == 1
    assert not printed.out


def test_commands_and_flags_are_left_to_their_parser(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--help"], ["predict", "--help"]):
        with pytest.raises(SystemExit, match=r"^0$"):
            main(words)
    for words in ([], ["--nope"], ["predict"]):
        with pytest.raises(SystemExit, match=r"^2$"):
            main(words)


def test_it_says_which_version_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["--version"])
    assert capsys.readouterr().out == f"thaw {version('thaw')}\n"


def test_the_package_is_the_command() -> None:
    said = subprocess.run([sys.executable, "-m", "thaw", "--version"], capture_output=True, text=True, check=True)
    assert said.stdout.startswith("thaw ")
