"""What tells runs apart: the options that were typed, or else the keys of the configuration that differ."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache

from thaw.config import Config, StrategyConfig
from thaw.errors import ThawError
from thaw.launch.composing import compose
from thaw.options import IRRELEVANT, in_full, is_one_of
from thaw.run import Run

REPEATED = ("seed", "dataset.fold")
"""Options in which the runs of one setting may differ."""
PRESETS = (".name", ".policy")
"""Ends of the keys that name the preset of a group."""

Options = Mapping[str, str]


def typed_options(command: str | None) -> dict[str, str]:
    """The options that a run was started with."""
    overrides = shlex.split(command or "")[2:]
    return dict(override.lstrip("+").split("=", 1) for override in overrides if "=" in override)


def options_of(config: Options) -> dict[str, str]:
    """What one would have typed for the configuration of a run from Python: a strategy, and what its preset lacks."""
    strategy = config.get("strategy.name", "")
    preset = in_full(asdict(_preset(strategy)))
    changed = {key: value for key, value in config.items() if value != preset.get(key)}
    return {"strategy": strategy} | {
        key.rpartition(".")[0] if key.endswith(PRESETS) else key: value for key, value in changed.items()
    }


@cache
def _preset(strategy: str) -> Config:
    """The defaults under a strategy, which sets options of other groups too; under one of no such name, `Config`'s."""
    try:
        return compose(f"strategy={strategy}")
    except ThawError:
        return Config(strategy=StrategyConfig(strategy))


def flat_config(run: Run) -> dict[str, str]:
    """`in_full` of a run's configuration; empty without a config.yaml."""
    try:
        return in_full(run.config)
    except ThawError:
        return {}


def relevant(options: Options) -> dict[str, str]:
    """The options that make a setting."""
    return {key: value for key, value in options.items() if not is_one_of(key, (*REPEATED, *IRRELEVANT, "hydra"))}


def tell_apart(settings: Sequence[tuple[Options, Options]]) -> list[str]:
    """The options to show of settings, given what was typed for each and its configuration.

    Every typed option that differs is shown. Of the configuration, only what these leave open: names of presets, and
    then each key in which settings differ that are alike in all that. So what a preset sets is not repeated.
    """
    keys = list(dict.fromkeys(key for typed, _ in settings for key in typed))
    shown = [
        key
        for key in keys
        if len({value_of(key, *setting) for setting in settings}) > 1
        and len({typed.get(key) for typed, _ in settings}) > 1  # a probe has no epochs, whatever was typed
    ]
    config_keys = list(dict.fromkeys(key for _, config in settings for key in config))
    for further in ([key for key in config_keys if key.endswith(PRESETS)], config_keys):
        alike: dict[tuple[str, ...], list[tuple[Options, Options]]] = {}
        for setting in settings:
            alike.setdefault(tuple(value_of(key, *setting) for key in shown), []).append(setting)
        groups = alike.values()
        shown += [key for key in further if any(len({value_of(key, *each) for each in group}) > 1 for group in groups)]
    return shown


def value_of(key: str, typed: Options, config: Options) -> str:
    """An option's value; of a group, the choice that was typed, or else the name that it came to have."""
    names = (config.get(name) for name in (f"{key}.name", f"{key}.policy"))
    return config.get(key) or typed.get(key) or next(filter(None, names), "")


def short_names(keys: Sequence[str]) -> list[str]:
    """The last part of each key, or its group for a preset's name; the whole key where two would be alike."""
    short = [key.rpartition(".")[0 if key.endswith(PRESETS) else 2] for key in keys]
    return [name if short.count(name) == 1 else key for name, key in zip(short, keys, strict=True)]
