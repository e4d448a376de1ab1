"""What can be said of each setting against the best one with the same images."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from thaw.comparison.repeats import Setting
from thaw.inspection.uncertainty import paired_test

ALPHA = 0.05
"""Corrected p below which a difference is reported as one."""
OTHER_IMAGES, NO_ANSWERS, BEST = "other images", "no predictions", "best"
"""Why there is no test."""


@dataclass(frozen=True)
class Verdict:
    """What the paired test says of a setting against the best one on the same images."""

    reason: str = ""
    """Instead of a test: why there is none, or that this is the best one; empty of a setting without others."""
    p: float | None = None
    """Two-sided p of `paired_test`."""
    num_pairs: int = 1
    """Pairs of settings on these images: as the best one was picked by its result, each of them might have been."""
    num_better: int = 0
    """Images on which this setting is right more often than the best."""
    num_worse: int = 0
    """Images on which it is right less often."""
    is_more_accurate: bool = False
    """True if this setting is right more often in all, as it may be where the macro-F1 ranks."""

    @property
    def corrected(self) -> float | None:
        """The p times the number of pairs, at most 1 (Bonferroni)."""
        return None if self.p is None else min(1.0, self.p * self.num_pairs)

    @property
    def word(self) -> str:
        """The verdict without its p."""
        if self.corrected is None:
            return self.reason
        if self.corrected >= ALPHA:
            return "undecided"
        return "more accurate" if self.is_more_accurate else "worse"

    def __str__(self) -> str:
        if self.corrected is None:
            return self.word or "–"
        return f"{self.word}, p {f'= {self.corrected:.2g}' if self.corrected >= 0.0001 else '< 0.0001'}"


def judge(ranked: Sequence[Setting], has_others: bool) -> list[Verdict]:
    """What can be said of each setting, against the best one with the same images.

    Args:
        ranked: Settings of one section, best first: with the same images, or each with others.
        has_others: True if there are settings beside them, with other images.
    """
    images = [setting.answers.images if setting.answers else None for setting in ranked]
    counts = Counter(images)
    has_others = has_others or len(counts.keys() - {None}) > 1
    winner = Verdict(BEST if len(ranked) > 1 else "")
    is_tested = any(n > 1 for its_images, n in counts.items() if its_images)
    best: Setting | None = None
    verdicts = []
    for setting, its_images in zip(ranked, images, strict=True):
        is_first = setting is ranked[0]
        if its_images and best:
            verdicts.append(_test(setting, best, counts[its_images]))
        elif its_images and (counts[its_images] > 1 or (is_first and not has_others)):
            best = setting
            verdicts.append(winner)
        elif its_images and has_others:
            verdicts.append(Verdict(OTHER_IMAGES))
        elif is_first and not has_others and not is_tested:
            verdicts.append(winner)
        else:
            verdicts.append(Verdict(NO_ANSWERS))
    return verdicts


def _test(setting: Setting, best: Setting, num_settings: int) -> Verdict:
    own, other = setting.answers, best.answers
    assert own
    assert other
    differences = own.num_right * other.num_repeats - other.num_right * own.num_repeats
    return Verdict(
        p=paired_test(differences, own.groups or other.groups),
        num_pairs=num_settings * (num_settings - 1) // 2,
        num_better=int((differences > 0).sum()),
        num_worse=int((differences < 0).sum()),
        is_more_accurate=bool(differences.sum() > 0),
    )
