"""Faster imports of torch and the libraries built on it."""

import gc
import importlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from thaw.postponed import Postponed, postpone
from thaw.signals import deferred

SPIN_COUNT = "2000"
"""How often a thread of OpenMP looks for work before it sleeps: by default some 300,000 times, about a millisecond.

Alone on the machine this makes no difference. Where another program wants the cores, each small product of matrices
would wait until a thread that only looks for work has used up its time: several times as long in all.
"""


class Compiled(type):
    """Type of `OptimizedModule` while torch's compiler is not loaded; tells instances by the name of their type."""

    def __instancecheck__(cls, instance: Any) -> bool:
        """True if it is a module that torch has compiled."""
        return type(instance).__name__ == cls.__name__


def _uncompiled(function: Callable[..., Any] | None = None, recursive: bool = True, **_: Any) -> Any:
    """The function itself: what is compiled later, and calls it, compiles it too. Of ours, no backbone does."""
    return _uncompiled if function is None else function


def _is_compile_supported(device_type: str) -> bool:
    """What torch's compiler says, which is loaded to be asked."""
    compiler: Any = importlib.import_module("torch._dynamo")
    _ = compiler.config  # loads it, and `utils` with it
    return bool(sys.modules["torch._dynamo.utils"].is_compile_supported(device_type))


POSTPONED: dict[str, dict[str, Any]] = {
    # torchmetrics imports it only to see whether it has this window.
    "scipy.signal": {"hamming": None},
    # Lightning, torchvision and each optimizer import it, so as to go well with the compiler where that is used.
    "torch._dynamo": {
        "OptimizedModule": Compiled("OptimizedModule", (), {}),
        "disable": _uncompiled,
        "graph_break": lambda msg="": None,
    },
    "torch._dynamo.utils": {"is_compile_supported": _is_compile_supported},
}
"""Modules that take a third of all import time, with the attributes that a training without a compiler needs."""

TEXT_ONLY: dict[str, dict[str, Any]] = {"transformers": {"AutoModel": None, "AutoTokenizer": None}}
"""What torchmetrics imports for its metrics of texts wherever it is installed: longer than all the rest together."""


@contextmanager
def heavy_imports() -> Iterator[None]:
    """Import heavy libraries with garbage collection off and signals deferred; then exempt them from collection.

    torch and Lightning come to half a million objects, none of which is ever garbage; to look through them again and
    again takes two seconds of nine.
    """
    postpone(POSTPONED | {name: known for name, known in TEXT_ONLY.items() if find_spec(name)})
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)  # read once, as torch is loaded
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        with deferred():
            yield
    finally:
        for name in TEXT_ONLY:  # whoever imports it from here on means it
            if isinstance(sys.modules.get(name), Postponed):
                del sys.modules[name]
        gc.freeze()
        if was_enabled:
            gc.enable()
