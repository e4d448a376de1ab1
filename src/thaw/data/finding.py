"""What a check has found: a probable mistake in the data."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from thaw.errors import name_some


@dataclass(frozen=True)
class Finding:
    """A probable mistake in the data, which can be trained on nevertheless unless files cannot be read."""

    title: str
    """What is wrong, in a few words."""
    items: tuple[str, ...]
    """Each thing that is wrong."""
    advice: str = ""
    """What follows, or what to do, in a sentence."""
    paths: tuple[Path, ...] = ()
    """Every file or folder it is about."""
    leave_out: Mapping[Path, str] = field(default_factory=dict)
    """Images to leave out to solve it, each with the reason."""
    is_wrong: bool = True
    """False for a mere hint."""

    @property
    def message(self) -> str:
        """All in one line, which names the first few things."""
        advice = f" {self.advice}" if self.advice else ""
        items = name_some(self.items, most=3)
        return f"{self.title}: {len(self.items)} ({items}).{advice}"
