"""The `thaw` command: what can be done with finished runs and with folders of images, in plain flags."""

import argparse
import os
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand; returns the exit code: 2 with one line for a user's mistake, 130 after Ctrl-C.

    Args:
        arguments: What stands behind `thaw`; without, this is the program, and also ends by SIGTERM in good order.
    """
    try:
        if arguments is not None:
            return _run(arguments)
        from thaw.signals import catching

        with catching(to_the_end=True):
            code = _run(arguments)
            sys.stdout.flush()
            return code
    except BrokenPipeError:  # `| head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:  # perhaps during the imports
        return 130


def _run(arguments: Sequence[str] | None) -> int:
    from thaw.console import ensure_output
    from thaw.errors import ThawError
    from thaw.explain import explain

    ensure_output()
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except (ThawError, OSError) as error:
        if (message := explain(error)) is None:
            raise
        print(message, file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    from thaw.commands import check, compare, evaluate, export, pack, predict, report

    parser = argparse.ArgumentParser("thaw", description="Look at finished runs. Trainings are started by train.py.")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    # Each is a module of DESCRIPTION, EXAMPLE, add_arguments and run; it imports torch only when it runs.
    for command in (compare, check, pack, evaluate, report, predict, export):
        subparser = subparsers.add_parser(
            command.__name__.rpartition(".")[2],
            help=(command.__doc__ or "").partition(": ")[2].rstrip("."),
            description=command.DESCRIPTION,
            epilog=f"Example: {command.EXAMPLE}",
        )
        command.add_arguments(subparser)
        subparser.set_defaults(run=command.run)
    return parser


if __name__ == "__main__":
    sys.exit(main())
