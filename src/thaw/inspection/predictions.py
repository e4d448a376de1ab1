"""What a classifier said of each image of a split, how good that is, and where it went wrong."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics.functional.classification import (
    multiclass_calibration_error,
    multiclass_confusion_matrix,
    multiclass_f1_score,
)

from thaw.inspection.uncertainty import accuracy_interval
from thaw.summary import Metrics, groups_text

NUM_BINS = 15
"""Bins of confidence, over which the calibration error is a mean."""


class ClassScore(NamedTuple):
    """How well one class is recognised; nan where a figure is undefined: the class never occurs, or is never said."""

    name: str
    n: int
    precision: float
    recall: float
    f1: float


class CalibrationCurve(NamedTuple):
    """Equally wide bins of confidence, that is, of the probability of the predicted class; nan where one is empty."""

    confidence: Tensor
    """Mean of each bin."""
    accuracy: Tensor
    """Share of each bin that is predicted right."""
    low: Tensor
    """Lower end of its 95 % interval."""
    high: Tensor
    """Upper end of it."""
    n: Tensor
    """Images in each bin."""


class Confusion(NamedTuple):
    """Images of one class that were taken for another."""

    actual: str
    predicted: str
    n: int


@dataclass(frozen=True, repr=False)
class Predictions:
    """Logits and labels of N images.

    Attributes:
        paths: The images' files, as seen from the data's root.
        labels: True labels (N,).
        logits: Logits (N, K), float32.
        classes: Names of the K classes.
        groups: The group of each image, N, whose images may be alike; empty where each is its own.
    """

    paths: Sequence[str]
    labels: Tensor
    logits: Tensor
    classes: Sequence[str]
    groups: Sequence[str] = ()

    def __repr__(self) -> str:
        return f"Predictions(accuracy {accuracy_text(self.metrics())}, {len(self.classes)} classes)"

    @cached_property
    def probabilities(self) -> Tensor:
        """Softmax of the logits (N, K)."""
        return self.logits.softmax(dim=1)

    @cached_property
    def predicted(self) -> Tensor:
        """Labels (N,) of the highest logits."""
        return self.logits.argmax(dim=1)

    @cached_property
    def right(self) -> NDArray[np.bool_]:
        """Whether each image (N,) is predicted right."""
        return (self.predicted == self.labels).numpy()

    @cached_property
    def losses(self) -> Tensor:
        """Cross-entropy (N,) of each image."""
        return F.cross_entropy(self.logits, self.labels, reduction="none")

    @cached_property
    def confidences(self) -> Tensor:
        """Probability (N,) of the predicted class of each image."""
        return self.probabilities.amax(dim=1)

    @cached_property
    def confusion(self) -> Tensor:
        """Number of images (K, K): rows are actual classes, columns predicted ones."""
        return multiclass_confusion_matrix(self.predicted, self.labels, len(self.classes))

    def metrics(self) -> Metrics:
        """Accuracy with its 95 % interval and n, mean loss and macro-F1, as plain Python."""
        n = len(self.labels)
        macro_f1 = multiclass_f1_score(self.predicted, self.labels, len(self.classes), average="macro")
        metrics: Metrics = {
            "acc": int(self.right.sum()) / n,
            "acc_ci95": list(accuracy_interval(self.right, self.groups)),
            "n": n,
            "loss": float(self.losses.mean()),
            "macro_f1": float(macro_f1),
        }
        if self.groups:
            metrics["groups"] = len(set(self.groups))
        if len(self.classes) > 5:
            metrics["top5_acc"] = int((self.logits.topk(5).indices == self.labels[:, None]).sum()) / n
        return metrics

    @property
    def most_common(self) -> tuple[str, float]:
        """The class with most images and its share: what always answering it would reach."""
        counts = self.labels.bincount(minlength=len(self.classes))
        return self.classes[int(counts.argmax())], int(counts.max()) / len(self.labels)

    def per_class(self) -> list[ClassScore]:
        """Number of images, precision, recall and F1 of each class."""
        from sklearn.metrics import precision_recall_fscore_support  # slow to import

        scores = precision_recall_fscore_support(
            self.labels.numpy(), self.predicted.numpy(), labels=range(len(self.classes)), zero_division=float("nan")
        )
        rows = zip(self.classes, *(values.tolist() for values in scores), strict=True)
        return [ClassScore(name, int(n), precision, recall, f1) for name, precision, recall, f1, n in rows]

    def calibration_error(self) -> float:
        """Expected calibration error: the mean distance of confidence and accuracy (Guo et al. 2017)."""
        shares = self.probabilities.clamp(max=1 - 2**-24)  # torchmetrics gives exactly 1 a bin of its own
        return float(multiclass_calibration_error(shares, self.labels, len(self.classes), NUM_BINS))

    def calibration_curve(self) -> CalibrationCurve:
        """Confidence, accuracy and number of images in the bins that `calibration_error` is the mean over."""
        bounds = torch.linspace(0, 1, NUM_BINS + 1)
        bins = (torch.bucketize(self.confidences, bounds, right=True) - 1).clamp(max=NUM_BINS - 1)
        n = torch.bincount(bins, minlength=NUM_BINS)
        right = torch.from_numpy(self.right)
        sums = (torch.bincount(bins, values.double(), NUM_BINS) for values in (self.confidences, right))
        confidence, accuracy = (total / n for total in sums)
        intervals = torch.full((2, NUM_BINS), torch.nan, dtype=torch.double)
        for number in n.nonzero()[:, 0].tolist():
            inside = (bins == number).nonzero()[:, 0].tolist()
            groups = [self.groups[i] for i in inside] if self.groups else ()
            intervals[:, number] = torch.tensor(accuracy_interval(self.right[inside], groups), dtype=torch.double)
        return CalibrationCurve(confidence, accuracy, intervals[0], intervals[1], n)

    def most_confused(self, least: int = 1) -> list[Confusion]:
        """Pairs of classes that were confused at least so often, the most frequent first."""
        wrong = self.confusion.clone().fill_diagonal_(0)
        pairs = [(self.classes[i], self.classes[j], int(wrong[i, j])) for i, j in wrong.nonzero().tolist()]
        frequent = [Confusion(*pair) for pair in pairs if pair[2] >= least]
        return sorted(frequent, key=lambda pair: -pair.n)

    def top_losses(self, most: int) -> list[int]:
        """Indices of the images of highest loss, highest first."""
        return self.losses.argsort(descending=True, stable=True)[:most].tolist()

    def least_certain(self, most: int) -> list[int]:
        """Indices of the images of lowest confidence, lowest first."""
        return self.confidences.argsort(stable=True)[:most].tolist()


def accuracy_text(metrics: Metrics) -> str:
    """`0.9346 (95 % interval 0.884 to 0.964, n=153)`, of a split's figures; of grouped images `n=153 in 20 groups`."""
    low, high = metrics["acc_ci95"]
    n = f"{metrics['n']}{groups_text(metrics)}"
    return f"{metrics['acc']:.4f} (95 % interval {low:.3f} to {high:.3f}, n={n})"


def collect(
    outputs: Sequence[tuple[Tensor, Tensor]], paths: Sequence[str], classes: Sequence[str], groups: Sequence[str] = ()
) -> Predictions:
    """Predictions from what `Trainer.predict` returned for one split, batch by batch."""
    logits, labels = zip(*outputs, strict=True)
    return Predictions(paths, torch.cat(labels), torch.cat(logits), classes, groups)
