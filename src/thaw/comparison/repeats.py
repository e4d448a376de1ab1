"""Runs -> settings: the seeds and folds of one setting pooled, with their figures and their answers image by image."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import inf, sqrt
from statistics import mean, stdev, variance
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from thaw.comparison.differences import value_of
from thaw.comparison.records import Answer, Place, Record
from thaw.inspection.uncertainty import accuracy_interval, wilson_interval
from thaw.summary import Metrics


@dataclass(frozen=True)
class Answers:
    """Correct answers of a setting by image."""

    images: tuple[object, tuple[tuple[str, str], ...]]
    """Which data they are of, and path and label of N images, in order."""
    num_right: NDArray[np.int64]
    """Number of repeats that are right, by image (N,)."""
    num_repeats: int
    groups: Sequence[str] = ()
    """The group of each image, N; empty where each is its own."""


@dataclass(frozen=True)
class Setting:
    """The runs that differ in nothing but the seed and the fold.

    Attributes:
        repeats: The runs of each repeat: one, or one a fold, of the same folds each.
        left_out: Runs that do not count: repeats of other folds have other images.
        data: What settings on the same data have in common; images of other data may have the same names.
    """

    repeats: Sequence[Sequence[Record]]
    left_out: Sequence[Record] = ()
    data: object = None

    @property
    def records(self) -> list[Record]:
        """All runs that count."""
        return [record for repeat in self.repeats for record in repeat]

    def option(self, name: str) -> str:
        """The value of an option, as it is typed; empty where it has none."""
        return value_of(name, self.records[0].typed, self.records[0].config)

    @property
    def judged_on(self) -> str:
        """Which images and which epoch's weights its accuracy is of."""
        first, num_folds = self.records[0], len(self.repeats[0])
        if first.fold is None:
            return "test" if first.split == "test" else "val, last epoch"
        missing = "" if num_folds == first.num_folds else f"{num_folds} of "
        return f"val of {missing}{first.num_folds} folds, last epoch"

    @property
    def n(self) -> int:
        """Number of images of a repeat; those of all folds together."""
        return sum(record.metrics["n"] for record in self.repeats[0])

    @property
    def accuracies(self) -> list[float]:
        """Accuracy of each repeat."""
        return [_pooled_acc([record.metrics for record in repeat]) for repeat in self.repeats]

    @property
    def acc(self) -> float:
        """Mean accuracy."""
        return mean(self.accuracies)

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the mean accuracy on n images, which further seeds do not make more."""
        if (answers := self.answers) and answers.groups:
            return accuracy_interval(answers.num_right / answers.num_repeats, answers.groups)
        return wilson_interval(self.acc * self.n, self.n)

    @property
    def spread(self) -> float:
        """Standard deviation of the accuracy over the repeats; 0 of a single one."""
        return stdev(self.accuracies) if len(self.accuracies) > 1 else 0.0

    @property
    def fold_spread(self) -> float:
        """Standard deviation of the accuracy over the folds of a repeat, of several the root of the mean variance.

        It tells how much the figure depends on which images are learned from and which are left to judge by; the luck
        of a fold's few images is in it. So it is no error of the pooled accuracy, which has `interval` for that. 0
        without folds.
        """
        variances = [variance(each.metrics["acc"] for each in repeat) for repeat in self.repeats if len(repeat) > 1]
        return sqrt(mean(variances)) if variances else 0.0

    def figures(self) -> dict[str, Any]:
        """Every figure by name: means over the repeats."""
        low, high = self.interval
        records = self.records
        return {
            "runs": len(records),
            "pruned": sum(record.is_pruned for record in records),
            "judged_on": self.judged_on,
            "acc": self.acc,
            "spread": self.spread,
            "fold_spread": self.fold_spread,
            "ci95_low": low,
            "ci95_high": high,
            "n": self.n,
            "best_acc": mean(_pooled_acc([record.summary["val"] for record in repeat]) for repeat in self.repeats),
            "macro_f1": self.macro_f1,
            "seconds": mean(record.summary["seconds"]["total"] for record in records),
            "trainable": records[0].summary["params"]["trainable"],
        }

    @cached_property
    def macro_f1(self) -> float | None:
        """Mean macro-F1, of folds that of all their images together; None if one of them has kept no answers."""
        values = [_macro_f1(repeat) for repeat in self.repeats]
        known = [value for value in values if value is not None]
        return mean(known) if len(known) == len(values) else None

    @property
    def loss(self) -> float:
        """Mean loss of an image; infinite where a run tells none."""
        losses = [record.metrics.get("loss", inf) * record.metrics["n"] for record in self.records]
        return sum(losses) / sum(record.metrics["n"] for record in self.records)

    @property
    def merit(self) -> tuple[float, bool, float, float]:
        """What settings are ranked by, higher is better: accuracy, whether no run is pruned, macro-F1, loss."""
        acc = round(self.acc, 9)  # sums in another order differ in later digits
        is_whole = not any(record.is_pruned for record in self.records)
        return acc, is_whole, round(self.macro_f1 or 0.0, 9), -self.loss

    @property
    def median(self) -> "Setting":
        """This setting with its median repeat alone; of an even number, the lower of the middle two."""
        repeats = [replace(self, repeats=[repeat]) for repeat in self.repeats]
        return sorted(repeats, key=lambda repeat: repeat.merit)[(len(repeats) - 1) // 2]

    @cached_property
    def answers(self) -> Answers | None:
        """The answers behind its accuracy; None if a run has kept none, or its repeats are not on the same images."""
        repeats = [_answers(repeat) for repeat in self.repeats]
        images = sorted(repeats[0])
        if not images or any(set(answers) != set(images) for answers in repeats) or len(images) != self.n:
            return None
        num_right = [sum(answers[path, label].predicted == label for answers in repeats) for path, label in images]
        groups = [next((answers[image].group for answers in repeats if answers[image].group), "") for image in images]
        return Answers((self.data, tuple(images)), np.array(num_right), len(repeats), groups if all(groups) else ())


def _pooled_acc(metrics: Sequence[Metrics]) -> float:
    """The accuracy over the images of all folds."""
    return float(sum(each["acc"] * each["n"] for each in metrics) / sum(each["n"] for each in metrics))


def _macro_f1(repeat: Sequence[Record]) -> float | None:
    """The macro-F1 over the images of all folds, which is no mean of theirs; None if one has kept no answers."""
    if len(repeat) == 1:
        return repeat[0].metrics["macro_f1"]
    answers = _answers(repeat)
    if len(answers) != sum(record.metrics["n"] for record in repeat):
        return None
    from sklearn.metrics import f1_score  # slow to import

    labels, said = [label for _, label in answers], [answer.predicted for answer in answers.values()]
    return float(f1_score(labels, said, average="macro", zero_division=0))


def _answers(repeat: Sequence[Record]) -> dict[tuple[str, str], Answer]:
    """Those of all folds."""
    return {image: answer for record in repeat for image, answer in record.answers.items()}


def rank(settings: Iterable[Setting]) -> list[Setting]:
    """The settings, best first; by macro-F1 before all else where it chose their best epochs."""
    ranked = sorted(settings, key=lambda setting: setting.merit, reverse=True)
    if go_by_macro_f1(ranked):
        ranked.sort(key=lambda setting: setting.merit[2], reverse=True)  # of equals the order stays
    return ranked


def go_by_macro_f1(settings: Iterable[Setting]) -> bool:
    """True if the macro-F1 has chosen the best epochs of all runs."""
    return all(setting.option("trainer.monitor") == "val/macro_f1" for setting in settings)


def pool(records: Iterable[Record]) -> list[Setting]:
    """The settings of the runs, of which no two have the same seed and fold."""
    groups: dict[object, list[Record]] = defaultdict(list)
    for record in records:
        groups[record.setting].append(record)
    data_of = _same_data([record for group in groups.values() for record in group])
    return [_setting(group, data_of(group[0])) for group in groups.values()]


def root_in_full(records: Sequence[Record]) -> list[Record]:
    """The records, with the root of their data in full where it was typed for other data too, or in another way."""
    data_of = _same_data(records)
    data, typed = defaultdict[Place, set[Place]](set), defaultdict[Place, set[str]](set)
    for record in records:
        data[record.typed_place].add(data_of(record))
        typed[data_of(record)].add(record.typed_place[1])
    return [
        record
        if len(data[record.typed_place]) == len(typed[data_of(record)]) == 1
        else replace(record, config={**record.config, "dataset.root": data_of(record)[1]})
        for record in records
    ]


def _same_data(records: Iterable[Record]) -> Callable[[Record], Place]:
    """Record -> one of the places of its data: what shares a place or a fingerprint, or does so by way of others."""
    same: dict[Place | str, Place] = {}

    def find(fact: Place | str) -> Place | str:
        while fact in same:
            fact = same[fact]
        return fact

    def find_place(record: Record) -> Place:
        return cast(Place, find(record.place))

    for record in records:
        place, other = find_place(record), find(record.fingerprint or record.place)
        if place != other:
            same[other] = place
    return find_place


def _setting(group: Sequence[Record], data: object) -> Setting:
    """The seeds of the most folds, and of as many, those that most seeds have; the others' runs are left out."""
    by_seed: dict[int, list[Record]] = defaultdict(list)
    for record in group:
        by_seed[record.summary["seed"]].append(record)
    by_folds: dict[frozenset[tuple[int | None, str]], list[list[Record]]] = defaultdict(list)
    for repeat in by_seed.values():
        by_folds[frozenset((record.fold, record.fingerprint) for record in repeat)].append(repeat)
    kept, *others = sorted(by_folds.values(), key=lambda repeats: (-len(repeats[0]), -len(repeats)))
    return Setting(kept, [record for repeats in others for repeat in repeats for record in repeat], data)
