"""`thaw predict`: classify images with a finished run."""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING

from thaw.commands.targets import refuse_unwritable
from thaw.errors import ThawError, in_list, name_some, printable
from thaw.importing import heavy_imports
from thaw.rules import require

if TYPE_CHECKING:
    from thaw.predict import Predictor
    from thaw.prediction import Prediction

DESCRIPTION = (
    "Classify images with a run's best checkpoint, or its last. A file that cannot be read, or a pattern that matches "
    "none, is one row with its reason, and the exit code is then 1."
)
EXAMPLE = "thaw predict outputs/RUN photos '*.jpg' --out predictions.csv --grid grid.png"
TABLES, PICTURES = (".csv", ".json"), (".png", ".jpg", ".pdf")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "folder",
        type=Path,
        metavar="RUN",
        help="folder of a finished run, or its checkpoints/last.ckpt, or a checkpoint alone",
    )
    parser.add_argument(
        "images", nargs="+", metavar="IMAGES", help="files, folders, patterns, or - for one path a line on stdin"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="write all predictions to this .csv or .json file")
    parser.add_argument("--top", type=int, default=3, metavar="N", help="classes named for each image; default 3")
    parser.add_argument("--grid", type=Path, metavar="FILE", help="draw up to 18 of the images with their predictions")
    parser.add_argument(
        "--tta", action="store_true", help="average over the centre crop and the mirror images of the training"
    )
    parser.add_argument("--batch-size", type=int, metavar="N", help="images at a time; default 8 on a CPU, or 64")
    parser.add_argument(
        "--device", default="auto", help="auto, cpu, gpu, … (which GPU: CUDA_VISIBLE_DEVICES=1 in front); default auto"
    )


def run(options: argparse.Namespace) -> int:
    """Classify, print and write; returns the exit code: 1 if a file could not be read."""
    _check(options)
    from thaw.data.inputs import list_images

    paths = list_images(_with_stdin(options.images))
    grid: Path | None = options.grid
    if grid and grid.exists() and grid.absolute().parent in {path.absolute().parent for path in paths}:
        raise ThawError(f"--grid={grid} is there already, among the images: it may be one. Name another file.")
    with heavy_imports():
        from thaw.predict import Predictor
        from thaw.prediction import write_csv, write_json
        from thaw.run import Run

    for name in options.images:
        if Run(name).is_started:
            raise ThawError(f"{name} is the folder of a run, and no images: one run predicts, {options.folder}.")
    try:
        predictor = Predictor(options.folder, options.device, options.batch_size, options.tta)
    except ThawError as error:
        raise ThawError(str(error).replace("`tta`", "--tta")) from error
    started = time.perf_counter()
    predictions = list(_with_bar(predictor.stream(paths, options.top), len(paths)))
    seconds = time.perf_counter() - started
    if options.out:
        (write_csv if options.out.suffix.lower() == ".csv" else write_json)(predictions, options.out)
    else:
        print(_table(predictions))
    drawn = options.grid if options.grid and _draw(predictor, predictions, options.grid) else None
    print(_summary(predictor, predictions, seconds))
    for path in filter(None, (options.out, drawn)):
        print(f"Written: {printable(str(path))}")
    return _tell_errors(predictions)


def _check(options: argparse.Namespace) -> None:
    """Refuse impossible requests before any work is done."""
    for flag, number in (("--top", options.top), ("--batch-size", options.batch_size)):
        require(number is None or number >= 1, flag, "at least 1", number)
    for flag, path, suffixes in (("--out", options.out, TABLES), ("--grid", options.grid, PICTURES)):
        if path:
            refuse_unwritable(flag, path, *suffixes)


def _with_stdin(items: Sequence[str]) -> Iterator[Path | str]:
    """The items; `-` stands for the paths on stdin, which are no patterns."""
    if "-" in items and isinstance(sys.stdin, TextIOWrapper):  # names as the system has them, which need be no UTF-8
        sys.stdin.reconfigure(encoding=sys.getfilesystemencoding(), errors="surrogateescape")
    for item in items:
        if item == "-":
            yield from (Path(line.rstrip("\r\n")) for line in sys.stdin if line.strip())
        else:
            yield item


def _with_bar(predictions: Iterable["Prediction"], total: int) -> Iterable["Prediction"]:
    from rich import get_console
    from rich.progress import track

    return track(predictions, "Predicting", total, transient=True, disable=not get_console().is_terminal)


def _table(predictions: Sequence["Prediction"]) -> str:
    from thaw.console import table_text

    most = max(len(prediction.top) for prediction in predictions)
    rows = []
    for prediction in predictions:
        cells = [f"{label} {probability:.4f}" for label, probability in prediction.top] or ["cannot be read"]
        rows.append([prediction.path, *cells, *[""] * (most - len(cells))])
    return table_text(["image", "prediction", *["next"] * (most - 1)], rows)


def _draw(predictor: "Predictor", predictions: Sequence["Prediction"], path: Path) -> bool:
    """Draw some of the images that could be read; returns whether there are any."""
    from thaw.data.inputs import spread
    from thaw.inspection.figures import write_figure
    from thaw.inspection.grids import MOST
    from thaw.prediction import photo_grid

    readable = [each for each in predictions if each.error is None]
    shown = spread(readable, MOST)
    if shown:
        grid = photo_grid([predictor.read(each.path) for each in shown if each.path], shown, len(readable))
        write_figure(grid.draw(), path)
    return bool(shown)


def _summary(predictor: "Predictor", predictions: Sequence["Prediction"], seconds: float) -> str:
    """How many images of each class there are, and how fast they were classified if any could be read."""
    counts = Counter(prediction.label for prediction in predictions if prediction.label)
    if not counts:
        return "No image was classified"
    classes, number = name_some([f"{in_list(label)} {count}" for label, count in counts.most_common()]), counts.total()
    speed = f"{seconds:.1f} s, {len(predictions) / seconds:.0f} images/s ({predictor.precision} on {predictor.device})"
    return f"{number} image{'s' * (number != 1)}: {classes}; {speed}"


def _tell_errors(predictions: Sequence["Prediction"]) -> int:
    """Name the files that could not be read on stderr; returns the exit code."""
    errors = [f"{prediction.path} ({prediction.error})" for prediction in predictions if prediction.error]
    if errors:
        print(f"{len(errors)} of {len(predictions)} files cannot be read: {name_some(errors)}", file=sys.stderr)
    return 1 if errors else 0
