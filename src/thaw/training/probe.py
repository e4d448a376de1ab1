"""The linear probe: a logistic regression fitted to the frozen backbone's features, before anything is trained."""

import logging
from contextlib import nullcontext
from typing import Any, cast

import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from thaw.data.datamodule import ImageDataModule
from thaw.inspection.predictions import Predictions, accuracy_text
from thaw.model.classifier import Classifier
from thaw.model.head import Standardize
from thaw.summary import Metrics
from thaw.training.one_thread import SMALL, one_thread

log = logging.getLogger(__name__)

# Of the summed loss against half the squared weights. On hymenoptera, SqueezeNet, 4 x 5-fold cross-validation, this
# has the lowest log loss (0.227) of 0.0005, 0.005, 0.05, …, 50, and an accuracy (0.921) within 0.002 of the highest.
INVERSE_PENALTY = 0.05

MOST_VALUES = 2**26
"""Of the features that are fitted to, half a GB in float64; those of further images are left out."""
MOST_PRODUCTS = 2**35
"""Values times classes; a fit computes about 150 times as many products, a quarter of an hour's work for one core."""


class LinearProbe(Callback):
    """Says what a probe alone reaches on the validation images, so that a user sees what training adds.

    Args:
        data: The images.
        start: Also begin the training from the probe's head (Kumar et al. 2022, arXiv:2202.10054).

    Attributes:
        metrics: Its validation figures; None before the fit.
    """

    def __init__(self, data: ImageDataModule, start: bool) -> None:
        super().__init__()
        self.data = data
        self.start = start
        self.metrics: Metrics | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Fit and judge the probe; a resumed run has done so, and its backbone is no longer what it was."""
        if trainer.ckpt_path is not None:
            return
        data, model = self.data, cast(Classifier, pl_module)
        training = data.features.mirrored()
        views, labels = training.views, training.labels
        class_weights = None if data.options.balance == "none" else data.inverse_frequencies()
        chosen = choose_images(labels, views.shape[0] * views.shape[2], len(data.classes))
        images = ""
        if len(chosen) < len(labels):
            images = f" of {len(chosen)} of {len(labels)} training images"
            views, labels = views[:, chosen], labels[chosen]
        is_small = views.numel() * len(data.classes) < SMALL
        with one_thread() if is_small else nullcontext():
            is_drawn = data.options.balance == "sampler"
            head = fit_probe(views, labels, len(data.classes), class_weights, is_drawn)
        validation = data.features.evaluation("val")
        logits, groups = head(validation.views[0].float()), data.index.groups_of("val")
        self.metrics = Predictions([], validation.labels, logits, data.classes, groups).metrics()
        accuracy = accuracy_text(self.metrics)
        log.info(f"Probe: a logistic regression on the frozen features{images} has val accuracy {accuracy}")
        if self.start:
            install_probe(model.head, head)
            if trainer.world_size > 1:  # DDP has shared the weights before, and shares gradients from now on
                model.head.load_state_dict(trainer.strategy.broadcast(model.head.state_dict()))

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"metrics": self.metrics}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what the interrupted run found."""
        self.metrics = state_dict["metrics"]


def choose_images(labels: Tensor, num_values: int, num_classes: int) -> Tensor:
    """Indices, rising, of the images that a probe is fitted to: all, or a sample with each class in proportion.

    Args:
        labels: Labels (N,).
        num_values: Features of all views of an image.
        num_classes: K.
    """
    most = max(min(MOST_VALUES, MOST_PRODUCTS // num_classes) // num_values, 1)
    if len(labels) <= most:
        return torch.arange(len(labels))
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    by_class = order[labels[order].argsort(stable=True)]
    return by_class[torch.arange(most) * len(labels) // most].sort().values


def fit_probe(
    views: Tensor, labels: Tensor, num_classes: int, class_weights: Tensor | None = None, is_drawn: bool = False
) -> nn.Sequential:
    """Features (B, F) -> logits (B, K), float32: standardisation and a logistic regression fitted by L-BFGS.

    Args:
        views: Features (V, N, F) of V views of N images.
        labels: Labels (N,).
        num_classes: K.
        class_weights: Weights (K,) of the classes in the loss.
        is_drawn: A sampler draws them as often as these say: features are standardised as those of its batches will be.
    """
    num_views, _, num_features = views.shape
    features, targets = views.flatten(end_dim=1).float(), labels.repeat(num_views)
    standardize, linear = Standardize(num_features), nn.Linear(num_features, num_classes)
    assert standardize.running_mean is not None
    assert standardize.running_var is not None
    mean, variance = features.mean(dim=0), features.var(dim=0, correction=0)
    if is_drawn and class_weights is not None:
        shares = class_weights[targets] / class_weights[targets].sum()
        mean = shares @ features
        variance = shares @ (features - mean).square()
    standardize.running_mean.copy_(mean)
    standardize.running_var.copy_(variance)
    standardize.num_batches_tracked.fill_(1)  # or a first small batch would take their place
    inputs = standardize.eval()(features).double()
    weights = None if class_weights is None else class_weights.double()
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    optimizer = torch.optim.LBFGS(linear.double().parameters(), max_iter=1000, line_search_fn="strong_wolfe")

    def penalized_loss() -> float:
        optimizer.zero_grad()
        loss = F.cross_entropy(linear(inputs), targets, weights, reduction="sum")
        loss = INVERSE_PENALTY * loss + linear.weight.square().sum() / 2
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.item()

    with torch.enable_grad():  # the Trainer's hook is called without
        optimizer.step(penalized_loss)  # type: ignore[no-untyped-call]
    return nn.Sequential(standardize, linear.float()).requires_grad_(False)


@torch.no_grad()
def install_probe(head: nn.Sequential, probe: nn.Sequential) -> None:
    """Make a classifier's head compute what the probe does; if it does not standardise, its weights take that in."""
    standardize, linear = cast(Standardize, probe[0]), cast(nn.Linear, probe[1])
    own, own_linear = head[0], cast(nn.Linear, head[2])
    weight: Tensor = linear.weight
    bias: Tensor = linear.bias
    if isinstance(own, Standardize):
        own.load_state_dict(standardize.state_dict())
    else:
        assert standardize.running_mean is not None
        assert standardize.running_var is not None
        weight = weight / (standardize.running_var + standardize.eps).sqrt()
        bias = bias - weight @ standardize.running_mean
    own_linear.weight.copy_(weight)
    own_linear.bias.copy_(bias)
