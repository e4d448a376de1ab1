"""The error that a user can cause, and the words of its message: names and reasons, short and in one line."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

HARMLESS = "\u00a0\u202f\u200c\u200d"
"""Letters that Python calls unprintable and names may have: blanks that keep words together, and joiners of letters."""


class ThawError(Exception):
    """A mistake in the configuration, the data or the files: its message is all the user needs to see.

    The message names the key or file, the rule, what was received and what to do next.
    The commands print it without a traceback and exit with code 2.
    """


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """` Did you mean 'X'?` for the nearest of `choices`, capitals aside; an empty string where none is near.

    Where several begin with all of the name, as those of a family of networks do, it is ` Did you mean one of X, Y?`.
    """
    known = {choice.lower(): choice for choice in choices}
    longer = [known[choice] for choice in known if len(name) > 2 and choice.startswith(name.lower())]
    if len(longer) > 1 and name.lower() not in known:
        return f" Did you mean one of {name_some(longer, most=5)}?"
    near = get_close_matches(name.lower(), known, n=1)
    return f" Did you mean '{known[near[0]]}'?" if near else ""


def printable(text: str) -> str:
    """The text in one line, in which line breaks, control characters and bytes that are no UTF-8 are written as codes.

    Names of files can hold them all; a terminal would obey some.
    """
    return "".join(
        letter if letter.isprintable() or letter in HARMLESS else letter.encode("unicode_escape").decode("ascii")
        for letter in text
    )


def abridge(text: str, most: int) -> str:
    """The text, or its two ends where it has more letters than that."""
    return text if len(text) <= most else f"{text[: most // 2 - 1]}…{text[-most // 2 :]}"


def first_line(error: BaseException) -> str:
    """What an error says, in one line; its kind if it says nothing."""
    lines = str(error).strip().splitlines()
    return printable(lines[0]) if lines else type(error).__name__


def one_line(error: object) -> str:
    """All that an error says, in one line."""
    return " ".join(str(error).split())


def name_some(names: Sequence[str], most: int = 10) -> str:
    """The first few names, all in one line, and the number of the others."""
    return ", ".join(map(printable, names[:most])) + (f" and {len(names) - most} more" if len(names) > most else "")


def in_list(name: str) -> str:
    """The name as it may stand among others: in quotes if it has a comma."""
    return f'"{name}"' if "," in name else name
