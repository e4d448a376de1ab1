"""Where a backbone's weights come from, what fitted, and what did not."""

import hashlib
import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, cast

import torch
import torchvision
from filelock import FileLock
from torch import Tensor, nn
from torchvision.models import VisionTransformer, WeightsEnum
from torchvision.models.vision_transformer import interpolate_embeddings

from thaw.config import MAX_SIDE
from thaw.data.archives import download
from thaw.data.transforms import EvaluationTransform
from thaw.errors import ThawError, did_you_mean, name_some
from thaw.model.backbone import Backbone

StateDict = Mapping[str, Tensor]

FORMAT = 1
"""Of what a checkpoint of ours holds under `thaw`; counted up when an older version could not read it."""

# DenseNet's official files predate the rule that module names hold no dots (torchvision.models.densenet).
_OLD_DENSENET_KEY = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")

CHECKSUM = re.compile(r"-([0-9a-f]{8,})\.pth$")
"""The beginning of its SHA-256 in the name of an official file."""


@dataclass(frozen=True)
class Weights:
    """A state dict and what has to be known to use it.

    Attributes:
        source: Where it is from, in words.
        state: Tensors by torchvision's own names.
        transform: The evaluation transform that the weights were trained for.
        transform_input: GoogLeNet's and Inception's official weights undo ImageNet's normalisation themselves.
        head: Tensors of the head, and
        classes: names of its classes; both only where the weights are an earlier run's.
    """

    source: str
    state: StateDict
    transform: EvaluationTransform
    transform_input: bool = False
    head: StateDict = field(default_factory=dict)
    classes: tuple[str, ...] = ()


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
    path = Path(spec).expanduser()
    official = torchvision.models.get_model_weights(backbone)
    if spec == "default":
        return _official(backbone, official.DEFAULT)
    name = spec.removeprefix(f"{official.__name__}.")
    if name in official.__members__:
        return _official(backbone, official[name])
    if path.is_dir():
        path = path / "checkpoints" / "best.ckpt"
    if path.is_file():
        return _from_file(backbone, path)
    if "/" in spec or path.suffix:
        raise ThawError(f"backbone.weights names a file that does not exist: {spec}. No such file: {path.absolute()}.")
    names = ("default", *(weights.name for weights in official))
    raise ThawError(
        f"backbone.weights must be one of {', '.join(names)}, a file, a run folder or null, got {spec!r}."
        + did_you_mean(spec, names)
    )


def load_weights(backbone: Backbone, weights: Weights) -> str:
    """Copy the weights into the backbone; returns one line on what fitted and what was left out, by name.

    Raises:
        ThawError: Under half of the backbone's tensors are there in the right shape.
    """
    network = backbone.network
    own = network.state_dict()
    state = _resize_positions(network, weights.state)
    fitting = {name: value for name, value in state.items() if name in own and value.shape == own[name].shape}
    if len(fitting) * 2 < len(own):
        raise ThawError(
            f"backbone.weights does not fit backbone={backbone.name}: {weights.source} has {len(fitting)} of its "
            f"{len(own)} tensors. Is it the file of another network?"
        )
    require_finite(weights.source, fitting)
    network.load_state_dict(_with_versions(fitting, network), strict=False)
    if hasattr(network, "transform_input"):
        setattr(network, "transform_input", weights.transform_input)  # noqa: B010 - a Module attribute is typed Tensor
    missing = [name for name in own if name not in fitting and not name.endswith("num_batches_tracked")]
    dropped = [name for name in state if name not in fitting]
    line = f"Weights: {weights.source}; {len(fitting)} of {len(own)} tensors loaded"
    return line + _list_names("; left out: ", dropped) + _list_names("; missing, so random: ", missing)


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


def _with_versions(state: StateDict, network: nn.Module) -> StateDict:
    """The state with the network's own module versions, without which MNASNet refuses it."""
    versioned = OrderedDict(state)
    versioned._metadata = network.state_dict()._metadata  # type: ignore[attr-defined]
    return versioned


def _resize_positions(network: nn.Module, state: StateDict) -> StateDict:
    """A ViT's position embedding interpolated to the network's input size; any other state as it is."""
    if not isinstance(network, VisionTransformer) or "encoder.pos_embedding" not in state:
        return state
    try:
        return cast(StateDict, interpolate_embeddings(network.image_size, network.patch_size, OrderedDict(state)))
    except (RuntimeError, ValueError) as error:
        shape = tuple(state["encoder.pos_embedding"].shape)
        raise ThawError(
            f"backbone.weights: encoder.pos_embedding must be that of a class token and a square of patches, "
            f"(1, 1 + N x N, {network.hidden_dim}), got {shape}. Is it the file of another network?"
        ) from error


def _list_names(title: str, names: list[str]) -> str:
    return title + name_some(names, most=6) if names else ""


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

    Not by torch.hub, which waits for ever where a server stalls, and begins anew where it was cut.
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
    """Refuse, and remove, a download that is not what its address says."""
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
            )
    for key in ("state_dict", "model"):  # common wrappers of a bare state dict
        if isinstance(content.get(key), Mapping):
            content = content[key]
    return Weights(path.name, _clean(_tensors(content)), default_transform(backbone), _has_transform_input(backbone))


def _tensors(content: Mapping[Any, Any]) -> StateDict:
    return {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}


def _under(prefix: str, state: StateDict) -> StateDict:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


@contextmanager
def expecting_own(path: Path) -> Iterator[None]:
    """Turns what a damaged checkpoint of ours gives rise to inside into a sentence.

    Raises:
        ThawError: A part of it is missing, or is not what it should be.
    """
    try:
        yield
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:  # or written by hand
        reason = str(error).strip().partition("\n")[0]
        raise ThawError(f"{path} is no whole checkpoint of Thaw: {type(error).__name__}, {reason}.") from error


def read_about(about: Mapping[str, Any]) -> tuple[tuple[str, ...], EvaluationTransform]:
    """Names of the classes and evaluation transform, of what a checkpoint of ours holds under `thaw`.

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


def read_tensors(path: Path) -> Mapping[str, Any]:
    """Content of a .safetensors file or of one written by torch.save, tensors on the CPU; nothing in it is executed.

    Raises:
        ThawError: It is damaged, or holds more than tensors and plain Python.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what a damaged file raises is not documented: unpickling, zip, key and value errors
        if forbidden := re.search(r"GLOBAL (\S+)", str(error)):
            raise ThawError(
                f"{path} cannot be read as weights: it asks for {forbidden[1]}, which could run code and is refused. "
                "If you trust the file, save its state_dict alone."
            ) from error
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        if isinstance(error, UnpicklingError):  # torch would advise to read it without any safety
            reason = "it is damaged, or holds more than tensors and plain Python"
        raise ThawError(f"{path} cannot be read as weights ({reason}).") from error
    if not isinstance(content, Mapping):
        raise ThawError(f"{path} must hold tensors by name, got {type(content).__name__}.")
    version = content["thaw"].get("format", 1) if isinstance(content.get("thaw"), Mapping) else 1
    if not isinstance(version, int):
        raise ThawError(f"{path} is no whole checkpoint of Thaw: its format must be a whole number, got {version!r}.")
    if version > FORMAT:
        raise ThawError(f"{path} is from a newer version of Thaw: format {version}; this one reads up to {FORMAT}.")
    return content


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
