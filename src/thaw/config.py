"""Every option of Thaw: its name, type, unit, default and meaning, checked without importing torch.

The YAML files in `conf/` hold named presets, that is, only what differs from the defaults here.
"""

from collections.abc import Collection
from dataclasses import dataclass, field, fields, is_dataclass, replace
from math import inf
from typing import Any, TypeAlias

from thaw.backbone_names import BACKBONE_NAMES
from thaw.errors import ThawError, did_you_mean

IntOrStr: TypeAlias = int | str
NumberOrStr: TypeAlias = int | float | str

MAX_SIDE = 10_000
"""Pixels of an input; more is a slip of the keyboard, or in a checkpoint means harm."""
MAX_EPOCHS = 100_000
"""Rates and phases of all epochs are laid out before the first, which takes seconds for so many."""
MAX_STEPS = 10_000
"""Of a range test, which smooths all of its curve anew after each step."""
MAX_PROCESSES = 256
"""On a machine: each takes a hundred MB or more, and more processes than there are cores are of no use."""
MAX_VIEWS = 1000
"""Of an image, all of them kept: a training hardly has more epochs."""
OWN_FLAGS = {
    "accelerator": "trainer.accelerator", "devices": "trainer.devices", "num_nodes": "trainer.num_nodes",
    "strategy": "trainer.distribution", "precision": "trainer.precision", "max_epochs": "trainer.max_epochs",
    "gradient_clip_val": "trainer.gradient_clip", "accumulate_grad_batches": "trainer.accumulate",
    "check_val_every_n_epoch": "trainer.eval_every", "enable_progress_bar": "trainer.progress_bar",
    "callbacks": "trainer.callbacks", "logger": "logger=NAME", "default_root_dir": "hydra.run.dir",
    "fast_dev_run": "trainer=debug", "overfit_batches": "+trainer.extra.limit_train_batches",
    "enable_checkpointing": "Thaw's own choice", "plugins": "Thaw's own choice",
    "use_distributed_sampler": "Thaw's own choice", "reload_dataloaders_every_n_epochs": "Thaw's own choice",
}  # fmt: skip
"""Flags of Lightning's Trainer that `trainer.extra` is not for, and what takes their place."""
THAWING_PRESETS = ("boosted_head", "discriminative", "finetune", "gradual", "last_stages", "scratch")
"""Those of `conf/strategy/` by which the backbone learns."""


def _require(valid: bool, key: str, rule: str, value: object) -> None:
    """Raise the one sentence that every rejected value is answered with."""
    if not valid:
        raise ThawError(f"{key} must be {rule}, got {value!r}.")


def _require_choice(key: str, value: str, choices: Collection[str]) -> None:
    if value not in choices:
        raise ThawError(f"{key} must be one of {', '.join(choices)}, got {value!r}.{did_you_mean(value, choices)}")


def _is_int_in(value: object, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


@dataclass
class DatasetConfig:
    """Where the images lie, what their labels are, and how they are split and read."""

    name: str = "folder"
    """A data set that Thaw can fetch (hymenoptera, hotdog, canidae, pets), digits, folder for your own images, or
    stream for what `thaw pack` has made of them."""
    root: str = "data"
    """Folder that holds the named data set's folder; with name=folder, the folder of images itself; with name=stream,
    what they were packed to: a folder, or s3://…, gs://…, r2://…"""
    label_pattern: str | None = None
    """Regular expression with one group that finds the class in a file name: '^(.+)_[0-9]+[.]'. For flat folders."""
    csv: str | None = None
    """CSV file with the columns path, label and, if it fixes them, split; paths are relative to the file's folder. The
    file lies below the data's root; one that does not has its own folder for a root."""
    csv_path: str = "{path}"
    """How a line's path is made of its columns: 'train_images/{image_id}.jpg'."""
    csv_label: str = "label"
    """Column of the CSV file that holds the class."""
    exclude: str | None = None
    """CSV file with a column path of images to leave out, as `thaw check --fix` writes it. Paths in it are relative to
    the data's root, as its own may be."""
    classes: list[str] | None = None
    """Keep only these classes; null keeps all."""
    train_per_class: int | None = None
    """Keep only this many training images of each class, drawn by split_seed; null keeps all."""
    val_fraction: float = 0.2
    """Share of the training images that becomes the val split where the data has none; 0 validates on test."""
    test_fraction: float = 0.0
    """Share of all images that becomes the test split where the data has no splits at all."""
    split_seed: int = 0
    """Seed of every split; apart from `seed`, so that runs over several seeds see the same images."""
    num_folds: int | None = None
    """Number of cross-validation folds made of all images outside test; null for one split."""
    fold: int | None = None
    """Which fold, counted from 0, is the val split."""
    on_bad: str = "error"
    """What to do with files that cannot be read as images: error (naming all of them) or skip."""
    batch_size: int = 32
    """Images per step, shared equally among the processes: the same result on one as on several."""
    drop_last: bool = False
    """Leave out the last training batch of an epoch if it is incomplete."""
    balance: str = "none"
    """Weigh rare classes more: none, loss (weighted loss) or sampler (drawn more often)."""
    num_workers: IntOrStr = "auto"
    """Loader processes; auto is 0 for an epoch of less than a second of loading and, without a GPU, for images in
    memory, else one for each CPU core but one, at most 8. Images on the GPU need none."""
    cache: str = "auto"
    """Keep decoded images in memory: ram, device (on the GPU too, where crops are cut in whole batches; these are other
    random ones than the CPU's), none, or auto (ram if they fit in a quarter of the free memory, and then device if it
    is a GPU with room)."""
    image_size: int | None = None
    """Side of the square input in pixels; null takes what the backbone's weights were trained for."""
    resize: Any = None
    """Evaluation resize before the centre crop: of the shorter side, or [height, width] exactly, in pixels."""

    def __post_init__(self) -> None:
        choices = ("hymenoptera", "hotdog", "canidae", "pets", "digits", "folder", "stream")
        _require_choice("dataset.name", self.name, choices)
        _require("{" in self.csv_path, "dataset.csv_path", "made of columns in braces, such as '{path}'", self.csv_path)
        _require_choice("dataset.on_bad", self.on_bad, ("error", "skip"))
        _require_choice("dataset.balance", self.balance, ("none", "loss", "sampler"))
        _require_choice("dataset.cache", self.cache, ("auto", "ram", "device", "none"))
        _require(
            self.classes is None or len(self.classes) >= 2, "dataset.classes", "null or two at least", self.classes
        )
        for key in ("val_fraction", "test_fraction"):
            value = getattr(self, key)
            _require(0 <= value < 1, f"dataset.{key}", "in [0, 1)", value)
        _require(
            self.val_fraction + self.test_fraction < 1,
            "dataset.val_fraction + dataset.test_fraction",
            "below 1",
            self.val_fraction + self.test_fraction,
        )
        _require(self.batch_size >= 1, "dataset.batch_size", "at least 1", self.batch_size)
        _require(0 <= self.split_seed < 2**32, "dataset.split_seed", "in [0, 2**32)", self.split_seed)
        for key, low in (("train_per_class", 1), ("num_folds", 2), ("fold", 0)):
            value = getattr(self, key)
            _require(value is None or value >= low, f"dataset.{key}", f"null or at least {low}", value)
        _require(
            self.image_size is None or 8 <= self.image_size <= MAX_SIDE,
            "dataset.image_size",
            f"null or from 8 to {MAX_SIDE}",
            self.image_size,
        )
        _require(
            self.num_workers == "auto" or _is_int_in(self.num_workers, 0, MAX_PROCESSES),
            "dataset.num_workers",
            f"auto or a whole number from 0 to {MAX_PROCESSES}",
            self.num_workers,
        )
        sides = self.resize if isinstance(self.resize, list) and len(self.resize) == 2 else [self.resize]
        _require(
            self.resize is None or all(_is_int_in(side, 8, MAX_SIDE) for side in sides),
            "dataset.resize",
            f"null, pixels of the shorter side, or [height, width], from 8 to {MAX_SIDE}",
            self.resize,
        )
        _require(
            (self.fold is None) == (self.num_folds is None),
            "dataset.fold and dataset.num_folds",
            "given together",
            (self.fold, self.num_folds),
        )
        if self.fold is not None and self.num_folds is not None:
            _require(self.fold < self.num_folds, "dataset.fold", f"below dataset.num_folds={self.num_folds}", self.fold)
        _require(
            self.csv is None or self.label_pattern is None,
            "dataset.csv and dataset.label_pattern",
            "used one at a time",
            (self.csv, self.label_pattern),
        )
        _require(bool(self.root), "dataset.root", "a folder", self.root)
        if self.name == "stream":
            for key in ("label_pattern", "csv", "exclude"):
                _require(
                    getattr(self, key) is None,
                    f"dataset.{key}",
                    "null for dataset=stream, as `thaw pack` has it",
                    getattr(self, key),
                )


@dataclass
class BackboneConfig:
    """The network under the head and where its weights come from."""

    name: str = "resnet18"
    """Any classifier of torchvision.models."""
    weights: str | None = "default"
    """default, a torchvision weights name (IMAGENET1K_V1), a .pth or .safetensors file, a run's folder, or null."""

    def __post_init__(self) -> None:
        if self.name not in BACKBONE_NAMES:
            raise ThawError(
                f"backbone.name must be a torchvision classifier, got {self.name!r}."
                f"{did_you_mean(self.name, BACKBONE_NAMES)} `python train.py --help` lists them."
            )


@dataclass
class HeadConfig:
    """The new layer: (dropout of) pooled features, standardised or not, to one logit a class."""

    init: str = "auto"
    """probe (a logistic regression fitted to the features of the backbone as it is before training), default (PyTorch's
    Linear), xavier (uniform, zero bias), zeros, or weights (of the run in backbone.weights). auto is probe where the
    head alone learns, from pretrained weights whose features are stored, and default elsewhere."""
    dropout: float = 0.0
    """Probability that a feature is dropped in training."""
    standardize: bool = True
    """Normalise each feature by its running mean and variance, so that one learning rate suits every backbone."""

    def __post_init__(self) -> None:
        _require_choice("head.init", self.init, ("auto", "probe", "default", "xavier", "zeros", "weights"))
        _require(0 <= self.dropout < 1, "head.dropout", "in [0, 1)", self.dropout)


@dataclass
class AugmentConfig:
    """What happens to a training image, and to its label, before the network sees them."""

    policy: str = "default"
    """none (the evaluation transform), default (random crop and flip), or default with trivial, rand or color."""
    crop_scale: list[float] = field(default_factory=lambda: [0.08, 1.0])
    """Smallest and largest share of the image's area that the random crop takes."""
    crop_ratio: list[float] = field(default_factory=lambda: [3 / 4, 4 / 3])
    """Smallest and largest width over height of the random crop."""
    flip: float = 0.5
    """Probability of a horizontal mirror image."""
    vertical_flip: float = 0.0
    """Probability of a vertical mirror image, for images without an upright: satellite, microscope, product photos."""
    degrees: float = 0.0
    """Largest angle that an image is turned by, to either side, before it is cropped; what that lays bare is painted
    with the mean colour."""
    erasing: float = 0.0
    """Probability that a random rectangle is painted over with the mean colour."""
    mixup: float = 0.0
    """Strength (alpha of the Beta distribution) of mixup; 0 is off."""
    cutmix: float = 0.0
    """Strength (alpha of the Beta distribution) of CutMix; 0 is off. With mixup, each batch draws one of the two."""
    label_smoothing: float = 0.0
    """Share of each target that is spread evenly over all classes."""

    def __post_init__(self) -> None:
        _require_choice("augment.policy", self.policy, ("none", "default", "trivial", "rand", "color"))
        for key, high in (("crop_scale", 1.0), ("crop_ratio", 10.0)):
            value = getattr(self, key)
            valid = len(value) == 2 and 0 < value[0] <= value[1] <= high
            _require(valid, f"augment.{key}", f"two rising numbers in (0, {high:g}]", value)
        for key, highest in (("flip", 1), ("vertical_flip", 1), ("degrees", 180), ("erasing", 1)):
            value = getattr(self, key)
            _require(0 <= value <= highest, f"augment.{key}", f"in [0, {highest}]", value)
        for key in ("mixup", "cutmix"):
            value = getattr(self, key)
            _require(0 <= value < float("inf"), f"augment.{key}", "0 or a positive number", value)
        _require(0 <= self.label_smoothing < 1, "augment.label_smoothing", "in [0, 1)", self.label_smoothing)

    @property
    def mirrored_axes(self) -> list[tuple[int, ...]]:
        """Axes of images (…, H, W) along which each kind of mirror image that may be shown is flipped; fixed order."""
        across, down = self.flip > 0, self.vertical_flip > 0
        allowed = {(-1,): across, (-2,): down, (-2, -1): across and down}
        return [axes for axes in allowed if allowed[axes] and self.policy != "none"]

    @property
    def only_cuts(self) -> bool:
        """True if random crops and horizontal mirror images are all that happens to an image before it is mixed."""
        return self.policy == "default" and not (self.vertical_flip or self.degrees or self.erasing)


@dataclass
class OptimizerConfig:
    """How a gradient becomes a step."""

    name: str = "sgd"
    """sgd (with momentum) or adamw."""
    lr: NumberOrStr = 3e-3
    """Learning rate of the head; the strategy sets the other stages' as ratios to it. auto finds one by a range test
    before the training."""
    momentum: float = 0.9
    """Momentum of SGD, or AdamW's first beta."""
    nesterov: bool = False
    """Nesterov's momentum; SGD only."""
    weight_decay: float = 0.0
    """Weight decay of matrices and kernels; norms and biases have none."""

    def __post_init__(self) -> None:
        _require_choice("optimizer.name", self.name, ("sgd", "adamw"))
        number = isinstance(self.lr, int | float) and not isinstance(self.lr, bool) and 0 < self.lr < float("inf")
        _require(number or self.lr == "auto", "optimizer.lr", "auto or a positive number", self.lr)
        if number:
            self.lr = float(self.lr)
        _require(0 <= self.momentum < 1, "optimizer.momentum", "in [0, 1)", self.momentum)
        _require(0 <= self.weight_decay < float("inf"), "optimizer.weight_decay", "at least 0", self.weight_decay)
        _require(
            not self.nesterov or (self.name == "sgd" and self.momentum > 0),
            "optimizer.nesterov",
            "false unless optimizer is sgd with momentum",
            self.nesterov,
        )

    @property
    def rate(self) -> float:
        """`lr` as a number.

        Raises:
            ThawError: It is auto, and no range test has put a number in its place.
        """
        if isinstance(self.lr, str):
            raise ThawError(
                "optimizer.lr=auto is for train.py and thaw.train: a Classifier of your own needs a number."
            )
        return float(self.lr)


@dataclass
class FindLrConfig:
    """How the learning-rate range test of find_lr.py and optimizer.lr=auto is done."""

    num_steps: int = 100
    """Steps, each at a higher rate; small data sets are cycled."""
    lowest: float = 1e-6
    """optimizer.lr of the first step."""
    highest: float = 10.0
    """optimizer.lr of the last step; the test ends sooner where the loss diverges."""

    def __post_init__(self) -> None:
        _require(20 <= self.num_steps <= MAX_STEPS, "find_lr.num_steps", f"from 20 to {MAX_STEPS}", self.num_steps)
        _require(0 < self.lowest < float("inf"), "find_lr.lowest", "a positive number", self.lowest)
        _require(
            self.lowest < self.highest < float("inf"),
            "find_lr.highest",
            f"a number above find_lr.lowest={self.lowest:g}",
            self.highest,
        )


@dataclass
class ScheduleConfig:
    """How learning rate and momentum change over the epochs."""

    name: str = "cosine"
    """constant, step, one_cycle or cosine."""
    warmup_epochs: float = 0.0
    """Epochs over which the rate first rises linearly from 0."""
    step_epochs: int = 7
    """step: epochs between two drops."""
    step_factor: float = 0.1
    """step: what the rate is multiplied by at each drop."""
    peak_fraction: float = 0.25
    """one_cycle: share of the epochs after which the rate is highest."""
    start_factor: float = 0.1
    """one_cycle: first rate over the highest."""
    final_factor: float = 0.0
    """one_cycle and cosine: last rate over the highest."""
    low_momentum: float = 0.85
    """one_cycle: momentum where the rate is highest; it starts and ends at optimizer.momentum."""
    per_phase: bool = False
    """Run the schedule anew once the head-only epochs of the strategy are over."""

    def __post_init__(self) -> None:
        _require_choice("schedule.name", self.name, ("constant", "step", "one_cycle", "cosine"))
        _require(0 <= self.warmup_epochs < float("inf"), "schedule.warmup_epochs", "at least 0", self.warmup_epochs)
        _require(self.step_epochs >= 1, "schedule.step_epochs", "at least 1", self.step_epochs)
        _require(0 < self.peak_fraction < 1, "schedule.peak_fraction", "in (0, 1)", self.peak_fraction)
        for key in ("step_factor", "start_factor"):
            value = getattr(self, key)
            _require(0 < value <= 1, f"schedule.{key}", "in (0, 1]", value)
        _require(0 <= self.final_factor <= 1, "schedule.final_factor", "in [0, 1]", self.final_factor)
        _require(0 <= self.low_momentum < 1, "schedule.low_momentum", "in [0, 1)", self.low_momentum)


@dataclass
class StrategyConfig:
    """Which stages learn, when, and how fast compared with the head."""

    name: str = "frozen"
    """Name under which the strategy is reported."""
    backbone_factor: float = 0.0
    """Learning rate of the last backbone stage over the head's; 0 keeps the whole backbone frozen."""
    first_stage_factor: float = 1.0
    """Learning rate of the first stage over the last stage's; geometric in relative depth between them."""
    trainable_fraction: float = 1.0
    """Share of the backbone's depth, counted from the head, that learns; the rest stays frozen."""
    trainable_stages: int | None = None
    """Number of backbone stages, counted from the head, that learn; null leaves it to trainable_fraction."""
    head_epochs: int = 0
    """Epochs in which only the head learns, before the backbone joins."""
    unfreeze_epochs: int = 0
    """Epochs over which the backbone thaws, from its last stage to its first; 0 thaws all at once."""
    feature_views: IntOrStr = "mirror"
    """What the head sees of an image while the whole backbone is frozen: mirror (its centre crop and the
    mirror images that augment.flip and augment.vertical_flip allow), a number of random views drawn once, or fresh
    (random views drawn anew in each epoch, at the price of a forward pass)."""
    joint_factor: float = 1.0
    """What every rate is multiplied by, the head's too, once the head-only epochs are over."""
    from_scratch: bool = False
    """Start from random weights, whatever backbone.weights says."""

    def __post_init__(self) -> None:
        _require(
            0 <= self.backbone_factor < float("inf"), "strategy.backbone_factor", "at least 0", self.backbone_factor
        )
        if self.name in THAWING_PRESETS and self.backbone_factor == 0:
            raise ThawError(
                f"strategy.name={self.name} with strategy.backbone_factor=0 would train frozen, for a name brings no "
                f"numbers. Type strategy={self.name}; in Python, give those of conf/strategy/{self.name}.yaml, e.g. "
                f"StrategyConfig({self.name!r}, backbone_factor=1.0)."
            )
        for key in ("first_stage_factor", "trainable_fraction", "joint_factor"):
            value = getattr(self, key)
            _require(0 < value <= 1, f"strategy.{key}", "in (0, 1]", value)
        for key in ("head_epochs", "unfreeze_epochs"):
            value = getattr(self, key)
            _require(value >= 0, f"strategy.{key}", "at least 0", value)
        _require(
            self.feature_views in ("mirror", "fresh") or _is_int_in(self.feature_views, 1, MAX_VIEWS),
            "strategy.feature_views",
            f"mirror, fresh or a whole number from 1 to {MAX_VIEWS}",
            self.feature_views,
        )
        _require(
            self.trainable_stages is None or self.trainable_stages >= 1,
            "strategy.trainable_stages",
            "null or at least 1",
            self.trainable_stages,
        )


@dataclass
class TrainerConfig:
    """How long and on what to train, what to keep and when to stop."""

    max_epochs: int = 25
    """Passes over the training images; 0 leaves it at head.init=probe."""
    accelerator: str = "auto"
    """auto, cpu, gpu, or another accelerator of Lightning's."""
    devices: IntOrStr = "auto"
    """Devices of each machine, a process each; auto is one, or all GPUs if the distribution is not auto."""
    num_nodes: int = 1
    """Number of machines; on several, torchrun or SLURM starts the processes."""
    distribution: str = "auto"
    """Lightning's distribution strategy: auto, ddp, …"""
    precision: str = "auto"
    """auto (bf16 where the device is fast at it), 32, bf16-mixed, 16-mixed, bf16-true or 64."""
    monitor: str = "val/acc"
    """Which metric chooses the best epoch: val/acc, val/loss or val/macro_f1."""
    ties: str = "first"
    """Which of several equally good epochs is the best one: first or last."""
    eval_every: int = 1
    """Epochs between two validations."""
    eval_from: int = 1
    """First epoch, counted from 1, that is validated."""
    early_stopping: int | None = None
    """Validations without improvement, counted anew in each phase of the strategy, before the end; null never stops."""
    gradient_clip: float | None = None
    """Largest norm of the gradient; null does not clip."""
    accumulate: int = 1
    """Batches whose gradients are averaged to one step; the last ones of an epoch may be fewer."""
    ema_decay: float | None = None
    """Decay per step of an exponential moving average of the weights that is evaluated and kept; null is off."""
    compile: bool = False
    """Compile the backbone with torch.compile; costs seconds of warm-up."""
    checkpoint_seconds: float = 30.0
    """Least time between two writes of last.ckpt; it is always written at the end."""
    progress_bar: bool = True
    """Show a progress bar where the output is a terminal."""
    callbacks: dict[str, Any] = field(default_factory=dict)
    """Further callbacks of lightning.pytorch by names of one's own, each with `_target_`, its class, and arguments."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Any other flag of lightning.pytorch.Trainer, passed on as it is."""

    def __post_init__(self) -> None:
        _require(0 <= self.max_epochs <= MAX_EPOCHS, "trainer.max_epochs", f"from 0 to {MAX_EPOCHS}", self.max_epochs)
        _require(self.num_nodes >= 1, "trainer.num_nodes", "at least 1", self.num_nodes)
        _require(
            self.devices == "auto" or _is_int_in(self.devices, 1, MAX_PROCESSES),
            "trainer.devices",
            f"auto or a whole number from 1 to {MAX_PROCESSES}",
            self.devices,
        )
        precisions = ("auto", "32", "32-true", "64", "64-true", "bf16", "bf16-mixed", "bf16-true", "16-mixed")
        _require_choice("trainer.precision", self.precision, precisions)
        _require_choice("trainer.monitor", self.monitor, ("val/acc", "val/loss", "val/macro_f1"))
        for flag in self.extra.keys() & OWN_FLAGS.keys():
            rule = f"left out ({OWN_FLAGS[flag]} takes its place)"
            _require(False, f"trainer.extra.{flag}", rule, self.extra[flag])
        for flag in ("limit_train_batches", "limit_val_batches"):
            rule = "more than 0 (an epoch is chosen by its validation)"
            _require(self.extra.get(flag) != 0, f"trainer.extra.{flag}", rule, 0)
        _require_choice("trainer.ties", self.ties, ("first", "last"))
        for key in ("eval_every", "eval_from", "accumulate"):
            value = getattr(self, key)
            _require(value >= 1, f"trainer.{key}", "at least 1", value)
        _require(
            self.eval_from <= max(self.max_epochs, 1),
            "trainer.eval_from",
            f"at most trainer.max_epochs={self.max_epochs}",
            self.eval_from,
        )
        _require(
            self.early_stopping is None or self.early_stopping >= 1,
            "trainer.early_stopping",
            "null or at least 1",
            self.early_stopping,
        )
        _require(
            self.gradient_clip is None or 0 < self.gradient_clip < float("inf"),
            "trainer.gradient_clip",
            "null or a positive number",
            self.gradient_clip,
        )
        _require(
            self.ema_decay is None or 0 < self.ema_decay < 1, "trainer.ema_decay", "null or in (0, 1)", self.ema_decay
        )
        _require(self.checkpoint_seconds >= 0, "trainer.checkpoint_seconds", "at least 0", self.checkpoint_seconds)


@dataclass
class LoggerConfig:
    """Where the curves go; metrics.csv is always written."""

    name: str = "tensorboard"
    """tensorboard, csv (nothing beside metrics.csv), wandb or mlflow (both need their package)."""
    project: str = "thaw"
    """Project of wandb, or experiment of mlflow."""
    uri: str | None = None
    """Address of the mlflow server; null keeps a database in the run, `mlflow.db`."""

    def __post_init__(self) -> None:
        _require_choice("logger.name", self.name, ("tensorboard", "csv", "wandb", "mlflow"))


@dataclass
class SweepConfig:
    """What the jobs of a sweep (`-m`) have in common."""

    resume: str | None = None
    """Folder of an interrupted sweep: the same command with it skips the finished jobs and goes on with the others."""
    prune: bool = False
    """Stop a trial of a search whose best val/acc so far is below the median of the others' at the same epoch."""
    prune_after_trials: int = 5
    """Trials that run to their end before any is stopped."""
    prune_after_epochs: int = 3
    """Epochs that each trial is given."""

    def __post_init__(self) -> None:
        for key in ("prune_after_trials", "prune_after_epochs"):
            value = getattr(self, key)
            _require(value >= 0, f"sweep.{key}", "at least 0", value)


@dataclass
class Config:
    """One training, complete."""

    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    """Where the images lie and how they are read."""
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    """The network under the head."""
    head: HeadConfig = field(default_factory=HeadConfig)
    """The new layer."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """Training transforms."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """Optimizer."""
    find_lr: FindLrConfig = field(default_factory=FindLrConfig)
    """Learning-rate range test."""
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    """Learning-rate schedule."""
    strategy: StrategyConfig = field(default_factory=StrategyConfig)
    """Fine-tuning strategy."""
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    """Duration, device, checkpoints."""
    logger: LoggerConfig = field(default_factory=LoggerConfig)
    """Where the curves go."""
    sweep: SweepConfig = field(default_factory=SweepConfig)
    """Resuming and pruning of sweeps."""
    features: str = "auto"
    """auto runs epochs with a frozen backbone on stored features; off runs them on augmented images."""
    seed: int = 0
    """Seed of the shuffle, the augmentation and the new weights."""
    figures: bool = True
    """Draw what is trained on and what comes of it; without, a short job of a sweep takes half as long, and
    `thaw evaluate RUN` draws the latter when it is wanted."""
    report: bool = False
    """Write report.html at the end, as `thaw report RUN` does."""
    resume: str | None = None
    """Folder of an interrupted run to continue, with its own options."""

    def __post_init__(self) -> None:
        for group in fields(self):
            for key, value in vars(getattr(self, group.name)).items() if is_dataclass(group.type) else ():
                small = not isinstance(value, int) or value < 2**32
                _require(small, f"{group.name}.{key}", "a whole number below 2**32", value)
        _require(0 <= self.seed < 2**32, "seed", "in [0, 2**32)", self.seed)
        _require_choice("features", self.features, ("auto", "off"))
        if self.dataset.cache == "device" and not self.augment.only_cuts:
            raise ThawError(
                "dataset.cache=device cuts images on the GPU, mirrors them horizontally and does nothing else to them: "
                "use augment=default without vertical_flip, degrees and erasing, or dataset.cache=ram."
            )
        if isinstance(self.trainer.devices, int) and self.dataset.batch_size % self.trainer.devices:
            raise ThawError(
                f"dataset.batch_size={self.dataset.batch_size} cannot be shared equally among trainer.devices="
                f"{self.trainer.devices}: it must be a multiple of their number."
            )
        if self.trainer.max_epochs == 0 and not self.starts_from_probe:
            raise ThawError("trainer.max_epochs=0 trains nothing: set head.init=probe, or raise it.")
        if self.head.init == "probe" and not self.has_probe:
            raise ThawError(
                "head.init=probe is fitted to the features of pretrained weights: it needs features=auto, "
                "backbone.weights, and a strategy that does not start from scratch."
            )
        if self.strategy.head_epochs >= self.trainer.max_epochs and self.strategy.backbone_factor > 0:
            raise ThawError(
                f"strategy.head_epochs={self.strategy.head_epochs} leaves no epoch for the backbone: "
                f"trainer.max_epochs is {self.trainer.max_epochs}. Raise trainer.max_epochs, or use strategy=frozen."
            )
        _require(
            self.schedule.warmup_epochs < (shortest := self._shortest_schedule()),
            "schedule.warmup_epochs",
            f"below {shortest:g}, the epochs that the schedule runs for",
            self.schedule.warmup_epochs,
        )
        if self.head.init == "weights" and (self.backbone.weights in (None, "default") or self.strategy.from_scratch):
            raise ThawError("head.init=weights takes the head of an earlier run: set backbone.weights=RUN_FOLDER.")

    @property
    def has_probe(self) -> bool:
        """True if a probe can be fitted: to stored features of pretrained weights."""
        return self.features != "off" and not self.strategy.from_scratch and self.backbone.weights is not None

    @property
    def starts_from_probe(self) -> bool:
        """True if the head begins as the probe."""
        is_frozen = self.strategy.backbone_factor == 0
        return self.head.init == "probe" or (self.head.init == "auto" and is_frozen and self.has_probe)

    def _shortest_schedule(self) -> float:
        """Epochs that the schedule runs for; of the shorter phase where it begins anew after the head-only epochs."""
        head_epochs, max_epochs = self.strategy.head_epochs, self.trainer.max_epochs
        phases = [head_epochs, max_epochs - head_epochs] if self.schedule.per_phase else [max_epochs]
        return min((epochs for epochs in phases if epochs > 0), default=inf)


def recheck(config: Config) -> Config:
    """The same options, checked as they are now: they may have been changed since they were made.

    Raises:
        ThawError: They are not valid, or do not go together, or one that there is not has been set.
    """
    groups = {group.name: replace(getattr(config, group.name)) for group in fields(config) if is_dataclass(group.type)}
    for prefix, options in [("", config), *((f"{name}.", getattr(config, name)) for name in groups)]:
        known = [option.name for option in fields(options)]
        for name in vars(options):
            if name not in known:  # Python lets it be set, and `replace` drops it
                raise ThawError(f"{prefix}{name} is not an option.{did_you_mean(name, known)}")
    return replace(config, **groups)


def register() -> None:
    """Make the schema and every backbone name known to Hydra, which Python has no need of otherwise."""
    from hydra.core.config_store import ConfigStore

    store = ConfigStore.instance()
    store.store(name="schema", node=Config)
    for name in BACKBONE_NAMES:
        store.store(group="backbone", name=name, node={"name": name})
