"""Where in an image a classifier looked for a class: Grad-CAM, and the picture of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from math import isqrt
from typing import cast

import matplotlib as mpl
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import SwinTransformer, VisionTransformer
from torchvision.transforms.v2.functional import rgb_to_grayscale

from thaw.errors import ThawError
from thaw.model.classifier import Classifier


def grad_cam(model: Classifier, images: Tensor, labels: Tensor) -> Tensor:
    """Heat maps (B, S, S) in [0, 1]: what in each image speaks for a class.

    Gradient-weighted class activation mapping (Selvaraju et al. 2017): the channels of the last stage that still has
    a height and a width, weighted by the mean gradient of the class's logit, summed, without what speaks against it.
    From the logit the mean of all is taken, so that what speaks for every class alike leaves no heat.
    A vision transformer has no such stage: its patches as the last attention block takes them in stand for it. The
    highest value of each map is 1, unless nothing speaks for the class. The model is left as it was.

    Args:
        model: The classifier; its backbone may be frozen.
        images: uint8 (B, 3, S, S).
        labels: The class to explain in each image (B,).

    Raises:
        ThawError: The backbone has no spatial last stage for images of this size.
    """
    images, labels = images.to(model.device), labels.to(model.device)
    with _evaluation_mode(model), torch.no_grad():
        layer = find_spatial_layer(model, images[:1])
        activations: list[Tensor] = []

        def start_graph(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
            torch.set_grad_enabled(True)  # from here on only, and until `no_grad` ends: nothing below needs a graph
            # A copy, as networks may change it in place, which autograd forbids for a leaf.
            activations.append(output.detach().requires_grad_().clone())
            return activations[-1]

        handle = layer.register_forward_hook(start_graph)
        try:
            logits = model(images)
        finally:
            handle.remove()
        scores = logits.gather(1, labels[:, None]) - logits.mean(dim=1, keepdim=True)
        (gradients,) = torch.autograd.grad(scores.sum(), activations)
    maps, slopes = as_map(activations[-1].detach()), as_map(gradients)
    heat = (slopes.mean(dim=(2, 3), keepdim=True) * maps).sum(dim=1, keepdim=True).relu()
    heat = F.interpolate(heat, images.shape[-2:], mode="bilinear", align_corners=False).squeeze(1)
    return heat / heat.amax(dim=(1, 2), keepdim=True).clamp(min=torch.finfo(heat.dtype).tiny)


def find_spatial_layer(model: Classifier, images: Tensor) -> nn.Module:
    """The module that gives the last activations with a height and a width of more than one.

    Args:
        model: The classifier.
        images: uint8 (1, 3, S, S), to be passed through.

    Raises:
        ThawError: There is none for images of this size.
    """
    network = model.backbone.network
    if isinstance(network, VisionTransformer):
        return cast(nn.Module, network.encoder.layers[-1].ln_1)
    # Swin's own maps have the channels last.
    modules = [network.permute] if isinstance(network, SwinTransformer) else network.modules()
    spatial: list[nn.Module] = []

    def note(module: nn.Module, inputs: object, output: object) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and min(output.shape[2:]) > 1:
            spatial.append(module)

    handles = [module.register_forward_hook(note) for module in modules if module is not network]
    try:
        model(images)
    finally:
        for handle in handles:
            handle.remove()
    if not spatial:
        size = images.shape[-1]
        raise ThawError(
            f"Grad-CAM: backbone={model.backbone.name} has no spatial last stage at {size} x {size} pixels."
        )
    return spatial[-1]


def as_map(activations: Tensor) -> Tensor:
    """Activations (B, C, h, w); of tokens (B, 1 + h w, C), a class token and square patches, the latter."""
    if activations.ndim == 4:
        return activations
    side = isqrt(activations.shape[1] - 1)
    return activations[:, 1:].transpose(1, 2).reshape(len(activations), -1, side, side)


def overlay(image: Tensor, heat: Tensor) -> Tensor:
    """The uint8 image (3, H, W) in grey with its heat map (H, W) in colour over it, the more opaque the hotter."""
    colors = torch.from_numpy(mpl.colormaps["inferno"](heat.cpu().numpy())[..., :3]).permute(2, 0, 1) * 255
    grey: Tensor = rgb_to_grayscale(image.cpu(), num_output_channels=3)
    opacity = 0.8 * heat.cpu()
    return (grey * (1 - opacity) + colors * opacity).round().to(torch.uint8)


@contextmanager
def _evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while; then each module's own mode again."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
