from pathlib import Path

import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from torch import Tensor

from thaw.inspection.figures import (
    RIGHT,
    WRONG,
    choose_for_grid,
    image_grid,
    least_certain_grid,
    prediction_grid,
    top_losses_grid,
    training_grid,
)
from thaw.inspection.predictions import Predictions

CLASSES = ("ants", "bees")


def make_images(number: int) -> Tensor:
    """Images (N, 3, 6, 8), each of one colour of its own."""
    return torch.arange(number, dtype=torch.uint8).mul(7).view(-1, 1, 1, 1).expand(-1, 3, 6, 8)


def make_predictions(labels: list[int], predicted: list[int], certainty: list[float] | None = None) -> Predictions:
    """Of two classes, with the probability of the predicted one."""
    shares = torch.tensor(certainty or [0.75] * len(labels))
    logits = torch.where(
        torch.tensor(predicted)[:, None] == torch.arange(2), shares[:, None], 1 - shares[:, None]
    ).log()
    return Predictions([Path(f"{number}.png") for number in range(len(labels))], torch.tensor(labels), logits, CLASSES)


def titles(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def places(figure: Figure) -> list[tuple[float, float, float, float]]:
    """Left, right, bottom and top of each image, in inches."""
    return [tuple(image.get_extent()) for image in figure.axes[0].images]


def heading(figure: Figure) -> str:
    return figure.get_suptitle()


@pytest.mark.parametrize(("number", "rows", "columns"), [(1, 1, 1), (4, 1, 4), (6, 1, 6), (7, 2, 6), (24, 4, 6)])
def test_a_grid_has_a_place_for_each_image(number: int, rows: int, columns: int) -> None:
    names = [f"image {index}" for index in range(number)]
    figure = image_grid(list(make_images(number)), names, ["#000000"] * number, "All of them")
    assert titles(figure) == names
    assert heading(figure) == "All of them"
    assert not figure.axes[0].axison
    lefts, rights, bottoms, tops = zip(*places(figure), strict=True)
    assert (len({*lefts}), len({*bottoms})) == (columns, rows)
    assert len({*zip(lefts, bottoms, strict=True)}) == number
    width, height = figure.get_size_inches()
    assert min(*lefts, *bottoms) >= 0
    assert max(rights) <= width
    assert max(tops) <= height - 0.7  # room for a title of two lines and for the heading
    for shown, image in zip(figure.axes[0].images, make_images(number), strict=True):
        assert (shown.get_array() == image.permute(1, 2, 0).numpy()).all()  # type: ignore[union-attr]


def test_an_image_keeps_its_shape() -> None:
    ((left, right, bottom, top),) = places(image_grid(list(make_images(1)), ["one"], ["#000000"], ""))
    assert (right - left) / (top - bottom) == pytest.approx(8 / 6)


@pytest.mark.parametrize(("number", "expected"), [(3, 3), (24, 24), (40, 24)])
def test_a_training_batch_stands_under_its_class_names(number: int, expected: int) -> None:
    labels = torch.arange(number) % 2
    figure = training_grid(make_images(number), labels, CLASSES)
    assert titles(figure) == [CLASSES[index % 2] for index in range(expected)]


def test_right_predictions_are_blue_and_wrong_ones_red_with_the_actual_class() -> None:
    predictions = make_predictions([0, 1, 0, 1], [0, 1, 1, 0])
    chosen = [0, 2, 3]
    figure = prediction_grid(list(make_images(3)), predictions, chosen, "val")
    assert titles(figure) == ["ants 75%", "bees 75%\nis ants", "ants 75%\nis bees"]
    assert [to_hex(text.get_color()) for text in figure.axes[0].texts] == [RIGHT, WRONG, WRONG]
    assert heading(figure) == "Predictions of the best epoch on val: 2 of 4 wrong (red)"


def test_a_figure_can_be_saved(tmp_path: Path) -> None:
    training_grid(make_images(5), torch.zeros(5, dtype=torch.long), CLASSES).savefig(tmp_path / "grid.png")
    assert (tmp_path / "grid.png").stat().st_size > 1000


# ---- which images are shown


def test_a_small_split_is_shown_whole() -> None:
    predictions = make_predictions([0, 1] * 5, [0, 0] * 5)
    assert choose_for_grid(predictions) == list(range(10))


def test_half_of_the_grid_are_the_worst_mistakes() -> None:
    certainty = [0.51 + 0.004 * index for index in range(100)]
    predictions = make_predictions([0] * 100, [1] * 50 + [0] * 50, certainty)
    chosen = choose_for_grid(predictions, most=12)
    assert chosen[:6] == [44, 45, 46, 47, 48, 49]
    assert len(chosen) == 12
    assert all(index >= 50 for index in chosen[6:])
    assert chosen[-1] - chosen[6] >= 40  # from all over the split


@pytest.mark.parametrize("most", [1, 4, 24])
@pytest.mark.parametrize("num_wrong", [0, 1, 30, 100])
def test_no_more_are_shown_than_there_is_room_for_and_none_twice(num_wrong: int, most: int) -> None:
    predictions = make_predictions([0] * 100, [1] * num_wrong + [0] * (100 - num_wrong))
    chosen = choose_for_grid(predictions, most)
    assert len(chosen) <= most
    assert chosen == sorted(set(chosen))
    assert sum(index < num_wrong for index in chosen) >= min(num_wrong, most // 2)


@pytest.mark.parametrize("num_wrong", [100, 95])
def test_the_grid_is_full_where_there_are_enough_images(num_wrong: int) -> None:
    predictions = make_predictions([0] * 100, [1] * num_wrong + [0] * (100 - num_wrong))
    assert len(choose_for_grid(predictions)) == 24


# ---- what went wrong


def test_the_highest_losses_tell_what_was_said_what_is_true_and_the_loss() -> None:
    predictions = make_predictions([0, 1, 0], [1, 1, 0], [0.9, 0.6, 0.8])
    chosen = predictions.top_losses(2)
    figure = top_losses_grid(list(make_images(2)), predictions, chosen, "val")
    assert titles(figure) == ["bees 90%\nis ants 10%, loss 2.30", "bees 60%\nloss 0.51"]
    assert [to_hex(text.get_color()) for text in figure.axes[0].texts] == [WRONG, RIGHT]
    assert heading(figure) == "Highest losses on val"


def test_the_least_certain_tell_both_classes_and_the_true_one_where_it_lost() -> None:
    predictions = make_predictions([0, 1, 1], [0, 0, 1], [0.55, 0.7, 0.99])
    chosen = predictions.least_certain(2)
    figure = least_certain_grid(list(make_images(2)), predictions, chosen, "test")
    assert titles(figure) == ["ants 55%\nbees 45%", "ants 70%\nbees 30%, is bees"]
    assert [to_hex(text.get_color()) for text in figure.axes[0].texts] == [RIGHT, WRONG]
