"""What is kept of a training: best.ckpt and last.ckpt."""

import io
import logging
import math
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, Checkpoint, ModelCheckpoint, WeightAveraging
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor

from thaw.model.tensor_files import read_tensors
from thaw.writing import replacing

log = logging.getLogger(__name__)


class WholeFileIO(TorchCheckpointIO):
    """Writes a checkpoint whole or not at all.

    Lightning writes to the system's temporary folder and moves the file. From one file system to another that is a
    copy, and one that is broken off leaves half a checkpoint in place of the last good one.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write the checkpoint."""
        content = io.BytesIO()  # torch.save's own writer does not say why the system refuses
        torch.save(checkpoint, content)
        with replacing(Path(path)) as draft:
            draft.write_bytes(content.getbuffer())


class BestCheckpoint(ModelCheckpoint):
    """`best.ckpt`, written after each validation that is the best so far; weights only, as no run resumes from it.

    Args:
        folder: Where to write.
        monitor: Metric that decides.
        ties: Which of equally good epochs is kept: first or last.
        mode: `max` or `min`, whichever is better of that metric.
    """

    def __init__(self, folder: Path, monitor: str, ties: str, mode: str = "max") -> None:
        super().__init__(
            str(folder),
            "best",
            monitor=monitor,
            mode=mode,
            auto_insert_metric_name=False,
            save_on_train_epoch_end=False,
            enable_version_counter=False,
        )
        self.ties = ties

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave the optimizer's state out, but beside averaged weights: only with it Lightning writes the average."""
        super().setup(trainer, pl_module, stage)
        callbacks: list[Callback] = getattr(trainer, "callbacks")  # noqa: B009 - Lightning does not type it
        self.save_weights_only = not any(isinstance(callback, WeightAveraging) for callback in callbacks)

    @property
    def state_key(self) -> str:
        """The name of its state in a checkpoint, which is to be found under other options too."""
        return type(self).__name__

    def check_monitor_top_k(self, trainer: Trainer, current: Tensor | None = None) -> bool:
        """True if the current value deserves the file."""
        if super().check_monitor_top_k(trainer, current):
            return True
        return self.ties == "last" and current is not None and bool(current == self.kth_value)

    @property
    def path(self) -> Path:
        """The file."""
        assert self.dirpath is not None
        return Path(self.dirpath, "best.ckpt")

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Forget the best so far if its file is gone, most often overwritten by an epoch that `last.ckpt` precedes.

        That epoch may come out otherwise this time, so the next validation is the best so far. Where it comes out the
        same, it is the best again.
        """
        states, at = checkpoint["callbacks"], checkpoint["epoch"]
        epoch = read_tensors(self.path)["epoch"] if self.path.exists() else math.inf
        if epoch > at and states.get(self.state_key, {}).get("best_model_path"):
            del states[self.state_key]
            if trainer.is_global_zero:
                fact = f"of epoch {epoch + 1}" if self.path.exists() else "missing"
                log.warning(
                    f"{self.path} is {fact}, and last.ckpt of epoch {at + 1}: the best is chosen anew, among epoch "
                    f"{at + 2} and later ones."
                )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the best so far, also where the run has been moved: Lightning would forget its score."""
        path = str(self.path)
        paths = {name: path for name in ("best_model_path", "kth_best_model_path") if state_dict[name]}
        scores = dict(zip([path], state_dict["best_k_models"].values(), strict=False))  # of one, or none yet
        super().load_state_dict({**state_dict, **paths, "dirpath": self.dirpath, "best_k_models": scores})


class LastCheckpoint(Checkpoint):
    """`last.ckpt`, written at the end of an epoch if the last writing is some seconds ago, and of the last epoch.

    Writing a large frozen backbone after each epoch can take longer than training its head.

    Attributes:
        epochs_saved: Number of finished epochs that can be resumed from.
    """

    def __init__(self, folder: Path, seconds: float) -> None:
        super().__init__()
        self.path = folder / "last.ckpt"
        self.seconds = seconds
        self.written_at = 0.0
        self.epochs_saved = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self.written_at = time.monotonic()
        self.epochs_saved = trainer.current_epoch

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write if it is time."""
        is_last_epoch = trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs
        is_time = trainer.strategy.broadcast(time.monotonic() - self.written_at >= self.seconds)
        if is_last_epoch or is_time:
            trainer.save_checkpoint(self.path)
            self.written_at = time.monotonic()
            self.epochs_saved = trainer.current_epoch + 1
