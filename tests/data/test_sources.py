import hashlib
import io
import logging
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from thaw.config import DatasetConfig
from thaw.data import archives, sources
from thaw.data.places import locate
from thaw.data.sources import Archive, Source, fetch
from thaw.errors import ThawError

IMAGES = {
    f"hotdog/{split}/{label}/{number}.png": os.urandom(2000)
    for split in ("train", "test")
    for label in ("hotdog", "not-hotdog")
    for number in range(8)
}


@dataclass
class Server:
    """A web server on this machine with faults to switch on."""

    address: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    requests: list[str | None] = field(default_factory=list)  # the Range of each request
    sent: int = 0  # bytes of the bodies
    ranges: bool = True  # answers Range
    names_length_in_416: bool = True
    chunked: bool = False
    status: list[int] = field(default_factory=list)  # of the next answers, instead of the file
    cut_after: list[int] = field(default_factory=list)  # bytes of the next answers' bodies after which they are cut …
    stall: bool = False  # … or rather never go on
    delay: float = 0.0  # seconds before each answer
    redirect: str | None = None
    closed: threading.Event = field(default_factory=threading.Event)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: Server

    def do_GET(self) -> None:
        state, wanted = self.state, self.headers["Range"]
        state.requests.append(wanted)
        self.close_connection = True
        time.sleep(state.delay)
        if state.redirect:
            self._answer(302, Location=state.redirect)
        elif state.status or self.path not in state.files:
            self._answer(state.status.pop(0) if state.status else 404)
        else:
            start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and state.ranges else 0
            self._answer_with_file(state.files[self.path], start)

    def _answer_with_file(self, body: bytes, start: int) -> None:
        size = len(body)
        if start >= size:
            content_range = {"Content-Range": f"bytes */{size}"} if self.state.names_length_in_416 else {}
            self._answer(416, **content_range)
            return
        length = {"Transfer-Encoding": "chunked"} if self.state.chunked else {"Content-Length": f"{size - start}"}
        if start:
            self._answer(206, **length, **{"Content-Range": f"bytes {start}-{size - 1}/{size}"})
        else:
            self._answer(200, **length)
        self._send(body[start:])

    def _answer(self, status: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _send(self, body: bytes) -> None:
        cut = self.state.cut_after.pop(0) if self.state.cut_after else None
        part = body[:cut]
        if self.state.chunked:
            self.wfile.write(f"{len(body):x}\r\n".encode())
        self.wfile.write(part)
        if self.state.chunked and cut is None:
            self.wfile.write(b"\r\n0\r\n\r\n")
        self.state.sent += len(part)
        if cut is not None and self.state.stall:
            self.wfile.flush()
            if not self.state.closed.wait(10):
                self.wfile.write(body[cut:])

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(archives, "PAUSES", (0, 0, 0))
    monkeypatch.setattr(archives, "TIMEOUT", 5)
    state = Server()
    web = ThreadingHTTPServer(("127.0.0.1", 0), type("BoundHandler", (Handler,), {"state": state}))
    state.address = f"http://127.0.0.1:{web.server_port}"
    thread = threading.Thread(target=web.serve_forever, args=(0.01,))
    thread.start()
    yield state
    state.closed.set()
    web.shutdown()
    thread.join()
    web.server_close()


Publish = Callable[..., Archive]


@pytest.fixture
def publish(server: Server, monkeypatch: pytest.MonkeyPatch) -> Publish:
    """Put an archive on the server and into the table of sources."""

    def publish(
        body: bytes, name: str = "hotdog", file: str = "hotdog.zip", checksum: str | None = "", size: int | None = None
    ) -> Archive:
        server.files[f"/{file}"] = body
        known = f"sha1:{hashlib.sha1(body).hexdigest()}" if checksum == "" else checksum
        archive = Archive(f"{server.address}/{file}", known, size)
        source = sources.SOURCES[name]
        monkeypatch.setitem(sources.SOURCES, name, Source(source.folder, source.holds, (archive,)))
        return archive

    return publish


def zipped(files: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", compression) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return content.getvalue()


def tarred(files: dict[str, bytes], *others: tarfile.TarInfo) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
        for entry in others:
            archive.addfile(entry)
    return content.getvalue()


def read(root: Path, folder: str = "hotdog") -> dict[str, bytes]:
    files = sorted(path for path in (root / folder).rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


def touch(root: Path, *files: str) -> None:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()


def names(root: Path) -> set[str]:
    return {path.name for path in root.iterdir() if not path.name.endswith(".lock")}


ZIP = zipped(IMAGES)


# Where nothing is fetched


def test_folder_is_the_root_itself(tmp_path: Path) -> None:
    assert fetch("folder", tmp_path) == tmp_path
    assert list(tmp_path.iterdir()) == []


def test_missing_folder_names_the_key(tmp_path: Path) -> None:
    with pytest.raises(ThawError, match=rf"dataset\.root is not a folder: {re.escape(str(tmp_path / 'none'))}"):
        fetch("folder", tmp_path / "none")


def test_a_missing_folder_is_told_as_seen_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ThawError, match=rf"not a folder: photos, as seen from {re.escape(str(tmp_path))}\. Set it"):
        fetch("folder", Path("photos"))


def test_folder_that_is_there_is_used_without_network_or_writing(
    tmp_path: Path, publish: Publish, server: Server
) -> None:
    publish(ZIP)
    (tmp_path / "hotdog").mkdir()
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    assert fetch("hotdog", tmp_path) == tmp_path / "hotdog"
    assert names(tmp_path) == {"hotdog"}
    assert server.requests == []


def test_users_own_archive_is_verified_and_used_without_network(
    tmp_path: Path, publish: Publish, server: Server
) -> None:
    publish(ZIP)
    (tmp_path / "hotdog.zip").write_bytes(ZIP)
    fetch("hotdog", tmp_path)
    assert read(tmp_path) == IMAGES
    assert server.requests == []


def test_users_own_archive_is_refused_but_kept_where_it_is_another(tmp_path: Path, publish: Publish) -> None:
    archive = publish(ZIP)
    (tmp_path / "hotdog.zip").write_bytes(b"mine")
    with pytest.raises(ThawError, match=f"expected {archive.checksum}, received sha1:"):
        fetch("hotdog", tmp_path)
    assert (tmp_path / "hotdog.zip").read_bytes() == b"mine"
    assert names(tmp_path) == {"hotdog.zip"}


@pytest.mark.parametrize("folders", [("ants", "bees"), ("train/ants", "train/bees", "val/ants", "val/bees")])
def test_a_folder_of_the_users_own_images_is_not_downloaded_into(
    tmp_path: Path, publish: Publish, server: Server, folders: tuple[str, ...]
) -> None:
    publish(ZIP)
    touch(tmp_path, *(f"{folder}/1.JPG" for folder in folders))
    before = names(tmp_path)
    with pytest.raises(ThawError) as caught:
        fetch("hotdog", tmp_path)
    assert str(caught.value) == (
        f"dataset.root={tmp_path} holds folders of images: for those say dataset=folder. "
        "dataset=hotdog would be downloaded into it."
    )
    assert names(tmp_path) == before
    assert server.requests == []
    (tmp_path / "hotdog.zip").write_bytes(ZIP)
    assert fetch("hotdog", tmp_path) == tmp_path / "hotdog"  # the archive was brought on purpose


def test_other_data_sets_and_a_flat_folder_of_images_are_no_hindrance(tmp_path: Path, publish: Publish) -> None:
    publish(ZIP)
    touch(tmp_path, "Canidae/train/dog/1.png", "Canidae/train/wolf/1.png", "digits/0/1.png", "digits/1/1.png")
    touch(tmp_path, "photos/1.png", "photos.zip")
    assert fetch("hotdog", tmp_path) == tmp_path / "hotdog"


@pytest.mark.parametrize(
    ("root", "csv", "expected"),
    [
        ("none", "photos/labels.csv", ("photos", "labels.csv")),
        ("data", "photos/labels.csv", ("photos", "labels.csv")),  # which another data set has made meanwhile
        (".", "photos/labels.csv", (".", "photos/labels.csv")),
        ("photos", "labels.csv", ("photos", "labels.csv")),
        ("none", "none.csv", ("none", "none.csv")),
    ],
)
def test_a_csv_file_that_is_not_below_the_root_has_its_own_folder_for_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: str, csv: str, expected: tuple[str, str]
) -> None:
    touch(tmp_path, "photos/labels.csv", "data/hotdog/1.png")
    monkeypatch.chdir(tmp_path)
    options = locate(DatasetConfig(root=root, csv=csv))
    assert (options.root, options.csv) == expected
    assert locate(options) == options
    absolute = str(tmp_path / "photos" / "labels.csv")
    for other in ("none", "data"):
        assert locate(DatasetConfig(root=other, csv=absolute)).root == str(tmp_path / "photos")
    assert locate(DatasetConfig(root=str(tmp_path), csv=absolute)).root == str(tmp_path)
    assert locate(DatasetConfig("pets", root="none", csv=absolute)).root == "none"


# Download


def test_data_set_is_downloaded_and_unpacked(
    tmp_path: Path, publish: Publish, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    publish(ZIP, size=len(ZIP))
    root = tmp_path / "new" / "data"
    assert fetch("hotdog", root) == root / "hotdog"
    assert read(root) == IMAGES
    assert names(root) == {"hotdog", "hotdog.zip"}
    assert f"The images are in {root / 'hotdog'}." in caplog.text
    assert capsys.readouterr().out == ""  # no progress bar where the output is no terminal


def test_progress_is_shown_on_a_terminal(
    tmp_path: Path, publish: Publish, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(ZIP)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    fetch("hotdog", tmp_path)
    assert "hotdog.zip" in capsys.readouterr().out


def test_data_set_is_fetched_once(tmp_path: Path, publish: Publish, server: Server) -> None:
    publish(ZIP)
    fetch("hotdog", tmp_path)
    fetch("hotdog", tmp_path)
    assert server.requests == [None]


def test_only_the_rest_is_requested(tmp_path: Path, publish: Publish, server: Server) -> None:
    publish(ZIP)
    (tmp_path / "hotdog.zip.part").write_bytes(ZIP[:10_000])
    fetch("hotdog", tmp_path)
    assert server.requests == ["bytes=10000-"]
    assert server.sent == len(ZIP) - 10_000
    assert read(tmp_path) == IMAGES


def test_server_that_ignores_range_sends_the_whole(tmp_path: Path, publish: Publish, server: Server) -> None:
    publish(ZIP)
    server.ranges = False
    (tmp_path / "hotdog.zip.part").write_bytes(ZIP[:10_000])
    fetch("hotdog", tmp_path)
    assert (tmp_path / "hotdog.zip").read_bytes() == ZIP


def test_complete_partial_file_is_not_sent_again(tmp_path: Path, publish: Publish, server: Server) -> None:
    publish(ZIP)
    (tmp_path / "hotdog.zip.part").write_bytes(ZIP)
    fetch("hotdog", tmp_path)
    assert server.sent == 0
    assert read(tmp_path) == IMAGES


@pytest.mark.parametrize("names_length", [True, False])
def test_partial_file_that_is_too_long_is_dropped(
    tmp_path: Path, publish: Publish, server: Server, names_length: bool
) -> None:
    publish(ZIP)
    server.names_length_in_416 = names_length
    (tmp_path / "hotdog.zip.part").write_bytes(ZIP + b"more")
    fetch("hotdog", tmp_path)
    assert server.requests == [f"bytes={len(ZIP) + 4}-", None]
    assert read(tmp_path) == IMAGES


@pytest.mark.parametrize("chunked", [False, True])
def test_cut_connection_is_taken_up_again(tmp_path: Path, publish: Publish, server: Server, chunked: bool) -> None:
    publish(ZIP)
    server.chunked = chunked
    server.cut_after = [10_000, 5_000]
    fetch("hotdog", tmp_path)
    assert server.requests == [None, "bytes=10000-", "bytes=15000-"]
    assert server.sent == len(ZIP)
    assert read(tmp_path) == IMAGES


def test_stalled_connection_is_taken_up_again(
    tmp_path: Path, publish: Publish, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "TIMEOUT", 0.1)
    publish(ZIP)
    server.stall = True
    server.cut_after = [10_000]
    fetch("hotdog", tmp_path)
    assert server.requests == [None, "bytes=10000-"]
    assert read(tmp_path) == IMAGES


def test_passing_trouble_of_the_server_is_waited_out(tmp_path: Path, publish: Publish, server: Server) -> None:
    publish(ZIP)
    server.status = [503, 500]
    fetch("hotdog", tmp_path)
    assert read(tmp_path) == IMAGES


def test_attempts_end_and_what_came_is_kept(tmp_path: Path, publish: Publish, server: Server) -> None:
    publish(ZIP)
    server.cut_after = [1000] * 4
    with pytest.raises(
        ThawError, match=rf"cut after 4000 of {len(ZIP)} bytes\. .*hotdog\.zip\.part is kept: run again"
    ):
        fetch("hotdog", tmp_path)
    assert names(tmp_path) == {"hotdog.zip.part"}
    fetch("hotdog", tmp_path)
    assert server.requests[4:] == ["bytes=4000-"]
    assert read(tmp_path) == IMAGES


@pytest.mark.parametrize("algorithm", ["sha256", "sha1", "md5"])
def test_wrong_checksum_removes_the_download(tmp_path: Path, publish: Publish, server: Server, algorithm: str) -> None:
    expected = f"{algorithm}:{hashlib.new(algorithm, b'another').hexdigest()}"
    archive = publish(ZIP, checksum=expected)
    with pytest.raises(ThawError) as caught:
        fetch("hotdog", tmp_path)
    received = f"{algorithm}:{hashlib.new(algorithm, ZIP).hexdigest()}"
    assert archive.url in str(caught.value)
    assert f"expected {expected}, received {received}" in str(caught.value)
    assert names(tmp_path) == set()


def test_wrong_size_removes_the_download(tmp_path: Path, publish: Publish) -> None:
    publish(ZIP, size=47)
    with pytest.raises(ThawError, match=f"expected 47 bytes, received {len(ZIP)}"):
        fetch("hotdog", tmp_path)
    assert names(tmp_path) == set()


@pytest.mark.parametrize("checksum", ["sha1:fba480ffa8aa7e0febbb511d181409f899b9baa5", None])
def test_page_instead_of_an_archive_is_refused(
    tmp_path: Path, publish: Publish, server: Server, checksum: str | None
) -> None:
    publish(b"<!doctype html><title>Please log in</title>", checksum=checksum)
    with pytest.raises(ThawError, match=f"expected {checksum or 'a zip or tar archive'}, received"):
        fetch("hotdog", tmp_path)
    assert names(tmp_path) == set()


def test_missing_page_is_asked_for_once(tmp_path: Path, publish: Publish, server: Server) -> None:
    publish(ZIP)
    server.files.clear()
    with pytest.raises(ThawError, match=r"could not be downloaded: HTTP Error 404: Not Found\."):
        fetch("hotdog", tmp_path)
    assert server.requests == [None]
    assert names(tmp_path) == set()


def test_no_network_says_what_else_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(archives, "PAUSES", (5,))
    start = time.monotonic()
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        archive = Archive(f"http://127.0.0.1:{closed.getsockname()[1]}/hotdog.zip", "sha1:fba480ff")
        monkeypatch.setitem(sources.SOURCES, "hotdog", Source("hotdog", ("train", "test"), (archive,)))
        with pytest.raises(ThawError) as caught:
            fetch("hotdog", tmp_path)
    assert time.monotonic() - start < 5  # a server that was never reached is not asked again
    message = str(caught.value)
    for part in (archive.url, "sha1:fba480ff", str(tmp_path), str(tmp_path / "hotdog"), "Connection refused"):
        assert part in message
    assert "dataset=digits, or dataset=folder dataset.root=PATH" in message


@pytest.mark.parametrize("redirected", [False, True])
def test_only_web_addresses_are_opened(
    tmp_path: Path, publish: Publish, server: Server, monkeypatch: pytest.MonkeyPatch, redirected: bool
) -> None:
    secret = tmp_path / "secret.zip"
    secret.write_bytes(ZIP)
    publish(ZIP)
    if redirected:
        server.redirect = secret.as_uri()
    else:
        archive = Archive(secret.as_uri())
        monkeypatch.setitem(sources.SOURCES, "hotdog", Source("hotdog", ("train", "test"), (archive,)))
    with pytest.raises(ThawError, match="not allowed" if redirected else "must lead to an http or https address"):
        fetch("hotdog", tmp_path / "data")
    assert names(tmp_path / "data") == set()


def test_folder_that_cannot_be_written_to_is_named(tmp_path: Path, publish: Publish) -> None:
    publish(ZIP)
    (tmp_path / "file").touch()
    with pytest.raises(ThawError, match=rf"dataset\.root={re.escape(str(tmp_path / 'file'))} cannot take .*'hotdog'"):
        fetch("hotdog", tmp_path / "file")


# Unpacking


def link(name: str, kind: bytes = tarfile.SYMTYPE, target: str = "/etc/passwd") -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, target
    return entry


def zipped_link(name: str) -> bytes:
    content = io.BytesIO(ZIP)
    with zipfile.ZipFile(content, "a") as archive:
        entry = zipfile.ZipInfo(name)
        entry.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(entry, "/etc/passwd")
    return content.getvalue()


@pytest.mark.parametrize(
    ("file", "body", "entry"),
    [
        ("hotdog.zip", zipped(IMAGES | {"../slip": b""}), "../slip"),
        ("hotdog.zip", zipped(IMAGES | {"hotdog/../../slip": b""}), "hotdog/../../slip"),
        ("hotdog.zip", zipped(IMAGES | {"/slip": b""}), "/slip"),
        ("hotdog.zip", zipped(IMAGES | {"C:\\slip": b""}), "C:\\\\slip"),
        ("hotdog.zip", zipped(IMAGES | {"..\\slip": b""}), "..\\\\slip"),
        ("hotdog.zip", zipped_link("hotdog/link"), "hotdog/link"),
        ("hotdog.tar.gz", tarred(IMAGES | {"../slip": b""}), "../slip"),
        ("hotdog.tar.gz", tarred(IMAGES | {"/slip": b""}), "/slip"),
        ("hotdog.tar.gz", tarred(IMAGES, link("hotdog/link")), "hotdog/link"),
        ("hotdog.tar.gz", tarred(IMAGES, link("hotdog/link", target="train")), "hotdog/link"),
        ("hotdog.tar.gz", tarred(IMAGES, link("hotdog/hard", tarfile.LNKTYPE)), "hotdog/hard"),
        ("hotdog.tar.gz", tarred(IMAGES, link("hotdog/device", tarfile.CHRTYPE)), "hotdog/device"),
        ("hotdog.tar.gz", tarred(IMAGES, link("hotdog/pipe", tarfile.FIFOTYPE)), "hotdog/pipe"),
    ],
)
def test_unsafe_entry_is_refused_by_name(tmp_path: Path, publish: Publish, file: str, body: bytes, entry: str) -> None:
    publish(body, file=file)
    with pytest.raises(ThawError, match=re.escape(f"is not safe to unpack: '{entry}'")):
        fetch("hotdog", tmp_path / "data")
    assert names(tmp_path) == {"data"}
    assert names(tmp_path / "data") == {file}


@pytest.mark.parametrize("file", ["hotdog.zip", "hotdog.tar.gz"])
def test_bomb_is_refused(tmp_path: Path, publish: Publish, monkeypatch: pytest.MonkeyPatch, file: str) -> None:
    monkeypatch.setattr(archives, "MAX_BYTES", 100_000)
    files = IMAGES | {"hotdog/zeros": bytes(2_000_000)}
    publish(zipped(files) if file.endswith("zip") else tarred(files), file=file)
    with pytest.raises(ThawError, match=r"'hotdog/zeros' .* bytes"):
        fetch("hotdog", tmp_path)
    assert names(tmp_path) == {file}


@pytest.mark.parametrize("file", ["hotdog.zip", "hotdog.tar.gz"])
def test_a_flood_of_empty_files_is_refused(
    tmp_path: Path, publish: Publish, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    monkeypatch.setattr(archives, "MAX_BYTES", 1_000_000)
    monkeypatch.setattr(archives, "MAX_RATIO", 1)
    files = dict.fromkeys((f"hotdog/{number}" for number in range(1000)), b"")
    publish(zipped(files) if file.endswith("zip") else tarred(files), file=file)
    with pytest.raises(ThawError, match=r"with 'hotdog/244' it exceeds 1,000,000 bytes"):
        fetch("hotdog", tmp_path)
    assert names(tmp_path) == {file}


def spoilt(body: bytes) -> bytes:
    middle = len(body) // 2
    return body[:middle] + bytes([body[middle] ^ 255]) + body[middle + 1 :]


@pytest.mark.parametrize(
    ("file", "body"),
    [
        ("hotdog.zip", spoilt(ZIP)),
        ("hotdog.zip", spoilt(zipped(IMAGES, zipfile.ZIP_LZMA))),
        ("hotdog.zip", spoilt(zipped(IMAGES, zipfile.ZIP_BZIP2))),
        ("hotdog.tar.gz", tarred(IMAGES)[:20_000]),
    ],
    ids=["zip", "lzma", "bzip2", "tar"],
)
def test_damaged_archive_leaves_nothing_and_no_recorded_checksum(
    tmp_path: Path, publish: Publish, file: str, body: bytes
) -> None:
    publish(body, file=file, checksum=None)
    with pytest.raises(ThawError, match=rf"{re.escape(file)} cannot be unpacked: .* Delete it"):
        fetch("hotdog", tmp_path)
    assert names(tmp_path) == {file}


def test_archive_of_something_else_is_refused(tmp_path: Path, publish: Publish) -> None:
    publish(zipped({"hotdog/train/hotdog/0.png": b""}))
    with pytest.raises(ThawError, match=r"hotdog\.zip lacks a folder that holds train and test"):
        fetch("hotdog", tmp_path)
    assert names(tmp_path) == {"hotdog.zip"}


@pytest.mark.parametrize("around", ["", "hotdog/", "data/hotdog/", "some/where/else/"])
def test_folder_is_found_however_deep(tmp_path: Path, publish: Publish, around: str) -> None:
    files = {name.replace("hotdog/", around, 1): content for name, content in IMAGES.items()}
    others = {"README": b"", "__MACOSX/hotdog/train/._x": b""}
    deeper = {f"{around}train/deeper/{split}/x": b"" for split in ("train", "test")}
    publish(zipped(files | others | deeper))
    fetch("hotdog", tmp_path)
    assert set(read(tmp_path)) >= set(IMAGES)
    assert names(tmp_path) == {"hotdog", "hotdog.zip"}


def test_rest_of_a_killed_unpacking_is_cleared(tmp_path: Path, publish: Publish) -> None:
    publish(ZIP)
    for target_exists in (False, True):
        half = tmp_path / ".hotdog.unpacking" / "hotdog" / "train"
        half.mkdir(parents=True)
        (half / "half.png").touch()
        assert fetch("hotdog", tmp_path).exists(), target_exists
        assert read(tmp_path) == IMAGES
        assert names(tmp_path) == {"hotdog", "hotdog.zip"}


# Several processes


def fetch_in_a_process(archive: Archive, root: Path) -> "subprocess.Popen[str]":
    program = (
        "from pathlib import Path; from thaw.data.sources import *\n"
        f"SOURCES['hotdog'] = Source('hotdog', ('train', 'test'), ({archive!r},))\n"
        f"print(fetch('hotdog', Path({str(root)!r})))"
    )
    return subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)


@pytest.mark.slow  # starts two interpreters
def test_two_processes_at_once_download_once(tmp_path: Path, publish: Publish, server: Server) -> None:
    archive = publish(ZIP)
    server.delay = 0.2
    processes = [fetch_in_a_process(archive, tmp_path) for _ in range(2)]
    assert [process.communicate()[0].strip() for process in processes] == [str(tmp_path / "hotdog")] * 2
    assert read(tmp_path) == IMAGES
    assert server.requests == [None]


def test_threads_at_once_download_once(tmp_path: Path, publish: Publish, server: Server) -> None:
    publish(ZIP)
    server.delay = 0.1
    with ThreadPoolExecutor(4) as pool:
        folders = list(pool.map(lambda _: fetch("hotdog", tmp_path), range(4)))
    assert folders == [tmp_path / "hotdog"] * 4
    assert read(tmp_path) == IMAGES
    assert server.requests == [None]


def test_killed_download_leaves_no_data_set_and_no_lock(tmp_path: Path, publish: Publish, server: Server) -> None:
    archive = publish(ZIP)
    server.stall = True
    server.cut_after = [20_000]
    process = fetch_in_a_process(archive, tmp_path)
    part = tmp_path / "hotdog.zip.part"
    while not (part.exists() and part.stat().st_size):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert names(tmp_path) == {"hotdog.zip.part"}
    have = part.stat().st_size
    fetch("hotdog", tmp_path)
    assert server.requests == [None, f"bytes={have}-"]
    assert read(tmp_path) == IMAGES


# The single data sets


def test_every_source_is_published_over_the_web_under_names_of_its_own() -> None:
    archives = [archive for source in sources.SOURCES.values() for archive in source.archives]
    assert all(re.fullmatch(r"https?://\S+\.(zip|tar\.gz)", archive.url) for archive in archives)
    assert len({archive.name for archive in archives}) == len(archives) == 5
    lengths = {"sha256": 64, "sha1": 40, "md5": 32}
    for archive in archives:
        if archive.checksum is not None:
            algorithm, _, digest = archive.checksum.partition(":")
            assert re.fullmatch(f"[0-9a-f]{{{lengths[algorithm]}}}", digest)


@pytest.mark.slow  # imports torchvision
def test_pets_come_from_where_torchvision_has_them() -> None:
    from torchvision.datasets import OxfordIIITPet

    ours = {(archive.url, archive.checksum) for archive in sources.SOURCES["pets"].archives}
    assert ours == {(url, f"md5:{md5}") for url, md5 in OxfordIIITPet._RESOURCES}


CANIDAE = {
    f"data/Canidae/{split}/{label}/0.jpg": os.urandom(100) for split in ("train", "val") for label in ("dogs", "wolves")
}


def test_checksum_of_canidae_is_kept_and_compared(
    tmp_path: Path, publish: Publish, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    body = zipped(CANIDAE)
    publish(body, "canidae", "Canidae_data.zip", checksum=None)
    target = fetch("canidae", tmp_path)
    assert {f"data/{name}": content for name, content in read(tmp_path, "Canidae").items()} == CANIDAE
    checksum = f"sha256:{hashlib.sha256(body).hexdigest()}"
    record = tmp_path / "Canidae_data.zip.sha256"
    assert record.read_text() == f"{checksum}\n"
    assert checksum in caplog.text

    target.rename(tmp_path / "first")
    assert fetch("canidae", tmp_path) == target  # the archive that is there agrees
    assert len(server.requests) == 1

    target.rename(tmp_path / "second")
    (tmp_path / "Canidae_data.zip").unlink()
    publish(zipped(CANIDAE | {"changed": b""}), "canidae", "Canidae_data.zip", checksum=None)
    with pytest.raises(
        ThawError, match=rf"expected {checksum} \(from {re.escape(str(record))}: .*\), received sha256:"
    ):
        fetch("canidae", tmp_path)
    assert names(tmp_path) == {"first", "second", record.name}


PET_LISTS = {
    "annotations/trainval.txt": b"Abyssinian_100 1 1 1\nscottish_terrier_119 32 2 20\n",
    "annotations/test.txt": b"Abyssinian_201 1 1 1\n",
}
OFFICIAL = """\
path,label,split
images/Abyssinian_100.jpg,Abyssinian,train
images/scottish_terrier_119.jpg,scottish_terrier,train
images/Abyssinian_201.jpg,Abyssinian,test
"""


def test_pets_are_two_archives_and_their_official_split(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    bodies = {"images.tar.gz": tarred({"images/Abyssinian_100.jpg": b"cat"}), "annotations.tar.gz": tarred(PET_LISTS)}
    server.files = {f"/{name}": body for name, body in bodies.items()}
    archives = tuple(
        Archive(f"{server.address}/{name}", f"md5:{hashlib.md5(body).hexdigest()}") for name, body in bodies.items()
    )
    source = sources.SOURCES["pets"]
    monkeypatch.setitem(sources.SOURCES, "pets", Source(source.folder, source.holds, archives))
    folder = fetch("pets", tmp_path)
    assert folder == tmp_path / "oxford-iiit-pet"
    assert {path.name for path in folder.iterdir()} == {"images", "annotations", "official.csv"}
    assert (folder / "images" / "Abyssinian_100.jpg").read_bytes() == b"cat"
    assert (folder / "official.csv").read_text() == OFFICIAL


def test_pets_unpacked_by_torchvision_get_their_official_split(tmp_path: Path) -> None:
    folder = tmp_path / "oxford-iiit-pet"
    (folder / "annotations").mkdir(parents=True)
    assert fetch("pets", tmp_path) == folder  # without the lists there is no official split to write
    assert not (folder / "official.csv").exists()
    for name, lines in PET_LISTS.items():
        (folder / name).write_bytes(lines)
    fetch("pets", tmp_path)
    assert (folder / "official.csv").read_text() == OFFICIAL
    (folder / "official.csv").write_text("mine")
    fetch("pets", tmp_path)
    assert (folder / "official.csv").read_text() == "mine"


@pytest.mark.slow  # imports scikit-learn
def test_digits_are_written_as_scikit_learn_has_them(tmp_path: Path) -> None:
    from sklearn.datasets import load_digits

    folder = fetch("digits", tmp_path)
    assert names(tmp_path) == {"digits"}
    assert sorted(path.name for path in folder.iterdir()) == list("0123456789")
    files = sorted(folder.glob("*/*.png"), key=lambda file: file.name)
    digits = load_digits()
    assert len(files) == len(digits.target) == 1797
    assert [int(file.parent.name) for file in files] == digits.target.tolist()
    pixels = np.stack([np.asarray(Image.open(file)) for file in files])
    assert pixels.dtype == np.uint8
    assert np.array_equal(np.rint(pixels * (16 / 255)), digits.images)


def test_module_imports_nothing_heavy() -> None:
    program = (
        "import sys, thaw.data.sources; print({'torch', 'torchvision', 'sklearn', 'PIL', 'numpy'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "set()\n"
