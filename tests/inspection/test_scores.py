import csv
import json
from pathlib import Path

import pytest
import torch

from thaw.inspection.predictions import Predictions
from thaw.inspection.scores import FEWER_CLASSES, MOST_PAIRS, score_data, score_text, write_class_scores


def make_predictions(labels: list[int], predicted: list[int], classes: tuple[str, ...]) -> Predictions:
    logits = 2 * torch.eye(len(classes))[predicted]
    return Predictions([f"{number}.png" for number in range(len(labels))], torch.tensor(labels), logits, classes)


@pytest.fixture
def insects() -> Predictions:
    """Ants right twice and taken for a bee once, one bee right, no wasps and no moths."""
    return make_predictions([0, 0, 0, 1], [0, 0, 1, 1], ("ants", "bees", "wasps", "moths"))


def rows(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_the_text_has_the_scores_of_all_images_and_of_each_class(insects: Predictions) -> None:
    lines = rows(score_text(insects))
    assert lines[0] == "accuracy 0.7500 (95 % interval 0.301 to 0.954, n=4)".split()
    assert lines[1] == ["macro-F1", "0.7333"]
    assert lines[2] == ["log", "loss", f"{insects.metrics()['loss']:.4f}"]
    assert lines[3][:3] == ["calibration", "error", f"{insects.calibration_error():.4f}"]
    assert ["ants", "3", "1.0000", "0.6667", "0.8000"] in lines
    assert ["bees", "1", "0.5000", "1.0000", "0.6667"] in lines
    assert ["ants", "bees", "1"] in lines


def test_of_more_than_five_classes_the_text_and_the_data_have_the_top_5_accuracy(insects: Predictions) -> None:
    many = make_predictions([0, 1, 2, 6], [0, 1, 0, 0], tuple("abcdefg"))  # of equal logits, the first are taken
    assert score_data(many)["top5_acc"] == many.metrics()["top5_acc"] >= 0.5
    assert ["top-5", "accuracy", f"{many.metrics()['top5_acc']:.4f}"] in rows(score_text(many))
    assert "top-5" not in score_text(insects)


def test_a_class_of_which_nothing_is_known_is_left_out_of_the_text(insects: Predictions) -> None:
    assert "wasps" not in score_text(insects)
    said = score_text(make_predictions([0, 0], [0, 1], ("ants", "bees")))
    assert ["bees", "0", "0.0000", "–", "0.0000"] in rows(said)
    assert "macro-F1           0.3333 (counts as 0 what was predicted but has no images: bees)" in said


def test_only_pairs_confused_often_enough_are_named(insects: Predictions) -> None:
    assert "No class was taken for another 2 times or more." in score_text(insects, least=2)
    assert "No class was taken for another." in score_text(make_predictions([0, 1], [0, 1], ("ants", "bees")))
    assert score_data(insects, least=2)["most_confused"] == []


def test_of_many_classes_the_worst_are_shown() -> None:
    names = tuple(f"class{number}" for number in range(60))
    labels = [label for label in range(60) for _ in range(2)]
    predicted = [label if label < 30 else (label + image) % 60 for label in range(60) for image in (0, 1)]
    text = score_text(make_predictions(labels, predicted, names))
    assert f"{FEWER_CLASSES} of 60 classes, those of lowest F1" in text
    shown = [line[0] for line in rows(text) if len(line) == 5 and line[0].startswith("class") and line[1] == "2"]
    assert len(shown) == FEWER_CLASSES
    assert all(int(name.removeprefix("class")) >= 30 for name in shown)
    assert f"… and {30 - MOST_PAIRS} more pairs" in text


def test_the_data_are_the_same_in_full_and_valid_json(insects: Predictions) -> None:
    data = score_data(insects)
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    assert {name: data[name] for name in insects.metrics()} == insects.metrics()
    assert data["per_class"][1] == pytest.approx({"name": "bees", "n": 1, "precision": 0.5, "recall": 1, "f1": 2 / 3})
    assert data["per_class"][2] == {"name": "wasps", "n": 0, "precision": None, "recall": None, "f1": None}
    assert data["most_confused"] == [{"actual": "ants", "predicted": "bees", "n": 1}]


def test_the_table_of_classes_has_all_of_them(insects: Predictions, tmp_path: Path) -> None:
    write_class_scores(tmp_path / "classes.csv", insects)
    with (tmp_path / "classes.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["name"] for row in table] == ["ants", "bees", "wasps", "moths"]
    assert [float(row["precision"]) for row in table[:2]] == [1, 0.5]
    assert table[3] == {"name": "moths", "n": "0", "precision": "", "recall": "", "f1": ""}
