"""The `thaw` command: what can be done with finished runs and with folders of images, in plain flags."""

import argparse
import shlex
import sys
from collections.abc import Sequence
from importlib.metadata import version
from types import ModuleType

PROGRAMS = {"train": "Trainings", "find_lr": "Range tests"}
"""Programs that are not `thaw` commands, and what they start."""


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
        from thaw.signals import drop_output

        return drop_output()
    except KeyboardInterrupt:  # perhaps during the imports
        return 130


def _run(arguments: Sequence[str] | None) -> int:
    from thaw.console import ensure_output
    from thaw.errors import ThawError
    from thaw.launch.explain import explain

    ensure_output()
    try:
        _refuse_unknown(sys.argv[1:] if arguments is None else arguments)
        options = _parser().parse_args(arguments)
        return int(options.run(options))
    except (ThawError, OSError) as error:
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
    if words[0] in PROGRAMS:
        program = shlex.join(["python", f"{words[0]}.py", *words[1:]])
        raise ThawError(f"{PROGRAMS[words[0]]} are started by another program: {program}")
    near = did_you_mean(words[0], commands)
    raise ThawError(f"thaw has no command {words[0]!r}.{near} `thaw --help` lists all.")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "thaw", description="Finished runs, and folders of images. Trainings are started by train.py."
    )
    parser.add_argument("--version", action="version", version=f"thaw {version('thaw')}")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
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
