"""Paths as users write them."""

import os


def at_home(path: str | os.PathLike[str]) -> str:
    """The path with the user's home in place of `~`; files that are called `~1.jpg` stay as they are.

    `Path.expanduser` looks for a user of that name there, and fails.
    """
    return os.path.expanduser(path)  # noqa: PTH111
