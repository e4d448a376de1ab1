from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import asdict, replace
from math import log, sqrt
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import lightning.pytorch as pl
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import f1_score
from torch import Tensor
from torchmetrics.classification import MulticlassF1Score
from torchvision.transforms.functional import normalize

from thaw.config import AugmentConfig, HeadConfig, OptimizerConfig, ScheduleConfig, StrategyConfig, TrainerConfig
from thaw.data.transforms import EvaluationTransform
from thaw.errors import ThawError
from thaw.model.classifier import Classifier
from thaw.model.head import SMALLEST_BATCH, Standardize, make_head
from thaw.model.loading import load_head
from thaw.model.schedule import pace_at
from thaw.model.strategy import rate_factors
from thaw.model.weights import Weights, default_transform, find_weights
from thaw.seeding import seeded
from thaw.training.averaging import MovingAverage
from thaw.training.resuming import require_own_checkpoint

SMALL, WITH_NORMS = "squeezenet1_1", "mobilenet_v3_small"
CLASSES = ("ant", "bee", "cat")
TRANSFORM = EvaluationTransform(resize=40, crop=32)
FROZEN = StrategyConfig()
FINETUNE = StrategyConfig("finetune", backbone_factor=1)
GRADUAL = StrategyConfig(
    "gradual", backbone_factor=0.5, first_stage_factor=0.1, head_epochs=1, unfreeze_epochs=2, joint_factor=0.5
)
TWO_EPOCHS = TrainerConfig(max_epochs=2)

Fit = Callable[..., pl.Trainer]
State = dict[str, Tensor]
Groups = list[dict[str, Any]]


def classifier(backbone: str = SMALL, classes: tuple[str, ...] = CLASSES, **options: Any) -> Classifier:
    torch.manual_seed(0)
    return Classifier(backbone, classes, **{"transform": TRANSFORM, **options})


def batch(num_images: int = 8, num_classes: int = len(CLASSES)) -> tuple[Tensor, Tensor]:
    """Uint8 images (B, 3, 32, 32) of noise, and labels (B,)."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (num_images, 3, 32, 32), dtype=torch.uint8, generator=generator)
    return images, torch.arange(num_images) % num_classes


def state_of(model: torch.nn.Module) -> State:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(first: State, second: State) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


class Watch(pl.Callback):
    """Keeps the loss and the optimizer's groups of every step."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.steps: list[Groups] = []

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, *_: Any) -> None:
        self.losses.append(outputs["loss"].item())
        self.steps.append([dict(group) for group in trainer.optimizers[0].param_groups])


@pytest.fixture
def watch() -> Watch:
    return Watch()


# ---- what it computes


@pytest.mark.parametrize("mean_and_std", [{}, {"mean": (0.5, 0.4, 0.3), "std": (0.1, 0.2, 0.3)}])
def test_normalisation_is_torchvisions(mean_and_std: dict[str, Any]) -> None:
    transform = EvaluationTransform(40, 32, **mean_and_std)
    images, _ = batch()
    expected = normalize(images / 255, list(transform.mean), list(transform.std))
    torch.testing.assert_close(Classifier(SMALL, CLASSES, transform).normalize(images), expected)


def test_logits_of_images_are_those_of_their_features() -> None:
    model = classifier().eval()
    images, _ = batch()
    features = model.extract(model.normalize(images))
    assert features.shape == (8, model.backbone.num_features)
    assert model(images).shape == (8, 3)
    assert torch.equal(model(features), model(images))


def test_head_computes_in_float32_under_mixed_precision() -> None:
    model = classifier().eval()
    with torch.autocast("cpu", torch.bfloat16):
        features = model.extract(model.normalize(batch()[0]))
        logits = model(features)
    assert features.dtype == torch.bfloat16
    assert logits.dtype == torch.float32
    assert torch.equal(logits, model(features.float()))


@pytest.mark.parametrize("precision", ["64-true", "bf16-true", "bf16-mixed"])
def test_every_precision_trains(precision: str, fit: Fit) -> None:
    model = classifier(strategy=FINETUNE, class_weights=torch.tensor([1.0, 2.0, 3.0]))
    metrics = fit(model, batch(16), max_epochs=2, precision=precision).callback_metrics
    assert torch.isfinite(metrics["val/loss"])


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_gradients_are_clipped_at_mixed_precision(name: str, fit: Fit, watch: Watch) -> None:
    """Lightning refuses it of a fused optimizer, which is what every other training has."""
    options = {"strategy": FINETUNE, "optimizer": OptimizerConfig(name)}
    for precision, clip, fused in (("bf16-mixed", 0.1, False), ("bf16-mixed", None, True), ("32-true", 0.1, True)):
        fit(classifier(**options), batch(), precision=precision, gradient_clip_val=clip, callbacks=[watch])
        assert {group["fused"] for group in watch.steps[-1]} == {fused}


def test_default_transform_is_that_of_the_default_weights() -> None:
    assert Classifier(SMALL, CLASSES).transform == default_transform(SMALL)


@pytest.mark.parametrize(
    ("options", "tolerance"), [(HeadConfig(), 0.35), (HeadConfig("zeros"), 1e-5), (HeadConfig(standardize=False), 0.35)]
)
@pytest.mark.parametrize("num_classes", [2, 37])
def test_initial_loss_is_near_that_of_guessing(num_classes: int, options: HeadConfig, tolerance: float) -> None:
    model = classifier(classes=tuple(map(str, range(num_classes))), head=options)
    images, labels = batch(32, num_classes)
    assert F.cross_entropy(model(images), labels).item() == pytest.approx(log(num_classes), abs=tolerance)


@pytest.mark.parametrize(
    ("backbone", "strategy"),
    [(SMALL, FROZEN), pytest.param("resnet18", FINETUNE, marks=pytest.mark.slow)],
    ids=["frozen", "finetune"],
)
def test_sixteen_images_can_be_overfitted(backbone: str, strategy: StrategyConfig, fit: Fit) -> None:
    options = {"optimizer": OptimizerConfig(lr=0.03), "schedule": ScheduleConfig("constant")}
    model = classifier(backbone, strategy=strategy, **options)
    metrics = fit(model, batch(16), max_epochs=15, batch_size=16).callback_metrics
    assert metrics["train/acc"] == 1
    assert metrics["train/loss"] < 0.3


# ---- the head


def test_head_init_xavier() -> None:
    linear = make_head(HeadConfig("xavier"), 100, 50)[-1]
    bound = sqrt(6 / 150)
    assert 0.98 * bound < linear.weight.abs().max() <= bound
    assert not linear.bias.any()


def test_head_init_zeros() -> None:
    assert not any(parameter.any() for parameter in make_head(HeadConfig("zeros"), 100, 50).parameters())


@pytest.mark.parametrize("init", ["auto", "default", "weights", "probe"])
def test_head_init_default_is_torchs_linear(init: str) -> None:
    torch.manual_seed(0)
    linear = make_head(HeadConfig(init), 100, 50)[-1]
    torch.manual_seed(0)
    assert same(state_of(linear), state_of(torch.nn.Linear(100, 50)))


def test_head_drops_features_in_training_only() -> None:
    head = make_head(HeadConfig("zeros", dropout=0.75, standardize=False), 10_000, 1)
    torch.nn.init.ones_(head[-1].weight)
    features = torch.eye(1).expand(1, 10_000)
    assert head.eval()(features).item() == 10_000
    assert head.train()(features).item() == pytest.approx(10_000, abs=800)
    assert head.train()(features).item() != 10_000


def test_standardised_features_have_unit_variance() -> None:
    features = 5 + 3 * torch.randn(64, 7)
    standardised = Standardize(7).train()(features)
    torch.testing.assert_close(standardised.mean(dim=0), torch.zeros(7), atol=1e-5, rtol=0)
    torch.testing.assert_close(standardised.var(dim=0, correction=0), torch.ones(7), atol=1e-4, rtol=0)


def test_standardising_one_image_takes_the_running_statistics() -> None:
    standardize = Standardize(7).train()
    for _ in range(3):
        standardize(5 + 3 * torch.randn(64, 7))
    before = state_of(standardize)
    one = torch.randn(1, 7)
    in_training = standardize(one)
    assert same(state_of(standardize), before)
    assert torch.equal(in_training, standardize.eval()(one))


def test_standardising_a_small_batch_takes_the_running_statistics_and_adds_to_them() -> None:
    standardize = Standardize(7).train()
    batch = 5 + 3 * torch.randn(SMALLEST_BATCH - 1, 7)
    standardised = standardize(batch)
    expected = (batch - standardize.running_mean) / (standardize.running_var + 1e-5).sqrt()
    assert torch.allclose(standardised, expected, atol=1e-5)
    for _ in range(200):
        standardize(5 + 3 * torch.randn(SMALLEST_BATCH - 1, 7))
    assert torch.allclose(standardize.running_mean, torch.full((7,), 5.0), atol=1.5)
    assert torch.allclose(standardize.running_var, torch.full((7,), 9.0), atol=5)


def test_the_first_small_batch_sets_the_scale() -> None:
    batch = 300 + 16 * torch.randn(4, 512) * (torch.rand(512) < 0.5)  # half of the features are constant
    standardised = Standardize(512).train()(batch)
    assert 0.5 < standardised.std() < 1.5
    assert standardised.abs().max() < 6


def test_features_that_a_small_batch_hardly_shows_do_not_explode_the_gradient() -> None:
    standardize = Standardize(1).train()
    for _ in range(50):
        standardize(torch.randn(4, 1))
    features = torch.tensor([[0.0], [0.0], [0.0], [1e-4]], requires_grad=True)
    (standardize(features) * torch.tensor([[1.0], [-1.0], [2.0], [0.0]])).sum().backward()
    assert features.grad is not None
    assert features.grad.abs().max() < 4  # 474 by the batch's own variance


def test_last_batch_of_one_image(fit: Fit) -> None:
    model = classifier(WITH_NORMS, strategy=FROZEN)
    fit(model, batch(9), batch_size=8)
    assert all(torch.isfinite(tensor).all() for tensor in model.state_dict().values())


def test_head_of_a_run_is_taken_over() -> None:
    theirs, ours = state_of(classifier().head), classifier()
    torch.nn.init.zeros_(ours.head[-1].weight)
    load_head(ours, Weights("a run", {}, TRANSFORM, head=theirs, classes=CLASSES))
    assert same(state_of(ours.head), theirs)


@pytest.mark.parametrize(
    ("classes", "line"),
    [
        (("cat", "ant", "bee"), "; head taken over"),
        (("dog", "cat"), "; head taken over but for the new classes ant, bee"),
    ],
)
def test_of_a_head_of_other_classes_what_is_known_is_taken_over(classes: tuple[str, ...], line: str) -> None:
    theirs, ours, before = (classifier() for _ in range(3))
    theirs.head[2] = torch.nn.Linear(theirs.head[2].in_features, len(classes))
    theirs.head[0].running_mean.fill_(3)
    ours.head.load_state_dict(before.head.state_dict())
    assert load_head(ours, Weights("a run", {}, TRANSFORM, head=state_of(theirs.head), classes=classes)) == line
    assert torch.equal(ours.head[0].running_mean, theirs.head[0].running_mean)
    for name in ("weight", "bias"):
        new, old, known = (getattr(model.head[2], name) for model in (ours, before, theirs))
        for row, class_ in enumerate(CLASSES):
            assert torch.equal(new[row], known[classes.index(class_)] if class_ in classes else old[row])


@pytest.mark.parametrize(("classes", "shown"), [(("dog", "wolf"), "dog, wolf"), ((), "none")])
def test_head_of_other_classes_is_refused(classes: tuple[str, ...], shown: str) -> None:
    model = classifier()
    weights = Weights("a run", {}, TRANSFORM, head=state_of(model.head), classes=classes)
    with pytest.raises(
        ThawError, match=rf"^head\.init=weights .*: a run has {shown}; the data has ant, bee, cat\. Use"
    ):
        load_head(model, weights)


@pytest.mark.parametrize("standardize", [True, False])
def test_head_that_is_built_otherwise_is_refused(standardize: bool) -> None:
    theirs = classifier(head=HeadConfig(standardize=not standardize))
    weights = Weights("a run", {}, TRANSFORM, head=state_of(theirs.head), classes=CLASSES)
    with pytest.raises(ThawError, match=r"head\.standardize differs from that of a run"):
        load_head(classifier(head=HeadConfig(standardize=standardize)), weights)


def test_head_of_another_shape_is_refused() -> None:
    model = classifier()
    theirs = state_of(classifier(WITH_NORMS).head)
    with pytest.raises(ThawError, match=rf"needs a run of backbone={SMALL}: the head of a run has other shapes, in "):
        load_head(model, Weights("a run", {}, TRANSFORM, head=theirs, classes=CLASSES))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(2, 3, 32, 32), "Images must be uint8, from 0 to 255, got torch.float32."),
        (
            torch.zeros(3, 32, 32, dtype=torch.uint8),
            "Images must be in batches (B, 3, H, W), features (B, F), got (3, 32, 32).",
        ),
    ],
)
def test_what_is_no_batch_of_images_is_refused(images: Tensor, message: str) -> None:
    with pytest.raises(ThawError) as caught:
        classifier()(images)
    assert str(caught.value) == message


class Halving(Classifier):
    """A loss and an optimizer of its own."""

    def loss(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor | int]:
        loss, number = super().loss(logits, targets)
        return loss / 2, number

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.RMSprop(self.head.parameters(), lr=0.25)


def test_a_subclass_may_have_a_loss_and_an_optimizer_of_its_own(fit: Fit) -> None:
    watches = []
    for kind in (Classifier, Halving):
        torch.manual_seed(0)
        watches.append(Watch())
        fit(kind(SMALL, CLASSES, TRANSFORM, strategy=FROZEN), batch(), callbacks=[watches[-1]])
    plain, halving = watches
    assert plain.losses[0] == pytest.approx(2 * halving.losses[0])
    assert halving.steps[0][0]["lr"] == 0.25


def test_the_last_step_of_an_epoch_weighs_as_much_as_the_others(fit: Fit) -> None:
    weights = []
    for number in (2, 5):
        options = {"optimizer": OptimizerConfig(momentum=0.0), "schedule": ScheduleConfig("constant")}
        model = classifier(strategy=FROZEN, head=HeadConfig(standardize=False), **options)
        fit(model, batch(16), accumulate_grad_batches=number)
        weights.append(model.head[2].weight.detach())
    torch.testing.assert_close(*weights)


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("options", [{}, {"accumulate_grad_batches": 2}, {"precision": "bf16-mixed"}])
def test_a_loss_of_ones_own_is_what_training_minimises(reduction: str, options: dict[str, Any], fit: Fit) -> None:
    own = torch.nn.CrossEntropyLoss(torch.tensor([1.0, 1.0, 1.0]), reduction=reduction)
    plain, other = classifier(strategy=FINETUNE), classifier(strategy=FINETUNE, own_loss=own)
    expected = fit(plain, batch(20), **options).callback_metrics
    metrics = fit(other, batch(20), **options).callback_metrics
    for name, value in expected.items():
        torch.testing.assert_close(metrics[name], value)
    torch.testing.assert_close(state_of(other), state_of(plain), rtol=1e-4, atol=1e-6)
    assert state_of(other).keys() == state_of(plain).keys()  # nothing of it is kept


def test_the_loss_of_the_validation_stays_cross_entropy(fit: Fit) -> None:
    own = classifier(strategy=FROZEN, own_loss=lambda logits, targets: 0 * logits.sum())
    metrics = fit(own, batch()).callback_metrics
    assert metrics["train/loss"] == 0
    torch.testing.assert_close(metrics["val/loss"], F.cross_entropy(own.eval()(batch()[0]), batch()[1]))


def test_a_loss_of_ones_own_has_float32_at_mixed_precision_and_the_targets_that_mixing_makes(fit: Fit) -> None:
    seen = []

    def own(logits: Tensor, targets: Tensor) -> Tensor:
        seen.append((logits.dtype, tuple(targets.shape), (logits @ logits.T).dtype))
        return F.cross_entropy(logits, targets)

    fit(classifier(own_loss=own, augment=AugmentConfig(mixup=0.2)), batch(), precision="bf16-mixed")
    fit(classifier(own_loss=own), batch(), precision="bf16-mixed")
    fit(classifier(own_loss=own), batch(), precision="64-true")
    assert seen == [(torch.float32, shape, torch.float32) for shape in ((8, 3), (8,), (8,))]


def test_a_metric_of_ones_own_is_counted_on_real_images_alone(fit: Fit) -> None:
    model = classifier(strategy=FROZEN, own_metrics={"f1": MulticlassF1Score(3, average="macro")})
    metrics = fit(model, batch(20), max_epochs=2).callback_metrics
    torch.testing.assert_close(metrics["val/f1"], metrics["val/macro_f1"])
    assert "train/f1" not in metrics
    images, labels = batch(9)
    with torch.no_grad():
        model.eval().validation_step((images, labels[:8]), 0)  # the last image only fills the step
        expected = MulticlassF1Score(3, average="macro")(model(images[:8]).softmax(dim=1), labels[:8])
    assert model.own_metrics.compute() == {"f1": expected}


def test_lightnings_own_test_counts_the_images(fit: Fit) -> None:
    model = classifier(strategy=FROZEN)
    trainer = fit(model, batch())
    validated = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
    (tested,) = trainer.test(model, trainer.val_dataloaders, verbose=False)
    assert tested == {name.replace("val", "test"): pytest.approx(value) for name, value in validated.items()}


@pytest.mark.parametrize("stage", [-1, 99])
def test_only_stages_that_there_are_can_be_frozen(stage: int) -> None:
    with pytest.raises(ThawError, match=r"freeze_to takes from 0 to \d+ stages, got"):
        classifier().freeze_to(stage)


def test_what_is_frozen_by_hand_is_not_thawed_by_a_strategy_without_a_word(fit: Fit) -> None:
    model = classifier(strategy=StrategyConfig("finetune", backbone_factor=1.0)).freeze()
    with pytest.raises(ThawError, match=r"^The strategy 'finetune' says what is frozen in each epoch, and would undo "):
        fit(model, batch())
    fit(classifier().freeze(), batch())


def test_a_training_without_a_number_of_epochs_has_no_schedule(fit: Fit) -> None:
    with pytest.raises(ThawError, match="give the Trainer max_epochs"):
        fit(classifier(strategy=FROZEN), batch(), max_epochs=-1)


# ---- what is frozen


@pytest.mark.parametrize("backbone", ["resnet18", WITH_NORMS])
def test_frozen_run_moves_the_head_and_nothing_else(backbone: str, fit: Fit) -> None:
    model = classifier(backbone, strategy=FROZEN)
    features, head = state_of(model.backbone), state_of(model.head)
    fit(model, batch(), max_epochs=2, batch_size=4)
    assert same(state_of(model.backbone), features)  # BatchNorm's statistics and counts too
    assert all(not torch.equal(tensor, head[name]) for name, tensor in model.head.state_dict().items())
    assert all(parameter.grad is None for parameter in model.backbone.parameters())


def test_fine_tuning_moves_everything(fit: Fit) -> None:
    model = classifier(WITH_NORMS, strategy=FINETUNE)
    before = state_of(model)
    fit(model, batch(), max_epochs=2, batch_size=4)
    still = [name for name, tensor in model.state_dict().items() if torch.equal(tensor, before[name])]
    assert still == []


def test_only_the_last_stages_move(fit: Fit) -> None:
    model = classifier(WITH_NORMS, strategy=StrategyConfig(backbone_factor=1, trainable_stages=4))
    before = [stage_state(model, index) for index in range(len(model.backbone.stages))]
    fit(model, batch(), max_epochs=2, batch_size=4)
    is_still = [same(stage_state(model, index), state) for index, state in enumerate(before)]
    assert is_still == [True] * (len(is_still) - 4) + [False] * 4


def stage_state(model: Classifier, index: int) -> State:
    return state_of(torch.nn.ModuleList(model.backbone.stages[index].modules))


def test_stages_thaw_in_their_epochs(fit: Fit) -> None:
    num_frozen: list[int] = []

    class Count(pl.Callback):
        def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            num_frozen.append(sum(stage.is_frozen for stage in pl_module.backbone.stages))

    fit(classifier(strategy=GRADUAL), batch(4), max_epochs=4, callbacks=[Count()])
    assert num_frozen == [9, 4, 0, 0]


def test_train_keeps_frozen_stages_in_evaluation_mode() -> None:
    model = classifier(WITH_NORMS).freeze_to(5)
    for _ in range(2):  # through evaluation and back
        model.eval()
        assert not any(module.training for module in model.modules())
        model.train()
        assert training_modes(model) == [{False}] * 5 + [{True}] * 9
        assert model.head.training


def training_modes(model: Classifier) -> list[set[bool]]:
    """For every stage, the modes that its modules are in."""
    return [{module.training for unit in stage.modules for module in unit.modules()} for stage in model.backbone.stages]


def test_frozen_stages_are_in_evaluation_mode_after_a_validation(fit: Fit) -> None:
    modes: list[list[set[bool]]] = []

    class Look(pl.Callback):
        def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
            modes.append(training_modes(pl_module))

    strategy = StrategyConfig(backbone_factor=1, trainable_stages=9)
    fit(classifier(WITH_NORMS, strategy=strategy), batch(), max_epochs=3, callbacks=[Look()])
    assert modes == [[{False}] * 5 + [{True}] * 9] * 3


@pytest.mark.parametrize(
    ("strategy", "learns"),
    [
        (FROZEN, [False] * 9),
        (StrategyConfig("last", backbone_factor=1, trainable_stages=2), [False] * 7 + [True] * 2),
        (GRADUAL, [True] * 9),  # frozen at first, but what DDP does not see then it never shares
    ],
)
def test_what_never_learns_is_frozen_when_ddp_counts_the_weights(
    fit: Fit, strategy: StrategyConfig, learns: list[bool]
) -> None:
    class Look(pl.Callback):
        def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            assert isinstance(pl_module, Classifier)
            stages = pl_module.backbone.stages
            assert [any(parameter.requires_grad for parameter in stage.parameters()) for stage in stages] == learns

    fit(classifier(strategy=strategy), batch(4), max_epochs=4, callbacks=[Look()])


@pytest.mark.parametrize("training", [True, False])
def test_freezing_by_hand(training: bool) -> None:
    model = classifier().train(training)
    for act, num_frozen in (
        (model.freeze, 9),
        (lambda: model.freeze_to(4), 4),
        (model.unfreeze, 0),
        (lambda: model.freeze_to(1), 1),
    ):
        assert act() is model
        assert [stage.is_frozen for stage in model.backbone.stages] == [True] * num_frozen + [False] * (9 - num_frozen)
        assert training_modes(model) == [{False}] * num_frozen + [{training}] * (9 - num_frozen)
        assert all(parameter.requires_grad for parameter in model.head.parameters())


def test_without_strategy_what_was_frozen_by_hand_stays_so(fit: Fit, watch: Watch) -> None:
    model = classifier(schedule=ScheduleConfig("constant"), optimizer=OptimizerConfig(lr=0.02)).freeze_to(6)
    fit(model, batch(), max_epochs=2, callbacks=[watch])
    assert [stage.is_frozen for stage in model.backbone.stages] == [True] * 6 + [False] * 3
    assert {group["lr"] for groups in watch.steps for group in groups} == {0.02}


# ---- learning rates


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize(
    "schedule",
    [
        ScheduleConfig("one_cycle", low_momentum=0.8),
        ScheduleConfig("step", step_epochs=2, step_factor=0.5),
        ScheduleConfig("cosine", warmup_epochs=1.5),
    ],
    ids=lambda schedule: schedule.name,
)
def test_rates_are_optimizers_times_strategys_times_schedules(
    schedule: ScheduleConfig, optimizer: str, fit: Fit, watch: Watch
) -> None:
    options = OptimizerConfig(optimizer, lr=0.002, momentum=0.9)
    model = classifier(strategy=GRADUAL, optimizer=options, schedule=schedule)
    num_epochs, num_batches = 4, 3
    fit(model, batch(6), num_epochs, batch_size=2, callbacks=[watch])
    assert len(watch.steps) == num_epochs * num_batches
    for step, groups in enumerate(watch.steps):
        factors = rate_factors(GRADUAL, step // num_batches, len(model.backbone.stages))
        pace = pace_at(schedule, step / num_batches, num_epochs)
        momentum = 0.9 - pace.dip * (0.9 - schedule.low_momentum)
        for group in groups:
            for part in group["parts"]:
                assert group["lr"] == pytest.approx(0.002 * factors[part] * pace.rate)
            assert (group["betas"][0] if optimizer == "adamw" else group["momentum"]) == pytest.approx(momentum)


def test_low_momentum_does_not_raise_a_lower_one(fit: Fit, watch: Watch) -> None:
    schedule, optimizer = ScheduleConfig("one_cycle", low_momentum=0.85), OptimizerConfig(momentum=0.5)
    fit(classifier(strategy=FROZEN, schedule=schedule, optimizer=optimizer), batch(4), 4, callbacks=[watch])
    assert {group["momentum"] for groups in watch.steps for group in groups} == {0.5}


@pytest.mark.parametrize(("per_phase", "expected"), [(True, [1, 0.5, 1, 0.75, 0.25]), (False, None)])
def test_schedule_runs_anew_after_the_head_epochs(
    per_phase: bool, expected: list[float] | None, fit: Fit, watch: Watch
) -> None:
    strategy = StrategyConfig(backbone_factor=1, head_epochs=2)
    schedule = ScheduleConfig("cosine", per_phase=per_phase)
    model = classifier(strategy=strategy, schedule=schedule, optimizer=OptimizerConfig(lr=1e-3))
    fit(model, batch(4), max_epochs=5, callbacks=[watch])
    paces = [groups[-1]["lr"] / 1e-3 for groups in watch.steps]
    assert paces == pytest.approx(expected or [pace_at(schedule, epoch, 5).rate for epoch in range(5)])


def test_rates_by_name(fit: Fit) -> None:
    strategy = StrategyConfig(backbone_factor=0.5, first_stage_factor=0.01)
    model = classifier(strategy=strategy, optimizer=OptimizerConfig(lr=1e-3), schedule=ScheduleConfig("constant"))
    fit(model, batch(4))
    rates = model.rates()
    assert list(rates) == [*(f"lr/stage_{index:02d}" for index in range(9)), "lr/head"]
    assert [rates["lr/stage_00"], rates["lr/stage_08"], rates["lr/head"]] == pytest.approx([5e-6, 5e-4, 1e-3])


# ---- optimizer


@pytest.mark.parametrize(("name", "kind"), [("sgd", torch.optim.SGD), ("adamw", torch.optim.AdamW)])
def test_every_parameter_is_in_one_group_and_only_kernels_decay(name: str, kind: type) -> None:
    model = classifier(WITH_NORMS, optimizer=OptimizerConfig(name, weight_decay=0.01)).freeze_to(3)
    optimizer = model.configure_optimizers()
    assert isinstance(optimizer, kind)
    grouped = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    assert len(grouped) == len(list(model.parameters()))
    assert {id(parameter) for parameter in grouped} == {id(parameter) for parameter in model.parameters()}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            assert group["weight_decay"] == (0.01 if parameter.ndim >= 2 else 0)


def test_a_first_step_that_overflows_leaves_no_momentum() -> None:
    model = classifier()
    model._trainer = cast(Any, SimpleNamespace(precision="16-mixed", gradient_clip_val=None))
    optimizer, scaler = model.configure_optimizers(), torch.amp.GradScaler("cpu")
    weight = cast(Tensor, model.head[2].weight)
    for gradient, expected in ((float("inf"), None), (1.0, torch.ones_like(weight))):
        optimizer.zero_grad()
        scaler.scale((weight * gradient).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        momentum = optimizer.state[weight].get("momentum_buffer") if weight in optimizer.state else None
        assert (momentum is None) == (expected is None)
        assert expected is None or torch.equal(cast(Tensor, momentum), expected)


@pytest.mark.parametrize(
    ("name", "spared"),
    [
        ("vit_b_32", {"class_token", "pos_embedding"}),
        ("swin_v2_t", {"logit_scale"}),
        ("swin_t", {"relative_position_bias_table"}),
        ("convnext_tiny", {"layer_scale"}),
    ],
)
def test_what_is_no_kernel_does_not_decay_whatever_its_shape(name: str, spared: set[str]) -> None:
    with torch.device("meta"):
        model = classifier(name, optimizer=OptimizerConfig(weight_decay=0.01))
    decays = {
        parameter: group["weight_decay"] > 0
        for group in model.configure_optimizers().param_groups
        for parameter in group["params"]
    }
    named = {name: parameter for name, parameter in model.named_parameters() if parameter.ndim >= 2}
    assert {name.rpartition(".")[2] for name, parameter in named.items() if not decays[parameter]} == spared
    assert all(decays[parameter] for name, parameter in named.items() if name.endswith("weight"))


@pytest.mark.parametrize("strategy", [None, FROZEN, GRADUAL, StrategyConfig(backbone_factor=0.1)])
def test_groups_are_of_whole_stages_that_learn_alike(strategy: StrategyConfig | None) -> None:
    model = classifier(WITH_NORMS, strategy=strategy)
    parts = [*model.backbone.stages, model.head]
    groups = model.configure_optimizers().param_groups
    assert [part for group in groups for part in group["parts"]] == list(range(len(parts)))
    for group in groups:
        own = [parameter for part in group["parts"] for parameter in parts[part].parameters()]
        assert group["params"] == own


def test_nesterov() -> None:
    optimizer = classifier(optimizer=OptimizerConfig(nesterov=True)).configure_optimizers()
    assert all(group["nesterov"] for group in optimizer.param_groups)


# ---- loss and metrics


def first_loss(model: Classifier, data: tuple[Tensor, Tensor], fit: Fit) -> float:
    watch = Watch()
    fit(model, data, callbacks=[watch])
    return watch.losses[0]


def training_logits(model: Classifier, inputs: Tensor) -> Tensor:
    """Logits as the first step of a frozen run has them, without a trace of having looked."""
    return deepcopy(model).train().freeze()(inputs).detach()


def test_label_smoothing(fit: Fit) -> None:
    model = classifier(strategy=FROZEN, augment=AugmentConfig(label_smoothing=0.3))
    images, labels = batch()
    log_probabilities = training_logits(model, images).log_softmax(dim=1)
    targets = 0.7 * F.one_hot(labels, 3) + 0.1
    assert first_loss(model, (images, labels), fit) == pytest.approx(
        -(targets * log_probabilities).sum(1).mean().item()
    )


def test_class_weights_count_in_training_only(fit: Fit) -> None:
    class_weights = torch.tensor([5.0, 1.0, 0.5])
    model = classifier(strategy=FROZEN, class_weights=class_weights, optimizer=OptimizerConfig(lr=1e-30))
    images, labels = batch()
    losses = F.cross_entropy(training_logits(model, images), labels, reduction="none")
    weights = class_weights[labels]
    assert first_loss(model, (images, labels), fit) == pytest.approx(((weights * losses).sum() / weights.sum()).item())
    expected = F.cross_entropy(model.eval()(images), labels).item()
    assert model.trainer.callback_metrics["val/loss"].item() == pytest.approx(expected)


@pytest.mark.parametrize("augment", [{"mixup": 1.0}, {"cutmix": 1.0}, {"mixup": 1.0, "cutmix": 1.0}])
@pytest.mark.parametrize("class_weights", [None, torch.tensor([5.0, 1.0, 0.5])], ids=["even", "weighted"])
def test_loss_of_mixed_images(augment: dict[str, float], class_weights: Tensor | None, fit: Fit) -> None:
    model = classifier(strategy=FROZEN, augment=AugmentConfig(**augment), class_weights=class_weights, seed=7)
    images, labels = batch()
    with seeded(7, 0, 0, 0):
        mixed, targets = model.mix(model.normalize(images), labels)
    logits = training_logits(model, deepcopy(model).freeze().extract(mixed))
    expected = F.cross_entropy(logits, targets, class_weights).item()
    assert first_loss(model, (images, labels), fit) == pytest.approx(expected)
    assert expected != pytest.approx(F.cross_entropy(training_logits(model, images), labels, class_weights).item())


def test_of_a_mixed_image_the_class_with_most_of_it_is_the_right_answer(fit: Fit) -> None:
    model = classifier(strategy=FROZEN, augment=AugmentConfig(mixup=1.0), seed=7)
    images, labels = batch()
    with seeded(7, 0, 0, 0):
        mixed, targets = model.mix(model.normalize(images), labels)
    logits = training_logits(model, deepcopy(model).freeze().extract(mixed))
    expected = (logits.argmax(dim=1) == targets.argmax(dim=1)).double().mean().item()
    assert fit(model, (images, labels)).callback_metrics["train/acc"].item() == pytest.approx(expected)
    assert not torch.equal(targets.argmax(dim=1), labels)


@pytest.mark.parametrize("backbone", ["resnet19", torch.nn.Flatten()])
def test_what_is_no_name_of_a_backbone_is_refused(backbone: Any) -> None:
    with pytest.raises(ThawError, match=r"^backbone\.name must be a torchvision classifier, got "):
        Classifier(backbone, ["ants", "bees"])


def test_features_are_not_mixed(fit: Fit) -> None:
    features, labels = torch.randn(8, 512), batch()[1]
    plain, mixing = (classifier(strategy=FROZEN, augment=AugmentConfig(mixup=alpha)) for alpha in (0, 1.0))
    assert first_loss(plain, (features, labels), fit) == first_loss(mixing, (features, labels), fit)


def test_metrics_are_over_images_not_over_batches(fit: Fit) -> None:
    images, labels = batch(9)
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 1, 2, 2])
    model = classifier(strategy=FROZEN)
    metrics = fit(model, (images, labels), batch_size=8).callback_metrics
    logits = model.eval()(images)
    predicted = logits.argmax(dim=1)
    assert metrics["val/loss"].item() == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)
    assert metrics["val/acc"].item() == pytest.approx((predicted == labels).double().mean().item())
    assert metrics["val/macro_f1"].item() == pytest.approx(f1_score(labels, predicted, average="macro"))
    assert {"train/loss", "train/acc", "train/macro_f1"} <= metrics.keys()


def test_metrics_begin_anew_in_each_epoch(fit: Fit) -> None:
    accuracies: list[float] = []

    class Note(pl.Callback):
        def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            accuracies.append(trainer.callback_metrics["train/acc"].item())

    model = classifier(strategy=FROZEN, optimizer=OptimizerConfig(lr=0.03), schedule=ScheduleConfig("constant"))
    fit(model, batch(16), max_epochs=15, batch_size=16, callbacks=[Note()])
    assert accuracies[0] < 1
    assert accuracies[-1] == 1


def test_predictions_are_logits_and_labels() -> None:
    model = classifier().eval()
    images, labels = batch()
    logits, same_labels = model.predict_step((images, labels.share_memory_()), 0)  # as a loader process sends them
    assert torch.equal(logits, model(images))
    assert torch.equal(same_labels, labels)
    assert not same_labels.is_shared()  # each keeps a file open, and all batches of a split are kept


# ---- stored features


def test_training_on_features_is_training_on_images(fit: Fit) -> None:
    on_images, on_features = (classifier(WITH_NORMS, strategy=FROZEN) for _ in range(2))
    images, labels = batch()
    with torch.no_grad():
        features = on_features.eval().extract(on_features.normalize(images))
    for model, inputs in ((on_images, images), (on_features, features)):
        fit(model.train(), (inputs, labels), max_epochs=3, batch_size=4)
    for name, tensor in on_images.head.state_dict().items():
        torch.testing.assert_close(on_features.head.state_dict()[name], tensor, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("training", [True, False])
def test_features_of_a_frozen_backbone(training: bool, fit: Fit) -> None:
    model = classifier(WITH_NORMS, strategy=FINETUNE)
    images, labels = batch()
    fit(model, (images, labels))
    model.train(training)
    before = state_of(model)
    features = model.extract_frozen(images)
    assert not features.requires_grad
    assert same(state_of(model), before)
    assert training_modes(model) == [{training}] * len(model.backbone.stages)
    assert torch.equal(features, model.eval().extract(model.normalize(images)))


def test_features_are_computed_on_the_device_of_the_training_after_it_too(
    fit: Fit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lightning takes the model to the CPU at the end of a fit; a device without values stands for the GPU."""
    model = classifier(WITH_NORMS, strategy=FROZEN)
    images, labels = batch()
    fit(model, (images, labels))
    monkeypatch.setattr(model.trainer.strategy, "_root_device", torch.device("meta"))
    assert model.extract_frozen(images).device.type == "meta"


# ---- randomness


def finetuned(fit: Fit, seed: int, global_seed: int) -> State:
    options = {"head": HeadConfig(dropout=0.5), "augment": AugmentConfig(mixup=0.4), "strategy": FINETUNE}
    model = classifier(WITH_NORMS, seed=seed, **options)
    torch.manual_seed(global_seed)
    fit(model, batch(), max_epochs=2, batch_size=4)
    return state_of(model)


def test_training_depends_on_its_own_seed_only(fit: Fit) -> None:
    first = finetuned(fit, seed=1, global_seed=1)
    assert same(first, finetuned(fit, seed=1, global_seed=2))
    assert not same(first, finetuned(fit, seed=2, global_seed=1))


def test_every_step_draws_anew(fit: Fit, watch: Watch) -> None:
    """Four steps on the same batch, two in each of two epochs, without learning anything."""
    options = {"head": HeadConfig(dropout=0.5), "optimizer": OptimizerConfig(lr=1e-30)}
    features, labels = torch.randn(8, 512), batch()[1]
    fit(classifier(strategy=FROZEN, **options), (features.repeat(2, 1), labels.repeat(2)), 2, callbacks=[watch])
    assert len(set(watch.losses)) == 4


# ---- checkpoints


class SaveAfter(pl.Callback):
    """Writes a checkpoint at the end of one epoch, as a run that is killed afterwards has it."""

    def __init__(self, epoch: int, path: Path) -> None:
        self.epoch = epoch
        self.path = path

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch == self.epoch:
            trainer.save_checkpoint(self.path)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("strategy", [FROZEN, FINETUNE, GRADUAL], ids=lambda strategy: strategy.name)
def test_resumed_run_ends_where_an_unbroken_one_does(
    strategy: StrategyConfig, optimizer: str, tmp_path: Path, fit: Fit
) -> None:
    options = {
        "head": HeadConfig(dropout=0.5),
        "augment": AugmentConfig(mixup=0.4),
        "strategy": strategy,
        "optimizer": OptimizerConfig(optimizer, lr=1e-3, weight_decay=0.01),
        "schedule": ScheduleConfig("one_cycle"),
    }
    path = tmp_path / "last.ckpt"
    unbroken = classifier(WITH_NORMS, **options)
    fit(unbroken, batch(), max_epochs=4, batch_size=4, callbacks=[SaveAfter(1, path)])
    resumed = classifier(WITH_NORMS, **options)
    for parameter in resumed.parameters():
        torch.nn.init.constant_(parameter, 1.0)  # everything has to come from the checkpoint
    torch.manual_seed(99)
    fit(resumed, batch(), max_epochs=4, batch_size=4, ckpt_path=path)
    assert same(state_of(resumed), state_of(unbroken))
    assert [stage.is_frozen for stage in resumed.backbone.stages] == [
        stage.is_frozen for stage in unbroken.backbone.stages
    ]


@pytest.mark.parametrize("resize", [40, (40, 48)])
@pytest.mark.parametrize(
    "head", [HeadConfig(), HeadConfig("weights", 0.5, standardize=False)], ids=["default", "other"]
)
def test_classifier_comes_back_from_its_checkpoint(resize: Any, head: HeadConfig, tmp_path: Path, fit: Fit) -> None:
    transform = EvaluationTransform(resize, 32, "bicubic", mean=(0.1, 0.2, 0.3))
    model = Classifier(WITH_NORMS, CLASSES, transform, head, FINETUNE, class_weights=torch.ones(3))
    images, labels = batch()
    fit(model, (images, labels)).save_checkpoint(tmp_path / "best.ckpt")
    loaded = Classifier.load_from_checkpoint(tmp_path / "best.ckpt")
    assert not loaded.training
    assert (loaded.backbone.name, loaded.classes) == (WITH_NORMS, CLASSES)
    assert (loaded.transform, loaded.head_options) == (transform, head)
    assert torch.equal(loaded(images), model.eval()(images))


def test_checkpoint_holds_tensors_and_plain_python(tmp_path: Path, fit: Fit) -> None:
    fit(classifier(strategy=GRADUAL), batch()).save_checkpoint(tmp_path / "best.ckpt")
    content = torch.load(tmp_path / "best.ckpt", weights_only=True)
    assert {type(leaf) for leaf in leaves(content)} <= {Tensor, str, int, float, bool, type(None)}
    assert content["thaw"]["head"] == asdict(HeadConfig())


def leaves(content: Any) -> Iterator[Any]:
    if isinstance(content, dict):
        for key, value in content.items():
            yield from leaves(key)
            yield from leaves(value)
    elif isinstance(content, list | tuple):
        for value in content:
            yield from leaves(value)
    else:
        yield content


def test_googlenets_own_normalisation_is_remembered(tmp_path: Path, fit: Fit) -> None:
    model = classifier("googlenet", strategy=FROZEN)
    model.backbone.network.transform_input = True
    images, labels = batch(2)
    fit(model, (images, labels)).save_checkpoint(tmp_path / "best.ckpt")
    loaded = Classifier.load_from_checkpoint(tmp_path / "best.ckpt")
    assert loaded.backbone.network.transform_input is True
    assert torch.equal(loaded(images), model.eval()(images))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"state_dict": {}}, "is not a checkpoint of Thaw. Expected RUN/checkpoints/best.ckpt"),
        ([1], "must hold tensors"),
    ],
)
def test_other_files_are_no_checkpoints(content: Any, message: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "a.ckpt")
    with pytest.raises(ThawError, match=message):
        Classifier.load_from_checkpoint(tmp_path / "a.ckpt")


@pytest.mark.parametrize(
    "damage", ["backbone", "classes", "transform", "head", "no tensors", "other classes", "no texts", "huge"]
)
def test_a_checkpoint_with_a_part_missing_or_wrong_is_refused(damage: str, tmp_path: Path, fit: Fit) -> None:
    path = tmp_path / "best.ckpt"
    fit(classifier(strategy=FROZEN), batch()).save_checkpoint(path)
    content = torch.load(path, weights_only=True)
    if damage == "no tensors":
        content["state_dict"] = {}
    elif damage == "no texts":
        content["thaw"]["classes"][0] = 1
    elif damage == "huge":
        content["thaw"]["transform"]["crop"] = 10**9
    elif damage == "other classes":
        content["thaw"]["classes"].append("wasps")
    else:
        del content["thaw"][damage]
    torch.save(content, path)
    with pytest.raises(ThawError, match=r"best\.ckpt is not a complete checkpoint of Thaw: [^\n]+\.$"):
        Classifier.load_from_checkpoint(path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("mean", [0.5]),
        ("std", [0.1, 0.0, 0.1]),
        ("std", [float("nan")] * 3),
        ("resize", "many"),
        ("crop", 32.5),
        ("crop", 0),
    ],
)
def test_a_checkpoint_with_a_transform_that_is_none_is_refused(key: str, value: Any, tmp_path: Path, fit: Fit) -> None:
    path = tmp_path / "best.ckpt"
    fit(classifier(strategy=FROZEN), batch()).save_checkpoint(path)
    content = torch.load(path, weights_only=True)
    content["thaw"]["transform"][key] = value
    torch.save(content, path)
    with pytest.raises(ThawError, match=r"best\.ckpt is not a complete checkpoint of Thaw: [^\n]+\.$"):
        Classifier.load_from_checkpoint(path)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_checkpoint_of_a_training_that_diverged_is_refused(bad: float, tmp_path: Path, fit: Fit) -> None:
    path = tmp_path / "last.ckpt"
    fit(classifier(strategy=FROZEN), batch()).save_checkpoint(path)
    content = torch.load(path, weights_only=True)
    content["state_dict"]["head.2.bias"][0] = bad
    torch.save(content, path)
    sentence = r"^\S+last\.ckpt has values that are infinite or no number, in head\.2\.bias: .* earlier checkpoint\.$"
    with pytest.raises(ThawError, match=sentence):
        Classifier.load_from_checkpoint(path)
    with pytest.raises(ThawError, match=sentence):
        require_own_checkpoint(path, classifier(), TWO_EPOCHS)
    weights = find_weights(SMALL, str(path))
    with pytest.raises(ThawError, match=r"in 2\.bias"):
        load_head(classifier(), weights)


@pytest.mark.parametrize("damage", ["thaw", "loops", "optimizer_states", "state_dict", "head", "text"])
def test_a_training_does_not_go_on_from_half_a_checkpoint(damage: str, tmp_path: Path, fit: Fit) -> None:
    path = tmp_path / "last.ckpt"
    fit(classifier(strategy=FROZEN), batch()).save_checkpoint(path)
    content = torch.load(path, weights_only=True)
    if damage == "head":
        del content["thaw"]["head"]
    elif damage == "text":
        content["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"] = "two"
    else:
        del content[damage]
    torch.save(content, path)
    with pytest.raises(ThawError, match=r"last\.ckpt is not a complete checkpoint of Thaw: [^\n]+\.$"):
        require_own_checkpoint(path, classifier(), TWO_EPOCHS)


def test_a_training_goes_on_with_another_strategy(tmp_path: Path, fit: Fit) -> None:
    path = tmp_path / "last.ckpt"
    fit(classifier(strategy=GRADUAL), batch(), max_epochs=2).save_checkpoint(path)
    saved = torch.load(path, weights_only=True)["optimizer_states"][0]
    head = next(group for group in saved["param_groups"] if "head.2.weight" in group["names"])
    before = saved["state"][head["params"][head["names"].index("head.2.weight")]]["momentum_buffer"]
    model = classifier(strategy=FINETUNE)
    trainer = fit(model, batch(), max_epochs=2, ckpt_path=path)  # no epoch is left: the state is what was loaded
    assert len(trainer.optimizers[0].param_groups) < len(saved["param_groups"])
    after = trainer.optimizers[0].state[model.head[2].weight]["momentum_buffer"]
    assert torch.equal(after, before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimizer": OptimizerConfig("adamw")}, "was trained with optimizer sgd, and now it is adamw"),
        ({"head": HeadConfig(standardize=False)}, "was trained with head.standardize True, and now it is False"),
        ({"transform": replace(TRANSFORM, crop=24)}, "was trained with dataset.image_size 32, and now it is 24"),
        ({"head": HeadConfig(dropout=0.5), "optimizer": OptimizerConfig(lr=0.5)}, ""),
        ({"strategy": FINETUNE}, ""),
    ],
)
def test_a_training_goes_on_with_the_options_that_its_state_depends_on(
    options: dict[str, Any], message: str, tmp_path: Path, fit: Fit
) -> None:
    path = tmp_path / "last.ckpt"
    fit(classifier(strategy=FROZEN), batch()).save_checkpoint(path)
    model = classifier(**{"strategy": FROZEN, **options})
    if not message:
        require_own_checkpoint(path, model, TWO_EPOCHS)
        fit(model, batch(), max_epochs=2, ckpt_path=path)
        return
    with pytest.raises(ThawError, match=rf"^resume: \S+last\.ckpt {message}\.$"):
        require_own_checkpoint(path, model, TWO_EPOCHS)


def test_a_training_goes_on_with_an_optimizer_that_is_named_by_its_class(tmp_path: Path, fit: Fit) -> None:
    path, extra = tmp_path / "last.ckpt", {"momentum_decay": 0.01}
    nadam = OptimizerConfig("torch.optim.NAdam", lr=1e-4, extra=extra)
    fit(classifier(strategy=FROZEN, optimizer=nadam), batch()).save_checkpoint(path)
    model = classifier(strategy=FROZEN, optimizer=nadam)
    require_own_checkpoint(path, model, TWO_EPOCHS)
    fit(model, batch(), max_epochs=2, ckpt_path=path)
    for options, message in (
        (replace(nadam, name="torch.optim.Adam"), "optimizer torch.optim.NAdam, and now it is torch.optim.Adam"),
        (replace(nadam, extra={"momentum_decay": 0.1}), "optimizer.extra.momentum_decay 0.01, and now it is 0.1"),
    ):
        with pytest.raises(ThawError, match=rf"was trained with {message}\.$"):
            require_own_checkpoint(path, classifier(strategy=FROZEN, optimizer=options), TWO_EPOCHS)


def test_a_training_does_not_go_on_with_other_shapes(tmp_path: Path, fit: Fit) -> None:
    path = tmp_path / "last.ckpt"
    fit(classifier(strategy=FROZEN), batch()).save_checkpoint(path)
    content = torch.load(path, weights_only=True)
    content["state_dict"]["backbone.network.features.0.bias"] = torch.zeros(3)
    torch.save(content, path)
    with pytest.raises(ThawError, match=r"has other tensors .*, in backbone\.network\.features\.0\.bias\. Leave out"):
        require_own_checkpoint(path, classifier(), TWO_EPOCHS)


def test_a_training_goes_on_from_its_own_checkpoint_only(tmp_path: Path, fit: Fit) -> None:
    path = tmp_path / "last.ckpt"
    fit(classifier(strategy=FROZEN), batch(), max_epochs=2).save_checkpoint(path)
    require_own_checkpoint(path, classifier(), TWO_EPOCHS)
    with pytest.raises(ThawError, match=rf"was trained with backbone {SMALL}, and now it is {WITH_NORMS}"):
        require_own_checkpoint(path, classifier(WITH_NORMS), TWO_EPOCHS)
    with pytest.raises(ThawError, match=r"was trained with classes .*, and now it is .*wasps"):
        require_own_checkpoint(path, classifier(classes=("ants", "wasps")), TWO_EPOCHS)
    with pytest.raises(ThawError, match=r"has been trained for 2 epochs; trainer\.max_epochs=1"):
        require_own_checkpoint(path, classifier(), TrainerConfig(max_epochs=1))


def test_a_training_goes_on_from_averaged_weights_with_an_average_only(tmp_path: Path, fit: Fit) -> None:
    path = tmp_path / "last.ckpt"
    fit(classifier(strategy=FROZEN), batch(), callbacks=[MovingAverage(0.5)]).save_checkpoint(path)
    require_own_checkpoint(path, classifier(), TrainerConfig(max_epochs=2, ema_decay=0.9))
    with pytest.raises(
        ThawError, match=r"^resume: \S+last\.ckpt was trained with trainer\.ema_decay, which is now null\. "
    ):
        require_own_checkpoint(path, classifier(), TWO_EPOCHS)
