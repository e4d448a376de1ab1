"""The import of torch and what is built on it, made ready for a command."""

import gc
import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

SPIN_COUNT = "2000"
"""How often a thread of OpenMP looks for work before it sleeps: by default some 300,000 times, about a millisecond.

Alone on the machine this makes no difference. Where another program wants the cores, each small product of matrices
would wait until a thread that only looks for work has used up its time: several times as long in all.
"""


@contextmanager
def heavy_imports() -> Iterator[None]:
    """Inside, nothing is collected; what is there afterwards is left alone until the process ends, and at its end.

    torch and Lightning come to half a million objects, none of which is ever garbage; to look through them again and
    again takes two seconds of nine.
    """
    sys.modules.setdefault("scipy.signal", ScipySignal("scipy.signal"))
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)  # read once, as torch is loaded
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()


class ScipySignal(ModuleType):
    """The module of this name, loaded when something of it is used.

    torchmetrics imports it, which takes a second, only to see whether it has `hamming`.
    """

    hamming = None

    def __getattr__(self, name: str) -> Any:
        """What the module has by this name."""
        if name.startswith("__") and name != "__path__":  # of which all modules are asked, by those who look for one
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        self.__dict__.update(vars(importlib.import_module(self.__name__)))
        return self.__dict__[name]
