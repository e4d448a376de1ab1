from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
import torchvision
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.data import DataLoader, TensorDataset

from thaw.model.backbone import Backbone
from thaw.model.classifier import Classifier

Fit = Callable[..., pl.Trainer]


class EmptyOnMeta(TorchFunctionMode):
    """Weights take no memory and no time to initialise, while RegNet and Swin can still compute with real numbers."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        options = dict(kwargs or {})
        if func is torch.empty:
            options["device"] = "meta"
        return func(*args, **options)


@pytest.fixture(scope="session")
def empty_on_meta() -> type[TorchFunctionMode]:
    return EmptyOnMeta


@pytest.fixture
def fit() -> Fit:
    """Train a classifier on images and labels in their given order, on the CPU; returns the Trainer."""

    def fit(
        model: Classifier,
        data: tuple[Tensor, Tensor],
        max_epochs: int = 1,
        batch_size: int = 8,
        ckpt_path: Path | None = None,
        callbacks: Sequence[pl.Callback] = (),
        precision: Any = "32-true",
        gradient_clip_val: float | None = None,
        accumulate_grad_batches: int = 1,
    ) -> pl.Trainer:
        trainer = pl.Trainer(
            max_epochs=max_epochs,
            accelerator="cpu",
            callbacks=list(callbacks),
            precision=precision,
            gradient_clip_val=gradient_clip_val,
            accumulate_grad_batches=accumulate_grad_batches,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            log_every_n_steps=1,
        )
        loader = DataLoader(TensorDataset(*data), batch_size)
        trainer.fit(model, loader, loader, ckpt_path=ckpt_path, weights_only=True)
        return trainer

    return fit


@pytest.fixture
def state() -> dict[str, Tensor]:
    """What torchvision's own SqueezeNet holds, head included."""
    return dict(torchvision.models.get_model("squeezenet1_1", weights=None).state_dict())


@pytest.fixture
def backbone() -> Backbone:
    return Backbone("squeezenet1_1", 64)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder where torchvision looks for downloaded weights."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder
