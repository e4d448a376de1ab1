"""Which edited copies of an image `thaw check` finds, and how alike images that are different are at the most.

    python benchmarks/near_copies.py data/hymenoptera_data

Every fourth image is edited and put among all of them. Prints a Markdown table: the share of the copies that pair with
their image, and the least and the median correlation of such pairs.
"""

import argparse
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from thaw.config import DatasetConfig
from thaw.data.examine import make_thumbnail
from thaw.data.images import convert_image, read_image
from thaw.data.index import survey
from thaw.data.near_copies import LEAST_CORRELATION, find_pairs, to_vectors


def compress(image: Image.Image, quality: int) -> Image.Image:
    """The image after JPEG."""
    file = BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file)


def crop(image: Image.Image, share: float) -> Image.Image:
    """The image without that share of each side."""
    x, y = int(image.width * share), int(image.height * share)
    return image.crop((x, y, image.width - x, image.height - y))


EDITS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG of quality 30": lambda image: compress(image, 30),
    "a third as large, JPEG of quality 50": lambda image: compress(
        image.resize((image.width // 3, image.height // 3)), 50
    ),
    "stretched to 256 x 256": lambda image: image.resize((256, 256)),
    "30 % brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.3),
    "30 % less contrast": lambda image: ImageEnhance.Contrast(image).enhance(0.7),
    "cropped by 1 % on each side": lambda image: crop(image, 0.01),
    "cropped by 2.5 % on each side": lambda image: crop(image, 0.025),
    "cropped by 5 % on each side": lambda image: crop(image, 0.05),
    "turned by 2 degrees": lambda image: image.rotate(2),
    "mirrored": ImageOps.mirror,
    "grey": ImageOps.grayscale,
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="of images")
    paths = [sample.path for sample in survey(parser.parse_args().folder, DatasetConfig()).samples]
    originals = [make_thumbnail(read_image(path)) for path in paths]
    chosen = range(0, len(paths), 4)
    vectors = to_vectors(np.stack(originals))
    likeness = np.triu(vectors @ vectors.T, 1)
    print(f"{len(paths)} images, {len(find_pairs(vectors))} pairs; most alike by {likeness.max():.3f}\n")
    print(f"| copy | found (above {LEAST_CORRELATION}) | least | median | n |\n|---|---|---|---|---|")
    for name, edit in EDITS.items():
        copies = [make_thumbnail(convert_image(edit(Image.open(paths[index]).convert("RGB")))) for index in chosen]
        together = np.stack([*originals, *copies])
        vectors = to_vectors(together)
        pairs = set(find_pairs(vectors))
        twins = [(index, len(originals) + number) for number, index in enumerate(chosen)]
        values = [float(vectors[one] @ vectors[other]) for one, other in twins]
        found = sum(twin in pairs for twin in twins) / len(twins)
        print(f"| {name} | {found:.0%} | {min(values):.3f} | {np.median(values):.3f} | {len(twins)} |")


if __name__ == "__main__":
    main()
