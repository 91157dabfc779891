"""Decoding of images to pixels: uint8 RGB, upright, of a bounded size.

Pillow decodes. If OpenCV is installed (the extra `faces`), it decodes plain JPEGs, twice as fast and to the same
pixels: both use libjpeg-turbo. None of the 231 million values of 6,139 face crops differs.
"""

from __future__ import annotations

import importlib
import io
import os
import re
import warnings
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError, features

from angulus.core import limits
from angulus.core.checks import InputError, one_line

KINDS = ("JPEG", "PNG", "WebP", "BMP", "TIFF", "GIF", "AVIF", "HEIF")
BACKGROUND = 255  # behind transparent pixels: white
BYTES_PER_PIXEL = 12  # in memory while decoding, including copies

_NAMES = {"MPO": "JPEG", "WEBP": "WebP"}  # Pillow's names that differ from ours; phones' JPEGs are often MPOs
_UNSUPPORTED = (  # kinds that Pillow or its build may not read, by their first bytes
    (4, b"ftypavif", "AVIF", "convert it to PNG"),
    (4, b"ftyp", "HEIF or a video", "HEIF needs `pip install 'angulus[heif]'`"),
    (0, b"\x00\x00\x00\x0cjP", "JPEG 2000", "convert it to PNG"),
    (0, b"\xff\x0a", "JPEG XL", "convert it to PNG"),
    (0, b"\x00\x00\x00\x0cJXL", "JPEG XL", "convert it to PNG"),
)
_ORIENTATION = 0x0112  # the EXIF tag for the image's orientation; 1: upright
_PLAIN_SEGMENTS = (0xE0, 0xDB, 0xC0, 0xC2, 0xC4, 0xDD)  # JFIF, quantisation, frames, Huffman codes, restarts
_STRIP = 1_000_000  # pixels blended at a time


class TooManyPixelsError(InputError):
    """An image of more pixels than are decoded, by its header."""


@dataclass(frozen=True)
class Header:
    """The size and kind of an image before it is decoded."""

    kind: str  # one of `KINDS`
    width: int  # in pixels, as stored: an EXIF tag may turn the image
    height: int


def header(data: bytes, what: str = "the file") -> Header:
    """Read the size and kind of an encoded image, without decoding it; errors call it `what`.

    Raises:
        checks.InputError: empty, not an image, of an unsupported kind, cut short, several frames, or too large.

    >>> file = io.BytesIO()
    >>> Image.new("RGB", (6, 4)).save(file, "PNG")
    >>> header(file.getvalue())
    Header(kind='PNG', width=6, height=4)
    """
    return _open(data, what)[1]


def decode(data: bytes, what: str = "the file") -> NDArray[np.uint8]:
    """Decode an image to uint8 RGB [height, width, 3].

    The image is turned upright by its EXIF orientation. Grey becomes three equal channels, CMYK becomes RGB. 16 bits
    are cut to the high eight, so window a scan that uses part of the range first. Transparent pixels become white.

    Raises:
        checks.InputError: what `header` refuses; a file that its decoder cannot read. An image that is cut short is
            read only with `angulus --read-damaged` (ANGULUS_READ_DAMAGED=1): missing pixels are grey or black, and a
            warning names the image.
    """
    if _is_plain_jpeg(data) and (pixels := _by_opencv(data)) is not None:
        return pixels
    image, info, whole = _open(data, what)
    try:
        plain = whole and info.kind == "JPEG" and image.mode in ("RGB", "L")
        plain = plain and image.getexif().get(_ORIENTATION, 1) == 1
    except Exception as error:  # a damaged file can raise nearly anything
        raise InputError(f"{what} must be a whole {info.kind}; decoding it gave: {one_line(error)}") from error
    if plain and (pixels := _by_opencv(data)) is not None:
        return pixels
    return opened(image, what)


def _by_opencv(data: bytes) -> NDArray[np.uint8] | None:
    """The pixels of a JPEG; None if OpenCV is not installed or does not read it, for Pillow to say why."""
    fast = opencv()
    if fast is None:
        return None
    try:
        return fast.imdecode(np.frombuffer(data, np.uint8), fast.IMREAD_COLOR_RGB)  # type: ignore[no-any-return]
    except fast.error:  # it has limits of its own
        return None


def _is_plain_jpeg(data: bytes) -> bool:
    """Whether a file is a whole JPEG of 8 bits, grey or colour, whose header has nothing but what decoding needs.

    Such a file needs no second look by Pillow, which takes as long as decoding a small face. Any segment of another
    kind (EXIF, Adobe, several frames), any wrong length and any size beyond the limit leave the file to Pillow.
    """
    place, size = 2, 0
    if data[:2] != b"\xff\xd8":
        return False
    while place + 10 <= len(data) and data[place] == 0xFF:
        kind, length = data[place + 1], int.from_bytes(data[place + 2 : place + 4], "big")
        if kind == 0xDA:  # the pixels
            return 0 < size <= limits.most_unpacked() // BYTES_PER_PIXEL and _whole(data, "JPEG")
        if kind not in _PLAIN_SEGMENTS or length < 2:
            return False
        if kind in (0xC0, 0xC2):  # the frame: bits, height, width, channels
            bits, channels = data[place + 4], data[place + 9]
            if size or bits != 8 or channels not in (1, 3) or length != 8 + 3 * channels:
                return False
            size = int.from_bytes(data[place + 5 : place + 7], "big") * int.from_bytes(
                data[place + 7 : place + 9], "big"
            )
        place += 2 + length
    return False


def opened(image: Image.Image, what: str = "the image") -> NDArray[np.uint8]:
    """uint8 RGB [height, width, 3] of an image that Pillow has opened or made, as `decode` gives it.

    >>> opened(Image.new("L", (2, 1), 7)).tolist()
    [[[7, 7, 7], [7, 7, 7]]]
    """
    try:
        return _rgb(ImageOps.exif_transpose(image), what)
    except InputError:
        raise
    except Exception as error:  # a damaged file can raise nearly anything
        kind = _NAMES.get(image.format or "", image.format or "image")
        raise InputError(f"{what} must be a whole {kind}; decoding it gave: {one_line(error)}") from error


def _open(data: bytes, what: str) -> tuple[Image.Image, Header, bool]:
    """The image, not decoded yet; its header; whether the file is complete."""
    if not data:
        raise InputError(f"{what} must be an image; it is empty (0 bytes)")
    most = limits.most_unpacked() // BYTES_PER_PIXEL
    if Image.MAX_IMAGE_PIXELS is not None and most > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = most  # Pillow's own limit, equal by default, follows ours
    try:
        image = Image.open(io.BytesIO(data), formats=_formats())
    except UnidentifiedImageError as error:
        raise InputError(_unsupported(data, what)) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:  # it names the pixels
        raise _too_large(what, re.sub(r".*\((\d+) pixels\).*", r"\1 pixels", one_line(error))) from error
    except Exception as error:  # a damaged file can raise nearly anything
        rule = f"{what} must be a whole image"
        raise InputError(f"{rule}; its header is cut short or damaged: {one_line(error)}") from error
    kind = _NAMES.get(image.format or "", image.format or "")
    if image.width * image.height > most:
        raise _too_large(what, f"{image.width}x{image.height}")
    if kind != "JPEG" and getattr(image, "n_frames", 1) > 1:
        raise InputError(f"{what} must be one image; this {kind} has several frames; save one of them")
    whole = _whole(data, kind)
    if not whole:
        if not os.environ.get(limits.READ_DAMAGED):
            rule = f"{what} must be a whole {kind}; it is cut short ({len(data):,} bytes)"
            raise InputError(f"{rule}; angulus --read-damaged COMMAND reads what there is")
        ImageFile.LOAD_TRUNCATED_IMAGES = True
        warnings.warn(f"{what} is cut short; missing pixels are grey or black", stacklevel=3)
    return image, Header(kind, image.width, image.height), whole


def _too_large(what: str, size: str) -> TooManyPixelsError:
    most = limits.most_unpacked() // BYTES_PER_PIXEL
    return TooManyPixelsError(f"{what} must have at most {most:,} pixels; its header says {size}; {limits.RAISE}")


def _whole(data: bytes, kind: str) -> bool:
    """Whether the file ends as its kind must; decoders silently fill up some that do not."""
    if kind == "JPEG":
        return data.rfind(b"\xff\xd9", data.rfind(b"\xff\xda")) > 0  # the end, behind the start of the last scan
    if kind == "PNG":
        return data.rfind(b"IEND") > 0
    return kind != "WebP" or len(data) >= int.from_bytes(data[4:8], "little") + 8


def _rgb(image: Image.Image, what: str) -> NDArray[np.uint8]:
    if image.mode == "CMYK" and image.format in ("JPEG", "MPO", None) and "adobe" not in image.info:
        rule = f"{what} must define its CMYK"
        raise InputError(f"{rule}; it has no Adobe marker, so ink may be stored inverted or not; save it as RGB")
    if image.mode.startswith("I;16"):
        high = (np.asarray(image) >> 8).astype(np.uint8)
        return np.repeat(high[..., None], 3, axis=2)
    if image.mode in ("I", "F"):
        rule = f"{what} must have 8 or 16 bits per channel"
        raise InputError(f"{rule}; it has 32; scale its values to 0..255 and save it")
    if image.has_transparency_data:
        return _over_background(np.asarray(image.convert("RGBA")))
    return np.array(image.convert("RGB"))


def _over_background(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Blend RGBA [height, width, 4] with the background, rounded; in strips, because it takes wider numbers."""
    height, width, _ = pixels.shape
    out = np.empty((height, width, 3), np.uint8)
    rows = max(1, _STRIP // width)
    for start in range(0, height, rows):
        strip = pixels[start : start + rows].astype(np.uint32)
        alpha = strip[..., 3:]
        out[start : start + rows] = (strip[..., :3] * alpha + BACKGROUND * (255 - alpha) + 127) // 255
    return out


def _unsupported(data: bytes, what: str) -> str:
    for start, magic, kind, way in _UNSUPPORTED:
        if data[start : start + len(magic)] == magic:
            return f"{what} must be {', '.join(KINDS[:-1])} or {KINDS[-1]}; it is {kind}; {way}"
    return f"{what} must be an image; its first bytes are {data[:8]!r}; kinds that are read: {', '.join(KINDS)}"


@cache
def _formats() -> tuple[str, ...]:
    """The formats that Pillow may read, by its names. Others are never tried: each decoder is a risk."""
    formats = ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"]
    if features.check("avif"):
        formats.append("AVIF")
    try:
        importlib.import_module("pillow_heif").register_heif_opener()
        formats.append("HEIF")
    except ImportError:
        pass  # `_unsupported` names it when needed
    return tuple(formats)


@cache
def opencv() -> Any:
    """The package cv2, or None if it is not installed."""
    try:
        return importlib.import_module("cv2")
    except ImportError:
        return None
