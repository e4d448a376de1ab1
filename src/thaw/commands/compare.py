"""`thaw compare`: a table of runs, the seeds of one setting pooled."""

import argparse
from pathlib import Path

DESCRIPTION = (
    "A table of all finished runs in the folders: runs that differ in the seed alone are pooled as mean ± standard "
    "deviation, and the options in which the others differ are shown."
)
EXAMPLE = "thaw compare outputs/2026-11-22_10-00-00_sweep --csv table.csv"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What may stand behind the command."""
    parser.add_argument("folders", nargs="+", type=Path, metavar="RUN|FOLDER", help="run folders, or folders of them")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the figures in full to this file")


def run(options: argparse.Namespace) -> int:
    """Print the table; returns the exit code."""
    from thaw.compare import compare, leaderboard, write_csv

    settings = compare(options.folders)
    print(leaderboard(settings))
    if options.csv:
        write_csv(settings, options.csv)
    return 0
