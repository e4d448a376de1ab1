"""A loss and metrics of the user's own, as the options describe them, tried before the training.

Neither is a part of the network: a checkpoint holds nothing of them, and a finished run is used without their classes.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import Metric

from thaw.errors import ThawError, one_line
from thaw.instantiation import make
from thaw.seeding import seeded


class OwnLoss:
    """Mean loss of the images of a step.

    Args:
        function: Logits (B, K) and labels (B,), or soft targets (B, K), -> their mean loss, or losses (B,).

    Raises:
        ThawError: It would have to learn, too.
    """

    def __init__(self, function: Callable[[Tensor, Tensor], Any]) -> None:
        learning = isinstance(function, nn.Module) and any(each.requires_grad for each in function.parameters())
        if not callable(function) or learning:
            rule = "called with logits and targets, and have no parameters of its own that learn"
            raise ThawError(f"loss must be {rule}, got {type(function).__name__}.")
        self.function = function

    def to(self, device: torch.device) -> None:
        """Move what it computes with."""
        if isinstance(self.function, nn.Module):
            self.function.to(device)

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The mean; 0 of no image.

        Raises:
            ThawError: It fails, or gives something else.
        """
        if not len(targets):
            return logits.sum()
        shapes = f"logits {tuple(logits.shape)} and targets {tuple(targets.shape)}"
        with _blaming("loss", f"{shapes} of {targets.dtype}"), torch.autocast(logits.device.type, enabled=False):
            loss = self.function(logits.float(), targets.float() if targets.is_floating_point() else targets)
        if isinstance(loss, Tensor) and loss.shape in ((), targets.shape[:1]) and loss.requires_grad:
            return loss.mean()
        kind = type(loss).__name__
        if isinstance(loss, Tensor):
            kind = f"shape {tuple(loss.shape)}" + " without a gradient" * (not loss.requires_grad)
        raise ThawError(f"loss must give one number or one an image, computed from the logits, got {kind} of {shapes}.")


class OwnMetrics:
    """Metrics by their names, of probabilities (B, K) and labels (B,)."""

    def __init__(self, metrics: Mapping[str, Metric] | None = None) -> None:
        self.metrics = dict(metrics or {})

    def to(self, device: torch.device) -> None:
        """Move what they have counted."""
        for metric in self.metrics.values():
            metric.to(device)

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Count a batch of logits (B, K) and labels (B,)."""
        for name, metric in self.metrics.items() if len(labels) else ():
            with _blaming(f"metrics.{name}"), torch.autocast(logits.device.type, enabled=False):
                metric.update(logits.softmax(dim=1), labels)

    def compute(self) -> dict[str, Tensor]:
        """A number for each metric, of the images of all processes; they begin anew.

        Raises:
            ThawError: One fails, or gives something else.
        """
        return {name: self._compute(f"metrics.{name}", metric) for name, metric in self.metrics.items()}

    def _compute(self, key: str, metric: Metric) -> Tensor:
        with _blaming(key):
            value = metric.compute()
            metric.reset()
        if isinstance(value, int | float):
            value = torch.tensor(value, device=metric.device)
        if not isinstance(value, Tensor) or value.numel() != 1:
            kind = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise ThawError(f"{key} must come to one number, got {kind}: see its arguments, such as average.")
        return value.float().reshape(())

    def of(self, logits: Tensor, labels: Tensor) -> dict[str, float]:
        """The numbers of some images that this process has all of."""
        alone = OwnMetrics(deepcopy(self.metrics))
        alone.to(logits.device)
        for metric in alone.metrics.values():
            metric.reset()
            for each in metric.modules():
                if isinstance(each, Metric):
                    each.distributed_available_fn = lambda: False
        alone.update(logits, labels)
        return {name: float(value) for name, value in alone.compute().items()}

    def mode_of(self, monitor: str) -> str:
        """`max` or `min`, whichever is better of a figure on val: one of these, `val/NAME`, or of Thaw's own.

        Raises:
            ThawError: A metric does not say so.
        """
        metric = self.metrics.get(monitor.removeprefix("val/"))
        if metric is None:
            return "min" if monitor == "val/loss" else "max"
        if metric.higher_is_better is None:
            raise ThawError(
                f"trainer.monitor={monitor} needs to know whether higher is better, and {type(metric).__name__} does "
                "not say: in a subclass, set higher_is_better to True or False."
            )
        return "max" if metric.higher_is_better else "min"


def make_loss(recipe: Any, num_classes: int, is_mixed: bool) -> OwnLoss:
    """The loss that an option describes, tried on targets of the kind that it will get.

    Args:
        recipe: `_target_`, its class or the function itself, and arguments.
        num_classes: K.
        is_mixed: Whether images are mixed, and so have soft targets.

    Raises:
        ThawError: It cannot be made, or is none.
    """
    loss, labels = OwnLoss(make("loss", recipe, calls=False)), _some_labels(num_classes)
    with seeded(0):
        logits = torch.randn(len(labels), num_classes, requires_grad=True)
        loss(logits, F.one_hot(labels, num_classes).float() if is_mixed else labels)
    return loss


def make_metrics(recipes: Mapping[str, Any], num_classes: int) -> OwnMetrics:
    """The metrics that an option describes, tried on right predictions; they are told the number of classes.

    Args:
        recipes: For each name `_target_`, its class, and arguments.
        num_classes: K.

    Raises:
        ThawError: One cannot be made, or is none.
    """
    usual = {"task": "multiclass", "num_classes": num_classes}
    metrics = {name: make(f"metrics.{name}", recipe, usual) for name, recipe in recipes.items()}
    for name, metric in metrics.items():
        if not isinstance(metric, Metric):
            raise ThawError(f"metrics.{name} must be a Metric of torchmetrics, got {type(metric).__name__}.")
    own, labels = OwnMetrics(metrics), _some_labels(num_classes)
    own.of(F.one_hot(labels, num_classes).float(), labels)
    return own


def _some_labels(num_classes: int) -> Tensor:
    """One image of each class, and one more: K losses are not taken for one an image."""
    return torch.arange(num_classes + 1) % num_classes


@contextmanager
def _blaming(key: str, what: str = "probabilities (B, K) and labels (B,)") -> Iterator[None]:
    """Inside, what a class that is not ours raises is said to be of the option `key`."""
    try:
        yield
    except Exception as error:
        raise ThawError(f"{key} fails on {what}: {type(error).__name__}: {one_line(error)}") from error
