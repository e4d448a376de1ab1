"""CSV files, strictly: a quote that no other closes would swallow all lines behind it, without a word."""

import csv
import re
from collections.abc import Collection, Iterator
from io import StringIO
from typing import TextIO

DELIMITERS = ",;\t"
"""What may stand between columns: spreadsheets write semicolons where 0.5 is written 0,5."""


class Lines:
    """The lines of a CSV file by the names of its columns, which lose the blanks around them.

    Args:
        stream: The file.
        needed: Columns that it should have, by which it is told what stands between columns.

    Attributes:
        columns: Their names, in order.

    Raises:
        csv.Error: The first line is no CSV, or two columns have one name.
    """

    def __init__(self, stream: TextIO, needed: Collection[str]) -> None:
        text = stream.read()
        delimiter = _delimiter(StringIO(text, newline="").readline(), needed)
        # A field in quotes, to its end, and the blanks between that and what divides fields.
        quoted = rf'((?:\A|[{delimiter}\r\n]) *"(?:[^"]++|"")*+")(?: +(?=[{delimiter}\r\n]|\Z))?'
        lines = StringIO(re.sub(quoted, r"\1", text), newline="")
        self._reader = csv.DictReader(lines, delimiter=delimiter, skipinitialspace=True, strict=True)
        names = list(self._reader.fieldnames or [])
        self.columns = [name.strip() for name in names]
        if alike := {name for name in self.columns if self.columns.count(name) > max(1, names.count(name))}:
            raise csv.Error(f"two columns are called {min(alike)!r}, but for blanks around it")
        self._reader.fieldnames = self.columns

    def __iter__(self) -> Iterator[tuple[int, dict[str, str]]]:
        """The number of each line, from 1 for the names, and its fields.

        Raises:
            csv.Error: The file is no CSV, the message has the last line that is one; or a line has more fields than
                there are columns.
        """
        number = self._reader.line_num
        try:
            for line in self._reader:
                if any(line.pop(None, ())):
                    raise csv.Error("the next one has more fields than there are columns")
                number = self._reader.line_num
                yield number, line
        except csv.Error as error:
            raise csv.Error(f"after line {number}: {error}; is a quote missing there, or one too many?") from error


def _delimiter(header: str, needed: Collection[str]) -> str:
    """What divides a file's first line into most of the columns that are needed, or else into most columns."""

    def found(delimiter: str) -> tuple[int, int]:
        columns = next(csv.reader([header], delimiter=delimiter, skipinitialspace=True), [])
        return len(set(needed) & {name.strip() for name in columns}), len(columns)

    return max(DELIMITERS, key=found)
