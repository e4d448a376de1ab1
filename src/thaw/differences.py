"""What tells runs apart: the options that were typed, or else the fewest keys of the configuration."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from thaw.errors import ThawError
from thaw.options import flatten, typed
from thaw.run import Run

REPEATED = ("seed", "dataset.fold")
"""Options in which the runs of one setting may differ."""
IRRELEVANT = (
    "resume", "sweep", "report", "figures", "logger", "dataset.num_workers", "trainer.progress_bar",
    "trainer.checkpoint_seconds",
)  # fmt: skip
"""Options, and groups of them, that change nothing in a result."""

Options = Mapping[str, str]


def typed_options(command: str | None) -> dict[str, str]:
    """The options that a run was started with."""
    overrides = shlex.split(command or "")[2:]
    return dict(override.lstrip("+").split("=", 1) for override in overrides if "=" in override)


def flat_config(run: Run) -> dict[str, str]:
    """`in_full` of a run's configuration; empty without a config.yaml."""
    try:
        return in_full(run.config)
    except ThawError:
        return {}


def in_full(config: Mapping[str, Any]) -> dict[str, str]:
    """Every key of a configuration in full, and its value as it is typed."""
    return {key: typed(value) for key, value in flatten(config).items()}


def relevant(options: Options) -> dict[str, str]:
    """The options that make a setting."""
    return {key: value for key, value in options.items() if not is_one_of(key, (*REPEATED, *IRRELEVANT, "hydra"))}


def is_one_of(key: str, names: Sequence[str]) -> bool:
    """True if a key in full is one of the options, or in one of the groups, of these names."""
    return any(f"{key}.".startswith(f"{name}.") for name in names)


def tell_apart(settings: Sequence[tuple[Options, Options]]) -> list[str]:
    """The options to show of settings, given what was typed for each and its configuration.

    Every typed option that differs is shown. A key of the configuration is shown only if those before it leave its
    value open, names of presets coming first: so what a preset sets is not repeated.
    """
    keys = list(dict.fromkeys(key for typed, _ in settings for key in typed))
    shown = [key for key in keys if len({value_of(key, *setting) for setting in settings}) > 1]
    config_keys = list(dict.fromkeys(key for _, config in settings for key in config))
    for key in sorted(config_keys, key=lambda key: not key.endswith((".name", ".policy"))):
        values: dict[tuple[str, ...], set[str]] = {}
        for setting in settings:
            values.setdefault(tuple(value_of(name, *setting) for name in shown), set()).add(value_of(key, *setting))
        if any(len(different) > 1 for different in values.values()):
            shown.append(key)
    return shown


def value_of(key: str, typed: Options, config: Options) -> str:
    """An option's value; of a group, the choice that was typed, or else the name that it came to have."""
    names = (config.get(name) for name in (f"{key}.name", f"{key}.policy"))
    return config.get(key) or typed.get(key) or next(filter(None, names), "")


def short_names(keys: Sequence[str]) -> list[str]:
    """The last part of each key, or its group for a preset's name; the whole key where two would be alike."""
    short = [key.rpartition(".")[0 if key.endswith((".name", ".policy")) else 2] for key in keys]
    return [name if short.count(name) == 1 else key for name, key in zip(short, keys, strict=True)]
