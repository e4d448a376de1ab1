"""Settings in the order of their merit, as text, as Markdown and as CSV."""

import csv
import textwrap
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from thaw.comparison.differences import short_names, tell_apart
from thaw.comparison.repeats import Setting, go_by_macro_f1
from thaw.comparison.verdicts import ALPHA, OTHER_IMAGES, Verdict
from thaw.console import table_text
from thaw.errors import abridge, name_some
from thaw.launch.sweep import ERROR_LOG
from thaw.writing import drafting_csv

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
    def best_description(self) -> str:
        """That of the best setting, with the option's name where it is a value alone."""
        names = short_names(self.option_names)
        return " ".join([*(names if len(names) == 1 else []), self.descriptions[0]])

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
                    str(figures["runs"]),
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


@dataclass(frozen=True)
class Leaderboard:
    """Settings by sections, and what was left out. As text, it is the table for a terminal.

    Attributes:
        sections: At least one, with one setting at least.
        unfinished: Folders of runs without a summary.
        unreadable: Folders whose summary.json is none of Thaw's.
        superseded: Folders of runs that a later one has the options, seed and fold of.
    """

    sections: Sequence[Section]
    unfinished: Sequence[Path] = ()
    unreadable: Sequence[Path] = ()
    superseded: Sequence[Path] = ()

    @property
    def settings(self) -> list[Setting]:
        """All settings, section by section."""
        return [setting for section in self.sections for setting in section.settings]

    @property
    def spans_images(self) -> bool:
        """Whether some of the settings are judged on other images than others, so that none is the best."""
        others = any(verdict.reason == OTHER_IMAGES for verdict in self.sections[0].verdicts)
        return len(self.sections) > 1 or others

    @property
    def best(self) -> Path | None:
        """Folder of the best setting's run, of several seeds the median one; None where nothing tells which that is.

        So it is of settings on other images, of the seeds or folds of a single one, and of folds, each run of which has
        learned from other images.
        """
        runs = self._best.median.records if self._best else []
        return runs[0].run.folder if len(runs) == 1 else None

    @property
    def _best(self) -> Setting | None:
        first = self.settings[0]
        is_alone = len(self.settings) == 1 and len([*first.records, *first.left_out]) > 1
        return None if self.spans_images or is_alone else first

    @property
    def leader(self) -> Setting | None:
        """The best setting, or the only one, with its median seed alone; None of settings on other images."""
        return None if self.spans_images else self.settings[0].median

    def _best_line(self) -> str | None:
        """The best run, or of folds the best setting; None where nothing tells which that is."""
        if self._best is None:
            return None
        if self.best is None:
            holders = list(dict.fromkeys(str(record.run.folder.parent) for record in self._best.records))
            return f"Best: {self.sections[0].best_description}; a run a fold, in {name_some(holders)}"
        num_seeds = len(self._best.repeats)
        return f"Best: {self.best}" + (f" (the median of its {num_seeds} seeds)" if num_seeds > 1 else "")

    def __str__(self) -> str:
        notes = (textwrap.fill(note, WIDTH, break_long_words=False, break_on_hyphens=False) for note in self.notes())
        text = "\n\n".join([*(section.text() for section in self.sections), "\n".join(notes)]).strip()
        return f"{text}\n{line}" if (line := self._best_line()) else text

    def markdown(self) -> str:
        """The tables and the notes in Markdown."""
        return "\n\n".join([*(section.markdown() for section in self.sections), *self.notes()]) + "\n"

    def write_csv(self, path: Path) -> None:
        """Every figure and every option that differs in full, a row a setting, with the folder of its first run."""
        shown = [name for section in self.sections for name in section.option_names]
        configs = [setting.records[0].config for setting in self.settings]
        keys = dict.fromkeys(key for config in configs for key in config)
        differing = [key for key in keys if len({config.get(key) for config in configs}) > 1]
        names = list(dict.fromkeys([*shown, *differing]))
        rows = [
            {"images": section.title, "run": str(setting.records[0].run.folder)}
            | {name: setting.option(name) for name in names}
            | setting.figures()
            | _verdict_figures(verdict)
            for section in self.sections
            for setting, verdict in zip(section.settings, section.verdicts, strict=True)
        ]
        with drafting_csv(path) as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)

    def notes(self) -> list[str]:
        """What a reader must know of the figures, and what is not among them."""
        notes = []
        repeated = [setting for setting in self.settings if len(setting.repeats) > 1]
        if repeated:
            runs = "runs" if all(len(setting.repeats[0]) == 1 for setting in repeated) else "seeds"
            notes.append(
                f"±: standard deviation over the {runs}. Interval: 95 %, of the images (Wilson); runs add none."
            )
        if any(len(setting.repeats) == 1 < len(setting.records) for setting in self.settings):
            about = "accuracy, interval and macro F1 are of all their images"
            notes.append(f"± of one seed's folds: standard deviation of their accuracies; {about}.")
        if verdicts := [verdict for section in self.sections for verdict in section.verdicts if verdict.p is not None]:
            shares = ", over several seeds on each image's share of right answers" if repeated else ""
            pairs = max(verdict.num_pairs for verdict in verdicts)
            over = f"; Bonferroni over the pairs of settings on those images (up to {pairs})" if pairs > 1 else ""
            notes.append(f"p: McNemar's exact test against the best{shares}{over}. Worse: p is below {ALPHA}.")
        by_macro_f1 = [section for section in self.sections if go_by_macro_f1(section.settings)]
        if any(len(section.settings) > 1 for section in by_macro_f1):
            which = "" if len(by_macro_f1) == len(self.sections) else " where it is that of all runs"
            notes.append(f"Ranked by macro F1, as trainer.monitor says{which}. The test is one of accuracies.")
        if self.spans_images:
            notes.append("Accuracies on other images cannot be compared: there is no test across.")
        failed = [path for path in self.unfinished if (path / ERROR_LOG).exists()]
        for what, paths in {
            f"failed, each {ERROR_LOG} says why": failed,
            "unfinished": [path for path in self.unfinished if path not in failed],
            "with a summary.json not of Thaw's": self.unreadable,
            "with the options, seed and fold of a later one": self.superseded,
            "of a seed that lacks folds of another": [
                record.run.folder for setting in self.settings for record in setting.left_out
            ],
        }.items():
            if paths:
                notes.append(f"Left out: {len(paths)} {what} ({name_some([str(path) for path in paths], most=1)}).")
        return notes


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


def _verdict_figures(verdict: Verdict) -> dict[str, Any]:
    tested = {
        "p": verdict.p,
        "p_corrected": verdict.corrected,
        "images_better": verdict.num_better,
        "images_worse": verdict.num_worse,
    }
    return {"verdict": verdict.word} | (dict.fromkeys(tested, "") if verdict.p is None else tested)
