"""Data, network, weights and the backbone for stored features, built from the options of a training."""

import logging
from pathlib import Path

import lightning.pytorch as pl

from thaw.config import Config
from thaw.data.datamodule import ImageDataModule
from thaw.data.feature_views import FrozenBackbone
from thaw.data.index import build_index
from thaw.data.places import locate
from thaw.data.sources import fetch
from thaw.model.classifier import Classifier
from thaw.model.loading import load_head, load_weights
from thaw.model.optimizer import require_optimizer
from thaw.model.own import make_loss, make_metrics
from thaw.model.strategy import is_still_frozen
from thaw.model.weights import Weights, default_transform, find_weights
from thaw.rules import require

log = logging.getLogger(__name__)


def build(config: Config) -> tuple[ImageDataModule, Classifier, str]:
    """The data, set up, the model with its weights, and one line about the weights."""
    dataset = locate(config.dataset)
    index = build_index(fetch(dataset.name, Path(dataset.root)), dataset)  # tells faults before weights are fetched
    num_classes, is_mixed = len(index.classes), bool(config.augment.mixup or config.augment.cutmix)
    own_loss = None if config.loss is None else make_loss(config.loss, num_classes, is_mixed)
    own_metrics = make_metrics(config.metrics, num_classes)
    own_metrics.mode_of(config.trainer.monitor)
    require_optimizer(config.optimizer)
    weights = _find_weights(config)
    transform = weights.transform if weights else default_transform(config.backbone.name)
    data = ImageDataModule(dataset, transform, config.augment, config.seed, config.trainer.max_epochs)
    data.load(index)
    model = Classifier(
        config.backbone.name,
        data.classes,
        transform=data.transform,
        head=config.head,
        strategy=config.strategy,
        optimizer=config.optimizer,
        schedule=config.schedule,
        augment=config.augment,
        class_weights=data.class_weights(),
        seed=config.seed,
        own_loss=None if own_loss is None else own_loss.function,
        own_metrics=own_metrics.metrics,
    )
    if size := config.augment.start_size:
        final, rule = data.transform.crop, "at most dataset.image_size, to which it grows"
        require(size <= final, "augment.start_size", f"{rule} and which is {final}", size)
        model.backbone.require_size(size, "augment.start_size")
    if weights is None:
        if config.strategy.backbone_factor == 0:
            log.warning(
                "The backbone's weights are random and stay so: the head alone learns. Set backbone.weights, or "
                "strategy=scratch."
            )
        because = f" (strategy {config.strategy.name})" if config.strategy.from_scratch else ""
        return data, model, f"Weights: random, from scratch{because}"
    line = load_weights(model.backbone, weights)
    if config.head.init == "weights":
        line += load_head(model, weights)
    elif weights.head:
        knows_some = set(weights.classes) & set(model.classes)
        why = " (head.init=weights takes it over)" if knows_some else ", for other classes"
        line += f"; its head left out{why}"
    return data, model, line


def _find_weights(config: Config) -> Weights | None:
    if config.strategy.from_scratch or config.backbone.weights is None:
        return None
    return find_weights(config.backbone.name, config.backbone.weights)


def frozen_backbone(config: Config, trainer: pl.Trainer, model: Classifier) -> FrozenBackbone | None:
    """The backbone for epochs on stored features; None where they are off. Mixed images forbid them, not the probe."""
    if config.features == "off":
        return None
    num_stages = len(model.backbone.stages)
    return FrozenBackbone(
        model.backbone,
        model.extract_frozen,
        lambda epoch: model.mix is None and is_still_frozen(config.strategy, epoch, num_stages),
        config.strategy.feature_views,
        (
            str(trainer.precision),
            trainer.accelerator.name(),
            str(model.transform),
            model.backbone.name,
            str(getattr(model.backbone.network, "transform_input", None)),  # of GoogLeNet and Inception: no tensor
        ),
    )
