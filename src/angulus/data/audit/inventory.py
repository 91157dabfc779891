"""The facts about a data set that an audit needs, from one pass: names, hashes, signatures and sizes, no images."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from angulus.core.checks import InputError
from angulus.core.formats import text_array
from angulus.core.workers import Died, map_tasks, start_workers
from angulus.data import decode
from angulus.data.records import Records, Row
from angulus.data.sources import LeftOut, SourceOptions, kind_of, read_source
from angulus.evaluation.scoring.cells import Rows

SIDE = 16  # of the grey thumbnail whose differences between neighbours are the signature
_GREY = np.array([9798, 19235, 3735], dtype=np.int32)  # parts of 2^15: ITU-R BT.601, as OpenCV rounds it
_BAND = 256  # rows at a time
_TASK_ROWS = 64  # examined by a process at a time
_STEPS = SIDE * (SIDE - 1)  # downward differences, then as many to the right
_BLOCK = 4096  # signatures at a time
_FACTS = np.dtype(  # of one image; a hundred million fit in memory
    [("bytes", "S16"), ("pixels", "S16"), ("thumbnail", "u1", (SIDE, SIDE)), ("size", "<i4", 2)]
    + [(name, "u1") for name in ("kind", "landmarks", "score")]
)


@dataclass(frozen=True, eq=False)
class Signatures:
    """The signatures [N, 480] float16 of N images, computed for the rows that are asked for."""

    thumbnails: NDArray[np.uint8]  # [N, 16, 16], grey

    def __len__(self) -> int:
        return len(self.thumbnails)

    def __getitem__(self, rows: NDArray[np.int64]) -> NDArray[np.float16]:
        out = np.empty((len(rows), 2 * _STEPS), np.float16)
        for start in range(0, len(rows), _BLOCK):
            out[start : start + _BLOCK] = _signatures(self.thumbnails[rows[start : start + _BLOCK]])
        return out


@dataclass(frozen=True, eq=False)
class Inventory:
    """N images of a data set that can be decoded, and what cannot."""

    source: str
    kind: str
    about: dict[str, Any]  # the description of records; empty for other formats
    ids: NDArray[np.str_]  # [N] of str, unique
    identities: NDArray[np.str_]  # [N] of str; "" if unknown
    bytes_hash: NDArray[np.bytes_]  # [N] a hash of each file
    pixels_hash: NDArray[np.bytes_]  # [N] a hash of each image's pixels and shape, regardless of encoding
    signatures: Rows  # [N, 480], see `signature`; zeros for an image without contrast
    sizes: NDArray[np.int64]  # [N, 2] width and height, upright
    encodings: NDArray[np.str_]  # [N] of str, such as "JPEG"
    has_landmarks: NDArray[np.bool_]  # [N] of bool
    has_score: NDArray[np.bool_]
    unreadable: tuple[LeftOut, ...]  # rows whose image cannot be decoded
    left_out: tuple[LeftOut, ...]  # what the source's reader left out, and rows whose id occurred before

    def __len__(self) -> int:
        return len(self.ids)

    def names(self) -> NDArray[np.str_]:
        """The known identities, sorted, once each."""
        return np.unique(self.identities[self.identities != ""])


def take_inventory(
    source: Path,
    *,
    kind: str | None = None,
    options: SourceOptions | None = None,
    workers: int | None = None,
    engine: str = "local",
    ray_address: str | None = None,
    on_image: Callable[[int], None] | None = None,
) -> Inventory:
    """Read a data set once, decoding each image; keeps about 0.65 KB per image, and 0.75 KB meanwhile.

    Args:
        source, kind, options: as `sources.read_source` takes them.
        workers, engine, ray_address: as `workers.start_workers` takes them; this process alone if not given.
        on_image: called with the number of images so far.
    """
    items = read_source(source, kind, options)
    kind = kind or kind_of(source)
    facts = bytearray()
    ids: list[str] = []
    identities: list[str] = []
    known: dict[str, str] = {}  # so that equal names are one object
    unreadable: list[LeftOut] = []
    left_out: list[LeftOut] = []
    done = 0
    with contextlib.closing(start_workers(_start, engine, workers, ray_address, usual=1)) as pool:
        for task, results in map_tasks(pool, _tasks(items, left_out)):
            for (id, identity), result in zip(task, results, strict=True):
                if isinstance(result, bytes):
                    facts += result
                    ids.append(id)
                    identities.append(known.setdefault(identity, identity))
                else:
                    unreadable.append(LeftOut(id, result.reason if isinstance(result, Died) else result))
            done += len(task)
            if on_image is not None:
                on_image(done)
    if not facts:
        first = next(iter([*unreadable, *left_out]), None)
        why = f"; the first left out is {first.where}: {first.reason}" if first else ""
        raise InputError(f"{source} must hold images to audit; read as {kind}, it gave none{why}")
    columns = np.frombuffer(facts, _FACTS)
    return Inventory(
        str(source),
        kind,
        Records(source).about if kind == "records" else {},
        text_array(ids),
        text_array(identities),
        columns["bytes"],
        columns["pixels"],
        Signatures(columns["thumbnail"]),
        columns["size"].astype(np.int64),
        np.array(decode.KINDS)[columns["kind"]],
        columns["landmarks"].astype(bool),
        columns["score"].astype(bool),
        tuple(unreadable),
        tuple(left_out),
    )


def _tasks(
    items: Iterable[Row | LeftOut], left_out: list[LeftOut]
) -> Iterator[tuple[list[tuple[str, str]], list[Row]]]:
    """A few rows at a time, and their ids and identities; what is left out is appended to `left_out`."""
    ids: set[str] = set()
    rows: list[Row] = []
    for item in items:
        if isinstance(item, LeftOut):
            left_out.append(item)
        elif item.id in ids:
            left_out.append(LeftOut(item.id, "the source has a row of this id before it"))
        else:
            ids.add(item.id)
            rows.append(item)
        if len(rows) == _TASK_ROWS:
            yield [(row.id, row.identity) for row in rows], rows
            rows = []
    yield [(row.id, row.identity) for row in rows], rows


def signature(pixels: NDArray[np.uint8]) -> NDArray[np.float16]:
    """A fingerprint of what an image looks like, [480] of unit length, from a grey 16x16 thumbnail.

        t = area average of the grey image, in whole grey levels;  v = t[y+1, x] − t[y, x];  h = t[y, x+1] − t[y, x]
        (v − mean(v), h − mean(h)), over its length

    Re-encoding, resizing and changes of brightness or contrast hardly move it. It uses differences instead of the grey
    values because aligned faces all share the same light and dark areas. An image without contrast gives zeros.
    """
    only: NDArray[np.float16] = _signatures(_thumbnail(pixels)[None])[0]
    return only


def _thumbnail(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[16, 16]: the area average of the grey image, in whole grey levels."""
    height, width = pixels.shape[:2]
    down, across = _shares(height), _shares(width)
    small = np.zeros((SIDE, SIDE))
    for top in range(0, height, _BAND):  # so that a large image is never in memory as int32
        grey = (pixels[top : top + _BAND].astype(np.int32) @ _GREY + 2**14) >> 15
        small += down[:, top : top + _BAND] @ (grey @ across.T)
    return small.round().astype(np.uint8)


def _signatures(thumbnails: NDArray[np.uint8]) -> NDArray[np.float16]:
    """[K, 480] of thumbnails [K, 16, 16]; see `signature`."""
    small = thumbnails.astype(np.float64)
    parts = [np.diff(small, axis=axis).reshape(len(small), _STEPS) for axis in (1, 2)]
    steps = np.concatenate([part - part.mean(axis=1, keepdims=True) for part in parts], axis=1)
    lengths = np.linalg.norm(steps, axis=1, keepdims=True)
    return np.asarray(steps / np.where(lengths > 0, lengths, 1), dtype=np.float16)


def _shares(size: int) -> NDArray[np.float64]:
    """[16, size]: the share of each of `size` pixels in a row in each of 16 equal parts of the row."""
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


def _start() -> Callable[[list[Row]], list[bytes | str]]:
    return _examine_rows


def _examine_rows(rows: list[Row]) -> list[bytes | str]:
    """The facts about each image, as `_FACTS`, or why it cannot be decoded."""
    results: list[bytes | str] = []
    for row in rows:
        try:
            results.append(_examine(row))
        except InputError as error:
            results.append(str(error))
    return results


def _examine(row: Row) -> bytes:
    pixels = decode.decode(row.image, row.id)
    height, width = pixels.shape[:2]
    in_pixels = _hash(f"{height}x{width}:".encode() + pixels.tobytes())
    kind = decode.KINDS.index(decode.header(row.image).kind)
    has = row.landmarks is not None, row.score is not None
    return np.array((_hash(row.image), in_pixels, _thumbnail(pixels), (width, height), kind, *has), _FACTS).tobytes()


def _hash(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()
