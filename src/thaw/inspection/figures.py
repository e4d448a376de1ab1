"""The pictures of a run, as matplotlib figures."""

import warnings
from collections.abc import Sequence
from math import ceil
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from torch import Tensor

from thaw.errors import printable
from thaw.inspection.predictions import Predictions
from thaw.writing import drafting

# Drawn as boxes: no reason to disturb what is printed.
warnings.filterwarnings("ignore", message="Glyph .* missing from font")

RIGHT, WRONG = "#1f5fbf", "#c8322b"
INK = "#333333"
CELL = (2.1, 2.45)  # inches: an image, and its title of two lines over it


def image_grid(images: Sequence[Tensor], titles: Sequence[str], colors: Sequence[str], heading: str) -> Figure:
    """A grid of uint8 images (3, H, W), each under its title.

    Args:
        images: At least one.
        titles: One an image.
        colors: Of each title.
        heading: Over the whole figure.
    """
    columns = min(6, len(images))
    rows = ceil(len(images) / columns)
    width, height = CELL[0] * columns, CELL[1] * rows + 0.35
    figure = Figure(figsize=(width, height), dpi=100)
    figure.suptitle(heading, fontsize=11, color=INK, y=1 - 0.1 / height, va="top")
    # One pair of axes, in inches, for all images: a pair for each costs ten times as long to draw.
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    for number, (image, title, color) in enumerate(zip(images, titles, colors, strict=True)):
        row, column = divmod(number, columns)
        middle, bottom = CELL[0] * (column + 0.5), CELL[1] * (rows - 1 - row) + 0.05
        scale = (CELL[0] - 0.1) / max(image.shape[1:])
        half, top = scale * image.shape[2] / 2, bottom + scale * image.shape[1]
        axes.imshow(image.permute(1, 2, 0).cpu().numpy(), extent=(middle - half, middle + half, bottom, top))
        # Names may hold dollar signs, and what no font has.
        text = "\n".join(map(printable, title.splitlines()))
        axes.text(middle, top + 0.05, text, fontsize=9, color=color, ha="center", va="bottom", parse_math=False)
    axes.set(xlim=(0, width), ylim=(0, height))
    return figure


def write_figure(figure: Figure, path: Path) -> None:
    """Keep a figure as a file, whole or not at all, in the format that its suffix names.

    Grids of photographs go well as .jpg: .png takes five times the room, and a tenth of a second to compress.

    Raises:
        OSError: The system refuses to write.
        ValueError: The suffix names no format of matplotlib's.
    """
    options: dict[str, Any] = {"pil_kwargs": {"quality": 90, "subsampling": 0}} if path.suffix == ".jpg" else {}
    with drafting(path) as draft:
        figure.savefig(draft, format=path.suffix[1:] or "png", **options)


def training_grid(images: Tensor, labels: Tensor, classes: Sequence[str], most: int = 24) -> Figure:
    """One augmented training batch, uint8 (B, 3, H, W), under its class names."""
    titles = [classes[label] for label in labels[:most].tolist()]
    return image_grid(list(images[:most]), titles, [INK] * len(titles), "Training images as the network sees them")


def prediction_grid(images: Sequence[Tensor], predictions: Predictions, chosen: Sequence[int], split: str) -> Figure:
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
        actual = "" if label == predicted else f"\nis {predictions.classes[label]}"
        titles.append(f"{predictions.classes[predicted]} {probability:.0%}{actual}")
    num_wrong = int((predictions.predicted != predictions.labels).sum())
    heading = f"Predictions of the best epoch on {split}: {num_wrong} of {len(predictions.labels)} wrong (red)"
    return image_grid(images, titles, _colors(predictions, chosen), heading)


def top_losses_grid(images: Sequence[Tensor], predictions: Predictions, chosen: Sequence[int], split: str) -> Figure:
    """Images with what was predicted, what they are, the probability of both, and the loss.

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
        said, actual = (f"{predictions.classes[k]} {shares[k]:.0%}" for k in (predicted, label))
        loss = f"loss {predictions.losses[index]:.2f}"
        titles.append(f"{said}\n{loss}" if label == predicted else f"{said}\nis {actual}, {loss}")
    return image_grid(images, titles, _colors(predictions, chosen), f"Highest losses on {split}")


def least_certain_grid(images: Sequence[Tensor], predictions: Predictions, chosen: Sequence[int], split: str) -> Figure:
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
            f"{predictions.classes[k]} {share:.0%}" for share, k in zip(shares.tolist(), labels.tolist(), strict=True)
        )
        label = int(predictions.labels[index])
        actual = "" if label == labels[0] else f", is {predictions.classes[label]}"
        titles.append(f"{first}\n{second}{actual}")
    return image_grid(images, titles, _colors(predictions, chosen), f"Least certain on {split}")


def _colors(predictions: Predictions, chosen: Sequence[int]) -> list[str]:
    return [RIGHT if predictions.predicted[index] == predictions.labels[index] else WRONG for index in chosen]


def choose_for_grid(predictions: Predictions, most: int = 24) -> list[int]:
    """Indices of images worth a look: half are the wrong ones of highest loss, the rest evenly spread right ones."""
    right = predictions.predicted == predictions.labels
    order = predictions.losses.argsort(descending=True).tolist()
    right_ones = [index for index in range(len(right)) if right[index]]
    wrong_ones = [index for index in order if not right[index]][: max(most // 2, most - len(right_ones))]
    room = most - len(wrong_ones)
    spread = right_ones[:: max(1, len(right_ones) // room)][:room] if right_ones else []
    return sorted(wrong_ones + spread)
