"""Reads what a run has written down of itself: its options and figures, or a sentence where a file is damaged."""

import csv
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar, cast

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from thaw.config import AugmentConfig, Config, DatasetConfig, TrainerConfig
from thaw.errors import ThawError, one_line
from thaw.summary import ALWAYS, Summary

Options = TypeVar("Options", DatasetConfig, AugmentConfig, TrainerConfig)

OPTIONS = ("dataset", "backbone", "augment", "optimizer", "strategy", "trainer", "seed")
"""What a `config.yaml` has in any case."""


def find_folder(path: Path) -> Path:
    """The folder itself, or that of the run whose checkpoint this is.

    Raises:
        ThawError: It is no run's checkpoint.
    """
    if path.suffix != ".ckpt" or not path.is_file():
        return path
    has_names = len(path.parts) > 2 and ".." not in path.parts
    checkpoints = path.parent if has_names else path.resolve().parent
    is_in_run = checkpoints.name == "checkpoints"
    if is_in_run and path.name in ("best.ckpt", "last.ckpt"):
        return checkpoints.parent
    place = checkpoints.parent if is_in_run else "RUN"
    raise ThawError(
        f"{path} is not what a run is read from: name its folder, {place}, or a checkpoint in it. By the file alone "
        "`thaw predict`, `thaw export` and, with --data, `thaw evaluate` work."
    )


def is_alone(path: Path) -> bool:
    """True of a checkpoint that has been taken out of its run."""
    if path.suffix != ".ckpt" or not path.is_file():
        return False
    folder = path.absolute().parent
    return not (folder.name == "checkpoints" and (folder.parent / "config.yaml").is_file())


def read_config(path: Path) -> dict[str, Any]:
    """Every option of a `config.yaml`, as plain Python; one that came after its version has its default.

    Raises:
        ThawError: The file is damaged.
    """
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise _damaged(path, "it holds no options")
    defaults = asdict(Config())
    _require_kinds(path, content, {key: type(defaults[key]) for key in OPTIONS})
    given = {str(key): value for key, value in content.items()}
    groups = {key: (defaults.get(key) or {}) | value for key, value in given.items() if isinstance(value, dict)}
    return defaults | given | groups


def read_group(path: Path, kind: type[Options], group: str) -> Options:
    """A group of the options of a `config.yaml`.

    Raises:
        ThawError: The file is damaged, or has options that this version does not know.
    """
    try:
        return kind(**read_config(path)[group])
    except (KeyError, TypeError) as error:
        raise _damaged(path, f"{group}: {error}") from error


def read_overrides(path: Path) -> list[str]:
    """What was typed, of an `overrides.yaml`.

    Raises:
        ThawError: The file is damaged.
    """
    content = read_yaml(path)
    if not isinstance(content, list):
        raise _damaged(path, "it holds no list of options")
    return list(map(str, content))


def read_figures(path: Path) -> dict[str, Any]:
    """The figures of a `summary.json`, whichever there are.

    Raises:
        ThawError: The file is damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # no JSON, no UTF-8
        raise _damaged(path, error) from error
    if not isinstance(content, dict):
        raise _damaged(path, "it holds no figures")
    return content


def read_summary(path: Path) -> Summary:
    """The figures of a `summary.json`, all that every version writes.

    Raises:
        ThawError: The file is damaged, or lacks some.
    """
    content = read_figures(path)
    _require_kinds(path, content, ALWAYS)
    return cast(Summary, content)


def read_yaml(path: Path) -> Any:
    """What a YAML file holds, as plain Python.

    Raises:
        ThawError: The file is damaged.
    """
    try:
        return OmegaConf.to_container(OmegaConf.load(path))
    except (OSError, UnicodeError, YAMLError, OmegaConfBaseException) as error:
        raise _damaged(path, error) from error


def _require_kinds(path: Path, content: Mapping[Any, Any], kinds: Mapping[str, type]) -> None:
    """Refuse a file that lacks one of these keys, or has something else there."""
    wrong = [key for key, kind in kinds.items() if not isinstance(content.get(key), kind)]
    if wrong:
        raise _damaged(path, f"it lacks {', '.join(wrong)}")


def _damaged(path: Path, why: object) -> ThawError:
    return ThawError(f"{path} is damaged, or of another version of Thaw: {one_line(why)}. Nothing can be read from it.")


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a `metrics.csv`, one an epoch: numbers, and None where there is no value.

    Raises:
        ThawError: The file is damaged.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [
                {name: (int if name == "epoch" else float)(cell) if cell else None for name, cell in row.items()}
                for row in csv.DictReader(file)
            ]
    except (ValueError, TypeError, csv.Error) as error:  # no number, no UTF-8; more cells than columns
        raise _damaged(path, error) from error
    if rows and "epoch" not in rows[0]:
        raise _damaged(path, "it lacks epoch")
    return rows


def read_first_image(path: Path) -> str:
    """The path of the first image in a `predictions.csv`; `.` in a file without one."""
    try:
        with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            return next(csv.DictReader(file), {}).get("path") or "."
    except (OSError, csv.Error):
        return "."
