"""Work on many files at once, which Ctrl-C ends at once too."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_threads(
    function: Callable[[Item], Result], items: Sequence[Item], num_threads: int | None = None
) -> Iterator[Result]:
    """The function's results in the order of the items.

    An executor by itself would, as it is left by an exception, first work through all that is still to do.
    """
    pool = ThreadPoolExecutor(num_threads or os.cpu_count())
    try:
        yield from pool.map(function, items)
    finally:
        pool.shutdown(cancel_futures=True)
