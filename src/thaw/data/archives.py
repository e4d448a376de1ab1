"""An address -> a file, resumed where it was cut; an archive -> a folder, nothing outside it."""

import logging
import stat
import sys
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from http.client import HTTPException, HTTPResponse
from lzma import LZMAError
from pathlib import Path, PureWindowsPath
from ssl import SSLError
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from thaw.errors import ThawError

log = logging.getLogger(__name__)

TIMEOUT = 30.0
"""Seconds without a byte after which a connection counts as cut."""
PAUSES = (1.0, 2.0, 4.0)
"""Seconds to wait before each further attempt at a download that was cut."""
MAX_RATIO, MAX_BYTES = 20, 10**9
"""An archive that unpacks to more than this many times its size, and to more than this many bytes, is refused."""
BLOCK = 4096
"""Bytes that the smallest file or folder takes on a disk."""


def download(url: str, part: Path, by_hand: str) -> None:
    """Complete the partial file, in several attempts if the connection is cut.

    Raises:
        ThawError: It cannot be done; the message ends with `by_hand`, what the user can do instead.
    """
    log.info(f"Downloading {url} to {part.parent}.")
    failure: Exception | None = None
    for pause in (0, *PAUSES):
        time.sleep(pause)
        try:
            return _receive(url, part)
        except HTTPError as error:
            failure = error
            if error.code < 500:  # the server's final word
                break
        except (URLError, HTTPException, ConnectionError, TimeoutError, SSLError) as error:
            is_offline = failure is None and isinstance(error, URLError)  # it was never reached
            failure = error
            if is_offline:
                break
    reason = failure.reason if type(failure) is URLError else failure
    kept = f" {part} is kept: run again to go on from there." if part.exists() else ""
    raise ThawError(f"{url} could not be downloaded: {reason}.{kept}{by_hand}") from failure


def _receive(url: str, part: Path) -> None:
    """Append the missing rest to the partial file, or write it again if the server sends only the whole.

    Raises:
        URLError: The server was not reached or, as HTTPError, refused.
        HTTPException, ConnectionError, TimeoutError, SSLError: The connection was cut.
    """
    have = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "thaw"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        response = urlopen(Request(url, headers=headers), timeout=TIMEOUT)
    except HTTPError as error:
        error.close()
        if error.code != 416:
            raise
        if error.headers["Content-Range"] == f"bytes */{have}":
            return  # nothing is lacking
        part.unlink(missing_ok=True)
        raise ConnectionError(f"{part} was no part of it") from error
    with response:
        if not response.url.startswith(("http://", "https://")):
            raise ThawError(f"{url} must lead to an http or https address, got {response.url}.")
        resumed = (response.headers["Content-Range"] or "").startswith(f"bytes {have}-")
        _save(response, part, have if resumed else 0)


def _save(response: HTTPResponse, part: Path, have: int) -> None:
    """Write what comes after the first `have` bytes, with a progress bar where the output is a terminal."""
    total = None if response.length is None else have + response.length
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    progress = Progress(*columns, TimeRemainingColumn(), disable=not sys.stdout.isatty())
    with part.open("ab" if have else "wb") as file, progress:
        task = progress.add_task(part.stem, total=total, completed=have)
        while chunk := response.read1(2**16):
            have += file.write(chunk)
            progress.update(task, completed=have)
    if total is not None and have < total:
        raise ConnectionError(f"the connection was cut after {have} of {total} bytes")


def unpack(file: Path, into: Path) -> None:
    """Unpack the archive into the folder.

    Raises:
        ThawError: It is damaged, or has an entry that does not belong in an archive of images.
    """
    room = limit = max(MAX_BYTES, MAX_RATIO * file.stat().st_size)
    try:
        for name, size, plain, extract in _entries(file):
            path = PureWindowsPath(name)  # knows `/`, `\` and drive letters
            room -= max(size, BLOCK)
            if path.anchor or ".." in path.parts:
                raise ThawError(f"{file} is not safe to unpack: {name!r} lies outside its folder.")
            if not plain:
                raise ThawError(f"{file} is not safe to unpack: {name!r} is neither a file nor a folder.")
            if room < 0:
                raise ThawError(f"{file} is not safe to unpack: with {name!r} it exceeds {limit:,} bytes.")
            extract(into)
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, LZMAError, EOFError, RuntimeError, OSError) as error:
        if isinstance(error, OSError) and error.errno:  # the disk's; a library's has no number
            raise
        raise ThawError(f"{file} cannot be unpacked: {error}. Delete it to have it downloaded anew.") from error


def _entries(file: Path) -> Iterator[tuple[str, int, bool, Callable[[Path], object]]]:
    """Each entry's name, bytes, whether it is a plain file or folder, and what extracts it."""
    if file.suffix == ".zip":
        with zipfile.ZipFile(file) as archive:
            for entry in archive.infolist():
                kind = stat.S_IFMT(entry.external_attr >> 16)  # 0 in an archive made on Windows
                plain = kind in (0, stat.S_IFREG, stat.S_IFDIR)
                yield entry.filename, entry.file_size, plain, partial(archive.extract, entry)
    else:
        with tarfile.open(file) as tar:
            for member in tar:
                plain = member.isfile() or member.isdir()
                yield member.name, member.size, plain, partial(tar.extract, member, filter="data")
