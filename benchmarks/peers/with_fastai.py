"""fastai's `vision_learner` with its own head, splitter and one-cycle schedule: batch 32, float32.

    python benchmarks/peers/with_fastai.py DATA BACKBONE WEIGHTS frozen|finetune EPOCHS

Runs in an environment of its own, in which fastai is installed. Prints what tutorial.py prints.
"""

import sys
from typing import Any

import fastai.callback.all  # noqa: F401 - adds methods to the learner
import torch
import torchvision.models
from fastai.callback.core import Callback
from fastai.metrics import accuracy
from fastai.vision.augment import RandomResizedCrop, aug_transforms
from fastai.vision.data import ImageDataLoaders
from fastai.vision.learner import model_meta, vision_learner


class Clock(Callback):
    """Prints when epochs begin and end, and the accuracy."""

    def before_epoch(self) -> None:
        """Print at the first."""
        if not self.epoch:
            print("start", flush=True)

    def after_epoch(self) -> None:
        """Print."""
        print(f"epoch {self.epoch + 1}: {float(self.recorder.metrics[0].value):.4f}", flush=True)


def main() -> None:
    """Train and validate for some epochs."""
    root, backbone, weights, strategy, epochs = sys.argv[1:]

    def architecture(pretrained: bool) -> torch.nn.Module:
        network = torchvision.models.get_model(backbone, weights=None)
        network.load_state_dict(torch.load(weights, weights_only=True), strict=False)
        return network

    official: dict[str, Any] = model_meta[getattr(torchvision.models, backbone)]
    model_meta[architecture] = {key: value for key, value in official.items() if key != "weights"}
    loaders = ImageDataLoaders.from_folder(
        root, valid="val", bs=32, item_tfms=RandomResizedCrop(224, min_scale=0.35), batch_tfms=aug_transforms()
    )
    learner = vision_learner(loaders, architecture, metrics=accuracy)
    if strategy == "finetune":
        learner.unfreeze()
    with learner.no_bar(), learner.no_logging():
        learner.fit_one_cycle(int(epochs), 1e-3, cbs=Clock())


if __name__ == "__main__":
    main()
