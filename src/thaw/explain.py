"""Hydra's and omegaconf's complaints in one sentence that names the option, the rule and what to type."""

import errno
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf import DictConfig
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException

from thaw.config import Config
from thaw.errors import ThawError, did_you_mean, printable

SYSTEM_FAULTS = {
    errno.EACCES, errno.EDQUOT, errno.EEXIST, errno.EFBIG, errno.EIO, errno.EMFILE, errno.ENAMETOOLONG, errno.ENODEV,
    errno.ENOENT, errno.ENOSPC, errno.ENOTCONN, errno.ENOTDIR, errno.EPERM, errno.EROFS, errno.ESTALE,
}  # fmt: skip
"""No room, no right, no such mount: what is wrong with the machine, not with the program."""

_PLUGINS = {"hydra/launcher": ("joblib", "submitit_local", "submitit_slurm"), "hydra/sweeper": ("optuna",)}


def explain(error: BaseException) -> str | None:
    """What a user needs to know of a mistake of his; None if the error is not one."""
    if isinstance(error, ThawError):
        return "\n".join(map(printable, str(error).split("\n")))  # it may name files and classes as they are
    if isinstance(error, MissingConfigException):
        return _explain_choice(error)
    if isinstance(error, OverrideParseException):
        return (
            f"Cannot read the option {error.override!r}: write KEY=VALUE, lists as KEY=[a,b], texts with = or letters "
            "beyond a to z in quotes within quotes: \"KEY='größe'\"."
        )
    if isinstance(error, InterpolationResolutionError):
        reason = str(error).splitlines()[0].removeprefix("KeyError raised while resolving interpolation: ").strip('"')
        return f"{error.full_key or 'An option'} refers to what is not there: {reason}."
    if isinstance(error, ConfigCompositionException | OmegaConfBaseException):
        return _explain_key_or_value(error)
    if isinstance(error, ValueError) and str(error).startswith("Config group override must be"):
        return "A group takes the name of one of its choices: see `python train.py --help`."
    if isinstance(error, ValueError) and str(error) == "Record does not exist.":  # Optuna's of its study
        return "The search has no best trial, for none has finished."
    if isinstance(error, OSError) and error.errno in SYSTEM_FAULTS:
        place = printable(str(error.filename)) if error.filename else "A file of the run"
        return f"{place}: {error.strerror}. Mend that and start again."
    return str(error) if isinstance(error, HydraException) else None


def refuse_unknown(values: DictConfig) -> None:
    """Refuse what `+` has added beside the schema, where Hydra itself would let it pass.

    Raises:
        ThawError: There is such a key.
    """
    known = set(option_names())
    for group in map(str, values):
        content = values[group]
        keys = [f"{group}.{key!s}" for key in content] if isinstance(content, DictConfig) else []
        for name in (group, *keys):
            if name not in known:
                raise ThawError(unknown_option(name))


def unknown_option(name: str) -> str:
    """The sentence for a name that is none."""
    if name == "trainer.extra":
        return "trainer.extra takes flags of Lightning's Trainer one by one: +trainer.extra.FLAG=VALUE."
    if name.startswith("trainer."):
        own = [option.removeprefix("trainer.") for option in option_names() if option.startswith("trainer.")]
        key = name.removeprefix("trainer.")
        near = did_you_mean(key, own).replace("'", "'trainer.", 1)
        return f"{name} is not an option.{near} A flag of Lightning's Trainer is written +trainer.extra.{key}=VALUE."
    return f"{name} is not an option.{did_you_mean(name, list(option_names()))} `python train.py --cfg job` lists all."


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
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", type(None): "null"}
    words |= {list: "a list", dict: "a mapping"}
    parts = get_args(kind) if isinstance(kind, UnionType) else (kind,)
    return " or ".join(words[get_origin(part) or part] for part in parts if part is not int or float not in parts)


def _explain_choice(error: MissingConfigException) -> str:
    group, _, choice = (error.missing_cfg_file or "").rpartition("/")
    choices = [str(option) for option in error.options or []]
    if choice in _PLUGINS.get(group, ()):
        return f"{group}={choice} needs packages: pip install -e '.[sweeps]'."
    if not group or not choices:
        return str(error)
    listed = ", ".join(choices) if len(choices) <= 20 else "one of those that `python train.py --help` lists"
    rule = f"one of {listed}" if len(choices) <= 20 else listed
    return f"{group} must be {rule}, got {choice!r}.{did_you_mean(choice, choices)}"


def _explain_key_or_value(error: BaseException) -> str:
    """One sentence for an unknown option or a value of the wrong type; the original text for anything else."""
    text = f"{error}\n{error.__cause__ or ''}"
    if unknown := re.search(r"Could not override '([^']+)'|Key '[^']+' (?:is )?not in [\s\S]*?full_key: (\S+)", text):
        name = next(filter(None, unknown.groups()))
        if name.startswith("trainer.extra."):
            return f"{name} adds a flag of Lightning's Trainer: write it with a plus sign, +{name}=VALUE."
        return unknown_option(name)
    if wrong := re.search(r"Value '([\s\S]*?)' of type[\s\S]*?full_key: (\S+)", text):
        value, key = wrong.groups()
        return f"{key} must be {_describe(key)}, got {value!r}."
    if wrong := re.search(r"Error merging override [^=]+=(.*)\n[\s\S]*?full_key: ([^\s\[]+)", text):
        value, key = wrong.groups()
        return f"{key} must be {_describe(key)}, got {value!r}."
    if removed := re.search(r"Error merging override ~([^\s=]+)", text):
        return f"{removed[1]} cannot be removed: give it a value, {removed[1]}=VALUE."
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("object_type")]
    return "\n".join(lines)
