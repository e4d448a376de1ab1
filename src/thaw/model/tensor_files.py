"""A file of tensors, be it of weights or a checkpoint of ours -> its content, checked; nothing in it is executed."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import isfinite
from pathlib import Path
from pickle import UnpicklingError  # noqa: TID251 - an exception runs nothing
from typing import Any

import torch
from torch import Tensor

from thaw.config import MAX_SIDE
from thaw.data.transforms import EvaluationTransform
from thaw.errors import ThawError, first_line, name_some

StateDict = Mapping[str, Tensor]

FORMAT = 1
"""Version of the entry `thaw` of a checkpoint; counted up when an older version of Thaw could not read it."""


def read_tensors(path: Path) -> Mapping[str, Any]:
    """Content of a .safetensors file or of one written by torch.save, tensors on the CPU; nothing in it is executed.

    Raises:
        ThawError: It is damaged, or holds more than tensors and plain Python.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)  # noqa: TID251 - the one place
    except Exception as error:  # what a damaged file raises is not documented: unpickling, zip, key and value errors
        if forbidden := re.search(r"GLOBAL (\S+)", str(error)):
            raise ThawError(
                f"{path} cannot be read as weights: it asks for {forbidden[1]}, which could run code and is refused. "
                "If you trust the file, save its state_dict alone."
            ) from error
        reason = first_line(error)
        if isinstance(error, UnpicklingError):  # torch would advise to read it without any safety
            reason = "it is damaged, or holds more than tensors and plain Python"
        raise ThawError(f"{path} cannot be read as weights ({reason}).") from error
    if not isinstance(content, Mapping):
        raise ThawError(f"{path} must hold tensors by name, got {type(content).__name__}.")
    version = content["thaw"].get("format", 1) if isinstance(content.get("thaw"), Mapping) else 1
    if not isinstance(version, int):
        raise ThawError(
            f"{path} is not a complete checkpoint of Thaw: its format must be a whole number, got {version!r}."
        )
    if version > FORMAT:
        raise ThawError(f"{path} is from a newer version of Thaw: format {version}; this one reads up to {FORMAT}.")
    return content


def differing_tensors(theirs: StateDict, own: StateDict) -> list[str]:
    """Names of tensors that only one of the states has, or in another shape."""
    return sorted(
        name
        for name in theirs.keys() | own.keys()
        if name not in theirs or name not in own or theirs[name].shape != own[name].shape
    )


def require_finite(source: object, state: StateDict) -> None:
    """Refuse tensors that hold anything but numbers.

    Raises:
        ThawError: Some do; they are named.
    """
    broken = [name for name, value in state.items() if not value.is_meta and not value.isfinite().all()]
    if broken:
        raise ThawError(
            f"{source} has values that are infinite or no number, in {name_some(broken, most=3)}: the training that "
            "wrote it has diverged. Take an earlier checkpoint."
        )


@contextmanager
def expecting_own(path: Path) -> Iterator[None]:
    """Report errors from a damaged Thaw checkpoint as one sentence.

    Raises:
        ThawError: A part of it is missing, or is not what it should be.
    """
    try:
        yield
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:  # or written by hand
        kind = type(error).__name__
        raise ThawError(f"{path} is not a complete checkpoint of Thaw: {kind}, {first_line(error)}.") from error


def read_about(about: Mapping[str, Any]) -> tuple[tuple[str, ...], EvaluationTransform]:
    """Names of the classes and evaluation transform, from the entry `thaw` of a checkpoint.

    Raises:
        KeyError, TypeError, ValueError: They are missing, or none.
    """
    classes, transform = tuple(about["classes"]), EvaluationTransform.from_dict(about["transform"])
    if not all(isinstance(name, str) for name in classes):
        raise ValueError("its classes must be texts")
    sides = (transform.crop, *(transform.resize if isinstance(transform.resize, tuple) else [transform.resize]))
    if not all(isinstance(side, int) and 0 < side <= MAX_SIDE for side in sides):
        raise ValueError(f"its images must be of 1 to {MAX_SIDE} pixels, not {sides}")
    colours = (*transform.mean, *transform.std)
    if len(transform.mean) != 3 or len(transform.std) != 3 or not all(map(isfinite, colours)) or 0 in transform.std:
        raise ValueError(f"its mean and standard deviation must be of three colours, not {colours}")
    return classes, transform
