from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf

from thaw.errors import ThawError, did_you_mean
from thaw.launch.explain import LISTED, explain, option_names, refuse_unknown
from thaw.launch.other_names import OTHER_NAMES

Compose = Callable[..., DictConfig]
HEADER = "{}.yaml sets options by their full names: its first line must be `# @package _global_`."
GROUP = "{0} is a group of options: write {0}.KEY=VALUE. A file of your own, {0}/NAME.yaml, is taken by +{0}=NAME."


def complaint(compose: Compose, *overrides: str) -> str | None:
    """What a user is told of some options of the command line, as `run_experiment` finds out."""
    with pytest.raises(Exception) as caught:  # noqa: PT011  (Hydra, omegaconf and we each raise our own)
        accept(compose, *overrides)
    return explain(caught.value)


def accept(compose: Compose, *overrides: str) -> None:
    values = compose(*overrides)
    refuse_unknown(values)
    OmegaConf.to_object(values)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "strategy=finetun",
            "strategy must be one of boosted_head, discriminative, finetune, frozen, gradual, last_stages, probe, "
            "scratch, got 'finetun'. Did you mean 'finetune'?",
        ),
        (
            "optimizer=adam",
            "optimizer must be one of adamw, sgd, got 'adam'. Did you mean 'adamw'? Any class works too, such as "
            "optimizer.name=torch.optim.RMSprop, with an optimizer.lr of its own.",
        ),
        (
            "optimizer.name=lion",
            "optimizer.name must be one of sgd, adamw, or a class, got 'lion'. Any class works too, such as "
            "optimizer.name=torch.optim.RMSprop, with an optimizer.lr of its own.",
        ),
        (
            "hydra.launcher.n_jobs=2",
            "hydra.launcher.n_jobs is not an option without a launcher: add hydra/launcher=NAME, one of joblib, "
            "submitit_local, submitit_slurm.",
        ),
        (
            "hydra.sweeper.n_trials=3",
            "hydra.sweeper.n_trials is not an option without a search: add sweep=search, or another of those that "
            "`thaw train --help` lists.",
        ),
        (
            "backbone=resnet_50",
            "backbone must be one of those that `thaw train --help` lists, got 'resnet_50'. Did you mean 'resnet50'?",
        ),
        *(
            (
                f"backbone={name}",
                f"backbone must be the name of a torchvision classifier, got '{name}': say backbone={own}.",
            )
            for name, own in {
                "timm/efficientnet_b0": "efficientnet_b0",
                "hf_hub:timm/efficientnet_b0.ra_in1k": "efficientnet_b0",
                "hf-hub:timm/resnet50.a1_in1k": "resnet50",
                "timm:resnet50": "resnet50",
                "torchvision.models.resnet50": "resnet50",
            }.items()
        ),
        (
            "backbone=microsoft/resnet-50",
            "backbone must be the name of a torchvision classifier, got 'microsoft/resnet-50'. "
            "Did you mean 'resnet50'? `thaw train --help` lists them.",
        ),
        (
            "backbone=timm/xcit_tiny_12_p16_224",
            "backbone must be the name of a torchvision classifier, got 'timm/xcit_tiny_12_p16_224'. "
            "`thaw train --help` lists them.",
        ),
        ("strategy=", "strategy must be one of "),
        (
            "strategy.head_epoch=3",
            f"strategy.head_epoch is not an option. Did you mean 'strategy.head_epochs'? {LISTED}",
        ),
        *(
            (f"{name}=focal", f"{name} is not an option. Did you mean 'loss'? {LISTED}")
            for name in ("loss_func", "loss_fn", "criterion", "focal")
        ),
        ("layer_decay=0.7", f"layer_decay is not an option. Did you mean 'strategy.first_stage_factor'? {LISTED}"),
        ("trainer.grad_accum=4", f"trainer.grad_accum is not an option. Did you mean 'trainer.accumulate'? {LISTED}"),
        ("~loss", "loss cannot be removed: give it a value, loss=VALUE."),
        ("+metric=kappa", f"metric is not an option. Did you mean 'metrics'? {LISTED}"),
        ("loss=focal", "loss must be null or {_target_: MODULE.CLASS, …}, got 'focal'."),
        ("metrics=[acc]", "metrics must be a mapping, got '[acc]'. Each is added by a name: +metrics.NAME=VALUE."),
        ("metrics={kappa: {_target_: a.B}}", "metrics takes each by a name: +metrics.NAME=VALUE."),
        ("metrics.f1={_target_: a.B}", "metrics.f1 adds a metric: write it with a plus sign, +metrics.f1=VALUE."),
        ("epochs=3", f"epochs is not an option. Did you mean 'trainer.max_epochs'? {LISTED}"),
        ("lr=0.1", f"lr is not an option. Did you mean 'optimizer.lr'? {LISTED}"),
        (
            "optimizer.learning_rate=1",
            f"optimizer.learning_rate is not an option. Did you mean 'optimizer.lr'? {LISTED}",
        ),
        ("batch_size=3", f"batch_size is not an option. Did you mean 'dataset.batch_size'? {LISTED}"),
        ("+trainer.batch_size=3", f"trainer.batch_size is not an option. Did you mean 'dataset.batch_size'? {LISTED}"),
        ("imgsz=64", f"imgsz is not an option. Did you mean 'dataset.image_size'? {LISTED}"),
        ("model=resnet50", f"model is not an option. Did you mean 'backbone'? {LISTED}"),
        ("trainer.gpus=2", f"trainer.gpus is not an option. Did you mean 'trainer.devices'? {LISTED}"),
        ("weights=null", f"weights is not an option. Did you mean 'backbone.weights'? {LISTED}"),
        ("name=a", f"name is not an option. {LISTED}"),
        (
            "dataset=/tmp/photos",
            "dataset must be a data set's name, got '/tmp/photos': say dataset=folder dataset.root=/tmp/photos.",
        ),
        ("dataset=a/b", "dataset must be a data set's name, got 'a/b': say dataset=folder dataset.root=a/b."),
        ("dataset=src", "dataset must be a data set's name, got 'src': say dataset=folder dataset.root=src."),
        ("sed=3", f"sed is not an option. Did you mean 'seed'? {LISTED}"),
        ("strategi=frozen", f"strategi is not an option. Did you mean 'strategy'? {LISTED}"),
        ("+foo=1", f"foo is not an option. {LISTED}"),
        ("+head.drop=1", f"head.drop is not an option. Did you mean 'head.dropout'? {LISTED}"),
        ("+foo.bar=1", f"foo is not an option. {LISTED}"),
        (
            "trainer.extra.max_time=1",
            "trainer.extra.max_time adds a flag of Lightning's Trainer: write it with a plus sign, "
            "+trainer.extra.max_time=VALUE.",
        ),
        (
            "augment.transforms.blur=1",
            "augment.transforms.blur adds a transform: write it with a plus sign, +augment.transforms.blur=VALUE.",
        ),
        (
            "trainer.profiler=simple",
            "trainer.profiler is not an option. A flag of Lightning's Trainer is written "
            "+trainer.extra.profiler=VALUE.",
        ),
        ("+trainer.max_epoch=1", "trainer.max_epoch is not an option. Did you mean 'trainer.max_epochs'? A flag of"),
        ("trainer.max_epochs=ten", "trainer.max_epochs must be a whole number, got 'ten'."),
        ("trainer.max_epochs=1.5", "trainer.max_epochs must be a whole number, got '1.5'."),
        ("head.dropout=much", "head.dropout must be a number, got 'much'."),
        ("augment.crop_scale=[a,1]", "augment.crop_scale[0] must be a number, got 'a'."),
        ("head.dropout=2", "head.dropout must be in [0, 1), got 2.0."),
        ("head.dropout=nan", "head.dropout must be in [0, 1), got nan."),
        ("dataset.num_workers=-1", "dataset.num_workers must be auto or a whole number from 0 to 256, got -1."),
        ("dataset.fold=1", "dataset.num_folds must be given beside dataset.fold, got None."),
        (
            "a=[",
            "Cannot read the option 'a=[': write KEY=VALUE, lists as KEY=[a,b], texts with =",
        ),
        ("frozen", "'frozen' is no folder of images, no CSV file and no option: write options KEY=VALUE."),
        (
            "strategy=frozen,finetune",
            "strategy=frozen,finetune is a sweep, a training for each: add -m to the command line. A list is written ",
        ),
        ("+head=nope", "There is no head/nope.yaml among the presets: name the folder that holds it by --config-dir."),
        ("optimizer.lr=interval(1e-3,1)", "optimizer.lr=interval(1e-3,1) is a sweep, a training for each: add -m to"),
        ("+seed=3", "seed is an option as it is: leave the plus sign out, seed=3."),
        (
            "+experiment=pets",
            "experiment has a choice already: leave the plus sign out, experiment=NAME, and in a file",
        ),
        ("dataset.root=a=b", "Cannot read the option 'dataset.root=a=b': write KEY=VALUE"),
    ],
)
def test_a_mistake_is_answered_with_the_option_the_rule_and_the_value(
    compose: Compose, override: str, message: str
) -> None:
    answer = complaint(compose, override)
    assert answer is not None
    assert answer.startswith(message)
    assert "\n" not in answer


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("trainer.compile=perhaps", "trainer.compile"),
        ("optimizer.lr=true", "optimizer.lr"),
        ("trainer.max_epochs=null", "trainer.max_epochs"),
        ("dataset.num_workers=1.5", "dataset.num_workers"),
        ("dataset.root=[a,b]", "dataset.root"),
        ("augment.crop_scale=1", "augment.crop_scale"),
        ("dataset.classes=[a,null]", "dataset.classes"),
    ],
)
def test_a_value_of_a_wrong_kind_is_answered_in_one_sentence(compose: Compose, override: str, key: str) -> None:
    answer = complaint(compose, override)
    assert answer is not None
    assert answer.startswith(f"{key} must be ")
    assert "\n" not in answer


@pytest.mark.parametrize(
    ("preset", "content", "message"),
    [
        ("strategy/mine", "strategy: {backbone_factor: 1}", HEADER),
        ("strategy/mine", "backbone_factor: 1\ntrainer: {max_epochs: 3}", HEADER),
        ("sweep/mine", "trainer: {max_epochs: 3}", HEADER),
        ("experiment/mine", "trainer: {max_epochs: 3}", HEADER),
        ("experiment/mine", "defaults:\n  - override /strategy: finetune", HEADER),
        (
            "dataset/mine",
            "rot: photos",
            "In dataset/mine.yaml: dataset.rot is not an option. Did you mean 'dataset.root'?",
        ),
        ("head/mine", "init: zeros", GROUP.format("head")),
        (
            "experiment/mine",
            "# @package _global_\ndefaults: [/dataset: pets]",
            "dataset has a choice already: leave the plus sign out, dataset=NAME, and in a file of your own write "
            "`override /dataset: NAME`.",
        ),
    ],
)
def test_what_is_wrong_with_a_file_of_ones_own_is_told(
    compose: Compose, tmp_path: Path, preset: str, content: str, message: str
) -> None:
    (tmp_path / preset).parent.mkdir()
    (tmp_path / f"{preset}.yaml").write_text(content)
    answer = complaint(compose, preset.replace("/", "="), f"hydra.searchpath=[file://{tmp_path}]")
    assert answer is not None
    assert answer.startswith(message.format(preset))


@pytest.mark.parametrize("override", ["head=raw", "find_lr=3"])
def test_a_group_without_choices_is_set_option_by_option(compose: Compose, override: str) -> None:
    assert complaint(compose, override) == GROUP.format(override.partition("=")[0])


@pytest.mark.parametrize("override", ["dataset=3", "strategy=null", "experiment=null"])
def test_what_cannot_be_a_choice_is_explained_too(compose: Compose, override: str) -> None:
    assert complaint(compose, override)


@pytest.mark.parametrize(
    "override", ["seed=3", "dataset.num_workers=auto", "dataset.num_workers=2", "dataset.resize=64"]
)
def test_sound_options_pass(compose: Compose, override: str) -> None:
    accept(compose, override)


@pytest.mark.parametrize("flag", ["max_time=00:01:00:00", "anything.deep.key=1"])
def test_any_flag_of_lightnings_trainer_may_be_added(compose: Compose, flag: str) -> None:
    accept(compose, f"+trainer.extra.{flag}")


def test_our_own_errors_are_their_message_and_others_are_none() -> None:
    assert explain(ThawError("dataset.root has no images.")) == "dataset.root has no images."
    assert explain(HydraException("Hydra has its own.")) == "Hydra has its own."
    for error in (ValueError("a"), RuntimeError("b"), KeyError("seed"), AssertionError()):
        assert explain(error) is None


def test_a_torchvision_that_was_built_for_another_torch_is_told() -> None:
    message = explain(RuntimeError("operator torchvision::nms does not exist"))  # as its import ends
    pair = f"torch {version('torch')} and torchvision {version('torchvision')}"
    assert message == f"{pair} do not belong together: install both anew, in one command and from one index."


def test_option_names_are_groups_and_what_is_in_them() -> None:
    names = list(option_names())
    assert {"seed", "dataset", "dataset.root", "trainer.extra", "head.dropout"} <= set(names)
    assert len(names) == len(set(names))
    assert {name for name in OTHER_NAMES.values() if not name.startswith("hydra.")} <= set(names)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("tes", " Did you mean 'test'?"),
        ("TEST", " Did you mean 'test'?"),
        ("", ""),
        ("xyz", ""),
        ("tran", " Did you mean 'train'?"),
    ],
)
def test_did_you_mean_offers_the_nearest_name_if_one_is_near(name: str, hint: str) -> None:
    assert did_you_mean(name, ["train", "val", "test"]) == hint


def test_did_you_mean_offers_a_family() -> None:
    choices = ["vit_b_16", "vit_b_32", "vgg11", "vgg13", "vgg16", "vgg19", "vgg11_bn", "vgg13_bn"]
    assert did_you_mean("ViT", choices) == " Did you mean one of vit_b_16, vit_b_32?"
    assert did_you_mean("vgg", choices) == " Did you mean one of vgg11, vgg13, vgg16, vgg19, vgg11_bn and 1 more?"
    assert did_you_mean("VGG11", choices) == " Did you mean 'vgg11'?"


def test_an_optional_launcher_that_is_not_installed_is_named_with_what_to_install() -> None:
    error = MissingConfigException("", "hydra/launcher/joblib", ["basic"])
    assert explain(error) == "hydra/launcher=joblib needs packages: pip install -e '.[sweeps]'."
