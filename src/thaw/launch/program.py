"""The program that a command line belongs to. Imports no torch."""

from dataclasses import dataclass
from pathlib import Path

COMMANDS = Path(__file__).parents[1] / "commands"


@dataclass(frozen=True)
class Program:
    """`thaw train` and `thaw find_lr`, or a script that does the same by the presets beside it.

    Attributes:
        script: Its file.
    """

    script: Path

    @property
    def name(self) -> str:
        """`train`, `find_lr` or what a script of one's own is called."""
        return self.script.stem

    @property
    def typed(self) -> list[str]:
        """How it is started in a shell, from anywhere."""
        return ["thaw", self.name] if self.is_command else ["python", str(self.script)]

    @property
    def recorded(self) -> list[str]:
        """The same, without the folder where a script lies."""
        return ["thaw", self.name] if self.is_command else ["python", self.script.name]

    @property
    def arguments(self) -> list[str]:
        """What stands behind `python` to start it."""
        return ["-m", f"thaw.commands.{self.name}"] if self.is_command else [str(self.script.absolute())]

    @property
    def is_command(self) -> bool:
        """Whether it is one of the `thaw` command."""
        return self.script.parent == COMMANDS
