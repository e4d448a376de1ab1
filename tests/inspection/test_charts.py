import os
from dataclasses import replace

import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from thaw.inspection.charts import FEWER_CLASSES, MOST_CLASSES, calibration_chart, confusion_chart
from thaw.inspection.predictions import Predictions
from thaw.inspection.uncertainty import wilson_interval


def make_predictions(labels: list[int], predicted: list[int], num_classes: int, confidence: float = 0.7) -> Predictions:
    rest = torch.full((len(labels), num_classes), (1 - confidence) / (num_classes - 1))
    shares = rest.scatter(1, torch.tensor(predicted)[:, None], confidence)
    paths = [f"{number}.png" for number in range(len(labels))]
    return Predictions(paths, torch.tensor(labels), shares.log(), [f"class{number}" for number in range(num_classes)])


def cells(axes: Axes) -> dict[tuple[int, int], str]:
    """The text of each cell by (row, column)."""
    return {(int(text.get_position()[1]), int(text.get_position()[0])): text.get_text() for text in axes.texts}


def labels_of(figure: Figure) -> tuple[list[str], list[str]]:
    """What stands at the rows and at the columns."""
    (axes,) = figure.axes
    return [tick.get_text() for tick in axes.get_yticklabels()], [tick.get_text() for tick in axes.get_xticklabels()]


def test_rows_are_actual_and_columns_predicted_classes() -> None:
    figure = confusion_chart(make_predictions([0, 0, 0, 1, 2], [0, 2, 2, 1, 2], 3), "val")
    assert cells(figure.axes[0]) == {(0, 0): "1", (0, 2): "2", (1, 1): "1", (2, 2): "1"}
    assert labels_of(figure) == (["class0 (3)", "class1 (1)", "class2 (1)"], ["class0", "class1", "class2"])
    assert figure.get_suptitle() == "Confusion on val: 2 of 5 wrong"


def test_right_cells_are_blue_and_wrong_ones_red_the_darker_the_larger_the_share() -> None:
    image = confusion_chart(make_predictions([0, 0, 0, 1], [0, 0, 1, 1], 2), "val").axes[0].images[0].get_array()
    assert image is not None
    red, _, blue, _ = range(4)
    assert image[0, 0, blue] > image[0, 0, red]
    assert image[0, 1, red] > image[0, 1, blue]
    assert tuple(image[1, 0]) == (1, 1, 1, 1)
    assert image[1, 1].sum() < image[0, 0].sum()


def test_classes_that_do_not_occur_are_left_out() -> None:
    figure = confusion_chart(make_predictions([1, 1, 4], [1, 4, 4], 6), "all")
    assert labels_of(figure)[1] == ["class1", "class4"]


def test_of_many_classes_those_of_the_most_frequent_confusions_are_shown() -> None:
    many = MOST_CLASSES + 10
    labels = [*range(many), *range(many), 49, 49, 7]
    predicted = [*range(many), *((label + 1) % many for label in range(many)), 20, 20, 33]
    figure = confusion_chart(make_predictions(labels, predicted, many), "test")
    _, shown = labels_of(figure)
    assert len(shown) == FEWER_CLASSES
    assert {"class20", "class49"} <= set(shown)
    assert shown == sorted(shown, key=lambda name: int(name.removeprefix("class")))
    assert f"the {FEWER_CLASSES} of {many} classes" in figure.get_suptitle()


def test_many_classes_without_a_confusion_can_be_drawn() -> None:
    every = list(range(MOST_CLASSES + 1))
    assert len(labels_of(confusion_chart(make_predictions(every, every, len(every)), "val"))[0]) == FEWER_CLASSES


@pytest.mark.parametrize("num_classes", [2, 12, 37])
def test_every_name_is_inside_the_picture(num_classes: int) -> None:
    every = list(range(num_classes))
    predictions = make_predictions(every, every[1:] + every[:1], num_classes)
    names = [f"staffordshire_$bull_$terrier_{number}" for number in every]  # no formula
    figure = confusion_chart(Predictions(predictions.paths, predictions.labels, predictions.logits, names), "val")
    figure.draw_without_rendering()
    frame, (axes,) = figure.bbox, figure.axes
    for text in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        box = text.get_window_extent()
        assert frame.x0 <= box.x0
        assert frame.y0 <= box.y0
        assert box.x1 <= frame.x1


def test_a_very_long_name_takes_no_more_room_than_the_matrix_needs() -> None:
    predictions = replace(make_predictions([0, 1], [0, 1], 2), classes=["a" * 100 + "b" * 100, "tea"])
    figure = confusion_chart(predictions, "val")
    assert labels_of(figure)[1] == ["a" * 19 + "…" + "b" * 20, "tea"]
    assert figure.get_figwidth() < 8


def test_wide_letters_have_the_room_of_two() -> None:
    predictions = make_predictions([0, 1], [0, 1], 2)
    wide, narrow = (
        confusion_chart(replace(predictions, classes=[letters * 10, "tea"]), "val") for letters in ("蚂", "ab")
    )
    assert wide.get_figwidth() == narrow.get_figwidth()


def test_a_name_that_is_no_utf_8_is_drawn_with_codes() -> None:
    predictions = make_predictions([0, 1], [0, 1], 2)
    names = [os.fsdecode(b"caf\xe9"), "tea"]
    figure = confusion_chart(Predictions(predictions.paths, predictions.labels, predictions.logits, names), "val")
    figure.draw_without_rendering()
    assert labels_of(figure) == ([r"caf\udce9 (1)", "tea (1)"], [r"caf\udce9", "tea"])


def test_each_bin_stands_at_its_confidence_and_accuracy_with_an_interval() -> None:
    predictions = make_predictions([0, 0, 0, 1], [0, 0, 0, 0], 2, confidence=0.9)
    upper, lower = calibration_chart(predictions, "val").axes
    points = upper.lines[1].get_xydata()
    assert points.ravel().tolist() == pytest.approx([0.9, 0.75])
    (interval,) = upper.collections[0].get_segments()
    assert interval[:, 1].tolist() == pytest.approx(list(wilson_interval(3, 4)))
    assert [bar.get_height() for bar in lower.patches] == [3, 1]  # right, and wrong on top of it
    assert lower.patches[1].get_y() == 3


def test_a_dot_at_the_edge_is_drawn_whole() -> None:
    upper, _ = calibration_chart(make_predictions([1] * 4, [0] * 4, 2, confidence=0.999), "val").axes
    assert upper.lines[1].get_xydata().ravel().tolist() == pytest.approx([0.999, 0])
    assert not upper.lines[1].get_clip_on()


def test_the_heading_tells_the_calibration_error() -> None:
    figure = calibration_chart(make_predictions([0, 0, 0, 1], [0, 0, 0, 0], 2, confidence=0.9), "test")
    assert figure.get_suptitle() == "Calibration on test: 15.0% expected error, n=4"
