"""Hydra's and omegaconf's complaints in one sentence that names the option, the rule and what to type."""

import errno
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args, get_type_hints

from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf import DictConfig
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException

from thaw.backbone_names import BACKBONE_NAMES
from thaw.config import OTHER_OPTIMIZERS, Config
from thaw.errors import ThawError, did_you_mean, first_line, printable
from thaw.launch.other_names import OTHER_NAMES
from thaw.rules import in_words

SYSTEM_FAULTS = {
    errno.EACCES, errno.EDQUOT, errno.EEXIST, errno.EFBIG, errno.EIO, errno.EISDIR, errno.EMFILE, errno.ENAMETOOLONG,
    errno.ENODEV, errno.ENOENT, errno.ENOSPC, errno.ENOTCONN, errno.ENOTDIR, errno.EPERM, errno.EROFS, errno.ESTALE,
}  # fmt: skip
"""No room, no right, no such mount: what is wrong with the machine, not with the program."""

FREE_KEYS = {
    "trainer.extra.": "a flag of Lightning's Trainer", "trainer.callbacks.": "a callback",
    "augment.transforms.": "a transform", "optimizer.extra.": "an argument of the optimizer",
    "logger.extra.": "an argument of the logger", "loss.": "an argument of the loss", "metrics.": "a metric",
}  # fmt: skip
"""Beginnings of options that take any name, and what they are."""

_PLUGINS = {"hydra/launcher": ("joblib", "submitit_local", "submitit_slurm"), "hydra/sweeper": ("optuna",)}

LISTED = "`thaw train --cfg job` lists all."


def explain(error: BaseException) -> str | None:
    """What a user needs to know about their mistake; None if the error is none."""
    if isinstance(error, ThawError):
        return "\n".join(map(printable, str(error).split("\n")))  # it may name files and classes as they are
    if isinstance(error, MissingConfigException):
        return _explain_choice(error)
    if isinstance(error, OverrideParseException):
        if "=" not in str(error.override):
            return f"{error.override!r} is no folder of images, no CSV file and no option: write options KEY=VALUE."
        return (
            f"Cannot read the option {error.override!r}: write KEY=VALUE, lists as KEY=[a,b], texts with = or letters "
            "beyond a to z in quotes within quotes: \"KEY='größe'\"."
        )
    if isinstance(error, InterpolationResolutionError):
        reason = str(error).splitlines()[0].removeprefix("KeyError raised while resolving interpolation: ").strip('"')
        advice = " A dollar sign before a brace is written \\${." if reason.startswith("Interpolation key") else ""
        return f"{error.full_key or 'An option'} refers to what is not there: {reason.rstrip('.')}.{advice}"
    if isinstance(error, ConfigCompositionException | OmegaConfBaseException):
        return _explain_key_or_value(error)
    if isinstance(error, ValueError) and str(error).startswith("Config group override must be"):
        return "A group takes the name of one of its choices: see `thaw train --help`."
    if isinstance(error, ValueError) and str(error).startswith("Only one of --run"):
        return (
            "Only one of -r, -m, --cfg, --info and -sc can be given: --cfg and --info show a single training, without "
            "-m and with one value for each option."
        )
    if isinstance(error, ValueError) and str(error) == "Record does not exist.":  # Optuna's of its study
        return "The search has no best trial, for none has finished."
    if type(error).__name__ == "OperationalError":  # SQLAlchemy's, of the file of Optuna's study
        return f"The study of the search cannot be opened or written: {first_line(error)}. Fix that and start again."
    if type(error).__name__ == "UncompletedJobError":  # submitit's
        return f"The job was ended from outside, by its time limit or otherwise. {first_line(error)}"
    if isinstance(error, OSError) and error.errno in SYSTEM_FAULTS:
        place = printable(str(error.filename)) if error.filename else "A file of the run"
        return f"{place}: {error.strerror}. Fix that and start again."
    if isinstance(error, RuntimeError) and str(error).startswith("operator torchvision::"):
        pair = f"torch {version('torch')} and torchvision {version('torchvision')}"
        return f"{pair} do not belong together: install both anew, in one command and from one index."
    if isinstance(error, RuntimeError) and 'Could not detect "srun"' in str(error):
        return (
            "hydra/launcher=submitit_slurm needs SLURM, whose srun is not here. On this machine jobs run by "
            "hydra/launcher=joblib or submitit_local."
        )
    if isinstance(error, HydraException) and "does not support sweep type" in str(error):
        return "Intervals are tried by a search: add sweep=search, or give the values, KEY=A,B."
    return str(error) if isinstance(error, HydraException) else None


def refuse_unknown(values: DictConfig) -> None:
    """Refuse what `+` has added beside the schema, where Hydra itself would let it pass.

    Raises:
        ThawError: There is such a key.
    """
    known = set(option_names())
    for group in map(str, values):
        content = values[group]
        is_group = isinstance(content, DictConfig) and f"{group}." not in FREE_KEYS
        keys = [f"{group}.{key!s}" for key in content] if is_group else []
        for name in (group, *keys):
            if name not in known:
                raise ThawError(unknown_option(name))


def unknown_option(name: str) -> str:
    """The sentence for a name that is none."""
    if name == "trainer.extra":
        return "trainer.extra takes flags of Lightning's Trainer one by one: +trainer.extra.FLAG=VALUE."
    if f"{name}." in FREE_KEYS:
        return f"{name} takes each by a name: +{name}.NAME=VALUE."
    if name in option_names():
        return (
            f"{name} is a group of options: write {name}.KEY=VALUE. A file of your own, {name}/NAME.yaml, is taken by "
            f"+{name}=NAME."
        )
    if meant := find_option(name):
        return f"{name} is not an option. Did you mean {meant!r}? {LISTED}"
    if name.startswith("trainer."):
        own = [option.removeprefix("trainer.") for option in option_names() if option.startswith("trainer.")]
        key = name.removeprefix("trainer.")
        near = did_you_mean(key, own).replace("'", "'trainer.", 1)
        return f"{name} is not an option.{near} A flag of Lightning's Trainer is written +trainer.extra.{key}=VALUE."
    return f"{name} is not an option.{did_you_mean(name, list(option_names()))} {LISTED}"


def find_option(name: str) -> str | None:
    """The option that has this name in another group or in other tools; None if no one does, or several."""
    last = name.rpartition(".")[2]
    same = [option for option in option_names() if option.rpartition(".")[2] == last]
    return same[0] if len(same) == 1 else OTHER_NAMES.get(last)


def option_names(schema: type = Config, prefix: str = "") -> Iterator[str]:
    """Full names of all options, and of the groups that hold them."""
    types = get_type_hints(schema)
    for field in fields(schema):
        yield prefix + field.name
        if is_dataclass(types[field.name]):
            yield from option_names(types[field.name], f"{prefix}{field.name}.")


def _describe(key: str) -> str:
    """An option's type in words."""
    owner: Any = Config
    *groups, name = key.partition("[")[0].split(".")
    for group in groups:
        owner = get_type_hints(owner).get(group, Config)
    if name not in get_type_hints(owner):  # one of Hydra's
        return "something else"
    kind = get_type_hints(owner)[name]
    if "[" in key:  # an element of a list
        kind = get_args(kind)[0]
    return in_words(kind)


def _explain_choice(error: MissingConfigException) -> str:
    missing = error.missing_cfg_file or ""
    group, _, choice = missing.rpartition("/")
    if missing.startswith("dataset/") and ("/" in (path := missing.removeprefix("dataset/")) or Path(path).is_dir()):
        return f"dataset must be a data set's name, got {path!r}: say dataset=folder dataset.root={path}."
    if missing.startswith("backbone/") and re.search(r"[/:.]", name := missing.removeprefix("backbone/")):
        return _explain_foreign_backbone(name)
    choices = [str(option) for option in error.options or []]
    if choice in _PLUGINS.get(group, ()):
        return f"{group}={choice} needs packages: pip install -e '.[sweeps]'."
    if not group or not choices:
        return str(error)
    rule = f"one of {', '.join(choices)}" if len(choices) <= 20 else "one of those that `thaw train --help` lists"
    others = OTHER_OPTIMIZERS if group == "optimizer" else ""
    near = did_you_mean(choice, choices) or " Presets of your own are found by --config-dir FOLDER." * (not others)
    return f"{group} must be {rule}, got {choice!r}.{near}{others}"


def _explain_foreign_backbone(name: str) -> str:
    """One sentence for a name as other libraries have them, such as `timm/efficientnet_b0` or `hf_hub:timm/…`."""
    last = re.split("[/:]", name)[-1]
    own = next((part for part in (last, *last.split(".")) if part in BACKBONE_NAMES), None)
    rule = f"backbone must be the name of a torchvision classifier, got {name!r}"
    if own:
        return f"{rule}: say backbone={own}."
    return f"{rule}.{did_you_mean(last, BACKBONE_NAMES)} `thaw train --help` lists them."


def _explain_key_or_value(error: BaseException) -> str:
    """One sentence for an unknown option or a value of the wrong type; the original text for anything else."""
    text = f"{error}\n{error.__cause__ or ''}"
    if several := re.search(r"(?:Ambiguous value for argument|Sweep parameters) '(.*)'", text):
        written = "A list is written KEY=[A,B], a text with a comma \"KEY='A,B'\"."
        return f"{several[1]} is a sweep, a training for each: add -m to the command line. {written}"
    if there := re.search(r"Either remove \+ prefix: '(.*)'", text):
        group, _, choice = there[1].partition("=")
        if is_dataclass(get_type_hints(Config).get(group)):
            return (
                f"There is no {group}/{choice}.yaml among the presets: name the folder that holds it by --config-dir."
            )
        return f"{there[1].partition('=')[0]} is an option as it is: leave the plus sign out, {there[1]}."
    if chosen := re.match(r"Multiple values for (\S+)\.", text):
        return (
            f"{chosen[1]} has a choice already: leave the plus sign out, {chosen[1]}=NAME, and in a file of your own "
            f"write `override /{chosen[1]}: NAME`."
        )
    if unknown := re.search(r"Could not override '([^']+)'|Key '[^']+' (?:is )?not in [\s\S]*?full_key: (\S+)", text):
        name = next(filter(None, unknown.groups()))
        if what := next((what for place, what in FREE_KEYS.items() if name.startswith(place)), None):
            return f"{name} adds {what}: write it with a plus sign, +{name}=VALUE."
        if "'BasicLauncherConf'" in text:
            others = ", ".join(_PLUGINS["hydra/launcher"])
            return f"{name} is not an option without a launcher: add hydra/launcher=NAME, one of {others}."
        if "'BasicSweeperConf'" in text:
            others = "another of those that `thaw train --help` lists"
            return f"{name} is not an option without a search: add sweep=search, or {others}."
        preset = re.match(r"In '([^']+)': ", text)
        return _explain_key_in(preset[1], name) if preset else unknown_option(name)
    if wrong := re.search(r"Value '([\s\S]*?)' of type[\s\S]*?full_key: (\S+)", text):
        value, key = wrong.groups()
        return f"{key} must be {_describe(key)}, got {value!r}."
    if wrong := re.search(r"Error merging override [^=]+=(.*)\n[\s\S]*?full_key: ([^\s\[]+)", text):
        value, key = wrong.groups()
        if is_dataclass(get_type_hints(Config).get(key)):
            return unknown_option(key)
        by_name = f" Each is added by a name: +{key}.NAME=VALUE." if f"{key}." in FREE_KEYS else ""
        return f"{key} must be {_describe(key)}, got {value!r}.{by_name}"
    if removed := re.search(r"Error merging override ~([^\s=]+)|Could not delete from config\. '([^']+)'", text):
        name = next(filter(None, removed.groups()))
        return f"{name} cannot be removed: give it a value, {name}=VALUE."
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("object_type")]
    return "\n".join(lines)


def _explain_key_in(preset: str, name: str) -> str:
    """One sentence for what is no option in a file such as `strategy/mine`, whose names Hydra puts below its group."""
    group, last = preset.partition("/")[0], name.rpartition(".")[2]
    if "@" in name or name == group or last in {field.name for field in fields(Config)}:
        return f"{preset}.yaml sets options by their full names: its first line must be `# @package _global_`."
    return f"In {preset}.yaml: {unknown_option(name)}"
