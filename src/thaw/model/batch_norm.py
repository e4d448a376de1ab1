"""Batch normalisation, by the images of all processes too: the one definition of their statistics.

A single value has no variance. A channel with one, that of one image whose map is one pixel, takes its running
statistics, and is not counted into them, where torch's layer refuses it.
"""

from typing import Any, cast

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn


class BatchNorm(nn.BatchNorm2d):
    """`nn.BatchNorm2d` that also takes single values."""

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, F, H, W) standardised, scaled and shifted."""
        if self.training and images.numel() == self.num_features:
            return F.batch_norm(images, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(images)


class SharedBatchNorm(BatchNorm):
    """What `nn.SyncBatchNorm` is on GPUs."""

    running_mean: Tensor
    running_var: Tensor

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, F, H, W) standardised, scaled and shifted; in evaluation mode no process waits for another."""
        if not self.training:
            return super().forward(images)
        count, mean, variance = statistics_of_all(images)
        if count == 1:
            mean, variance = self.running_mean, self.running_var
        else:
            track(self, count, mean, variance)
        scale = (variance + self.eps).rsqrt() * self.weight
        centered = images - mean.view(-1, 1, 1)
        return torch.addcmul(self.bias.view(-1, 1, 1), centered, scale.view(-1, 1, 1)).to(images.dtype)


def share_statistics(network: nn.Module, device: torch.device) -> None:
    """Replace each BatchNorm layer by one that shares its statistics, with the same tensors by the same names."""
    replace_norms(network, SharedBatchNorm if device.type == "cpu" else nn.SyncBatchNorm)


def replace_norms(network: nn.Module, kind: type[BatchNorm | nn.SyncBatchNorm]) -> None:
    """Replace each BatchNorm layer by one of another kind, with the same tensors by the same names."""
    for name, norm in list(network.named_modules()):
        if isinstance(norm, nn.BatchNorm2d) and type(norm) is not kind:
            other = kind(norm.num_features, norm.eps, norm.momentum)
            for key, tensor in [*norm.named_parameters(), *norm.named_buffers()]:
                setattr(other, key, tensor)
            network.set_submodule(name, other.train(norm.training))


def statistics_of_all(features: Tensor) -> tuple[int, Tensor, Tensor]:
    """Number of values, mean (F,) and biased variance (F,) of each feature (B, F, …) over all processes, in float32.

    The gradient of mean and variance is that of all processes' losses. A process may have no images.
    """
    features = features.to(torch.promote_types(features.dtype, torch.float32))
    dims = [0, *range(2, features.ndim)]
    count = int(_sum(torch.tensor(features[:, 0].numel(), device=features.device)))
    mean = _sum(features.sum(dims)) / count
    centered = features - mean.view(-1, *[1] * (features.ndim - 2))
    return count, mean, _sum(centered.square().sum(dims)) / count


@torch.no_grad()
def track(norm: nn.BatchNorm1d | nn.BatchNorm2d, count: int, mean: Tensor, variance: Tensor) -> None:
    """Count a batch of several values into a layer's running statistics, as torch does."""
    for running, value in ((norm.running_mean, mean), (norm.running_var, variance * (count / (count - 1)))):
        assert running is not None
        running.lerp_(value.to(running.dtype), norm.momentum or 0.0)
    cast(Tensor, norm.num_batches_tracked).add_(1)


def _sum(tensor: Tensor) -> Tensor:
    """A tensor summed over all processes; its gradient is that of all their losses."""
    return cast(Tensor, _Sum.apply(tensor))


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _Sum.forward(ctx, gradients[0])
