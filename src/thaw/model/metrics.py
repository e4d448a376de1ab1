"""What a training counts at each step, on the device and without waiting for it."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import MeanMetric, Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy


def make_metrics(num_classes: int) -> MetricCollection:
    """Mean loss, accuracy and macro-F1, to be updated by `value`, `preds` and `target`."""
    return MetricCollection(
        {
            "loss": MeanMetric(nan_strategy="disable"),
            "acc": MulticlassAccuracy(num_classes, average="micro", validate_args=False),
            "macro_f1": MacroF1(num_classes),
        }
    )


class MacroF1(Metric):
    """Mean of the classes' F1 scores, without classes that neither occur nor are predicted.

    Equal to torchmetrics' MulticlassF1Score, which at each step counts K x K pairs, and waits for the device to do so.

    Args:
        num_classes: K.
    """

    hits: Tensor
    predicted: Tensor
    actual: Tensor

    def __init__(self, num_classes: int, **options: Any) -> None:
        super().__init__(**options)
        for name in ("hits", "predicted", "actual"):
            self.add_state(name, torch.zeros(num_classes, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Count logits (B, K) and labels (B,)."""
        classes = preds.argmax(dim=1)
        self.hits.index_add_(0, target, (classes == target).long())
        self.predicted.index_add_(0, classes, torch.ones_like(classes))
        self.actual.index_add_(0, target, torch.ones_like(target))

    def compute(self) -> Tensor:
        """The score."""
        sizes = self.predicted + self.actual
        scores = 2 * self.hits / sizes.clamp(min=1)
        return scores.sum() / (sizes > 0).sum()
