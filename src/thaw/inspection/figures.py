"""A picture as a file, and the colours of all of them."""

import warnings
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from thaw.inspection.fonts import add_fonts
from thaw.writing import drafting

# Drawn as boxes: no reason to disturb what is printed.
warnings.filterwarnings("ignore", message="Glyph .* missing from .*font")

RIGHT, WRONG = "#1f5fbf", "#c8322b"
INK, LINE = "#333333", "#d5d5d5"


def strip(axes: Axes) -> None:
    """Leave of a plot's frame what is read: two thin axes, and lines across at the values of the vertical one."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(LINE)
    axes.tick_params(labelsize=8, color=LINE, labelcolor=INK)
    axes.grid(axis="y", color="#eeeeee")
    axes.set_axisbelow(True)


def write_figure(figure: Figure | Image.Image, path: Path) -> None:
    """Keep a picture as a file, whole or not at all, in the format that its suffix names.

    Grids of photographs go well as .jpg: .png takes five times the room, and a tenth of a second to compress.

    Raises:
        OSError: The system refuses to write.
        ValueError: The suffix names no format for such a picture.
    """
    suffix = path.suffix.lower()
    kind = Image.registered_extensions().get(suffix)
    if isinstance(figure, Image.Image) and kind not in Image.SAVE:
        raise ValueError(f"{path} names no format that a picture can be kept in: end it in .jpg or .png.")
    with drafting(path) as draft:
        if isinstance(figure, Figure):
            add_fonts(figure)
            figure.savefig(draft, format=suffix[1:] or "png")
        else:
            figure.save(draft, kind, quality=80)
