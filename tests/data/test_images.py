import io
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from thaw.data import images
from thaw.data.images import FORMATS, BadImage, known_formats, read_header, read_image
from thaw.data.places import IMAGE_SUFFIXES

WHITE, RED = [255, 255, 255], [255, 0, 0]


def gradient(height: int = 24, width: int = 40) -> np.ndarray:
    """A smooth RGB image (H, W, 3) without any symmetry."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([255 * y // height, 255 * x // width, 255 * (x + y) // (height + width)], axis=-1).astype(np.uint8)


def pixel(path: Path) -> list[int]:
    return read_image(path)[:, 0, 0].tolist()


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "ppm", "webp", "tga"])
def test_rgb_is_read_exactly_and_channels_last(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(gradient()).save(path, lossless=True)
    image = read_image(path)
    assert image.dtype == torch.uint8
    assert image.shape == (3, 24, 40)
    assert image.stride() == (1, 120, 3)
    assert np.array_equal(image.permute(1, 2, 0).numpy(), gradient())
    image += 1  # its memory is its own


@pytest.mark.parametrize(
    ("mode", "colour", "suffix", "expected"),
    [
        ("1", 1, "png", WHITE),
        ("1", 0, "tif", [0, 0, 0]),
        ("L", 100, "png", [100, 100, 100]),
        ("L", 100, "jpg", [100, 100, 100]),
        ("LA", (100, 255), "png", [100, 100, 100]),
        ("LA", (100, 0), "png", WHITE),
        ("RGBA", (255, 0, 0, 255), "png", RED),
        ("RGBA", (255, 0, 0, 0), "webp", WHITE),
        ("RGBA", (255, 0, 0, 51), "png", [255, 204, 204]),
        ("PA", (0, 0), "tif", WHITE),
        ("YCbCr", (76, 85, 255), "tif", [254, 0, 0]),
        ("CMYK", (0, 255, 255, 0), "tif", RED),
        ("LAB", (255, 128, 128), "tif", WHITE),
    ],
)
def test_every_mode_becomes_rgb_on_white(
    tmp_path: Path, mode: str, colour: int | tuple[int, ...], suffix: str, expected: list[int]
) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.new(mode, (8, 8), colour).save(path)
    assert pixel(path) == pytest.approx(expected, abs=1)


@pytest.mark.parametrize(
    ("transparency", "expected"),
    [(None, RED), (1, WHITE), (2, RED), (b"\xff\x00", WHITE), (b"\x00\xff", RED)],
    ids=["opaque", "index", "other index", "bytes", "other bytes"],
)
def test_palette_with_and_without_transparency(
    tmp_path: Path, transparency: int | bytes | None, expected: list[int]
) -> None:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 255, *RED, 0, 255, 0])
    options: dict[str, Any] = {} if transparency is None else {"transparency": transparency}
    image.save(tmp_path / "a.png", **options)
    assert pixel(tmp_path / "a.png") == expected


@pytest.mark.parametrize(("mode", "key"), [("RGB", (255, 0, 0)), ("L", 76), ("I;16", 20_000)])
def test_a_transparent_colour_becomes_white(tmp_path: Path, mode: str, key: int | tuple[int, ...]) -> None:
    image = Image.new(mode, (8, 8), key)
    image.putpixel((7, 7), 0)
    image.save(tmp_path / "a.png", transparency=key)
    assert pixel(tmp_path / "a.png") == WHITE
    assert read_image(tmp_path / "a.png")[:, 7, 7].tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("dtype", "suffix"),
    [("<u2", "png"), ("<u2", "tif"), (">u2", "tif"), ("<u2", "pgm"), ("<i4", "tif"), ("<f4", "tif"), ("<f4", "pfm")],
)
def test_16_bit_grey_is_scaled_not_clipped(tmp_path: Path, dtype: str, suffix: str) -> None:
    values = np.arange(256, dtype=np.int64).reshape(16, 16) * 257
    Image.fromarray(values.astype(dtype)).save(tmp_path / f"a.{suffix}")
    image = read_image(tmp_path / f"a.{suffix}")
    assert image.shape == (3, 16, 16)
    for channel in image:
        assert channel.flatten().tolist() == list(range(256))


def test_16_bit_grey_stays_dark_if_it_is_dark(tmp_path: Path) -> None:
    Image.fromarray(np.full((8, 8), 200, dtype=np.uint16)).save(tmp_path / "a.png")
    assert pixel(tmp_path / "a.png") == [1, 1, 1]


@pytest.mark.parametrize(("dtype", "suffix"), [(np.uint16, "pgm"), (np.uint16, "tif")])
def test_16_bit_grey_stays_dark_in_other_formats_too(tmp_path: Path, dtype: type, suffix: str) -> None:
    Image.fromarray(np.full((8, 8), 200, dtype=dtype)).save(tmp_path / f"a.{suffix}")
    assert pixel(tmp_path / f"a.{suffix}") == [1, 1, 1]


@pytest.mark.parametrize(
    ("dtype", "white"), [(np.float32, 1), (np.float32, 255), (np.float32, 65535), (np.int32, 255), (np.int32, 65535)]
)
def test_the_range_of_32_bits_is_told_by_the_largest_value(tmp_path: Path, dtype: type, white: int) -> None:
    Image.fromarray(np.array([[0, white / 5, white]]).astype(dtype)).save(tmp_path / "a.tif")
    assert read_image(tmp_path / "a.tif")[0, 0].tolist() == [0, 51, 255]


@pytest.mark.parametrize("value", [-1.0, 1e6, float("nan")])
def test_float_out_of_range_is_refused(tmp_path: Path, value: float) -> None:
    Image.fromarray(np.full((8, 8), value, dtype=np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(BadImage, match="its values must be from 0 to 65535, got "):
        read_image(tmp_path / "a.tif")


def test_a_format_that_this_pillow_does_not_know_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.tga").write_text("no image")
    monkeypatch.setattr(images, "FORMATS", ("JPEG", "NOVEL", "PNG"))
    known_formats.cache_clear()
    try:
        assert known_formats() == ("JPEG", "PNG")
        Image.new("RGB", (8, 8), "red").save(tmp_path / "a.png")
        assert pixel(tmp_path / "a.png") == RED
        with pytest.raises(BadImage, match="in no image format that Thaw reads"):
            read_image(tmp_path / "a.tga")
    finally:
        known_formats.cache_clear()


CMYK_COLOURS = [
    ((0, 255, 255, 0), RED),
    ((255, 0, 0, 0), [0, 255, 255]),
    ((0, 0, 0, 0), WHITE),
    ((0, 0, 0, 255), [0] * 3),
]


@pytest.mark.parametrize(("cmyk", "rgb"), CMYK_COLOURS)
def test_cmyk_jpeg(tmp_path: Path, cmyk: tuple[int, ...], rgb: list[int]) -> None:
    Image.new("CMYK", (16, 16), cmyk).save(tmp_path / "a.jpg", quality=95)
    assert pixel(tmp_path / "a.jpg") == pytest.approx(rgb, abs=3)


@pytest.mark.parametrize(("cmyk", "rgb"), CMYK_COLOURS)
def test_ycck_jpeg(tmp_path: Path, cmyk: tuple[int, ...], rgb: list[int]) -> None:
    # YCCK is CMY, as if it were RGB, in YCbCr, and K inverted. Pillow writes no YCCK, but four channels as they are
    # once it has inverted them, with an Adobe marker whose last byte tells the colour space: 0 is CMYK, 2 is YCCK.
    cmy = Image.new("RGB", (1, 1), cmyk[:3]).convert("YCbCr").getpixel((0, 0))
    assert isinstance(cmy, tuple)
    stored = (*(255 - value for value in cmy), cmyk[3])
    buffer = io.BytesIO()
    Image.new("CMYK", (16, 16), stored).save(buffer, "jpeg", quality=95)
    data = bytearray(buffer.getvalue())
    transform = data.index(b"Adobe") + 11
    assert data[transform] == 0
    data[transform] = 2
    (tmp_path / "a.jpg").write_bytes(data)
    assert pixel(tmp_path / "a.jpg") == pytest.approx(rgb, abs=3)


INVERSE = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""How the camera turned an upright image, by the orientation it wrote."""


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "tif", "webp", "jpg"])
def test_exif_orientation_is_undone(tmp_path: Path, orientation: int, suffix: str) -> None:
    upright = Image.fromarray(gradient())
    turn = INVERSE[orientation]
    stored = upright if turn is None else upright.transpose(turn)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / f"a.{suffix}", exif=exif, lossless=True, quality=95, subsampling=0)
    image = read_image(tmp_path / f"a.{suffix}").permute(1, 2, 0).numpy()
    assert image.shape == (24, 40, 3)
    assert np.abs(image.astype(int) - gradient()).max() <= (4 if suffix == "jpg" else 0)


def test_damaged_exif_does_not_hurt(tmp_path: Path) -> None:
    Image.fromarray(gradient()).save(tmp_path / "a.png", exif=b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x09\x01")
    assert np.array_equal(read_image(tmp_path / "a.png").permute(1, 2, 0).numpy(), gradient())


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif"])
def test_first_frame_of_an_animation(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:], lossless=True)
    assert pixel(tmp_path / f"a.{suffix}") == RED


@pytest.mark.parametrize(
    ("min_size", "expected"),
    [(None, (300, 400)), (301, (300, 400)), (151, (300, 400)), (150, (150, 200)), (70, (75, 100)), (1, (38, 50))],
)
@pytest.mark.parametrize("orientation", [1, 6])
def test_min_size_bounds_the_shorter_side(
    tmp_path: Path, min_size: int | None, expected: tuple[int, int], orientation: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(gradient(300, 400)).save(tmp_path / "a.jpg", exif=exif)
    shape = tuple(read_image(tmp_path / "a.jpg", min_size).shape[1:])
    assert shape == (expected if orientation == 1 else expected[::-1])


def test_min_size_changes_nothing_but_jpeg(tmp_path: Path) -> None:
    Image.fromarray(gradient()).save(tmp_path / "a.png")
    assert torch.equal(read_image(tmp_path / "a.png", min_size=1), read_image(tmp_path / "a.png"))


def test_min_size_reads_almost_the_same_picture(tmp_path: Path) -> None:
    Image.fromarray(gradient(320, 400)).save(tmp_path / "a.jpg", quality=95)
    small = read_image(tmp_path / "a.jpg", min_size=40).permute(1, 2, 0).numpy().astype(int)
    blocks = gradient(320, 400).reshape(40, 8, 50, 8, 3).mean(axis=(1, 3))
    assert np.abs(small - blocks).max() < 4


@pytest.mark.parametrize("name", ["two words.png", "line\nbreak.png", "Ämeise 蚂蚁.png", "no suffix", "text.txt"])
def test_name_does_not_matter(tmp_path: Path, name: str) -> None:
    Image.new("RGB", (8, 8), "red").save(tmp_path / name, format="png")
    assert pixel(tmp_path / name) == RED


@pytest.mark.parametrize(
    ("contents", "reason"),
    [
        (b"<html><body>404 Not Found</body></html>", "its contents are in no image format that Thaw reads"),
        (b"", "it is empty"),
        (None, "No such file or directory"),
    ],
    ids=["html", "empty", "missing"],
)
def test_what_is_no_image_is_named(tmp_path: Path, contents: bytes | None, reason: str) -> None:
    path = tmp_path / "a.jpg"
    if contents is not None:
        path.write_bytes(contents)
    with pytest.raises(BadImage) as caught:
        read_image(path)
    assert str(caught.value) == f"{path} cannot be read as an image: {reason}."
    assert (caught.value.path, caught.value.reason) == (path, reason)


@pytest.mark.parametrize("min_size", [None, 1])
@pytest.mark.parametrize(("suffix", "part"), [("jpg", 0.5), ("jpg", 0.9), ("png", 0.5), ("gif", 0.5), ("tif", 0.5)])
def test_truncated_file_is_refused(tmp_path: Path, suffix: str, part: float, min_size: int | None) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])
    with pytest.raises(BadImage, match=r"cannot be read as an image: [^\n]+[.]$"):
        read_image(path, min_size)


@pytest.mark.parametrize("start", [0, 20, 60])
@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "tif", "bmp", "webp", "ppm"])
def test_damaged_file_gives_an_image_or_a_bad_image(tmp_path: Path, suffix: str, start: int) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(gradient()).save(path)
    sound, generator = path.read_bytes(), np.random.default_rng(start)
    for _ in range(20):
        data = bytearray(sound)
        data[start : start + 20] = generator.bytes(20)
        path.write_bytes(data)
        try:
            assert read_image(path).dtype == torch.uint8
        except BadImage as error:
            assert "\n" not in error.reason  # noqa: PT017  (either outcome is right)


@pytest.fixture
def at_most(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Sets the number of pixels that are decoded at the most."""

    def set_limit(pixels: int) -> None:
        monkeypatch.setattr(images, "MOST_PIXELS", pixels)
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pixels)

    return set_limit


@pytest.mark.parametrize("limit", [959, 400], ids=["a warning of Pillow's", "an error of Pillow's"])
@pytest.mark.parametrize("suffix", ["png", "gif", "webp", "tif"])
def test_too_many_pixels_to_decode(tmp_path: Path, at_most: Callable[[int], None], suffix: str, limit: int) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(gradient()).save(path)
    at_most(limit)
    with pytest.raises(BadImage) as caught:
        read_image(path, min_size=1)
    assert str(caught.value) == (
        f"{path} cannot be read as an image: it has 960 pixels to decode, and {limit} are the most: scale it down, "
        "or cut it into parts."
    )
    at_most(960)
    assert read_image(path).shape == (3, 24, 40)


@pytest.mark.parametrize("in_memory", [False, True])
@pytest.mark.parametrize("limit", [319 * 400, 40 * 50], ids=["a warning of Pillow's", "an error of Pillow's"])
def test_a_jpeg_counts_by_the_pixels_that_are_decoded(
    tmp_path: Path, at_most: Callable[[int], None], limit: int, in_memory: bool
) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(gradient(320, 400)).save(path)
    file = io.BytesIO(path.read_bytes()) if in_memory else None
    at_most(limit)
    assert read_header(path) == ("JPEG", 400, 320)
    assert read_image(path, 40, file).shape == (3, 40, 50)
    with pytest.raises(BadImage, match=f"it has 128,000 pixels to decode, and {limit:,} are the most"):
        read_image(path, None, file)


def test_a_progressive_jpeg_counts_in_full(tmp_path: Path, at_most: Callable[[int], None]) -> None:
    Image.fromarray(gradient(320, 400)).save(tmp_path / "a.jpg", progressive=True)
    at_most(100_000)
    with pytest.raises(BadImage, match="it has 128,000 pixels to decode"):
        read_image(tmp_path / "a.jpg", 40)


def test_an_aerial_photograph_is_read(tmp_path: Path) -> None:
    Image.new("L", (14_000, 10_000), 100).save(tmp_path / "a.jpg")
    assert read_image(tmp_path / "a.jpg", 256).shape == (3, 1250, 1750)


def test_bad_image_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(BadImage(Path("a b.jpg"), "image file is truncated")))
    assert str(error) == "a b.jpg cannot be read as an image: image file is truncated."
    assert error.reason == "image file is truncated"


def test_the_header_tells_the_type_whatever_the_name(tmp_path: Path) -> None:
    Image.fromarray(gradient()).save(tmp_path / "a.jpg", "GIF")
    assert read_header(tmp_path / "a.jpg") == ("GIF", 40, 24)
    (tmp_path / "b.jpg").write_text("<html>404</html>")
    with pytest.raises(BadImage, match="in no image format that Thaw reads"):
        read_header(tmp_path / "b.jpg")


def test_a_telephones_photograph_is_read_upright(tmp_path: Path) -> None:
    pytest.importorskip("pillow_heif")
    known_formats()
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    Image.fromarray(gradient()).save(tmp_path / "a.HEIC", "HEIF", exif=exif.tobytes(), quality=-1)
    assert read_header(tmp_path / "a.HEIC")[0] == "HEIF"
    upright = torch.from_numpy(np.rot90(gradient(), -1).copy()).permute(2, 0, 1)
    assert (read_image(tmp_path / "a.HEIC").int() - upright.int()).abs().max() <= 10


def test_without_its_package_a_telephones_photograph_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    monkeypatch.setattr(images, "FORMATS", tuple(name for name in FORMATS if name != "HEIF"))
    known_formats.cache_clear()
    try:
        for file in (None, io.BytesIO((tmp_path / "a.heic").read_bytes())):
            with pytest.raises(BadImage, match=r"HEIC needs a package: pip install pillow-heif\.$"):
                read_image(tmp_path / "a.heic", file=file)
        (tmp_path / "b.heic").write_text("<html>")
        with pytest.raises(BadImage, match="in no image format that Thaw reads"):
            read_image(tmp_path / "b.heic")
    finally:
        known_formats.cache_clear()


def test_the_formats_are_those_of_the_suffixes() -> None:
    known_formats()  # pillow-heif's, too
    of_suffixes = {Image.registered_extensions()[suffix] for suffix in IMAGE_SUFFIXES}
    assert set(FORMATS) == of_suffixes - {"MPO"}  # opened as a JPEG, which it is
    assert set(FORMATS) <= set(Image.OPEN)


@pytest.mark.parametrize("read", [read_image, read_header])
def test_postscript_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Callable[[Path], object]) -> None:
    trace, program, path = tmp_path / "trace", tmp_path / "gs", tmp_path / "a.jpg"
    program.write_text(f"#!/bin/sh\necho run >> {trace}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n")
    with pytest.raises(BadImage, match="in no image format that Thaw reads"):
        read(path)
    assert not trace.exists()


@pytest.mark.parametrize("target", ["pipe", "/dev/zero", "a.jpg"], ids=["a pipe", "a device", "itself"])
@pytest.mark.parametrize("read", [read_image, read_header])
def test_a_link_to_what_has_no_end_is_named(tmp_path: Path, read: Callable[[Path], object], target: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "a.jpg").symlink_to(target)
    reasons = []

    def note_reason() -> None:
        try:
            read(tmp_path / "a.jpg")
        except BadImage as error:
            reasons.append(error.reason)

    reader = Thread(target=note_reason, daemon=True)
    reader.start()
    reader.join(timeout=10)
    assert reasons == ["Too many levels of symbolic links" if target == "a.jpg" else "not a regular file"]
