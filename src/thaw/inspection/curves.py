"""The rows of metrics.csv -> charts of how a training went, for the report and as a picture."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from thaw.inspection.figures import INK, RIGHT, strip
from thaw.inspection.svg import LineChart, Point, line_chart, log_chart

Rows = Sequence[dict[str, Any]]

COLORS = {"train": "#9aa5b4", "val": RIGHT}


def learning_curves(rows: Rows, best_epoch: int) -> list[LineChart]:
    """Loss, accuracy and learning rates over the epochs; a chart without values is left out."""
    loss = {split: _points(rows, f"{split}/loss") for split in ("train", "val")}
    acc = {split: _points(rows, f"{split}/acc") for split in ("train", "val")}
    drawn = (
        line_chart("Loss", loss, best_epoch),
        line_chart("Accuracy", acc, best_epoch, percent=True),
        log_chart("Learning rate", _rates(rows), best_epoch),
    )
    return [chart for chart in drawn if chart]


def curves_figure(rows: Rows, best_epoch: int) -> Figure:
    """Loss and accuracy over the epochs, the best one marked."""
    figure = Figure((8, 3.2), layout="constrained", dpi=100)
    for axes, (name, metric) in zip(figure.subplots(1, 2), (("loss", "loss"), ("accuracy", "acc")), strict=True):
        for split, color in COLORS.items():
            points = _points(rows, f"{split}/{metric}")
            marker = "o" if len(points) < 4 else None
            epochs, values = [epoch for epoch, _ in points], [value for _, value in points]
            axes.plot(epochs, values, color=color, linewidth=1.8, marker=marker, markersize=4, label=split)
        axes.axvline(best_epoch, color="#999999", linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        axes.text(best_epoch, 1.01, "best", transform=axes.get_xaxis_transform(), ha="center", fontsize=8, color=INK)
        axes.set_xlabel("epoch", fontsize=9, color=INK)
        axes.set_ylabel(name, fontsize=9, color=INK)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        strip(axes)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    lines = axes.lines[: len(COLORS)]
    figure.legend(handles=lines, loc="outside upper center", ncols=2, fontsize=9, frameon=False, labelcolor=INK)
    return figure


def frozen_stages(rows: Rows) -> str:
    """The stages that never learned, such as `stages 0 to 8`; empty if each did."""
    frozen = [name for name in _stages(rows) if not _learns(rows, name)]
    return _span(frozen) if frozen else ""


def _rates(rows: Rows) -> dict[str, list[Point]]:
    """Learning rate of the head and of the stages that learn, the first stage first; equal neighbours are one."""
    learning = [name for name in _stages(rows) if _learns(rows, name)]
    same = [list(names) for _, names in groupby(learning, lambda name: _points(rows, name))]
    return {_span(names): _points(rows, names[0]) for names in same} | {"head": _points(rows, "lr/head")}


def _stages(rows: Rows) -> list[str]:
    return [name for name in rows[0] if name.startswith("lr/stage")] if rows else []


def _learns(rows: Rows, name: str) -> bool:
    return any(rate > 0 for _, rate in _points(rows, name))


def _points(rows: Rows, name: str) -> list[Point]:
    """Epoch and value, where there is one."""
    return [(row["epoch"], row[name]) for row in rows if row.get(name) is not None]


def _span(names: Sequence[str]) -> str:
    first, last = (int(name.rpartition("_")[2]) for name in (names[0], names[-1]))
    return f"stage {first}" if first == last else f"stages {first} to {last}"
