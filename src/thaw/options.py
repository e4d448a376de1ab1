"""Options by their full names, and those of them that differ from the defaults."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from thaw.config import Config

IRRELEVANT = (
    "resume", "sweep", "report", "figures", "logger", "dataset.num_workers", "trainer.devices",
    "trainer.progress_bar", "trainer.checkpoint_seconds",
)  # fmt: skip
"""Options, and groups of them, that change nothing in a result."""


def flatten(options: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values by full names, such as `optimizer.lr`, of options in groups."""
    flat: dict[str, Any] = {}
    for key, value in options.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def in_full(options: Mapping[str, Any]) -> dict[str, str]:
    """Values by full names, as they are typed."""
    return {key: typed(value) for key, value in flatten(options).items()}


def is_one_of(key: str, names: Sequence[str]) -> bool:
    """True if a full name is one of these options, or in one of these groups."""
    return any(f"{key}.".startswith(f"{name}.") for name in names)


def changed(options: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Value and default of each option that has another value than `Config()` gives it."""
    defaults = flatten(asdict(Config()))
    return {key: (value, defaults.get(key)) for key, value in flatten(options).items() if value != defaults.get(key)}


def typed(value: Any) -> str:
    """A value as one would type it."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
