from typing import Any

from thaw.inspection.curves import curves_figure, frozen_stages, learning_curves


def make_rows(rates: dict[str, list[float]], accuracies: list[float | None]) -> list[dict[str, Any]]:
    """Rows of metrics.csv with these rates and validation accuracies, all else equal."""
    return [
        {"epoch": epoch + 1, "train/loss": 1.0, "train/acc": 0.5, "val/loss": 2.0, "val/acc": accuracy}
        | {f"lr/{name}": values[epoch] for name, values in rates.items()}
        for epoch, accuracy in enumerate(accuracies)
    ]


def test_neighbours_that_learn_alike_are_one_curve_and_frozen_stages_none() -> None:
    rates = {
        "stage_00": [0.0, 0.0],
        "stage_01": [0.0, 0.0],
        "stage_02": [0.0, 0.1],
        "stage_03": [0.0, 0.1],
        "stage_10": [0.1, 0.1],
        "head": [1.0, 0.5],
    }
    rows = make_rows(rates, [0.5, 0.6])
    loss, accuracy, rate = learning_curves(rows, best_epoch=2)
    assert [line.name for line in rate.lines] == ["stages 2 to 3", "stage 10", "head"]
    assert [len(line.points) for line in rate.lines] == [1, 2, 2]
    assert frozen_stages(rows) == "stages 0 to 1"
    assert [chart.title for chart in (loss, accuracy)] == ["Loss", "Accuracy"]


def test_epochs_that_were_not_validated_are_left_out() -> None:
    _, accuracy, _ = learning_curves(make_rows({"head": [1.0] * 3}, [0.5, None, 0.75]), best_epoch=3)
    assert {line.name: len(line.points) for line in accuracy.lines} == {"train": 3, "val": 2}
    assert accuracy.lines[1].last == "75.0%"


def test_without_epochs_there_are_no_curves() -> None:
    assert learning_curves([], best_epoch=0) == []
    assert frozen_stages([]) == ""


def test_a_single_frozen_stage_is_called_one() -> None:
    assert frozen_stages(make_rows({"stage_00": [0.0], "stage_01": [1.0], "head": [1.0]}, [1.0])) == "stage 0"
    assert frozen_stages(make_rows({"stage_00": [1.0], "head": [1.0]}, [1.0])) == ""


def test_the_picture_has_both_splits_and_marks_the_best_epoch() -> None:
    rows = make_rows({"head": [1.0] * 3}, [0.5, None, 0.75])
    loss, accuracy = curves_figure(rows, best_epoch=3).axes
    assert [line.get_label() for line in accuracy.lines[:2]] == ["train", "val"]
    assert accuracy.lines[1].get_xydata().tolist() == [[1, 0.5], [3, 0.75]]
    assert [axes.lines[2].get_xdata() for axes in (loss, accuracy)] == [[3, 3], [3, 3]]
