"""One image file -> a uint8 RGB tensor, or an error that names the file."""

import contextlib
import errno
import re
import stat
import warnings
from collections.abc import Callable
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from thaw.errors import ThawError, first_line, printable

MOST_PIXELS = 500_000_000
"""Pixels of an image that are decoded: slides and aerial photographs have some hundreds of millions. A file of a few
kilobytes may claim any number. Pillow takes 4 bytes for each, and 4 more to convert it, the copy to the tensor 6: this
many take up to 7 GB, in each process or thread that reads."""
BOMB = (Image.DecompressionBombError, Image.DecompressionBombWarning)

# Set once: `warnings.catch_warnings` around each read is not safe in threads. What Pillow warns of (odd metadata)
# does not change the pixels, except for an image so large that decoding it may fill the memory.
warnings.filterwarnings("ignore", module=r"PIL\.")
warnings.filterwarnings("error", category=Image.DecompressionBombWarning)
Image.MAX_IMAGE_PIXELS = MOST_PIXELS  # beyond it, Pillow warns, and raises an error at twice as many

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "JPEG2000", "AVIF", "HEIF", "TGA")
"""What a file is tried as, where Pillow knows it: AVIF came with 11.3, HEIF comes with pillow-heif. It reads more:
PostScript, for one, which it has Ghostscript run as a program."""

BITS_PER_SAMPLE = 258
"""Tag of a TIFF."""

Read = Callable[[Path, int], torch.Tensor]
"""An image and the least length of its shorter side -> uint8 (3, H, W)."""


class BadImage(ThawError):  # noqa: N818  (a finding as often as an error)
    """A file that cannot be read as an image.

    Args:
        path: The file.
        reason: What is wrong with it, in one line.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(path, reason)  # both as they are, so that the error can be pickled out of a worker process
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{printable(str(self.path))} cannot be read as an image: {self.reason}."


def read_image(path: Path, min_size: int | None = None, file: BytesIO | None = None) -> torch.Tensor:
    """The image as uint8 (3, H, W) in RGB, upright, with its memory laid out channels-last.

    Transparency is laid on white, 16-bit grey scaled to 8 bits, an animation stands at its first frame; colour
    profiles are not applied.

    Args:
        path: The file; its contents, not its suffix, tell the format.
        min_size: Lets JPEG, and only JPEG, be decoded at 1/2, 1/4 or 1/8 of its size, which is several times faster,
            as long as the shorter side keeps this many pixels. A larger image than needed is not cut down to it.
        file: What to read in its place, where there is no such file.

    Raises:
        BadImage: The file is missing, damaged, not an image, or has more pixels than `MOST_PIXELS` to decode.
    """
    try:
        with open_image(file or path) as image:
            whole = image.size
            if min_size is not None:
                image.draft(None, (min_size, min_size))
            # At any scale, the decoder of a progressive JPEG keeps the coefficients of all of it.
            width, height = whole if "progressive" in image.info else image.size
            if width * height > MOST_PIXELS:  # before any memory is taken for them
                raise ValueError(_too_many(width * height))
            image.load()
            return _pixels(image)
    except Exception as error:  # Pillow raises whatever its parsers run into
        raise BadImage(path, _reason(error)) from error


def convert_image(image: Image.Image) -> torch.Tensor:
    """What `read_image` gives of a file, of an image in memory, which is left as it is.

    Raises:
        BadImage: It is damaged.
    """
    try:
        return _pixels(image.copy())
    except Exception as error:  # Pillow may decode it only now
        raise BadImage(Path("an image in memory"), _reason(error)) from error


def _pixels(image: Image.Image) -> torch.Tensor:
    """The decoded image, turned upright in place, as uint8 (3, H, W)."""
    with contextlib.suppress(Exception):  # damaged metadata under sound pixels
        ImageOps.exif_transpose(image, in_place=True)
    pixels = np.array(_to_rgb(image))  # a copy: PyTorch warns of the read-only memory of `asarray`
    return torch.from_numpy(pixels).permute(2, 0, 1)


def read_header(path: Path) -> tuple[str, int, int]:
    """Format by Pillow's name (`JPEG`), width and height, by what the first bytes say.

    Raises:
        BadImage: The file is missing or not an image.
    """
    try:
        with open_image(path) as image:
            return image.format or "", image.width, image.height
    except Exception as error:
        raise BadImage(path, _reason(error)) from error


def open_image(file: Path | BytesIO) -> Image.Image:
    """The image of which only the header has been read.

    Raises:
        Exception: There is none; Pillow raises whatever its parsers run into.
    """
    if isinstance(file, Path) and not regular_size(file):  # as a download that failed leaves it
        raise ValueError("it is empty")
    try:
        return Image.open(file, formats=known_formats())
    except UnidentifiedImageError as error:
        if "HEIF" not in known_formats() and _is_heif(file):
            raise ValueError("what telephones call HEIC needs a package: pip install pillow-heif") from error
        raise
    except BOMB:
        # Pillow counts what the file holds, and a JPEG may be decoded at a fraction of it.
        if isinstance(file, BytesIO):
            file.seek(0)
        with contextlib.suppress(SyntaxError):  # it is no JPEG
            return JpegImageFile(file)
        raise


def _is_heif(file: Path | BytesIO) -> bool:
    """True of what begins as HEIF's files do (ISO/IEC 23008-12)."""
    with BytesIO(file.getvalue()) if isinstance(file, BytesIO) else file.open("rb") as stream:
        begin = stream.read(12)
    return begin[4:] in (b"ftypheic", b"ftypheix", b"ftyphevc", b"ftypmif1", b"ftypmsf1")


def _too_many(pixels: int) -> str:
    return f"it has {pixels:,} pixels to decode, and {MOST_PIXELS:,} are the most: scale it down, or cut it into parts"


@cache
def known_formats() -> tuple[str, ...]:
    """Those of `FORMATS` that this Pillow reads; any other would end a search among them."""
    Image.init()
    with contextlib.suppress(ImportError):
        import pillow_heif  # of the extra `heif`

        pillow_heif.register_heif_opener()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def regular_size(path: Path) -> int:
    """Bytes of a file.

    Raises:
        OSError: It is missing, or a pipe, which would be waited for, or a device, which may have no end.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file")
    return status.st_size


def _to_rgb(image: Image.Image) -> Image.Image:
    """The image in mode RGB, whatever mode it comes in; the image itself if it is in RGB already."""
    if image.mode.startswith("I") or image.mode == "F":
        image = _to_8_bit(image)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(rgba, mask=rgba)
        return white
    return image if image.mode == "RGB" else image.convert("RGB")


def _to_8_bit(image: Image.Image) -> Image.Image:
    """The greyscale image in 8 bits, its transparent value white. Pillow's own conversion would clip all above 255.

    What has 16 bits ends at 65535. Images of 32 bits come in several ranges: whole numbers are taken to end
    at the first of 255 and 65535 that is not below their largest value, others at the first of 1, 255 and 65535.

    Raises:
        ValueError: A value is outside 0 to 65535.
    """
    grey = np.asarray(image, dtype=np.float32)
    low, high = grey.min(), grey.max()
    if not (low >= 0 and high <= 65535):  # so written, it refuses NaN too
        raise ValueError(f"its values must be from 0 to 65535, got {low:g} to {high:g}")
    is_narrow = image.format == "PPM" or getattr(image, "tag_v2", {}).get(BITS_PER_SAMPLE) == (16,)
    ends = {"F": (1, 255, 65535), "I": (65535,) if is_narrow else (255, 65535)}.get(image.mode, (65535,))
    white = next(end for end in ends if high <= end)
    scaled = np.rint(grey * (255 / white)).astype(np.uint8)
    scaled[grey == image.info.get("transparency")] = 255
    return Image.fromarray(scaled)


def _reason(error: Exception) -> str:
    """What is wrong with the file, in one line without a full stop."""
    if isinstance(error, UnidentifiedImageError):
        return "its contents are in no image format that Thaw reads"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, BOMB) and (pixels := re.search(r"\((\d+) pixels\)", str(error))):
        return _too_many(int(pixels[1]))
    return first_line(error).rstrip(".")
