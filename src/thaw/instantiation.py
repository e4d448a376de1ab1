"""Objects of the user's own, as an option describes them: `{_target_: MODULE.CLASS, …}`."""

import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from thaw.errors import ThawError, did_you_mean, one_line


def look_here_too() -> None:
    """Let modules of the user's own be found in the current folder, after all that is installed."""
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)


def make(key: str, recipe: Any, usual: Mapping[str, Any] | None = None, calls: bool = True) -> Any:
    """What a recipe makes.

    Args:
        key: The option that holds it.
        recipe: `_target_`, the class or function, and its arguments.
        usual: Arguments that it is given, too, where it takes them and the recipe does not have them.
        calls: Whether a function is called for what it makes; if not, it is made itself, with these arguments.

    Raises:
        ThawError: It is no recipe, there is no such class, or it does not take these arguments.
    """
    from hydra.utils import instantiate  # who uses the parts from Python has no need of Hydra

    if not isinstance(recipe, Mapping) or "_target_" not in recipe:
        raise ThawError(f"{key} must be {{_target_: MODULE.CLASS, …}}, got {recipe!r}.")
    look_here_too()
    try:
        target = resolve_name(recipe["_target_"])
        takes = inspect.signature(target).parameters if usual else ()
        further = {name: value for name, value in (usual or {}).items() if name in takes and name not in recipe}
        if inspect.isroutine(target) and not calls:
            further["_partial_"] = True
        return instantiate(recipe, _convert_="all", **further)
    except Exception as error:  # what a class that is not ours raises
        raise ThawError(f"{key} cannot be made: {reason_of(error.__cause__ or error)}") from error


def reason_of(error: BaseException) -> str:
    """What an error of the user's own class says, with the name that may have been meant."""
    meant = did_you_mean(error.name, dir(error.obj)) if isinstance(error, AttributeError) and error.name else ""
    if "cannot assign 'list' object" in str(error):
        meant = " A tensor is written {_target_: torch.tensor, data: [1.0, 3.0]}."
    return f"{one_line(error)}{meant and '.' + meant}"
