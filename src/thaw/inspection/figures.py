"""The pictures of a run, as matplotlib figures."""

from collections.abc import Sequence
from math import ceil

from matplotlib.figure import Figure
from torch import Tensor

from thaw.inspection.predictions import Predictions

RIGHT, WRONG = "#1f5fbf", "#c8322b"


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
    figure = Figure(figsize=(2.1 * columns, 2.45 * rows + 0.55), layout="constrained", dpi=100)
    figure.suptitle(heading, fontsize=11, color="#333333")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, image, title, color in zip(axes.flat, images, titles, colors, strict=False):
        axis.imshow(image.permute(1, 2, 0).cpu().numpy())
        axis.set_title(title, fontsize=9, color=color, parse_math=False)  # a file's name may hold dollar signs
    return figure


def training_grid(images: Tensor, labels: Tensor, classes: Sequence[str], most: int = 24) -> Figure:
    """One augmented training batch, uint8 (B, 3, H, W), under its class names."""
    titles = [classes[label] for label in labels[:most].tolist()]
    return image_grid(
        list(images[:most]), titles, ["#333333"] * len(titles), "Training images as the network sees them"
    )


def prediction_grid(images: Sequence[Tensor], predictions: Predictions, chosen: Sequence[int], split: str) -> Figure:
    """Images with what was predicted for them, blue where right and red where wrong.

    Args:
        images: uint8 (3, H, W), one for each of `chosen`.
        predictions: Of the whole split.
        chosen: Which of its images are shown.
        split: Its name.
    """
    titles, colors = [], []
    for index in chosen:
        label, predicted = int(predictions.labels[index]), int(predictions.predicted[index])
        probability = float(predictions.probabilities[index, predicted])
        right = label == predicted
        actual = "" if right else f"\nis {predictions.classes[label]}"
        titles.append(f"{predictions.classes[predicted]} {probability:.0%}{actual}")
        colors.append(RIGHT if right else WRONG)
    num_wrong = int((predictions.predicted != predictions.labels).sum())
    heading = f"Predictions of the best epoch on {split}: {num_wrong} of {len(predictions.labels)} wrong (red)"
    return image_grid(images, titles, colors, heading)


def choose_for_grid(predictions: Predictions, most: int = 24) -> list[int]:
    """Indices of images worth a look: half are the wrong ones of highest loss, the rest evenly spread right ones."""
    right = predictions.predicted == predictions.labels
    order = predictions.losses.argsort(descending=True).tolist()
    right_ones = [index for index in range(len(right)) if right[index]]
    wrong_ones = [index for index in order if not right[index]][: max(most // 2, most - len(right_ones))]
    room = most - len(wrong_ones)
    spread = right_ones[:: max(1, len(right_ones) // room)][:room] if right_ones else []
    return sorted(wrong_ones + spread)
