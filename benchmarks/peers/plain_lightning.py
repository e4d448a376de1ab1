"""A plain, idiomatic LightningModule: batch 32, 2 workers, ImageFolder, float32 or bf16-mixed.

    python benchmarks/peers/plain_lightning.py DATA BACKBONE WEIGHTS frozen|finetune EPOCHS [PRECISION]

Prints what benchmarks/peers/tutorial.py prints.
"""

import sys

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader
from torchmetrics.classification import MulticlassAccuracy
from torchvision import datasets
from tutorial import TRANSFORMS, is_image, make_model


class Plain(pl.LightningModule):
    """Forward, loss, accuracy, SGD with a step schedule."""

    def __init__(self, backbone: str, weights: str, num_classes: int, frozen: bool) -> None:
        super().__init__()
        self.model, self.learning = make_model(backbone, weights, num_classes, frozen)
        self.accuracy = MulticlassAccuracy(num_classes, average="micro")

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        """Loss of one batch."""
        loss = F.cross_entropy(self.model(batch[0]), batch[1])
        self.log("train_loss", loss, on_epoch=True, on_step=False)
        return loss

    def validation_step(self, batch: list[torch.Tensor], batch_idx: int) -> None:
        """Accuracy of one batch."""
        logits = self.model(batch[0])
        self.accuracy(logits, batch[1])
        self.log("val_loss", F.cross_entropy(logits, batch[1]))
        self.log("val_acc", self.accuracy)

    def configure_optimizers(self) -> dict[str, object]:
        """SGD and StepLR."""
        optimizer = torch.optim.SGD(self.learning, lr=1e-2, momentum=0.9)
        return {"optimizer": optimizer, "lr_scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 7, 0.1)}


class Clock(pl.Callback):
    """Prints when epochs begin and end, and the accuracy."""

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print at the first."""
        if not trainer.current_epoch:
            print("start", flush=True)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print."""
        accuracy = float(trainer.callback_metrics["val_acc"])
        print(f"epoch {trainer.current_epoch + 1}: {accuracy:.4f}", flush=True)


def main() -> None:
    """Train and validate for some epochs."""
    root, backbone, weights, strategy, epochs, *rest = sys.argv[1:]
    sets = {
        split: datasets.ImageFolder(f"{root}/{split}", TRANSFORMS[split], is_valid_file=is_image)
        for split in TRANSFORMS
    }
    train, val = (
        DataLoader(sets[split], 32, shuffle=split == "train", num_workers=2, persistent_workers=True)
        for split in ("train", "val")
    )
    module = Plain(backbone, weights, len(sets["train"].classes), strategy == "frozen")
    trainer = pl.Trainer(
        max_epochs=int(epochs),
        precision=rest[0] if rest else "32-true",
        callbacks=[Clock()],
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=8,
        default_root_dir="/tmp/thaw_benchmark_lightning",
    )
    trainer.fit(module, train, val)


if __name__ == "__main__":
    main()
