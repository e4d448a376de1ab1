import csv
import json
from math import log
from pathlib import Path

import pytest
import torch
from sklearn.metrics import f1_score, log_loss
from torch import Tensor

from thaw.inspection.predictions import Predictions, collect, wilson_interval, write_predictions

CLASSES = ("ants", "bees", "wasps")


def make_predictions(labels: Tensor, logits: Tensor, classes: tuple[str, ...] = CLASSES) -> Predictions:
    return Predictions([Path(f"val/{number}.png") for number in range(len(labels))], labels, logits, classes)


@pytest.fixture
def noise() -> Predictions:
    """Eighty images, half of them predicted at random, and the three classes unequally often."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.multinomial(torch.tensor([0.6, 0.3, 0.1]), 80, replacement=True, generator=generator)
    logits = torch.randn(80, 3, generator=generator)
    logits[torch.arange(0, 80, 2), labels[::2]] += 4
    return make_predictions(labels, logits)


# ---- figures


def test_metrics_are_those_of_scikit_learn(noise: Predictions) -> None:
    metrics = noise.metrics()
    labels, predicted = noise.labels.numpy(), noise.predicted.numpy()
    assert metrics["n"] == 80
    assert metrics["acc"] == (labels == predicted).mean()
    assert metrics["macro_f1"] == pytest.approx(f1_score(labels, predicted, average="macro"))
    assert metrics["loss"] == pytest.approx(log_loss(labels, noise.logits.double().softmax(dim=1)), rel=1e-5)
    low, high = metrics["acc_ci95"]
    assert low < metrics["acc"] < high


@pytest.mark.parametrize("predicted", [[0, 1, 0, 1], [0, 2, 0, 1], [0, 0, 0, 0]])
def test_macro_f1_is_over_the_classes_that_occur(predicted: list[int]) -> None:
    labels = torch.tensor([0, 1, 1, 1])
    predictions = make_predictions(labels, torch.eye(4)[predicted], (*CLASSES, "hornets"))
    expected = f1_score(labels.numpy(), predicted, average="macro")
    assert predictions.metrics()["macro_f1"] == pytest.approx(expected)


def test_metrics_are_plain_python(noise: Predictions) -> None:
    assert json.loads(json.dumps(noise.metrics())) == noise.metrics()
    assert {type(value) for value in noise.metrics().values()} == {float, int, list}


def test_certain_and_right_is_perfect() -> None:
    metrics = make_predictions(torch.arange(3), 1000 * torch.eye(3)).metrics()
    assert (metrics["acc"], metrics["macro_f1"], metrics["loss"]) == (1.0, 1.0, 0.0)


def test_undecided_is_the_loss_of_chance() -> None:
    assert make_predictions(torch.arange(3), torch.zeros(3, 3)).metrics()["loss"] == pytest.approx(log(3))


def test_each_image_has_a_probability_of_each_class_a_loss_and_a_prediction() -> None:
    logits = torch.tensor([[log(7), log(2), 0.0], [0.0, log(8), 0.0]])
    predictions = make_predictions(torch.tensor([1, 1]), logits)
    assert predictions.probabilities[0].tolist() == pytest.approx([0.7, 0.2, 0.1])
    assert predictions.losses.tolist() == pytest.approx([-log(0.2), -log(0.8)])
    assert predictions.predicted.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("num_right", "n", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_the_interval_is_as_published(num_right: int, n: int, low: float, high: float) -> None:
    # Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I, method 3.
    assert wilson_interval(num_right, n) == pytest.approx((low, high), abs=5e-5)
    assert wilson_interval(n - num_right, n) == pytest.approx((1 - high, 1 - low), abs=5e-5)


@pytest.mark.parametrize(("num_right", "n"), [(0, 1), (1, 1), (141, 153), (146, 153), (60, 60)])
def test_the_interval_solves_its_equation(num_right: int, n: int) -> None:
    z, share = 1.959963984540054, num_right / n
    for bound in wilson_interval(num_right, n):
        assert abs(bound - share) == pytest.approx(z * (bound * (1 - bound) / n) ** 0.5, abs=1e-9)


# ---- from and to other forms


def test_batches_are_put_together_in_order() -> None:
    logits, labels = torch.randn(7, 3), torch.arange(7) % 3
    paths = [Path(f"{number}.png") for number in range(7)]
    predictions = collect(list(zip(logits.split(3), labels.split(3), strict=True)), paths, CLASSES)
    assert torch.equal(predictions.logits, logits)
    assert torch.equal(predictions.labels, labels)
    assert predictions.paths == paths


def test_the_csv_has_a_row_an_image(tmp_path: Path) -> None:
    logits = torch.tensor([[log(7), log(2), 0.0], [0.0, log(8), 0.0]])
    classes = ("ants", "bees, wild", "Ämeise")
    splits = {
        "val": make_predictions(torch.tensor([1, 1]), logits, classes),
        "test": make_predictions(torch.tensor([2]), logits[:1], classes),
    }
    write_predictions(tmp_path / "predictions.csv", splits)
    with (tmp_path / "predictions.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    columns = ["split", "path", "label", "predicted", "loss", "p_ants", "p_bees, wild", "p_Ämeise"]
    assert [list(row) for row in rows] == [columns] * 3
    assert [list(row.values())[:4] for row in rows] == [
        ["val", "val/0.png", "bees, wild", "ants"],
        ["val", "val/1.png", "bees, wild", "bees, wild"],
        ["test", "val/0.png", "Ämeise", "ants"],
    ]
    numbers = [[float(value) for value in list(row.values())[4:]] for row in rows]
    assert numbers[0] == pytest.approx([-log(0.2), 0.7, 0.2, 0.1], rel=1e-5)
    assert numbers[2] == pytest.approx([-log(0.1), 0.7, 0.2, 0.1], rel=1e-5)
