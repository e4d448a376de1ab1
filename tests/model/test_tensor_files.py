import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from thaw.errors import ThawError
from thaw.model.tensor_files import FORMAT, read_tensors

State = dict[str, Tensor]


class Payload:
    """A pickle that makes a folder as it is read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, (str(self.folder),)


def pickle_plain(content: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(content, protocol=2))


@pytest.mark.parametrize("write", [torch.save, pickle_plain])
def test_code_in_a_file_is_refused_and_not_run(
    tmp_path: Path, state: State, write: Callable[[object, Path], None]
) -> None:
    path, trace = tmp_path / "a.pth", tmp_path / "was here"
    write({"state_dict": state, "extra": Payload(trace)}, path)
    asked = r"it asks for (posix\.mkdir|torch\.storage\._load_from_bytes), .* refused"
    with pytest.raises(ThawError, match=asked) as caught:
        read_tensors(path)
    assert not trace.exists()
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_of_a_newer_version_is_refused(tmp_path: Path, state: State) -> None:
    torch.save({"state_dict": state, "thaw": {"format": FORMAT + 1}}, tmp_path / "best.ckpt")
    with pytest.raises(ThawError, match=rf"newer version of Thaw: format {FORMAT + 1}; this one reads up to {FORMAT}"):
        read_tensors(tmp_path / "best.ckpt")


@pytest.mark.parametrize("version", ["2", None, 1.5])
def test_a_checkpoint_whose_format_is_no_number_is_refused(tmp_path: Path, state: State, version: object) -> None:
    torch.save({"state_dict": state, "thaw": {"format": version}}, tmp_path / "best.ckpt")
    with pytest.raises(
        ThawError, match=r"best\.ckpt is not a complete checkpoint of Thaw: its format must be a whole number"
    ):
        read_tensors(tmp_path / "best.ckpt")


@pytest.mark.parametrize("part", [0.1, 0.9, 0.999])
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_truncated_file(tmp_path: Path, state: State, suffix: str, part: float) -> None:
    path = tmp_path / f"a.{suffix}"
    save_file(state, path) if suffix == "safetensors" else torch.save(state, path)
    path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])
    with pytest.raises(ThawError, match=rf"a\.{suffix} cannot be read as weights \(.+\)\.$"):
        read_tensors(path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.pth", "<html>404 Not Found</html>"),
        ("a.safetensors", "<html>404 Not Found</html>"),
        ("a.bin", "version https://git-lfs.github.com/spec/v1"),
        ("a.safetensors", ""),
        ("a.pth", ""),
    ],
)
def test_file_of_another_kind(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ThawError, match=rf"{name} cannot be read as weights \(.+\)\.$"):
        read_tensors(tmp_path / name)


def test_file_must_hold_tensors_by_name(tmp_path: Path) -> None:
    torch.save([torch.zeros(1)], tmp_path / "a.pth")
    with pytest.raises(ThawError, match=r"a\.pth must hold tensors by name, got list\."):
        read_tensors(tmp_path / "a.pth")


def test_read_tensors_gives_plain_python_too(tmp_path: Path) -> None:
    content = {"epoch": 3, "names": ["a", "b"], "state_dict": {"weight": torch.arange(3)}}
    torch.save(content, tmp_path / "a.ckpt")
    read = read_tensors(tmp_path / "a.ckpt")
    assert (read["epoch"], read["names"]) == (3, ["a", "b"])
    assert torch.equal(read["state_dict"]["weight"], torch.arange(3))
