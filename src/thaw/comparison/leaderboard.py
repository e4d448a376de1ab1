"""The ranked settings as text, as Markdown and as CSV."""

import csv
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thaw.comparison.repeats import Setting, go_by_macro_f1
from thaw.comparison.section import WIDTH, Section
from thaw.comparison.verdicts import ALPHA, OTHER_IMAGES, Verdict
from thaw.errors import name_some
from thaw.launch.failures import ERROR_LOG
from thaw.writing import drafting_csv

OVERLAPPING = "of folds with images in common, as the data has changed between them"


@dataclass(frozen=True)
class Leaderboard:
    """Settings by sections, and what was left out. As text, it is the table for a terminal.

    Attributes:
        sections: At least one, with one setting at least.
        unfinished: Folders of runs without a summary.
        unreadable: Folders whose summary.json is none of Thaw's.
        superseded: Folders of runs with the options, seed and fold of a later one.
        overlapping: Folders of runs of folds that have images in common, which would count twice.
    """

    sections: Sequence[Section]
    unfinished: Sequence[Path] = ()
    unreadable: Sequence[Path] = ()
    superseded: Sequence[Path] = ()
    overlapping: Sequence[Path] = ()

    @property
    def settings(self) -> list[Setting]:
        """All settings, section by section."""
        return [setting for section in self.sections for setting in section.settings]

    @property
    def spans_images(self) -> bool:
        """Whether settings were judged on different images, so that none is the best."""
        others = any(verdict.reason == OTHER_IMAGES for verdict in self.sections[0].verdicts)
        return len(self.sections) > 1 or others

    @property
    def best(self) -> Path | None:
        """Folder of the best setting's run, of several seeds the median one.

        None when settings were judged on different images, or for folds.
        """
        runs = self._best.median.records if self._best else []
        return runs[0].run.folder if len(runs) == 1 else None

    @property
    def _best(self) -> Setting | None:
        first = self.settings[0]
        is_cross_validation = first.records[0].fold is not None and len([*first.records, *first.left_out]) > 1
        is_alone = len(self.settings) == 1 and is_cross_validation
        return None if self.spans_images or is_alone else first

    @property
    def leader(self) -> Setting | None:
        """The best or only setting, with its median seed; None when settings were judged on different images."""
        return None if self.spans_images else self.settings[0].median

    def _best_line(self) -> str | None:
        """The best run, or for folds the best setting; None if there is no such one."""
        if self._best is None:
            return None
        if self.best is None:
            holders = list(dict.fromkeys(str(record.run.folder.parent) for record in self._best.records))
            return f"Best: {self.sections[0].labels[0]}; a run a fold, in {name_some(holders)}"
        median = f"the median of its {num_seeds} seeds" if (num_seeds := len(self._best.repeats)) > 1 else ""
        if len(self.settings) == 1 and median:
            return f"{median.capitalize()}: {self.best}"
        return f"Best: {self.best}" + (f" ({median})" if median else "")

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
        grouped = [setting for setting in self.settings if setting.option("dataset.csv_group") not in ("", "null")]
        alike = "Images of one group (dataset.csv_group) may be alike"
        if any(setting.answers and setting.answers.groups for setting in self.settings):
            notes.append(f"{alike}: their intervals and p go by groups, and of fewer than 6 no p is below {ALPHA}.")
        if any(not (setting.answers and setting.answers.groups) for setting in grouped):
            notes.append(f"{alike}, and some runs do not tell theirs: their intervals are too narrow, and p too small.")
        by_macro_f1 = [section for section in self.sections if go_by_macro_f1(section.settings)]
        if any(len(section.settings) > 1 for section in by_macro_f1):
            which = "" if len(by_macro_f1) == len(self.sections) else " where it is that of all runs"
            notes.append(f"Ranked by macro F1, as trainer.monitor says{which}. The test is one of accuracies.")
        records = [record for setting in self.settings for record in setting.records]
        if pruned := [str(record.run.folder) for record in records if record.is_pruned]:
            names = name_some(pruned, most=1)
            notes.append(f"*: {len(pruned)} of {len(records)} runs stopped early by sweep.prune ({names}).")
        if self.spans_images:
            notes.append("Accuracies on other images cannot be compared: there is no test across.")
        failed = [path for path in self.unfinished if (path / ERROR_LOG).exists()]
        for what, paths in {
            f"failed, each {ERROR_LOG} says why": failed,
            "unfinished": [path for path in self.unfinished if path not in failed],
            "with a summary.json not of Thaw's": self.unreadable,
            "with the options, seed and fold of a later one": self.superseded,
            OVERLAPPING: self.overlapping,
            "of a seed that lacks folds of another": [
                record.run.folder for setting in self.settings for record in setting.left_out
            ],
        }.items():
            if paths:
                notes.append(f"Left out: {len(paths)} {what} ({name_some([str(path) for path in paths], most=1)}).")
        return notes


def _verdict_figures(verdict: Verdict) -> dict[str, Any]:
    tested = {
        "p": verdict.p,
        "p_corrected": verdict.corrected,
        "images_better": verdict.num_better,
        "images_worse": verdict.num_worse,
    }
    return {"verdict": verdict.word} | (dict.fromkeys(tested, "") if verdict.p is None else tested)
