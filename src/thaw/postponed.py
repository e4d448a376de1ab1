"""Lazy stand-ins for modules that are imported but rarely used."""

import importlib
import sys
import threading
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

LOCK = threading.Lock()
"""Held while stand-ins leave, not while their modules are loaded."""


class Postponed(ModuleType):
    """A stand-in for a module that has not been loaded, and may never be.

    Args:
        name: The module's.
        known: Attributes that need no loading, by name.
    """

    def __init__(self, name: str, known: dict[str, Any]) -> None:
        super().__init__(name)
        self.__spec__ = ModuleSpec(name, None, is_package=True)
        self.__dict__.update(known)
        self.__path__: list[str] = []  # filled as the module is loaded: where to look for modules in it

    def __getattr__(self, name: str) -> Any:
        """What the module itself has by this name."""
        if name.startswith("__"):  # of which all modules are asked, by those who look for one
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return getattr(self.load(), name)

    def load(self) -> ModuleType:
        """The module itself; it takes the stand-in's place, and those who hold that find the same in it."""
        with LOCK:
            for name, module in sys.modules.copy().items():  # all at once: other threads may import
                if module is self or (isinstance(module, Postponed) and name.startswith(f"{self.__name__}.")):
                    del sys.modules[name]
        module = importlib.import_module(self.__name__)
        self.__path__[:] = getattr(module, "__path__", ())
        self.__dict__.update(vars(module))
        return module


class PostponedParents(MetaPathFinder):
    """Loads a postponed package before a module in it is imported.

    Python asks it while no other thread can find a module. So where others may be importing, ask the package itself for
    something first.
    """

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """How to import the module if its package was postponed and has just loaded it; else others find it."""
        package = sys.modules.get(name.rpartition(".")[0])
        if not isinstance(package, Postponed):
            return None
        package.load()
        if name not in sys.modules:
            return None
        module = sys.modules[name]
        module.__spec__ = spec = ModuleSpec(name, Loaded(module))  # by its own, Python would make it a second time
        return spec


class Loaded(Loader):
    """Gives a module that is there already, as it is."""

    def __init__(self, module: ModuleType) -> None:
        self.module, self.spec = module, module.__spec__

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """The module."""
        return self.module

    def exec_module(self, module: ModuleType) -> None:
        """Leave it as it was."""
        module.__spec__ = self.spec


def postpone(modules: dict[str, dict[str, Any]]) -> None:
    """Put a stand-in for each module, with the names that it is to have, unless the module is there already."""
    for name, known in modules.items():
        sys.modules.setdefault(name, Postponed(name, known))
    if not any(isinstance(finder, PostponedParents) for finder in sys.meta_path):
        sys.meta_path.insert(0, PostponedParents())
