"""The `thaw` command: trainings, in Hydra's options; finished runs and folders of images, in plain flags."""

import argparse
import importlib
import sys
from collections.abc import Sequence
from importlib.metadata import version
from types import ModuleType

PROGRAMS = {"train": "train a classifier: KEY=VALUE, as in `thaw train --help`", "find_lr": "suggest a learning rate"}
"""Commands that read their options by Hydra, and what they do."""
OTHER_NAMES = {"val": "evaluate", "validate": "evaluate", "test": "evaluate", "fit": "train", "infer": "predict"}
"""What commands are called in other tools, each with its name here."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand; returns the exit code: 2 with one line for a user's mistake, 130 after Ctrl-C.

    Args:
        arguments: The command line behind `thaw`; None takes the program's own, and lets SIGTERM too end it in order.
    """
    try:
        if arguments is not None:
            return _run(arguments)
        from thaw.signals import catching

        with catching(to_the_end=True):
            code = _run(arguments)
            sys.stdout.flush()
            return code
    except BrokenPipeError:
        from thaw.streams import drop_output

        return drop_output()
    except KeyboardInterrupt:  # perhaps during the imports
        return 130


def _run(arguments: Sequence[str] | None) -> int:
    from thaw.console import ensure_output
    from thaw.launch.explain import explain

    words = sys.argv[1:] if arguments is None else arguments
    if words and words[0] in PROGRAMS:
        program = importlib.import_module(f"thaw.commands.{words[0]}")
        sys.argv = [str(program.__file__), *words[1:]]
        program.main()
        return 0
    ensure_output()
    try:
        _refuse_unknown(words)
        options = _parser().parse_args(arguments)
        return int(options.run(options))
    except Exception as error:
        if (message := explain(error)) is None:
            raise
        print(message, file=sys.stderr)
        return 2


def _commands() -> dict[str, ModuleType]:
    """Modules of DESCRIPTION, EXAMPLE, add_arguments and run by their names; each imports torch only when it runs."""
    from thaw.commands import check, compare, evaluate, export, pack, predict, report

    commands = (evaluate, predict, report, export, compare, check, pack)
    return {command.__name__.rpartition(".")[2]: command for command in commands}


def _refuse_unknown(words: Sequence[str]) -> None:
    """Refuse a first word that is no command, where argparse would list all.

    Raises:
        ThawError: It is none.
    """
    from thaw.errors import ThawError, did_you_mean

    if not words or words[0].startswith("-") or words[0] in (commands := _commands()):
        return
    name = OTHER_NAMES.get(words[0], words[0])
    near = did_you_mean(name, [*PROGRAMS, *commands])
    raise ThawError(f"thaw has no command {words[0]!r}.{near} `thaw --help` lists all.")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "thaw", description="Transfer learning for image classification: trainings, finished runs, folders of images."
    )
    parser.add_argument("--version", action="version", version=f"thaw {version('thaw')}")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, meaning in PROGRAMS.items():
        subparsers.add_parser(name, help=meaning)
    for name, command in _commands().items():
        subparser = subparsers.add_parser(
            name,
            help=(command.__doc__ or "").partition(": ")[2].rstrip("."),
            description=command.DESCRIPTION,
            epilog=f"Example: {command.EXAMPLE}",
        )
        command.add_arguments(subparser)
        subparser.set_defaults(run=command.run)
    return parser


if __name__ == "__main__":
    sys.exit(main())
