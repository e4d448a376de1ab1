"""Standard streams that nobody reads any more: of a terminal that was closed, and of a broken pipe."""

import errno
import os
import sys
from io import BufferedWriter, FileIO, TextIOWrapper
from typing import Any, cast


class Terminal(FileIO):
    """A terminal by its file descriptor; what is written after it was closed goes nowhere, and is no error."""

    def write(self, text: Any) -> int:
        """Write bytes; returns how many."""
        try:
            return super().write(text)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            return len(text)


def outlive_terminal(stream: Any) -> Any:
    """The standard stream, in a form that outlives the terminal it writes to, as where a job was `disown`ed."""
    if os.name != "posix" or not isinstance(stream, TextIOWrapper) or not stream.isatty():
        return stream
    terminal = Terminal(stream.fileno(), "w", closefd=False)
    if stream.write_through:  # python -u
        return TextIOWrapper(cast(Any, terminal), stream.encoding, "backslashreplace", write_through=True)
    return TextIOWrapper(BufferedWriter(terminal), stream.encoding, "backslashreplace", line_buffering=True)


def drop_output() -> int:
    """Drop what is still to be printed, after a BrokenPipeError: `| head` has read enough; returns the exit code."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 141  # 128 + SIGPIPE, as shells have it
