"""What a training says of itself: before it, of what will have no effect; after it, of what has come out."""

import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from thaw.config import Config, StrategyConfig
from thaw.inspection.predictions import Predictions, accuracy_text
from thaw.model.strategy import rate_factors
from thaw.options import changed, typed
from thaw.overrides import in_sweep
from thaw.run import Run
from thaw.summary import Summary

RANDOM_VIEWS_ONLY = {f"augment.{key}" for key in ("policy", "crop_scale", "crop_ratio", "degrees", "erasing")}
"""Options that change nothing of an image's centre crop and its mirror images."""
MIRRORS = {"augment.flip", "augment.vertical_flip"}
MOST_FOR_ADAMW = 5e-4
"""Rate of a pretrained backbone. Ants and bees, SqueezeNet, 8 epochs, three seeds, val accuracy: 0.682 ± 0.010 at 1e-3,
0.880 ± 0.014 at 1e-4."""


def warnings_before(config: Config, num_stages: int, num_frozen: int) -> list[str]:
    """Lines about what will not happen though it is asked for, or will not go well.

    Args:
        config: The options, with a number as `optimizer.lr`.
        num_stages: Stages of the backbone.
        num_frozen: Epochs on stored features.
    """
    lines = (
        stages_left_frozen(config.strategy, config.trainer.max_epochs, num_stages),
        augmentation_left_out(config, num_frozen),
        growth_left_out(config, num_frozen),
        features_left_out(config, num_frozen),
        adamw_too_fast(config),
        chosen_on_a_part(config),
    )
    return [line for line in lines if line]


def stages_left_frozen(strategy: StrategyConfig, max_epochs: int, num_stages: int) -> str | None:
    """A line about stages that the strategy would thaw after the last epoch; None if there are none, or no epochs."""
    if not max_epochs:
        return None
    epochs = strategy.head_epochs + strategy.unfreeze_epochs
    thawed, in_the_end = (
        sum(factor > 0 for factor in rate_factors(strategy, epoch, num_stages)) for epoch in (max_epochs - 1, epochs)
    )
    if thawed >= in_the_end:
        return None
    return (
        f"{in_the_end - thawed} of {num_stages} stages never thaw: that takes {epochs} epochs (strategy.head_epochs="
        f"{strategy.head_epochs}, strategy.unfreeze_epochs={strategy.unfreeze_epochs}), and trainer.max_epochs="
        f"{max_epochs}."
    )


def augmentation_left_out(config: Config, num_frozen: int) -> str | None:
    """A line about augmentation that is asked for and that the policy, or stored features, do without.

    Args:
        config: The options.
        num_frozen: Epochs on stored features.

    Returns:
        The line; None if nothing is left out.
    """
    if config.augment.policy == "none":
        names = RANDOM_VIEWS_ONLY - {"augment.policy"} | MIRRORS | {"augment.start_size"}
        where, remedy = "where augment.policy=none shows images as they are evaluated", "augment=default"
    elif num_frozen and config.strategy.feature_views == "mirror":
        names = RANDOM_VIEWS_ONLY | {f"augment.transforms.{name}._target_" for name in config.augment.transforms}
        names |= {name for name in MIRRORS if getattr(config.augment, name.partition(".")[2]) not in (0.0, 0.5)}
        epochs = "epoch 1, which sees" if num_frozen == 1 else f"epochs 1 to {num_frozen}, which see"
        where = f"in {epochs} centre crops and their mirror images equally often"
        remedy = "strategy.feature_views=fresh"
    else:
        return None
    asked = changed(asdict(config))
    left_out = ", ".join(f"{name}={typed(asked[name][0])}" for name in asked if name in names)
    return f"Without effect {where}: {left_out} (set {remedy} to train on augmented images)." if left_out else None


def frozen_epochs(num_frozen: int, views: int | str) -> str:
    """A line about the epochs on stored features, and by which `strategy.feature_views`."""
    epochs = "Epoch 1 runs" if num_frozen == 1 else f"Epochs 1 to {num_frozen} run"
    return f"{epochs} on stored features (strategy.feature_views={views})"


def growth_left_out(config: Config, num_frozen: int) -> str | None:
    """A line about crops that would grow, where no epoch cuts any; None elsewhere."""
    size, max_epochs = config.augment.start_size, config.trainer.max_epochs
    if size is None or config.augment.policy == "none" or not 0 < max_epochs == num_frozen:
        return None
    return f"Without effect: augment.start_size={size}, as all epochs run on features of images of the full size."


def growing_crops(sides: Sequence[int], num_frozen: int) -> str:
    """A line about crops that grow, by their sides in each epoch, after the epochs on stored features."""
    start, end = sides[num_frozen], sides[-1]
    first, last = max(number for number, side in enumerate(sides, 1) if side == start), sides.index(end) + 1
    return f"Crops of {start} pixels until epoch {first}, and of {end} from epoch {last} on (augment.start_size)"


def features_left_out(config: Config, num_frozen: int) -> str | None:
    """A line about mixed images, which the head cannot learn from as stored features; None if it may do so.

    Args:
        config: The options.
        num_frozen: Epochs on stored features.
    """
    mixing = [
        f"augment.{key}={getattr(config.augment, key):g}" for key in ("mixup", "cutmix") if getattr(config.augment, key)
    ]
    can_have_features = config.has_probe and config.strategy.begins_with_head
    if not mixing or not can_have_features or not config.trainer.max_epochs or num_frozen:
        return None
    mix = "mix" if len(mixing) > 1 else "mixes"
    return (
        f"No epoch runs on stored features, as {' and '.join(mixing)} {mix} images: each epoch passes all of them "
        "through the backbone."
    )


def adamw_too_fast(config: Config) -> str | None:
    """A line about AdamW at a rate at which it forgets what the backbone has learned before; None where it is lower.

    Args:
        config: The options, with a number as `optimizer.lr`.
    """
    strategy, optimizer = config.strategy, config.optimizer
    rate = optimizer.rate * strategy.backbone_factor * (strategy.joint_factor if strategy.head_epochs else 1)
    if optimizer.name != "adamw" or strategy.from_scratch or not config.trainer.max_epochs or rate <= MOST_FOR_ADAMW:
        return None
    return (
        f"AdamW at {rate:g} is fast for a pretrained backbone, which forgets what it knows: try optimizer.lr="
        f"{optimizer.rate / 10:g}, or strategy=boosted_head, whose head alone is so fast."
    )


def chosen_on_a_part(config: Config) -> str | None:
    """A line about `limit_val_batches`, which leaves images out where the best epoch is chosen; None without."""
    limit = config.trainer.extra.get("limit_val_batches", 1.0)
    if limit is None or (isinstance(limit, float) and limit == 1.0):
        return None
    return (
        f"trainer.extra.limit_val_batches={limit}: each epoch's val figures, and so the choice of the best one, are of "
        "a part of the images; the last lines are of all."
    )


def closing_lines(run: Run, config: Config, summary: Summary, judged: Predictions | None = None) -> str:
    """What came out, where it lies, and what to type next.

    Args:
        run: The run.
        config: Its options.
        summary: Its figures.
        judged: Answers of the best epoch on test, or else on val; None leaves out how they compare with a single one.
    """
    best, last, seconds = summary["val"], summary["last"], summary["seconds"]
    chosen_on, is_chosen = summary["epoch_chosen_on"], run.chose_epoch
    if not summary["epochs"]:
        lines = [f"The probe's {chosen_on} accuracy is {accuracy_text(best)}; nothing was trained"]
    else:
        probe = f"; the probe alone {summary['probe']['acc']:.4f}" if summary["probe"] else ""
        monitor = config.trainer.monitor
        is_best = monitor == "val/acc" and is_chosen
        figure = f"Best {chosen_on} accuracy" if is_best else f"{chosen_on.capitalize()} accuracy"
        is_macro_f1 = monitor == "val/macro_f1"
        chosen_for = f"macro-F1 of {best['macro_f1']:.4f}" if is_macro_f1 else monitor.removeprefix("val/")
        reason = "" if is_best else f" for its {chosen_for}"
        chosen = f", which was chosen on these images{reason}" if is_chosen else ""
        lines = [
            f"{figure} {accuracy_text(best)}, at epoch {summary['best_epoch']} of {summary['epochs']}{chosen}; "
            f"last epoch {last['acc']:.4f}{probe}",
        ]
        if summary["probe"] and last["acc"] < (low := summary["probe"]["acc_ci95"][0]):
            remedy = "" if config.starts_from_probe else "head.init=probe, "
            advice = f"{remedy}more epochs, or another optimizer.lr"
            lines.append(f"The last epoch is below the probe's 95 % interval, from {low:.3f}: try {advice}")
    if summary["test"]:
        which = f"the epoch chosen on {chosen_on}" if is_chosen else "that epoch"
        lines.append(f"Test accuracy {accuracy_text(summary['test'])}, of {which}")
    if judged and judged.metrics()["acc"] <= (always := judged.most_common)[1]:
        lines.append(f"Always answering {always[0]!r} would reach {always[1]:.4f}: see macro-F1, and dataset.balance")
    memory = f", {summary['gpu_memory_gb']} GB of the GPU's memory at most" if summary["gpu_memory_gb"] else ""
    pace = f", {seconds['epoch_median']:.2f} s an epoch" if summary["epochs"] else ""
    if 0 < summary["epochs"] < config.trainer.max_epochs:  # by early stopping, max_time, a callback of one's own
        pace += f", {summary['epochs']} of {config.trainer.max_epochs} epochs"
    lines.append(f"{seconds['total']:.1f} s in all{pace}{memory}; everything is in {run.folder}")
    if not in_sweep():  # which says so once, at its end
        report = None if config.report else run.folder
        lines += next_lines(report, run.folder.parent if config.logger.name == "tensorboard" else None)
    return "\n".join(lines)


def next_lines(report: Path | None, logdir: Path | None) -> list[str]:
    """What to type next, a line each.

    Args:
        report: Folder of the run that a report is of; None for no report.
        logdir: Where TensorBoard finds events; None where there are none.
    """
    commands = [["thaw", "report", str(report)]] if report else []
    commands += [["tensorboard", "--logdir", str(logdir)]] if logdir else []
    return [f"{'     ' if number else 'Next:'} {shlex.join(each)}" for number, each in enumerate(commands)]
