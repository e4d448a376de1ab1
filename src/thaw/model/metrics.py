"""Metrics of a training, counted at each step on the device, without waiting for it."""

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor
from torchmetrics import Metric


class ClassMetrics(Metric):
    """Mean loss, accuracy and macro-F1 of the images so far, from counts by class.

    The figures of torchmetrics' MeanMetric, MulticlassAccuracy and MulticlassF1Score, in a sixth of their time. The
    last also counts K x K pairs, and waits for a GPU at each step. Counts are int32: Apple's GPUs add no int64.

    Args:
        num_classes: K.
    """

    total: Tensor
    num_images: Tensor
    hits: Tensor
    predicted: Tensor
    actual: Tensor

    def __init__(self, num_classes: int, **options: Any) -> None:
        super().__init__(**options)
        self.add_state("total", torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("num_images", torch.zeros((), dtype=torch.int32), dist_reduce_fx="sum")
        for name in ("hits", "predicted", "actual"):
            self.add_state(name, torch.zeros(num_classes, dtype=torch.int32), dist_reduce_fx="sum")

    def update(self, total: Tensor, num_images: Tensor | int, logits: Tensor, labels: Tensor) -> None:
        """Count a batch.

        Args:
            total: Sum of the losses.
            num_images: How many losses that are.
            logits: Logits (B, K), also of no image.
            labels: Labels (B,).
        """
        self.total += total
        self.num_images += num_images
        classes = logits.argmax(dim=1)
        self.hits.index_add_(0, labels, (classes == labels).int())
        self.predicted.index_add_(0, classes, torch.ones_like(classes, dtype=torch.int32))
        self.actual.index_add_(0, labels, torch.ones_like(labels, dtype=torch.int32))

    def compute(self) -> dict[str, Tensor]:
        """`loss`, `acc` and `macro_f1`, the mean of the classes that occur or are predicted."""
        hits, sizes = self.hits.float(), self.predicted + self.actual  # ratios of integers have the default precision
        scores = 2 * hits / sizes.clamp(min=1)
        return {
            "loss": self.total / self.num_images,
            "acc": hits.sum() / self.actual.sum(),
            "macro_f1": scores.sum() / (sizes > 0).sum(),
        }

    def _apply(self, fn: Callable[[Tensor], Tensor], *rest: Any, **options: Any) -> Self:
        """Move to another device, but never change dtype: half precision would lose the sums."""
        return super()._apply(lambda tensor: fn(tensor).to(tensor.dtype), *rest, **options)  # type: ignore[return-value]
