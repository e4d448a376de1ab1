"""Photographs in a grid, each under its title: what is trained on, what was predicted, what went wrong.

Drawn by Pillow: matplotlib takes several times as long for them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import groupby
from math import ceil
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torchvision.transforms.v2.functional import to_pil_image

from thaw.data.inputs import spread
from thaw.errors import abridge, printable
from thaw.inspection.figures import INK, RIGHT, WRONG
from thaw.inspection.fonts import DEJAVU, find_font
from thaw.inspection.predictions import Predictions

COLUMNS = 6
MOST = 18  # photographs: three rows, which a screen shows whole
SIDE, CELL = 200, (210, 245)  # pixels: an image's longer side; its place, with its title of two lines over it
LINE = 15  # pixels, from one line of a title to the next
HEAD = 35  # pixels, over the images
SHARP = 3  # enlarged so much, pixels stay what they are


@dataclass(frozen=True)
class Grid:
    """Images, each under its title, and a heading over all.

    Attributes:
        images: uint8 (3, H, W); at least one.
        titles: One an image, of a few lines; of more than two, all places are higher.
        colors: Of each title.
        heading: Over the whole.
    """

    images: Sequence[Tensor]
    titles: Sequence[str]
    colors: Sequence[str]
    heading: str

    @cached_property
    def corners(self) -> list[tuple[int, int]]:
        """Left and top of each image's place, in pixels."""
        places = (divmod(number, COLUMNS) for number in range(len(self.images)))
        margin = (self.width - CELL[0] * min(COLUMNS, len(self.images))) // 2
        return [(margin + CELL[0] * column, HEAD + self.height * row) for row, column in places]

    @cached_property
    def height(self) -> int:
        """Of a place, in pixels: room for the longest title."""
        return CELL[1] + LINE * max(0, *(len(title.splitlines()) - 2 for title in self.titles))

    @cached_property
    def width(self) -> int:
        """Of the picture, in pixels: room for the images of a row, and for the heading."""
        return max(CELL[0] * min(COLUMNS, len(self.images)), ceil(_font(DEJAVU, 15).getlength(self.heading)) + 20)

    def draw(self) -> Image.Image:
        """The picture, RGB."""
        rows = ceil(len(self.images) / COLUMNS)
        picture = Image.new("RGB", (self.width, HEAD + self.height * rows), "white")
        pen = ImageDraw.Draw(picture)
        pen.text((picture.width / 2, 10), self.heading, INK, _font(DEJAVU, 15), "ma")
        for image, title, color, (left, top) in zip(self.images, self.titles, self.colors, self.corners, strict=True):
            photo = _fit(to_pil_image(image))
            bottom, middle = top + self.height - 5, left + CELL[0] // 2
            picture.paste(photo, (middle - photo.width // 2, bottom - photo.height))
            lines = [_shorten(printable(line)) for line in title.splitlines()]
            for number, line in enumerate(reversed(lines)):
                start: float = middle - round(_length(line) / 2)
                for text, font in _split(line):
                    pen.text((start, bottom - photo.height - 6 - LINE * number), text, color, font, "ls")
                    start += font.getlength(text)
        return picture


def _fit(photo: Image.Image) -> Image.Image:
    """The photograph in its largest size that fits, of its own shape."""
    scale = SIDE / max(photo.size)
    size = max(round(scale * photo.width), 1), max(round(scale * photo.height), 1)
    return photo.resize(size, Image.Resampling.NEAREST if scale >= SHARP else Image.Resampling.LANCZOS)


def _shorten(line: str) -> str:
    """As much of the line as a place is wide."""
    if _fits(line):
        return line
    length = next(n for n in range(len(line), -1, -1) if _fits(line[:n] + "…"))
    return line[:length] + "…"


def fill(text: str, name: str) -> str:
    """The text with the name in its gap, abridged so far that a place is wide enough: figures stay whole."""
    name = printable(name)
    fitting = (line for most in range(len(name), 4, -1) if _fits(line := text.format(abridge(name, most))))
    return next(fitting, text.format(abridge(name, 5)))


def _join(*parts: str) -> str:
    """The parts side by side if a place is wide enough, or else one below the other."""
    line = ", ".join(parts)
    return line if _fits(line) else "\n".join(parts)


def _fits(line: str) -> bool:
    """Whether a place is wide enough for a line of a title."""
    return _length(line) <= SIDE


def _length(line: str) -> float:
    """Of a line of a title, in pixels."""
    return sum(font.getlength(text) for text, font in _split(line))


def _split(line: str) -> list[tuple[str, ImageFont.FreeTypeFont]]:
    """The line of a title in parts, each with a font that has its letters."""
    return [("".join(letters), _font(path, 12)) for path, letters in groupby(line, find_font)]


@cache
def _font(path: str, size: int) -> ImageFont.FreeTypeFont:
    """The letters of a file, so many pixels high."""
    return ImageFont.truetype(path, size)


def mix_rows(
    mix: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], images: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor]:
    """Training images as uint8 and their shares of the classes, each row of a grid mixed as a batch of its own.

    A batch is mixed by one number, and mixup's common 0.2 leaves the half of them all but as they were.
    """
    rows = zip(torch.split(images.float(), COLUMNS), torch.split(labels, COLUMNS), strict=True)
    mixed, shares = zip(*(mix(*row) for row in rows), strict=True)
    return torch.cat(mixed).round().to(torch.uint8), torch.cat(shares)


def training_grid(images: Tensor, targets: Tensor, classes: Sequence[str]) -> Grid:
    """Augmented training images, uint8 (B, 3, H, W), under what they are.

    Args:
        images: The images.
        targets: Their labels (B,), or, where images are mixed, their shares (B, K) of the classes.
        classes: Names, by label.
    """
    if targets.ndim == 1:
        titles = [classes[label] for label in targets.tolist()]
    else:
        shares = [[(classes[k], row[k]) for k in row.nonzero().flatten().tolist()] for row in targets]
        titles = ["\n".join(fill(f"{{}} {share:.0%}", name) for name, share in each) for each in shares]
    return Grid(list(images), titles, [INK] * len(titles), "Training images as the network sees them")


def prediction_grid(images: Sequence[Tensor], predictions: Predictions, chosen: Sequence[int], split: str) -> Grid:
    """Images with what was predicted for them, blue where right and red where wrong.

    Args:
        images: uint8 (3, H, W), one for each of `chosen`.
        predictions: Of the whole split.
        chosen: Which of its images are shown.
        split: Its name.
    """
    titles = []
    for index in chosen:
        label, predicted = int(predictions.labels[index]), int(predictions.predicted[index])
        probability = float(predictions.probabilities[index, predicted])
        said = fill(f"{{}} {probability:.0%}", predictions.classes[predicted])
        titles.append(said if label == predicted else f"{said}\n{fill('is {}', predictions.classes[label])}")
    num_wrong = int((predictions.predicted != predictions.labels).sum())
    heading = f"Predictions of the best epoch on {split}: {num_wrong} of {len(predictions.labels)} wrong (red)"
    return Grid(images, titles, _colors(predictions, chosen), heading)


def top_losses_grid(images: Sequence[Tensor], predictions: Predictions, chosen: Sequence[int], split: str) -> Grid:
    """Images with what was predicted, what they are, the probability of both, the loss and the file's name.

    Args:
        images: uint8 (3, H, W), one for each of `chosen`; overlays of them are as good.
        predictions: Of the whole split.
        chosen: Which of its images are shown, as `Predictions.top_losses` gives them.
        split: Its name.
    """
    titles = []
    for index in chosen:
        label, predicted = int(predictions.labels[index]), int(predictions.predicted[index])
        shares = predictions.probabilities[index]
        said = fill(f"{{}} {shares[predicted]:.0%}", predictions.classes[predicted])
        actual = fill(f"is {{}} {shares[label]:.0%}", predictions.classes[label])
        loss = f"loss {predictions.losses[index]:.2f}"
        name = fill("{}", Path(predictions.paths[index]).name)
        titles.append(f"{said}\n{loss if label == predicted else _join(actual, loss)}\n{name}")
    return Grid(images, titles, _colors(predictions, chosen), f"Highest losses on {split}")


def least_certain_grid(images: Sequence[Tensor], predictions: Predictions, chosen: Sequence[int], split: str) -> Grid:
    """Images with the two classes that the classifier wavers between, blue where it is right after all.

    Args:
        images: uint8 (3, H, W), one for each of `chosen`.
        predictions: Of the whole split.
        chosen: Which of its images are shown, as `Predictions.least_certain` gives them.
        split: Its name.
    """
    titles = []
    for index in chosen:
        shares, labels = predictions.probabilities[index].topk(2)
        first, second = (
            fill(f"{{}} {share:.0%}", predictions.classes[k])
            for share, k in zip(shares.tolist(), labels.tolist(), strict=True)
        )
        label = int(predictions.labels[index])
        actual = [] if label == labels[0] else [fill("is {}", predictions.classes[label])]
        titles.append(f"{first}\n{_join(second, *actual)}")
    return Grid(images, titles, _colors(predictions, chosen), f"Least certain on {split}")


def _colors(predictions: Predictions, chosen: Sequence[int]) -> list[str]:
    return [RIGHT if predictions.predicted[index] == predictions.labels[index] else WRONG for index in chosen]


def choose_for_grid(predictions: Predictions) -> list[int]:
    """Indices of images worth a look: half are the wrong ones of highest loss, the rest evenly spread right ones."""
    right = predictions.predicted == predictions.labels
    order = predictions.losses.argsort(descending=True).tolist()
    right_ones = [index for index in range(len(right)) if right[index]]
    wrong_ones = [index for index in order if not right[index]][: max(MOST // 2, MOST - len(right_ones))]
    return sorted(wrong_ones + spread(right_ones, MOST - len(wrong_ones)))
