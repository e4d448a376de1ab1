"""The new layer on top: features -> logits."""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from thaw.config import HeadConfig
from thaw.model.batch_norm import known_if_fewer, statistics_of_all, track, unbiased

SMALLEST_BATCH = 16
"""Fewest images to be standardised by their own mean and variance."""


class Standardize(nn.BatchNorm1d):
    """Features (B, F) with the mean and variance of each taken out, by running statistics in evaluation.

    Several processes standardise by the statistics of all their images.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, num_features: int) -> None:
        super().__init__(num_features, affine=False)

    def forward(self, features: Tensor) -> Tensor:
        """Standardised features (B, F); a small batch is counted into the running statistics, and takes those.

        A feature that four images hardly show has next to no variance among them; divided by it, the gradient that the
        backbone gets would explode.
        """
        if self.training and dist.is_initialized() and dist.get_world_size() > 1:
            return self._standardize_together(features)
        if not self.training or len(features) >= SMALLEST_BATCH:
            return super().forward(features)
        if len(features) > 1:
            with torch.no_grad():
                self._begin(self.num_batches_tracked == 0, features.mean(dim=0), features.var(dim=0))
                super().forward(features)
        return F.batch_norm(features, self.running_mean, self.running_var, eps=self.eps)

    def _begin(self, is_first: Tensor, mean: Tensor, variance: Tensor) -> None:
        """Initialise the running statistics from a small first batch, with one variance for all features.

        Whether it is the first is not looked at here: that would wait for a GPU.
        """
        self.running_mean.copy_(torch.where(is_first, mean, self.running_mean))
        self.running_var.copy_(torch.where(is_first, variance.mean(), self.running_var))

    def _standardize_together(self, features: Tensor) -> Tensor:
        """Standardise by the images of all processes, as a single one would."""
        count, mean, variance = statistics_of_all(features)
        with torch.no_grad():
            is_small_first = (self.num_batches_tracked == 0) & (count > 1) & (count < SMALLEST_BATCH)
            self._begin(is_small_first, mean, unbiased(variance, count))
        track(self, count, mean, variance)
        mean, variance = known_if_fewer(SMALLEST_BATCH, self, count, mean, variance)
        return ((features - mean) * (variance + self.eps).rsqrt()).to(features.dtype)


def make_head(options: HeadConfig, num_features: int, num_classes: int) -> nn.Sequential:
    """Features (B, F) -> logits (B, K): standardisation and dropout, each optional, and one linear layer."""
    linear = nn.Linear(num_features, num_classes)
    match options.init:
        case "xavier":
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)
        case "zeros":
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)
    standardize = Standardize(num_features) if options.standardize else nn.Identity()
    return nn.Sequential(standardize, nn.Dropout(options.dropout), linear)
