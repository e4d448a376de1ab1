"""A finished run -> one HTML page about it, without network and without scripts."""

import logging
import math
from collections import Counter
from dataclasses import dataclass, field
from math import isnan
from pathlib import Path
from typing import Literal

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from omegaconf import OmegaConf

from thaw.config import DatasetConfig
from thaw.data.check import facts, find_problems
from thaw.data.images import read_image
from thaw.data.index import ImageIndex
from thaw.data.shards import is_address
from thaw.data.sources import data_folder
from thaw.data.unreadable import index_again
from thaw.errors import ThawError
from thaw.inspection import svg
from thaw.inspection.curves import frozen_stages, learning_curves
from thaw.inspection.gallery import make_gallery
from thaw.inspection.prediction_files import read_predictions
from thaw.inspection.predictions import NUM_BINS, ClassScore, Predictions
from thaw.options import changed, typed
from thaw.run import Run
from thaw.summary import Summary, groups_text, pace_text
from thaw.writing import drafting

log = logging.getLogger(__name__)

MOST_CLASSES = 60
"""Above it, the confusion matrix is left out, and the table of classes ends with the weakest."""
MOST_PAIRS = 12


def write_report(run: Run, path: Path, most: int) -> Path:
    """Write the report of a run, all of it in one file; returns its path.

    Where the images or the checkpoint are gone, it has no pictures, and says so.

    Args:
        run: A finished run.
        path: The file to write.
        most: Images shown of highest loss, and of lowest confidence; 0 leaves both out.

    Raises:
        ThawError: The run is not finished, the file cannot be written, or it would lose its images.
    """
    summary = run.full_summary
    data = look_at_data(run.dataset, summary)
    if not data.is_there and path.exists():
        raise ThawError(
            f"{path} would lose its images: the data is not at {data.folder.absolute()}. Go where the training was "
            "started, or set --out FILE."
        )
    page = render(run, most, summary, data)
    if data.index is None:
        log.warning(data.note)
    try:
        with drafting(path) as draft:
            draft.write_text(page, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise ThawError(f"The report cannot be written to {path}: {error.strerror}.") from error
    return path


def render(run: Run, most: int, summary: Summary, data: "DataNow") -> str:
    """The report as HTML."""
    config = run.config
    metrics = run.metrics if summary["epochs"] else []
    splits = read_predictions(run.predictions_csv)
    split: Literal["test", "val"] = "test" if "test" in splits else "val"
    predictions = splits[split]
    return _template().render(
        run=run.folder.resolve().name,
        summary=summary,
        judged=summary[split],
        split=split,
        predictions=predictions,
        words=judgement(summary, predictions, run.chose_epoch),
        common=predictions.most_common,
        num_wrong=int((predictions.predicted != predictions.labels).sum()),
        chance_loss=math.log(len(predictions.classes)),
        calibration_error=predictions.calibration_error(),
        num_bins=NUM_BINS,
        edges=svg,
        curves=learning_curves(metrics, summary["best_epoch"]),
        frozen=frozen_stages(metrics),
        confused=most_confused(predictions),
        classes=weakest_first(predictions, data.index),
        dots=svg.reliability(predictions.calibration_curve()),
        gallery=make_gallery(run, predictions, data.folder, most, data.index.read if data.index else read_image),
        data=data,
        config=config,
        changed={key: values for key, values in changed(config).items() if key != "resume"},  # no setting
        yaml=OmegaConf.to_yaml(config),
        most_classes=MOST_CLASSES,
    )


def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("thaw", "inspection"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": percent,
        "number": number,
        "duration": duration,
        "pace": pace_text,
        "groups": groups_text,
        "typed": typed,
    }
    return environment.get_template("report.html.jinja")


def percent(share: float, digits: int = 1) -> str:
    """A share as per cent; a dash for an undefined one."""
    return "–" if isnan(share) else f"{100 * share:.{digits}f}\N{NO-BREAK SPACE}%"


def number(value: float, digits: int = 3) -> str:
    """A figure; a dash for an undefined one."""
    return "–" if isnan(value) else f"{value:,.{digits}f}"


def duration(seconds: float) -> str:
    """A time in the unit that suits it."""
    minutes = seconds / 60
    return f"{seconds:.1f} s" if seconds < 120 else f"{minutes:.1f} min" if minutes < 120 else f"{minutes / 60:.1f} h"


# ---- what was reached


def judgement(summary: Summary, predictions: Predictions, is_chosen: bool) -> list[str]:
    """What the accuracy means and what it does not, in sentences; whether its epoch was chosen among others, too."""
    judged, chosen_on = summary["test"] or summary["val"], summary["epoch_chosen_on"]
    low, high = (percent(bound) for bound in judged["acc_ci95"])
    name, share = predictions.most_common
    epoch = f"Epoch {summary['best_epoch']} of {summary['epochs']}"
    if not summary["epochs"]:
        origin = "Nothing was trained: this is the probe, a logistic regression on the frozen features."
    elif not is_chosen:
        origin = f"{epoch} is the only one that was validated: none was chosen."
    elif summary["test"]:
        on_val = percent(summary["val"]["acc"])
        origin = f"{epoch} was chosen on val ({on_val} there); the test images played no part in the training."
    else:
        which = "" if chosen_on == "val" else f", the {chosen_on} images, for want of others"
        is_last = summary["best_epoch"] == summary["epochs"]
        which_epoch = f"{epoch}, the last," if is_last else epoch
        origin = f"{which_epoch} was chosen on these same images{which}: expect a little less of new ones."
        if not is_last:
            origin += f" The last epoch, which nobody chose, reaches {percent(summary['last']['acc'])}."
    sentences = [
        origin,
        f"With {judged['n']} images{groups_text(judged)}, the interval from {low} to {high} is what the luck of their "
        "draw leaves open"
        + ("; another seed of the training would move the figure too." if summary["epochs"] else "."),
        f"Always answering “{name}” would reach {percent(share)}.",
    ]
    if summary["epochs"] and (probe := summary["probe"]):
        sentences.append(f"A logistic regression on the frozen features alone reaches {percent(probe['acc'])} on val.")
    return sentences


def most_confused(predictions: Predictions) -> list[tuple[str, str, int, float]]:
    """Actual class, predicted class, images, and their share of the actual class; single ones only if all are."""
    totals = dict(zip(predictions.classes, predictions.confusion.sum(dim=1).tolist(), strict=True))
    pairs = predictions.most_confused(least=2) or predictions.most_confused(least=1)
    return [(actual, predicted, n, n / totals[actual]) for actual, predicted, n in pairs[:MOST_PAIRS]]


def weakest_first(predictions: Predictions, index: ImageIndex | None) -> list[tuple[ClassScore, int | None]]:
    """Each class's figures and its number of training images, if the data is there; the lowest F1 first."""
    counts = Counter(index.classes[sample.label] for sample in index.splits["train"]) if index else None
    rows = [(score, None if counts is None else counts[score.name]) for score in predictions.per_class()]
    return sorted(rows, key=lambda row: (isnan(row[0].f1), row[0].f1))[:MOST_CLASSES]


# ---- the data


@dataclass(frozen=True)
class DataNow:
    """The data set as it lies on disk when the report is made."""

    folder: Path
    index: ImageIndex | None = None
    """None where it cannot be read any more."""
    facts: str = ""
    findings: list[str] = field(default_factory=list)
    note: str = ""
    """Why there is no index, or whether its files are those that the run was trained on."""
    is_there: bool = True


def look_at_data(options: DatasetConfig, summary: Summary) -> DataNow:
    """The data check, done again where the data lies."""
    folder = data_folder(options.name, Path(options.root))
    if not (folder.is_dir() or is_address(options.root)):
        place = folder.absolute()
        note = f"The data is not at {place}: this report is made without its images and its check."
        return DataNow(folder, note=note, is_there=False)
    try:
        index, is_same = index_again(folder, options, summary["data_fingerprint"])
    except ThawError as error:
        return DataNow(folder, note=f"The data cannot be read any more: {error}")
    note = "The files are those of the training." if is_same else "The files have changed since the training."
    return DataNow(folder, index, facts(index), [finding.message for finding in find_problems(index)], note)
