"""What went wrong, and how sure it was, as charts: the confusion matrix and the calibration curve."""

from typing import Any, cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray
from rich.cells import cell_len

from thaw.errors import abridge, printable
from thaw.inspection.figures import INK, RIGHT, WRONG, strip
from thaw.inspection.predictions import NUM_BINS, Predictions

MOST_CLASSES, FEWER_CLASSES = 40, 24
"""Classes of a matrix that can be read: all if there are no more than the first, else the most confused."""
LONGEST_NAME = 40
"""Letters of a class's name at the matrix: a longer one would leave it little room."""
BLUES = LinearSegmentedColormap.from_list("right", ["#ffffff", RIGHT])
REDS = LinearSegmentedColormap.from_list("wrong", ["#ffffff", WRONG])


def confusion_chart(predictions: Predictions, split: str) -> Figure:
    """Numbers of images by actual class (rows) and predicted class (columns), shaded by their share of the row.

    Classes that do not occur are left out; above 40, only the 24 in the most frequent confusions are shown.
    """
    labels, num_occurring = _labels_to_show(predictions.confusion.numpy())
    counts, totals = predictions.confusion[labels][:, labels].numpy(), predictions.confusion.sum(dim=1)[labels].numpy()
    names = [abridge(printable(predictions.classes[label]), LONGEST_NAME) for label in labels]
    num_wrong = int((predictions.predicted != predictions.labels).sum())
    heading = f"Confusion on {split}: {num_wrong} of {len(predictions.labels)} wrong"
    if len(names) < num_occurring:
        heading += f"\nthe {len(names)} of {num_occurring} classes in the most frequent confusions"
    cell, size = (1.0, 12.0) if len(names) <= 4 else (0.45, 9.0) if len(names) <= 16 else (0.29, 7.0)  # inches, points
    longest = max(map(cell_len, names)) * size * 0.55 / 72
    margin = 0.8 + longest
    side = cell * len(names)
    figure = Figure((side + margin + 0.4, side + 0.6 * margin + 0.6), layout="constrained", dpi=100)
    figure.suptitle(heading, fontsize=11, color=INK)
    axes = figure.subplots()
    _fill_cells(axes, counts, counts / np.maximum(totals, 1)[:, None], size)
    fits = longest < 0.9 * cell
    style: dict[str, Any] = {"fontsize": min(size, 9), "parse_math": False}  # a class's name may hold dollar signs
    axes.set_xticks(range(len(names)), names, rotation=0 if fits else 45, **style)
    if not fits:
        for tick in axes.get_xticklabels():
            tick.set(ha="right", rotation_mode="anchor")
    rows = [f"{name} ({total})" for name, total in zip(names, totals, strict=True)]
    axes.set_yticks(range(len(names)), rows, **style)
    axes.set_xlabel("predicted", fontsize=9, color=INK)
    axes.set_ylabel("actual (images)", fontsize=9, color=INK)
    return figure


def _labels_to_show(confusion: NDArray[np.int64]) -> tuple[list[int], int]:
    """The classes to show, and how many occur."""
    occurring = np.flatnonzero(confusion.sum(axis=0) + confusion.sum(axis=1))
    if len(occurring) <= MOST_CLASSES:
        return occurring.tolist(), len(occurring)
    wrong = confusion - np.diag(np.diag(confusion))
    pairs = np.argsort(-wrong, axis=None, kind="stable")[: np.count_nonzero(wrong)]
    confused = np.stack(np.unravel_index(pairs, wrong.shape), axis=1).ravel().tolist()
    by_rank = list(dict.fromkeys([*confused, *occurring.tolist()]))
    return sorted(by_rank[:FEWER_CLASSES]), len(occurring)


def _fill_cells(axes: Axes, counts: NDArray[np.int64], shares: NDArray[np.float64], size: float) -> None:
    """Blue cells on the diagonal, red ones beside it: the darker, the larger the share; a single image can be seen."""
    strength = np.where(counts > 0, 0.12 + 0.88 * shares, 0)
    diagonal = np.eye(len(counts), dtype=bool)
    axes.imshow(np.where(diagonal[..., None], BLUES(strength), REDS(strength)))
    for row, column in np.argwhere(counts):
        color = "white" if strength[row, column] > 0.6 else INK
        axes.text(column, row, str(counts[row, column]), ha="center", va="center", fontsize=size, color=color)
    axes.set_xticks(np.arange(len(counts) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(counts) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="#e8e8e8", linewidth=0.8)
    axes.tick_params(which="both", length=0, labelcolor=INK)
    axes.spines[:].set_visible(False)


def calibration_chart(predictions: Predictions, split: str) -> Figure:
    """How often it is right when it says to be so sure, with 95 % intervals; below, how often it says so."""
    confidence, accuracy, low, high, n = (column.numpy() for column in predictions.calibration_curve())
    used = np.flatnonzero(n)
    right = np.rint(accuracy[used] * n[used]).astype(int)
    figure = Figure((5.6, 5.4), dpi=100)
    error = predictions.calibration_error()
    figure.suptitle(f"Calibration on {split}: {error:.1%} expected error, n={n.sum()}", fontsize=11, color=INK)
    upper, lower = cast(tuple[Axes, Axes], figure.subplots(2, 1, sharex=True, height_ratios=(3, 1)))
    figure.subplots_adjust(left=0.125, right=0.955, bottom=0.09, top=0.89, hspace=0.09)  # a layout engine draws twice
    centres, width = (np.arange(NUM_BINS) + 0.5) / NUM_BINS, 1 / NUM_BINS
    upper.plot([0, 1], [0, 1], color="#999999", linewidth=1, linestyle=(0, (4, 3)))
    upper.bar(centres[used], accuracy[used], width, color=RIGHT, alpha=0.16, edgecolor="white")
    upper.vlines(confidence[used], low[used], high[used], color=RIGHT, linewidth=1.2)
    upper.plot(confidence[used], accuracy[used], "o", color=RIGHT, markersize=5, clip_on=False, zorder=3)
    upper.set_title("above the line it is right more often than it is sure, below less often", fontsize=8, color=INK)
    upper.set_ylabel("share that is right", fontsize=9, color=INK)
    upper.set_ylim(0, 1.03)
    upper.yaxis.set_major_formatter(PercentFormatter(1))
    lower.bar(centres[used], right, width, color=RIGHT, edgecolor="white", label="right")
    lower.bar(centres[used], n[used] - right, width, right, color=WRONG, edgecolor="white", label="wrong")
    lower.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    lower.set_ylabel("images", fontsize=9, color=INK)
    lower.set_xlabel("probability of the predicted class", fontsize=9, color=INK)
    lower.set_xlim(used[0] / NUM_BINS, 1)
    lower.xaxis.set_major_formatter(PercentFormatter(1))
    lower.legend(
        fontsize=8, frameon=False, loc="lower right", bbox_to_anchor=(1, 0.95), ncols=2, labelcolor=INK, handlelength=1
    )
    strip(upper)
    strip(lower)
    return figure
