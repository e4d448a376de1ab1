from typing import Any

import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import cohen_kappa_score
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy

from thaw.errors import ThawError
from thaw.model.own import OwnLoss, OwnMetrics, make_loss, make_metrics

HERE = "torchmetrics.classification"
LOGITS, LABELS = torch.randn(8, 3, generator=torch.Generator().manual_seed(0), requires_grad=True), torch.arange(8) % 3


class Fails(nn.Module):
    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        raise KeyError("gamma")


class Errors(Metric):
    """How many are wrong, which says itself that less is better."""

    higher_is_better = False

    def __init__(self, start: float = 0.0) -> None:
        super().__init__()
        self.add_state("number", torch.tensor(start), dist_reduce_fx="sum")

    def update(self, probabilities: Tensor, labels: Tensor) -> None:
        self.number += (probabilities.argmax(dim=1) != labels).sum()

    def compute(self) -> float:
        assert isinstance(self.number, Tensor)
        return self.number.item()


class Silent(Errors):
    higher_is_better = None  # type: ignore[assignment]


# ---- a loss


def test_a_loss_is_the_mean_of_the_images_whether_it_gives_that_or_one_of_each() -> None:
    expected = F.cross_entropy(LOGITS, LABELS)
    for reduction in ("mean", "none"):
        torch.testing.assert_close(OwnLoss(nn.CrossEntropyLoss(reduction=reduction))(LOGITS, LABELS), expected)


def test_no_image_has_no_loss_and_still_a_gradient() -> None:
    logits = torch.zeros(0, 3, requires_grad=True)
    loss = OwnLoss(Fails())(logits, LABELS[:0])
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0


def test_a_function_is_the_loss_itself_and_takes_its_arguments() -> None:
    recipe = {"_target_": "torch.nn.functional.multi_margin_loss", "margin": 0.5}
    for own in (recipe, {**recipe, "_partial_": True}):
        expected = F.multi_margin_loss(LOGITS, LABELS, margin=0.5)
        torch.testing.assert_close(make_loss(own, 3, is_mixed=False)(LOGITS, LABELS), expected)


@pytest.mark.parametrize(
    ("recipe", "is_mixed", "message"),
    [
        ("torch.nn.NoLoss", False, "cannot be made: .*NoLoss"),
        ("builtins.dict", False, "must be called with logits and targets, and have no parameters .*, got dict[.]"),
        ("torch.nn.PReLU", False, "must be called with .*, and have no parameters of its own that learn, got PReLU[.]"),
        ("test_own.Fails", False, r"fails on logits \(4, 3\) and targets \(4,\) of torch.int64: KeyError: 'gamma'$"),
        ("torch.nn.MultiMarginLoss", True, r"fails on logits \(4, 3\) and targets \(4, 3\) of torch.float32: Runtime"),
        ("torch.add", True, r"must give one number or one an image, .*, got shape \(4, 3\) of logits \(4, 3\) and "),
        ("torch.equal", True, "must give one number or one an image, computed from the logits, got bool of logits"),
        ("torch.nn.functional.one_hot", False, "fails on"),
        ("test_own.detached", False, r"must give .*, got shape \(\) without a gradient of logits"),
        ("test_own.by_class", False, r"must give one number or one an image, .*, got shape \(3,\) of logits"),
    ],
)
def test_what_is_no_loss_is_a_mistake_of_the_users_before_the_training(
    recipe: str, is_mixed: bool, message: str
) -> None:
    with pytest.raises(ThawError, match=f"^loss {message}"):
        make_loss({"_target_": recipe}, 3, is_mixed)


def detached(logits: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(logits.detach(), targets)


def by_class(logits: Tensor, targets: Tensor) -> Tensor:
    return logits.sum(dim=0)


# ---- metrics


@pytest.mark.parametrize(
    "recipe",
    [
        {"_target_": f"{HERE}.MulticlassCohenKappa"},
        {"_target_": "torchmetrics.CohenKappa"},
        {"_target_": "torchmetrics.CohenKappa", "task": "multiclass", "num_classes": 3},
    ],
)
def test_a_metric_is_told_the_classes_and_gives_its_own_figure(recipe: dict[str, Any]) -> None:
    own = make_metrics({"kappa": recipe}, 3)
    expected = cohen_kappa_score(LABELS.numpy(), LOGITS.argmax(dim=1).numpy())
    assert own.of(LOGITS.detach(), LABELS)["kappa"] == pytest.approx(expected, abs=1e-6)


def test_what_the_user_says_of_a_metric_stays() -> None:
    own = make_metrics({"acc3": {"_target_": f"{HERE}.MulticlassAccuracy", "average": "micro", "top_k": 3}}, 3)
    assert own.of(LOGITS.detach(), LABELS) == {"acc3": 1}
    with pytest.raises(
        ThawError, match=r"^metrics\.acc3 fails on probabilities \(B, K\) and labels \(B,\): ValueError"
    ):
        make_metrics({"acc3": {"_target_": f"{HERE}.MulticlassAccuracy", "num_classes": 7}}, 3)


def test_metrics_are_of_probabilities_and_begin_anew_each_time() -> None:
    own = OwnMetrics({"errors": Errors(), "acc": MulticlassAccuracy(3, average="micro")})
    logits = LOGITS.detach()
    for _ in range(2):
        own.update(logits[:5], LABELS[:5])
        assert own.of(logits, LABELS)["errors"] == (logits.argmax(dim=1) != LABELS).sum()  # leaves the count as it is
        own.update(logits[5:], LABELS[5:])
        own.update(logits[:0], LABELS[:0])
        values = own.compute()
        assert values["errors"] == (logits.argmax(dim=1) != LABELS).sum()
        assert values["acc"] == (logits.argmax(dim=1) == LABELS).float().mean()


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("auc", "must be {_target_: MODULE.CLASS, …}, got 'auc'[.]"),
        ({"_target_": "torchmetrics.NoMetric"}, "cannot be made: .*NoMetric"),
        ({"_target_": "torch.nn.Softmax"}, "must be a Metric of torchmetrics, got Softmax[.]"),
        (
            {"_target_": "torchmetrics.F1Score", "average": "none"},
            r"must come to one number, got shape \(3,\): ",
        ),
        ({"_target_": f"{HERE}.MulticlassConfusionMatrix"}, r"must come to one number, got shape \(3, 3\)"),
        ({"_target_": f"{HERE}.MulticlassROC"}, "must come to one number, got tuple"),
        ({"_target_": f"{HERE}.BinaryF1Score"}, r"fails on probabilities \(B, K\) and labels \(B,\): RuntimeError"),
    ],
)
def test_what_is_no_metric_is_a_mistake_of_the_users_before_the_training(recipe: Any, message: str) -> None:
    with pytest.raises(ThawError, match=rf"^metrics\.mine {message}"):
        make_metrics({"mine": recipe}, 3)


def test_a_metric_says_whether_higher_is_better() -> None:
    own = OwnMetrics({"errors": Errors(), "kappa": MulticlassAccuracy(3)})
    names = ("errors", "kappa", "acc", "macro_f1", "loss")
    assert [own.mode_of(f"val/{name}") for name in names] == ["min", "max", "max", "max", "min"]
    with pytest.raises(ThawError, match=r"^trainer\.monitor=val/errors needs to know .* Silent does not say: "):
        OwnMetrics({"errors": Silent()}).mode_of("val/errors")
