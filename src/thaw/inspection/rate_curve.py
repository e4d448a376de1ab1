"""The picture of a learning-rate range test."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from numpy.typing import NDArray

from thaw.errors import printable
from thaw.inspection.figures import INK, RIGHT, WRONG, strip

BATCH, CURVE, VALLEY, STEEPEST = "#a9b8d0", RIGHT, WRONG, "#d17a0f"


def rate_curve(
    rates: NDArray[np.float64],
    losses: NDArray[np.float64],
    smoothed: NDArray[np.float64],
    valley: float,
    steepest: float,
    heading: str,
) -> Figure:
    """Loss over the logarithm of the learning rate, batch by batch and smoothed, with both suggestions marked.

    Args:
        rates: `optimizer.lr` of each step (N,).
        losses: Of each step's batch (N,).
        smoothed: What the suggestions were read from (N,).
        valley: The suggested rate.
        steepest: The rate of the steepest fall.
        heading: Over the figure.
    """
    figure = Figure(figsize=(8, 4.5), layout="constrained", dpi=120)
    figure.suptitle(printable(heading), fontsize=11, color=INK, parse_math=False)  # it names the strategy
    axis = figure.subplots()
    axis.set_xscale("log")
    axis.scatter(rates, losses, s=11, color=BATCH, linewidths=0, label="loss of each batch")
    axis.plot(rates, smoothed, color=CURVE, linewidth=2.2, label="running mean, which lags")
    marks = sorted([(valley, VALLEY, "valley"), (steepest, STEEPEST, "steepest")])
    for (rate, color, name), side, gap in zip(marks, ("right", "left"), (-5, 5), strict=True):
        height = float(np.interp(np.log(rate), np.log(rates), smoothed))
        axis.axvline(rate, color=color, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        axis.plot(rate, height, "o", color=color, markersize=8, markeredgecolor="white", markeredgewidth=1.2, zorder=5)
        axis.annotate(
            f"{name}\noptimizer.lr={rate:g}", (rate, 1), (gap, 0), xycoords=("data", "axes fraction"),
            textcoords="offset points", ha=side, va="top", fontsize=9, color=color,
        )  # fmt: skip
    # Room for the labels above the fall; what diverges after it would flatten the rest.
    low, start = min(losses.min(), smoothed.min()), smoothed[: int(smoothed.argmin()) + 1].max()
    axis.set_ylim(low - 0.05 * (start - low), start + 0.35 * (start - low))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_xlabel("optimizer.lr", color=INK)
    axis.set_ylabel("training loss", color=INK)
    strip(axis)
    axis.legend(frameon=False, fontsize=9, labelcolor=INK, loc="lower left")
    return figure
