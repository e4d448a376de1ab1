import errno
import os

import pytest

from thaw.errors import ThawError, abridge, first_line, in_list, name_some, printable
from thaw.launch.explain import explain


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Ämeise 蚂蚁.png", "Ämeise 蚂蚁.png"),
        ("کتاب\u200cها 👩\u200d👧 10\u00a0%", "کتاب\u200cها 👩\u200d👧 10\u00a0%"),
        ("two\nlines", r"two\nlines"),
        ("\x1b[2Jcleared", r"\x1b[2Jcleared"),
        (os.fsdecode(b"caf\xe9.jpg"), r"caf\udce9.jpg"),
        ("right\u202eto left", r"right\u202eto left"),
    ],
)
def test_what_a_terminal_would_obey_or_refuse_is_written_as_a_code(text: str, shown: str) -> None:
    assert printable(text) == shown
    shown.encode()


def test_names_in_an_error_give_no_orders_to_a_terminal() -> None:
    assert name_some(["a\nb", "c\x1b[2J", "d"], most=2) == r"a\nb, c\x1b[2J and 1 more"
    assert explain(ThawError("two\nlines of \x1b[2J.png")) == "two\nlines of \\x1b[2J.png"


def test_a_name_that_would_seem_to_be_two_is_in_quotes() -> None:
    assert list(map(in_list, ["ants", "Ants, red", "big one"])) == ["ants", '"Ants, red"', "big one"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EISDIR, errno.ENOENT, errno.ESTALE])
def test_what_is_wrong_with_the_machine_is_a_sentence(code: int) -> None:
    message = explain(OSError(code, os.strerror(code), "mount/a.png"))
    assert message is not None
    assert message.startswith(f"mount/a.png: {os.strerror(code)}. ")
    assert "\n" not in message


def test_what_is_wrong_with_the_program_is_not() -> None:
    assert explain(OSError(errno.EBADF, "Bad file descriptor")) is None
    assert explain(ZeroDivisionError()) is None


def test_a_long_text_keeps_its_ends() -> None:
    assert abridge("short.jpg", 9) == "short.jpg"
    assert abridge("a_long_name.jpg", 10) == "a_lo…e.jpg"


def test_an_error_is_told_in_one_line() -> None:
    assert first_line(ValueError("\n torn\x1b\nat line 2")) == r"torn\x1b"
    assert first_line(EOFError()) == "EOFError"
