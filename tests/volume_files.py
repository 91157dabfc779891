"""Volumes written byte by byte, from the standards' tables and not by the library that reads them."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np

EXPLICIT_LITTLE_ENDIAN, CT = "1.2.840.10008.1.2.1", "1.2.840.10008.5.1.4.1.1.2"


def nifti(
    path: Path,
    voxels: np.ndarray,
    affine: np.ndarray,
    *,
    slope: float = 1.0,
    intercept: float = 0.0,
    code: int = 1,
    dims: tuple[int, ...] | None = None,
) -> Path:
    """A NIfTI-1 file of int16 voxels [x, y, z, ...] with the affine [4, 4] from indices to RAS+ millimetres (sform)."""
    header = bytearray(348)
    dims = voxels.shape if dims is None else dims
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, len(dims), *dims, *[1] * (7 - len(dims)))
    struct.pack_into("<2h", header, 70, 4, 16)  # int16
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    struct.pack_into("<8f", header, 76, 1, *spacing, *[1] * 4)
    struct.pack_into("<3f", header, 108, 352, slope, intercept)
    header[123] = 2  # millimetres
    struct.pack_into("<2h", header, 252, 0, code)
    struct.pack_into("<12f", header, 280, *affine[:3].ravel())
    header[344:348] = b"n+1\0"
    data = bytes(header) + bytes(4) + np.asarray(voxels, dtype="<i2").tobytes(order="F")
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def dicom(
    path: Path,
    pixels: np.ndarray,
    position: tuple[float, float, float],
    *,
    orientation: tuple[float, ...] = (1, 0, 0, 0, 1, 0),
    spacing: tuple[float, float] = (0.8, 0.7),
    series: str = "1.2.3.4",
    number: int = 1,
    slope: float = 1,
    intercept: float = -1024,
    frames: int = 0,
) -> Path:
    """A CT slice: 12-bit pixels [rows, columns] in 16, the first one's centre at `position` in LPS millimetres.

    `orientation` is the direction along a row, then along a column; `spacing` is between rows, then between columns.
    """
    unique = f"{series}.{number}"
    rows, columns = pixels.shape[-2:]

    def numbers(*values: float) -> str:
        return "\\".join(f"{value:.10g}" for value in values)

    elements = [
        (0x0008, 0x0016, "UI", CT),
        (0x0008, 0x0018, "UI", unique),
        (0x0008, 0x0060, "CS", "CT"),
        (0x0018, 0x0050, "DS", "9"),  # thickness: not the distance between slices
        (0x0020, 0x000D, "UI", "1.2.3"),
        (0x0020, 0x000E, "UI", series),
        (0x0020, 0x0013, "IS", str(number)),
        (0x0020, 0x0032, "DS", numbers(*position)),
        (0x0020, 0x0037, "DS", numbers(*orientation)),
        (0x0028, 0x0002, "US", 1),
        (0x0028, 0x0004, "CS", "MONOCHROME2"),
        *([(0x0028, 0x0008, "IS", str(frames))] if frames else []),
        (0x0028, 0x0010, "US", rows),
        (0x0028, 0x0011, "US", columns),
        (0x0028, 0x0030, "DS", numbers(*spacing)),
        (0x0028, 0x0100, "US", 16),
        (0x0028, 0x0101, "US", 12),
        (0x0028, 0x0102, "US", 11),
        (0x0028, 0x0103, "US", 0),
        (0x0028, 0x1052, "DS", numbers(intercept)),
        (0x0028, 0x1053, "DS", numbers(slope)),
        (0x7FE0, 0x0010, "OW", np.asarray(pixels, dtype="<u2").tobytes()),
    ]
    meta = b"".join(
        _element(*element)
        for element in (
            (0x0002, 0x0001, "OB", b"\0\1"),
            (0x0002, 0x0002, "UI", CT),
            (0x0002, 0x0003, "UI", unique),
            (0x0002, 0x0010, "UI", EXPLICIT_LITTLE_ENDIAN),
            (0x0002, 0x0012, "UI", "1.2.3.9"),
        )
    )
    length = _element(0x0002, 0x0000, "UL", struct.pack("<I", len(meta)))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(128) + b"DICM" + length + meta + b"".join(_element(*element) for element in elements))
    return path


def _element(group: int, element: int, kind: str, value: str | int | bytes) -> bytes:
    data = struct.pack("<H", value) if isinstance(value, int) else value.encode() if isinstance(value, str) else value
    if len(data) % 2:
        data += b"\0" if kind in ("UI", "OB") else b" "
    start = struct.pack("<HH", group, element) + kind.encode()
    if kind in ("OB", "OW"):
        return start + struct.pack("<HI", 0, len(data)) + data
    return start + struct.pack("<H", len(data)) + data
