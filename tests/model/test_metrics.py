import pytest
import torch
from torchmetrics.classification import MulticlassF1Score

from thaw.model.metrics import MacroF1, make_metrics


@pytest.mark.parametrize(("num_classes", "num_seen"), [(2, 2), (5, 5), (7, 3), (1000, 40)])
def test_macro_f1_is_that_of_torchmetrics(num_classes: int, num_seen: int) -> None:
    generator = torch.Generator().manual_seed(num_classes)
    own, theirs = MacroF1(num_classes), MulticlassF1Score(num_classes, average="macro")
    for size in (16, 1, 9):
        target = torch.randint(num_seen, (size,), generator=generator)
        preds = torch.randn(size, num_classes, generator=generator)
        preds[: size // 2, :num_seen] += 4 * torch.nn.functional.one_hot(target[: size // 2], num_seen)
        own.update(preds, target)
        theirs.update(preds, target)
    assert float(own.compute()) == pytest.approx(float(theirs.compute()), abs=1e-6)


def test_copies_count_for_themselves() -> None:
    train, val = make_metrics(2).clone("train/"), make_metrics(2).clone("val/")
    train.update(value=torch.tensor([1.0]), preds=torch.tensor([[1.0, 0.0]]), target=torch.tensor([0]))
    val.update(value=torch.tensor([3.0]), preds=torch.tensor([[1.0, 0.0]]), target=torch.tensor([1]))
    assert {name: float(value) for name, value in train.compute().items()} == {
        "train/loss": 1, "train/acc": 1, "train/macro_f1": 1,
    }  # fmt: skip
    assert float(val.compute()["val/macro_f1"]) == 0
