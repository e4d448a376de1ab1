import errno
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from thaw.errors import ThawError
from thaw.writing import claimed, drafting, locked, naming, replacing

FOREVER = """
import sys
from pathlib import Path
from thaw.writing import replacing
path = Path(sys.argv[1])
while True:
    for letter in (b"a", b"b"):
        with replacing(path) as draft:
            draft.write_bytes(letter * 300_000)
"""
HOLD = """
import sys, time
from pathlib import Path
from thaw.writing import claimed
with claimed(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""
HOLD_UNREMOVABLY = """
import sys
from pathlib import Path
from thaw.writing import claimed
folder = Path(sys.argv[1])
with claimed(folder):
    folder.chmod(0o500)
folder.chmod(0o700)
with claimed(folder):
    print("free")
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def start(program: str, *arguments: object, **options: Any) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **options)


def test_a_file_is_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    for text in ("one", "two"):
        with replacing(tmp_path / "new" / "a.txt") as draft:
            draft.write_text(text)
        assert (tmp_path / "new" / "a.txt").read_text() == text
    assert names(tmp_path / "new") == ["a.txt"]


def test_a_failure_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), replacing(path) as draft:  # noqa: PT012
        draft.write_text("half of the ne")
        raise ZeroDivisionError
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_kill_at_any_moment_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    for moment in (0.0, 0.003, 0.011, 0.05):
        process = start(FOREVER, path)
        while not path.exists():
            time.sleep(0.001)
        time.sleep(moment)
        process.kill()
        process.communicate()
        content = path.read_bytes()
        assert len(content) == 300_000
        assert len(set(content)) == 1
        path.unlink()
        for draft in tmp_path.iterdir():
            os.utime(draft, (0, 0))
    with replacing(path) as draft:
        draft.touch()
    assert names(tmp_path) == ["a.bin"]


def test_what_others_may_be_writing_stays(tmp_path: Path) -> None:
    path, old, young = tmp_path / "a[1].txt", tmp_path / ".a[1].txt.00000000.part", tmp_path / ".a[1].txt.11111111.part"
    others = [young, tmp_path / ".a1.txt.00000000.part", tmp_path / ".a[1].txt.mine.part"]
    for draft in (old, *others):
        draft.touch()
        os.utime(draft, (0, 0))
    young.touch()
    with drafting(path) as draft:
        draft.write_text("all")
    assert set(tmp_path.iterdir()) == {path, *others}


def test_processes_that_write_one_file_leave_each_other_in_peace(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    processes = [start(FOREVER, path, stderr=subprocess.PIPE) for _ in range(2)]
    while not path.exists():
        time.sleep(0.001)
    end = time.monotonic() + 1
    while time.monotonic() < end:
        content = path.read_bytes()
        assert len(content) == 300_000
        assert len(set(content)) == 1
    for process in processes:
        process.kill()
        assert process.communicate()[1] == ""


@contextmanager
def small_files() -> Iterator[None]:
    """No file of this process may grow beyond 1000 bytes, as if the disk were full; pytest's own output neither."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_is_one_sentence_and_the_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    sentence = r"a\.bin could not be written: File too large\. .* resume=RUN"
    with small_files(), pytest.raises(ThawError, match=sentence):  # noqa: SIM117
        with replacing(path) as draft:
            draft.write_bytes(bytes(2000))
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a.bin"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(ThawError, match=r"file/run/a could not be written: Not a directory"),
        replacing(tmp_path / "file" / "run" / "a"),
    ):
        pass


def test_a_folder_without_permission_is_named(tmp_path: Path, obey_permissions: Callable[[], None]) -> None:
    tmp_path.chmod(0o500)
    process = start(FOREVER, tmp_path / "a", preexec_fn=obey_permissions, stderr=subprocess.PIPE)
    assert f"ThawError: {tmp_path / 'a'} could not be written: Permission denied." in process.communicate()[1]
    assert names(tmp_path) == []


def test_a_folder_that_cannot_be_synced_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sync = os.fsync

    def fsync(descriptor: int) -> None:  # as some mounts have it
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):  # noqa: PTH112
            raise OSError(errno.EINVAL, "Invalid argument")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with replacing(tmp_path / "a.txt") as draft:
        draft.write_text("all")
    assert (tmp_path / "a.txt").read_text() == "all"


def test_what_is_no_plain_file_is_written_to_and_stays(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    process = start("import sys; print(open(sys.argv[1]).read())", tmp_path / "pipe")
    with drafting(tmp_path / "pipe") as draft:
        draft.write_text("all")
    assert process.communicate()[0] == "all\n"
    assert names(tmp_path) == ["pipe"]


def test_a_refusal_names_the_file_and_not_the_draft(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="Not a directory") as caught, drafting(tmp_path / "file" / "a") as draft:
        draft.touch()
    assert caught.value.filename == str(tmp_path / "file" / "a")
    with small_files(), pytest.raises(OSError, match="File too large") as caught, drafting(tmp_path / "b") as draft:
        draft.write_bytes(bytes(2000))
    assert caught.value.filename == str(tmp_path / "b")


@pytest.mark.parametrize("write", [drafting, replacing])
@pytest.mark.parametrize("link", ["a", "dangling", "chain"])
def test_a_link_is_written_through(tmp_path: Path, write: Callable[[Path], Any], link: str) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "old").write_text("old")
    for name, target in {"a": "real/old", "dangling": "real/new", "chain": "a"}.items():
        (tmp_path / name).symlink_to(target)
    target = (tmp_path / link).resolve()
    with write(tmp_path / link) as draft:
        assert draft.parent == tmp_path / "real"
        draft.write_text("all")
    assert (tmp_path / link).is_symlink()
    assert (tmp_path / link).resolve() == target
    assert target.read_text() == "all"
    assert names(tmp_path) == ["a", "chain", "dangling", "real"]
    assert names(tmp_path / "real") == sorted({"old", target.name})


def test_a_link_that_leads_to_no_folder_is_named_and_stays(tmp_path: Path) -> None:
    link = tmp_path / "a.csv"
    link.symlink_to("unmounted/a.csv")
    with pytest.raises(OSError, match="No such file") as caught, drafting(link) as draft:
        draft.touch()
    assert caught.value.filename == str(link)
    sentence = rf"^{re.escape(str(link))} could not be written: No such file or directory\."
    with pytest.raises(ThawError, match=sentence), replacing(link) as draft:
        draft.touch()
    assert link.is_symlink()
    assert names(tmp_path) == ["a.csv"]


def test_only_the_systems_refusal_is_renamed(tmp_path: Path) -> None:
    with pytest.raises(KeyError), naming(tmp_path):
        raise KeyError("a bug of ours")


def test_a_folder_takes_one_run_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = start(HOLD, tmp_path / "run")
    assert first.stdout is not None
    assert first.stdout.readline() == "held\n"
    for option in ("hydra.run.dir", "hydra.sweep.dir"):
        refusal = rf"^Another run is writing to .*run: wait for it, or set {option}=FOLDER\.$"
        with pytest.raises(ThawError, match=refusal), claimed(tmp_path / "run", option):
            pass
    with monkeypatch.context() as second_process:  # of the same run
        for name, value in (("RANK", "1"), ("WORLD_SIZE", "2"), ("LOCAL_WORLD_SIZE", "2")):
            second_process.setenv(name, value)
        with claimed(tmp_path / "run"):
            pass
    first.send_signal(signal.SIGKILL)
    first.communicate()
    with claimed(tmp_path / "run"):  # the lock of a killed run is free
        pass
    assert names(tmp_path / "run") == []


def test_a_lock_that_cannot_be_removed_is_let_go(tmp_path: Path, obey_permissions: Callable[[], None]) -> None:
    process = start(HOLD_UNREMOVABLY, tmp_path / "run", preexec_fn=obey_permissions)
    assert process.communicate()[0] == "free\n"
    assert names(tmp_path / "run") == []


def test_who_has_claimed_a_folder_may_claim_it_again(tmp_path: Path) -> None:
    with claimed(tmp_path):
        with claimed(tmp_path):
            pass
        with pytest.raises(ThawError, match="taken"):
            locked(tmp_path / ".lock", "taken")
    locked(tmp_path / ".lock", "taken").close()
