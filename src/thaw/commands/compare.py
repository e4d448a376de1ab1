"""`thaw compare`: a leaderboard of runs, each setting tested against the best."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from thaw.commands.targets import refuse_unwritable
from thaw.errors import ThawError, name_some
from thaw.importing import heavy_imports

if TYPE_CHECKING:
    from PIL.Image import Image

    from thaw.comparison.leaderboard import Leaderboard
    from thaw.inspection.predictions import Predictions
    from thaw.run import Run

DESCRIPTION = (
    "A leaderboard of all finished runs in the folders. Runs that differ in the seed or the fold alone are pooled; "
    "the options in which the others differ are shown. Each setting is tested against the best on the same images "
    "(McNemar's exact test), so that one is called worse only where it is."
)
EXAMPLE = "thaw compare outputs/2026-11-22_10-00-00_sweep --csv table.csv --plot table.png"

TABLES = (".csv",)
CHARTS = (".png", ".svg", ".pdf")
PICTURES = (".jpg", ".png")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("folders", nargs="+", type=Path, metavar="RUN|FOLDER", help="run folders, or folders of them")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the figures in full to this file")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table to this file")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw accuracies and intervals: .png, .svg or .pdf")
    parser.add_argument(
        "--predictions",
        type=Path,
        metavar="FILE",
        help="write what the best setting said of each image to this file, highest loss first; of folds, of all their "
        "images, and print their scores by class",
    )
    parser.add_argument(
        "--top-losses",
        type=Path,
        metavar="FILE",
        help="draw the first of these images, as .jpg or .png: labels worth a second look",
    )


def run(options: argparse.Namespace) -> int:
    """Print the table; returns the exit code."""
    from thaw.comparison.compare import compare
    from thaw.writing import drafting

    suffixes = {"csv": TABLES, "markdown": (), "plot": CHARTS, "predictions": TABLES, "top_losses": PICTURES}
    for name, allowed in suffixes.items():
        if path := getattr(options, name):
            refuse_unwritable(f"--{name.replace('_', '-')}", path, *allowed)
    targets = [path.absolute() for name in suffixes if (path := getattr(options, name))]
    if len({*targets}) < len(targets):
        raise ThawError(f"Two flags name one file to write: {name_some(sorted(map(str, targets)))}.")
    leaderboard = compare(options.folders)
    of_best = "--predictions" if options.predictions else "--top-losses" if options.top_losses else ""
    if of_best and leaderboard.spans_images:
        raise ThawError(
            f"{of_best} is of the best setting, and there is none of settings on other images: name the folders of "
            "one of them."
        )
    print(leaderboard)
    try:
        if options.csv:
            leaderboard.write_csv(options.csv)
        if options.markdown:
            with drafting(options.markdown) as draft:
                draft.write_text(leaderboard.markdown(), encoding="utf-8", errors="surrogateescape")
        if options.plot:
            with heavy_imports():
                from thaw.comparison.accuracy_chart import accuracy_chart
                from thaw.inspection.figures import write_figure

            write_figure(accuracy_chart(leaderboard), options.plot)
        if of_best:
            _tell_answers(leaderboard, options.predictions, options.top_losses)
    except OSError as error:
        raise ThawError(f"The table cannot be written: {error}.") from error
    return 0


def _tell_answers(leaderboard: "Leaderboard", table: Path | None, picture: Path | None) -> None:
    """Keep what the best setting said of each image, draw where it was most wrong, and print the scores of folds."""
    with heavy_imports():
        from thaw.inspection.figures import write_figure
        from thaw.inspection.prediction_files import pool_predictions
        from thaw.inspection.scores import score_text

    leader = leaderboard.leader
    assert leader is not None
    first, *others = leader.records
    predictions = pool_predictions([record.predictions_csv for record in leader.records], first.split, table)
    if others:
        name = f"{leaderboard.sections[0].labels[0]}, seed {first.summary['seed']}"
        print(f"\n{name}, {leader.judged_on}; no image is judged by a run that has learned from it\n")
        print(score_text(predictions))
    print()
    if table:
        print(f"Predictions, highest loss first, are in {table}")
    if picture:
        write_figure(_draw_top_losses(first.run, predictions, leader.judged_on), picture)
        print(f"The images of highest loss are in {picture}")


def _draw_top_losses(run: "Run", predictions: "Predictions", title: str) -> "Image":
    """The images of highest loss under what was said of each; the run tells where they lie and how they are cropped."""
    from thaw.data.index import survey
    from thaw.data.sources import data_folder
    from thaw.inspection.gallery import read_inputs
    from thaw.inspection.grids import MOST, top_losses_grid

    folder = data_folder(run.dataset.name, Path(run.dataset.root))
    read = survey(folder, run.dataset).read
    images = read_inputs(folder, predictions.paths, predictions.top_losses(MOST), run.load_classifier().transform, read)
    if not images:
        raise ThawError(f"--top-losses cannot be drawn: none of the images can be read in {folder.absolute()}.")
    return top_losses_grid([*images.values()], predictions, [*images], title).draw()
