"""Where a backbone's weights come from: torchvision, a file, or an earlier run."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torchvision
from filelock import FileLock
from torch import Tensor
from torchvision.models import WeightsEnum

from thaw.data.archives import download
from thaw.data.transforms import EvaluationTransform
from thaw.errors import ThawError, did_you_mean
from thaw.model.tensor_files import StateDict, expecting_own, read_about, read_tensors
from thaw.paths import at_home

# DenseNet's official files predate the rule that module names hold no dots (torchvision.models.densenet).
_OLD_DENSENET_KEY = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")

CHECKSUM = re.compile(r"-([0-9a-f]{8,})\.pth$")
"""First digits of the SHA-256 in the name of an official file."""


@dataclass(frozen=True)
class Weights:
    """A state dict, with the preprocessing and the classes it was trained with.

    Attributes:
        source: Their origin, in words.
        state: Tensors by torchvision's own names.
        transform: The evaluation transform that the weights were trained for.
        transform_input: GoogLeNet's and Inception's official weights undo ImageNet's normalisation themselves.
        head: Tensors of the head; empty unless the weights are an earlier run's.
        classes: Names of its classes; likewise.
        backbone: Of which network they are, where they tell.
    """

    source: str
    state: StateDict
    transform: EvaluationTransform
    transform_input: bool = False
    head: StateDict = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    backbone: str = ""


def default_transform(backbone: str) -> EvaluationTransform:
    """The evaluation transform of torchvision's default weights of a backbone."""
    return _transform_of(torchvision.models.get_model_weights(backbone).DEFAULT)


def find_weights(backbone: str, spec: str) -> Weights:
    """The weights that `backbone.weights=spec` names.

    Args:
        backbone: A torchvision classifier.
        spec: `default`, the name of one of torchvision's weights, a file, or a run folder of ours.

    Raises:
        ThawError: There is nothing of that name, it cannot be read, or it cannot be downloaded.
    """
    path = Path(at_home(spec))
    official = torchvision.models.get_model_weights(backbone)
    if spec == "default":
        return _official(backbone, official.DEFAULT)
    name = spec.removeprefix(f"{official.__name__}.")
    if name in official.__members__:
        return _official(backbone, official[name])
    if spec and path.is_dir():
        path = path / "checkpoints" / "best.ckpt"
    if path.is_file():
        return _from_file(backbone, path)
    if "/" in spec or path.suffix:
        there = [each.name for each in path.parent.iterdir()] if path.parent.is_dir() else []
        near = did_you_mean(path.name, there)
        raise ThawError(f"backbone.weights names a file that does not exist: {path.absolute()}.{near}")
    names = ("default", *(weights.name for weights in official))
    raise ThawError(
        f"backbone.weights must be one of {', '.join(names)}, a file, a run folder or null, got {spec!r}."
        + did_you_mean(spec, names)
    )


def _official(backbone: str, weights: WeightsEnum) -> Weights:
    file = _obtain(weights)
    try:
        content = read_tensors(file)
    except ThawError as error:
        raise ThawError(f"backbone.weights={weights.name}: {error} Delete it to have it downloaded anew.") from error
    state = _clean(_tensors(content))
    return Weights(f"torchvision's {weights}", state, _transform_of(weights), _has_transform_input(backbone))


def _obtain(weights: WeightsEnum) -> Path:
    """The file of official weights where torchvision keeps it, downloaded if it is not there.

    Not by torch.hub, which waits for ever where a server stalls, and starts again where it was cut.
    """
    file: Path = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rpartition("/")[2]
    part = file.with_name(f"{file.name}.part")
    remedy = (
        f" backbone.weights={weights.name} is to lie in {file.parent}: put it there, or set backbone.weights=FILE, or "
        "backbone.weights=null to start from random weights."
    )
    try:
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(file.with_name(f".{file.name}.lock")):
                if not file.exists():  # another process may have fetched it meanwhile
                    download(weights.url, part, remedy)
                    _verify(part, weights.url, remedy)
                    part.replace(file)
    except OSError as error:
        raise ThawError(f"{file} could not be written: {error.strerror or error}.{remedy}") from error
    return file


def _verify(part: Path, url: str, remedy: str) -> None:
    """Refuse, and remove, a download whose SHA-256 is not the one in its address."""
    with part.open("rb") as content:
        received = hashlib.file_digest(content, "sha256").hexdigest()
    expected = CHECKSUM.search(url)
    if expected and not received.startswith(expected[1]):
        part.unlink()
        raise ThawError(
            f"{url} sent another file: expected sha256:{expected[1]}…, received sha256:{received}. It was removed."
            + remedy
        )


def _has_transform_input(backbone: str) -> bool:
    return backbone in ("googlenet", "inception_v3")


def _from_file(backbone: str, path: Path) -> Weights:
    content = read_tensors(path)
    if "thaw" in content:
        with expecting_own(path):
            classes, transform = read_about(content["thaw"])
            state = _tensors(content["state_dict"])
            return Weights(
                str(path),
                _under("backbone.network.", state),
                transform,
                content["thaw"]["transform_input"],
                _under("head.", state),
                classes,
                content["thaw"]["backbone"],
            )
    for key in ("state_dict", "model"):  # common wrappers of a bare state dict
        if isinstance(content.get(key), Mapping):
            content = content[key]
    return Weights(path.name, _clean(_tensors(content)), default_transform(backbone), _has_transform_input(backbone))


def _tensors(content: Mapping[Any, Any]) -> StateDict:
    return {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}


def _under(prefix: str, state: StateDict) -> StateDict:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _clean(state: StateDict) -> StateDict:
    """The same tensors under today's names, without the prefix that DataParallel leaves."""
    return {_OLD_DENSENET_KEY.sub(r"\1\2", name.removeprefix("module.")): value for name, value in state.items()}


def _transform_of(weights: WeightsEnum) -> EvaluationTransform:
    preset = weights.transforms()
    return EvaluationTransform(
        resize=preset.resize_size[0],
        crop=preset.crop_size[0],
        interpolation=preset.interpolation.value,
        mean=tuple(preset.mean),
        std=tuple(preset.std),
    )
