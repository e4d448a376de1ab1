"""Runs side by side: the seeds and folds of one setting pooled, best first, each tested against the best."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from thaw.errors import ThawError
from thaw.inspection.uncertainty import paired_test
from thaw.leaderboard import BEST, NO_ANSWERS, OTHER_IMAGES, Leaderboard, Section, Verdict
from thaw.run import Run, find_runs, find_unfinished
from thaw.settings import Setting, pool, read_record


def compare(folders: Iterable[Path | str]) -> Leaderboard:
    """The leaderboard of all runs in the folders.

    Runs that differ in the seed alone are one setting: its accuracy is their mean. Runs that differ in the fold too are
    one as well: its accuracy is that of all folds' images together. A setting is tested against the best of those with
    the same images, by `paired_test`; p is multiplied by the number of pairs of them, for the best one was picked by
    its result (Bonferroni).

    Args:
        folders: Run folders, or folders of them.

    Raises:
        ThawError: There are no finished runs.
    """
    folders = [Path(folder) for folder in folders]
    for folder in folders:
        if not folder.is_dir():
            raise ThawError(f"{folder} is not a folder. Name run folders, or folders that hold some.")
    runs = _each_once(run.folder for folder in folders for run in find_runs(folder))
    found = [(run, read_record(Run(run))) for run in runs]
    records = [record for _, record in found if record]
    unfinished = _each_once(path for folder in folders for path in find_unfinished(folder))
    if not records:
        also = f" {len(unfinished)} are unfinished." if unfinished else ""
        names = ", ".join(map(str, folders))
        raise ThawError(f"No finished runs in {names}: expected folders with a summary.json of Thaw's.{also}")
    return Leaderboard(_sections(pool(records)), unfinished, [run for run, record in found if not record])


def _each_once(paths: Iterable[Path]) -> list[Path]:
    """The folders without those that an earlier one is the same as."""
    return list({path.resolve(): path for path in reversed(list(paths))}.values())[::-1]


def _sections(settings: Sequence[Setting]) -> list[Section]:
    """The settings by data, split and number of images; the section with the most settings first."""
    ranked = sorted(settings, key=lambda setting: -setting.acc)
    titles = [_title(setting) for setting in ranked]
    sections = []
    for title, _ in Counter(titles).most_common():
        group = [setting for setting, its_title in zip(ranked, titles, strict=True) if its_title == title]
        sections.append(Section(title, group, judge(group)))
    return sections


def _title(setting: Setting) -> str:
    first = setting.records[0]
    classes = len(first.summary["classes"])
    return f"{first.data or 'data'}: {setting.n} images of {classes} classes ({setting.judged_on})"


def judge(ranked: Sequence[Setting]) -> list[Verdict]:
    """What can be said of each setting, best first, against the best one with the same images."""
    images = [setting.answers.images if setting.answers else None for setting in ranked]
    counts = Counter(images)
    best: dict[object, Setting] = {}
    verdicts = []
    for setting, its_images in zip(ranked, images, strict=True):
        if its_images is None:
            is_best = setting is ranked[0]
            verdicts.append(Verdict(BEST if is_best else NO_ANSWERS))
        elif counts[its_images] == 1 and len(ranked) > 1:
            verdicts.append(Verdict(OTHER_IMAGES))
        elif its_images not in best:
            best[its_images] = setting
            verdicts.append(Verdict(BEST))
        else:
            verdicts.append(_test(setting, best[its_images], counts[its_images]))
    return verdicts


def _test(setting: Setting, best: Setting, num_settings: int) -> Verdict:
    own, other = setting.answers, best.answers
    assert own
    assert other
    differences = own.num_right * other.num_repeats - other.num_right * own.num_repeats
    return Verdict(
        p=paired_test(differences),
        num_pairs=num_settings * (num_settings - 1) // 2,
        num_better=int((differences > 0).sum()),
        num_worse=int((differences < 0).sum()),
        is_lower=bool(differences.sum() < 0),
    )
