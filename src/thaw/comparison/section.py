"""A table of settings that can be compared, as text and as Markdown."""

import textwrap
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from thaw.comparison.differences import short_names, tell_apart
from thaw.comparison.repeats import Setting
from thaw.comparison.verdicts import Verdict
from thaw.console import table_text
from thaw.errors import abridge

WIDTH = 118
"""Most characters of a line."""
HEADINGS = [
    "runs", "accuracy", "95 % interval", "acc at\nbest epoch", "macro\nF1", "seconds", "trainable", "against the best",
]  # fmt: skip


@dataclass(frozen=True)
class Section:
    """Settings of the same data, split and number of images, best first; on the same images where two share theirs."""

    title: str
    settings: Sequence[Setting]
    verdicts: Sequence[Verdict]

    @cached_property
    def option_names(self) -> list[str]:
        """The options that tell these settings apart."""
        return tell_apart([(setting.records[0].typed, setting.records[0].config) for setting in self.settings])

    @property
    def headings(self) -> list[str]:
        """`HEADINGS`; an accuracy on val that stands beside one on test is called so."""
        on = "val " if self.settings[0].judged_on == "test" else ""
        return [f"{on}{heading}" if heading.startswith("acc at") else heading for heading in HEADINGS]

    @cached_property
    def descriptions(self) -> list[str]:
        """What tells each setting from the others here, in a few words: presets, and what was typed for it."""
        typed = [setting.records[0].typed for setting in self.settings]
        anyone = {name for each in typed for name in each}
        names = [
            [name for name in self.option_names if "." not in name or name in own or name not in anyone]
            for own in typed
        ]
        brief = [self._describe(number, each) for number, each in enumerate(names)]
        full = [self._describe(number, self.option_names) for number in range(len(self.settings))]
        return [short if short and brief.count(short) == 1 else long for short, long in zip(brief, full, strict=True)]

    @cached_property
    def _cells(self) -> dict[str, list[str]]:
        """The value of each option that is shown, for each setting; in full where two would be shortened to one."""
        cells = {}
        for name in self.option_names:
            values = [setting.option(name) for setting in self.settings]
            short = [shorten(value) for value in values]
            cells[name] = short if len({*short}) == len({*values}) else values
        return cells

    def _describe(self, number: int, names: Sequence[str]) -> str:
        values = [self._cells[name][number] for name in names]
        if len(self.option_names) <= 1:
            return next(iter(values), _folder_name(self.settings[number]))
        return ", ".join(
            f"{name} {value}" for name, value in zip(short_names(names), values, strict=True) if value != "–"
        )

    @property
    def labels(self) -> list[str]:
        """The descriptions, with the option's name where they are values alone."""
        names = short_names(self.option_names)
        return [" ".join([*(names if len(names) == 1 else []), each]) for each in self.descriptions]

    def text(self) -> str:
        """The table; where it would be too wide, the options stand below it."""
        names, rows = self.table()
        text = table_text([*names, *self.headings], rows)
        if len(text.splitlines()[1]) > WIDTH:
            numbered = [[f"#{number}", *row[len(names) :]] for number, row in enumerate(rows, 1)]
            lines = [f"#{number:<4}{description}" for number, description in enumerate(self.descriptions, 1)]
            legend = (textwrap.fill(line, WIDTH, subsequent_indent=" " * 5) for line in lines)
            text = "\n".join([table_text(["", *self.headings], numbered), "", *legend])
        return f"{self.title}\n\n{text}"

    def markdown(self) -> str:
        """The table in Markdown."""
        names, rows = self.table()
        headings = [*names, *(heading.replace("\n", " ") for heading in self.headings)]
        lines = [headings, ["---"] * len(names) + ["---:"] * len(HEADINGS), *rows]
        cells = (" | ".join(cell.replace("|", "\\|") for cell in line) for line in lines)
        return f"**{self.title}**\n\n" + "\n".join(f"| {line} |" for line in cells)

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Names of the options, and the rows: those options, or else the folder's name, and what `HEADINGS` says."""
        rows: list[list[str]] = []
        for setting, verdict in zip(self.settings, self.verdicts, strict=True):
            options, figures = [self._cells[name][len(rows)] for name in self.option_names], setting.figures()
            spread = figures["spread" if len(setting.repeats) > 1 else "fold_spread"]
            rows.append(
                [
                    *(options or [shorten(_folder_name(setting))]),
                    f"{figures['runs']}{'*' if figures['pruned'] else ''}",
                    f"{figures['acc']:.4f}" + (f" ± {spread:.4f}" if len(setting.records) > 1 else ""),
                    f"{figures['ci95_low']:.3f} to {figures['ci95_high']:.3f}",
                    f"{figures['best_acc']:.4f}",
                    "–" if figures["macro_f1"] is None else f"{figures['macro_f1']:.4f}",
                    f"{figures['seconds']:.1f}",
                    f"{figures['trainable']:,}",
                    str(verdict),
                ]
            )
        return short_names(self.option_names) or ["run"], rows


def shorten(value: str) -> str:
    """The value for a narrow column: of a path its last part, of a number four digits, of a long text its ends."""
    value = Path(value).name if "/" in value and " " not in value else value
    if "." in value and len(value) > 8:
        with suppress(ValueError):  # not a number
            return f"{float(value):.4g}"
    return abridge({"null": "–", "": "–"}.get(value, value), 28)


def _folder_name(setting: Setting) -> str:
    """The name of a setting's folder: its run's, or the one that holds its runs if there are several."""
    folders = [record.run.folder.resolve() for record in setting.records]
    holders = {folder.parent for folder in folders}
    return holders.pop().name if len(folders) > 1 and len(holders) == 1 else folders[0].name
