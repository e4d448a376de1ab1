"""What a classifier said of each image of a split, and how good that is."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.functional.classification import multiclass_f1_score

from thaw.inspection.uncertainty import wilson_interval


@dataclass(frozen=True)
class Predictions:
    """Logits and labels of N images.

    Attributes:
        paths: The images' files, as seen from the data's root.
        labels: True labels (N,).
        logits: Logits (N, K), float32.
        classes: Names of the K classes.
    """

    paths: Sequence[str]
    labels: Tensor
    logits: Tensor
    classes: Sequence[str]

    @cached_property
    def probabilities(self) -> Tensor:
        """Softmax of the logits (N, K)."""
        return self.logits.softmax(dim=1)

    @cached_property
    def predicted(self) -> Tensor:
        """Labels (N,) of the highest logits."""
        return self.logits.argmax(dim=1)

    @cached_property
    def losses(self) -> Tensor:
        """Cross-entropy (N,) of each image."""
        return F.cross_entropy(self.logits, self.labels, reduction="none")

    def metrics(self) -> dict[str, Any]:
        """Accuracy with its 95 % Wilson interval and n, mean loss and macro-F1, as plain Python."""
        num_right, n = int((self.predicted == self.labels).sum()), len(self.labels)
        macro_f1 = multiclass_f1_score(self.predicted, self.labels, len(self.classes), average="macro")
        return {
            "acc": num_right / n,
            "acc_ci95": list(wilson_interval(num_right, n)),
            "n": n,
            "loss": float(self.losses.mean()),
            "macro_f1": float(macro_f1),
        }


def write_predictions(path: Path, splits: Mapping[str, Predictions]) -> None:
    """One row an image: split, path, label, predicted, loss and the probability of each class."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        classes = next(iter(splits.values())).classes
        writer.writerow(["split", "path", "label", "predicted", "loss", *(f"p_{name}" for name in classes)])
        for split, predictions in splits.items():
            for index, image in enumerate(predictions.paths):
                names = (classes[int(labels[index])] for labels in (predictions.labels, predictions.predicted))
                numbers = [float(predictions.losses[index]), *predictions.probabilities[index].tolist()]
                writer.writerow([split, image, *names, *(f"{number:.6g}" for number in numbers)])


def accuracy_text(metrics: Mapping[str, Any]) -> str:
    """`0.9346 (95 % interval 0.884 to 0.964, n=153)` of what `Predictions.metrics` returned."""
    low, high = metrics["acc_ci95"]
    return f"{metrics['acc']:.4f} (95 % interval {low:.3f} to {high:.3f}, n={metrics['n']})"


def collect(outputs: Sequence[tuple[Tensor, Tensor]], paths: Sequence[str], classes: Sequence[str]) -> Predictions:
    """Predictions from what `Trainer.predict` returned for one split, batch by batch."""
    logits, labels = zip(*outputs, strict=True)
    return Predictions(paths, torch.cat(labels), torch.cat(logits), classes)
