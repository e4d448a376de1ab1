"""Files made to break a decoder, and names made to break what writes them down."""

import csv
import os
import re
import resource
import shutil
import struct
import subprocess
import sys
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from thaw.cli import main
from thaw.comparison.records import read_answers
from thaw.config import DatasetConfig
from thaw.data.image_lists import read_excluded, write_excluded
from thaw.data.images import MOST_PIXELS, BadImage, known_formats, read_header, read_image
from thaw.data.index import build_index
from thaw.errors import printable
from thaw.inspection.prediction_files import write_predictions
from thaw.inspection.predictions import Predictions
from thaw.run import Run

CASES = int(os.environ.get("THAW_FUZZ_CASES", "300"))
"""`make torture` asks for more."""
MEMORY = 2**30 + 4 * MOST_PIXELS
"""Bytes that reading a damaged file may take: what Pillow decodes it into, and a reserve."""


def gradient(height: int = 24, width: int = 40) -> np.ndarray:
    """A smooth RGB image (H, W, 3) without any symmetry."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([255 * y // height, 255 * x // width, 255 * (x + y) // (height + width)], axis=-1).astype(np.uint8)


def encoded(form: str, image: Image.Image | None = None, **options: object) -> bytes:
    stream = BytesIO()
    (image or Image.fromarray(gradient())).save(stream, form, **options)
    return stream.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG file."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, rows: bytes, depth: int = 8, colour: int = 2, interlaced: bool = False) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows, 9)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


ADAM7 = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
"""First row and column, and steps, of the passes of an interlaced PNG (its specification, section 8.2)."""


def interlaced_png(pixels: np.ndarray) -> bytes:
    passes = [pixels[row::down, column::right] for row, column, down, right in ADAM7]
    rows = b"".join(b"\0" + line.tobytes() for part in passes if part.size for line in part)
    return png(pixels.shape[1], pixels.shape[0], rows, 8 * pixels.itemsize, interlaced=True)


def arithmetic_jpeg() -> bytes:
    """8 x 8 grey pixels of 128: a progressive, arithmetic-coded scan of one DC difference, which is nought."""
    table = b"\xff\xdb\x00\x43\x00" + bytes([1] * 64)
    frame = b"\xff\xca\x00\x0b\x08\x00\x08\x00\x08\x01\x01\x11\x00"
    scan = b"\xff\xda\x00\x08\x01\x01\x00\x00\x00\x00"
    return b"\xff\xd8" + table + frame + scan + bytes(8) + b"\xff\xd9"


def read(tmp_path: Path, content: bytes) -> np.ndarray:
    (tmp_path / "a.jpg").write_bytes(content)
    return read_image(tmp_path / "a.jpg").permute(1, 2, 0).numpy()


# ---- what is unusual is decoded


def test_an_interlaced_png(tmp_path: Path) -> None:
    assert np.array_equal(read(tmp_path, interlaced_png(gradient(13, 29))), gradient(13, 29))


def test_16_bits_a_channel_become_8(tmp_path: Path) -> None:
    deep = gradient().astype(">u2") * 257
    assert np.array_equal(read(tmp_path, interlaced_png(deep)), gradient())


def test_a_progressive_jpeg_is_the_baseline_one(tmp_path: Path) -> None:
    assert np.array_equal(
        read(tmp_path, encoded("jpeg", progressive=True)), read(tmp_path, encoded("jpeg", progressive=False))
    )


def test_an_arithmetic_coded_jpeg(tmp_path: Path) -> None:
    assert (read(tmp_path, arithmetic_jpeg()) == 128).all()


def test_a_colour_profile_changes_no_pixel(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    for form in ("png", "jpeg", "webp", "tiff"):
        with_profile = read(tmp_path, encoded(form, icc_profile=profile))
        assert np.array_equal(with_profile, read(tmp_path, encoded(form)))
        assert np.array_equal(with_profile, read(tmp_path, encoded(form, icc_profile=b"no profile")))


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1)])
@pytest.mark.parametrize("form", ["jpeg", "png", "gif", "webp", "bmp", "tiff"])
def test_a_line_of_pixels(tmp_path: Path, form: str, size: tuple[int, int]) -> None:
    assert read(tmp_path, encoded(form, Image.new("RGB", size, "white"))).shape == (size[1], size[0], 3)


# ---- what is damaged is named


def of_every_form() -> dict[str, bytes]:
    """Sound files of one gradient."""
    picture = Image.fromarray(gradient())
    frames = [picture.rotate(angle) for angle in (90, 180)]
    files = {form: encoded(form) for form in ("jpeg", "png", "gif", "webp", "bmp", "tiff", "ppm", "jpeg2000", "tga")}
    files["avif"] = encoded("avif")
    if "HEIF" in known_formats():
        files["heif"] = encoded("heif")
    files["progressive"] = encoded("jpeg", progressive=True)
    files["cmyk"] = encoded("jpeg", picture.convert("CMYK"))
    files["interlaced"] = interlaced_png(gradient())
    files["16 bit"] = encoded("png", Image.fromarray(gradient()[..., 0].astype(np.uint16) * 257))
    files["palette"] = encoded("png", picture.quantize(16), transparency=3)
    files["lzw"] = encoded("tiff", compression="tiff_lzw")
    files["deflate"] = encoded("tiff", compression="tiff_adobe_deflate")
    files |= {f"animated {form}": encoded(form, save_all=True, append_images=frames) for form in ("gif", "webp", "png")}
    exif = Image.Exif()
    exif[0x0112] = 6
    files["exif"] = encoded("jpeg", exif=exif)
    return files


SOUND = of_every_form()


@pytest.mark.parametrize("name", SOUND)
def test_a_file_cut_at_any_tenth_is_whole_or_named(tmp_path: Path, name: str) -> None:
    content = SOUND[name]
    whole = read(tmp_path, content)
    for tenth in range(10):
        try:
            image = read(tmp_path, content[: len(content) * tenth // 10])
        except BadImage as error:
            assert "\n" not in str(error)  # noqa: PT017  (either outcome is right)
        else:  # what is lacking is not part of the picture: a later frame, metadata
            assert np.array_equal(image, whole), f"{name} cut at {tenth}/10"


@pytest.mark.parametrize("side", [30_000, 100_000])
def test_a_bomb_is_named_before_it_takes_memory(tmp_path: Path, side: int) -> None:
    before = peak()
    content = png(side, side, bytes(10))
    with pytest.raises(BadImage, match=rf"it has {side**2:,} pixels to decode, and 500,000,000 are the most"):
        read(tmp_path, content)
    assert peak() - before < 50 * 2**20


def test_a_bomb_of_metadata_is_named(tmp_path: Path) -> None:
    text = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(200 * 2**20), 9))
    content = encoded("png")
    before = peak()
    with pytest.raises(BadImage, match="too large"):
        read(tmp_path, content[:33] + text + content[33:])
    assert peak() - before < 400 * 2**20


def peak() -> int:
    """Most bytes that this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@st.composite
def mutations(draw: st.DrawFn) -> bytes:
    """A sound file in which some bytes are overwritten, cut out or doubled."""
    content = bytearray(SOUND[draw(st.sampled_from(sorted(SOUND)))])
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.one_of(st.integers(0, min(99, len(content))), st.integers(0, len(content))))
        length = draw(st.integers(0, 16))
        match draw(st.sampled_from(["write", "cut", "double", "end"])):
            case "write":
                content[start : start + length] = draw(st.binary(min_size=length, max_size=length))
            case "cut":
                del content[start : start + length]
            case "double":
                content[start:start] = content[start : start + length]
            case "end":
                del content[start:]
    return bytes(content)


@pytest.mark.filterwarnings("ignore:resource_tracker")
@settings(max_examples=CASES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None)
@given(content=mutations())
def test_a_mutated_file_is_an_image_or_named(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "mutated"
    path.write_bytes(content)
    for min_size in (None, 1):
        try:
            image = read_image(path, min_size)
            assert image.shape[0] == 3
            assert image.shape[1] * image.shape[2] > 0
        except BadImage as error:
            assert error.reason.isprintable()  # noqa: PT017  (either outcome is right)
    try:
        read_header(path)
    except BadImage as error:
        assert error.reason  # noqa: PT017
    assert peak() < MEMORY


# ---- all at once


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """Files of every kind, each once, some in train/a and some in val/b, and sound images in both classes of both."""
    files = {f"{name}.png": content for name, content in SOUND.items()}
    files |= {f"{name} cut.jpg": content[: len(content) // 2] for name, content in SOUND.items()}
    files |= {"empty.jpg": b"", "page.jpg": b"<html>404</html>", "bomb.png": png(30_000, 30_000, bytes(10))}
    files |= {
        "wide.png": encoded("png", Image.new("L", (10**6, 1))),
        "high.png": encoded("png", Image.new("L", (1, 10**6))),
    }
    files |= {os.fsdecode(name): encoded("png", Image.new("L", (9, 9 + number))) for number, name in enumerate(NAMES)}
    links = {"gone.jpg": "nowhere", "self.jpg": "self.jpg", "zero.jpg": "/dev/zero", "zeros.jpg": "/dev/zero"}
    links |= {"one.jpg": "two.jpg", "two.jpg": "one.jpg"}
    root = tmp_path / "images"
    for seed, folder in enumerate(("train/a", "train/b", "val/a", "val/b")):
        (root / folder).mkdir(parents=True)
        for number in range(3):
            noise = np.random.default_rng([seed, number]).integers(0, 256, (64, 64, 3), np.uint8)
            Image.fromarray(noise).save(root / folder / f"sound {number}.png")
    for number, (name, content) in enumerate(files.items()):
        (root / ("train/a", "val/b")[number % 2] / name).write_bytes(content)
    for name, target in links.items():
        (root / "train/a" / name).symlink_to(target)
    os.mkfifo(root / "val/b/pipe.jpg")
    (root / "train/a/notes.txt").touch()
    (root / "val/b/.hidden.jpg").touch()
    return root


@pytest.mark.slow
def test_each_file_is_decoded_or_named_by_every_command(hostile: Path, finished_run: Run, tmp_path: Path) -> None:
    def run(*command: str) -> tuple[int, str, str]:
        environment = os.environ | {"THAW_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
        call = [sys.executable, *command]
        done = subprocess.run(call, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout, done.stderr

    thaw = ["-c", "import sys; from thaw.cli import main; sys.exit(main())"]
    training = [
        str(Path(__file__).parents[2] / "train.py"), "dataset=folder", f"dataset.root={hostile}",
        "dataset.image_size=64", "backbone=squeezenet1_1", "backbone.weights=null", "strategy=scratch", "trainer=cpu",
        "trainer.max_epochs=1", "logger=csv",
    ]  # fmt: skip
    paths = {str(path.relative_to(hostile)) for path in hostile.glob("*/*/*") if path.suffix != ".txt"}
    paths.remove("val/b/.hidden.jpg")

    code, printed, errors = run(*thaw, "check", str(hostile), "--min-size", "1", "--fix", "list.csv")
    assert (code, errors) == (1, "")
    assert "2 files ignored (hidden: val/b/.hidden.jpg; not images by their names: train/a/notes.txt)" in printed
    assert sum(map(int, re.findall(r" (\d+)(?:,|$)", printed.splitlines()[1]))) == len(paths)
    reasons = rows(tmp_path / "list.csv", "reason")
    assert all(reason.startswith("unreadable: ") for reason in reasons.values())
    bad = {path: reason.removeprefix("unreadable: ") for path, reason in reasons.items()}
    assert f"unreadable {len(bad)}" in printed
    for name in ("empty", "page", "gone", "self", "zero", "zeros", "one", "two", "pipe", "bomb", "png cut"):
        assert {path for path in bad if Path(path).stem == name}

    code, _, errors = run(*training, "hydra.run.dir=refused")
    assert code == 2
    named = [line for line in errors.splitlines() if line.startswith("  ")]
    assert sorted(named) == sorted(f"  {printable(path)}: {reason}" for path, reason in bad.items())

    code, printed, errors = run(*training, "dataset.on_bad=skip", "hydra.run.dir=skipped")
    assert (code, errors) == (0, "")
    assert f"{len(bad)} of {len(paths)} files cannot be read as images and are left out:" in printed
    assert f"  … and {len(bad) - 10} more: `thaw check {hostile} --fix` lists all" in printed
    in_val = {path for path in paths - bad.keys() if path.startswith("val")}
    assert f"train {len(paths) - len(bad) - len(in_val)} (" in printed
    assert rows(tmp_path / "skipped" / "predictions.csv", "split").keys() == in_val

    code, _, errors = run(*training, f"dataset.exclude={tmp_path / 'list.csv'}", "hydra.run.dir=excluded")
    assert (code, errors) == (0, "")
    assert rows(tmp_path / "excluded" / "predictions.csv", "split").keys() == in_val

    code, printed, _ = run(*thaw, "predict", str(finished_run.folder), str(hostile), "--out", "table.csv")
    assert code == 1
    assert (
        f"2 files ignored (hidden: {hostile}/val/b/.hidden.jpg; not images by their names: {hostile}/train" in printed
    )
    predicted = rows(tmp_path / "table.csv", "error")
    assert predicted == {str(hostile / path): bad.get(path, "") for path in paths}
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 < MEMORY


def rows(table: Path, column: str) -> dict[str, str]:
    """A column of a CSV file by the column path."""
    with table.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return {row["path"]: row[column] for row in csv.DictReader(file)}


# ---- names

NAMES = [b"two words.png", b'it\'s "quoted".png', b"line\nbreak.png", b"caf\xe9.png", b"\x1b[2J.png", b"-rf.png"]
NAMES += [b"%s {0} $x_{$ [bold].png", b"a,b;c.png", "蚂蚁 🐜.png".encode(), b"n" * 246 + b".png"]


@pytest.fixture(scope="module")
def oddly_named(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of every odd name in two classes of odd names, and one damaged file in each."""
    root = tmp_path_factory.mktemp("odd")
    for folder in (b"$x_{$", b"caf\xe9\n"):
        parent = os.fsencode(root) + b"/" + folder
        os.mkdir(parent)  # noqa: PTH102
        for number, name in enumerate(NAMES):
            Image.new("RGB", (40, 40), (number, len(folder), 9)).save(Path(os.fsdecode(parent + b"/" + name)))
        Path(os.fsdecode(parent + b"/bad\n\xff.jpg")).write_text("<html>404</html>")
    return root


@pytest.fixture
def index_paths(oddly_named: Path) -> list[str]:
    index = build_index(oddly_named, DatasetConfig(root=str(oddly_named)))
    assert len(index.fingerprint) == 16
    return [index.place(sample.path) for samples in index.splits.values() for sample in samples]


def test_no_name_is_lost(index_paths: list[str]) -> None:
    assert len(set(index_paths)) == 2 * (len(NAMES) + 1)


def test_predictions_come_back_under_every_name(tmp_path: Path, index_paths: list[str]) -> None:
    import torch

    classes = ["$x_{$", os.fsdecode(b"caf\xe9\n")]
    labels = torch.tensor([int(path.startswith("caf")) for path in index_paths])
    predictions = Predictions(index_paths, labels, torch.eye(2)[labels], classes)
    write_predictions(tmp_path / "predictions.csv", {"val": predictions})
    answers = read_answers(tmp_path / "predictions.csv", "val")
    names = [classes[label] for label in labels]
    assert answers == {(path, name): (name, "") for path, name in zip(index_paths, names, strict=True)}


def test_every_name_can_be_left_out(tmp_path: Path, oddly_named: Path, index_paths: list[str]) -> None:
    write_excluded(tmp_path / "exclude.csv", dict.fromkeys(index_paths, "odd"))
    assert read_excluded(tmp_path / "exclude.csv", oddly_named) == {oddly_named / path for path in index_paths}


@pytest.mark.filterwarnings("ignore:Glyph .* missing from .*font")
def test_every_name_is_predicted_and_printed_on_one_line(
    oddly_named: Path, finished_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, table, grid = os.fsdecode(os.fsencode(tmp_path) + b"/\xff"), tmp_path / "a.csv", tmp_path / "a.png"
    shutil.copytree(oddly_named, folder)
    assert main(["predict", str(finished_run.folder), folder, "--grid", str(grid)]) == 1
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert len(lines) == 1 + 2 * (len(NAMES) + 1) + 2  # the header, the summary and the grid
    assert all(line.isprintable() for line in [*lines, *printed.err.splitlines()])
    assert printed.err.count("\n") == 1
    assert main(["predict", str(finished_run.folder), folder, "--out", str(table)]) == 1
    errors = rows(table, "error")
    assert {Path(path) for path in errors} == {path for path in Path(folder).rglob("*") if path.is_file()}
    assert {Path(path).name for path, error in errors.items() if error} == {os.fsdecode(b"bad\n\xff.jpg")}


@pytest.mark.slow
def test_names_from_stdin_need_be_no_utf_8(oddly_named: Path, finished_run: Run) -> None:
    names = [os.fsencode(path) for path in sorted(oddly_named.rglob("*.png")) if "\n" not in str(path)]
    code = "import sys; from thaw.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "predict", str(finished_run.folder), "-"]
    strict = os.environ | {"PYTHONIOENCODING": "utf-8:strict"}  # as stdin is in most locales
    done = subprocess.run(command, input=b"\n".join(names), env=strict, capture_output=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.count(b"\n") == len(names) + 2


def test_a_check_prints_every_name_on_one_line(oddly_named: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(oddly_named)]) == 1
    printed = capsys.readouterr().out
    assert r"caf\udce9\n/bad\n\udcff.jpg: its contents are in no image format that Thaw reads" in printed
    assert all(line.isprintable() for line in printed.splitlines())
    printed.encode()
