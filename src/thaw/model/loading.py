"""Weights -> a backbone and a head that have them, and a line on what fitted and what did not."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import cast

from torch import nn
from torchvision.models import VisionTransformer
from torchvision.models.vision_transformer import interpolate_embeddings

from thaw.errors import ThawError, name_some
from thaw.model.backbone import Backbone
from thaw.model.classifier import Classifier
from thaw.model.tensor_files import StateDict, differing_tensors, require_finite
from thaw.model.weights import Weights

CONSTANTS = ("num_batches_tracked", "relative_position_index", "relative_coords_table")
"""Last names of tensors that a network computes with or counts by, but does not learn: a file may lack them."""

OF_ANOTHER = "Is it the file of another network?"
LINEAR = "2."
"""How the names of the head's last layer begin, whose rows are those of the classes; see `make_head`."""


def load_weights(backbone: Backbone, weights: Weights) -> str:
    """Copy the weights into the backbone; returns one line on what fitted and what was left out, by name.

    Raises:
        ThawError: The weights are another network's: some of this one's are not there, or there are further layers.
    """
    network = backbone.network
    own = network.state_dict()
    state = _resize_positions(network, weights.state)
    fitting = {name: value for name, value in state.items() if name in own and value.shape == own[name].shape}
    missing = [name for name in own if name not in fitting and not name.endswith(CONSTANTS)]
    dropped = [name for name in state if name not in fitting]
    _refuse_another(backbone, weights, f"{len(fitting)} of its {len(own)}", missing, dropped)
    require_finite(weights.source, fitting)
    own.update(fitting)
    network.load_state_dict(own)
    if hasattr(network, "transform_input"):
        setattr(network, "transform_input", weights.transform_input)  # noqa: B010 - a Module attribute is typed Tensor
    line = f"Weights: {weights.source}; {len(fitting)} of {len(own)} tensors loaded"
    return line + _list_names("; left out: ", dropped) + _list_names("; missing, so random: ", missing)


def load_head(model: Classifier, weights: Weights) -> str:
    """Copy the head of an earlier run into the classifier, class by class; returns a few words on which.

    Raises:
        ThawError: It was trained for other classes alone, is built otherwise, or has diverged.
    """
    known = [name for name in model.classes if name in weights.classes]
    if not known:
        raise ThawError(
            f"head.init=weights needs a run with some of the same classes: {weights.source} has "
            f"{name_some(weights.classes) or 'none'}; the data has {name_some(model.classes)}. Use head.init=default."
        )
    if weights.head.keys() != model.head.state_dict().keys():
        raise ThawError(f"head.standardize differs from that of {weights.source}, so its head does not fit.")
    own = model.head.state_dict()
    theirs = _of_classes(weights.head, weights.classes, known)
    if differing := differing_tensors(theirs, _of_classes(own, model.classes, known)):
        raise ThawError(
            f"head.init=weights needs a run of backbone={model.backbone.name}: the head of {weights.source} has "
            f"other shapes, in {name_some(differing, most=3)}. Use head.init=default."
        )
    require_finite(weights.source, weights.head)
    places = [model.classes.index(name) for name in known]
    for name, tensor in own.items():  # which are the head's own, to be written to
        tensor[places if name.startswith(LINEAR) else ...] = theirs[name]
    new = [name for name in model.classes if name not in known]
    return f"; head taken over{_list_names(' but for the new classes ', new)}"


def _of_classes(head: StateDict, classes: Sequence[str], chosen: Sequence[str]) -> StateDict:
    """A head for some of its classes."""
    rows = [classes.index(name) for name in chosen]
    return {
        name: tensor[rows] if name.startswith(LINEAR) and len(tensor) == len(classes) else tensor
        for name, tensor in head.items()
    }


def _refuse_another(backbone: Backbone, weights: Weights, share: str, missing: list[str], dropped: list[str]) -> None:
    """Refuse what siblings of the network hold, which have most of its tensors; the head's module is none of it.

    Raises:
        ThawError: Tensors of the network are missing, or some are left over of layers that it does not have.
    """
    *parts, head = (name for name, _ in backbone.network.named_children())
    layers = {name for name, _ in backbone.network.named_modules()}
    missing = [name for name in missing if _part(name) != head]
    foreign = [name for name in dropped if _part(name) in parts and name.rpartition(".")[0] not in layers]
    begin = f"backbone.weights does not fit backbone={backbone.name}: {weights.source} has"
    is_other = weights.backbone not in ("", backbone.name)
    end = f"It is of {weights.backbone}: set backbone={weights.backbone}." if is_other else OF_ANOTHER
    if missing:
        names = name_some(missing, most=3)
        raise ThawError(f"{begin} {share} tensors; missing, or of another shape: {names}. {end}")
    if foreign:
        names = name_some(foreign, most=3)
        raise ThawError(f"{begin} {len(foreign)} tensors of further layers: {names}. {end}")


def _part(name: str) -> str:
    """The part of a network that a tensor belongs to: `layer1` of `layer1.0.conv1.weight`."""
    return name.partition(".")[0]


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
            f"(1, 1 + N x N, {network.hidden_dim}), got {shape}. {OF_ANOTHER}"
        ) from error


def _list_names(title: str, names: list[str]) -> str:
    return title + name_some(names, most=6) if names else ""
