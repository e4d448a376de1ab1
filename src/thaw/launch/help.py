"""What `--help` prints: a page, or the options that a word is about."""

import ast
import inspect
import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from itertools import pairwise
from pathlib import Path
from string import Template
from types import NoneType
from typing import Annotated, Any, get_args, get_origin

from thaw import config
from thaw.backbone_names import BACKBONE_NAMES
from thaw.config import Config
from thaw.errors import ThawError, did_you_mean
from thaw.launch.other_names import OTHER_NAMES
from thaw.options import typed
from thaw.rules import in_words

FLAGS = {"-h", "--help"}


@dataclass(frozen=True)
class Option:
    """An option as the help tells it."""

    name: str
    default: Any
    rule: str
    """What it may be."""
    meaning: str

    def __str__(self) -> str:
        default = "" if self.default in ("", [], {}) else f"default {typed(self.default)}; "
        meaning = textwrap.fill(self.meaning, 116, initial_indent="    ", subsequent_indent="    ")
        return f"{self.name}    {default}{self.rule}\n{meaning}"


def asked_for(arguments: Sequence[str]) -> str | None:
    """The word behind `--help`; empty without one, None without `--help`."""
    for argument, following in pairwise([*arguments, ""]):
        if argument.startswith("--help="):
            return argument.partition("=")[2]
        if argument in FLAGS:
            return "" if following.startswith("-") or "=" in following else following
    return None


def help_text(path: Path, is_command: bool) -> str:
    """The text of a file with the names filled in that are too many to write down twice.

    Args:
        path: The file, which tells of `python train.py`.
        is_command: Whether `thaw train` is to stand there instead.
    """
    experiments = sorted(path.stem for path in (path.parent / "experiment").glob("*.yaml"))
    template = Template(path.read_text(encoding="utf-8"))
    text = template.substitute(BACKBONES=_fill(BACKBONE_NAMES), EXPERIMENTS=_fill(experiments))
    script, shorter = r"python (\w+)\.py(.*?)( {2,}|$)", lambda found: f"thaw {found[1]}{found[2]}".ljust(len(found[0]))
    return re.sub(script, shorter, text, flags=re.MULTILINE) if is_command else text


def _fill(names: Iterable[str]) -> str:
    indent = " " * 14
    return textwrap.fill(" ".join(names), 108, initial_indent=indent, subsequent_indent=indent)


def options_text(word: str) -> str:
    """The options that other tools call so, or whose name has the word, or else whose meaning has it.

    `options` stands for all of them.

    Raises:
        ThawError: There are none.
    """
    options, lower = list(all_options()), word.lower()
    found = options if lower == "options" else [option for option in options if lower in option.name.lower()]
    if meant := OTHER_NAMES.get(lower):
        first = [option for option in options if f"{option.name}.".startswith(f"{meant}.")]
        by_part = [option for option in found if lower in re.split(r"[._]", option.name)]
        found = [*first, *(option for option in by_part if option not in first)]
    found = found or [option for option in options if lower in f"{option.meaning} {option.rule}".lower()]
    if not found:
        near = did_you_mean(word, [part for option in options for part in option.name.split(".")])
        raise ThawError(
            f"No option has {word!r} in its name or its meaning.{near} `--help options` lists all, `--help` the "
            "choices of each group."
        )
    return "\n".join(map(str, found)) + "\n"


def all_options() -> Iterator[Option]:
    """Every option, in the order of `thaw.config`; the defaults are those before any preset."""
    meanings = _meanings()
    for group in fields(Config):
        if is_dataclass(kind := group.type):
            yield from _options_of(kind, f"{group.name}.", meanings)
    yield from _options_of(Config, "", meanings)


def _options_of(owner: Any, prefix: str, meanings: dict[str, str]) -> Iterator[Option]:
    defaults = owner()
    for option in fields(owner):
        if not is_dataclass(option.type):
            meaning = meanings[f"{owner.__name__}.{option.name}"]
            yield Option(f"{prefix}{option.name}", getattr(defaults, option.name), _rule_of(option.type), meaning)


def _rule_of(kind: Any) -> str:
    if get_origin(kind) is not Annotated:
        return in_words(kind)
    kind, rule = get_args(kind)
    return "null or " * (NoneType in get_args(kind)) + str(rule.text)


def _meanings() -> dict[str, str]:
    """What stands below each field of the options' classes, by `Class.field`."""
    return {
        f"{owner.name}.{ast.unparse(statement.target)}": inspect.cleandoc(follower.value.value).replace("\n", " ")
        for owner in ast.parse(inspect.getsource(config)).body
        if isinstance(owner, ast.ClassDef)
        for statement, follower in pairwise(owner.body)
        if isinstance(statement, ast.AnnAssign)
        and isinstance(follower, ast.Expr)
        and isinstance(follower.value, ast.Constant)
        and isinstance(follower.value.value, str)
    }
