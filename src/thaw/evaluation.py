"""Evaluation of a run's classifier, on a split of its own data or on other labelled images."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import lightning.pytorch as pl
from torch import Tensor

from thaw.config import DatasetConfig, TrainerConfig
from thaw.data.datamodule import ImageDataModule
from thaw.data.index import ImageIndex
from thaw.data.kept_images import Loader
from thaw.data.known_classes import in_known_classes, index_known_classes
from thaw.data.places import name_place
from thaw.data.sampling import ImageDataset
from thaw.data.scan import has_folders
from thaw.data.shards import is_address
from thaw.errors import ThawError
from thaw.inspection.predictions import Predictions
from thaw.model.classifier import Classifier
from thaw.own_images import caution_of, own_images
from thaw.run import Run
from thaw.training.precision import choose_precision, keep_precision
from thaw.training.trainer import make_predictor, predict
from thaw.tta import average, check_views, other_views

log = logging.getLogger(__name__)

NAMES = {"train": "training images", "all": "images"}
"""Aliases, so that the data module neither augments `train` nor checks it."""
CAUTIONS = {
    "val": "The best epoch was chosen on these images, so the figures flatter.",
    "train": "The classifier has learned from these images.",
}
UNKNOWN = "Which images it has learned from, a checkpoint alone does not tell."
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
    name = _load(module, index, split)
    if data is not None:
        caution = caution_of(run, module.datasets[name].samples)
    device = device or run.trainer.accelerator
    trainer = make_predictor(keep_precision(run, device), device)
    others = other_views(module, name, tta, random_views)
    return _judge(trainer, model, module, split, caution, others)


def evaluate_alone(
    checkpoint: Path,
    data: Path,
    split: str | None = None,
    label_pattern: str | None = None,
    device: str = "auto",
    columns: Mapping[str, str] | None = None,
) -> Evaluation:
    """As `evaluate`, by a checkpoint that was taken out of its run, on other images; `auto` chooses the precision.

    Raises:
        ThawError: The file is no checkpoint of Thaw's, or the images cannot be found, or not be judged by it.
    """
    model = Classifier.load_from_checkpoint(checkpoint)
    module = ImageDataModule(DatasetConfig(on_bad="skip"), model.transform)
    index = index_known_classes(data, model.classes, label_pattern, columns)
    split = _choose(index, split)
    _load(module, index, split)
    trainer = make_predictor(choose_precision(TrainerConfig(accelerator=device)), device)
    return _judge(trainer, model, module, split, UNKNOWN)


def _load(module: ImageDataModule, index: ImageIndex, split: str) -> str:
    """Have the module read a split's images; returns what it calls them."""
    name = NAMES.get(split, split)
    module.load(replace(index, splits={name: index.splits[split]}))
    return name


def _judge(
    trainer: pl.Trainer,
    model: Classifier,
    module: ImageDataModule,
    split: str,
    caution: str,
    others: Iterable[Loader] = (),
) -> Evaluation:
    """Predictions of the images that the module has read: the mean over centre crops and other views."""
    name = NAMES.get(split, split)
    views = [predict(trainer, model, module, name)]
    views += [predict(trainer, model, module, name, loader) for loader in others]
    return Evaluation(
        predictions=average(views) if len(views) > 1 else views[0],
        split=split,
        caution=caution,
        num_views=len(views),
        precision=trainer.precision,
        device=trainer.accelerator.name(),
        images=module.datasets[name],
    )


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
