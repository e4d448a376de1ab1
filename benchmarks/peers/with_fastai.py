"""fastai's `vision_learner`, its defaults: batch 32, augmentation by `aug_transforms`, one cycle, float32.

    python benchmarks/peers/with_fastai.py DATA BACKBONE WEIGHTS frozen|finetune EPOCHS

Runs in an environment of its own (benchmarks/training.py says which). Prints what tutorial.py prints.
"""

import sys

import torch
import torchvision.models
from fastai.callback.core import Callback
from fastai.metrics import accuracy
from fastai.vision.all import (
    ImageDataLoaders,
    RandomResizedCrop,
    aug_transforms,
    vision_learner,
)


class Clock(Callback):
    """Prints when epochs begin and end, and the accuracy."""

    def before_epoch(self) -> None:
        """Print at the first."""
        if not self.epoch:
            print("start", flush=True)

    def after_epoch(self) -> None:
        """Print; the recorder's last value is the accuracy."""
        print(f"epoch {self.epoch + 1}: {float(self.recorder.metrics[0].value):.4f}", flush=True)


def main() -> None:
    """Train and validate for some epochs."""
    root, backbone, weights, strategy, epochs = sys.argv[1:]
    loaders = ImageDataLoaders.from_folder(
        root,
        valid="val",
        bs=32,
        item_tfms=RandomResizedCrop(224, min_scale=0.35),
        batch_tfms=aug_transforms(),
        num_workers=2,
    )

    def architecture(pretrained: bool = False, weights: object = None) -> torch.nn.Module:
        network = torchvision.models.get_model(backbone, weights=None)
        network.load_state_dict(torch.load(weights_file, weights_only=True), strict=False)
        return network

    weights_file = weights
    architecture.__name__ = backbone
    learner = vision_learner(loaders, getattr(torchvision.models, backbone), pretrained=False, metrics=accuracy)
    source = architecture().state_dict()
    learner.model[0].load_state_dict(
        {name.partition(".")[2] if name.startswith("features.") else name: value for name, value in source.items()},
        strict=False,
    )
    (learner.freeze if strategy == "frozen" else learner.unfreeze)()
    with learner.no_bar(), learner.no_logging():
        learner.fit_one_cycle(int(epochs), 1e-3, cbs=Clock())


if __name__ == "__main__":
    main()
