"""What is printed: log lines above a running progress bar, tables as text."""

import logging
from io import StringIO
from typing import Any

from rich import get_console
from rich.console import Console, JustifyMethod
from rich.table import Table


class ConsoleHandler(logging.Handler):
    """Prints log records through rich's console, so that lines stay whole and appear above a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record; warnings in yellow."""
        style = "yellow" if record.levelno >= logging.WARNING else None
        get_console().print(self.format(record), style=style, soft_wrap=True, markup=False, highlight=False)


def ensure_output() -> None:
    """Show Thaw's log lines where nobody has configured logging, as in a notebook."""
    log = logging.getLogger("thaw")
    if not log.hasHandlers():
        log.addHandler(ConsoleHandler())
        log.setLevel(logging.INFO)


def table_text(
    columns: list[str], rows: list[list[Any]], title: str | None = None, width: int = 200, num_folding: int = 0
) -> str:
    """A table as text; the first column is aligned left, the others right.

    Args:
        columns: Their names.
        rows: A value a column.
        title: Stands over the table.
        width: Most characters of a line.
        num_folding: How many columns, from the first, go on in further lines where the table would be too wide.
    """
    table = Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0))
    for number, column in enumerate(columns):
        justify: JustifyMethod = "left" if number == 0 else "right"
        table.add_column(column, justify=justify, no_wrap=number >= num_folding, overflow="fold")
    for row in rows:
        table.add_row(*map(str, row))
    text = StringIO()
    Console(file=text, width=width).print(table, markup=False)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())
