"""A leaderboard as a picture: accuracies and intervals, a line a setting."""

import textwrap
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from rich.cells import cell_len

from thaw.comparison.leaderboard import Leaderboard
from thaw.comparison.repeats import Setting
from thaw.comparison.section import Section
from thaw.comparison.verdicts import BEST, Verdict
from thaw.errors import printable
from thaw.inspection.figures import INK, RIGHT, WRONG

OTHER = "#66758c"
"""The colour of settings that may be as good as the best."""
LINE_INCHES, GAP_INCHES, HEAD_INCHES = 0.17, 0.1, 0.9
"""Height of a line of a setting's label, between settings, and of what stands above and below those of a section."""
LABEL_LETTERS, TITLE_LETTERS, MOST_LINES = 36, 60, 8
"""Size of a setting's label, and of a section's title."""


def accuracy_chart(leaderboard: Leaderboard) -> Figure:
    """Every setting's accuracy with its 95 % interval, its runs as small dots; a panel for each set of images.

    All panels have the same axis.
    """
    sections = leaderboard.sections
    labels = [[_wrap(text, LABEL_LETTERS) for text in section.labels] for section in sections]
    heights = [HEAD_INCHES + len(each) * _row_inches(each) for each in labels]
    figure = Figure(figsize=(9, sum(heights) + 0.4), layout=ConstrainedLayoutEngine(hspace=0.06), dpi=150)
    panels = figure.subplots(len(sections), sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    for axes, section, own in zip(panels, sections, labels, strict=True):
        _draw(axes, section, own)
    dots = "; small dots: single runs" if any(len(setting.records) > 1 for setting in leaderboard.settings) else ""
    panels[-1].set_xlabel(f"accuracy and its 95 % interval (Wilson){dots}", color=INK)
    return figure


def _wrap(text: str, letters: int) -> str:
    """The text in lines of so many letters, or half as many where they are twice as wide."""
    text = printable(text)
    width = letters * len(text) // max(1, cell_len(text))
    return textwrap.fill(text, width, max_lines=MOST_LINES, placeholder=" …")


def _row_inches(labels: Sequence[str]) -> float:
    """Height of a setting: room for two lines, or for the longest label."""
    return GAP_INCHES + LINE_INCHES * max(2, *(len(label.splitlines()) for label in labels))


def _draw(axes: Axes, section: Section, labels: Sequence[str]) -> None:
    rows = list(zip(section.settings, section.verdicts, strict=True))
    for row, (setting, verdict) in enumerate(rows):
        _draw_setting(axes, row, setting, verdict)
    axes.set_yticks(range(len(rows)), labels, color=INK, parse_math=False)  # names may hold dollar signs
    verdicts = axes.secondary_yaxis("right")
    verdicts.set_yticks(range(len(rows)), [str(verdict) for _, verdict in rows], color=INK, fontsize=8.5)
    verdicts.tick_params(length=0)
    verdicts.spines.right.set_visible(False)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    heading = _wrap(section.title, TITLE_LETTERS)
    title = axes.set_title(heading, loc="left", fontsize=10, fontweight="bold", color=INK, pad=10)
    title.set_parse_math(False)
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.4g} %")
    axes.grid(axis="x", color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, colors=INK, labelbottom=True)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _draw_setting(axes: Axes, row: int, setting: Setting, verdict: Verdict) -> None:
    color = RIGHT if verdict.reason == BEST else WRONG if verdict.word == "worse" else OTHER
    low, high = setting.interval
    axes.plot([low, high], [row, row], color=color, linewidth=5, alpha=0.3, solid_capstyle="round")
    if len(setting.records) > 1:
        accuracies = [record.metrics["acc"] for record in setting.records]
        axes.scatter(accuracies, [row + 0.22] * len(accuracies), s=8, color=color, alpha=0.7, linewidths=0)
    axes.scatter([setting.acc], [row], s=60, color=color, edgecolors="white", linewidths=1.2, zorder=3)
    percent, place = f"{100 * setting.acc:.1f}", (setting.acc, row)
    axes.annotate(percent, place, (0, 6), textcoords="offset points", ha="center", fontsize=8, color=color)
