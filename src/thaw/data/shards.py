"""A data set packed into a few large files: the images as they were encoded, and last a table of them.

LitData writes and reads the files (shards), in a folder or in object storage.
"""

import csv
import hashlib
import json
import os
import warnings
from collections.abc import Iterable, Iterator
from functools import partial
from io import StringIO
from pathlib import Path
from threading import local
from typing import Any, NamedTuple

from thaw.data.images import BadImage
from thaw.data.rows import Row
from thaw.errors import ThawError, first_line

ADDRESSES = ("s3://", "gs://", "r2://")
"""What LitData can read single items of, in object storage."""
INDEX = "index.json"
"""LitData's list of the shards: written last, so that a folder without it is no whole data set."""
COLUMNS = ["path", "label", "split", "bytes", "sha256", "group"]
"""Of the table; the path is as seen from the packed folder, the split empty where it is left to the training. A table
of earlier shards has no column group."""
FOLDER_COLUMNS = ["path", "folder", *COLUMNS[2:]]
"""Those where folders told the labels, which orders numbered classes otherwise: see `sort_classes`."""


class Packed(NamedTuple):
    """Where an image lies in the shards, and what tells it from others."""

    number: int
    size: int
    """Bytes of the encoded image."""
    digest: str
    """The beginning of their SHA-256."""


class Shards:
    """The images of a packed data set: what the table says of them, and their encoded bytes, one image at a time.

    Nothing else is kept, in memory or on disk. From object storage come the bytes of the one image, not its shard.

    Args:
        root: Folder or address that the data set was packed to.
        cache: Folder for LitData's copy of a remote `index.json`.

    Attributes:
        rows: The images, their paths below `root`.
        images: What is known of each by its path.
        by_folder: Whether folders told their labels, before they were packed.

    Raises:
        ThawError: There are no whole shards of `pack`'s at `root`, or LitData is not installed.
    """

    def __init__(self, root: str, cache: Path) -> None:
        self.root = root
        self.cache = cache
        self._own = local()
        if not is_address(root):
            _check_files(Path(root))
        self.rows, self.images, self.by_folder = self._read_table()

    def contents(self, path: Path) -> bytes:
        """The encoded image. Any number of threads and forked processes may ask.

        Raises:
            BadImage: The shards have been rebuilt without it.
        """
        if path not in self.images:
            raise BadImage(path, "it is not in the shards any more")
        return bytes(self._open()[self.images[path].number])

    def _open(self) -> Any:
        """LitData's reader; each thread of each process has its own, as it holds an open file or connection."""
        if getattr(self._own, "process", 0) != os.getpid():
            litdata = import_litdata()
            # Its index names the decoder of the items. Two would run code that is in them; ours have the plain bytes.
            plain = litdata.streaming.serializers.BytesSerializer()
            self._own.reader = litdata.StreamingDataset(
                self.root, str(self.cache), serializers={"pickle": plain, "graph": plain, "bytes": plain}
            )
            self._own.process = os.getpid()
        return self._own.reader

    def _read_table(self) -> tuple[list[Row], dict[Path, Packed], bool]:
        try:
            reader = self._open()
            reader[0]  # LitData reads the index with the first item
            last = reader.cache.get_chunk_intervals()[-1].chunk_end - 1
            text = bytes(reader[last]).decode(errors="surrogateescape")
        except ThawError:
            raise
        except Exception as error:  # LitData raises what its libraries do
            raise ThawError(f"dataset.root={self.root} cannot be read: {first_line(error).rstrip('.')}.") from error
        try:
            lines = csv.reader(StringIO(text, newline=""), strict=True)
            columns = next(lines)
            if columns not in (COLUMNS, FOLDER_COLUMNS, COLUMNS[:-1], FOLDER_COLUMNS[:-1]):
                raise ValueError
            rows, images = [], {}
            for number, (name, label, split, size, digest, *group) in enumerate(lines):
                path = Path(self.root, name)
                rows.append(Row(path, label, split, Path(name).parent.as_posix(), *group))
                images[path] = Packed(number, int(size), digest)
        except (csv.Error, ValueError, StopIteration) as error:
            raise ThawError(
                f"dataset.root={self.root} was not packed by `thaw pack`: its last item is no table of images."
            ) from error
        return rows, images, columns[1] == FOLDER_COLUMNS[1]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_own"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _own=local())


def is_address(root: str) -> bool:
    """True for object storage, False for a folder."""
    return root.startswith(ADDRESSES)


def refuse_shards(folder: Path | str) -> None:
    """Refuse a packed data set where images or folders of them are meant.

    Raises:
        ThawError: It is one, by its looks.
    """
    place = Path(folder)
    if (place / INDEX).is_file() and any(place.glob("chunk-*.bin")):
        raise ThawError(
            f"{place} holds images packed by `thaw pack`, on which dataset=stream dataset.root={place} trains. For "
            "anything else name the folder that they were packed from."
        )


def _check_files(root: Path) -> None:
    """Refuse a folder that is not there, or lacks shards that its index names."""
    if not root.is_dir():
        raise ThawError(f"dataset.root must be a folder or an address that `thaw pack` has written, got {str(root)!r}.")
    if not (root / INDEX).is_file():
        unfinished = any(root.glob("chunk-*.bin"))
        raise ThawError(
            f"dataset.root={root} holds half a data set: `thaw pack` did not end, or not all was copied. Delete and "
            "pack it again."
            if unfinished
            else f"dataset.root={root} holds no packed data set. Make one by `thaw pack FOLDER {root}`; a folder of "
            "images is dataset=folder."
        )
    try:
        shards = {
            root / shard["filename"]: shard["chunk_bytes"] for shard in json.loads((root / INDEX).read_text())["chunks"]
        }
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ThawError(f"dataset.root={root} cannot be read: its {INDEX} is damaged. Pack it again.") from error
    for file, size in shards.items():
        if not file.is_file() or file.stat().st_size < size:
            raise ThawError(f"dataset.root={root} lacks {file.name}, or a part of it. Copy or pack it again.")


# ---- packing


def pack(rows: Iterable[Row], out: str, megabytes: int, by_folder: bool = True) -> None:
    """Write images to shards in the given order, and the table after them.

    Args:
        rows: The images; the `source` of each is the path that the table has.
        out: A new or empty folder, or an address.
        megabytes: Size of a shard; the last is smaller.
        by_folder: Whether folders have told the labels.

    Raises:
        ThawError: `out` cannot be written, or LitData is not installed.
    """
    litdata = import_litdata()
    try:
        if is_address(out):
            # LitData uploads from a process of its own: the only one, as the table has to come last.
            litdata.optimize(
                partial(_items, list(rows), by_folder),
                [0],  # one input, of which all items come
                out,
                chunk_bytes=megabytes * 10**6,
                num_workers=1,
                keep_data_ordered=True,
                reorder_files=False,
                verbose=False,
            )
            return
        writer = litdata.streaming.Cache(out, chunk_bytes=megabytes * 10**6)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of an image that is larger than a shard
            for number, item in enumerate(_items(rows, by_folder)):
                writer[number] = item
            writer.done()
        writer.merge()
    except Exception as error:  # the file system's or the storage's, or whatever LitData raises
        raise ThawError(
            f"{out} cannot be written: {first_line(error).rstrip('.')}. Mend that, delete what is there, pack again."
        ) from error


def _items(rows: Iterable[Row], by_folder: bool, _: int = 0) -> Iterator[bytes]:
    """What the shards hold: each encoded image, then the table."""
    table = StringIO(newline="")
    lines = csv.writer(table)
    lines.writerow(FOLDER_COLUMNS if by_folder else COLUMNS)
    for row in rows:
        contents = row.path.read_bytes()
        digest = hashlib.sha256(contents).hexdigest()[:16]
        lines.writerow([row.source, row.name, row.split, len(contents), digest, row.group])
        yield contents
    yield table.getvalue().encode(errors="surrogateescape")


def import_litdata() -> Any:
    """The package, which is an optional one.

    Raises:
        ThawError: It is not installed.
    """
    try:
        import litdata
        import litdata.streaming.serializers
    except ModuleNotFoundError as error:
        raise ThawError(
            f"dataset=stream and `thaw pack` need the package {error.name}: pip install -e '.[stream]'."
        ) from error
    return litdata
