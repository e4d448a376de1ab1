"""glibc's memory allocator, told to keep the memory of large tensors instead of giving it back after each use."""

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of glibc's malloc.h
_BYTES = 2**30


def keep_freed_memory() -> bool:
    """Raise both thresholds to 1 GiB; True if there is a glibc to take it.

    By default glibc maps each tensor over 32 MiB afresh, and the first layers' activations of a batch are larger: every
    step on the CPU pays for tens of thousands of page faults. The price is memory that the process keeps.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # another C library, musl for one
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _BYTES) and mallopt(_TRIM_THRESHOLD, _BYTES))
