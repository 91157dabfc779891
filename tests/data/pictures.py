"""Small images and files of the field's formats, written here and not by what reads them."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

MAGIC = b"\x0a\x23\xd7\xce"


def noise(seed: int = 0, width: int = 12, height: int = 10) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def encoded(pixels: NDArray[Any] | Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png(seed: int = 0, width: int = 12, height: int = 10) -> bytes:
    return encoded(noise(seed, width, height))


def jpeg(seed: int = 0, width: int = 12, height: int = 10) -> bytes:
    return encoded(noise(seed, width, height), "JPEG", quality=95)


def turned(pixels: NDArray[Any], orientation: int, kind: str = "JPEG", **options: Any) -> bytes:
    """An image whose EXIF tag says how to turn it."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(Image.fromarray(pixels), kind, exif=exif, **options)


def png_that_says(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header says another size."""
    data = bytearray(png())
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


def every_kind(pixels: NDArray[np.uint8]) -> dict[str, bytes]:
    """An RGB picture in every kind that is read, each a file; grey where the kind is, the JPEGs nearly the same."""
    image = Image.fromarray(pixels)
    grey = np.asarray(image.convert("L"))
    return {
        "plain.png": encoded(image),
        "plain.bmp": encoded(image, "BMP"),
        "plain.webp": encoded(image, "WEBP", lossless=True),
        "grey.jpg": encoded(image.convert("L"), "JPEG", quality=95),
        "cmyk.jpg": encoded(image.convert("CMYK"), "JPEG", quality=95),
        "alpha.png": encoded(image.convert("RGBA")),
        "palette.png": encoded(image.quantize(256)),
        "sixteen.png": encoded(Image.fromarray(grey.astype(np.uint16) << 8)),
        "turned.jpg": turned(np.rot90(pixels), 6, quality=95),
    }


_PLAIN = png(0, 40, 40)
BAD = {  # what is no image that is read: the bytes, and what is said of them
    "empty.jpg": (b"", "0 bytes"),
    "text.jpg": (b"not an image", "must be an image"),
    "bomb.png": (png_that_says(60_000, 60_000), "at most 89,478,485 pixels; its header says 3600000000 pixels"),
    "short.jpg": (jpeg(0, 40, 40)[:-400], "cut short"),
    "broken.png": (_PLAIN[:200] + b"\0" * 40 + _PLAIN[240:], "whole PNG"),
    "moving.gif": (
        encoded(Image.fromarray(noise(1)), "GIF", save_all=True, append_images=[Image.fromarray(noise(2))]),
        "this GIF has several frames",
    ),
    "readme.txt": (b"about these photos", "must be an image"),
}


def record(data: bytes) -> bytes:
    """A RecordIO record, cut at the magic number where that stands on four bytes, as the format has it."""
    cuts = [place for place in range(0, len(data) - 3, 4) if data[place : place + 4] == MAGIC]
    parts = [data[start:end] for start, end in zip([0, *(cut + 4 for cut in cuts)], [*cuts, len(data)], strict=True)]
    flags = [0] if len(parts) == 1 else [1, *[2] * (len(parts) - 2), 3]
    out = b""
    for flag, part in zip(flags, parts, strict=True):
        out += MAGIC + struct.pack("<I", flag << 29 | len(part)) + part + b"\0" * (-len(part) % 4)
    return out


def labelled(id: int, labels: list[float], image: bytes, *, single: bool = False) -> bytes:
    """An image's record: one label in the header, or a list of them behind it."""
    if single:
        return struct.pack("<IfQQ", 0, labels[0], id, 0) + image
    return struct.pack("<IfQQ", len(labels), 0.0, id, 0) + struct.pack(f"<{len(labels)}f", *labels) + image


def face_rec(folder: Path, images: list[bytes], labels: list[int], *, index: bool = True) -> Path:
    """A face set as the field exchanges it: header record, images, identities, index and property."""
    count, classes = len(images), sorted(set(labels))
    end = count + 1
    contents = [(0, labelled(0, [end, end + len(classes)], b""))]
    contents += [
        (key, labelled(key, [label], image, single=True))
        for key, (image, label) in enumerate(zip(images, labels, strict=True), 1)
    ]
    for number, label in enumerate(classes):
        keys = [key for key, own in enumerate(labels, 1) if own == label]
        contents.append((end + number, labelled(end + number, [min(keys), max(keys) + 1], b"")))
    path, data, lines = folder / "train.rec", b"", ""
    for key, content in contents:
        lines += f"{key}\t{len(data)}\n"
        data += record(content)
    path.write_bytes(data)
    if index:
        path.with_suffix(".idx").write_text(lines)
    (folder / "property").write_text(f"{len(classes)},112,112\n")
    return path
