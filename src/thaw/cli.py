"""The `thaw` command: what can be done with finished runs, in plain flags."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from thaw.errors import ThawError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand; returns the exit code: 2 with one line for a user's mistake."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except ThawError as error:
        print(error, file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("thaw", description="Look at finished runs. Trainings are started by train.py.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    compare = commands.add_parser(
        "compare",
        help="a table of runs, the seeds of one setting pooled",
        description="A table of all finished runs in the folders: runs that differ in the seed alone are pooled as "
        "mean ± standard deviation, and the options in which the others differ are shown.",
        epilog="Example: thaw compare outputs/2026-11-22_10-00-00_sweep --csv table.csv",
    )
    compare.add_argument("folders", nargs="+", type=Path, metavar="RUN|FOLDER", help="run folders, or folders of them")
    compare.add_argument("--csv", type=Path, metavar="FILE", help="write the figures in full to this file")
    compare.set_defaults(run=_compare)
    return parser


def _compare(options: argparse.Namespace) -> int:
    from thaw.compare import compare, leaderboard, write_csv

    settings = compare(options.folders)
    print(leaderboard(settings))
    if options.csv:
        write_csv(settings, options.csv)
    return 0


if __name__ == "__main__":
    sys.exit(main())
