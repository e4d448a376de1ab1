"""Runs side by side: the seeds and folds of one setting pooled, best first, each tested against the best."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from thaw.comparison.leaderboard import OVERLAPPING, Leaderboard
from thaw.comparison.records import Record, read_record
from thaw.comparison.repeats import Setting, pool, rank, root_in_full
from thaw.comparison.runs import find_runs, find_unfinished
from thaw.comparison.section import Section
from thaw.comparison.verdicts import judge
from thaw.errors import ThawError
from thaw.run import Run


def compare(folders: Iterable[Path | str]) -> Leaderboard:
    """The leaderboard of all runs in the folders.

    Runs that differ in the seed alone are one setting: its accuracy is their mean. A seed counts once, by its last run,
    however often it was trained or copied: it gives the same again. Runs that differ in the fold too are one as well:
    its accuracy is that of all folds' images together, and a seed that lacks some of another's folds is left out, as is
    one whose folds have images in common. What stands behind ± is the accuracy's standard deviation over the seeds, or,
    of one seed, over its folds. A setting is tested against the best of those with the same images, by `paired_test`; p
    is multiplied by the number of pairs of them, for the best one was picked by its result (Bonferroni). Settings are
    ranked by accuracy, then those first that no search has stopped early, then by macro-F1, then by loss; by macro-F1
    before all else where it was `trainer.monitor` in all of them.

    Args:
        folders: Run folders, or folders of them.

    Raises:
        ThawError: There are no finished runs, or none that count.
    """
    places = [Run(folder).folder for folder in folders]
    for folder in places:
        if not folder.is_dir():
            raise ThawError(f"{folder} is not a folder. Name run folders, or folders that hold some.")
    runs = _each_once(run.folder for folder in places for run in find_runs(folder))
    found = [(run, read_record(Run(run))) for run in runs]
    records, superseded = _latest(root_in_full([record for _, record in found if record]))
    unfinished = _each_once(path for folder in places for path in find_unfinished(folder))
    names = ", ".join(map(str, places))
    if not records:
        also = f" {len(unfinished)} are unfinished." if unfinished else ""
        raise ThawError(f"No finished runs in {names}: expected folders with a summary.json of Thaw's.{also}")
    records, overlapping = _disjoint(records)
    if not records:
        raise ThawError(f"All runs in {names} are {OVERLAPPING}: train them again.")
    unreadable = [run for run, record in found if not record]
    return Leaderboard(_sections(pool(records)), unfinished, unreadable, superseded, overlapping)


def _each_once(paths: Iterable[Path]) -> list[Path]:
    """The folders without those that an earlier one is the same as."""
    return list({path.resolve(): path for path in reversed(list(paths))}.values())[::-1]


def _latest(records: Iterable[Record]) -> tuple[list[Record], list[Path]]:
    """The last record of each setting, seed and fold, and the folders of those before it."""
    latest: dict[object, Record] = {}
    superseded = []
    for record in records:
        key = record.setting, record.summary["seed"], record.fold
        if key in latest:
            earlier, record = sorted((latest[key], record), key=_finished_at)
            superseded.append(earlier.run.folder)
        latest[key] = record
    return list(latest.values()), superseded


def _finished_at(record: Record) -> float:
    """When its summary was written."""
    return record.run.summary_json.stat().st_mtime


def _disjoint(records: Iterable[Record]) -> tuple[list[Record], list[Path]]:
    """The records without those of folds that have an image in common, and the folders of these."""
    repeats: dict[object, list[Record]] = defaultdict(list)
    for record in records:
        repeats[record.setting, record.summary["seed"]].append(record)
    kept, overlapping = list[Record](), list[Record]()
    for repeat in repeats.values():
        images = [path for record in repeat for path, _ in record.answers] if len(repeat) > 1 else []
        (overlapping if len({*images}) < len(images) else kept).extend(repeat)
    return kept, [record.run.folder for record in overlapping]


def _sections(settings: Sequence[Setting]) -> list[Section]:
    """The settings by data, split and images; the section with the most settings first."""
    ranked = sorted(settings, key=lambda setting: setting.merit, reverse=True)
    titles = [_title(setting) for setting in ranked]
    sections = []
    for title, _ in Counter(titles).most_common():
        group = [setting for setting, its_title in zip(ranked, titles, strict=True) if its_title == title]
        parts = [rank(part) for part in _by_images(group)]
        for number, part in enumerate(parts, 1):
            name = f"{title}, image set {number} of {len(parts)}" if len(parts) > 1 else title
            sections.append(Section(name, part, judge(part, has_others=len(part) < len(ranked))))
    return sections


def _by_images(settings: Sequence[Setting]) -> list[list[Setting]]:
    """The settings by the images that they are judged on, the most first; all in one where no two share theirs."""
    images = [setting.answers.images if setting.answers else None for setting in settings]
    counts = Counter(filter(None, images))
    if len(counts) < 2 or max(counts.values()) == 1:
        return [list(settings)]
    parts: dict[object, list[Setting]] = {}
    for setting, its_images in zip(settings, images, strict=True):
        parts.setdefault(its_images, []).append(setting)
    return sorted(parts.values(), key=len, reverse=True)


def _title(setting: Setting) -> str:
    first = setting.records[0]
    classes = len(first.summary["classes"])
    return f"{first.data or 'data'}: {setting.n} images of {classes} classes ({setting.judged_on})"
