"""A run's folder -> its options, figures and answers, as far as they are compared."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeAlias, cast

from thaw.comparison.differences import Options, flat_config, options_of, relevant, typed_options
from thaw.data.places import data_name
from thaw.run import Run
from thaw.summary import Metrics, Summary

Place: TypeAlias = tuple[str, str, str]
"""Name, root and CSV file of a data set."""


class Answer(NamedTuple):
    """What a run said of an image."""

    predicted: str
    group: str
    """The group of the image; empty where it has none."""


@dataclass(frozen=True)
class Record:
    """Options and figures of one run, for the leaderboard."""

    run: Run
    summary: Summary
    typed: Options
    config: Options
    fold: int | None
    """Which cross-validation fold was the run's val; None without cross-validation."""
    num_folds: int
    """Number of folds; 0 without cross-validation."""
    data: str
    """Name of the data set, or of its folder."""
    place: Place
    """Where the options say that it lies."""

    @property
    def setting(self) -> tuple[tuple[str, str], ...]:
        """What runs of one setting share: the images, and the options but for the seed and the fold."""
        return tuple(sorted(self.config.items()))

    @property
    def typed_place(self) -> Place:
        """Where its data lies, as seen from the folder in which it was started."""
        name, _, table = self.place
        return name, self.config.get("dataset.root", ""), table

    @property
    def fingerprint(self) -> str:
        """That of the images, with their classes and splits; each fold has its own."""
        return self.summary.get("data_fingerprint", "")

    @property
    def split(self) -> str:
        """Where the run is judged: on test if there is one; a fold on its val, which no other fold has."""
        return "test" if self.summary["test"] and self.fold is None else "val"

    @property
    def is_pruned(self) -> bool:
        """True if a search has stopped it early."""
        return self.summary.get("pruned", False)

    @property
    def metrics(self) -> Metrics:
        """The figures that no epoch was selected by: on test, or else of the last epoch on val."""
        test = self.summary["test"]
        return test if test and self.split == "test" else self.summary["last"]

    @property
    def predictions_csv(self) -> Path:
        """The table of predictions that the figures are computed from."""
        return self.run.predictions_csv if self.split == "test" else self.run.predictions_last_csv

    @property
    def answers(self) -> dict[tuple[str, str], Answer]:
        """What was said of each image, by its path and label, as the figures count it; empty if not kept."""
        return read_answers(self.predictions_csv, self.split)


def _name_data(name: str, root: str, table: str | None, base: Path) -> str:
    """What the data is called, whose folder and CSV file are named as seen from `base`."""
    folder = base / root
    if table is not None and not (folder / table).is_file():
        table = str(base / table)
    return data_name(name, str(folder), table)


def read_answers(path: Path, split: str) -> dict[tuple[str, str], Answer]:
    """What was said of each image of a split, by its path and label; empty without a readable file."""
    try:
        with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            rows = [row for row in csv.DictReader(file) if row["split"] == split]
            return {(row["path"], row["label"]): Answer(row["predicted"], row.get("group", "")) for row in rows}
    except (OSError, UnicodeError, KeyError, csv.Error):
        return {}


def read_record(run: Run) -> Record | None:
    """The run's record; None if its summary.json is none of Thaw's."""
    try:
        summary = cast(Summary, run.summary)  # or a part of one
        config = flat_config(run)
        typed = typed_options(summary["command"]) if summary["command"] else options_of(config)
        config = config or typed
        # Each run has written down the rate that it has found.
        if typed.get("optimizer.lr") == "auto" or run.rate_curve.exists():
            config = {**config, "optimizer.lr": "auto"}
        fold, num_folds = (config.get(f"dataset.{key}", "null") for key in ("fold", "num_folds"))
        name, root, table = (config.get(f"dataset.{key}", "") for key in ("name", "root", "csv"))
        images = {"data_fingerprint": summary.get("data_fingerprint", "")} if fold == "null" else {}
        record = Record(
            run=run,
            summary=summary,
            typed=relevant(typed),
            config={**relevant(config), **images},
            fold=None if fold == "null" else int(fold),
            num_folds=0 if num_folds == "null" else int(num_folds),
            data=_name_data(name, root, None if table in ("", "null") else table, run.started_in) if name else "",
            place=(name, str(run.started_in / root), table),
        )
        metrics, best = record.metrics, summary["val"]  # what follows fails of a summary that lacks some figure
        shown = (metrics["acc"], metrics["macro_f1"], metrics["loss"], best["acc"], summary["seconds"]["total"])
        _ = *map(float, shown), len(summary["classes"]), f"{summary['params']['trainable']:,}", summary["seed"]
        _ = metrics["n"] + best["n"] > 0, bool(summary["pruned"])
        return record
    except Exception:  # whatever another program's summary.json, or half a file, leads to
        return None
