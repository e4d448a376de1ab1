"""Every option of Thaw: its name, type, rule, unit, default and meaning, checked without importing torch.

What concerns one option alone is the rule beside its type; `__post_init__` holds what concerns several.

The YAML files in `conf/` hold named presets, that is, only what differs from the defaults here.
"""

from dataclasses import dataclass, field, fields, is_dataclass, replace
from math import inf
from typing import Annotated, Any

from thaw.backbone_names import BACKBONE_NAMES
from thaw.errors import ThawError, did_you_mean
from thaw.paths import at_home
from thaw.rules import POSITIVE, Rule, at_least, check, one_of, require, whole, within

MAX_SIDE = 10_000
"""Largest input side in pixels; larger values are typing errors or a malicious checkpoint."""
MAX_EPOCHS = 100_000
"""Rates and phases of all epochs are laid out before the first, which takes seconds for so many."""
MAX_STEPS = 10_000
"""Steps of a range test, which smooths its whole curve again after each."""
MAX_PROCESSES = 256
"""Processes on a machine: each takes a hundred MB or more, and more of them than cores are of no use."""
MAX_VIEWS = 1000
"""Views of an image, all of which are kept; hardly any training has more epochs."""
REPLACED_FLAGS = {
    "accelerator": "trainer.accelerator", "devices": "trainer.devices", "num_nodes": "trainer.num_nodes",
    "strategy": "trainer.distribution", "precision": "trainer.precision", "max_epochs": "trainer.max_epochs",
    "gradient_clip_val": "trainer.gradient_clip", "accumulate_grad_batches": "trainer.accumulate",
    "check_val_every_n_epoch": "trainer.eval_every", "enable_progress_bar": "trainer.progress_bar",
    "callbacks": "trainer.callbacks", "logger": "logger=NAME", "default_root_dir": "hydra.run.dir",
    "fast_dev_run": "trainer=debug", "overfit_batches": "+trainer.extra.limit_train_batches",
    "enable_checkpointing": "Thaw's own choice", "plugins": "Thaw's own choice",
    "limit_predict_batches": "Thaw's own choice", "use_distributed_sampler": "Thaw's own choice",
    "reload_dataloaders_every_n_epochs": "Thaw's own choice", "sync_batchnorm": "Thaw's own choice",
}  # fmt: skip
"""Flags of Lightning's Trainer that `trainer.extra` is not for, and what takes their place."""
TRACKERS = {
    "wandb": ("name", "save_dir", "dir", "version", "id", "project", "experiment"),
    "mlflow": ("experiment_name", "run_name", "tracking_uri", "save_dir", "run_id"),
}
"""Loggers that keep runs elsewhere, and the arguments that `logger.extra` is not for."""
THAWING_PRESETS = ("boosted_head", "discriminative", "finetune", "gradual", "last_stages", "scratch")
"""Those of `conf/strategy/` by which the backbone learns."""

BUILT_IN_OPTIMIZERS = ("sgd", "adamw")

BACKBONE = Rule(
    "a torchvision classifier", BACKBONE_NAMES.__contains__, BACKBONE_NAMES, " `thaw train --help` lists them."
)
OTHER_OPTIMIZERS = " Any class works too, such as optimizer.name=torch.optim.RMSprop, with an optimizer.lr of its own."
OPTIMIZER = Rule(
    f"one of {', '.join(BUILT_IN_OPTIMIZERS)}, or a class",
    lambda name: name in BUILT_IN_OPTIMIZERS or ("." in name and all(map(str.isidentifier, name.split(".")))),
    BUILT_IN_OPTIMIZERS,
    OTHER_OPTIMIZERS,
)
COUNT = whole(1, MAX_PROCESSES).or_words("auto")
DEVICES = Rule(
    f"auto, a whole number from 1 to {MAX_PROCESSES}, or a list of different GPUs, numbered from 0",
    lambda devices: _are_gpus(devices) if isinstance(devices, list) else COUNT.holds(devices),
)
BUILT_IN_MONITORS = ("val/acc", "val/loss", "val/macro_f1")
MONITOR = Rule(
    f"one of {', '.join(BUILT_IN_MONITORS)}, or val/NAME of one of `metrics`",
    lambda name: isinstance(name, str) and name.startswith("val/"),
    BUILT_IN_MONITORS,
)
RESERVED = ("acc", "acc_ci95", "groups", "loss", "macro_f1", "n", "top5", "top5_acc")
"""Names of Thaw's own figures."""
RECIPE = Rule(
    "null or {_target_: MODULE.CLASS, …}",
    lambda recipe: recipe is None or (isinstance(recipe, dict) and "_target_" in recipe),
)
METRICS = Rule(
    f"{{NAME: {{_target_: MODULE.CLASS, …}}, …}}, each name of letters, digits and _ and none of {', '.join(RESERVED)}",
    lambda metrics: isinstance(metrics, dict) and all(map(str.isidentifier, metrics)) and not {*metrics} & {*RESERVED},
)
SEED = Rule("in [0, 2**32)", lambda seed: 0 <= seed < 2**32)
"""scikit-learn's splits accept no other seed."""
SIZE = Rule(
    f"null, pixels of the shorter side, or [height, width], from 8 to {MAX_SIDE}",
    lambda size: size is None or all(map(whole(8, MAX_SIDE).holds, _sides(size))),
)


def _are_gpus(devices: list[object]) -> bool:
    return 0 < len(devices) == len(set(devices)) and all(map(whole(0, MAX_PROCESSES - 1).holds, devices))


def _sides(size: object) -> list[object]:
    return size if isinstance(size, list) and len(size) == 2 else [size]


def _rising_to(high: int) -> Rule:
    return Rule(f"two rising numbers in (0, {high}]", lambda pair: len(pair) == 2 and 0 < pair[0] <= pair[1] <= high)


@dataclass
class DatasetConfig:
    """Where the images lie, what their labels are, and how they are split and read."""

    name: Annotated[str, one_of("hymenoptera", "hotdog", "canidae", "pets", "digits", "folder", "stream")] = "folder"
    """A data set that Thaw can fetch (hymenoptera, hotdog, canidae, pets), digits, folder for your own images, or
    stream for what `thaw pack` has made of them."""
    root: Annotated[str, Rule("a folder", bool)] = "data"
    """Folder that holds the named data set's folder; with name=folder, the folder of images itself; with name=stream,
    what they were packed to: a folder, or s3://…, gs://…, r2://…"""
    label_pattern: str | None = None
    """Regular expression with one group that finds the class in a file name: '^(.+)_[0-9]+[.]'. For flat folders."""
    csv: str | None = None
    """CSV file with the columns path, label and, if it fixes them, split; paths are relative to the file's folder. The
    file lies below the data's root; one that does not has its own folder for a root."""
    csv_path: Annotated[str, Rule("made of columns in braces, such as '{path}'", lambda path: "{" in path)] = "{path}"
    """How a line's path is made of its columns: 'train_images/{image_id}.jpg'."""
    csv_label: str = "label"
    """Column of the CSV file that holds the class. Classes that are all whole numbers are in the order of these."""
    csv_split: str = "split"
    """Column of the CSV file that holds train, val or test; in one that is called as is_valid is, true means val, and
    false train. Without a column split the images are split here."""
    csv_group: str | None = None
    """Column of the CSV file whose equal values (a patient, a series) stay on one side of every split that is made
    here, and whose images intervals and tests take for alike; null takes each image by itself."""
    csv_fold: str | None = None
    """Column of the CSV file that tells the fold of each image outside test, for cross-validation by folds that are
    given: dataset.num_folds of them, counted from the shortest name, 10 behind 9; null makes the folds here."""
    exclude: str | None = None
    """CSV file with a column path of images to leave out, as `thaw check --fix` writes it. Paths in it are relative to
    the data's root, as its own may be."""
    relabel: str | None = None
    """CSV file with the columns path, as for exclude, and label, the class that the image is to have: the predictions
    that `thaw compare` writes, for example, with some of their labels mended."""
    classes: Annotated[list[str] | None, Rule("two at least", lambda classes: len(classes) >= 2)] = None
    """Keep only these classes; null keeps all."""
    train_per_class: Annotated[int | None, at_least(1)] = None
    """Keep only this many training images of each class, drawn by split_seed; null keeps all."""
    val_fraction: Annotated[float, within("[0, 1)")] = 0.2
    """Share of the training images that becomes the val split where the data has none; 0 validates on test."""
    test_fraction: Annotated[float, within("[0, 1)")] = 0.0
    """Share of all images that becomes the test split where the data has no splits at all."""
    split_seed: Annotated[int, SEED] = 0
    """Seed of every split; apart from `seed`, so that runs over several seeds see the same images."""
    num_folds: Annotated[int | None, at_least(2)] = None
    """Number of cross-validation folds made of all images outside test; null for one split."""
    fold: Annotated[int | None, at_least(0)] = None
    """Which fold, counted from 0, is the val split."""
    on_bad: Annotated[str, one_of("error", "skip")] = "error"
    """What to do with files that cannot be read as images, and with lines of the CSV file that have no label or name no
    file: error (naming them) or skip. What is skipped is missing from the split that was drawn with it."""
    batch_size: Annotated[int, at_least(1)] = 32
    """Images per step, shared equally among the processes: the same result on one as on several."""
    drop_last: bool = False
    """Leave out the last training batch of an epoch if it is incomplete."""
    balance: Annotated[str, one_of("none", "loss", "sampler")] = "none"
    """Weigh rare classes more: none, loss (weighted loss; in small batches the weights cancel in part) or sampler
    (drawn more often, each time in another view)."""
    num_workers: Annotated[int | str, whole(0, MAX_PROCESSES).or_words("auto")] = "auto"
    """Loader processes; auto is 0 for an epoch of less than a second of loading and, without a GPU, for images in
    memory, else one for each CPU core but one, at most 8. Images on the GPU need none."""
    cache: Annotated[str, one_of("auto", "ram", "device", "none")] = "auto"
    """Keep decoded images in memory: ram, device (on the GPU too, where crops are cut in whole batches; these are other
    random ones than the CPU's), none, or auto (ram if they fit in a quarter of the free memory, and then device if it
    is a GPU with room)."""
    image_size: Annotated[int | None, whole(8, MAX_SIDE)] = None
    """Side of the square input in pixels; null takes what the backbone's weights were trained for."""
    resize: Annotated[Any, SIZE] = None
    """Evaluation resize before the centre crop: of the shorter side, or [height, width] exactly, in pixels."""

    def __post_init__(self) -> None:
        check(self, "dataset.")
        for key in ("root", "csv", "exclude", "relabel"):  # `~`: no shell replaces it behind `KEY=`
            if (path := getattr(self, key)) is not None:
                setattr(self, key, at_home(path))
        fractions = self.val_fraction + self.test_fraction
        require(fractions < 1, "dataset.val_fraction + dataset.test_fraction", "below 1", fractions)
        if self.num_folds is not None and self.fold is None:
            raise ThawError(
                f"dataset.num_folds={self.num_folds} needs dataset.fold, which of them is val. For each in turn: "
                f"-m dataset.num_folds={self.num_folds} 'dataset.fold=range(0,{self.num_folds})'"
            )
        if self.fold is not None:
            require(self.num_folds is not None, "dataset.num_folds", "given beside dataset.fold", self.num_folds)
        if self.csv_fold is not None:
            require(self.num_folds is not None, "dataset.num_folds", "given beside dataset.csv_fold", self.num_folds)
        if self.fold is not None and self.num_folds is not None:
            require(self.fold < self.num_folds, "dataset.fold", f"below dataset.num_folds={self.num_folds}", self.fold)
        labels = (self.csv, self.label_pattern)
        require(None in labels, "dataset.csv and dataset.label_pattern", "used one at a time", labels)
        for key in ("csv_path", "csv_label", "csv_split", "csv_group", "csv_fold"):
            is_default = getattr(self, key) == getattr(DatasetConfig, key)
            require(self.csv is not None or is_default, "dataset.csv", f"given beside dataset.{key}", self.csv)
        for key in ("label_pattern", "csv", "exclude", "relabel") if self.name == "stream" else ():
            value, rule = getattr(self, key), "null for dataset=stream, as `thaw pack` has it"
            require(value is None, f"dataset.{key}", rule, value)


@dataclass
class BackboneConfig:
    """The network under the head and where its weights come from."""

    name: Annotated[str, BACKBONE] = "resnet18"
    """Any classifier of torchvision.models."""
    weights: str | None = "default"
    """default, a torchvision weights name (IMAGENET1K_V1), a .pth or .safetensors file, a run's folder, or null."""

    def __post_init__(self) -> None:
        check(self, "backbone.")


@dataclass
class HeadConfig:
    """The new layer: (dropout of) pooled features, standardised or not, to one logit a class."""

    init: Annotated[str, one_of("auto", "probe", "default", "xavier", "zeros", "weights")] = "auto"
    """probe (a logistic regression fitted to the features of the backbone as it is before training), default (PyTorch's
    Linear), xavier (uniform, zero bias), zeros, or weights (of the run in backbone.weights, for the classes that both
    have; the others' as by default). auto is probe where there are pretrained weights whose features are stored, and
    default elsewhere."""
    dropout: Annotated[float, within("[0, 1)")] = 0.0
    """Probability that a feature is dropped in training."""
    standardize: bool = True
    """Normalise each feature by its running mean and variance, so that one learning rate suits every backbone."""

    def __post_init__(self) -> None:
        check(self, "head.")


@dataclass
class AugmentConfig:
    """What happens to a training image, and to its label, before the network sees them."""

    policy: Annotated[str, one_of("none", "default", "trivial", "rand", "color")] = "default"
    """none (the evaluation transform), default (random crop and flip), or default with trivial, rand or color."""
    crop_scale: Annotated[list[float], _rising_to(1)] = field(default_factory=lambda: [0.08, 1.0])
    """Smallest and largest share of the image's area that the random crop takes."""
    crop_ratio: Annotated[list[float], _rising_to(10)] = field(default_factory=lambda: [3 / 4, 4 / 3])
    """Smallest and largest width over height of the random crop."""
    start_size: Annotated[int | None, whole(8, MAX_SIDE)] = None
    """Side in pixels of the crops in the first half of the epochs, from which it grows to dataset.image_size, that of
    the last fifth (progressive resizing): faster where the backbone learns. null is dataset.image_size in all."""
    flip: Annotated[float, within("[0, 1]")] = 0.5
    """Probability of a horizontal mirror image."""
    vertical_flip: Annotated[float, within("[0, 1]")] = 0.0
    """Probability of a vertical mirror image, for images without an upright: satellite, microscope, product photos."""
    degrees: Annotated[float, within("[0, 180]")] = 0.0
    """Largest angle that an image is turned by, to either side, before it is cropped; what that lays bare is painted
    with the mean colour."""
    erasing: Annotated[float, within("[0, 1]")] = 0.0
    """Probability that a random rectangle is painted over with the mean colour."""
    transforms: dict[str, Any] = field(default_factory=dict)
    """Further transforms of one uint8 image (3, S, S), such as torchvision's, by names of one's own, each with
    `_target_`, its class, and arguments; they come last, but for erasing."""
    mixup: Annotated[float, at_least(0, is_finite=True)] = 0.0
    """Strength (alpha of the Beta distribution) of mixup; 0 is off."""
    cutmix: Annotated[float, at_least(0, is_finite=True)] = 0.0
    """Strength (alpha of the Beta distribution) of CutMix; 0 is off. With mixup, each batch draws one of the two."""
    label_smoothing: Annotated[float, within("[0, 1)")] = 0.0
    """Share of each target that is spread evenly over all classes."""

    def __post_init__(self) -> None:
        check(self, "augment.")

    @property
    def mirrored_axes(self) -> list[tuple[int, ...]]:
        """Axes of images (…, H, W) along which each kind of mirror image that may be shown is flipped; fixed order."""
        across, down = self.flip > 0, self.vertical_flip > 0
        allowed = {(-1,): across, (-2,): down, (-2, -1): across and down}
        return [axes for axes in allowed if allowed[axes] and self.policy != "none"]

    @property
    def only_cuts(self) -> bool:
        """True if random crops and horizontal mirror images are all that happens to an image before it is mixed."""
        return self.policy == "default" and not (self.vertical_flip or self.degrees or self.erasing or self.transforms)


@dataclass
class OptimizerConfig:
    """How a gradient becomes a step."""

    name: Annotated[str, OPTIMIZER] = "sgd"
    """sgd (with momentum), adamw, or the class of another, such as torch.optim.NAdam, whose momentum is what it is made
    with."""
    lr: Annotated[int | float | str, POSITIVE.or_words("auto")] = 3e-3
    """Learning rate of the head; the strategy sets the other stages' as ratios to it. auto finds one by a range test
    before the training."""
    momentum: Annotated[float, within("[0, 1)")] = 0.9
    """Momentum of SGD, or AdamW's first beta."""
    nesterov: bool = False
    """Nesterov's momentum; SGD only."""
    weight_decay: Annotated[float, at_least(0, is_finite=True)] = 0.0
    """Weight decay of matrices and kernels; norms, biases, embeddings, layer scales and the like have none."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Any other argument of the optimizer, passed on as it is: eps, betas, …"""

    def __post_init__(self) -> None:
        check(self, "optimizer.")
        if not isinstance(self.lr, str):
            self.lr = float(self.lr)
        can_look_ahead = self.name == "sgd" and self.momentum > 0
        rule = "false unless optimizer is sgd with momentum"
        require(can_look_ahead or not self.nesterov, "optimizer.nesterov", rule, self.nesterov)
        for key in ("lr", "weight_decay", "momentum", "nesterov") if self.is_built_in else ("lr", "weight_decay"):
            rule = f"left out (optimizer.{key} takes its place)"
            require(key not in self.extra, f"optimizer.extra.{key}", rule, self.extra.get(key))
        if self.is_built_in and "betas" in self.extra:
            betas, rule = self.extra["betas"], f"two numbers, the first of them optimizer.momentum={self.momentum}"
            is_pair = isinstance(betas, list | tuple) and len(betas) == 2
            require(is_pair and betas[0] == self.momentum, "optimizer.extra.betas", rule, betas)

    @property
    def is_built_in(self) -> bool:
        """True if it is one of Thaw's own choice, which knows what `momentum` is and which options suit it."""
        return self.name in BUILT_IN_OPTIMIZERS

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

    num_steps: Annotated[int, whole(20, MAX_STEPS)] = 100
    """Steps, each at a higher rate; small data sets are cycled."""
    lowest: Annotated[float, POSITIVE] = 1e-6
    """optimizer.lr of the first step."""
    highest: float = 10.0
    """optimizer.lr of the last step; the test ends sooner where the loss diverges."""

    def __post_init__(self) -> None:
        check(self, "find_lr.")
        rule = f"a number above find_lr.lowest={self.lowest:g}"
        require(self.lowest < self.highest < inf, "find_lr.highest", rule, self.highest)


@dataclass
class ScheduleConfig:
    """How learning rate and momentum change over the epochs."""

    name: Annotated[str, one_of("constant", "step", "one_cycle", "cosine")] = "cosine"
    """constant, step, one_cycle or cosine."""
    warmup_epochs: Annotated[float, at_least(0, is_finite=True)] = 0.0
    """Epochs over which the rate first rises linearly from 0."""
    step_epochs: Annotated[int, at_least(1)] = 7
    """step: epochs between two drops."""
    step_factor: Annotated[float, within("(0, 1]")] = 0.1
    """step: what the rate is multiplied by at each drop."""
    peak_fraction: Annotated[float, within("(0, 1)")] = 0.25
    """one_cycle: share of the epochs after which the rate is highest."""
    start_factor: Annotated[float, within("(0, 1]")] = 0.1
    """one_cycle: first rate over the highest."""
    final_factor: Annotated[float, within("[0, 1]")] = 0.0
    """one_cycle and cosine: last rate over the highest."""
    low_momentum: Annotated[float, within("[0, 1)")] = 0.85
    """one_cycle: momentum where the rate is highest; it starts and ends at optimizer.momentum."""
    per_phase: bool = False
    """Start the schedule again once the head-only epochs of the strategy are over."""

    def __post_init__(self) -> None:
        check(self, "schedule.")


@dataclass
class StrategyConfig:
    """Which stages learn, when, and how fast compared with the head."""

    name: str = "frozen"
    """Name under which the strategy is reported; as probe it trains for no epoch, whatever trainer.max_epochs says."""
    backbone_factor: Annotated[float, at_least(0, is_finite=True)] = 0.0
    """Learning rate of the last backbone stage over the head's; 0 keeps the whole backbone frozen."""
    first_stage_factor: Annotated[float, within("(0, 1]")] = 1.0
    """Learning rate of the first stage over the last stage's; geometric in relative depth between them."""
    trainable_fraction: Annotated[float, within("(0, 1]")] = 1.0
    """Share of the backbone's depth, counted from the head, that learns; the rest stays frozen."""
    trainable_stages: Annotated[int | None, at_least(1)] = None
    """Number of backbone stages, counted from the head, that learn; null leaves it to trainable_fraction."""
    head_epochs: Annotated[int, at_least(0)] = 0
    """Epochs in which only the head learns, before the backbone joins."""
    unfreeze_epochs: Annotated[int, at_least(0)] = 0
    """Epochs over which the backbone thaws, from its last stage to its first; 0 thaws all at once."""
    feature_views: Annotated[int | str, whole(1, MAX_VIEWS).or_words("mirror", "fresh")] = "mirror"
    """What the head sees of an image while the whole backbone is frozen: mirror (its centre crop and the
    mirror images that augment.flip and augment.vertical_flip allow), a number of random views drawn once, or fresh
    (other random views in each epoch, at the price of a forward pass)."""
    joint_factor: Annotated[float, within("(0, 1]")] = 1.0
    """What every rate is multiplied by, the head's too, once the head-only epochs are over."""
    from_scratch: bool = False
    """Start from random weights, whatever backbone.weights says."""

    def __post_init__(self) -> None:
        check(self, "strategy.")
        if self.name in THAWING_PRESETS and self.backbone_factor == 0:
            raise ThawError(
                f"strategy.name={self.name} with strategy.backbone_factor=0 would train frozen, for a name brings no "
                f"numbers. Type strategy={self.name}; in Python, give those of conf/strategy/{self.name}.yaml, e.g. "
                f"StrategyConfig({self.name!r}, backbone_factor=1.0)."
            )

    @property
    def begins_with_head(self) -> bool:
        """True if the head learns alone, always or at first."""
        return self.backbone_factor == 0 or self.head_epochs > 0


@dataclass
class TrainerConfig:
    """How long and on what to train, what to keep and when to stop."""

    max_epochs: Annotated[int, whole(0, MAX_EPOCHS)] = 25
    """Passes over the training images; 0 leaves it at head.init=probe, as strategy=probe does whatever stands here."""
    accelerator: str = "auto"
    """auto, cpu, gpu, or another accelerator of Lightning's."""
    devices: Annotated[Any, DEVICES] = "auto"
    """Devices of each machine, a process each: how many, or which GPUs, as in [0, 2]. auto is one, or all GPUs if the
    distribution is not auto; jobs that a sweep's launcher runs side by side take one GPU after the other."""
    num_nodes: Annotated[int, at_least(1)] = 1
    """Number of machines; on several, torchrun or SLURM starts the processes."""
    distribution: str = "auto"
    """Lightning's distribution strategy: auto, ddp, …"""
    precision: Annotated[
        str, one_of("auto", "32", "32-true", "64", "64-true", "bf16", "bf16-mixed", "bf16-true", "16-mixed")
    ] = "auto"
    """auto (bf16 where the device is fast at it), 32, bf16-mixed, 16-mixed, bf16-true or 64."""
    monitor: Annotated[str, MONITOR] = "val/acc"
    """Which metric chooses the best epoch, and a search's best trial: val/acc, val/loss, val/macro_f1, or val/NAME of
    one of `metrics`."""
    ties: Annotated[str, one_of("first", "last")] = "first"
    """Which of several equally good epochs is the best one: first or last."""
    eval_every: Annotated[int, at_least(1)] = 1
    """Epochs from one validation to the next; the last epoch is validated in any case."""
    early_stopping: Annotated[int | None, at_least(1)] = None
    """Validations without improvement, counted anew in each phase of the strategy, before the end; null never stops."""
    gradient_clip: Annotated[float | None, POSITIVE] = None
    """Largest norm of the gradient; null does not clip."""
    accumulate: Annotated[int, at_least(1)] = 1
    """Batches whose gradients are averaged to one step; the last ones of an epoch may be fewer."""
    ema_decay: Annotated[float | None, within("(0, 1)")] = None
    """Decay per step of an exponential moving average of the weights that is evaluated and kept; null is off. After t
    steps it is (1 + t) / (10 + t) at most."""
    compile: bool = False
    """Compile the backbone with torch.compile, in the first epoch: some seconds on a GPU, up to minutes on a CPU."""
    checkpoint_seconds: Annotated[float, at_least(0)] = 30.0
    """Least time between two writes of last.ckpt; it is always written at the end."""
    progress_bar: bool = True
    """Show a progress bar where the output is a terminal."""
    callbacks: dict[str, Any] = field(default_factory=dict)
    """Further callbacks of lightning.pytorch by names of one's own, each with `_target_`, its class, and arguments."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Any other flag of lightning.pytorch.Trainer, passed on as it is."""

    def __post_init__(self) -> None:
        check(self, "trainer.")
        for flag, place in REPLACED_FLAGS.items():
            rule = f"left out ({place} takes its place)"
            require(flag not in self.extra, f"trainer.extra.{flag}", rule, self.extra.get(flag))
        chosen = "an epoch is chosen by its validation"
        reasons = {
            "limit_train_batches": chosen, "limit_val_batches": chosen, "max_steps": "strategy=probe trains nothing"
        }  # fmt: skip
        for flag, reason in reasons.items():
            require(self.extra.get(flag) != 0, f"trainer.extra.{flag}", f"more than 0 ({reason})", 0)
        if self.ema_decay and self.precision == "bf16-true":
            raise ThawError(
                "trainer.ema_decay moves the average by less than bf16 can tell, so it would stay near the weights of "
                "the beginning: set trainer.precision=bf16-mixed."
            )

    @property
    def num_devices(self) -> int | None:
        """Devices of each machine; None where `devices` leaves that to the machine."""
        if isinstance(self.devices, list):
            return len(self.devices)
        return None if self.devices == "auto" else int(self.devices)


@dataclass
class LoggerConfig:
    """Where the curves go; metrics.csv is always written."""

    name: Annotated[str, one_of("tensorboard", "csv", "wandb", "mlflow")] = "tensorboard"
    """tensorboard, csv (nothing beside metrics.csv), wandb or mlflow (both need their package)."""
    tensorboard: bool = False
    """Whether wandb or mlflow has TensorBoard's files in the run beside it."""
    project: str = "thaw"
    """Project of wandb, or experiment of mlflow."""
    uri: str | None = None
    """Address of the mlflow server; null keeps a database in the run, `mlflow.db`."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Any other argument of Lightning's WandbLogger (entity, group, tags, …) or MLFlowLogger, passed on as it is."""

    def __post_init__(self) -> None:
        check(self, "logger.")
        needs_tracker = f"false unless logger={' or logger='.join(TRACKERS)}"
        require(not self.tensorboard or self.name in TRACKERS, "logger.tensorboard", needs_tracker, self.tensorboard)
        if self.extra and self.name not in TRACKERS:
            raise ThawError(f"logger.extra is for logger={' and logger='.join(TRACKERS)}, got logger={self.name}.")
        for argument in TRACKERS.get(self.name, ()):
            rule = "left out (logger.project, logger.uri and the run's folder tell it)"
            require(argument not in self.extra, f"logger.extra.{argument}", rule, self.extra.get(argument))

    @property
    def has_tensorboard(self) -> bool:
        """True if TensorBoard's files are written."""
        return self.tensorboard or self.name == "tensorboard"


@dataclass
class SweepConfig:
    """What the jobs of a sweep (`-m`) have in common."""

    resume: str | None = None
    """Folder of an interrupted sweep: the same command with it skips the finished jobs and goes on with the others."""
    prune: bool = False
    """Stop a trial of a search whose best epoch so far is worse than the median of the others at the same epoch."""
    prune_after_trials: Annotated[int, at_least(0)] = 5
    """Trials that run to their end before any is stopped."""
    prune_after_epochs: Annotated[int, at_least(0)] = 3
    """Epochs that each trial is given."""

    def __post_init__(self) -> None:
        check(self, "sweep.")


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
    loss: Annotated[Any, RECIPE] = None
    """A loss of one's own in place of cross-entropy, such as focal: `_target_`, its class or function, and arguments.
    It is called with logits (B, K) and labels (B,), or soft targets (B, K) of mixed images, and gives their mean loss
    or one an image. It is what training minimises and train/loss shows; val/loss stays cross-entropy, to compare runs
    by."""
    metrics: Annotated[dict[str, Any], METRICS] = field(default_factory=dict)
    """Further metrics of torchmetrics or of one's own, such as kappa or AUROC, by names of one's own, each with
    `_target_`, its class, and arguments. Each is val/NAME of each epoch, and may be trainer.monitor."""
    features: Annotated[str, one_of("auto", "off")] = "auto"
    """auto runs epochs with a frozen backbone on stored features; off runs them on augmented images."""
    seed: Annotated[int, SEED] = 0
    """Seed of the shuffle, the augmentation and the new weights."""
    figures: bool | None = None
    """Draw what is trained on and what comes of it; null draws in a run of its own, not in the jobs of a sweep, which
    would take half as long again: `thaw report RUN` draws for the one that matters."""
    report: bool = False
    """Write report.html at the end, as `thaw report RUN` does."""
    resume: str | None = None
    """Folder of an interrupted run to continue, with its own options."""

    def __post_init__(self) -> None:
        check(self)
        for group in fields(self):
            for key, value in vars(getattr(self, group.name)).items() if is_dataclass(group.type) else ():
                small = not isinstance(value, int) or value < 2**32
                require(small, f"{group.name}.{key}", "a whole number below 2**32", value)
        if self.dataset.cache == "device" and not self.augment.only_cuts:
            raise ThawError(
                "dataset.cache=device cuts images on the GPU, mirrors them horizontally and does nothing else to them: "
                "use augment=default without vertical_flip, degrees, erasing and transforms, or dataset.cache=ram."
            )
        monitors = (*BUILT_IN_MONITORS, *(f"val/{name}" for name in self.metrics))
        monitor, hint = self.trainer.monitor, did_you_mean(self.trainer.monitor, monitors)
        require(monitor in monitors, "trainer.monitor", MONITOR.text, monitor, hint)
        for key, value, default in (
            ("dataset.balance", self.dataset.balance == "loss", "none or sampler"),
            ("augment.label_smoothing", self.augment.label_smoothing, "0"),
        ):
            if self.loss is not None and value:
                raise ThawError(
                    f"{key} is of cross-entropy and has no effect on a loss of one's own: set it to {default}."
                )
        if self.dataset.batch_size % (self.trainer.num_devices or 1):
            raise ThawError(
                f"dataset.batch_size={self.dataset.batch_size} cannot be shared equally among trainer.devices="
                f"{self.trainer.devices}: it must be a multiple of their number."
            )
        if self.strategy.name == "probe":  # in a sweep over strategies, epochs and rates are meant for the others
            self.trainer = replace(self.trainer, max_epochs=0)
            if self.optimizer.lr == "auto":
                self.optimizer = replace(self.optimizer, lr=OptimizerConfig.lr)
        if self.trainer.max_epochs == 0 and (self.strategy.backbone_factor > 0 or not self.starts_from_probe):
            raise ThawError("trainer.max_epochs=0 trains nothing: use strategy=probe, or raise it.")
        if self.head.init == "probe" and not self.has_probe:
            raise ThawError(
                "head.init=probe is fitted to the features of pretrained weights: it needs features=auto, "
                "backbone.weights, and a strategy that does not start from scratch."
            )
        if self.strategy.head_epochs >= (epochs := self.trainer.max_epochs) and self.strategy.backbone_factor > 0:
            fewer = f"Set strategy.head_epochs={max(1, epochs // 3)}, raise" if epochs > 1 else "Raise"
            raise ThawError(
                f"strategy.head_epochs={self.strategy.head_epochs} leaves no epoch for the backbone: "
                f"trainer.max_epochs is {epochs}. {fewer} trainer.max_epochs, or use strategy=frozen."
            )
        warmup, shortest = self.schedule.warmup_epochs, self._shortest_schedule()
        rule = f"below {shortest:g}, the epochs that the schedule runs for"
        require(warmup < shortest, "schedule.warmup_epochs", rule, warmup)
        if self.head.init == "weights" and (self.backbone.weights in (None, "default") or self.strategy.from_scratch):
            raise ThawError("head.init=weights takes the head of an earlier run: set backbone.weights=RUN_FOLDER.")

    @property
    def has_probe(self) -> bool:
        """True if a probe can be fitted."""
        return has_probe(self)

    @property
    def starts_from_probe(self) -> bool:
        """True if the head begins as the probe."""
        return self.head.init == "probe" or (self.head.init == "auto" and self.has_probe)

    def _shortest_schedule(self) -> float:
        """Epochs that the schedule runs for; of the shorter phase where it starts again after the head-only epochs."""
        head_epochs, max_epochs = self.strategy.head_epochs, self.trainer.max_epochs
        phases = [head_epochs, max_epochs - head_epochs] if self.schedule.per_phase else [max_epochs]
        return min((epochs for epochs in phases if epochs > 0), default=inf)


def has_probe(options: Any) -> bool:
    """True if a probe can be fitted: to stored features of pretrained weights; of a Config, or OmegaConf's of one."""
    return not (options.features == "off" or options.strategy.from_scratch or options.backbone.weights is None)


def recheck(config: Config) -> Config:
    """The same options, checked as they are now: they may have been changed since they were made.

    Raises:
        ThawError: They are not valid, or do not go together, or one that there is not has been set.
    """
    if not isinstance(config, Config):
        raise ThawError(f"The options of a training are a thaw.Config, such as compose(…) gives, got {config!r}.")
    groups: dict[str, Any] = {}
    for name, default in vars(Config()).items():
        if is_dataclass(default):
            options, kind = getattr(config, name), type(default)
            require(isinstance(options, kind), name, f"a thaw.{kind.__name__}", options)
            groups[name] = replace(options)
    for prefix, options in [("", config), *((f"{name}.", getattr(config, name)) for name in groups)]:
        known = [option.name for option in fields(options)]
        for name in vars(options):
            if name not in known:  # Python lets it be set, and `replace` drops it
                raise ThawError(f"{prefix}{name} is not an option.{did_you_mean(name, known)}")
    return replace(config, **groups)
