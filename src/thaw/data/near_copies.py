"""Images that look the same though their files differ: resized, recompressed, brightened, or cropped a little."""

import filecmp
from collections.abc import Sequence
from itertools import chain
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thaw.data.copies import Copies, number_of_labels, number_of_splits, superfluous
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
MOST_NAMED = 6
"""Files of a group."""


def find_near_copies(index: ImageIndex, files: Sequence[ImageFile], is_wrong: bool) -> list[Finding]:
    """At most one finding: groups of images that look the same and are not so byte for byte.

    Copies that are mirrored, rotated or cropped further are not found.

    Args:
        index: The images.
        files: What they turned out to be, as `examine` gives it.
        is_wrong: Whether such images count as copies, of which one is kept; without it they are a hint.
    """
    thumbnails = {file.path: file.thumbnail for file in files if file.thumbnail is not None}
    entries = [
        (split, sample)
        for split, samples in index.splits.items()
        for sample in samples
        if sample.path in thumbnails and _contrast(thumbnails[sample.path]) >= LEAST_CONTRAST
    ]
    if len(entries) < 2:
        return []
    pairs = [
        (one, other)
        for one, other in find_pairs(np.stack([thumbnails[sample.path] for _, sample in entries]))
        if not filecmp.cmp(entries[one][1].path, entries[other][1].path, shallow=False)
    ]
    groups = [[entries[image] for image in group] for group in connect(pairs)]
    if not groups:
        return []
    counts = {"in two splits": number_of_splits, "with two labels": number_of_labels}
    told = [f"{n} {what}" for what, number in counts.items() if (n := sum(number(group) > 1 for group in groups))]
    advice = "of each group one is kept, of those with two labels none" if is_wrong else "--near counts them as copies"
    return [
        Finding(
            "Groups of images that look the same",
            tuple(_equation(index, group) for group in groups),
            f"{', '.join(told).capitalize()}{'. ' * bool(told)}Look at them; {advice}.",
            tuple(sample.path for group in groups for _, sample in group),
            {
                path: reason
                for group in groups
                if is_wrong
                for path, reason in superfluous(index, group, "looks the same as").items()
            },
            is_wrong,
        )
    ]


def find_pairs(thumbnails: NDArray[np.floating]) -> list[tuple[int, int]]:
    """Pairs of images whose thumbnails correlate, without what all of them have in common, as a white background.

    On ants and bees different images correlate by 0.81 at most. An image and its copy, scaled to a third, compressed at
    quality 30, brightened by 30 % or cropped by 1 % on each side, do by more than 0.97 in 96 % of the cases at least;
    of copies cropped by 2.5 % half are found (`benchmarks/near_copies.py`).

    Args:
        thumbnails: Colours (N, 3, S, S) of N images, none of them blank.
    """
    from scipy.spatial import KDTree  # takes a while to import

    vectors = to_vectors(thumbnails)
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
    """Vectors (N, D) of length 1, whose products are correlations: see `find_pairs`."""
    vectors = thumbnails.astype(np.float32)
    vectors -= vectors.mean(axis=(2, 3), keepdims=True)
    vectors = _unit(vectors.reshape(len(vectors), -1))
    return _unit(vectors - vectors.mean(axis=0))


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
