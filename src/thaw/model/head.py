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
            with torch.no_grad():
                super().forward(features)
        return F.batch_norm(features, self.running_mean, self.running_var, eps=self.eps)


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
