"""The new layer on top: features -> logits."""

import torch.nn.functional as F
from torch import Tensor, nn

from thaw.config import HeadConfig


class Standardize(nn.BatchNorm1d):
    """Features (B, F) with the mean and variance of each taken out, by running statistics in evaluation."""

    def __init__(self, num_features: int) -> None:
        super().__init__(num_features, affine=False)

    def forward(self, features: Tensor) -> Tensor:
        """Standardised features (B, F); a batch of one image has no variance and takes the running statistics."""
        if self.training and len(features) == 1:
            return F.batch_norm(features, self.running_mean, self.running_var, eps=self.eps)
        return super().forward(features)


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
