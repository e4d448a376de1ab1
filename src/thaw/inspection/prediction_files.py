"""Predictions as a table on disk, predictions.csv: written, and read back."""

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from thaw.errors import ThawError
from thaw.inspection.predictions import Predictions, collect
from thaw.writing import drafting_csv

COLUMNS = ["split", "path", "label", "predicted", "loss"]
"""Of a predictions.csv, before one `p_CLASS` a class."""
GROUP = "group"
"""The column between them, where images have groups."""


def write_predictions(path: Path, splits: Mapping[str, Predictions]) -> None:
    """One row an image: split, path, label, predicted, loss, its group if it has one, the probability of each class.

    Raises:
        OSError: The system refuses to write.
    """
    with drafting_csv(path) as file:
        writer = csv.writer(file)
        first = next(iter(splits.values()))
        classes = first.classes
        writer.writerow([*COLUMNS, *([GROUP] if first.groups else []), *(f"p_{name}" for name in classes)])
        for split, predictions in splits.items():
            for index, image in enumerate(predictions.paths):
                names = (classes[int(labels[index])] for labels in (predictions.labels, predictions.predicted))
                numbers = [float(predictions.losses[index]), *predictions.probabilities[index].tolist()]
                loss, *shares = (f"{number:.6g}" for number in numbers)
                writer.writerow([split, image, *names, loss, *predictions.groups[index : index + 1], *shares])


def read_predictions(path: Path) -> dict[str, Predictions]:
    """The predictions of each split that `write_predictions` has written, to six digits.

    The logits are logarithms of probabilities: their softmax is the same.

    Raises:
        ThawError: The file is missing, or is no such table.
    """
    with _reading(path) as (header, rows):
        return _by_split(header, rows)


def pool_predictions(tables: Sequence[Path], split: str, out: Path | None = None) -> Predictions:
    """What several tables say of a split; if `out` is given, their rows are written there, highest loss first.

    Raises:
        ThawError: A file is missing, is no such table, has other classes than the first, or has no rows of the split.
        OSError: The system refuses to write.
    """
    header, rows, parts = list[str](), list[list[str]](), list[Predictions]()
    for path in tables:
        with _reading(path) as (own_header, lines):
            own = [line for line in lines if line[:1] == [split]]
            part = _by_split(own_header, own).get(split)
        if part is None or own_header != (header or own_header):
            differing = "groups" if (GROUP in own_header) != (GROUP in header) else "classes"
            fault = f"other {differing} than {tables[0]}" if part else f"no rows of {split}"
            raise ThawError(f"{path} has {fault}: train that run again.")
        header, rows, parts = own_header, rows + own, [*parts, part]
    if out is not None:
        rows.sort(key=lambda row: -float(row[COLUMNS.index("loss")]))
        with drafting_csv(out) as file:
            csv.writer(file).writerows([header, *rows])
    paths = [path for part in parts for path in part.paths]
    groups = [group for part in parts for group in part.groups]
    return collect([(part.logits, part.labels) for part in parts], paths, parts[0].classes, groups)


def read_splits(path: Path) -> dict[str, str]:
    """The split of each image, by its path, that `write_predictions` has written.

    Raises:
        ThawError: The file is missing, or is no such table.
    """
    with _reading(path) as (_, rows):
        return {image: split for split, image, *_ in rows}


@contextmanager
def _reading(path: Path) -> Iterator[tuple[list[str], Iterator[list[str]]]]:
    """The header of a table of predictions, and its rows."""
    try:
        with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            rows = csv.reader(file)
            header = next(rows, [])
            if header[: len(COLUMNS)] != COLUMNS:
                raise ValueError(f"its columns are {', '.join(header)}")
            yield header, rows
    except (OSError, ValueError, KeyError, csv.Error) as error:
        columns = ", ".join([*COLUMNS, "p_CLASS, …"])
        raise ThawError(f"{path} cannot be read as predictions: expected the columns {columns} ({error}).") from error


def _by_split(header: Sequence[str], rows: Iterable[Sequence[str]]) -> dict[str, Predictions]:
    """What the rows of a table say of each split."""
    has_groups = GROUP in header
    classes = tuple(name.removeprefix("p_") for name in header[len(COLUMNS) + has_groups :])
    labels = {name: label for label, name in enumerate(classes)}
    by_split: dict[str, list[_Row]] = {}
    for split, image, label, predicted, loss, *others in rows:
        group, shares = others[:has_groups], np.array(others[has_groups:], np.float32)
        row = _Row(image, labels[label], labels[predicted], float(loss), group, shares)
        by_split.setdefault(split, []).append(row)
    return {split: _from_rows(own, classes) for split, own in by_split.items()}


class _Row(NamedTuple):
    path: str
    label: int
    predicted: int
    loss: float
    group: list[str]
    """Its group, if it has one."""
    shares: NDArray[np.float32]
    """Probabilities (K,); as texts, those of many classes would take ten times the memory."""


def _from_rows(rows: list[_Row], classes: tuple[str, ...]) -> Predictions:
    paths, labels, predicted, losses, groups, shares = zip(*rows, strict=True)
    logits = torch.from_numpy(np.stack(shares)).clamp(min=torch.finfo().tiny).log()  # where one was rounded to 0
    images, actual, said = torch.arange(len(rows)), torch.tensor(labels), torch.tensor(predicted)
    logits[images, actual] = -torch.tensor(losses)  # more digits near 0 and 1
    top = logits.amax(dim=1)
    tied = logits.argmax(dim=1) != said  # six digits may hide which of two was higher
    logits[images[tied], said[tied]] = top[tied].nextafter(torch.tensor(torch.inf))
    return Predictions(paths, actual, logits, classes, [name for group in groups for name in group])
