"""Images that look the same though their files differ: resized, recompressed, brightened, or cropped a little."""

from collections.abc import Sequence
from itertools import chain
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thaw.data.copies import Copies, keep_first, number_of_labels, number_of_splits
from thaw.data.examine import ImageFile
from thaw.data.finding import Finding
from thaw.data.index import ImageIndex

LEAST_CORRELATION = 0.97
"""Of two thumbnails that look the same."""
LEAST_CONTRAST = 2.0
"""Standard deviation of a channel over a thumbnail, of 255, below which an image is blank, and like any blank one."""
NUM_COMPONENTS = 12
"""Principal components among which an image's neighbours are looked for, as in 768 dimensions that takes too long."""
NUM_NEIGHBOURS = 10
"""Of an image; what has more copies hangs together by them."""
MOST_IMAGES = 100_000
"""The time grows with the square of their number: seconds for 40,000, about a minute for these."""
FEW = 10
"""Images of which the mean is no background, but themselves."""
MOST_NAMED = 6
"""Files of a group."""


def find_near_copies(index: ImageIndex, files: Sequence[ImageFile], is_wrong: bool) -> list[Finding]:
    """At most one finding: groups of images that look the same.

    Copies that are mirrored, rotated or cropped further are not found, nor are those of a picture that most images are
    copies of: see `to_vectors`.

    Args:
        index: The images.
        files: What they turned out to be, as `examine` gives it, without those that are left out for other reasons: of
            files that are the same byte for byte, all but one.
        is_wrong: Whether such images count as copies; without it they are a hint.
    """
    thumbnails = {file.path: file.thumbnail for file in files if file.thumbnail is not None}
    entries = [
        (split, sample)
        for split, samples in index.splits.items()
        for sample in samples
        if sample.path in thumbnails and _contrast(thumbnails[sample.path]) >= LEAST_CONTRAST
    ]
    if len(entries) > MOST_IMAGES:
        title, advice = "Images not searched for others that look the same", f"There are more than {MOST_IMAGES:,}."
        return [Finding(title, (f"all {len(entries):,}",), advice, is_wrong=False)]
    if len(entries) < 2:
        return []
    vectors = to_vectors(np.stack([thumbnails[sample.path] for _, sample in entries]))
    images = connect(find_pairs(vectors))
    if not images:
        return []
    groups = [[entries[image] for image in group] for group in images]
    leave_out: dict[Path, str] = {}
    for numbers, group in zip(images, groups, strict=True) if is_wrong else ():
        leave_out |= _superfluous(index, group, vectors[numbers])
    counts = {"in two splits": number_of_splits, "with two labels": number_of_labels}
    advice = "Look at what is left out." if is_wrong else "Look at them; --near counts them as copies."
    told = [f"{n} {what}" for what, number in counts.items() if (n := sum(number(group) > 1 for group in groups))]
    return [
        Finding(
            "Groups of images that look the same",
            tuple(_equation(index, group) for group in groups),
            " ".join([*([f"{', '.join(told)}."] if told else []), advice]),
            tuple(sample.path for group in groups for _, sample in group),
            leave_out,
            is_wrong,
        )
    ]


def _superfluous(index: ImageIndex, group: Copies, vectors: NDArray[np.float32]) -> dict[Path, str]:
    """Images of a group that look the same as one that is kept, or as one with another label, each with that reason.

    In a group that hangs together by pairs, as the frames of a film do, others may look quite different: they stay.

    Args:
        index: The images.
        group: Some of them.
        vectors: Theirs (N, D).
    """
    order = sorted(range(len(group)), key=lambda number: keep_first(group[number]))
    samples, vectors = [group[number][1] for number in order], vectors[order]
    labels = np.array([sample.label for sample in samples])
    is_kept = np.zeros(len(samples), dtype=bool)
    leave_out: dict[Path, str] = {}
    for number, sample in enumerate(samples):
        is_alike = vectors @ vectors[number] >= LEAST_CORRELATION
        is_contrary = is_alike & (labels != sample.label)
        if is_contrary.any():
            other = samples[is_contrary.argmax()]
            label = index.classes[other.label]
            leave_out[sample.path] = f"looks the same as {index.place(other.path)}, labelled {label}"
        elif (is_alike & is_kept).any():
            leave_out[sample.path] = f"looks the same as {index.place(samples[(is_alike & is_kept).argmax()].path)}"
        else:
            is_kept[number] = True
    return leave_out


def find_pairs(vectors: NDArray[np.float32]) -> list[tuple[int, int]]:
    """Pairs of images whose vectors (N, D), as `to_vectors` gives them, correlate: each with its nearest ones.

    On ants and bees different images correlate by 0.81 at most. An image and its copy, scaled to a third, compressed at
    quality 30, brightened by 30 % or cropped by 1 % on each side, do by more than 0.97 in 96 % of the cases at least;
    of copies cropped by 2.5 % half are found (`benchmarks/near_copies.py`).
    """
    from scipy.spatial import KDTree  # takes a while to import

    _, components = np.linalg.eigh(vectors.T @ vectors)  # rising
    points = vectors @ components[:, -NUM_COMPONENTS:]  # no farther from one another than the vectors
    radius = sqrt(2 * (1 - LEAST_CORRELATION))
    found = KDTree(points).query(points, NUM_NEIGHBOURS + 1, distance_upper_bound=radius, workers=-1)[1]
    neighbours = np.asarray(found)
    one, rank = np.nonzero(neighbours < len(points))  # what is missing has the number of images
    pairs = {(min(pair), max(pair)) for pair in zip(one.tolist(), neighbours[one, rank].tolist(), strict=True)}
    return sorted(
        pair for pair in pairs if pair[0] != pair[1] and vectors[pair[0]] @ vectors[pair[1]] >= LEAST_CORRELATION
    )


def to_vectors(thumbnails: NDArray[np.floating]) -> NDArray[np.float32]:
    """Vectors (N, D) of length 1, whose products are correlations without what all images have in common.

    Taken off is each channel's mean, which tells brightness, and the mean over all images, as a white background. If
    half of the images are copies of one, that one is what they have in common, and little but noise is left of it.

    Args:
        thumbnails: Colours (N, 3, S, S) of N images, none of them blank.
    """
    vectors = thumbnails.astype(np.float32)
    vectors -= vectors.mean(axis=(2, 3), keepdims=True)
    vectors = _unit(vectors.reshape(len(vectors), -1))
    return vectors if len(vectors) <= FEW else _unit(vectors - vectors.mean(axis=0))


def connect(pairs: Sequence[tuple[int, int]]) -> list[list[int]]:
    """The groups of images that hang together by pairs."""
    from scipy.cluster.hierarchy import DisjointSet

    groups: Any = DisjointSet(chain.from_iterable(pairs))
    for pair in pairs:
        groups.merge(*pair)
    return sorted(sorted(group) for group in groups.subsets())


def _equation(index: ImageIndex, group: Copies) -> str:
    """`train/ants/1.jpg ~ val/ants/2.jpg`."""
    names = [index.place(sample.path) for _, sample in group[:MOST_NAMED]]
    others = [f"{len(group) - MOST_NAMED} more"] if len(group) > MOST_NAMED else []
    return " ~ ".join([*names, *others])


def _contrast(thumbnail: NDArray[np.float16]) -> float:
    """Standard deviation over the thumbnail, of the channel that differs most."""
    return float(thumbnail.std(axis=(1, 2), dtype=np.float32).max())


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    units: NDArray[np.float32] = vectors / np.maximum(lengths, np.finfo(np.float32).eps)
    return units
