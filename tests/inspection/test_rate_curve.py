import os

import numpy as np
import pytest

from thaw.errors import printable
from thaw.inspection.rate_curve import rate_curve

RATES = np.geomspace(1e-6, 10, 50)
FALL = np.interp(np.linspace(0, 1, 50), [0, 0.3, 0.7, 0.85, 1], [1.0, 1.0, 0.2, 0.3, 1000.0])


@pytest.mark.parametrize(("valley", "steepest"), [(1e-3, 1e-2), (1e-2, 1e-3), (1e-3, 1e-3)])
def test_both_suggestions_are_marked_on_the_curve(valley: float, steepest: float) -> None:
    axis = rate_curve(RATES, FALL, FALL, valley, steepest, "heading").axes[0]
    labels = {text.get_text(): text for text in axis.texts}
    assert labels.keys() == {f"valley\noptimizer.lr={valley:g}", f"steepest\noptimizer.lr={steepest:g}"}
    assert sorted(text.get_horizontalalignment() for text in axis.texts) == ["left", "right"]
    marks = {float(line.get_xdata()[0]): float(line.get_ydata()[0]) for line in axis.lines if line.get_marker() == "o"}
    assert marks.keys() == {valley, steepest}
    for rate, height in marks.items():
        assert height == pytest.approx(np.interp(np.log(rate), np.log(RATES), FALL))


def test_what_diverges_does_not_flatten_the_fall() -> None:
    axis = rate_curve(RATES, FALL, FALL, 1e-3, 1e-2, "heading").axes[0]
    low, high = axis.get_ylim()
    assert low < FALL.min()
    assert 1 < high < 2
    assert axis.get_xscale() == "log"


@pytest.mark.parametrize("heading", ["strategy $x_{$", os.fsdecode(b"strategy caf\xe9")])
def test_the_heading_is_drawn_as_it_is(heading: str) -> None:
    figure = rate_curve(RATES, FALL, FALL, 1e-3, 1e-2, heading)
    figure.draw_without_rendering()
    assert figure.get_suptitle() == printable(heading)
