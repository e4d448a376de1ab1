"""An image as the data tell of it, and as it is learned."""

from pathlib import Path
from typing import NamedTuple


class Row(NamedTuple):
    """An image before classes are numbered; `split` is empty where the data leaves it to us."""

    path: Path
    name: str
    split: str
    source: str
    group: str = ""
    """What it shares with the images that it stays together with; empty where each goes its own way."""
    fold: str = ""
    """The fold that the data gives it; empty where folds are made here."""


class Sample(NamedTuple):
    """An image file and the number of its class."""

    path: Path
    label: int
