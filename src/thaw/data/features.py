"""A frozen module's outputs, computed once and kept on disk under a key of everything they depend on."""

import hashlib
import logging
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from thaw.data.cache import cache_folder, file_stamp
from thaw.errors import ThawError
from thaw.writing import drafting

log = logging.getLogger(__name__)

Extract = Callable[[Tensor], Tensor]

DEFAULT_GIGABYTES = 4.0
OWN_NAME = re.compile(r"[0-9a-f]{64}\.safetensors|\.[0-9a-f]{64}\.safetensors\.[0-9a-f]{8}\.part")
"""Names of the files that a store keeps, and of what a kill leaves of one."""


def compute_features(extract: Extract, batches: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    """Features (N, F), on the CPU, of the images in batches of uint8 images (B, 3, S, S) and labels (B,)."""
    return torch.cat([extract(images).cpu() for images, _ in batches])


def hash_tensors(state: Mapping[str, Tensor]) -> str:
    """A hash of a module's tensors, their names included."""
    digest = hashlib.sha256()
    for name, tensor in state.items():
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def make_key(module: str, images: Iterable[Path], *facts: object, stamp: Callable[[Path], str] = file_stamp) -> str:
    """A hash of the module's tensors, the images, the facts and the libraries.

    Args:
        module: `hash_tensors` of its state dict.
        images: The images, in the order of their features.
        facts: Whatever else the features depend on, each with an unambiguous `repr`: transform, precision, device, …
        stamp: Image -> what changes when it does.
    """
    digest = hashlib.sha256(module.encode())
    for path in images:
        digest.update(stamp(path).encode(errors="surrogateescape"))
    digest.update(repr((facts, _versions())).encode())
    return digest.hexdigest()


@cache
def _versions() -> list[str]:
    return [version(package) for package in ("thaw", "torch", "torchvision", "pillow")]


def _bound() -> float:
    """Gigabytes that the cache may take: `$THAW_CACHE_GB`, or 4."""
    text = os.environ.get("THAW_CACHE_GB", str(DEFAULT_GIGABYTES))
    try:
        gigabytes = float(text)
    except ValueError:
        gigabytes = math.nan
    if not 0 <= gigabytes < math.inf:
        raise ThawError(f"The environment's THAW_CACHE_GB must be a number of gigabytes, 0 or more, got {text!r}.")
    return gigabytes


def _is_own(path: Path) -> bool:
    return OWN_NAME.fullmatch(path.name) is not None


class FeatureStore:
    """Features on disk, the oldest leaving when a bound is passed; files of others in the folder stay.

    Args:
        folder: Where; default `$THAW_CACHE`, or `~/.cache/thaw`.
        gigabytes: Bound of their size; default `$THAW_CACHE_GB`, or 4.
    """

    def __init__(self, folder: Path | None = None, gigabytes: float | None = None) -> None:
        self.folder = folder or cache_folder() / "features"
        self.gigabytes = _bound() if gigabytes is None else gigabytes

    def get(self, key: str, compute: Callable[[], Tensor]) -> Tensor:
        """The features under a key; computed and kept if they are not there, or cannot be read."""
        path = self.folder / f"{key}.safetensors"
        try:
            features = load_file(path)["features"]
            with suppress(OSError):  # one that others keep, and that may be read only
                path.touch()
        except Exception:  # absent, or torn by a full disk: both mean to compute them
            features = compute()
            self._write(path, features)
        return features

    def _write(self, path: Path, features: Tensor) -> None:
        """Keep the features; make room first."""
        if features.nbytes > self.gigabytes * 1e9:
            if self.gigabytes:
                log.warning(
                    f"Features of {features.nbytes / 1e9:.3g} GB are not stored, as more than {self.gigabytes:g} GB in "
                    "all are not kept. To have them the next time, raise the environment's THAW_CACHE_GB."
                )
            return
        with suppress(OSError, SafetensorError):  # a cache that cannot be written costs time, not the run
            self.folder.mkdir(parents=True, exist_ok=True)
            self._make_room(features.nbytes)
            with drafting(path) as draft:
                draft.touch()
                mode = draft.stat().st_mode  # what other users may do by the umask, and not by safetensors
                save_file({"features": features.contiguous()}, draft)
                draft.chmod(mode)

    def _make_room(self, needed: int) -> None:
        files = []
        for path in filter(_is_own, self.folder.iterdir()):
            with suppress(FileNotFoundError):  # another process has just renamed it
                files.append((path.stat().st_mtime, path.stat().st_size, path))
        free = self.gigabytes * 1e9 - needed - sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if free >= 0:
                return
            free += size
            path.unlink(missing_ok=True)
