"""The images that a run was trained and judged on, as they lie now."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from thaw.data.copies import count_known
from thaw.data.index import ImageIndex, survey
from thaw.data.places import name_place
from thaw.data.rows import Sample
from thaw.data.sources import data_folder, fetch
from thaw.data.unreadable import index_again
from thaw.errors import ThawError, one_line
from thaw.inspection.prediction_files import read_splits
from thaw.paths import at_home
from thaw.run import Run

MUCH = 0.01
"""Share of images that are known, from which on they raise the figures by an amount worth a word."""


@dataclass(frozen=True)
class _Learned:
    """What a run has learned from."""

    run: Run
    index: ImageIndex | None
    """None where it is not known."""
    is_same: bool
    """Whether they are still the images of the training."""
    why_unknown: str
    """Empty where nothing is to be said of it."""


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
    """Why figures on these images flatter: some are, byte for byte, images that the run learned from.

    Also follows earlier runs whose weights it started from, and says so where their images are gone.

    Args:
        run: A finished run.
        samples: Images in files of their own.

    Returns:
        A sentence, or two; empty if no such images are known, and all of the run's are.
    """
    lineage = _lineage(run)
    index = lineage[0].index
    chosen = count_known(samples, index.splits["val"]) if index and run.chose_epoch else 0
    facts = _facts(lineage, samples, chosen)
    sentences = [f"Of {len(samples)} images, the run {facts}."] * bool(facts)
    return " ".join([*sentences, *_unknown(lineage, "the run", "these images")])


def caution_of_weights(weights: str | None, splits: Mapping[str, Sequence[Sample]]) -> list[str]:
    """Why figures on val or test will flatter: the run that gives the backbone's weights was trained on such images.

    Also follows earlier runs whose weights that run started from, and says so where their images are gone.

    Args:
        weights: `backbone.weights`, whatever it means.
        splits: The images of a training that begins from there.

    Returns:
        A sentence for each such split, and one where no one can tell.
    """
    run = _run_of(weights)
    if run is None:
        return []
    lineage, judged = _lineage(run), [split for split in splits if split != "train"]
    facts = {split: _facts(lineage, splits[split]) for split in judged}
    return [
        f"Of {len(splits[split])} {split} images, backbone.weights={weights} {what}. Fixed splits, by folders or "
        "dataset.csv_split, avoid it."
        for split, what in facts.items()
        if what
    ] + _unknown(lineage, f"backbone.weights={weights}", f"the images of {' and '.join(judged)}")


def _facts(lineage: Sequence[_Learned], samples: Sequence[Sample], chosen: int = 0) -> str:
    """What is known of images that a run learned from, itself or through the weights that it started from.

    Args:
        lineage: The run, and those that it comes from.
        samples: The images.
        chosen: How many of them the run chose its best epoch on.

    Returns:
        The end of a sentence that the run begins; empty if nothing is known.
    """
    known = [(each, number) for each in lineage if (number := _count(samples, each))]
    facts = [f"{_was(each)} trained on {number}" for each, number in known if each is lineage[0]]
    facts += [f"chose its best epoch on {chosen}"] * (chosen > 0)
    origins = [
        f"{each.run.folder}, which {_was(each)} trained on {number}" for each, number in known if each is not lineage[0]
    ]
    facts += [f"began from {', and from '.join(origins)}"] * bool(origins)
    is_much = sum(number for _, number in known) + chosen >= MUCH * len(samples)
    return " and ".join(facts) + ", so the figures flatter" * (is_much and bool(facts))


def _count(samples: Sequence[Sample], learned: _Learned) -> int:
    return count_known(samples, learned.index.splits["train"]) if learned.index else 0


def _was(learned: _Learned) -> str:
    return "was" if learned.is_same else "may have been"


def _unknown(lineage: Sequence[_Learned], name: str, images: str) -> list[str]:
    """A sentence about the first run of a lineage whose images no one can look at, if there is one.

    Args:
        lineage: A run, and those that it comes from.
        name: What the run is called.
        images: What the images are called that are asked about.
    """
    for learned in lineage:
        if learned.why_unknown:
            who = name if learned is lineage[0] else f"{learned.run.folder}, from which {name} began,"
            return [f"Whether {who} has learned from {images} cannot be told: {learned.why_unknown}."]
    return []


def _lineage(run: Run) -> list[_Learned]:
    """What a run has learned from, then what the run has whose weights it began from, and so on."""
    lineage: list[_Learned] = []
    following: Run | None = run
    folders: set[Path] = set()
    while following is not None and following.folder.resolve() not in folders:  # they may lead in a circle
        folders.add(following.folder.resolve())
        lineage.append(_find_own(following))
        following = _origin(following)
    return lineage


def _origin(run: Run) -> Run | None:
    """The run whose weights a run began from, as it has recorded it; None if there was none, or it is gone."""
    try:
        config = run.config
    except ThawError:
        return None
    weights = None if config["strategy"].get("from_scratch") else config["backbone"].get("weights")
    return _run_of(weights, run.started_in)


def _run_of(weights: str | None, base: Path | None = None) -> Run | None:
    """The finished run that `backbone.weights` names, as seen from here, or else from another folder."""
    if weights in (None, "default"):
        return None
    path = Path(at_home(weights))
    for place in (path, (base or Path()) / path):
        folder = place.parent.parent if place.parent.name == "checkpoints" else place
        if folder.is_dir() and (run := Run(folder)).is_finished:
            return run
    return None


def _find_own(run: Run) -> _Learned:
    """`own_images`, where they are in files of their own, and there.

    Nothing is said of published data that is not there: it is hardly what is asked about.
    """
    try:
        options = run.dataset
        if options.name == "stream":
            return _Learned(run, None, False, "")
        if not data_folder(options.name, Path(options.root)).is_dir():
            place = f"its own are not at {name_place(options.root)}" if options.name == "folder" else ""
            return _Learned(run, None, False, place)
        return _Learned(run, *own_images(run), "")
    except (ThawError, OSError) as error:
        return _Learned(run, None, False, one_line(error).rstrip("."))
