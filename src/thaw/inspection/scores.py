"""Scores of predictions as text for the screen, as plain data, and as a table for a spreadsheet."""

import csv
from math import isnan
from pathlib import Path
from typing import Any

from thaw.console import table_text
from thaw.errors import name_some
from thaw.inspection.predictions import NUM_BINS, ClassScore, Predictions, accuracy_text
from thaw.writing import drafting_csv

MOST_CLASSES, FEWER_CLASSES = 40, 20
"""Classes that are shown: all if there are no more than the first, else so many of the lowest F1."""
MOST_PAIRS = 10
"""Pairs of confused classes that are shown."""


def score_text(predictions: Predictions, least: int = 1) -> str:
    """Scores over all images, of each class, and the pairs of classes that are confused at least so often."""
    metrics = predictions.metrics()
    scores = predictions.per_class()
    absent = [score.name for score in scores if not score.n and not isnan(score.precision)]
    note = f" (counts as 0 what was predicted but has no images: {name_some(absent, most=3)})" if absent else ""
    lines = [
        f"accuracy           {accuracy_text(metrics)}",
        *([f"top-5 accuracy     {metrics['top5_acc']:.4f}"] if "top5_acc" in metrics else []),
        f"macro-F1           {metrics['macro_f1']:.4f}{note}",
        f"log loss           {metrics['loss']:.4f}",
        f"calibration error  {predictions.calibration_error():.4f} (expected, {NUM_BINS} bins)",
        "",
        _class_table(scores),
        "",
        _confusion_table(predictions, least),
    ]
    return "\n".join(lines)


def score_data(predictions: Predictions, least: int = 1) -> dict[str, Any]:
    """The same in full as plain Python; null where a figure is undefined."""
    return {
        **predictions.metrics(),
        "calibration_error": predictions.calibration_error(),
        "per_class": [_without_nan(score) for score in predictions.per_class()],
        "most_confused": [pair._asdict() for pair in predictions.most_confused(least)],
    }


def write_class_scores(path: Path, predictions: Predictions) -> None:
    """One row a class; empty where a figure is undefined."""
    with drafting_csv(path) as file:
        writer = csv.DictWriter(file, ClassScore._fields)
        writer.writeheader()
        writer.writerows(_without_nan(score) for score in predictions.per_class())


def _class_table(scores: list[ClassScore]) -> str:
    """The classes that occur, or those of them that are recognised worst."""
    shown = [score for score in scores if score.n or not isnan(score.precision)]
    title = None
    if len(shown) > MOST_CLASSES:
        title = f"{FEWER_CLASSES} of {len(shown)} classes, those of lowest F1"
        shown = sorted(shown, key=lambda score: score.f1)[:FEWER_CLASSES]
    rows = [[name, n, *("–" if isnan(value) else f"{value:.4f}" for value in values)] for name, n, *values in shown]
    return table_text(["class", "n", "precision", "recall", "F1"], rows, title)


def _confusion_table(predictions: Predictions, least: int) -> str:
    pairs = predictions.most_confused(least)
    if not pairs:
        return "No class was taken for another" + (f" {least} times or more." if least > 1 else ".")
    rows = [[actual, predicted, n] for actual, predicted, n in pairs[:MOST_PAIRS]]
    rest = f"\n… and {len(pairs) - MOST_PAIRS} more pairs" if len(pairs) > MOST_PAIRS else ""
    return table_text(["most confused", "taken for", "n"], rows) + rest


def _without_nan(score: ClassScore) -> dict[str, Any]:
    undefined = {name: None for name in ("precision", "recall", "f1") if isnan(getattr(score, name))}
    return score._asdict() | undefined
