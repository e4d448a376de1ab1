"""Numbers -> the geometry of small charts, in pixels, for a template to draw as SVG."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor, isfinite, log10
from typing import NamedTuple

from matplotlib.ticker import MaxNLocator

from thaw.inspection.predictions import CalibrationCurve

WIDTH, HEIGHT = 360, 230
"""Of a chart: as wide as a phone, so that its text is readable there and charts stand side by side elsewhere."""
LEFT, RIGHT, TOP, BOTTOM = 46, 348, 14, 196
"""Edges of the plot in the chart."""

Point = tuple[float, float]
Series = Mapping[str, Sequence[Point]]


class Tick(NamedTuple):
    """A place on an axis and what stands there."""

    at: float
    text: str


class Line(NamedTuple):
    """One series."""

    name: str
    points: list[Point]
    last: str
    """Its last value."""


@dataclass(frozen=True)
class LineChart:
    """Series over the epochs."""

    title: str
    lines: list[Line]
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    marker: float
    """Where the best epoch is."""


class Dot(NamedTuple):
    """A bin of a reliability diagram: mean confidence against accuracy, with its interval."""

    x: float
    y: float
    low: float
    high: float
    radius: float
    text: str


def line_chart(title: str, series: Series, best_epoch: int, percent: bool = False) -> LineChart | None:
    """Values, or shares as per cent, over epochs on a linear scale; None where no value is finite."""
    values = _finite(series)
    if not values:
        return None
    low, high = min(values), max(values)
    if high - low < 0.01:  # or else nearly nothing would look like a mountain
        low, high = max(low - 0.01, 0), high + 0.01
    steps = [round(float(step), 10) for step in MaxNLocator(5, steps=[1, 2, 5, 10]).tick_values(low, high)]
    if percent:
        steps = [step for step in steps if 0 <= step <= 1]
    form = "{:g}" if not percent else "{:.0%}" if steps[1] - steps[0] >= 0.01 else "{:.1%}"
    place = _scale(min(*steps, *values), max(*steps, *values), BOTTOM, TOP)
    ticks = [Tick(place(step), form.format(step)) for step in steps]
    return _chart(title, series, best_epoch, place, ticks, "{:.1%}" if percent else "{:.4f}")


def log_chart(title: str, series: Series, best_epoch: int) -> LineChart | None:
    """Positive values over epochs on a logarithmic scale; None where there is none.

    It has four decades at most, as a cosine ends at a rate of nearly nothing: what is below leaves the plot.
    """
    values = [value for value in _finite(series) if value > 0]
    if not values:
        return None
    top = ceil(log10(max(values)))
    bottom = min(max(floor(log10(min(values))), top - 4), top - 1)
    place = _scale(bottom, top, BOTTOM, TOP)
    ticks = [Tick(place(power), f"1e{power}") for power in range(bottom, top + 1)]
    positive = {name: [(x, y) for x, y in points if y > 0] for name, points in series.items()}
    return _chart(title, positive, best_epoch, lambda value: place(log10(value)), ticks, "{:.1e}")


def _chart(
    title: str, series: Series, best_epoch: int, place: Callable[[float], float], ticks: list[Tick], form: str
) -> LineChart:
    """The chart whose vertical axis is given."""
    last_epoch = max(x for points in series.values() for x, _ in points)
    across = _scale(min(1, last_epoch - 1), last_epoch, LEFT, RIGHT)
    epochs = MaxNLocator(6, integer=True).tick_values(1, last_epoch)
    x_ticks = [Tick(across(epoch), f"{epoch:.0f}") for epoch in epochs if 1 <= epoch <= last_epoch]
    lines = [
        Line(name, [(across(x), place(y)) for x, y in points if isfinite(y)], form.format(points[-1][1]))
        for name, points in series.items()
        if points
    ]
    return LineChart(title, lines, x_ticks, ticks, across(best_epoch))


def reliability(curve: CalibrationCurve) -> list[Dot]:
    """One dot for each bin of confidence that has images, the larger the more it has; both axes go from 0 to 1."""
    across, up = _scale(0, 1, LEFT, RIGHT), _scale(0, 1, BOTTOM, TOP)
    dots = []
    for confidence, accuracy, low, high, n in zip(*(values.tolist() for values in curve), strict=True):
        if n:
            text = f"{confidence:.0%} confident, {accuracy:.0%} right, n={n}"
            radius = 3 + 7 * (n / int(curve.n.max())) ** 0.5
            dots.append(Dot(across(confidence), up(accuracy), up(low), up(high), round(radius, 1), text))
    return dots


def _finite(series: Series) -> list[float]:
    return [y for points in series.values() for _, y in points if isfinite(y)]


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    """Values from `low` to `high` -> pixels from `start` to `end`."""
    return lambda value: round(start + (value - low) / (high - low) * (end - start), 1)
