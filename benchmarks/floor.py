"""The least time that a training can take here: each image decoded once, each product at the machine's best rate."""

import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import get_model

from thaw.data.images import read_image
from thaw.data.inputs import list_images
from thaw.data.threads import in_threads

DECODED_SIDE = 512  # of the default image size
DTYPES = {"bf16": torch.bfloat16, "float32": torch.float32}


class Floor:
    """What this machine cannot go below on a data set.

    Args:
        root: Folder of {train,val}/CLASS/IMAGE.

    Attributes:
        decoding: Seconds to decode all images once, on all cores.
        rate: FLOP/s of a large matrix product on the CPU, in the faster of bf16 and float32.
    """

    def __init__(self, root: Path) -> None:
        splits = [list_images([str(root / split)]) for split in ("train", "val")]
        self.counts = [len(images) for images in splits]
        self.decoding = decoding_seconds([image for images in splits for image in images])
        self.rate, self.precision = max((matrix_rate(dtype), name) for name, dtype in DTYPES.items())

    def __str__(self) -> str:
        return f"Floor: decoding {self.decoding:.2f} s, {self.precision} matrix product {self.rate / 1e9:.0f} GFLOP/s."

    def seconds(self, backbone: str, passes: Sequence[float]) -> float:
        """Seconds for so many forward passes of each image of train and of val, and for decoding them once."""
        images = sum(count * number for count, number in zip(self.counts, passes, strict=True))
        return self.decoding + images * forward_flops(backbone) / self.rate


def decoding_seconds(paths: Sequence[Path]) -> float:
    """Seconds to decode the files once, on all cores."""
    started = time.perf_counter()
    for _ in in_threads(lambda path: read_image(path, DECODED_SIDE), paths):
        pass
    return time.perf_counter() - started


def matrix_rate(dtype: torch.dtype, seconds: float = 2.0) -> float:
    """FLOP/s of a square matrix product on the CPU, the best of larger and larger ones while there is time."""
    rates, ends = [], time.perf_counter() + seconds
    side = 256  # a CPU without bf16 computes it one by one
    while time.perf_counter() < ends:
        left, right = (torch.randn(side, side).to(dtype) for _ in range(2))
        started = time.perf_counter()
        left @ right
        rates.append(2 * side**3 / (time.perf_counter() - started))
        side = min(2 * side, 4096)
    return max(rates)


@cache
def forward_flops(backbone: str, side: int = 224) -> int:
    """FLOP of one image's forward pass, a product and its sum counted as two."""
    model = get_model(backbone).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, side, side))
    return int(counter.get_total_flops())
