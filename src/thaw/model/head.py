"""The new layer on top: features -> logits."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from thaw.config import HeadConfig

SMALLEST_BATCH = 16
"""Images whose own mean and variance are good enough to standardise by."""


class Standardize(nn.BatchNorm1d):
    """Features (B, F) with the mean and variance of each taken out, by running statistics in evaluation."""

    def __init__(self, num_features: int) -> None:
        super().__init__(num_features, affine=False)

    def forward(self, features: Tensor) -> Tensor:
        """Standardised features (B, F); a small batch is counted into the running statistics, and takes those.

        A feature that four images hardly show has next to no variance among them; divided by it, the gradient that the
        backbone gets would explode.
        """
        if not self.training or len(features) >= SMALLEST_BATCH:
            return super().forward(features)
        if len(features) > 1:
            self._count(features)
        return F.batch_norm(features, self.running_mean, self.running_var, eps=self.eps)

    @torch.no_grad()
    def _count(self, features: Tensor) -> None:
        """Add a batch to the running statistics; the first one gives all features one variance, for want of images."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        if self.num_batches_tracked == 0:
            self.running_mean.copy_(features.mean(dim=0))
            self.running_var.fill_(features.var(dim=0).mean())
        super().forward(features)


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
