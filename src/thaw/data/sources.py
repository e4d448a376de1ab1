"""A data set's name -> a verified folder on disk: found there, or downloaded, checked and unpacked."""

import hashlib
import logging
import os
import shutil
import tarfile
import zipfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from filelock import FileLock

from thaw.data.archives import download, unpack
from thaw.data.places import holds_images, name_place
from thaw.errors import ThawError
from thaw.writing import drafting

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Archive:
    """A published zip or tar file."""

    url: str
    """Its address, http or https; the last part is the file's name."""
    checksum: str | None = None
    """`sha256:…`, `sha1:…` or `md5:…`; None where none is published."""
    size: int | None = None
    """Its bytes, where known."""

    @property
    def name(self) -> str:
        """The file's name."""
        return self.url.rpartition("/")[2]


@dataclass(frozen=True)
class Source:
    """Where a data set comes from."""

    folder: str
    """Name of the data set's folder."""
    holds: tuple[str, ...]
    """What tells that folder, however deep in the archives, from those around it: its own folders."""
    archives: tuple[Archive, ...] = ()
    """The files that are unpacked into one another; none for the digits, which scikit-learn brings along."""


_PETS = "https://www.robots.ox.ac.uk/~vgg/data/pets/data"
_MINDSPORE = "https://mindspore-website.obs.cn-north-4.myhuaweicloud.com/notebook/datasets/intermediate"
_HYMENOPTERA = "sha256:fbc41b31d544714d18dd1230b1e2b455e1557766e13e67f9f5a7a23af7c02209"
_HOTDOG = "sha1:fba480ffa8aa7e0febbb511d181409f899b9baa5"

SOURCES = {
    "hymenoptera": Source(
        "hymenoptera_data",
        ("train", "val"),
        (Archive("https://download.pytorch.org/tutorial/hymenoptera_data.zip", _HYMENOPTERA, 47_286_322),),
    ),
    "hotdog": Source(
        "hotdog", ("train", "test"), (Archive("http://d2l-data.s3-accelerate.amazonaws.com/hotdog.zip", _HOTDOG),)
    ),
    "canidae": Source("Canidae", ("train", "val"), (Archive(f"{_MINDSPORE}/Canidae_data.zip"),)),
    "pets": Source(
        "oxford-iiit-pet",
        ("images", "annotations"),
        (
            Archive(f"{_PETS}/images.tar.gz", "md5:5c4f3ee8e5d25df40f4fd59a7f44e54c", 791_918_971),
            Archive(f"{_PETS}/annotations.tar.gz", "md5:95a8c909bbe2e81eed6a22bccdf3f68f", 19_173_078),
        ),
    ),
    "digits": Source("digits", tuple("0123456789")),
}


def data_folder(name: str, root: Path) -> Path:
    """Where `fetch` finds or makes the data set's folder."""
    return root if name in ("folder", "stream") else root / SOURCES[name].folder


def fetch(name: str, root: Path) -> Path:
    """The folder of the data set's images, made first if it is not there.

    It appears under its name complete or not at all, also if several processes ask for it at once.

    Args:
        name: As in `DatasetConfig.name`.
        root: Folder that holds the data sets' folders and archives; for `folder`, the folder of images itself, and for
            `stream`, what it was packed to.

    Raises:
        ThawError: The folder is missing, or could not be downloaded, verified, unpacked or written; or `root` is
            itself a folder of images.
    """
    if name == "stream":
        return root
    if name == "folder":
        if not root.is_dir():
            raise ThawError(
                f"dataset.root is not a folder: {name_place(root)}. Set it to the folder that holds your images."
            )
        return root
    source = SOURCES[name]
    target, unpacking = data_folder(name, root), root / f".{source.folder}.unpacking"
    try:
        if not target.is_dir():
            if not any((root / archive.name).exists() for archive in source.archives) and holds_images(root):
                made = "downloaded" if source.archives else "written"
                raise ThawError(
                    f"dataset.root={root} holds folders of images: for those say dataset=folder. "
                    f"dataset={name} would be {made} into it."
                )
            root.mkdir(parents=True, exist_ok=True)
            with FileLock(root / f".{source.folder}.lock"):
                if not target.is_dir():  # another process may have made it meanwhile
                    _make(source, target, unpacking)
    except OSError as error:
        raise ThawError(f"dataset.root={root} cannot take the data set '{name}': {error}.") from error
    shutil.rmtree(unpacking, ignore_errors=True)  # left by a process that was killed
    if name == "pets":
        _write_official_csv(target)
    return target


def _make(source: Source, target: Path, unpacking: Path) -> None:
    """Obtain the archives, unpack them aside, and put the folder in its place when it is complete."""
    files = [_obtain(archive, source, target.parent) for archive in source.archives]
    shutil.rmtree(unpacking, ignore_errors=True)
    unpacking.mkdir()
    try:
        for file in files:
            log.info(f"Unpacking {file}.")
            unpack(file, unpacking)
        if not files:
            _write_digits(unpacking)
        folder = _find(source, unpacking)
        for file, archive in zip(files, source.archives, strict=True):
            if archive.checksum is None:  # not before the archive has proved to be whole
                _record_checksum(file)
        folder.rename(target)
    finally:
        shutil.rmtree(unpacking, ignore_errors=True)
    log.info(f"The images are in {target}.")


def _obtain(archive: Archive, source: Source, root: Path) -> Path:
    """The verified archive in `root`: the file that is there already, or else a download."""
    file, part = root / archive.name, root / f"{archive.name}.part"
    if file.exists():
        if fault := _fault(file, archive):  # perhaps a file of the user's own: not ours to delete
            raise ThawError(f"{file} is not {archive.url}: {fault}. Delete it to have it downloaded.")
        return file
    download(archive.url, part, _by_hand(source, root))
    if fault := _fault(part, archive):
        part.unlink()
        raise ThawError(f"{archive.url} sent another file: {fault}. It was removed.{_by_hand(source, root)}")
    return part.replace(file)


def _fault(file: Path, archive: Archive) -> str | None:
    """What tells the file from the published archive; None if nothing does."""
    size = file.stat().st_size
    if archive.size not in (None, size):
        return f"expected {archive.size} bytes, received {size}"
    expected, origin = archive.checksum, ""
    record = _record(file.with_name(archive.name))
    if expected is None and record.exists():
        expected, origin = record.read_text().strip(), f" (from {record}: delete it to accept another)"
    if not expected:
        readable = zipfile.is_zipfile(file) or tarfile.is_tarfile(file)
        return None if readable else "expected a zip or tar archive, received none"
    received = _checksum(file, expected.partition(":")[0])
    return None if received == expected else f"expected {expected}{origin}, received {received}"


def _checksum(file: Path, algorithm: str) -> str:
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, partial(hashlib.new, algorithm, usedforsecurity=False))
    return f"{algorithm}:{digest.hexdigest()}"


def _record(file: Path) -> Path:
    """Where the checksum is kept of an archive that was published without one."""
    return file.with_name(f"{file.name}.sha256")


def _record_checksum(file: Path) -> None:
    checksum = _checksum(file, "sha256")
    _record(file).write_text(f"{checksum}\n")
    log.info(f"{file} is {checksum}. None is published, so it is kept in {_record(file)}.")


def _by_hand(source: Source, root: Path) -> str:
    """What the user can do instead of downloading."""
    lines = (f"  {archive.url}  {archive.checksum or '(no published checksum)'}\n" for archive in source.archives)
    return (
        f"\nDownloaded by hand, it belongs in {root}, or its images in {root / source.folder}:\n{''.join(lines)}"
        "Without network: dataset=digits, or dataset=folder dataset.root=PATH for your own images."
    )


def _find(source: Source, unpacked: Path) -> Path:
    """The data set's folder among the unpacked: the uppermost that holds what it must hold."""
    folders = [Path(folder) for folder, _, _ in os.walk(unpacked)]
    found = [folder for folder in folders if all((folder / name).is_dir() for name in source.holds)]
    if not found:
        names = ", ".join(archive.name for archive in source.archives)
        raise ThawError(f"{names} lacks a folder that holds {' and '.join(source.holds)}.")
    return min(found, key=lambda folder: len(folder.parts))


def _write_digits(folder: Path) -> None:
    """Write scikit-learn's 1,797 handwritten digits as CLASS/NNNN.png: 8x8 grey pixels, 0 to 16 spread to 0 to 255."""
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    for number, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        file = folder / str(label) / f"{number:04}.png"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(np.rint(pixels * (255 / 16)).astype(np.uint8)).save(file)


def _write_official_csv(folder: Path) -> None:
    """Write the pets' official split as official.csv, also into a folder that torchvision has unpacked."""
    official = folder / "official.csv"
    lists = {"train": folder / "annotations" / "trainval.txt", "test": folder / "annotations" / "test.txt"}
    if official.exists() or not all(file.exists() for file in lists.values()):
        return
    rows = ["path,label,split\n"]
    for split, file in lists.items():
        names = [line.split()[0] for line in file.read_text().splitlines() if line.strip()]
        rows += [f"images/{name}.jpg,{name.rpartition('_')[0]},{split}\n" for name in names]
    try:
        with drafting(official) as draft:
            draft.write_text("".join(rows))
    except OSError as error:  # a shared folder that cannot be written to is as good for every other use
        log.info(f"{official} could not be written: {error}.")
