"""What is printed: log lines above a running progress bar, tables as text."""

import logging
import os
import signal
import sys
from io import StringIO, TextIOWrapper
from pathlib import Path
from typing import Any, ClassVar

from rich import get_console
from rich.console import Console
from rich.table import Table

from thaw.errors import printable
from thaw.overrides import in_sweep
from thaw.signals import Interrupted
from thaw.writing import naming

UNBOUNDED = 10**6
"""Characters of a line, more than any table has, so that no cell is cut."""
BEFOREHAND = ("thaw.data.", "thaw.training.outcome", "thaw.training.probe", "thaw.training.train")
"""Loggers of what is said before a training, which may be the same for all jobs of a sweep."""


class ConsoleHandler(logging.Handler):
    """Prints log records through rich's console, so that lines stay whole and appear above a progress bar.

    Of a sweep it leaves out what an earlier job has said of data, weights and plan in the same words, and what is
    marked as a detail: `train.log` has it.
    """

    said: ClassVar[set[str]] = set()
    """By the jobs of this process so far: each has a handler of its own."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record; warnings in yellow.

        Raises:
            Interrupted: Whoever reads it has read enough, as in `| head`; rich itself ends the program without a word.
        """
        style = "yellow" if record.levelno >= logging.WARNING else None
        try:
            line = self.format(record)
        except Exception:  # some library's mistake
            self.handleError(record)
            return
        if in_sweep():
            if line in self.said or hasattr(record, "is_detail"):
                return
            if record.name.startswith(BEFOREHAND):
                self.said.add(line)
        try:
            get_console().print(line, style=style, soft_wrap=True, markup=False, highlight=False)
        except Interrupted:  # by a signal of the user's
            raise
        except SystemExit:
            raise Interrupted(signal.SIGPIPE) from None


class LogFile(logging.FileHandler):
    """Writes log records to a file, and says so in a sentence where it cannot."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Raise the system's refusal to write a record; logging itself would print a traceback and go on.

        Raises:
            ThawError: The system refuses to write.
        """
        if isinstance(sys.exception(), OSError):
            with naming(Path(self.baseFilename)):
                raise
        super().handleError(record)


def ensure_output() -> None:
    """Show Thaw's log lines where nobody has configured logging, as in a notebook."""
    if sys.stdout is None:  # closed, as by `>&-`
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - to the end of the process
    for stream in (sys.stdout, sys.stderr):  # a letter that the terminal lacks is no reason to fail
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    log = logging.getLogger("thaw")
    if not log.hasHandlers():
        log.addHandler(ConsoleHandler())
        log.setLevel(logging.INFO)


def silence_hints() -> None:
    """Silence Lightning's hints about its own products and about deliberate choices."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)


def table_text(columns: list[str], rows: list[list[Any]], title: str | None = None) -> str:
    """A table as text; the first column is aligned left, the others right."""
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right", no_wrap=True, vertical="bottom")
    for row in rows:
        table.add_row(*(printable(str(cell)) for cell in row))
    text = StringIO()
    console = Console(file=text, width=UNBOUNDED, markup=False, emoji=False)  # a file may be called [a].jpg
    console.print(table)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())
