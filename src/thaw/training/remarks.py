"""What a training says before it begins: what will have no effect though it is asked for, or will not go well."""

from collections.abc import Collection, Sequence
from dataclasses import asdict

from thaw.config import Config, DatasetConfig, StrategyConfig
from thaw.model.strategy import rate_factors
from thaw.options import changed, typed

RANDOM_VIEWS_ONLY = {f"augment.{key}" for key in ("policy", "crop_scale", "crop_ratio", "degrees", "erasing")}
"""Options that change nothing of an image's centre crop and its mirror images."""
MIRRORS = {"augment.flip", "augment.vertical_flip"}
MOST_FOR_ADAMW = 5e-4
"""Rate of a pretrained backbone. Ants and bees, SqueezeNet, 8 epochs, three seeds, val accuracy: 0.682 ± 0.010 at 1e-3,
0.880 ± 0.014 at 1e-4."""


def warnings_before(
    config: Config, num_stages: int, num_frozen: int, sides: Sequence[int] = (), own_splits: Sequence[str] = ()
) -> list[str]:
    """Lines about what will not happen though it is asked for, or will not go well.

    Args:
        config: The options, with a number as `optimizer.lr`.
        num_stages: Stages of the backbone.
        num_frozen: Epochs on stored features.
        sides: Side of the crops in each epoch, in pixels; empty where they do not grow.
        own_splits: Splits that the data has itself.
    """
    lines = (
        fractions_left_out(config.dataset, own_splits),
        stages_left_frozen(config.strategy, config.trainer.max_epochs, num_stages),
        policy_left_out(config),
        augmentation_left_out(config, num_frozen),
        growth_left_out(config, sides, num_frozen),
        features_left_out(config, num_frozen),
        adamw_too_fast(config),
        chosen_on_a_part(config),
    )
    return [line for line in lines if line]


def fractions_left_out(options: DatasetConfig, own_splits: Sequence[str]) -> str | None:
    """A line about sizes of splits that are asked for and not made, as there are others; None if there are none."""
    own = f"the data has its own splits: {', '.join(own_splits)}"
    reasons = {"val_fraction": own if "val" in own_splits else "", "test_fraction": own if own_splits else ""}
    if options.fold is not None:
        reasons["val_fraction"] = f"val is fold {options.fold} of {options.num_folds}"
    left_out = {
        f"dataset.{key}={value}": reason
        for key, reason in reasons.items()
        if reason and (value := getattr(options, key)) != getattr(DatasetConfig, key)
    }
    return (
        f"Without effect: {', '.join(left_out)}, as {' and '.join(dict.fromkeys(left_out.values()))}."
        if left_out
        else None
    )


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


def policy_left_out(config: Config) -> str | None:
    """A line about augmentation that is asked for and that the policy does without; None if nothing is left out."""
    if config.augment.policy != "none":
        return None
    names = RANDOM_VIEWS_ONLY - {"augment.policy"} | MIRRORS | {"augment.start_size"}
    where = "where augment.policy=none shows images as they are evaluated"
    return _left_out(config, names, where, "augment=default")


def augmentation_left_out(config: Config, num_frozen: int) -> str | None:
    """A line about augmentation that is asked for and that stored features do without; None if nothing is left out.

    Args:
        config: The options.
        num_frozen: Epochs on stored features.
    """
    augment = config.augment
    if not num_frozen or config.strategy.feature_views != "mirror":
        return None
    names = {f"augment.transforms.{name}._target_" for name in augment.transforms}
    shown = "centre crops"
    if augment.policy != "none":
        names |= RANDOM_VIEWS_ONLY
        names |= {name for name in MIRRORS if getattr(augment, name.partition(".")[2]) not in (0.0, 0.5)}
        shown += " and their mirror images equally often"
    where = f"in epoch 1, which sees {shown}" if num_frozen == 1 else f"in epochs 1 to {num_frozen}, which see {shown}"
    return _left_out(config, names, where, "strategy.feature_views=fresh")


def _left_out(config: Config, names: Collection[str], where: str, remedy: str) -> str | None:
    """A line about those of some options that are asked for; None if there are none."""
    asked = changed(asdict(config))
    left_out = ", ".join(f"{name}={typed(asked[name][0])}" for name in asked if name in names)
    return f"Without effect {where}: {left_out} (set {remedy} to train on augmented images)." if left_out else None


def frozen_epochs(num_frozen: int, views: int | str) -> str:
    """A line about the epochs on stored features, and by which `strategy.feature_views`."""
    epochs = "Epoch 1 runs" if num_frozen == 1 else f"Epochs 1 to {num_frozen} run"
    return f"{epochs} on stored features (strategy.feature_views={views})"


def growth_left_out(config: Config, sides: Sequence[int], num_frozen: int) -> str | None:
    """A line about crops that would grow, where no epoch cuts smaller ones; None elsewhere.

    Args:
        config: The options.
        sides: Side of the crops in each epoch, in pixels; empty where they do not grow.
        num_frozen: Epochs on stored features.
    """
    left = sides[num_frozen:]
    if not sides or min(left, default=sides[-1]) < sides[-1]:
        return None
    why = (
        f"epoch {num_frozen + 1}, the first that runs on images, has crops of the full size already"
        if left
        else "all epochs run on features of images of the full size"
    )
    return f"Without effect: augment.start_size={config.augment.start_size}, as {why}."


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
