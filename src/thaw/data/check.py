"""A table of images -> its facts in one line, and its probable mistakes."""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from unicodedata import normalize

from thaw.data.classes import name_deeper_folder, name_tables
from thaw.data.copies import find_copies
from thaw.data.finding import Finding
from thaw.data.index import ImageIndex
from thaw.data.rows import Sample
from thaw.data.scan import STRAYS, name_ignored
from thaw.errors import in_list, printable

UNBALANCED = 10
"""A class with so many times the images of another is worth a remark."""


def facts(index: ImageIndex) -> str:
    """Name, splits, class sizes (above eight, the smallest and the largest only) and what is not as on disk, a line."""
    parts = []
    for split, samples in index.splits.items():
        title = "val = test" if split == "val" and index.epoch_chosen_on == "test" else split
        parts.append(f"{title} {len(samples)} ({_class_sizes(index, samples)})")
    line = f"{index.root.resolve().name}: {', '.join(parts)}"
    relabelled = "" if index.num_relabelled is None else f"{index.num_relabelled} relabelled"
    return printable("; ".join(filter(None, (line, relabelled, name_ignored(index.ignored, index.place)))))


def _class_sizes(index: ImageIndex, samples: list[Sample]) -> str:
    counts = Counter(sample.label for sample in samples)
    if len(index.classes) <= 8:
        return ", ".join(f"{in_list(name)} {counts[label]}" for label, name in enumerate(index.classes))
    by_size = sorted(range(len(index.classes)), key=lambda label: counts[label])
    least, most = (f"{counts[label]} of {in_list(index.classes[label])}" for label in (by_size[0], by_size[-1]))
    return f"{len(index.classes)} classes: {least} to {most}"


def find_problems(index: ImageIndex) -> list[Finding]:
    """What is probably wrong with the table: copies, strays, classes and groups, folders, unused splits.

    No image is decoded. Copies are compared byte by byte.
    """
    known = {index.root / name for names in STRAYS.values() for name in names}
    strays = [sample.path for sample in index.samples if sample.path in known]
    what_happens, option = "Images are split at random instead", "dataset.csv_split"
    if "images" in index.splits:  # in an evaluation
        what_happens, option = "All images are judged alike", "--csv-split"
    findings = [
        *find_copies(index),
        *_find_lost_lines(index),
        Finding(
            "Files that belong to no class",
            tuple(map(index.place, strays)),
            "The published archive has them; leave them out.",
            tuple(strays),
            dict.fromkeys(strays, "belongs to no class"),
        ),
        *_find_class_problems(index),
        Finding(
            "Folders without images of a class",
            index.empty_folders,
            paths=tuple(index.root / name for name in index.empty_folders),
        ),
        Finding(
            "Class folders that hold folders",
            index.nested,
            "All images in them are of that one class; for others, list each image with its own in dataset.csv.",
            is_wrong=False,
        ),
        Finding(
            "Misspelt split folders",
            index.misspelt,
            "They are not used as splits: rename them.",
        ),
        Finding(
            "Groups of dataset.csv_group in several splits",
            index.torn_groups,
            "The data's own splits stay as they are, and a score on groups that were trained on misleads.",
        ),
        Finding(
            "Columns that look like a split and are not used",
            index.unused_splits,
            f"{what_happens}: {option}={''.join(index.unused_splits[:1])} goes by it.",
            is_wrong=False,
        ),
    ]
    return [finding for finding in findings if finding.items]


def _find_lost_lines(index: ImageIndex) -> list[Finding]:
    """Lines of the CSV file that tell no image or no class."""
    titles = {
        "missing": "whose image does not exist",
        "without a label": "without a label",
        "repeated": "that repeat an earlier one",
    }
    return [
        Finding(
            f"Lines of the CSV file {title}",
            tuple(map(index.place, index.ignored.get(reason, ()))),
            "dataset.on_bad=skip leaves them out; without it training refuses them.",
            () if reason == "repeated" else index.ignored.get(reason, ()),  # whose image is there
        )
        for reason, title in titles.items()
    ]


def _find_class_problems(index: ImageIndex) -> list[Finding]:
    """What the numbers of images of each class tell."""
    counts = {split: Counter(sample.label for sample in samples) for split, samples in index.splits.items()}
    main = "all" if "all" in counts else "train"  # where the classes are learned
    sizes = counts.get(main, Counter())
    rare = {label for label in sizes if sizes[label] == 1}
    lone = [sample.path for sample in index.splits.get(main, ()) if sample.label in rare]
    places = {"all": "the images of no split", "images": "the images"}
    missing = [
        (split, f"no {name} in {places.get(split, split)}")
        for split, present in counts.items()
        for label, name in enumerate(index.classes)
        if label not in present
    ]
    only = index.classes if len(index.classes) == 1 else ()
    by_size = sorted((size, index.classes[label]) for label, size in sizes.items())
    unbalanced = []
    if by_size:
        (least, smallest), (most, largest) = by_size[0], by_size[-1]
        if most >= UNBALANCED * least:
            unbalanced = [f"{largest} {most} to {smallest} {least}"]
    return [
        Finding(
            "Images of one class only",
            only,
            f"Training needs two classes at least.{_name_deeper(index, only)}",
        ),
        Finding(
            "Class names that differ only in capitals, blanks or encoding",
            _find_like_names(index.classes),
            "Each is a class of its own: give those that are meant as one the same name.",
        ),
        Finding(
            f"Classes with a single {'training image' if main == 'train' else 'image'}",
            tuple(index.classes[label] for label in sorted(rare)),
            paths=tuple(lone),
        ),
        Finding(
            "Classes that are not learned",
            tuple(lack for split, lack in missing if split == main),
            "Training refuses the images of them in other splits.",
        ),
        Finding(
            "Splits that lack a class",
            tuple(lack for split, lack in missing if split != main),
            "It is learned, but not judged there: macro-F1 leaves it out, unless it is predicted.",
        ),
        Finding(
            f"Classes of very different sizes, {UNBALANCED} times or more",
            tuple(unbalanced),
            "Accuracy hides the small ones: see macro-F1 (trainer.monitor=val/macro_f1), and dataset.balance.",
            is_wrong=False,
        ),
    ]


def _find_like_names(classes: Sequence[str]) -> tuple[str, ...]:
    """Names that look alike: one but for capitals, for blanks, hyphens and underscores, or for how é is encoded.

    Single letters may be meant so.
    """
    alike: defaultdict[str, list[str]] = defaultdict(list)
    for name in classes:
        alike[re.sub(r"[\s_-]+", "_", normalize("NFKC", name).strip().casefold())].append(name)
    return tuple(" = ".join(names) for plain, names in alike.items() if len(names) > 1 and len(plain) > 1)


def _name_deeper(index: ImageIndex, only: tuple[str, ...]) -> str:
    """Where the classes may be, if the only one is a folder right below the root."""
    paths = [sample.path for sample in index.samples] if only else []
    in_class_folder = paths and all(index.place(path).startswith(f"{only[0]}/") for path in paths)
    return (name_deeper_folder(paths) if in_class_folder else "") + (name_tables(index.tables) if only else "")
