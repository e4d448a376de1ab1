"""Objects of the user's own, as an option describes them: `{_target_: MODULE.CLASS, …}`."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from thaw.errors import ThawError, one_line


def look_here_too() -> None:
    """Let modules of the user's own be found in the current folder, after all that is installed."""
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)


def make(key: str, recipe: Any) -> Any:
    """What a recipe makes.

    Args:
        key: The option that holds it.
        recipe: `_target_`, the class or function, and its arguments.

    Raises:
        ThawError: It is no recipe, there is no such class, or it does not take these arguments.
    """
    from hydra.utils import instantiate  # who uses the parts from Python has no need of Hydra

    if not isinstance(recipe, Mapping) or "_target_" not in recipe:
        raise ThawError(f"{key} must be {{_target_: MODULE.CLASS, …}}, got {recipe!r}.")
    look_here_too()
    try:
        return instantiate(recipe, _convert_="all")
    except Exception as error:  # what a class that is not ours raises
        raise ThawError(f"{key} cannot be made: {one_line(error.__cause__ or error)}") from error
