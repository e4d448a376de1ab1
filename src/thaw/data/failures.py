"""Translates data-loading failures into ThawErrors."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from thaw.data.datamodule import ImageDataModule
from thaw.errors import ThawError


@contextmanager
def loading(data: ImageDataModule) -> Iterator[None]:
    """Inside, failures of loader processes and lack of memory are raised as ThawErrors.

    Raises:
        ThawError: An image cannot be read; the process has been ended, or has no room for a batch; or memory is out.
    """
    try:
        yield
    except RuntimeError as error:
        if "iter(combined_loader)" in str(error) and isinstance(error.__context__, ThawError):
            raise error.__context__ from error  # it could not begin, over which Lightning stumbles
        lines = str(error).strip().splitlines() or [""]  # the last ends the loader process's own traceback
        if "Caught BadImage" in lines[0]:
            remedy = f"`thaw check {data.index.root} --fix` lists all such files."
            reason = lines[-1].rpartition("BadImage: ")[2]
            raise ThawError(f"{reason} {'Its shard is damaged.' if data.index.shards else remedy}") from error
        if "DataLoader worker" in lines[0] and ("Caught" not in lines[0] or "</torch_" in lines[-1]):
            raise ThawError(
                f"A loader process failed ({lines[-1].rstrip('.')}): memory, or room in /dev/shm, may be short. Free "
                "some, or load without such processes by dataset.num_workers=0."
            ) from error
        if lines[0].startswith("Too many open files"):
            raise ThawError(
                "Too many open files for loader processes: allow more (ulimit -n), or load without such processes by "
                "dataset.num_workers=0."
            ) from error
        if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):
            half = max(data.options.batch_size // 2, 1)
            raise ThawError(
                f"Out of memory with dataset.batch_size={data.options.batch_size}. Try dataset.batch_size={half} "
                "trainer.accumulate=2, a smaller dataset.image_size, or strategy=frozen."
            ) from error
        raise
