import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from thaw.config import AugmentConfig
from thaw.data.transforms import mixing_transform
from thaw.inspection.figures import RIGHT, WRONG, write_figure
from thaw.inspection.grids import (
    CELL,
    HEAD,
    LINE,
    MOST,
    Grid,
    _fits,
    choose_for_grid,
    fill,
    least_certain_grid,
    mix_rows,
    prediction_grid,
    top_losses_grid,
    training_grid,
)
from thaw.inspection.predictions import Predictions
from thaw.seeding import seeded

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


@pytest.mark.parametrize(("number", "rows", "columns"), [(1, 1, 1), (4, 1, 4), (6, 1, 6), (7, 2, 6), (24, 4, 6)])
def test_a_grid_has_a_place_for_each_image_with_its_title_over_it(number: int, rows: int, columns: int) -> None:
    names = [f"image {index}" for index in range(number)]
    grid = Grid(list(make_images(number)), names, ["#c8322b"] * number, "All of them")
    picture = grid.draw()
    assert len({left for left, _ in grid.corners}) == columns
    assert len({top for _, top in grid.corners}) == rows
    assert picture.size == (CELL[0] * columns, HEAD + CELL[1] * rows)
    for index, (left, top) in enumerate(grid.corners):
        place = picture.crop((left, top, left + CELL[0], top + CELL[1]))
        photo = place.crop((5, CELL[1] - 5 - 150, 205, CELL[1] - 5))  # four thirds as wide as high
        assert photo.getcolors() == [(200 * 150, (7 * index,) * 3)]
        over = np.asarray(place.crop((0, 0, CELL[0], CELL[1] - 5 - 150))).astype(int)
        assert ((over[..., 0] - over[..., 1]) > 100).any()  # a red title


def test_of_two_lines_both_can_be_read_and_a_long_one_keeps_to_its_place() -> None:
    images = list(make_images(2))
    texts = ["one", "one\ntwo", "letters without end " * 5, "a\x1b[31m", "$x_{$"]
    places = [np.asarray(Grid(images, [text, ""], ["#000000"] * 2, "").draw()) for text in texts]
    inks = [(place < 128).any(axis=2) for place in places]
    assert inks[1][:, : CELL[0]].sum() > inks[0][:, : CELL[0]].sum()
    for ink in inks:
        assert not ink[: HEAD + CELL[1] - 5 - 150, CELL[0] :].any()  # nothing over its neighbour


def test_a_long_heading_over_one_image_is_whole() -> None:
    heading = "Predictions of the best epoch on val: 1 of 1 wrong (red)"
    grid = Grid(list(make_images(1)), ["one"], ["#000000"], heading)
    ink = (np.asarray(grid.draw()) < 128).any(axis=2)
    columns = np.flatnonzero(ink[:HEAD].any(axis=0))
    photo = np.flatnonzero(ink[-10])
    assert columns[0] >= 5
    assert len(ink[0]) - columns[-1] >= 5
    assert columns[-1] - columns[0] > 2 * len(photo)
    assert abs(photo[0] + photo[-1] - len(ink[0])) <= 2  # in the middle
    wide = Grid(list(make_images(6)), ["one"] * 6, ["#000000"] * 6, heading).draw()
    assert wide.width == 6 * CELL[0]


@pytest.mark.parametrize(("height", "width"), [(1, 400), (400, 1), (3000, 20), (8, 8), (700, 600)])
def test_an_image_of_any_shape_has_its_place(height: int, width: int) -> None:
    grid = Grid([torch.zeros(3, height, width, dtype=torch.uint8)], ["one"], ["#ffffff"], "")
    dark = np.asarray(grid.draw()).max(axis=2) < 128
    rows, columns = np.flatnonzero(dark.any(axis=1)), np.flatnonzero(dark.any(axis=0))
    assert max(len(rows), len(columns)) == 200
    assert rows[-1] == HEAD + CELL[1] - 6
    assert abs((columns[0] + columns[-1]) / 2 - CELL[0] / 2) <= 1


@pytest.mark.parametrize("number", [3, 24])
def test_training_images_stand_under_their_class_names(number: int) -> None:
    grid = training_grid(make_images(number), torch.arange(number) % 2, CLASSES)
    assert grid.titles == [CLASSES[index % 2] for index in range(number)]


def test_mixed_images_stand_under_their_shares_of_the_classes() -> None:
    shares = torch.tensor([[0.0, 1.0], [0.25, 0.75]])
    grid = training_grid(make_images(2), shares, CLASSES)
    assert grid.titles == [f"{CLASSES[1]} 100%", f"{CLASSES[0]} 25%\n{CLASSES[1]} 75%"]


def test_each_row_has_a_mixture_of_its_own() -> None:
    mix = mixing_transform(AugmentConfig(mixup=0.2), 2)
    assert mix is not None
    images, labels = make_images(18), torch.arange(18) // 3 % 2
    with seeded(3):  # whose first batch is left as it is
        _, unmixed = mix(images.float(), labels)
        mixed, shares = mix_rows(mix, images, labels)
    assert unmixed.amin() < 0.005
    assert len(shares[::6, 0].unique()) == 3  # of each row's first image, which meets its last one
    assert mixed.dtype == torch.uint8
    assert mixed.shape == images.shape


def test_right_predictions_are_blue_and_wrong_ones_red_with_the_actual_class() -> None:
    predictions = make_predictions([0, 1, 0, 1], [0, 1, 1, 0])
    chosen = [0, 2, 3]
    grid = prediction_grid(list(make_images(3)), predictions, chosen, "val")
    assert grid.titles == ["ants 75%", "bees 75%\nis ants", "ants 75%\nis bees"]
    assert grid.colors == [RIGHT, WRONG, WRONG]
    assert grid.heading == "Predictions of the best epoch on val: 2 of 4 wrong (red)"


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".pdf", ".JPG"])
def test_a_grid_can_be_kept_as_a_file(suffix: str, tmp_path: Path) -> None:
    write_figure(
        training_grid(make_images(5), torch.zeros(5, dtype=torch.long), CLASSES).draw(), tmp_path / f"a{suffix}"
    )
    assert (tmp_path / f"a{suffix}").stat().st_size > 1000


@pytest.mark.parametrize("name", ["a", "a.xyz", "a.cur"])  # a cursor can be read only
def test_a_suffix_of_no_format_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no format that a picture can be kept in"):
        write_figure(Grid(list(make_images(1)), ["one"], ["#000000"], "").draw(), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


# ---- which images are shown


def test_a_small_split_is_shown_whole() -> None:
    predictions = make_predictions([0, 1] * 5, [0, 0] * 5)
    assert choose_for_grid(predictions) == list(range(10))


def test_half_of_the_grid_are_the_worst_mistakes() -> None:
    certainty = [0.51 + 0.004 * index for index in range(100)]
    predictions = make_predictions([0] * 100, [1] * 50 + [0] * 50, certainty)
    chosen = choose_for_grid(predictions)
    assert chosen[:9] == [41, 42, 43, 44, 45, 46, 47, 48, 49]
    assert len(chosen) == 18
    assert all(index >= 50 for index in chosen[9:])
    assert chosen[-1] - chosen[9] >= 40  # from all over the split


@pytest.mark.parametrize("most", [1, 4, 24])
@pytest.mark.parametrize("num_wrong", [0, 1, 30, 100])
def test_no_more_are_shown_than_there_is_room_for_and_none_twice(
    num_wrong: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("thaw.inspection.grids.MOST", most)
    predictions = make_predictions([0] * 100, [1] * num_wrong + [0] * (100 - num_wrong))
    chosen = choose_for_grid(predictions)
    assert len(chosen) <= most
    assert chosen == sorted(set(chosen))
    assert sum(index < num_wrong for index in chosen) >= min(num_wrong, most // 2)


@pytest.mark.parametrize("num_wrong", [100, 95])
def test_the_grid_is_full_where_there_are_enough_images(num_wrong: int) -> None:
    predictions = make_predictions([0] * 100, [1] * num_wrong + [0] * (100 - num_wrong))
    assert len(choose_for_grid(predictions)) == MOST


def test_right_images_are_of_all_classes_also_where_most_are_shown() -> None:
    labels = [0] * 20 + [1] * 10
    chosen = choose_for_grid(make_predictions(labels, labels))
    assert [labels[index] for index in chosen] == [0] * 12 + [1] * 6


# ---- what went wrong


def test_the_highest_losses_tell_what_was_said_what_is_true_and_the_loss() -> None:
    predictions = make_predictions([0, 1, 0], [1, 1, 0], [0.9, 0.6, 0.8])
    chosen = predictions.top_losses(2)
    grid = top_losses_grid(list(make_images(2)), predictions, chosen, "val")
    assert grid.titles == ["bees 90%\nis ants 10%, loss 2.30\n0.png", "bees 60%\nloss 0.51\n1.png"]
    assert grid.colors == [WRONG, RIGHT]
    assert grid.heading == "Highest losses on val"


def test_the_least_certain_tell_both_classes_and_the_true_one_where_it_lost() -> None:
    predictions = make_predictions([0, 1, 1], [0, 0, 1], [0.55, 0.7, 0.99])
    chosen = predictions.least_certain(2)
    grid = least_certain_grid(list(make_images(2)), predictions, chosen, "test")
    assert grid.titles == ["ants 55%\nbees 45%", "ants 70%\nbees 30%, is bees"]
    assert grid.colors == [RIGHT, WRONG]


def test_of_long_names_the_middle_is_left_out_and_no_figure() -> None:
    names = ("staffordshire_bull_terrier_of_the_north", "american_pit_bull_terrier_of_the_south_{}")
    predictions = replace(make_predictions([0, 1], [1, 0], [0.9, 0.6]), classes=names)
    said, actual = r"american.*….*south_{} 90%", r"staffor.*….*_north"
    expected = {
        prediction_grid: (said, f"is {actual}"),
        top_losses_grid: (said, f"is {actual} 10%", "loss 2[.]30", "0[.]png"),
        least_certain_grid: (said, f"{actual} 10%", f"is {actual}"),
    }
    for make, patterns in expected.items():
        grid = make(list(make_images(2)), predictions, [0, 1], "val")
        for line, pattern in zip(grid.titles[0].splitlines(), patterns, strict=True):
            assert re.fullmatch(pattern, line)
            assert _fits(line)


def test_a_title_of_three_lines_has_room_over_its_image() -> None:
    images = list(make_images(7))
    picture = Grid(images, ["one\ntwo\nthree"] + [""] * 6, ["#000000"] * 7, "").draw()
    assert picture.height == HEAD + 2 * (CELL[1] + LINE)
    ink = (np.asarray(picture) < 128).any(axis=2)[: HEAD + CELL[1] + LINE - 5 - 150, : CELL[0]]
    assert not ink[:HEAD].any()
    assert ink[HEAD:].any(axis=1).sum() > 20


@pytest.mark.parametrize("name", ["", "a", "ants", "four$", "a\nb"])
def test_a_short_name_stays_whole(name: str) -> None:
    assert fill("is {} 5%", name) == f"is {name} 5%".replace("\n", r"\n")
