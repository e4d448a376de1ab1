"""Objects of the user's own, as an option describes them: `{_target_: MODULE.CLASS, …}`."""

from collections.abc import Mapping
from typing import Any

from thaw.errors import ThawError, one_line


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
    try:
        return instantiate(recipe, _convert_="all")
    except Exception as error:  # what a class that is not ours raises
        raise ThawError(f"{key} cannot be made: {one_line(error.__cause__ or error)}") from error
