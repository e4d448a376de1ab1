import csv
import json
from dataclasses import replace
from math import inf, isnan, log
from pathlib import Path

import pytest
import torch
from sklearn.metrics import (
    confusion_matrix,
    f1_score,
    log_loss,
    precision_score,
    recall_score,
    top_k_accuracy_score,
)
from torch import Tensor
from torchmetrics.classification import MulticlassAccuracy

from thaw.errors import ThawError
from thaw.inspection.prediction_files import pool_predictions, read_predictions, write_predictions
from thaw.inspection.predictions import Predictions, accuracy_text, collect
from thaw.inspection.uncertainty import accuracy_interval, wilson_interval

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


def test_shown_they_are_their_accuracy_not_their_logits(noise: Predictions) -> None:
    metrics = noise.metrics()
    low, high = metrics["acc_ci95"]
    shown = f"{metrics['acc']:.4f} (95 % interval {low:.3f} to {high:.3f}, n=80)"
    assert repr(noise) == str(noise) == f"Predictions(accuracy {shown}, 3 classes)"


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


@pytest.mark.parametrize("num_classes", [6, 10, 120])
def test_top_5_accuracy_is_that_of_torchmetrics_and_scikit_learn(num_classes: int) -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(num_classes, (200,), generator=generator)
    logits = torch.randn(200, num_classes, generator=generator)
    logits[torch.arange(200), labels] += 1
    accuracy = make_predictions(labels, logits, tuple(map(str, range(num_classes)))).metrics()["top5_acc"]
    assert accuracy == pytest.approx(top_k_accuracy_score(labels, logits, k=5, labels=range(num_classes)))
    theirs = MulticlassAccuracy(num_classes, top_k=5, average="micro")(logits, labels)
    assert accuracy == pytest.approx(theirs.item())
    assert 0.05 < accuracy < 1


@pytest.mark.parametrize("num_classes", [2, 5])
def test_five_classes_have_no_top_5_accuracy(num_classes: int) -> None:
    predictions = make_predictions(torch.arange(2), torch.eye(num_classes)[:2], tuple("abcde"[:num_classes]))
    assert "top5_acc" not in predictions.metrics()


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


# ---- where it went wrong


def test_rows_of_the_confusion_are_actual_classes(noise: Predictions) -> None:
    assert noise.confusion.tolist() == confusion_matrix(noise.labels, noise.predicted).tolist()
    confused = make_predictions(torch.tensor([0, 0, 0, 1]), torch.eye(3)[[0, 2, 2, 0]])
    assert confused.confusion.tolist() == [[1, 0, 2], [1, 0, 0], [0, 0, 0]]


def test_the_scores_of_each_class_are_those_of_scikit_learn(noise: Predictions) -> None:
    scores, labels, predicted = noise.per_class(), noise.labels.numpy(), noise.predicted.numpy()
    assert [score.name for score in scores] == list(CLASSES)
    assert [score.n for score in scores] == torch.bincount(noise.labels).tolist()
    for name, function in {"precision": precision_score, "recall": recall_score, "f1": f1_score}.items():
        expected = function(labels, predicted, average=None)
        assert [getattr(score, name) for score in scores] == pytest.approx(list(expected))


def test_what_no_image_tells_of_a_class_is_undefined() -> None:
    ants, bees, wasps = make_predictions(torch.tensor([0, 0, 1]), torch.eye(3)[[0, 0, 0]]).per_class()
    assert (ants.n, ants.precision, ants.recall, ants.f1) == (2, pytest.approx(2 / 3), 1, pytest.approx(0.8))
    assert (bees.n, isnan(bees.precision), bees.recall, bees.f1) == (1, True, 0, 0)
    assert (wasps.n, isnan(wasps.precision), isnan(wasps.recall), isnan(wasps.f1)) == (0, True, True, True)


def test_pairs_are_confused_most_first_and_at_least_so_often() -> None:
    predictions = make_predictions(torch.tensor([0, 0, 0, 1, 1, 2, 2]), torch.eye(3)[[1, 0, 1, 2, 0, 2, 1]])
    assert predictions.most_confused() == [
        ("ants", "bees", 2),
        ("bees", "ants", 1),
        ("bees", "wasps", 1),
        ("wasps", "bees", 1),
    ]
    assert predictions.most_confused(least=2) == [("ants", "bees", 2)]
    assert predictions.most_confused(least=3) == []


def test_the_highest_losses_and_the_lowest_certainties_come_first() -> None:
    shares = torch.tensor([[0.90, 0.05, 0.05], [0.5, 0.3, 0.2], [0.8, 0.1, 0.1], [0.40, 0.35, 0.25]])
    predictions = make_predictions(torch.tensor([0, 0, 1, 0]), shares.log())
    assert predictions.confidences.tolist() == pytest.approx([0.9, 0.5, 0.8, 0.4])
    assert predictions.top_losses(2) == [2, 3]
    assert predictions.top_losses(9) == [2, 3, 1, 0]
    assert predictions.least_certain(3) == [3, 1, 2]


# ---- how sure it may be


@pytest.fixture
def by_hand() -> Predictions:
    """Of two classes: confidence 0.6 right and wrong, 0.7 right, 0.9 right four times, 1 wrong."""
    shares = torch.tensor([0.6, 0.6, 0.7, 0.9, 0.9, 0.9, 0.9, 1.0])
    labels = torch.tensor([0, 1, 0, 0, 0, 0, 0, 1])
    return make_predictions(labels, torch.stack([shares, 1 - shares], dim=1).log(), ("ants", "bees"))


def test_the_calibration_error_is_the_one_by_hand(by_hand: Predictions, monkeypatch: pytest.MonkeyPatch) -> None:
    # Bins [0.5, 0.75): mean confidence 1.9 / 3, 2 of 3 right; [0.75, 1]: 4.6 / 5, 4 of 5 right.
    expected = 3 / 8 * abs(1.9 / 3 - 2 / 3) + 5 / 8 * abs(4.6 / 5 - 4 / 5)
    monkeypatch.setattr("thaw.inspection.predictions.NUM_BINS", 4)
    curve = by_hand.calibration_curve()
    assert curve.n.tolist() == [0, 0, 3, 5]
    assert curve.confidence.tolist()[2:] == pytest.approx([1.9 / 3, 4.6 / 5])
    assert curve.accuracy.tolist()[2:] == pytest.approx([2 / 3, 4 / 5])
    assert all(isnan(value) for column in curve[:2] for value in column.tolist()[:2])
    assert by_hand.calibration_error() == pytest.approx(expected)
    monkeypatch.setattr("thaw.inspection.predictions.NUM_BINS", 1)
    assert by_hand.calibration_error() == pytest.approx(abs(6.5 / 8 - 6 / 8))


def test_the_calibration_error_is_the_mean_over_the_curve(noise: Predictions) -> None:
    curve = noise.calibration_curve()
    gaps = (curve.confidence - curve.accuracy).abs().nan_to_num()
    assert curve.n.sum() == 80
    assert noise.calibration_error() == pytest.approx(float((gaps * curve.n).sum() / 80), abs=1e-6)


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


def test_what_is_written_is_read_back(noise: Predictions, tmp_path: Path) -> None:
    other = make_predictions(torch.tensor([2, 0]), torch.tensor([[300.0, 0.0, 0.0], [0.5, 0.5 + 1e-7, -9.0]]))
    write_predictions(tmp_path / "predictions.csv", {"val": noise, "test": other})
    read = read_predictions(tmp_path / "predictions.csv")
    assert list(read) == ["val", "test"]
    for written, back in ((noise, read["val"]), (other, read["test"])):
        assert list(back.classes) == list(CLASSES)
        assert list(back.paths) == [str(path) for path in written.paths]
        assert torch.equal(back.labels, written.labels)
        assert torch.equal(back.predicted, written.predicted)  # also where six digits are the same
        torch.testing.assert_close(back.probabilities, written.probabilities, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(back.losses, written.losses, rtol=1e-5, atol=1e-6)
    assert read["val"].metrics()["acc_ci95"] == noise.metrics()["acc_ci95"]
    assert not (read["test"].logits == -inf).any()


def test_groups_are_written_and_read_back(noise: Predictions, tmp_path: Path) -> None:
    groups = [f"p{i % 4}" for i in range(len(noise.labels))]
    grouped = replace(noise, groups=groups)
    write_predictions(tmp_path / "predictions.csv", {"val": grouped})
    back = read_predictions(tmp_path / "predictions.csv")["val"]
    assert list(back.groups) == groups
    assert back.metrics()["groups"] == 4
    assert back.metrics()["acc_ci95"] == grouped.metrics()["acc_ci95"] != noise.metrics()["acc_ci95"]
    torch.testing.assert_close(back.probabilities, noise.probabilities, rtol=1e-5, atol=1e-6)
    write_predictions(tmp_path / "single.csv", {"val": noise})
    with pytest.raises(ThawError, match=r"single\.csv has other groups than .*predictions\.csv: train that run again"):
        pool_predictions([tmp_path / "predictions.csv", tmp_path / "single.csv"], "val")
    pooled = pool_predictions([tmp_path / "predictions.csv"] * 2, "val")
    assert list(pooled.groups) == groups * 2
    assert accuracy_text(pooled.metrics()).endswith(f", n={2 * len(groups)} in 4 groups)")
    assert accuracy_text(replace(noise, groups=["p"] * len(groups)).metrics()).endswith(" in 1 group)")


def test_the_intervals_of_a_calibration_curve_are_those_of_its_bins(noise: Predictions) -> None:
    for predictions in (noise, replace(noise, groups=[f"p{i % 4}" for i in range(len(noise.labels))])):
        curve = predictions.calibration_curve()
        bins = (predictions.confidences * len(curve.n)).long()
        for number, n in enumerate(curve.n.tolist()):
            inside = (bins == number).nonzero()[:, 0].tolist()
            assert len(inside) == n
            if n:
                groups = [predictions.groups[i] for i in inside] if predictions.groups else ()
                expected = accuracy_interval(predictions.right[inside], groups)
                assert (curve.low[number].item(), curve.high[number].item()) == pytest.approx(expected)
            else:
                assert isnan(curve.low[number].item())


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", "split,path,label,predicted,loss,p_a\nval,x.png,a,a,oops,1\n"])
def test_a_file_that_holds_no_predictions_is_named(text: str, tmp_path: Path) -> None:
    path = tmp_path / "predictions.csv"
    with pytest.raises(ThawError, match=r"predictions\.csv cannot be read as predictions"):
        read_predictions(path)
    path.write_text(text)
    with pytest.raises(ThawError, match=r"predictions\.csv cannot be read as predictions: expected the columns split"):
        read_predictions(path)
