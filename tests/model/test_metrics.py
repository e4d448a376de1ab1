import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from thaw.model.metrics import ClassMetrics


@pytest.mark.parametrize(("num_classes", "num_seen"), [(2, 2), (5, 5), (7, 3), (1000, 40)])
def test_the_figures_are_those_of_torchmetrics(num_classes: int, num_seen: int) -> None:
    generator = torch.Generator().manual_seed(num_classes)
    own = ClassMetrics(num_classes)
    loss, accuracy = MeanMetric(), MulticlassAccuracy(num_classes, average="micro")
    macro_f1 = MulticlassF1Score(num_classes, average="macro")
    for size in (16, 1, 9):
        labels = torch.randint(num_seen, (size,), generator=generator)
        logits = torch.randn(size, num_classes, generator=generator)
        logits[: size // 2, :num_seen] += 4 * F.one_hot(labels[: size // 2], num_seen)
        losses = F.cross_entropy(logits, labels, reduction="none")
        own.update(losses.sum(), size, logits, labels)
        loss.update(losses)
        accuracy.update(logits, labels)
        macro_f1.update(logits, labels)
    theirs = {"loss": loss, "acc": accuracy, "macro_f1": macro_f1}
    expected = {name: float(metric.compute()) for name, metric in theirs.items()}
    assert {name: float(value) for name, value in own.compute().items()} == pytest.approx(expected, abs=1e-6)


def test_no_image_changes_nothing() -> None:
    metrics = ClassMetrics(3)
    metrics.update(torch.tensor(2.0), 1, torch.eye(3)[:1], torch.tensor([0]))
    before = metrics.compute()
    metrics.update(
        F.cross_entropy(torch.zeros(0, 3), torch.zeros(0).long(), reduction="sum"),
        0,
        torch.zeros(0, 3),
        torch.zeros(0).long(),
    )
    assert metrics.compute() == before


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_a_network_of_another_precision_sums_its_losses_exactly(dtype: torch.dtype) -> None:
    network = nn.ModuleDict({"metrics": ClassMetrics(2), "head": nn.Linear(2, 2)}).to(dtype)
    metrics = network["metrics"]
    assert isinstance(metrics, ClassMetrics)
    for _ in range(2000):
        metrics.update(torch.tensor(1.0, dtype=dtype), 1, torch.eye(2, dtype=dtype)[:1], torch.tensor([0]))
    assert float(metrics.compute()["loss"]) == 1.0
    metrics.reset()
    assert metrics.total.dtype == torch.float32


def test_figures_are_as_exact_where_bfloat16_is_the_default() -> None:
    metrics = ClassMetrics(2)
    labels = torch.arange(1000) % 2
    answers = torch.where(torch.arange(1000) < 777, labels, 1 - labels)
    metrics.update(torch.tensor(1.0), 1000, torch.eye(2)[answers], labels)
    torch.set_default_dtype(torch.bfloat16)  # as Lightning does in each step at bf16-true
    try:
        figures = {name: float(value) for name, value in metrics.compute().items()}
    finally:
        torch.set_default_dtype(torch.float32)
    assert figures == pytest.approx({"loss": 0.001, "acc": 0.777, "macro_f1": 0.777}, abs=1e-6)
