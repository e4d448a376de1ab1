"""Work on many files at once, which Ctrl-C ends at once too."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from math import ceil
from pathlib import Path
from typing import TypeVar

from thaw.data.control_groups import control_groups
from thaw.ranks import find_rank

Item = TypeVar("Item")
Result = TypeVar("Result")


def num_cores(root: Path = Path("/")) -> int:
    """The CPU cores that this process may use, shared with the others that train the same model.

    Args:
        root: Where `proc` and `sys` are, for the limits of control groups.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for group, version in control_groups("cpu", root):
        with suppress(OSError, ValueError):  # there is no such group, or its limit is `max`
            files = ["cpu.max"] if version == 2 else ["cpu.cfs_quota_us", "cpu.cfs_period_us"]
            quota, period = map(int, " ".join((group / file).read_text() for file in files).split())
            if quota > 0:  # -1 is no limit
                cores = min(cores, ceil(quota / period))
    return max(1, cores // find_rank().local_world_size)


def in_threads(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    num_threads: int | None = None,
    initializer: Callable[[], object] | None = None,
) -> Iterator[Result]:
    """The function's results in the order of the items.

    An executor that is left by an exception would first finish all that is queued.

    Args:
        function: What to do with an item.
        items: The items.
        num_threads: Default as many as there are cores.
        initializer: Called in each thread before its first item.
    """
    pool = ThreadPoolExecutor(num_threads or num_cores(), initializer=initializer)
    try:
        yield from pool.map(function, items)
    finally:
        pool.shutdown(cancel_futures=True)
