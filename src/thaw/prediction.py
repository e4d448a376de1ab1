"""What was said of one image; and of many, as a table or a grid."""

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from thaw.errors import abridge, name_some
from thaw.inspection.figures import INK
from thaw.inspection.grids import Grid, fill
from thaw.writing import drafting, drafting_csv


@dataclass(frozen=True)
class Prediction:
    """What was said of one image.

    Attributes:
        path: The file; None of an image in memory.
        top: The likeliest classes and their probabilities, the likeliest first; empty if it could not be read.
        error: Why it could not be read; None if it could.
    """

    path: Path | None
    top: tuple[tuple[str, float], ...] = ()
    error: str | None = None

    def __repr__(self) -> str:
        name = None if self.path is None else str(self.path)
        top = name_some([f"{label!r} {probability:.4f}" for label, probability in self.top], most=3)
        said = top or f"error={self.error!r}"
        return f"Prediction({name!r}, {said})"

    @property
    def label(self) -> str | None:
        """The likeliest class."""
        return self.top[0][0] if self.top else None

    @property
    def probability(self) -> float | None:
        """Of the likeliest class."""
        return self.top[0][1] if self.top else None


def write_csv(predictions: Sequence[Prediction], path: Path) -> None:
    """One row a file: path, label, probability, the next classes and theirs, error."""
    most = max(len(prediction.top) for prediction in predictions)
    others = [name for rank in range(2, most + 1) for name in (f"label_{rank}", f"probability_{rank}")]
    with drafting_csv(path) as file:
        writer = csv.DictWriter(file, ["path", "label", "probability", *others, "error"])
        writer.writeheader()
        for prediction in predictions:
            cells = [cell for label, value in prediction.top for cell in (label, f"{value:.6g}")]
            named = zip(["label", "probability", *others], cells, strict=False)
            writer.writerow({"path": prediction.path, **dict(named), "error": prediction.error or ""})


def write_json(predictions: Sequence[Prediction], path: Path) -> None:
    """A list with an object an image: path (null for one in memory), label, probability, top, error."""
    rows = [
        {
            "path": None if prediction.path is None else str(prediction.path),
            "label": prediction.label,
            "probability": prediction.probability,
            "top": [{"label": label, "probability": value} for label, value in prediction.top],
            "error": prediction.error,
        }
        for prediction in predictions
    ]
    text = json.dumps(rows, indent=2, ensure_ascii=False) + "\n"
    with drafting(path) as draft:
        draft.write_text(text, encoding="utf-8", errors="backslashreplace")  # JSON reads such codes back


def photo_grid(images: Sequence[Tensor], shown: Sequence[Prediction], num_files: int) -> Grid:
    """Images (3, S, S) under what was predicted for them and their file names."""
    names = [each.path.name if each.path else "" for each in shown]
    titles = [
        fill(f"{{}} {each.probability:.0%}", each.label or "") + f"\n{abridge(name, 24)}"
        for each, name in zip(shown, names, strict=True)
    ]
    heading = (
        f"Predictions of {len(shown)} of {num_files} images, evenly chosen" if len(shown) < num_files else "Predictions"
    )
    return Grid(images, titles, [INK] * len(titles), heading)
