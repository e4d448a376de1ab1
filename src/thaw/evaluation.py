"""Evaluation of a run's classifier, on a split of its own data or on other labelled images."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from thaw.config import DatasetConfig
from thaw.data.index import ImageIndex
from thaw.data.known_classes import in_known_classes, index_known_classes
from thaw.data.places import name_place
from thaw.data.sampling import ImageDataset
from thaw.data.scan import has_folders
from thaw.data.shards import is_address
from thaw.errors import ThawError
from thaw.inspection.charts import calibration_chart, confusion_chart
from thaw.inspection.figures import write_figure
from thaw.inspection.grids import MOST, least_certain_grid, top_losses_grid
from thaw.inspection.prediction_files import write_predictions
from thaw.inspection.predictions import Predictions
from thaw.inspection.scores import score_data
from thaw.own_images import caution_of, own_images
from thaw.run import Run
from thaw.training.precision import keep_precision
from thaw.training.trainer import make_predictor, predict
from thaw.tta import average, check_views, other_views
from thaw.writing import drafting

log = logging.getLogger(__name__)

NAMES = {"train": "training images", "all": "images"}
"""Aliases, so that the data module neither augments `train` nor checks it."""
CAUTIONS = {
    "val": "The best epoch was chosen on these images, so the figures flatter.",
    "train": "The classifier has learned from these images.",
}
MAY_HAVE_LEARNED = "The classifier may have learned from these images, or from some of them."


@dataclass(frozen=True)
class Evaluation:
    """Predictions of an evaluation, and what they are of.

    Attributes:
        predictions: Labels and logits of the images.
        split: Their split: test, val, train, or `all` where the data has no splits.
        caution: Why the figures may flatter; empty where they do not.
        num_views: Views of each image whose probabilities are averaged; 1 is the centre crop alone.
        precision: Lightning's name of the precision: 32-true, bf16-mixed, …
        device: Lightning's name of the device: cpu, cuda, …
        images: The images, as the network sees them before normalisation.
    """

    predictions: Predictions
    split: str
    caution: str
    num_views: int
    precision: str
    device: str
    images: ImageDataset

    def show(self, chosen: Sequence[int]) -> list[Tensor]:
        """The centre crops, uint8 (3, S, S), of some images by index."""
        return [self.images[0, index][0] for index in chosen]


def evaluate(
    run: Run,
    split: str | None = None,
    data: Path | None = None,
    label_pattern: str | None = None,
    tta: bool = False,
    random_views: int = 0,
    device: str | None = None,
    columns: Mapping[str, str] | None = None,
) -> Evaluation:
    """Predictions of a run's classifier, with the transform, classes, precision and batch size of the training.

    On a device other than the training's, a precision that `auto` chose may be another (`keep_precision`).

    Args:
        run: A finished run.
        split: test, val or train; None takes test if there is one, else val.
        data: Labelled images in place of the run's own: a folder or a CSV file, classes in any order, or some of them.
        label_pattern: Tells the class of the images in `data` from a file's name; None takes the run's own pattern
            where `data` has no folders.
        tta: Test-time augmentation: the mean of the probabilities over the centre crop and those mirror images that
            the training may have shown.
        random_views: So many random views of each image, by the run's own augmentation, join that mean.
        device: auto, cpu, gpu, or another accelerator of Lightning's; None takes what the run was given.
        columns: Of `data` as a CSV file, by `csv_path`, `csv_label`, `csv_split` and `csv_group`; None takes the usual
            ones.

    Raises:
        ThawError: The images cannot be found, or not be judged by this classifier.
    """
    model = run.load_classifier()
    module = run.load_data(model)
    check_views(module.augment, tta, random_views)
    if data is None:
        index, split, is_same = _index_own_split(run, module.options, split, label_pattern, columns)
        is_fair = split == "val" and not run.chose_epoch
        caution = MAY_HAVE_LEARNED if split == "train" and not is_same else "" if is_fair else CAUTIONS.get(split, "")
    else:
        if data.is_dir() and not has_folders(data):  # nothing else tells the classes
            label_pattern = label_pattern or module.options.label_pattern
        index = index_known_classes(data, model.classes, label_pattern, columns)
        split = _choose(index, split)
        module.options = replace(module.options, on_bad="skip")
    name = NAMES.get(split, split)
    module.load(replace(index, splits={name: index.splits[split]}))
    images = module.datasets[name]
    if data is not None:
        caution = caution_of(run, images.samples)
    device = device or run.trainer.accelerator
    trainer = make_predictor(keep_precision(run, device), device)
    views = [predict(trainer, model, module, name)]
    for loader in other_views(module, name, tta, random_views):
        views.append(predict(trainer, model, module, name, loader))
    return Evaluation(
        predictions=average(views) if len(views) > 1 else views[0],
        split=split,
        caution=caution,
        num_views=len(views),
        precision=trainer.precision,
        device=trainer.accelerator.name(),
        images=images,
    )


def write_evaluation(evaluation: Evaluation, folder: Path, least: int = 1) -> None:
    """Keep `predictions.csv`, `metrics.json` and the figures in a folder.

    Args:
        evaluation: The result to write.
        folder: Destination; it is made.
        least: Confusions that make a pair of classes worth mentioning.

    Raises:
        ThawError: The folder is a run's own, or cannot be written to.
    """
    refuse_run(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write(evaluation, folder, least)
    except OSError as error:
        raise ThawError(f"{folder} cannot be written to ({error.strerror}). Name another folder by --out.") from error


def refuse_run(folder: Path) -> None:
    """Refuse to write an evaluation among the files of a run.

    Raises:
        ThawError: The folder is a run's.
    """
    if Run(folder).is_started:
        raise ThawError(f"{folder} is the folder of a run, whose predictions would be lost. Name another one by --out.")


def _write(evaluation: Evaluation, folder: Path, least: int) -> None:
    predictions, split = evaluation.predictions, evaluation.split
    write_predictions(folder / "predictions.csv", {split: predictions})
    about = {name: getattr(evaluation, name) for name in ("split", "caution", "num_views", "precision", "device")}
    content = json.dumps(about | score_data(predictions, least), indent=2)
    with drafting(folder / "metrics.json") as draft:
        draft.write_text(content + "\n", encoding="utf-8")
    highest, unsure = predictions.top_losses(MOST), predictions.least_certain(MOST)
    figures: dict[str, Figure | Image.Image] = {
        "confusion.png": confusion_chart(predictions, split),
        "calibration.png": calibration_chart(predictions, split),
        "top_losses.jpg": top_losses_grid(evaluation.show(highest), predictions, highest, split).draw(),
        "least_certain.jpg": least_certain_grid(evaluation.show(unsure), predictions, unsure, split).draw(),
    }
    for name, figure in figures.items():
        write_figure(figure, folder / name)


def _index_own_split(
    run: Run,
    options: DatasetConfig,
    split: str | None,
    label_pattern: str | None,
    columns: Mapping[str, str] | None,
) -> tuple[ImageIndex, str, bool]:
    """The run's own data set as it is now, the split, and whether they are still the images of the training.

    Raises:
        ThawError: What tells the labels of other images is given, or there are no such images.
    """
    if label_pattern is not None or columns:
        option = "label_pattern" if label_pattern is not None else next(iter(columns or {}))
        raise ThawError(f"`{option}` is for the images of `data`, and that is not given. Name both, or none.")
    if not (Path(options.root).is_dir() or is_address(options.root)):
        raise ThawError(
            f"The images of {run.folder} are not at {name_place(options.root)}. Go where the training was started, or "
            "name labelled images by `data`."
        )
    index, is_same = own_images(run)
    split = _choose(index, split, " A training with dataset.test_fraction makes one." if split == "test" else "")
    if not is_same:
        log.warning(_what_is_judged(run, index, split))
    index = replace(index, splits={split: index.splits[split]})
    return in_known_classes(index, run.full_summary["classes"]), split, is_same


def _what_is_judged(run: Run, index: ImageIndex, split: str) -> str:
    """A line about the images that are taken from a data set that has changed.

    Raises:
        ThawError: None are there.
    """
    changed = f"The images in {index.root} are no longer those of the training"
    num_left = len(index.splits[split])
    if not num_left:
        raise ThawError(f"{changed}: none of its {split} images are there. Name labelled images by `data`.")
    if split == "train":
        return f"{changed}. All are taken that were not its val or test; some may be new, or had been left out."
    metrics = run.full_summary["val" if split == "val" else "test"]
    num_recorded = metrics["n"] if metrics else num_left
    return f"{changed}. Judged are those of its {num_recorded} {split} images that are there: {num_left}."


def _choose(index: ImageIndex, split: str | None, advice: str = "") -> str:
    """The split that is asked for, or else the one that tells most.

    Raises:
        ThawError: There is no such split; the message ends with `advice`.
    """
    if split == "test" and index.epoch_chosen_on == "test":
        return "val"  # these are the test images
    if split is None:
        return next(name for name in ("test", "val", *index.splits) if name in index.splits)
    if split not in index.splits:
        splits = ", ".join(name for name in index.splits if name != "all") or "none"
        raise ThawError(f"There is no {split} split in {index.root}: it has {splits}.{advice}")
    return split
