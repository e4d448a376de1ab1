"""Any torchvision classifier as a network that returns pooled features, divided into stages by depth."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import torch
import torchvision
from torch import Tensor, nn

from thaw.errors import ThawError, first_line
from thaw.model.batch_norm import BatchNorm, replace_norms, share_statistics


@dataclass
class Stage:
    """A run of neighbouring layers that is frozen, thawed and given a learning rate as one.

    Attributes:
        modules: The layers, in depth order; together with `loose` they hold each of the stage's parameters once.
        loose: Parameters that belong to no layer (ViT's class token and position embedding); first stage only.
    """

    modules: list[nn.Module] = field(default_factory=list)
    loose: list[nn.Parameter] = field(default_factory=list)

    def parameters(self) -> Iterator[nn.Parameter]:
        """Every parameter of the stage, once."""
        yield from self.loose
        for module in self.modules:
            yield from module.parameters()

    @property
    def is_frozen(self) -> bool:
        """True if none of its parameters learns."""
        return not any(parameter.requires_grad for parameter in self.parameters())


class _MNASNet(torchvision.models.MNASNet):  # type: ignore[misc] # torchvision has no types
    """Takes weights whose metadata tell no version, as Lightning's averaging saves them."""

    _load_from_state_dict = nn.Module._load_from_state_dict


class Backbone(nn.Module):
    """A torchvision classifier without its last layer: images (B, 3, H, W), normalised -> features (B, F).

    Attributes:
        name: Its name in torchvision.models.
        network: torchvision's module, the last layer an `Identity`, BatchNorm of our kind; its state dict has
            torchvision's own keys.
        num_features: F.
        stages: Its parts in depth order. Every parameter is in exactly one.
    """

    def __init__(self, name: str, image_size: int) -> None:
        """Build the network with random weights.

        Args:
            name: A classifier of torchvision.models.
            image_size: Side of the square input in pixels; ViT and MaxViT are built for one size.

        Raises:
            ThawError: The network cannot take images of that size.
        """
        super().__init__()
        self.name = name
        try:
            self.network = cast(
                nn.Module, torchvision.models.get_model(name, weights=None, **_options(name, image_size))
            )
        except (AssertionError, ValueError) as error:
            raise _misfit(name, image_size, error) from error
        if isinstance(self.network, torchvision.models.MNASNet):
            self.network.__class__ = _MNASNet
        self.num_features = _remove_head(self.network)
        replace_norms(self.network, BatchNorm)
        self.stages = divide_into_stages(self.network)
        if image_size < 128:
            self.require_size(image_size)

    def require_size(self, image_size: int, option: str = "dataset.image_size") -> None:
        """Pass one empty image through: some networks shrink it to nothing if it is too small, others are for one size.

        Args:
            image_size: Side of the square in pixels.
            option: What it was given as.

        Raises:
            ThawError: The network cannot take it.
        """
        if any(parameter.is_meta for parameter in self.parameters()):
            return
        try:
            with torch.no_grad():
                self.eval()(torch.zeros(1, 3, image_size, image_size))
        except (RuntimeError, AssertionError) as error:
            raise _misfit(self.name, image_size, error, option) from error
        finally:
            self.train()

    def share_statistics(self, device: torch.device) -> None:
        """From now on have BatchNorm in training mode normalise by the images of all processes, on such a device."""
        share_statistics(self.network, device)
        self.stages = divide_into_stages(self.network)

    def forward(self, images: Tensor) -> Tensor:
        """Features (B, F) of normalised images (B, 3, H, W)."""
        return cast(Tensor, self.network(images))


def _misfit(name: str, image_size: int, error: Exception, option: str = "dataset.image_size") -> ThawError:
    reason = first_line(error).rstrip(".!")
    return ThawError(f"{option}={image_size} does not suit backbone={name}: {reason}.")


def _options(name: str, image_size: int) -> dict[str, Any]:
    """What a network's builder has to be told: auxiliary heads are dropped, transformers fix their input size."""
    if name in ("googlenet", "inception_v3"):
        return {"aux_logits": False, "init_weights": True}
    if name.startswith("vit_"):
        return {"image_size": image_size}
    if name == "maxvit_t":
        return {"input_size": (image_size, image_size)}
    return {}


def _remove_head(network: nn.Module) -> int:
    """Replace the last `Linear`, or SqueezeNet's 1x1 convolution to 1000 channels; returns its input size."""
    for name, module in reversed(list(network.named_modules())):
        if isinstance(module, nn.Linear):
            num_features = module.in_features
        elif isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and module.out_channels == 1000:
            num_features = module.in_channels
        else:
            continue
        network.set_submodule(name, nn.Identity())
        return num_features
    raise AssertionError("every torchvision classifier ends in a Linear or a 1x1 convolution")


def divide_into_stages(network: nn.Module) -> list[Stage]:
    """The network's layers as stages, in depth order.

    Containers are opened (`_opens`), everything else is a unit. A unit with a weight of two or more dimensions begins
    a stage; one without (normalisation, activation, pooling) joins the stage before it.
    """
    half = sum(parameter.numel() for parameter in network.parameters()) / 2
    stages = [Stage()]
    has_weight = False
    for unit in _units(network, half):
        is_layer = any(parameter.ndim >= 2 for parameter in unit.parameters())
        if is_layer and has_weight:
            stages.append(Stage())
        has_weight = has_weight or is_layer
        stages[-1].modules.append(unit)
    in_units = {id(parameter) for stage in stages for parameter in stage.parameters()}
    stages[0].loose = [parameter for parameter in network.parameters() if id(parameter) not in in_units]
    return stages


def _units(module: nn.Module, half: float) -> Iterator[nn.Module]:
    for child in module.children():
        if _opens(child, half):
            yield from _units(child, half)
        else:
            yield child


def _opens(module: nn.Module, half: float) -> bool:
    """True for a plain list of layers, and for a module one of whose lists holds over half of all parameters.

    Subclasses of `Sequential` (torchvision's `Conv2dNormActivation`, …) are layers of their own, not lists, unless
    they repeat one kind of block (RegNet's `AnyStage`).
    """
    return (
        _is_list(module)
        or _repeats_a_block(module)
        or any(
            _is_list(child) and sum(parameter.numel() for parameter in child.parameters()) > half
            for child in module.children()
        )
    )


def _is_list(module: nn.Module) -> bool:
    return type(module) in (nn.Sequential, nn.ModuleList)


def _repeats_a_block(module: nn.Module) -> bool:
    blocks = list(module.children())
    return (
        isinstance(module, nn.Sequential) and len({type(block) for block in blocks}) == 1 and any(blocks[0].children())
    )
