"""Imports of large libraries, without the garbage collector looking through them again and again."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def kept_for_good() -> Iterator[None]:
    """Inside, nothing is collected; what is there afterwards is left alone until the process ends, and at its end.

    torch and Lightning come to half a million objects, none of which is ever garbage.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()
