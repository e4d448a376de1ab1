"""The LightningModule: features, head, loss, metrics and optimizer; it applies the strategy and the schedule."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self, cast

import torch
import torch.distributed as dist
import torch.nn.functional as F
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torchmetrics import Metric

from thaw.config import AugmentConfig, BackboneConfig, HeadConfig, OptimizerConfig, ScheduleConfig, StrategyConfig
from thaw.data.sampling import Batch
from thaw.data.transforms import EvaluationTransform, mixing_transform
from thaw.errors import ThawError
from thaw.model.backbone import Backbone
from thaw.model.head import make_head
from thaw.model.metrics import ClassMetrics
from thaw.model.optimizer import make_optimizer, named_rates, set_rates
from thaw.model.own import OwnLoss, OwnMetrics
from thaw.model.schedule import pace_at
from thaw.model.strategy import ever_trainable, rate_factors, rate_groups
from thaw.model.tensor_files import FORMAT, expecting_own, read_about, read_tensors, require_finite
from thaw.model.weights import default_transform
from thaw.seeding import reseed


def weight_in_step(trainer: Trainer, batch_idx: int) -> float:
    """1, but more for the last batches of an epoch where they are too few: Lightning divides by the full number."""
    number = trainer.accumulate_grad_batches
    left = int(trainer.num_training_batches) - batch_idx // number * number
    return 1.0 if left >= number else number / left


class Classifier(LightningModule):
    """A torchvision backbone with a new linear head, trained by a fine-tuning strategy.

    Attributes:
        backbone: Normalised images (B, 3, H, W) -> features (B, F).
        head: Features (B, F) -> logits (B, K).
        classes: Names of the K classes, by label.
        transform: The evaluation transform; its normalisation is the first step of `forward`.
        strategy: What is frozen and how fast the rest learns in each epoch; None leaves it to `freeze_to`.
        own_loss: What training minimises in place of cross-entropy.
        own_metrics: Further metrics of the validation.
    """

    mean: Tensor
    std: Tensor
    class_weights: Tensor | None

    def __init__(
        self,
        backbone: str,
        classes: Sequence[str],
        transform: EvaluationTransform | None = None,
        head: HeadConfig | None = None,
        strategy: StrategyConfig | None = None,
        optimizer: OptimizerConfig | None = None,
        schedule: ScheduleConfig | None = None,
        augment: AugmentConfig | None = None,
        class_weights: Tensor | None = None,
        seed: int = 0,
        own_loss: Callable[[Tensor, Tensor], Any] | None = None,
        own_metrics: Mapping[str, Metric] | None = None,
    ) -> None:
        super().__init__()
        BackboneConfig(backbone)  # refuses what is not the name of one
        self.transform = transform or default_transform(backbone)
        self.backbone = Backbone(backbone, self.transform.crop)
        self.classes = tuple(classes)
        self.head_options = head or HeadConfig()
        self.head = make_head(self.head_options, self.backbone.num_features, len(classes))
        self.strategy = strategy
        self._is_frozen_by_hand = False
        self.optimizer_options = optimizer or OptimizerConfig()
        self.schedule = schedule or ScheduleConfig()
        self.augment = augment or AugmentConfig()
        self.mix = mixing_transform(self.augment, len(classes))
        self.seed = seed
        self.register_buffer("class_weights", class_weights, persistent=False)
        self.register_buffer("mean", 255 * torch.tensor(self.transform.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(self.transform.std).view(3, 1, 1), persistent=False)
        self.own_loss = None if own_loss is None else OwnLoss(own_loss)
        self.own_metrics = OwnMetrics(own_metrics)
        self.train_metrics, self.val_metrics = ClassMetrics(len(classes)), ClassMetrics(len(classes))

    # ---- what it computes

    def forward(self, batch: Tensor) -> Tensor:
        """Logits (B, K), at least float32, of uint8 images (B, 3, H, W) or of stored features (B, F).

        Raises:
            ThawError: It is neither.
        """
        if batch.ndim not in (2, 4):
            raise ThawError(f"Images must be in batches (B, 3, H, W), features (B, F), got {tuple(batch.shape)}.")
        features = self.extract(self.normalize(batch)) if batch.ndim == 4 else batch
        return self.classify(features)

    def normalize(self, images: Tensor) -> Tensor:
        """Standardised float images of uint8 ones (B, 3, H, W), channels-last: convolutions are faster at it.

        Raises:
            ThawError: They are not uint8: floats from 0 to 1 would all be black.
        """
        if images.dtype != torch.uint8:
            raise ThawError(f"Images must be uint8, from 0 to 255, got {images.dtype}.")
        return images.to(memory_format=torch.channels_last).sub(self.mean).div_(self.std)

    def extract(self, images: Tensor) -> Tensor:
        """Features (B, F) of normalised images (B, 3, H, W)."""
        return cast(Tensor, self.backbone(images))

    @torch.no_grad()
    def extract_frozen(self, images: Tensor) -> Tensor:
        """Features (B, F) of uint8 images (B, 3, H, W) as a frozen backbone gives them, at the Trainer's precision."""
        self.to(self.trainer.strategy.root_device)  # from where Lightning takes it after a fit
        self.backbone.eval()
        with self.trainer.precision_plugin.forward_context():
            features = self.extract(self.normalize(images.to(self.device)))
        self.train(self.training)
        return features

    def classify(self, features: Tensor) -> Tensor:
        """Logits (B, K), at least float32, of features (B, F); the head has its own precision under mixed, too."""
        precision = next(self.head.parameters()).dtype
        with torch.autocast(features.device.type, enabled=False):
            logits = cast(Tensor, self.head(features.to(precision)))
        return logits.to(torch.promote_types(precision, torch.float32))

    # ---- what is frozen

    def freeze_to(self, stage: int) -> Self:
        """Freeze the first `stage` stages of the backbone, gradients, BatchNorm and dropout alike; thaw the rest.

        For a training that is without a strategy, which says itself what is frozen in each epoch.

        Raises:
            ThawError: There are not so many.
        """
        if not 0 <= stage <= len(self.backbone.stages):
            raise ThawError(f"freeze_to takes from 0 to {len(self.backbone.stages)} stages, got {stage}.")
        self._is_frozen_by_hand = True
        return self._set_frozen([index < stage for index in range(len(self.backbone.stages))])

    def freeze(self) -> Self:
        """Freeze the whole backbone; the head learns."""
        return self.freeze_to(len(self.backbone.stages))

    def unfreeze(self) -> Self:
        """Thaw the whole backbone."""
        return self.freeze_to(0)

    def train(self, mode: bool = True) -> Self:
        """Training mode for everything but the frozen stages, which stay in evaluation mode."""
        super().train(mode)
        for stage in self.backbone.stages:
            if mode and stage.is_frozen:
                for module in stage.modules:
                    module.eval()
        return self

    def on_train_epoch_start(self) -> None:
        """Freeze and thaw as the strategy has it for this epoch."""
        if self.strategy is not None:
            frozen = [factor == 0 for factor in self._rate_factors()[:-1]]
            if frozen != [stage.is_frozen for stage in self.backbone.stages]:
                self._set_frozen(frozen)

    def _set_frozen(self, frozen: Sequence[bool]) -> Self:
        for stage, freeze in zip(self.backbone.stages, frozen, strict=True):
            for parameter in stage.parameters():
                parameter.requires_grad_(not freeze)
        return self.train(self.training)

    # ---- how fast each stage learns

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """A parameter group for the stages and the head as far as they always learn at one rate; they never change.

        Kernels decay, in a group of their own: parameters of two or more dimensions that torchvision calls weights.
        ViT's class token and position embedding, ConvNeXt's layer scales, Swin's tables and temperatures are none.
        """
        names = {parameter: name for name, parameter in self.named_parameters()}
        kernels = {parameter for parameter, name in names.items() if name.endswith("weight") and parameter.ndim >= 2}
        parameters = [*(stage.parameters() for stage in self.backbone.stages), self.head.parameters()]
        parts = [{names[parameter]: parameter for parameter in part} for part in parameters]
        tied = rate_groups(self.strategy, len(parts) - 1) if self.strategy else [list(range(len(parts)))]
        # Lightning refuses to clip the gradients of a fused optimizer at mixed precision. With a gradient scaler, a
        # first step that overflows leaves in a fused SGD, as momentum, whatever lay in the memory.
        trainer = self._trainer
        precision = "32-true" if trainer is None else str(trainer.precision)
        is_clipped = trainer is not None and trainer.gradient_clip_val and "mixed" in precision
        fused = precision != "16-mixed" and not is_clipped
        return make_optimizer(self.optimizer_options, parts, tied, kernels, fused)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Set rates, momentum and generators as functions of the position: a resumed run goes on exactly.

        The rate of a stage is the optimizer's x the strategy's factor x the schedule's.
        """
        reseed(self.seed, self.current_epoch, batch_idx, self.global_rank)
        epoch = self.current_epoch + batch_idx / float(self.trainer.num_training_batches)
        num_epochs, head_epochs = cast(int, self.trainer.max_epochs), self.strategy.head_epochs if self.strategy else 0
        pace = pace_at(self.schedule, epoch, num_epochs, head_epochs)
        factors = self._rate_factors()
        set_rates(self._optimizer(), self.optimizer_options, factors, pace, self.schedule.low_momentum)

    def _rate_factors(self) -> list[float]:
        """The strategy's factor in this epoch for each stage, then for the head; 0 means frozen."""
        if self.strategy is None:
            return [1.0] * (len(self.backbone.stages) + 1)
        return rate_factors(self.strategy, self.current_epoch, len(self.backbone.stages))

    def rates(self) -> dict[str, float]:
        """Learning rate of the head and of every stage, by metric name."""
        return named_rates(self._optimizer())

    def _optimizer(self) -> torch.optim.Optimizer:
        return cast(torch.optim.Optimizer, self.optimizers(use_pl_optimizer=False))

    # ---- a training, step by step

    def setup(self, stage: str) -> None:
        """Freeze what never learns before DDP looks for the weights that have gradients to share.

        On a GPU also lay the weights out as the images are: cuDNN would do so at each step. A CPU gains nothing.

        Raises:
            ThawError: The Trainer does not know for how many epochs it trains, and so the schedule does not either; or
                stages were frozen by hand that a strategy would thaw.
        """
        if stage == "fit" and self.strategy is not None and self._is_frozen_by_hand:
            raise ThawError(
                f"The strategy {self.strategy.name!r} says what is frozen in each epoch, and would undo what was set "
                "by hand: make the Classifier without a strategy, or set strategy.trainable_stages."
            )
        if stage == "fit" and (self.trainer.max_epochs or 0) < 0:
            raise ThawError("The learning-rate schedule runs over epochs: give the Trainer max_epochs.")
        self.trainer.precision_plugin.convert_module(self)  # Lightning does so after a checkpoint was read: rounded
        device = self.trainer.strategy.root_device
        self.own_metrics.to(device)
        if self.own_loss is not None:
            self.own_loss.to(device)
        if device.type == "cuda":
            self.backbone.to(memory_format=torch.channels_last)
        if self.trainer.world_size > 1:
            self.backbone.share_statistics(device)
        num_epochs = self.trainer.max_epochs or 0
        if stage == "fit" and self.strategy is not None and num_epochs > 0:
            learns = ever_trainable(self.strategy, num_epochs, len(self.backbone.stages))
            self._set_frozen([not any_epoch for any_epoch in learns[:-1]])

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of one batch of images or features (B, …) and labels (B,)."""
        inputs, labels = batch
        inputs, targets = inputs[: len(labels)], labels  # an image without label only fills the step
        if inputs.ndim == 4:
            inputs = self.normalize(inputs)
            if self.mix is not None and len(labels):
                inputs, targets = self.mix(inputs, labels)
            inputs = self.extract(inputs)
        logits = self.classify(inputs)
        loss, num_images = self.loss(logits, targets)
        most = targets if targets.ndim == 1 else targets.argmax(dim=1)  # of a mixed image, the class with most of it
        self.train_metrics.update(loss.detach() * num_images, num_images, logits.detach(), most)
        if self.trainer.is_last_batch:
            self._log_metrics("train", self.train_metrics)
        return loss * weight_in_step(self.trainer, batch_idx)

    def loss(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor | int]:
        """Mean loss of a training step's images, and their number; a subclass may have another one.

        With class weights torch's mean is over these, so that they cancel in part where a batch has few classes. Of
        several processes, each gives its own images' share in the mean over all, times the number of processes: DDP
        takes the mean of the gradients, and processes may differ by an image.
        """
        smoothing, is_alone = self.augment.label_smoothing, self.trainer.world_size == 1
        weights = None if self.class_weights is None else self.class_weights.to(logits.dtype)
        if self.own_loss is not None:
            mean, weights = self.own_loss(logits, targets), None
            if is_alone:
                return mean, len(targets)
            total = mean * len(targets)
        elif is_alone:
            return F.cross_entropy(logits, targets, weights, label_smoothing=smoothing), len(targets)
        else:
            total = F.cross_entropy(logits, targets, weights, reduction="sum", label_smoothing=smoothing)
        num_images = total.new_full((), len(targets))
        weight = num_images if weights is None or targets.ndim == 2 else weights[targets].sum()
        counts = torch.stack([weight, num_images])
        dist.all_reduce(counts)  # Lightning's `reduce` has the processes wait for each other first
        return total * self.trainer.world_size / counts[0], counts[1].int()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Count one batch into the validation metrics."""
        inputs, labels = batch
        logits = self(inputs)[: len(labels)]
        self.val_metrics.update(F.cross_entropy(logits, labels, reduction="sum"), len(labels), logits, labels)
        self.own_metrics.update(logits, labels)

    def on_validation_epoch_end(self) -> None:
        """Log the epoch's validation figures."""
        self._log_metrics("val", self.val_metrics)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Count one batch, as in validation."""
        self.validation_step(batch, batch_idx)

    def on_test_epoch_end(self) -> None:
        """Log the figures of all batches."""
        self._log_metrics("test", self.val_metrics)

    def _log_metrics(self, split: str, metrics: ClassMetrics) -> None:
        """Log the epoch's figures over all processes, and reset the counts."""
        own = {} if split == "train" else self.own_metrics.compute()
        values = {f"{split}/{name}": value for name, value in (metrics.compute() | own).items()}
        self.log_dict(values, on_step=False, on_epoch=True, batch_size=1, sync_dist=True)
        metrics.reset()

    def predict_step(self, batch: Batch, batch_idx: int) -> tuple[Tensor, Tensor]:
        """Logits (B, K) and labels (B,) of one batch, on the CPU."""
        inputs, labels = batch
        return self(inputs).cpu(), labels.cpu().clone()  # a loader process's own tensor holds an open file

    # ---- what a checkpoint holds beside the tensors

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what `load_from_checkpoint` needs, as plain Python."""
        checkpoint["thaw"] = {
            "format": FORMAT,
            "backbone": self.backbone.name,
            "classes": list(self.classes),
            "transform": asdict(self.transform),
            "transform_input": bool(getattr(self.backbone.network, "transform_input", False)),
            "head": asdict(self.head_options),
            "optimizer": self.optimizer_options.name,
        }

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Path | str) -> Self:  # type: ignore[override]
        """The classifier that a checkpoint of ours holds, in evaluation mode; the checkpoint tells all arguments.

        Raises:
            ThawError: The file cannot be read, or is not a checkpoint of ours.
        """
        path = Path(checkpoint_path)
        checkpoint = read_tensors(path)
        if "thaw" not in checkpoint:
            raise ThawError(f"{path} is not a checkpoint of Thaw. Expected RUN/checkpoints/best.ckpt or last.ckpt.")
        with expecting_own(path):
            about = checkpoint["thaw"]
            classes, transform = read_about(about)
            model = cls(about["backbone"], classes, transform, HeadConfig(**about["head"]))
            if any(tensor.dtype == torch.float64 for tensor in checkpoint["state_dict"].values()):
                model.double()  # or the weights would be rounded
            model.load_state_dict(checkpoint["state_dict"])
            if about["transform_input"]:
                setattr(model.backbone.network, "transform_input", True)  # noqa: B010 - typed Tensor | Module
        require_finite(path, model.state_dict())
        return model.eval()
