from collections.abc import Callable, Iterator
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image

from thaw.inspection import fonts
from thaw.inspection.charts import confusion_chart
from thaw.inspection.figures import write_figure
from thaw.inspection.fonts import DEJAVU, find_font
from thaw.inspection.grids import SIDE, Grid, _fits, fill
from thaw.inspection.predictions import Predictions

Install = Callable[..., str]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Installs a font for a while, beside matplotlib's own: a black square for each letter, and blank ASCII."""
    installed: list[str] = []
    own = [entry for entry in fontManager.ttflist if entry.fname.startswith(matplotlib.get_data_path())]
    monkeypatch.setattr(fontManager, "ttflist", own)
    monkeypatch.setattr(fonts, "findSystemFonts", lambda: installed)
    for found in (fonts._other_letters, fonts._tell_of_boxes):
        found.cache_clear()

    def make(letters: str, style: str = "Regular", known: bool = False) -> str:
        path = str(tmp_path / f"{len(list(tmp_path.iterdir()))}.ttf")
        _write_font(path, letters, style)
        if known:
            fontManager.addfont(path)
        else:
            installed.append(path)
        return path

    yield make
    fonts._other_letters.cache_clear()


def _write_font(path: str, letters: str, style: str) -> None:
    pen = TTGlyphPen(None)
    for move, corner in zip((pen.moveTo, *[pen.lineTo] * 3), ((0, 0), (0, 900), (1000, 900), (1000, 0)), strict=True):
        move(corner)
    pen.closePath()
    square, blank = pen.glyph(), TTGlyphPen(None).glyph()
    glyphs = {".notdef": blank, "blank": blank, "square": square}
    font = FontBuilder(1000)
    font.setupGlyphOrder(list(glyphs))
    font.setupCharacterMap(dict.fromkeys(range(32, 127), "blank") | {ord(letter): "square" for letter in letters})
    font.setupGlyf(glyphs)
    font.setupHorizontalMetrics(dict.fromkeys(glyphs, (1000, 0)))
    font.setupHorizontalHeader(ascent=900, descent=-100)
    font.setupNameTable({"familyName": "Squares", "styleName": style})
    font.setupOS2(sTypoAscender=900, sTypoDescender=-100, usWeightClass=500)
    font.setupPost()
    font.save(path)


def has_square(picture: Image.Image, side: int) -> bool:
    """Whether so many pixels in both directions are ink."""
    ink = np.asarray(picture.convert("L")) < 70  # as dark as INK is, and no cell of a matrix
    return bool(sliding_window_view(ink, (side, side)).all(axis=(2, 3)).any())


def draw_title(title: str) -> Image.Image:
    """What stands over a white image."""
    return Grid([torch.full((3, SIDE, SIDE), 255, dtype=torch.uint8)], [title], ["#000000"], "").draw()


@pytest.mark.parametrize("known", [True, False], ids=["known to matplotlib", "installed since"])
def test_a_letter_that_dejavu_lacks_has_the_font_that_has_it(install: Install, known: bool) -> None:
    path = install("蚂", known=known)
    assert [find_font(letter) for letter in "蚂蚁aä…"] == [path, *[DEJAVU] * 4]


def test_no_font_is_looked_for_while_dejavu_has_all_letters(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(fonts, "findSystemFonts")
    assert {find_font(letter) for letter in "Käfer 94 %…Жук"} == {DEJAVU}


def test_a_regular_font_of_many_letters_comes_first(install: Install) -> None:
    install("蚂蚁蜜蜂", "Bold")
    install("蚂")
    path = install("蚂蚁")
    assert [find_font(letter) for letter in "蚂蚁"] == [path, path]


def test_a_broken_font_is_passed_over(install: Install) -> None:
    Path(install("蚂")).write_bytes(b"no font")
    Path(install("蚂")).unlink()
    assert find_font("蚂") == DEJAVU
    assert not has_square(draw_title("蚂 94%"), 8)


def test_a_title_takes_the_letters_of_both_fonts(install: Install) -> None:
    install("蚂")
    picture = draw_title("蚂 94%")
    assert has_square(picture, 10)
    columns = np.flatnonzero((np.asarray(picture.convert("L")) < 128).any(axis=0))
    assert columns[-1] - columns[0] > 12 + 4 + 20  # the square, the blank and the figures
    assert abs((columns[0] + columns[-1]) / 2 - picture.width / 2) <= 2


def test_a_long_name_of_wide_letters_is_abridged(install: Install) -> None:
    install("蚂")
    line = fill("is {} 94%", "蚂" * 30)
    assert "…" in line
    assert _fits(line)
    assert not _fits(line.replace("…", "蚂蚂蚂"))


@pytest.mark.parametrize("weight", ["normal", "bold"])
def test_a_figure_takes_the_letters_of_both_fonts_and_nothing_is_told(
    install: Install, weight: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    install("蚂")
    figure = Figure((3, 1), dpi=100)
    figure.text(0.1, 0.5, "蚂 94 %", fontsize=20, fontweight=weight)
    write_figure(figure, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as picture:
        assert has_square(picture.crop((0, 0, 60, 100)), 20)
        assert (np.asarray(picture.crop((60, 0, 300, 100)).convert("L")) < 70).any()  # the figures
    assert caplog.records == []


@pytest.mark.filterwarnings("ignore:Glyph .* missing from .*font")
def test_that_no_font_has_a_letter_is_told_once(
    install: Install, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    install("蚂")
    for letters in ("蚂蚁", "蜜蜂"):
        figure = Figure((3, 1))
        figure.text(0.1, 0.5, letters)
        write_figure(figure, tmp_path / "a.png")
        draw_title(letters)
    (line,) = caplog.messages
    assert line.startswith("No installed font has some of the letters in these names: pictures show boxes")


@pytest.mark.filterwarnings("ignore:Glyph .* missing from .*font")
def test_class_names_beside_a_matrix_take_it_too(install: Install, tmp_path: Path) -> None:
    predictions = Predictions(["a.png", "b.png"], torch.arange(2), torch.eye(2), ["蚂", "bees"])
    write_figure(confusion_chart(predictions, "val"), tmp_path / "boxes.png")
    install("蚂")
    fonts._other_letters.cache_clear()
    write_figure(confusion_chart(predictions, "val"), tmp_path / "names.png")
    for name, expected in (("boxes.png", False), ("names.png", True)):
        with Image.open(tmp_path / name) as picture:
            assert has_square(picture, 9) == expected
