"""The one place where encoded images become pixels: JPEG, PNG, WebP and BMP to uint8 RGB, upright, of a bounded size.

Decoding is OpenCV's: about twice as many small JPEGs a second on a core as Pillow, and it turns an image upright by its
EXIF tag. The header is read here first, so that nothing large or unknown reaches a decoder.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from angulus.checks import InputError

try:
    import cv2
except ImportError as error:  # pragma: no cover
    raise InputError("decoding images needs OpenCV; pip install opencv-python-headless") from error

MAX_PIXELS = 100_000_000  # 300 MB decoded; a phone's largest photos are under it
KINDS = ("JPEG", "PNG", "WebP", "BMP")
BACKGROUND = 255  # what shows through transparent pixels: white

_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # JPEG's start of frame, of any coding
_OTHER_KINDS = (  # named, so that the user knows what to convert
    (0, b"GIF8", "GIF"),
    (0, b"II*\x00", "TIFF"),
    (0, b"MM\x00*", "TIFF"),
    (4, b"ftypavif", "AVIF"),
    (4, b"ftyp", "HEIF or video"),
    (0, b"\x00\x00\x00\x0cjP", "JPEG 2000"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\x00\x00\x00\x0cJXL", "JPEG XL"),
)


@dataclass(frozen=True)
class Header:
    """What an image says of itself before it is decoded.

    Attributes:
        kind: one of `KINDS`.
        width, height: in pixels, as stored: an EXIF tag may turn the image.
        alpha: whether it may hold transparent pixels.
        exif: whether it holds EXIF beside transparency, where turning and blending would have to meet.
    """

    kind: str
    width: int
    height: int
    alpha: bool = False
    exif: bool = False


def header(data: bytes, what: str = "the image", *, max_pixels: int = MAX_PIXELS) -> Header:
    """Read the size and kind of an encoded image, without decoding it.

    Args:
        data: the whole file.
        what: what to call it in errors.
        max_pixels: width times height may be no more.

    Raises:
        checks.InputError: empty, no image, of a kind that is not read, cut short, or too large.

    >>> import cv2, numpy
    >>> header(cv2.imencode(".png", numpy.zeros((4, 6, 3), numpy.uint8))[1].tobytes())
    Header(kind='PNG', width=6, height=4, alpha=False, exif=False)
    """
    if not data:
        raise InputError(f"{what} must be an image; it is empty (0 bytes)")
    try:
        found = _header(data, what)
    except (struct.error, IndexError) as error:
        raise InputError(f"{what} must be a whole image; its header is cut short or damaged") from error
    if found.width < 1 or found.height < 1:
        raise InputError(f"{what} must have at least one pixel; its header says {found.width}x{found.height}")
    if found.width * found.height > max_pixels:
        raise InputError(
            f"{what} must have at most {max_pixels:,} pixels; its header says {found.width}x{found.height}; "
            "scale it down, if it is no decompression bomb"
        )
    return found


def decode(data: bytes, what: str = "the image", *, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Decode an image to uint8 RGB [height, width, 3].

    Turned upright by its EXIF orientation. Grey becomes three equal channels, CMYK (as Adobe stores it, inverted) RGB;
    of 16 bits the high eight are kept, so a scan that uses a part of the range is to be windowed before; transparent
    pixels are laid over white.

    Args:
        data: the whole file, JPEG, PNG, WebP (one frame) or BMP.
        what: what to call it in errors.
        max_pixels: refuse a larger image by its header, before anything is decoded.

    Raises:
        checks.InputError: what `header` refuses; a file that its decoder cannot read.
    """
    found = header(data, what, max_pixels=max_pixels)
    buffer = np.frombuffer(data, dtype=np.uint8)
    if found.alpha:
        blended = _blended(buffer, found, what)
        if blended is not None:
            return blended
    return _decoded(buffer, cv2.IMREAD_COLOR_RGB, found, what)


def _decoded(buffer: NDArray[np.uint8], flags: int, found: Header, what: str) -> NDArray[np.uint8]:
    try:
        pixels = cv2.imdecode(buffer, flags)
    except cv2.error as error:
        raise InputError(f"{what} must be a whole {found.kind}; decoding it gave: {error.err}") from error
    if pixels is None:
        raise InputError(f"{what} must be a whole {found.kind}; it cannot be decoded")
    if {pixels.shape[0], pixels.shape[1]} != {found.width, found.height}:
        raise InputError(
            f"{what} must have the size that its header says, {found.width}x{found.height}; "
            f"got {pixels.shape[1]}x{pixels.shape[0]}"
        )
    return pixels  # type: ignore[return-value]  # OpenCV says no more than a number


def _blended(buffer: NDArray[np.uint8], found: Header, what: str) -> NDArray[np.uint8] | None:
    """The image over the background; None where nothing is transparent."""
    pixels = _decoded(buffer, cv2.IMREAD_UNCHANGED, found, what)
    if pixels.ndim != 3 or pixels.shape[2] != 4:
        return None
    if pixels.dtype == np.uint16:
        pixels = (pixels >> 8).astype(np.uint8)
    alpha = pixels[..., 3:].astype(np.float32) / 255
    if alpha.min() == 1:
        return None
    if found.exif:
        raise InputError(
            f"{what} must not hold both transparent pixels and EXIF, which may turn it; save it without one of them"
        )
    return np.rint(pixels[..., 2::-1] * alpha + BACKGROUND * (1 - alpha)).astype(np.uint8)


def _header(data: bytes, what: str) -> Header:
    if data[:3] == b"\xff\xd8\xff":
        return _jpeg(data, what)
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return _png(data, what)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _webp(data, what)
    if data[:2] == b"BM" and data[6:10] == b"\x00\x00\x00\x00":
        return _bmp(data)
    for start, magic, kind in _OTHER_KINDS:
        if data[start : start + len(magic)] == magic:
            raise InputError(f"{what} must be {', '.join(KINDS[:-1])} or {KINDS[-1]}; it is {kind}; convert it to PNG")
    raise InputError(f"{what} must be an image; its first bytes are {data[:8]!r}")


def _jpeg(data: bytes, what: str) -> Header:
    place, adobe = 2, False
    found: Header | None = None
    while True:
        if data[place] != 0xFF:
            raise InputError(f"{what} must be a whole JPEG; there is no marker at byte {place}")
        while data[place] == 0xFF:
            place += 1
        marker = data[place]
        place += 1
        if marker in (0x01, *range(0xD0, 0xD9)):  # stand alone
            continue
        if marker == 0xD9:
            raise InputError(f"{what} must be a whole JPEG; it ends before its pixels")
        (length,) = struct.unpack_from(">H", data, place)
        if marker == 0xEE and data[place + 2 : place + 7] == b"Adobe":
            adobe = True
        if marker in _FRAME_MARKERS:
            _, height, width, components = struct.unpack_from(">BHHB", data, place + 2)
            found = Header("JPEG", width, height)
            if components == 4 and not adobe:
                raise InputError(
                    f"{what} must say how its CMYK is meant; it has no Adobe marker, so ink may be stored inverted "
                    "or not; save it as RGB"
                )
        place += length
        if marker == 0xDA:
            break
    if found is None or data.rfind(b"\xff\xd9", place) < 0:  # a JPEG cut short would be filled with grey
        raise InputError(f"{what} must be a whole JPEG; it is cut short ({len(data)} bytes)")
    return found


def _png(data: bytes, what: str) -> Header:
    width, height, _, colour = struct.unpack_from(">IIBB", data, 16)
    alpha, exif, place = colour in (4, 6), False, 8
    while data[place + 4 : place + 8] not in (b"IDAT", b"IEND"):
        (length,) = struct.unpack_from(">I", data, place)
        name = data[place + 4 : place + 8]
        alpha, exif = alpha or name == b"tRNS", exif or name == b"eXIf"
        place += 12 + length
    if data.rfind(b"IEND", place) < 0:
        raise InputError(f"{what} must be a whole PNG; it is cut short ({len(data)} bytes)")
    return Header("PNG", width, height, alpha, alpha and exif)


def _webp(data: bytes, what: str) -> Header:
    (size,) = struct.unpack_from("<I", data, 4)
    if len(data) < size + 8:
        raise InputError(f"{what} must be a whole WebP; it says {size + 8} bytes and has {len(data)}")
    chunk = data[12:16]
    if chunk == b"VP8 ":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
        return Header("WebP", width, height)
    if chunk == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return Header("WebP", (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, alpha=bool(bits >> 28 & 1))
    if chunk != b"VP8X":
        raise InputError(f"{what} must be a WebP image; its first chunk is {chunk!r}")
    flags = data[20]
    if flags & 0x02:
        raise InputError(f"{what} must be one image; it is an animated WebP; save the frame that is meant")
    width, height = (1 + int.from_bytes(data[place : place + 3], "little") for place in (24, 27))
    alpha = bool(flags & 0x10)
    return Header("WebP", width, height, alpha, alpha and bool(flags & 0x08))


def _bmp(data: bytes) -> Header:
    (size,) = struct.unpack_from("<I", data, 14)
    if size == 12:  # the first version of the format
        return Header("BMP", *struct.unpack_from("<HH", data, 18))
    width, height = struct.unpack_from("<ii", data, 18)
    return Header("BMP", width, abs(height))  # a negative height: stored from the top
