import ast
import inspect
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

import thaw
from thaw import config as schema
from thaw.backbone_names import BACKBONE_NAMES
from thaw.config import (
    AugmentConfig,
    BackboneConfig,
    Config,
    DatasetConfig,
    HeadConfig,
    LoggerConfig,
    OptimizerConfig,
    ScheduleConfig,
    StrategyConfig,
    TrainerConfig,
    recheck,
)
from thaw.errors import ThawError

ROOT = Path(__file__).parents[1]
CONF = ROOT / "conf"
NAN, INF = float("nan"), float("inf")

Compose = Callable[..., DictConfig]


def options(owner: type = Config, prefix: str = "") -> Iterator[tuple[str, type, Any]]:
    """Every option: its full name, the dataclass that it is a field of, and its type."""
    types = get_type_hints(owner)
    for field in fields(owner):
        kind = types[field.name]
        if is_dataclass(kind):
            assert isinstance(kind, type)
            yield from options(kind, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, owner, kind


OWNERS = {key: owner for key, owner, _ in options()}
TYPES = {key: kind for key, _, kind in options()}


def with_value(key: str, value: Any) -> Any:
    """The options of the group of `key`, at their defaults but for one."""
    return OWNERS[key](**{key.rpartition(".")[2]: value})


# ---- every option by itself

UNCHECKED = {
    "dataset.label_pattern",
    "dataset.csv",
    "dataset.csv_path",
    "dataset.csv_label",
    "dataset.csv_split",
    "dataset.csv_group",
    "dataset.csv_fold",
    "dataset.exclude",
    "dataset.relabel",
    "dataset.classes",
    "backbone.weights",
    "augment.transforms",
    "optimizer.extra",
    "strategy.name",
    "trainer.accelerator",
    "trainer.distribution",
    "trainer.callbacks",
    "trainer.extra",
    "logger.project",
    "logger.uri",
    "logger.extra",
    "sweep.resume",
    "resume",
}
"""Free texts, and what only Lightning, torchvision or the data can judge."""

RULES: dict[str, tuple[list[Any], list[Any]]] = {
    "dataset.name": (["hymenoptera", "hotdog", "canidae", "pets", "digits", "folder"], ["Hotdog", "", "mnist"]),
    "dataset.root": (["data", "/"], [""]),
    "dataset.train_per_class": ([None, 1, 10**9], [0, -1]),
    "dataset.val_fraction": ([0.0, 0.999], [-0.001, 1.0, INF]),
    "dataset.test_fraction": ([0.0, 0.799], [-0.001, 1.0, INF]),
    "dataset.split_seed": ([0, 2**32 - 1], [-1, 2**32]),
    "dataset.num_folds": ([None], [1, 0, -1]),
    "dataset.fold": ([None], [-1]),
    "dataset.on_bad": (["error", "skip"], ["ignore"]),
    "dataset.batch_size": ([1, 4096], [0, -1]),
    "dataset.balance": (["none", "loss", "sampler"], ["yes"]),
    "dataset.num_workers": (["auto", 0, 64, 256], ["automatic", "", -1, 257, True, 1.5]),
    "dataset.cache": (["auto", "ram", "none"], ["disk"]),
    "dataset.image_size": ([None, 8, 1024, 10**4], [7, 0, -1, 10**4 + 1]),
    "dataset.resize": (
        [None, 8, 10**4, [256, 300]],
        [7, -1, 10**4 + 1, [256, 10**9], True, 256.0, "256", [256], [1, 2, 3], [256, 7], [256, NAN], [True, 256]],
    ),
    "backbone.name": (["resnet18", "vit_b_16", "squeezenet1_1"], ["resnet19", "", "fcn_resnet50"]),
    "head.init": (["auto", "probe", "default", "xavier", "zeros", "weights"], ["ones"]),
    "head.dropout": ([0.0, 0.999], [-0.001, 1.0]),
    "augment.policy": (["none", "default", "trivial", "rand", "color"], ["auto"]),
    "augment.crop_scale": ([[0.001, 1.0], [1.0, 1.0]], [[], [0.5], [0.0, 1.0], [0.9, 0.8], [0.5, 1.001], [NAN, 1.0]]),
    "augment.crop_ratio": ([[0.1, 10.0]], [[1.0, 2.0, 3.0], [-1.0, 1.0], [2.0, 1.0], [1.0, 10.1], [0.5, NAN]]),
    "augment.start_size": ([None, 8, 1024, 10**4], [7, 0, -1, 10**4 + 1]),
    "augment.flip": ([0.0, 1.0], [-0.1, 1.1]),
    "augment.vertical_flip": ([0.0, 1.0], [-0.1, 1.1]),
    "augment.degrees": ([0.0, 180.0], [-0.1, 180.1]),
    "augment.erasing": ([0.0, 1.0], [-0.1, 1.1]),
    "augment.mixup": ([0.0, 5.0], [-0.1, INF]),
    "augment.cutmix": ([0.0, 5.0], [-0.1, INF]),
    "augment.label_smoothing": ([0.0, 0.999], [-0.1, 1.0]),
    "optimizer.name": (["sgd", "adamw", "torch.optim.NAdam"], ["SGD", "adam", "torch.", "torch optim.Adam", ""]),
    "optimizer.lr": ([1e-9, 100.0, 1, "auto"], [0.0, -1e-3, INF, NAN, True, "automatic", ""]),
    "optimizer.momentum": ([0.0, 0.999], [-0.1, 1.0]),
    "optimizer.weight_decay": ([0.0, 10.0], [-1e-4, INF]),
    "find_lr.num_steps": ([20, 10**4], [19, 0, -1, 10**4 + 1]),
    "find_lr.lowest": ([1e-12, 1.0], [0.0, -1e-6, INF]),
    "find_lr.highest": ([2e-6, 100.0], [1e-6, 0.0, INF]),
    "schedule.name": (["constant", "step", "one_cycle", "cosine"], ["linear"]),
    "schedule.warmup_epochs": ([0.0, 0.5, 100.0], [-0.1, INF]),
    "schedule.step_epochs": ([1, 100], [0, -1]),
    "schedule.step_factor": ([0.001, 1.0], [0.0, 1.001]),
    "schedule.peak_fraction": ([0.001, 0.999], [0.0, 1.0]),
    "schedule.start_factor": ([0.001, 1.0], [0.0, 1.001]),
    "schedule.final_factor": ([0.0, 1.0], [-0.001, 1.001]),
    "schedule.low_momentum": ([0.0, 0.999], [-0.1, 1.0]),
    "strategy.backbone_factor": ([0.0, 10.0], [-0.1, INF]),
    "strategy.first_stage_factor": ([1e-6, 1.0], [0.0, 2.0]),
    "strategy.trainable_fraction": ([0.001, 1.0], [0.0, 1.001]),
    "strategy.trainable_stages": ([None, 1, 1000], [0, -1]),
    "strategy.head_epochs": ([0, 100], [-1]),
    "strategy.unfreeze_epochs": ([0, 100], [-1]),
    "strategy.feature_views": (["mirror", "fresh", 1, 1000], ["stale", "", 0, -1, 1001, True, 1.5]),
    "strategy.joint_factor": ([1e-6, 1.0], [0.0, 1.001]),
    "trainer.max_epochs": ([1, 10**5], [-1, -5, 10**5 + 1]),
    "trainer.devices": (
        ["auto", 1, 8, 256, [0], [1, 3]],
        ["all", 0, -1, 257, True, [], [1, 1], [-1], [256], ["0"], [True], [[0]]],
    ),
    "trainer.num_nodes": ([1, 8], [0, -1]),
    "trainer.precision": (
        ["auto", "32", "32-true", "64", "64-true", "bf16", "bf16-mixed", "bf16-true", "16-mixed"],
        ["fp32", "8", ""],
    ),
    "trainer.monitor": (["val/acc", "val/loss", "val/macro_f1", "val/kappa"], ["acc", "train/loss"]),
    "trainer.ties": (["first", "last"], ["best"]),
    "trainer.eval_every": ([1, 100], [0, -1]),
    "trainer.early_stopping": ([None, 1, 100], [0, -1]),
    "trainer.gradient_clip": ([None, 1e-6, 100.0], [0.0, -1.0, INF]),
    "trainer.accumulate": ([1, 100], [0, -1]),
    "trainer.ema_decay": ([None, 0.001, 0.999], [0.0, 1.0, -0.1]),
    "trainer.checkpoint_seconds": ([0.0, 3600.0], [-1.0]),
    "sweep.prune_after_trials": ([0, 100], [-1]),
    "sweep.prune_after_epochs": ([0, 100], [-1]),
    "logger.name": (["tensorboard", "csv", "wandb", "mlflow"], ["comet"]),
    "loss": ([None, {"_target_": "mine.Focal", "gamma": 2}], ["focal", {}, {"gamma": 2}, ["focal"]]),
    "metrics": (
        [{}, {"kappa": {"_target_": "mine.Kappa"}}],
        [["acc"], "acc", *({name: {}} for name in ("acc", "loss", "macro_f1", "top5", "n", "my kappa", "a/b", ""))],
    ),
    "features": (["auto", "off"], ["on", ""]),
    "seed": ([0, 2**32 - 1], [-1, 2**32]),
}
"""Values that each option takes, its choices and bounds among them, and values that it refuses."""


REFUSED = [
    pytest.param(key, value, id=f"{key}={value}")
    for key, (_, refused) in RULES.items()
    for value in refused + [NAN] * (TYPES[key] in (float, float | None))
]


def test_every_option_has_a_rule() -> None:
    checked = {key for key, kind in TYPES.items() if kind not in (bool, bool | None)}
    assert checked == RULES.keys() | UNCHECKED
    assert not RULES.keys() & UNCHECKED


def test_the_defaults_are_valid() -> None:
    assert Config() == Config()
    assert Config().dataset is not Config().dataset


@pytest.mark.parametrize("key", RULES)
def test_every_choice_and_bound_is_accepted(key: str) -> None:
    accepted, _ = RULES[key]
    for value in accepted:
        assert getattr(with_value(key, value), key.rpartition(".")[2]) == value


@pytest.mark.parametrize(("key", "value"), REFUSED)
def test_a_refused_value_is_answered_with_the_full_key_the_rule_and_the_value(key: str, value: Any) -> None:
    with pytest.raises(ThawError, match=rf"^{re.escape(key)} must be .+, got .*\.") as caught:
        with_value(key, value)
    assert repr(value) in str(caught.value)
    assert "\n" not in str(caught.value)


WRONG: dict[Any, list[Any]] = {
    int: [9.0, True, "9", [9]],
    float: [True, "0.5", [0.5]],
    str: [5, ["a"]],
    list[str]: [[0, 1], "ab", 2],
    list[float]: [[True, 1.0], ["0.5", "1.0"], 0.5],
    dict[str, Any]: ["a", ["a"]],
}
"""Values of another type than an option's, as Python lets them be given."""


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (key, value)
        for each, values in WRONG.items()
        for key, kind in TYPES.items()
        if kind in (each, each | None)
        for value in values
    ],
)
def test_a_value_of_another_type_is_answered_as_any_other_mistake(key: str, value: Any) -> None:
    with pytest.raises(ThawError, match=rf"^{re.escape(key)} must be .+, got {re.escape(repr(value))}\.") as caught:
        with_value(key, value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: DatasetConfig(classes=[0, 1]), "dataset.classes must be null or a list of texts, got [0, 1]."),
        (lambda: DatasetConfig(batch_size=8.0), "dataset.batch_size must be a whole number, got 8.0."),
        (lambda: DatasetConfig(num_folds=2.5, fold=0), "dataset.num_folds must be null or a whole number, got 2.5."),
        (lambda: TrainerConfig(eval_every=1.5), "trainer.eval_every must be a whole number, got 1.5."),
        (lambda: Config(seed=True), "seed must be a whole number, got True."),
        (lambda: Config(DatasetConfig(), "resnet18"), "backbone must be a BackboneConfig, got 'resnet18'."),
    ],
)
def test_what_type_an_option_must_have_is_told(build: Callable[[], Any], message: str) -> None:
    with pytest.raises(ThawError) as caught:
        build()
    assert str(caught.value) == message


def test_whole_numbers_are_numbers_and_paths_are_texts() -> None:
    assert (AugmentConfig(mixup=1).mixup, TrainerConfig(gradient_clip=2).gradient_clip) == (1, 2)
    assert DatasetConfig(root=Path("photos"), classes=("ants", "bees")).root == "photos"  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("key", "value", "meant"),
    [
        ("dataset.name", "hotdogs", "hotdog"),
        ("backbone.name", "resnet_50", "resnet50"),
        ("optimizer.name", "adam", "adamw"),
        ("schedule.name", "onecycle", "one_cycle"),
        ("trainer.monitor", "val_acc", "val/acc"),
    ],
)
def test_the_nearest_choice_is_suggested(key: str, value: str, meant: str) -> None:
    with pytest.raises(ThawError, match=f"Did you mean '{meant}'?"):
        with_value(key, value)


def test_a_path_may_begin_at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    options = DatasetConfig(root="~/photos", csv="~/labels.csv", exclude="~nobody1.csv", relabel="~/mended.csv")
    assert (options.root, options.csv, options.exclude) == ("/home/me/photos", "/home/me/labels.csv", "~nobody1.csv")
    assert options.relabel == "/home/me/mended.csv"


# ---- options that contradict each other


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: DatasetConfig(fold=0), "dataset.num_folds must be given beside dataset.fold, got None."),
        (
            lambda: DatasetConfig(num_folds=5),
            "dataset.num_folds=5 needs dataset.fold, which of them is val. For each in turn: -m dat",
        ),
        (lambda: DatasetConfig(num_folds=5, fold=5), "dataset.fold must be below dataset.num_folds=5, got 5."),
        (
            lambda: DatasetConfig(val_fraction=0.5, test_fraction=0.5),
            "dataset.val_fraction + dataset.test_fraction must be below 1, got 1.0.",
        ),
        (
            lambda: DatasetConfig(csv="a.csv", label_pattern="^(.)"),
            "dataset.csv and dataset.label_pattern must be used one at a time",
        ),
        (
            lambda: DatasetConfig(csv_path="images/{id}.jpg"),
            "dataset.csv must be given beside dataset.csv_path, got None.",
        ),
        (lambda: DatasetConfig(csv_label="breed"), "dataset.csv must be given beside dataset.csv_label, got None."),
        (
            lambda: DatasetConfig(csv_split="is_valid"),
            "dataset.csv must be given beside dataset.csv_split, got None.",
        ),
        (
            lambda: DatasetConfig(csv_group="patient"),
            "dataset.csv must be given beside dataset.csv_group, got None.",
        ),
        (
            lambda: DatasetConfig(csv="a.csv", csv_fold="fold"),
            "dataset.num_folds must be given beside dataset.csv_fold, got None.",
        ),
        (lambda: OptimizerConfig("adamw", nesterov=True), "optimizer.nesterov must be false unless"),
        (lambda: OptimizerConfig(momentum=0, nesterov=True), "optimizer.nesterov must be false unless"),
        (
            lambda: TrainerConfig(extra={"fast_dev_run": True}),
            "trainer.extra.fast_dev_run must be left out (trainer=debug takes its place), got True.",
        ),
        (lambda: TrainerConfig(extra={"overfit_batches": 0.1}), "trainer.extra.overfit_batches must be left out"),
        (lambda: TrainerConfig(extra={"limit_val_batches": 0}), "trainer.extra.limit_val_batches must be more than 0"),
        (
            lambda: TrainerConfig(extra={"limit_predict_batches": 1}),
            "trainer.extra.limit_predict_batches must be left out",
        ),
        (lambda: TrainerConfig(extra={"sync_batchnorm": True}), "trainer.extra.sync_batchnorm must be left out"),
        (lambda: TrainerConfig(extra={"limit_train_batches": 0}), "trainer.extra.limit_train_batches must be more"),
        (
            lambda: TrainerConfig(extra={"max_steps": 0}),
            "trainer.extra.max_steps must be more than 0 (strategy=probe trains nothing), got 0.",
        ),
        (
            lambda: LoggerConfig("tensorboard", tensorboard=True),
            "logger.tensorboard must be false unless logger=wandb or logger=mlflow, got True.",
        ),
        (
            lambda: LoggerConfig("tensorboard", extra={"tags": ["mine"]}),
            "logger.extra is for logger=wandb and logger=mlflow, got logger=tensorboard.",
        ),
        (
            lambda: LoggerConfig("wandb", extra={"project": "mine"}),
            "logger.extra.project must be left out (logger.project, logger.uri and the run's folder tell it), got "
            "'mine'.",
        ),
        (
            lambda: TrainerConfig(extra={"max_epochs": 4}),
            "trainer.extra.max_epochs must be left out (trainer.max_epochs takes its place), got 4.",
        ),
        (
            lambda: TrainerConfig(extra={"reload_dataloaders_every_n_epochs": 0}),
            "trainer.extra.reload_dataloaders_every_n_epochs must be left out (Thaw's own choice takes its place)",
        ),
        (
            lambda: Config(
                strategy=StrategyConfig(backbone_factor=1, head_epochs=3), trainer=TrainerConfig(max_epochs=3)
            ),
            "strategy.head_epochs=3 leaves no epoch for the backbone: trainer.max_epochs is 3. Set "
            "strategy.head_epochs=1, raise trainer.max_epochs, or use strategy=frozen.",
        ),
        (
            lambda: Config(
                strategy=StrategyConfig(backbone_factor=1, head_epochs=10), trainer=TrainerConfig(max_epochs=10)
            ),
            "strategy.head_epochs=10 leaves no epoch for the backbone: trainer.max_epochs is 10. Set "
            "strategy.head_epochs=3, raise trainer.max_epochs, or use strategy=frozen.",
        ),
        (
            lambda: Config(
                strategy=StrategyConfig(backbone_factor=1, head_epochs=10), trainer=TrainerConfig(max_epochs=1)
            ),
            "strategy.head_epochs=10 leaves no epoch for the backbone: trainer.max_epochs is 1. Raise "
            "trainer.max_epochs, or use strategy=frozen.",
        ),
        (
            lambda: Config(schedule=ScheduleConfig(warmup_epochs=3), trainer=TrainerConfig(max_epochs=3)),
            "schedule.warmup_epochs must be below 3, the epochs that the schedule runs for, got 3",
        ),
        (
            lambda: Config(
                schedule=ScheduleConfig(warmup_epochs=1.5, per_phase=True),
                strategy=StrategyConfig(backbone_factor=1, head_epochs=2),
                trainer=TrainerConfig(max_epochs=3),
            ),
            "schedule.warmup_epochs must be below 1, the epochs that the schedule runs for, got 1.5",
        ),
        (
            lambda: Config(head=HeadConfig("weights"), backbone=BackboneConfig(weights=None)),
            "head.init=weights takes the head of an earlier run: set backbone.weights=RUN_FOLDER.",
        ),
        (lambda: Config(head=HeadConfig("weights")), "head.init=weights takes the head of an earlier run"),
        (
            lambda: TrainerConfig(ema_decay=0.999, precision="bf16-true"),
            "trainer.ema_decay moves the average by less than bf16 can tell, so it would stay near the weights of the "
            "beginning: set trainer.precision=bf16-mixed.",
        ),
        (
            lambda: Config(
                head=HeadConfig("weights"),
                backbone=BackboneConfig(weights="a"),
                strategy=StrategyConfig(from_scratch=True),
            ),
            "head.init=weights takes the head of an earlier run",
        ),
    ],
)
def test_a_contradiction_is_refused(build: Callable[[], Any], message: str) -> None:
    with pytest.raises(ThawError) as caught:
        build()
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(("name", "meant"), [("accuracy", "acc"), ("kapa", "kappa"), ("macro-f1", "macro_f1")])
def test_a_metric_that_is_not_counted_chooses_no_epoch(name: str, meant: str) -> None:
    metrics = {"kappa": {"_target_": "mine.Kappa"}}
    with pytest.raises(
        ThawError, match=rf"^trainer\.monitor must .*, got 'val/{name}'\. Did you mean 'val/{meant}'\?$"
    ):
        Config(metrics=metrics, trainer=TrainerConfig(monitor=f"val/{name}"))
    Config(metrics=metrics, trainer=TrainerConfig(monitor="val/kappa"))
    with pytest.raises(ThawError, match=r"^trainer\.monitor must .*, got 'val/kappa'\."):
        Config(trainer=TrainerConfig(monitor="val/kappa"))


def test_a_loss_of_ones_own_has_not_what_cross_entropy_has() -> None:
    loss = {"_target_": "mine.Focal"}
    with pytest.raises(ThawError, match=r"^dataset\.balance is of cross-entropy and .*: set it to none or sampler\.$"):
        Config(DatasetConfig(balance="loss"), loss=loss)
    with pytest.raises(ThawError, match=r"^augment\.label_smoothing is of cross-entropy and .*: set it to 0\.$"):
        Config(augment=AugmentConfig(label_smoothing=0.1), loss=loss)
    Config(DatasetConfig(balance="sampler"), augment=AugmentConfig(mixup=0.2), loss=loss)


def test_a_presets_name_without_its_numbers_does_not_train_frozen() -> None:
    presets = {path.stem: OmegaConf.load(path) for path in (CONF / "strategy").glob("*.yaml")}
    factors = {name: OmegaConf.select(content, "strategy.backbone_factor") for name, content in presets.items()}
    assert sorted(name for name, factor in factors.items() if factor) == sorted(schema.THAWING_PRESETS)
    for name in schema.THAWING_PRESETS:
        with pytest.raises(
            ThawError, match=rf"would train frozen, .* Type strategy={name}; .*StrategyConfig\('{name}'"
        ):
            StrategyConfig(name)
        StrategyConfig(name, backbone_factor=0.1)


@pytest.mark.parametrize(
    "build",
    [
        lambda: DatasetConfig(num_folds=5, fold=4),
        lambda: OptimizerConfig(nesterov=True),
        lambda: Config(strategy=StrategyConfig(backbone_factor=1, head_epochs=2), trainer=TrainerConfig(max_epochs=3)),
        lambda: Config(strategy=StrategyConfig(backbone_factor=0, head_epochs=3), trainer=TrainerConfig(max_epochs=3)),
        lambda: Config(schedule=ScheduleConfig(warmup_epochs=2.5), trainer=TrainerConfig(max_epochs=3)),
        lambda: Config(
            schedule=ScheduleConfig(warmup_epochs=1),
            head=HeadConfig("probe"),
            trainer=TrainerConfig(max_epochs=0),
        ),
        lambda: Config(head=HeadConfig("weights"), backbone=BackboneConfig(weights="outputs/run")),
    ],
)
def test_what_fits_together_is_accepted(build: Callable[[], Any]) -> None:
    build()


def test_a_probe_is_not_trained_for_the_epochs_of_the_others_in_a_sweep() -> None:
    trainer = TrainerConfig(max_epochs=3)
    config = Config(strategy=StrategyConfig("probe"), trainer=trainer)
    assert (config.trainer, trainer.max_epochs) == (TrainerConfig(max_epochs=0), 3)
    assert Config(strategy=StrategyConfig("probe"), optimizer=OptimizerConfig(lr="auto")).optimizer.lr == 3e-3
    assert recheck(config) == config


@pytest.mark.parametrize("options", [{"policy": "color"}, {"vertical_flip": 0.5}, {"degrees": 1}, {"erasing": 0.5}])
def test_images_that_the_gpu_cuts_are_not_augmented_otherwise(options: dict[str, Any]) -> None:
    with pytest.raises(ThawError, match=r"dataset\.cache=device cuts images on the GPU, mirrors them horizontally and"):
        Config(DatasetConfig(cache="device"), augment=AugmentConfig(**options))
    Config(DatasetConfig(cache="device"), augment=AugmentConfig(flip=0, mixup=0.2))


def test_options_changed_after_they_were_made_are_checked_again() -> None:
    config = Config()
    config.optimizer.lr = 1
    assert config.optimizer.rate == 1
    config.trainer.max_epochs, config.head.init = 0, "default"
    with pytest.raises(ThawError, match=r"trainer\.max_epochs=0 trains nothing"):
        recheck(config)
    config.trainer.max_epochs = -1
    with pytest.raises(ThawError, match=r"trainer\.max_epochs must be a whole number from 0 to"):
        recheck(config)
    config.trainer.max_epochs = 7
    assert recheck(config) == config


@pytest.mark.parametrize(
    ("group", "name", "message"),
    [
        ("trainer", "max_epoch", r"trainer\.max_epoch is not an option\. Did you mean 'max_epochs'\?"),
        ("optimizer", "learning", r"optimizer\.learning is not an option\."),
        (None, "sed", r"sed is not an option\. Did you mean 'seed'\?"),
        (None, "lr", r"lr is not an option\."),
    ],
)
def test_a_misspelt_option_is_not_passed_over(group: str | None, name: str, message: str) -> None:
    config = Config()
    setattr(getattr(config, group) if group else config, name, 2)
    with pytest.raises(ThawError, match=rf"^{message}$"):
        recheck(config)


def test_a_group_is_no_name_from_python() -> None:
    config = Config()
    config.strategy = "finetune"  # type: ignore[assignment]
    with pytest.raises(ThawError, match=r"^strategy must be a thaw\.StrategyConfig, got 'finetune'\.$"):
        recheck(config)
    with pytest.raises(ThawError, match=r"^The options of a training are a thaw\.Config, .* got 'dataset=digits'\.$"):
        recheck("dataset=digits")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["train", "find_lr"])
def test_an_experiment_checks_its_options_before_anything_else(name: str, tmp_path: Path) -> None:
    experiment, config = getattr(thaw, name), Config()
    config.augment.policy = "nothing"
    with pytest.raises(ThawError, match=r"augment\.policy must be one of .*, got 'nothing'"):
        experiment(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


# ---- documentation


def undocumented_fields(owner: ast.ClassDef) -> Iterator[str]:
    """The fields of a class that no text of its own follows."""
    for statement, follower in zip(owner.body, [*owner.body[1:], None], strict=True):
        if isinstance(statement, ast.AnnAssign):
            is_text = isinstance(follower, ast.Expr) and isinstance(follower.value, ast.Constant)
            if not (is_text and isinstance(follower.value.value, str)):
                yield f"{owner.name}.{ast.unparse(statement.target)}"


def test_every_field_says_what_it_means() -> None:
    classes = [node for node in ast.parse(inspect.getsource(schema)).body if isinstance(node, ast.ClassDef)]
    assert {node.name for node in classes} >= {owner.__name__ for owner in OWNERS.values()}
    assert all(ast.get_docstring(node) for node in classes)
    assert [name for node in classes for name in undocumented_fields(node)] == []


# ---- what it costs


@pytest.mark.parametrize("module", ["thaw.config", "thaw.launch.entry"])
def test_importing_the_options_does_not_import_torch(module: str) -> None:
    code = (
        f"import sys, {module}; print(sorted({{'torch', 'lightning', 'numpy', 'PIL', 'sklearn'}} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


# ---- the presets in conf/

GROUPS = [*(field.name for field in fields(Config) if (CONF / field.name).is_dir()), "experiment"]
CHOICES = {group: sorted(path.stem for path in (CONF / group).glob("*.yaml")) for group in GROUPS}
FILES = [CONF / group / f"{choice}.yaml" for group in GROUPS for choice in CHOICES[group]]


def accepted(values: DictConfig) -> Config:
    config = OmegaConf.to_object(values)
    assert isinstance(config, Config)
    return config


def preset(path: Path) -> DictConfig:
    """The options of a file, in their groups; what is Hydra's left out."""
    values = OmegaConf.load(path)
    if path.parent != CONF and not path.read_text().startswith("# @package _global_"):
        values = OmegaConf.create({path.parent.name: values})
    assert isinstance(values, DictConfig)
    return OmegaConf.masked_copy(values, [key for key in values if key not in ("hydra", "defaults")])


def keys_of(values: DictConfig, prefix: str = "") -> Iterator[str]:
    for key, value in values.items_ex(resolve=False):
        if isinstance(value, DictConfig) and f"{prefix}{key}" not in ("trainer.callbacks", "trainer.extra"):
            yield from keys_of(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def recommended_overrides(experiment: str) -> list[str]:
    """The options of the command at the head of an experiment's file; of a sweep's, those of its first job."""
    head = (CONF / "experiment" / f"{experiment}.yaml").read_text().replace("\\\n#", "")
    command = re.search(r"python train\.py (.*)", head)
    assert command is not None
    words = [word.partition(",")[0] for word in shlex.split(command[1]) if word != "-m"]
    return [word for word in words if not word.startswith("hydra.")]


@pytest.mark.parametrize(
    ("group", "choice"),
    [(group, choice) for group in GROUPS if group != "experiment" for choice in CHOICES[group]],
)
def test_every_choice_gives_valid_options(compose: Compose, group: str, choice: str) -> None:
    if group == "sweep":
        pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    config = accepted(compose(f"{group}={choice}"))
    name = getattr(getattr(config, group), "name", None) or getattr(getattr(config, group), "policy", None)
    preset_of_another = {"pets_official": "pets", "resnet50_v1": "resnet50"}
    assert name == preset_of_another.get(choice, choice) or group in ("trainer", "sweep")


@pytest.mark.parametrize("experiment", CHOICES["experiment"])
def test_every_experiment_is_started_by_the_command_at_its_head(compose: Compose, experiment: str) -> None:
    overrides = recommended_overrides(experiment)
    assert f"experiment={experiment}" in overrides
    accepted(compose(*overrides))


def test_every_backbone_is_a_choice(compose: Compose) -> None:
    store = ConfigStore.instance()
    for name in BACKBONE_NAMES:
        assert BackboneConfig(**store.load(f"backbone/{name}.yaml").node).name == name
    assert not set(CHOICES["backbone"]) & set(BACKBONE_NAMES)  # Hydra warns where a file and the store have one name
    assert accepted(compose("backbone=vit_b_16")).backbone.name == "vit_b_16"


def test_the_plain_command_is_the_published_frozen_baseline(compose: Compose) -> None:
    config = accepted(compose())
    names = (config.dataset.name, config.backbone.name, config.strategy.name, config.optimizer.name)
    assert names == ("hymenoptera", "resnet18", "frozen", "sgd")


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, id=f"{path.parent.name}={path.stem}") for path in FILES],
)
def test_every_value_of_a_preset_takes_effect(compose: Compose, path: Path) -> None:
    is_experiment = path.parent.name == "experiment"
    overrides = recommended_overrides(path.stem) if is_experiment else [f"{path.parent.name}={path.stem}"]
    values, own = compose(*overrides), preset(path)
    expected = OmegaConf.merge(OmegaConf.structured(Config), own)
    for key in keys_of(own):
        assert OmegaConf.select(values, key) == OmegaConf.select(expected, key), key


@pytest.mark.parametrize("strategy", CHOICES["strategy"])
def test_a_strategys_own_values_win_over_the_other_presets(compose: Compose, strategy: str) -> None:
    values = compose("optimizer=sgd", "trainer=cpu", "schedule=one_cycle", f"strategy={strategy}")
    own = preset(CONF / "strategy" / f"{strategy}.yaml")
    expected = OmegaConf.merge(OmegaConf.structured(Config), own)
    for key in keys_of(own):
        assert OmegaConf.select(values, key) == OmegaConf.select(expected, key), key
    assert (values.schedule.name, values.trainer.accelerator) == ("one_cycle", "cpu")


@pytest.mark.parametrize(("strategy", "rates"), {"finetune": (3e-4, 1e-3), "boosted_head": (3e-3, 1e-2)}.items())
def test_a_head_that_begins_as_the_probe_has_a_lower_rate(
    compose: Compose, strategy: str, rates: tuple[float, float]
) -> None:
    from_probe, at_random = rates
    for options in ([], ["head.init=probe"], ["head.init=weights", "backbone.weights=outputs/run"]):
        assert compose(f"strategy={strategy}", *options).optimizer.lr == from_probe
    for options in (["head.init=zeros"], ["features=off"], ["backbone.weights=null"], ["strategy.from_scratch=true"]):
        assert compose(f"strategy={strategy}", *options).optimizer.lr == at_random
    assert compose(f"strategy={strategy}", "optimizer.lr=0.5").optimizer.lr == 0.5


@pytest.mark.parametrize("strategy", CHOICES["strategy"])
def test_adamw_has_a_rate_of_its_own(compose: Compose, strategy: str) -> None:
    """At SGD's it is too fast: strategy=boosted_head, ants and bees, 8 epochs: 0.65 in place of 0.91."""
    values = compose(f"strategy={strategy}", "optimizer=adamw")
    rate = 1e-4 if strategy == "finetune" else 1e-3
    assert (values.optimizer.name, values.optimizer.lr, values.optimizer.weight_decay) == ("adamw", rate, 1e-2)
    assert compose(f"strategy={strategy}", "optimizer=adamw", "optimizer.lr=0.5").optimizer.lr == 0.5


def test_presets_of_ones_own_take_effect_beside_a_strategy(compose: Compose, tmp_path: Path) -> None:
    for group, text in (
        ("dataset", "name: folder\nroot: photos"),
        ("trainer", "max_epochs: 40"),
        ("schedule", "per_phase: false"),
        ("optimizer", "lr: 0.5"),
    ):
        (tmp_path / group).mkdir()
        (tmp_path / group / "mine.yaml").write_text(text)
    own = [f"{group}=mine" for group in ("dataset", "trainer", "schedule", "optimizer")]
    config = accepted(compose(f"hydra.searchpath=[{tmp_path}]", *own, "strategy=gradual"))
    assert (config.dataset.root, config.trainer.max_epochs) == ("photos", 40)
    assert (config.schedule.per_phase, config.optimizer.lr) == (False, 0.5)


@pytest.mark.parametrize("experiment", [[], ["experiment=hymenoptera_finetune"], ["experiment=pets"]])
def test_the_command_line_wins_over_all(compose: Compose, experiment: list[str]) -> None:
    config = accepted(compose("trainer.max_epochs=77", "optimizer.lr=0.25", *experiment, "strategy=gradual"))
    assert (config.trainer.max_epochs, config.optimizer.lr, config.strategy.name) == (77, 0.25, "gradual")


@pytest.mark.parametrize(
    ("experiment", "expected"),
    [
        (
            "hymenoptera_finetune",
            {"strategy": "finetune", "lr": 1e-3, "max_epochs": 25, "batch_size": 4, "schedule": "step"},
        ),
        (
            "hymenoptera_frozen",
            {"strategy": "frozen", "lr": 1e-3, "max_epochs": 25, "batch_size": 4, "schedule": "step"},
        ),
        (
            "hotdog_finetune",
            {"strategy": "boosted_head", "lr": 5e-4, "max_epochs": 5, "batch_size": 128, "schedule": "constant"},
        ),
        (
            "hotdog_scratch",
            {"strategy": "scratch", "lr": 5e-4, "max_epochs": 5, "batch_size": 128, "schedule": "constant"},
        ),
        (
            "canidae_frozen",
            {"strategy": "frozen", "lr": 0.1, "max_epochs": 20, "batch_size": 24, "schedule": "constant"},
        ),
        ("pets_frozen", {"strategy": "frozen", "lr": 3e-3, "max_epochs": 4, "batch_size": 64, "schedule": "one_cycle"}),
    ],
)
def test_an_experiment_has_the_settings_of_its_publication(
    compose: Compose, experiment: str, expected: dict[str, Any]
) -> None:
    config = accepted(compose(f"experiment={experiment}"))
    assert expected == {
        "strategy": config.strategy.name,
        "lr": config.optimizer.lr,
        "max_epochs": config.trainer.max_epochs,
        "batch_size": config.dataset.batch_size,
        "schedule": config.schedule.name,
    }


def test_a_recipes_resize_is_not_that_of_its_images_with_any_backbone(compose: Compose) -> None:
    assert accepted(compose("experiment=hotdog_scratch")).dataset.resize == [256, 256]
    assert accepted(compose("dataset=hotdog", "backbone=vit_h_14")).dataset.resize is None


@pytest.mark.parametrize("path", [CONF / "config.yaml", *FILES], ids=lambda path: f"{path.parent.name}={path.stem}")
def test_every_key_of_a_file_is_an_option(path: Path) -> None:
    assert set(keys_of(preset(path))) <= TYPES.keys()


def choices_in_help(text: str) -> dict[str, set[str]]:
    """The names after each group's; two spaces end a choice that is explained, a colon what stands before them all."""
    section = text.partition("Choices (GROUP=CHOICE)\n")[2].partition("\n\n")[0] + "\n"
    blocks = re.findall(r"^ {2}(\w+) +(.*\n(?: {3,}.*\n)*)", section, re.MULTILINE)
    return {
        group: set(" ".join(line.strip().partition("  ")[0] for line in block.splitlines()).rpartition(":")[2].split())
        for group, block in blocks
    }


@pytest.mark.slow
def test_help_names_every_choice_and_no_other() -> None:
    command = [sys.executable, str(ROOT / "train.py"), "--help"]
    listed = choices_in_help(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    files = {group: set(choices) for group, choices in CHOICES.items()}
    assert {group: listed[group] for group in files} == files | {"backbone": set(BACKBONE_NAMES)}


def test_policies_and_choices_of_the_schema_have_their_files() -> None:
    for group, key in (("optimizer", "name"), ("schedule", "name"), ("augment", "policy"), ("logger", "name")):
        assert sorted(name for name in RULES[f"{group}.{key}"][0] if "." not in name) == CHOICES[group]
    assert AugmentConfig().policy in CHOICES["augment"]
