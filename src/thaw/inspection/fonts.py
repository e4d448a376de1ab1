"""The fonts of pictures: DejaVu Sans, and what is installed for letters that it lacks, as Chinese and Korean ones."""

import logging
from collections.abc import Set
from contextlib import suppress
from functools import cache
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from matplotlib.font_manager import FontEntry, findSystemFonts, fontManager
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text

log = logging.getLogger(__name__)

DEJAVU = str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf")
"""The font of all pictures: its file."""


def find_font(letter: str) -> str:
    """The file of a font that has the letter; DejaVu Sans also where no font has it: a box."""
    if letter.isascii() or ord(letter) in _own_letters():
        return DEJAVU
    if ord(letter) not in _other_letters():
        _tell_of_boxes()
        return DEJAVU
    return _other_letters()[ord(letter)]


def add_fonts(figure: Figure) -> None:
    """Let each text of a figure fall back to the fonts of those letters that DejaVu Sans lacks."""
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        for path in dict.fromkeys(map(find_font, text.get_text())):
            families = text.get_fontfamily()
            if path != DEJAVU and path not in families:
                # A name of its own: the family's could stand for another file, and matplotlib would tell its weight.
                entry = FontEntry(fname=path, name=path, weight=text.get_fontweight())
                if entry not in fontManager.ttflist:
                    fontManager.ttflist.append(entry)
                text.set_fontfamily([*families, path])


@cache
def _own_letters() -> Set[int]:
    """Those of DejaVu Sans."""
    return FT2Font(DEJAVU).get_charmap().keys()


@cache
def _other_letters() -> dict[int, str]:
    """Letters that DejaVu Sans lacks, each with the file of a font that has it.

    Of several fonts, a regular one is taken, and of these the one of most letters: few are to be mixed in a name.
    """
    fonts = []
    # What matplotlib has kept since an earlier process lacks what was installed in the meantime.
    for path in {entry.fname for entry in fontManager.ttflist} | set(findSystemFonts()):
        if "LastResort" in path:  # boxes for all letters that there are
            continue
        with suppress(OSError, RuntimeError):  # broken, or made of pixels
            font = FT2Font(path)
            font.set_size(12, 72)
            letters = font.get_charmap().keys() - _own_letters()
            fonts.append((font.style_name != "Regular", -len(letters), path, letters))
    found: dict[int, str] = {}
    for *_, path, letters in sorted(fonts, reverse=True):
        found |= dict.fromkeys(letters, path)
    return found


@cache
def _tell_of_boxes() -> None:
    """Say it once: a data set's names may have thousands of such letters."""
    log.warning(
        "No installed font has some of the letters in these names: pictures show boxes in their place. Install one "
        "that has them, such as Noto Sans CJK for Chinese, Japanese and Korean."
    )
