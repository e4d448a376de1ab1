"""Decoded images in memory: whether they fit, and reading all of them at once."""

import logging
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
from PIL import Image
from torch import Tensor

from thaw.data.images import BadImage, read_image
from thaw.data.index import ImageIndex
from thaw.data.splits import Sample
from thaw.data.transforms import EvaluationTransform

log = logging.getLogger(__name__)

SHARE_OF_FREE_MEMORY = 1 / 4  # that dataset.cache=auto may take


def fits_in_memory(index: ImageIndex, transform: EvaluationTransform) -> bool:
    """True if the decoded images take no more than a share of the free memory; logs the figures."""
    needed = _estimate_bytes(index, transform)
    allowed = psutil.virtual_memory().available * SHARE_OF_FREE_MEMORY
    verdict = "decoded once, kept in memory" if needed <= allowed else "decoded anew in each epoch"
    log.info(f"Images: {verdict} ({needed / 1e9:.2f} GB; dataset.cache=auto allows {allowed / 1e9:.2f} GB)")
    return needed <= allowed


def decode_all(
    splits: Mapping[str, Sequence[Sample]], transform: EvaluationTransform
) -> tuple[dict[Path, Tensor], dict[Path, str]]:
    """Every image by its path, uint8 (3, H, W), and the reasons why some cannot be read.

    Training images are kept as they are, the others after the evaluation transform, which is always the same.
    """

    def decode(split: str, path: Path) -> Tensor | str:
        try:
            image = read_image(path)
        except BadImage as error:
            return error.reason
        return image if split == "train" else transform(image)

    jobs = [(split, sample.path) for split, samples in splits.items() for sample in samples]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(lambda job: decode(*job), jobs))
    images, bad = {}, {}
    for (_, path), result in zip(jobs, results, strict=True):
        if isinstance(result, str):
            bad[path] = result
        else:
            images[path] = result
    return images, bad


def _estimate_bytes(index: ImageIndex, transform: EvaluationTransform, most: int = 256) -> float:
    """Bytes of the decoded training images, by the headers of some files, and of the evaluation crops."""
    train = index.splits.get("train", [])
    pixels = [_count_pixels(sample.path) for sample in train[:: max(1, -(-len(train) // most))]]
    num_eval = sum(len(samples) for split, samples in index.splits.items() if split != "train")
    return 3 * (sum(pixels) / max(1, len(pixels)) * len(train) + num_eval * transform.crop**2)


def _count_pixels(path: Path) -> int:
    try:
        with Image.open(path) as image:
            return image.width * image.height
    except Exception:  # an unreadable file is named when it is decoded
        return 0
