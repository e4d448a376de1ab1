"""One line an epoch: on the screen, in metrics.csv and to the logger."""

import csv
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, cast

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor

from thaw.console import table_text
from thaw.model.classifier import Classifier
from thaw.model.strategy import rate_factors
from thaw.writing import naming, replacing

log = logging.getLogger(__name__)

METRICS = [f"{split}/{name}" for split in ("train", "val") for name in ("loss", "acc", "macro_f1")]
CHARTS = {
    "Training": {
        "loss": ["Multiline", ["train/loss", "val/loss"]],
        "accuracy": ["Multiline", ["train/acc", "val/acc"]],
        "learning rates": ["Multiline", ["lr/.*"]],
    }
}
"""What TensorBoard shows in one chart, under Custom Scalars."""


class EpochLog(Callback):
    """Prints a line after each epoch and appends it to `metrics.csv`.

    Args:
        path: Of `metrics.csv`.
        monitor: Metric that decides which epoch is the best: where it is the macro-F1, the lines have it too.

    Attributes:
        num_images: That this process has trained on and validated in the current epoch.
        starts: Of each epoch; with `end`, that of the training, in seconds on the clock.
    """

    def __init__(self, path: Path, monitor: str = "val/acc") -> None:
        super().__init__()
        self.path, self.monitor = path, monitor
        self.num_images = 0
        self.starts: list[float] = []
        self.end = 0.0
        self.validated = -1

    @property
    def times(self) -> list[float]:
        """Seconds of each epoch: train, validation, checkpoint."""
        return [b - a for a, b in pairwise([*self.starts, self.end])]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Drop what an interrupted run wrote after the checkpoint that is resumed; lay out TensorBoard's charts."""
        self._keep(trainer, trainer.current_epoch)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_custom_scalars(CHARTS)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the clock."""
        self.starts.append(time.perf_counter())
        self.num_images = 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the images."""
        self.num_images += len(batch[-1])

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count the images."""
        self.num_images += len(batch[-1])

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember which epoch was validated."""
        self.validated = trainer.current_epoch

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print and keep the epoch's line."""
        assert isinstance(pl_module, Classifier)
        seconds = time.perf_counter() - self.starts[-1]
        rates = pl_module.rates()
        learning = {name: rate for name, rate in rates.items() if rate}  # a frozen stage has none
        for logger in trainer.loggers:  # directly: `log_dict` takes as long as an epoch of a head on stored features
            logger.log_metrics({"time/epoch_seconds": seconds, **learning}, trainer.global_step)
        # On every process: Lightning gathers the metrics when they are asked for.
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items() if "/" in name} | rates
        if not trainer.is_global_zero:
            return
        # Of an epoch that was broken off or not validated Lightning keeps an earlier one's.
        is_new = {"train": trainer.is_last_batch, "val": self.validated == trainer.current_epoch}
        metrics = {name: value for name, value in metrics.items() if is_new.get(name.partition("/")[0], True)}
        row: dict[str, object] = {"epoch": trainer.current_epoch + 1, "seconds": round(seconds, 3)}
        own = list(pl_module.own_metrics.metrics)
        for name in (*METRICS, *(f"val/{name}" for name in own), *rates):
            row[name] = f"{metrics[name]:.6g}" if name in metrics else ""
        self._append(row)
        is_detail = seconds < 1 and trainer.current_epoch + 1 < cast(int, trainer.max_epochs)
        log.info(self._line(trainer, metrics, seconds, own), extra={"is_detail": True} if is_detail else None)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the clock for the last time."""
        self.end = time.perf_counter()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Drop what came after the checkpoint also where no epoch was left."""
        if not self.starts:
            progress: Any = trainer.fit_loop.epoch_progress.current
            self._keep(trainer, progress.processed)

    def _keep(self, trainer: Trainer, num_epochs: int) -> None:
        """Keep the rows of the first few epochs; without any, not the header of another network's stages either."""
        if trainer.is_global_zero and self.path.exists():
            lines = self.path.read_bytes().splitlines(keepends=True)[: num_epochs + 1 if num_epochs else 0]
            with replacing(self.path) as draft:
                draft.write_bytes(b"".join(lines))

    def _line(self, trainer: Trainer, metrics: dict[str, float], seconds: float, own: list[str]) -> str:
        width = len(str(trainer.max_epochs))
        parts = [f"epoch {trainer.current_epoch + 1:>{width}}/{trainer.max_epochs}"]
        for split in ("train", "val"):
            if f"{split}/acc" in metrics:
                parts.append(f"{split} loss {metrics[f'{split}/loss']:.4f} acc {metrics[f'{split}/acc']:.4f}")
        if self.monitor == "val/macro_f1" and self.monitor in metrics:
            parts[-1] += f" macro-F1 {metrics[self.monitor]:.4f}"
        parts[-1] += "".join(f" {name} {metrics[f'val/{name}']:.4f}" for name in own if f"val/{name}" in metrics)
        num_images = self.num_images * trainer.world_size  # which differ by one at most
        parts.append(f"{seconds:.1f} s, {num_images / seconds:.0f} images/s")
        stages = [value for name, value in metrics.items() if name.startswith("lr/stage") and value > 0]
        backbone = f", backbone {_range(stages)}" if stages else ""
        parts.append(f"lr head {metrics['lr/head']:.2g}{backbone}")
        return " | ".join(parts)

    def _append(self, row: Mapping[str, object]) -> None:
        is_new = not self.path.exists() or not self.path.stat().st_size
        with naming(self.path), self.path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(row))
            if is_new:
                writer.writeheader()
            writer.writerow(row)


def _range(rates: list[float]) -> str:
    low, high = min(rates), max(rates)
    return f"{high:.2g}" if low == high else f"{low:.2g} to {high:.2g}"


def stage_table(model: Classifier, num_epochs: int) -> str:
    """Each stage of the backbone, and the head: its layers, parameters, when it learns and at which rate.

    Stages that never learn, which are the first, share a line.
    """
    assert model.strategy is not None
    stages = model.backbone.stages
    names = {id(module): name for name, module in model.backbone.network.named_modules()}
    epochs = [rate_factors(model.strategy, epoch, len(stages)) for epoch in range(num_epochs)]
    num_frozen = next((n for n in range(len(stages)) if any(factors[n] for factors in epochs)), len(stages))
    groups = [range(num_frozen), *(range(n, n + 1) for n in range(num_frozen, len(stages)))]
    rows = []
    for group in filter(None, groups):
        layers = _span([names[id(module)] for n in group for module in stages[n].modules], " … ")
        parameters = chain.from_iterable(stages[n].parameters() for n in group)
        rows.append(
            [f"{_span(list(map(str, group)), ' to ')} {layers}", *_learning(model, parameters, epochs, group[0])]
        )
    rows.append(["head", *_learning(model, model.head.parameters(), epochs, -1)])
    return table_text(["stage", "parameters", "state", "lr"], rows)


def _learning(
    model: Classifier, parameters: Iterable[Tensor], epochs: Sequence[Sequence[float]], part: int
) -> tuple[str, str, str]:
    """Size, state and last rate of a part of the network.

    Args:
        model: The classifier.
        parameters: Those of the part.
        epochs: For each epoch, the strategy's factor of each stage and of the head.
        part: Number of the stage, or -1 for the head.
    """
    factors = [factors[part] for factors in epochs]
    first = next((epoch for epoch, factor in enumerate(factors) if factor), None)
    state = "frozen" if first is None else "trainable" if first == 0 else f"trainable from epoch {first + 1}"
    rate = f"{factors[-1] * model.optimizer_options.rate:.2g}" if factors[-1] else "0"
    return f"{sum(parameter.numel() for parameter in parameters):,}", state, rate


def _span(names: list[str], between: str) -> str:
    return names[0] if len(names) == 1 else f"{names[0]}{between}{names[-1]}"
