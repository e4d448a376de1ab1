"""CSV files, strictly: a quote that no other closes would swallow all lines behind it, without a word."""

import csv
from collections.abc import Iterator
from typing import TextIO


class Lines:
    """The lines of a CSV file by the names of its columns, which lose the blanks around them.

    Attributes:
        columns: Their names, in order.
    """

    def __init__(self, stream: TextIO, delimiter: str = ",") -> None:
        self._reader = csv.DictReader(stream, delimiter=delimiter, skipinitialspace=True, strict=True)
        self.columns = [name.strip() for name in self._reader.fieldnames or []]
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
            raise csv.Error(f"behind line {number}: {error}; is a quote missing there, or one too many?") from error
