"""`thaw report`: one page that tells all of a run."""

import argparse
from pathlib import Path

from thaw.commands.targets import refuse_unwritable
from thaw.importing import heavy_imports
from thaw.rules import require

DESCRIPTION = (
    "One self-contained HTML page about a finished run: accuracy with its interval, learning curves, confusion matrix, "
    "the worst mistakes with Grad-CAM beside them, calibration, the data check, options and environment. It opens from "
    "disk and needs no network."
)
EXAMPLE = "thaw report outputs/2026-11-22_10-00-00_hymenoptera_resnet18_frozen"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("run_folder", type=Path, metavar="RUN", help="the folder of a finished run")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the page to write; RUN/report.html without it")
    parser.add_argument(
        "--top",
        type=int,
        default=12,
        metavar="N",
        help="images of highest loss, and of lowest confidence (default 12; 0: none)",
    )


def run(options: argparse.Namespace) -> int:
    """Write the page and say where it is; returns the exit code."""
    from thaw.run import Run

    require(options.top >= 0, "--top", "at least 0", options.top)
    if options.out:
        refuse_unwritable("--out", options.out, ".html")
    with heavy_imports():
        import thaw.inspection.report  # noqa: F401 - for `Run.report`
    path = Run(options.run_folder).report(options.out, options.top)
    print(f"{path} ({path.stat().st_size / 1e6:.1f} MB)")
    return 0
