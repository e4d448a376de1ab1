"""Randomness as a function of where it is used, (seed, epoch, image or batch), never of what came before."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def derive_seed(*position: int) -> int:
    """A 64-bit seed that is a fixed function of the position, well mixed (NumPy's SeedSequence)."""
    return int(np.random.SeedSequence((len(position), *position)).generate_state(1, np.uint64)[0])


def reseed(*position: int) -> None:
    """Set torch's default generators, on the CPU and on a GPU that is in use, to the position's own seed.

    `torch.manual_seed` would do the same at twenty times the cost, which counts once per image.
    """
    seed = derive_seed(*position)
    torch.default_generator.manual_seed(seed)
    # Under Lightning, `is_available` looks for the driver each time.
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed(seed)
    if torch.backends.mps.is_available():
        torch.mps.manual_seed(seed)


@contextmanager
def seeded(*position: int) -> Iterator[None]:
    """Inside, torch's default CPU generator is at the position's own seed; afterwards it is where it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive_seed(*position))
        yield
