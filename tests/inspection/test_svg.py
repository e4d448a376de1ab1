from math import inf, nan

import pytest
import torch

from thaw.inspection import svg
from thaw.inspection.predictions import CalibrationCurve
from thaw.inspection.report import _template
from thaw.inspection.svg import BOTTOM, LEFT, RIGHT, TOP, line_chart, log_chart, reliability


def test_values_lie_between_their_ticks() -> None:
    chart = line_chart("Loss", {"train": [(1, 0.9), (2, 0.5)], "val": [(1, 1.0), (2, 0.6)]}, best_epoch=2)
    assert chart
    assert [tick.text for tick in chart.y_ticks] == ["0.5", "0.6", "0.7", "0.8", "0.9", "1"]
    heights = {tick.text: tick.at for tick in chart.y_ticks}
    assert list(heights.values()) == sorted(heights.values(), reverse=True)
    train, val = chart.lines
    assert val.points[0] == (LEFT, heights["1"])
    assert [points[1][1] for _, points, _ in (train, val)] == [heights["0.5"], heights["0.6"]]
    assert [line.points[1][0] for line in chart.lines] == [RIGHT, RIGHT] == [chart.marker] * 2
    assert [tick.text for tick in chart.x_ticks] == ["1", "2"]
    assert (train.last, val.last) == ("0.5000", "0.6000")


@pytest.mark.parametrize("values", [[1.0, 1.0], [0.0, 0.0], [0.98, 1.0], [0.9991, 0.9995], [0.0, 1.0]])
def test_no_share_is_outside_0_to_100_per_cent(values: list[float]) -> None:
    chart = line_chart("Accuracy", {"val": list(enumerate(values, start=1))}, best_epoch=1, percent=True)
    assert chart
    shares = [float(tick.text.rstrip("%")) for tick in chart.y_ticks]
    assert 0 <= shares[0] <= shares[-1] <= 100
    assert len(set(shares)) == len(shares)
    assert all(TOP <= y <= BOTTOM for _, y in chart.lines[0].points)


def test_a_level_line_is_level() -> None:
    chart = line_chart("Loss", {"train": [(1, 0.0), (2, 0.0001)]}, best_epoch=1)
    assert chart
    first, last = chart.lines[0].points
    assert BOTTOM >= first[1] > last[1] > BOTTOM - 5


def test_a_diverged_training_is_drawn_as_far_as_it_went() -> None:
    chart = line_chart("Loss", {"train": [(1, 2.0), (2, nan)], "val": [(1, 3.0), (2, inf)]}, best_epoch=1)
    assert chart
    assert [len(line.points) for line in chart.lines] == [1, 1]
    assert line_chart("Loss", {"train": [(1, nan)], "val": []}, best_epoch=1) is None


def test_one_epoch_is_a_chart() -> None:
    chart = line_chart("Loss", {"train": [(1, 2.0)], "val": [(1, 3.0)]}, best_epoch=1)
    assert chart
    assert [tick.text for tick in chart.x_ticks] == ["1"]
    assert {x for line in chart.lines for x, _ in line.points} == {RIGHT}


@pytest.mark.parametrize(("best_epoch", "anchor"), [(1, "start"), (2, "start"), (50, "middle"), (100, "end")])
def test_the_best_epoch_is_named_within_the_plot(best_epoch: int, anchor: str) -> None:
    chart = line_chart("Loss", {"train": [(epoch, 1 / epoch) for epoch in range(1, 101)]}, best_epoch)
    drawn = _template().environment.get_template("report.svg.jinja").module.line_chart(chart, svg)
    assert f'text-anchor="{anchor}">best</text>' in drawn


def test_many_epochs_have_few_ticks() -> None:
    chart = line_chart("Loss", {"train": [(epoch, 1 / epoch) for epoch in range(1, 301)]}, best_epoch=300)
    assert chart
    assert [tick.text for tick in chart.x_ticks] == ["50", "100", "150", "200", "250", "300"]


def test_rates_have_a_tick_at_each_power_of_ten() -> None:
    chart = log_chart("Learning rate", {"head": [(1, 1e-2), (2, 5e-3)], "stage 0": [(2, 1e-4)]}, best_epoch=1)
    assert chart
    assert [tick.text for tick in chart.y_ticks] == ["1e-4", "1e-3", "1e-2"]
    head, stage = chart.lines
    assert head.points[0] == (LEFT, TOP)
    assert stage.points == [(RIGHT, BOTTOM)]


def test_a_rate_of_nearly_nothing_leaves_the_plot_and_none_is_left_out() -> None:
    chart = log_chart("Learning rate", {"head": [(1, 0.0), (2, 1e-2), (3, 1e-12)]}, best_epoch=1)
    assert chart
    assert [tick.text for tick in chart.y_ticks] == ["1e-6", "1e-5", "1e-4", "1e-3", "1e-2"]
    (head,) = chart.lines
    assert [y > BOTTOM for _, y in head.points] == [False, True]
    assert head.last == "1.0e-12"
    assert log_chart("Learning rate", {"head": [(1, 0.0)]}, best_epoch=1) is None


def test_each_bin_with_images_is_a_dot_with_its_interval() -> None:
    columns = [nan, 0.5, 1.0], [nan, 0.25, 1.0], [nan, 0.1, 0.8], [nan, 0.7, 1.0], [0, 4, 16]
    curve = CalibrationCurve(*map(torch.tensor, columns))
    few, many = reliability(curve)
    middle, quarter = (LEFT + RIGHT) / 2, BOTTOM - 0.25 * (BOTTOM - TOP)
    assert (few.x, few.y) == pytest.approx((middle, quarter), abs=0.1)
    assert (many.x, many.y) == (RIGHT, TOP)
    assert few.radius < many.radius
    height = BOTTOM - TOP
    assert (few.low, few.high) == pytest.approx((BOTTOM - 0.1 * height, BOTTOM - 0.7 * height), abs=0.1)
    assert (many.low, many.high) == pytest.approx((BOTTOM - 0.8 * height, TOP), abs=0.1)
    assert few.text == "50% confident, 25% right, n=4"
