"""The error that a user can cause, and the nearest valid name for a misspelt one."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

from hydra.errors import HydraException


class ThawError(HydraException):
    """A mistake in the configuration, the data or the files: its message is all the user needs to see.

    The message names the key or file, the rule, what was received and what to do next.
    The commands print it without a traceback and exit with code 2.
    """


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """` Did you mean 'X'?` for the nearest of `choices`, or an empty string where none is near."""
    near = get_close_matches(name, list(choices), n=1)
    return f" Did you mean '{near[0]}'?" if near else ""


def printable(text: str) -> str:
    """The text in one line, in which line breaks, control characters and bytes that are no UTF-8 are written as codes.

    Names of files can hold them all; a terminal would obey some.
    """
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in text
    )


def name_some(names: Sequence[str], most: int = 10) -> str:
    """The first few names, all in one line, and the number of the others."""
    return ", ".join(map(printable, names[:most])) + (f" and {len(names) - most} more" if len(names) > most else "")
