"""What an audit knows of a data set after one pass: names, hashes, signatures and sizes, without the images."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from angulus.core.checks import InputError
from angulus.core.formats import text_array
from angulus.data import decode
from angulus.data.records import Records, Row
from angulus.data.sources import LeftOut, SourceOptions, kind_of, read_source

SIDE = 16  # of the grey thumbnail whose steps from pixel to pixel are the signature
_GREY = np.array([9798, 19235, 3735], dtype=np.int32)  # parts of 2^15: ITU-R BT.601, as OpenCV rounds it
_BAND = 256  # rows at a time
_STEPS = SIDE * (SIDE - 1)  # downward ones, then as many to the right


@dataclass(frozen=True, eq=False)
class Inventory:
    """N images of a data set that can be decoded, and what cannot.

    Attributes:
        source: the path that was read.
        kind: its format.
        about: what records say of themselves; empty for other formats.
        ids: [N] of str, unique.
        identities: [N] of str; "" where not known.
        bytes_hash: [N] a hash of each file.
        pixels_hash: [N] a hash of each image's pixels and shape, whatever it was encoded as.
        signatures: [N, 480] float16, see `signature`; zeros for an image without any contrast.
        sizes: [N, 2] width and height, upright.
        encodings: [N] of str, such as "JPEG".
        has_landmarks, has_score: [N] of bool.
        unreadable: rows whose image cannot be decoded.
        left_out: what the source's reader did not take, and rows whose id was there before.
    """

    source: str
    kind: str
    about: dict[str, Any]
    ids: NDArray[np.str_]
    identities: NDArray[np.str_]
    bytes_hash: list[bytes]
    pixels_hash: list[bytes]
    signatures: NDArray[np.float16]
    sizes: NDArray[np.int64]
    encodings: NDArray[np.str_]
    has_landmarks: NDArray[np.bool_]
    has_score: NDArray[np.bool_]
    unreadable: tuple[LeftOut, ...]
    left_out: tuple[LeftOut, ...]

    def __len__(self) -> int:
        return len(self.ids)


def take_inventory(
    source: Path,
    *,
    kind: str | None = None,
    options: SourceOptions | None = None,
    on_image: Callable[[int], None] | None = None,
) -> Inventory:
    """Read a data set once, decoding each image; about 1.5 KB an image are kept.

    Args:
        source: records, or what `sources.read_source` reads.
        kind: its format, if its name does not tell.
        options: what some readers ask for.
        on_image: told how many are done.

    Raises:
        checks.InputError: the source cannot be read, or holds no image that can be decoded.
    """
    items = read_source(source, kind, options)
    kind = kind or kind_of(source)
    seen: list[_Seen] = []
    met: set[str] = set()
    unreadable: list[LeftOut] = []
    left_out: list[LeftOut] = []
    for item in items:
        if isinstance(item, LeftOut):
            left_out.append(item)
        elif item.id in met:
            left_out.append(LeftOut(item.id, "the source has a row of this id before it"))
        else:
            met.add(item.id)
            try:
                seen.append(_see(item))
            except InputError as error:
                unreadable.append(LeftOut(item.id, str(error)))
            if on_image is not None:
                on_image(len(met))
    if not seen:
        first = next(iter([*unreadable, *left_out]), None)
        why = f"; the first left out is {first.where}: {first.reason}" if first else ""
        raise InputError(f"{source} must hold images to audit; read as {kind}, it gave none{why}")
    return Inventory(
        str(source),
        kind,
        Records(source).about if kind == "records" else {},
        text_array([each.id for each in seen]),
        text_array([each.identity for each in seen]),
        [each.bytes_hash for each in seen],
        [each.pixels_hash for each in seen],
        np.stack([each.signature for each in seen]),
        np.array([each.size for each in seen], dtype=np.int64),
        np.array([each.encoding for each in seen]),
        np.array([each.landmarks for each in seen]),
        np.array([each.score for each in seen]),
        tuple(unreadable),
        tuple(left_out),
    )


def signature(pixels: NDArray[np.uint8]) -> NDArray[np.float16]:
    """What an image looks like, [480] of unit length: the steps between neighbours in a grey 16x16 thumbnail.

        t = area average of the grey image, in whole grey levels;  v = t[y+1, x] − t[y, x];  h = t[y, x+1] − t[y, x]
        (v − mean(v), h − mean(h)), over its length

    Encoding anew, resizing and a change of brightness or contrast hardly move it. Steps and not the grey values
    themselves, because aligned faces all share the same light and dark. An image without contrast gives zeros.

    Args:
        pixels: uint8 RGB [height, width, 3].
    """
    height, width = pixels.shape[:2]
    down, across = _shares(height), _shares(width)
    small = np.zeros((SIDE, SIDE))
    for top in range(0, height, _BAND):  # a large image is not held as whole numbers
        grey = (pixels[top : top + _BAND].astype(np.int32) @ _GREY + 2**14) >> 15
        small += down[:, top : top + _BAND] @ (grey @ across.T)
    small = small.round()
    down, right = np.diff(small, axis=0).ravel(), np.diff(small, axis=1).ravel()
    steps = np.concatenate([down - down.mean(), right - right.mean()])
    length = float(np.linalg.norm(steps))
    return (steps / length if length > 0 else steps).astype(np.float16)


def _shares(size: int) -> NDArray[np.float64]:
    """[16, size]: the share that each of `size` pixels in a row has in each of 16 equal parts of the row."""
    edges = np.linspace(0, size, SIDE + 1)[:, None]
    pixels = np.arange(size)
    shared = np.minimum(edges[1:], pixels + 1) - np.maximum(edges[:-1], pixels)
    shares: NDArray[np.float64] = np.maximum(shared, 0) * (SIDE / size)
    return shares


def mirrored(signatures: NDArray[np.float16]) -> NDArray[np.float16]:
    """The signatures [N, 480] of the mirror images."""
    down = signatures[:, :_STEPS].reshape(-1, SIDE - 1, SIDE)[:, :, ::-1]
    right = -signatures[:, _STEPS:].reshape(-1, SIDE, SIDE - 1)[:, :, ::-1]
    return np.concatenate([down.reshape(-1, _STEPS), right.reshape(-1, _STEPS)], axis=1)


@dataclass(frozen=True, eq=False)
class _Seen:
    id: str
    identity: str
    bytes_hash: bytes
    pixels_hash: bytes
    signature: NDArray[np.float16]
    size: tuple[int, int]
    encoding: str
    landmarks: bool
    score: bool


def _see(row: Row) -> _Seen:
    pixels = decode.decode(row.image, row.id)
    height, width = pixels.shape[:2]
    shape = f"{height}x{width}:".encode()
    return _Seen(
        row.id,
        row.identity,
        _hash(row.image),
        _hash(shape + pixels.tobytes()),
        signature(pixels),
        (width, height),
        decode.header(row.image).kind,
        row.landmarks is not None,
        row.score is not None,
    )


def _hash(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()
