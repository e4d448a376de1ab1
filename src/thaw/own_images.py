"""The images that a run was trained and judged on, as they lie now."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from thaw.data.copies import count_known
from thaw.data.index import ImageIndex, survey
from thaw.data.sources import data_folder, fetch
from thaw.data.splits import Sample
from thaw.data.unreadable import index_again
from thaw.errors import ThawError
from thaw.inspection.prediction_files import read_splits
from thaw.run import Run


def own_images(run: Run) -> tuple[ImageIndex, bool]:
    """The images of a finished run by the splits of its training, and whether they are still those of it.

    Where they are not, a split drawn by chance would be another one now, with images that were trained on: val and test
    are then the images that `predictions.csv` names, as far as they are there, and train is all others.

    Raises:
        ThawError: The files cannot give what the run's options ask for.
    """
    options = run.dataset
    folder = fetch(options.name, Path(options.root))
    index, is_same = index_again(folder, options, run.full_summary["data_fingerprint"])
    return (index, True) if is_same else (_as_recorded(run, survey(folder, options)), False)


def _as_recorded(run: Run, index: ImageIndex) -> ImageIndex:
    """The images of an index, whatever their split, in those that the run recorded; without classes it has not."""
    summary, split_of = run.full_summary, read_splits(run.predictions_csv)
    splits: dict[str, list[Sample]] = {split: [] for split in ("train", *dict.fromkeys(split_of.values()))}
    for sample in index.samples:
        if index.classes[sample.label] in summary["classes"]:
            splits[split_of.get(index.place(sample.path), "train")].append(sample)
    return replace(index, splits=splits, epoch_chosen_on=summary["epoch_chosen_on"])


def caution_of(run: Run, samples: Sequence[Sample]) -> str:
    """Why figures on these images flatter: byte for byte, some are among those that a run learned from.

    Args:
        run: A finished run.
        samples: Images in files of their own.

    Returns:
        A sentence; empty if none are known, or the run's own images are not there.
    """
    own = _find_own(run)
    if own is None:
        return ""
    index, is_same = own
    trained = count_known(samples, index.splits["train"])
    chosen = count_known(samples, index.splits["val"]) if run.chose_epoch else 0
    parts = [f"{'was' if is_same else 'may have been'} trained on {trained}"] * (trained > 0)
    parts += [f"chose its best epoch on {chosen}"] * (chosen > 0)
    return f"Of {len(samples)} images, the run {' and '.join(parts)}, so the figures flatter." if parts else ""


def caution_of_weights(weights: str | None, splits: Mapping[str, Sequence[Sample]]) -> list[str]:
    """Why figures on val or test will flatter: the run that gives the backbone's weights was trained on such images.

    Args:
        weights: `backbone.weights`, whatever it means.
        splits: The images of a training that begins from there.

    Returns:
        A sentence for each such split.
    """
    path = Path(weights or "default").expanduser()
    folder = path.parent.parent if path.parent.name == "checkpoints" else path
    if not folder.is_dir() or not (run := Run(folder)).is_finished:
        return []
    own = _find_own(run)
    if own is None:
        return []
    index, is_same = own
    known = {split: count_known(splits[split], index.splits["train"]) for split in splits if split != "train"}
    return [
        f"Of {len(splits[split])} {split} images, backbone.weights={weights} {'was' if is_same else 'may have been'} "
        f"trained on {number}, so the figures flatter. Fixed splits, by folders or dataset.csv_split, avoid it."
        for split, number in known.items()
        if number
    ]


def _find_own(run: Run) -> tuple[ImageIndex, bool] | None:
    """`own_images`; None where they are not in files of their own, or not there: they are not what is asked about."""
    options = run.dataset
    if options.name == "stream" or not data_folder(options.name, Path(options.root)).is_dir():
        return None
    try:
        return own_images(run)
    except (ThawError, OSError):
        return None
