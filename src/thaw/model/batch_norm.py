"""Batch normalisation, by the images of all processes too.

A single value has no variance. A channel with one, that of one image whose map is one pixel, takes its running
statistics, and is not counted into them, where torch's layer refuses it; of several GPUs, torch's own decides.
"""

from typing import Any, TypeAlias, cast

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

Norm: TypeAlias = nn.BatchNorm1d | nn.BatchNorm2d


class BatchNorm(nn.BatchNorm2d):
    """`nn.BatchNorm2d` that also takes single values."""

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, F, H, W) standardised, scaled and shifted."""
        if self.training and images.numel() == self.num_features:
            return F.batch_norm(images, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(images)


class SharedBatchNorm(BatchNorm):
    """What `SyncBatchNorm` is on GPUs."""

    running_mean: Tensor
    running_var: Tensor

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, F, H, W) standardised, scaled and shifted; in evaluation mode no process waits for another."""
        if not self.training:
            return super().forward(images)
        count, mean, variance = statistics_of_all(images)
        track(self, count, mean, variance)
        mean, variance = known_if_fewer(2, self, count, mean, variance)
        scale = (variance + self.eps).rsqrt() * self.weight
        centered = images - mean.view(-1, 1, 1)
        return torch.addcmul(self.bias.view(-1, 1, 1), centered, scale.view(-1, 1, 1)).to(images.dtype)


class SyncBatchNorm(nn.SyncBatchNorm):
    """`nn.SyncBatchNorm` of a process that may have no images: its zeros are float32, as the others' statistics are."""

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, F, H, W) standardised, scaled and shifted."""
        return super().forward(images if len(images) else images.float())


def share_statistics(network: nn.Module, device: torch.device) -> None:
    """Replace each BatchNorm layer by one that shares its statistics, with the same tensors by the same names."""
    replace_norms(network, SharedBatchNorm if device.type == "cpu" else SyncBatchNorm)


def replace_norms(network: nn.Module, kind: type[BatchNorm | SyncBatchNorm]) -> None:
    """Replace each BatchNorm layer by one of another kind, with the same tensors by the same names."""
    for name, norm in list(network.named_modules()):
        if isinstance(norm, nn.BatchNorm2d) and type(norm) is not kind:
            other = kind(norm.num_features, norm.eps, norm.momentum)
            for key, tensor in [*norm.named_parameters(), *norm.named_buffers()]:
                setattr(other, key, tensor)
            network.set_submodule(name, other.train(norm.training))


def statistics_of_all(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Number of values (), mean (F,) and biased variance (F,) of each feature (B, F, …) over all processes, in float32.

    The gradient of mean and variance is that of all processes' losses. A process may have no images. None of what is
    made of these looks at the number, which would wait for a GPU.
    """
    features = features.to(torch.promote_types(features.dtype, torch.float32))
    dims = [0, *range(2, features.ndim)]
    count = _sum(torch.full((), features[:, 0].numel(), device=features.device))
    mean = _sum(features.sum(dims)) / count
    centered = features - mean.view(-1, *[1] * (features.ndim - 2))
    return count, mean, _sum(centered.square().sum(dims)) / count


def unbiased(variance: Tensor, count: Tensor) -> Tensor:
    """The unbiased variance, of a biased one of so many values; of a single one it is 0."""
    return variance * count / (count - 1).clamp(min=1)


@torch.no_grad()
def track(norm: Norm, count: Tensor, mean: Tensor, variance: Tensor) -> None:
    """Count a batch into a layer's running statistics, as torch does; a single value is left out."""
    several = count > 1
    for running, value in ((norm.running_mean, mean), (norm.running_var, unbiased(variance, count))):
        assert running is not None
        running.lerp_(torch.where(several, value.to(running.dtype), running), norm.momentum or 0.0)
    cast(Tensor, norm.num_batches_tracked).add_(several)


def known_if_fewer(number: int, norm: Norm, count: Tensor, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    """A layer's running mean and variance where the batch has fewer values than that, else the batch's own."""
    is_small = count < number
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return torch.where(is_small, norm.running_mean, mean), torch.where(is_small, norm.running_var, variance)


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
