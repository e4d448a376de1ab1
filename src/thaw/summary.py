"""What `summary.json` holds. Read back it is a dict, so these are types of its keys and values; imports no torch."""

from collections.abc import Mapping
from typing import Any, NotRequired, TypedDict


def as_maximised(value: float, mode: str) -> float:
    """A metric's value as a search maximises it: negated where `mode` is `min`, as of a loss."""
    return -value if mode == "min" else value


def objective(summary: Mapping[str, Any], monitor: str) -> float:
    """What a search maximises: `trainer.monitor` of the last epoch, which no one has chosen among the epochs."""
    value = summary["last"][monitor.removeprefix("val/")]
    return as_maximised(float("nan" if value is None else value), summary["monitor_mode"])


class Metrics(TypedDict):
    """How good predictions of the images of one split are; in a training's summary, those of `metrics` beside these."""

    acc: float
    """Share of the images that are predicted right."""
    acc_ci95: list[float]
    """Lower and upper end of its 95 % interval: Wilson's, of groups that of `effective_size`."""
    n: int
    """Number of images."""
    groups: NotRequired[int]
    """Number of groups that they are of; only with `dataset.csv_group`."""
    loss: float
    """Mean cross-entropy, in nats."""
    macro_f1: float
    """Mean of the classes' F1."""
    top5_acc: NotRequired[float]
    """Share of the images whose class is among the five of highest logits; only of more than 5 classes."""


def groups_text(metrics: Metrics) -> str:
    """` in 20 groups`, of a split's figures; empty of images that are each their own."""
    number = metrics.get("groups")
    return "" if number is None else f" in {number} group{'s' * (number != 1)}"


class Seconds(TypedDict):
    """How long it took, in seconds: all pieces of a resumed run, and of one that was cut off its finished epochs."""

    fit: float
    """Training and validation, checkpoints included."""
    epoch_median: float
    """From the start of one epoch to that of the next."""
    epoch_longest: float
    total: float
    """From the start, imports apart, to the last prediction."""


def pace_text(seconds: Seconds) -> str:
    """Seconds of an epoch: the median, or the range where some are on stored features and some are not."""
    median = seconds["epoch_median"]
    longest = seconds.get("epoch_longest", median)
    return f"{median:.2f} s" if longest - median < 1 or longest < 3 * median else f"{median:.2f} to {longest:.2f} s"


class Params(TypedDict):
    """Number of parameters of backbone and head."""

    total: int
    trainable: int
    """Those that learn in at least one epoch."""


class Summary(TypedDict):
    """The figures of a training."""

    val: Metrics
    """Of the best epoch, which was chosen on these images."""
    last: Metrics
    """Of the last epoch on the same images, which no one has chosen."""
    test: Metrics | None
    """Of the best epoch; None without a test split."""
    best_epoch: int
    """From 1; 0 where nothing was trained."""
    epochs: int
    """Number of epochs that were trained."""
    monitor_mode: str
    """`max` or `min`, whichever is better of `trainer.monitor`."""
    pruned: bool
    """True if a search has stopped it early (`sweep.prune`)."""
    epoch_chosen_on: str
    """Where the images come from on which the best epoch was chosen: val, or test for want of others."""
    seconds: Seconds
    params: Params
    classes: list[str]
    """Names, by label."""
    lr: float
    """The highest learning rate."""
    precision: str
    """As Lightning has it, such as `bf16-mixed` or `32-true`."""
    gpu_memory_gb: float | None
    """The most that tensors have taken on the GPU, in GB; None on another device."""
    seed: int
    command: str | None
    """What was typed; None if it was started from Python."""
    versions: dict[str, str]
    """Of Python and the packages, by name."""
    data_fingerprint: str
    """Hash of the images and their splits."""
    probe: Metrics | None
    """Of the linear probe on val; None where there was none."""


ALWAYS = {
    "val": dict, "last": dict, "best_epoch": int, "epochs": int, "epoch_chosen_on": str, "seconds": dict,
    "params": dict, "classes": list, "precision": str, "seed": int, "versions": dict, "data_fingerprint": str,
}  # fmt: skip
"""What a `summary.json` has in any case, and as what."""
