"""What `--help` prints."""

import textwrap
from collections.abc import Iterable
from pathlib import Path
from string import Template

from thaw.backbone_names import BACKBONE_NAMES


def help_text(path: Path) -> str:
    """The text of a file with the names filled in that are too many to write down twice."""
    experiments = sorted(path.stem for path in (path.parent / "experiment").glob("*.yaml"))
    template = Template(path.read_text(encoding="utf-8"))
    return template.substitute(BACKBONES=_fill(BACKBONE_NAMES), EXPERIMENTS=_fill(experiments))


def _fill(names: Iterable[str]) -> str:
    indent = " " * 14
    return textwrap.fill(" ".join(names), 108, initial_indent=indent, subsequent_indent=indent)
