"""Options by their full names, and those of them that differ from the defaults."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from thaw.config import Config


def flatten(options: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values by full names, such as `optimizer.lr`, of options in groups."""
    flat: dict[str, Any] = {}
    for key, value in options.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def changed(options: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Value and default of each option that has another value than `Config()` gives it."""
    defaults = flatten(asdict(Config()))
    return {key: (value, defaults.get(key)) for key, value in flatten(options).items() if value != defaults.get(key)}


def typed(value: Any) -> str:
    """A value as one would type it."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
