"""CSV files, strictly: a quote that no other closes would swallow all lines behind it, without a word."""

import csv
import re
from collections.abc import Iterator
from io import StringIO
from typing import TextIO


class Lines:
    """The lines of a CSV file by the names of its columns, which lose the blanks around them.

    Attributes:
        columns: Their names, in order.

    Raises:
        csv.Error: The first line is no CSV, or two columns have one name.
    """

    def __init__(self, stream: TextIO, delimiter: str = ",") -> None:
        # A field in quotes, to its end, and the blanks between that and what divides fields.
        quoted = rf'((?:\A|[{delimiter}\r\n]) *"(?:[^"]++|"")*+")(?: +(?=[{delimiter}\r\n]|\Z))?'
        lines = StringIO(re.sub(quoted, r"\1", stream.read()), newline="")
        self._reader = csv.DictReader(lines, delimiter=delimiter, skipinitialspace=True, strict=True)
        names = list(self._reader.fieldnames or [])
        self.columns = [name.strip() for name in names]
        if alike := {name for name in self.columns if self.columns.count(name) > max(1, names.count(name))}:
            raise csv.Error(f"two columns are called {min(alike)!r}, but for blanks around it")
        self._reader.fieldnames = self.columns

    def __iter__(self) -> Iterator[tuple[int, dict[str, str]]]:
        """The number of each line, from 1 for the names, and its fields.

        Raises:
            csv.Error: The file is no CSV; the message has the last line that is one.
        """
        number = self._reader.line_num
        try:
            for line in self._reader:
                number = self._reader.line_num
                yield number, line
        except csv.Error as error:
            raise csv.Error(f"after line {number}: {error}; is a quote missing there, or one too many?") from error
