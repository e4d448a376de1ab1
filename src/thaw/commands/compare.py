"""`thaw compare`: a leaderboard of runs, each setting tested against the best."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from thaw.commands.targets import refuse_unwritable
from thaw.errors import ThawError
from thaw.importing import heavy_imports

if TYPE_CHECKING:
    from thaw.comparison.leaderboard import Leaderboard

DESCRIPTION = (
    "A leaderboard of all finished runs in the folders. Runs that differ in the seed or the fold alone are pooled; "
    "the options in which the others differ are shown. Each setting is tested against the best on the same images "
    "(McNemar's exact test), so that one is called worse only where it is."
)
EXAMPLE = "thaw compare outputs/2026-11-22_10-00-00_sweep --csv table.csv --plot table.png"

CHARTS = (".png", ".svg", ".pdf")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What may stand behind the command."""
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


def run(options: argparse.Namespace) -> int:
    """Print the table; returns the exit code."""
    from thaw.comparison.compare import compare
    from thaw.writing import drafting

    for flag, suffixes in {"csv": (), "markdown": (), "plot": CHARTS, "predictions": ()}.items():
        if path := getattr(options, flag):
            refuse_unwritable(f"--{flag}", path, *suffixes)
    leaderboard = compare(options.folders)
    if options.predictions and leaderboard.spans_images:
        raise ThawError(
            "--predictions is of the best setting, and there is none of settings on other images: name the folders of "
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
        if options.predictions:
            _write_predictions(leaderboard, options.predictions)
    except OSError as error:
        raise ThawError(f"The table cannot be written: {error}.") from error
    return 0


def _write_predictions(leaderboard: "Leaderboard", path: Path) -> None:
    """Keep what the best setting said of each image, and print the scores of folds."""
    with heavy_imports():
        from thaw.inspection.prediction_files import pool_predictions
        from thaw.inspection.scores import score_text

    leader = leaderboard.leader
    assert leader is not None
    first, *others = leader.records
    tables = [record.predictions_csv for record in leader.records]
    predictions = pool_predictions(tables, first.split, path)
    if others:
        name = f"{leaderboard.sections[0].best_description}, seed {first.summary['seed']}"
        print(f"\n{name}, {leader.judged_on}; no image is judged by a run that has learned from it\n")
        print(score_text(predictions))
    print(f"\nPredictions, highest loss first, are in {path}")
