"""Weights -> a backbone that has them, and a line on what fitted and what did not."""

from collections import OrderedDict
from typing import cast

from torch import nn
from torchvision.models import VisionTransformer
from torchvision.models.vision_transformer import interpolate_embeddings

from thaw.errors import ThawError, name_some
from thaw.model.backbone import Backbone
from thaw.model.tensor_files import StateDict, require_finite
from thaw.model.weights import Weights


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
