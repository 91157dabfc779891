"""The facts about a data set that an audit needs, from one pass: names, hashes, signatures and sizes, no images.

They are in temporary files, which the system keeps in memory as far as there is room, and which end with the process.
"""

from __future__ import annotations

import contextlib
import hashlib
import struct
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from angulus.core import files
from angulus.core.checks import InputError
from angulus.core.formats.columns import object_array
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
_FACTS = [  # of one image, by the process that decodes it
    *(("bytes", "S16"), ("pixels", "S16"), ("thumbnail", "u1", (SIDE, SIDE)), ("size", "<i4", 2)),
    *((name, "u1") for name in ("kind", "landmarks", "score")),
]
_ROW = np.dtype([*_FACTS, ("identity", "<i4"), ("end", "<i8")])  # the number of its name, and where its id ends
_RECENT = 2**12  # ids


class Texts(Sequence[str]):
    """N texts in a file."""

    def __init__(self, letters: NDArray[np.uint8], ends: NDArray[np.int64]) -> None:
        self._letters, self._ends = letters, ends  # all of them, as UTF-8; [N] where each ends

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, row: Any) -> Any:
        start = int(self._ends[row - 1]) if row else 0
        return self._letters[start : int(self._ends[row])].tobytes().decode("utf-8", "surrogatepass")


class _Seen:
    """Ids that have come, as digests: 16 bytes for each, and while they are merged, 40."""

    def __init__(self) -> None:
        self._sorted, self._recent = np.empty(0, "S16"), set[bytes]()

    def add(self, id: str) -> bool:
        """Whether an id is new."""
        digest = _hash(id.encode("utf-8", "surrogatepass")).rstrip(b"\0")  # as NumPy gives them back
        place = int(np.searchsorted(self._sorted, digest))
        if digest in self._recent or (place < len(self._sorted) and self._sorted[place] == digest):
            return False
        self._recent.add(digest)
        if len(self._recent) >= max(_RECENT, len(self._sorted) // 64):
            recent = np.sort(np.array([*self._recent], "S16"))
            self._sorted = np.concatenate([self._sorted, recent])
            self._sorted.sort(kind="stable")  # which merges two sorted runs
            self._recent.clear()
        return True


class _Facts:
    """Temporary files that rows are written to."""

    def __init__(self) -> None:
        with _writing():  # the files end with what is mapped from them
            self._rows, self._ids = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115
        self.count = self._letters = 0
        self._numbers: dict[str, int] = {}  # of the identities

    def add(self, id: str, identity: str, facts: bytes) -> None:
        letters = id.encode("utf-8", "surrogatepass")
        self._letters += len(letters)
        self.count += 1
        number = self._numbers.setdefault(identity, len(self._numbers))
        with _writing():
            self._ids.write(letters)
            self._rows.write(facts + struct.pack("<iq", number, self._letters))

    @property
    def size(self) -> int:
        return self.count * _ROW.itemsize + self._letters

    def read(self) -> tuple[NDArray[Any], Texts, NDArray[np.str_]]:
        """All rows, which stay in the files; their ids; and their identities."""
        with _writing():
            for file in (self._rows, self._ids):
                file.flush()
            rows, letters = (
                np.asarray(np.memmap(file, dtype, "r")) for file, dtype in ((self._rows, _ROW), (self._ids, "u1"))
            )
        return rows, Texts(letters, rows["end"]), object_array([*self._numbers])[rows["identity"]]


@contextlib.contextmanager
def _writing() -> Iterator[None]:
    """Errors of temporary files as sentences."""
    try:
        yield
    except OSError as error:
        where = f"a temporary file in {tempfile.tempdir or 'TMPDIR'}"  # None if there is no such folder
        raise InputError(f"{files.sentence(error, where)}; TMPDIR may name another folder") from error


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
    ids: Sequence[str]  # [N], unique
    identities: NDArray[np.str_]  # [N] of str, of which equal ones are one object; "" if unknown
    bytes_hash: NDArray[np.bytes_]  # [N] a hash of each file
    pixels_hash: NDArray[np.bytes_]  # [N] a hash of each image's pixels and shape, regardless of encoding
    signatures: Rows  # [N, 480], see `signature`; zeros for an image without contrast
    sizes: NDArray[np.int32]  # [N, 2] width and height, upright
    encodings: NDArray[np.uint8]  # [N] positions in `decode.KINDS`
    has_landmarks: NDArray[np.bool_]  # [N] of bool
    has_score: NDArray[np.bool_]
    unreadable: tuple[LeftOut, ...]  # rows whose image cannot be decoded
    left_out: tuple[LeftOut, ...]  # what the source's reader left out, and rows whose id occurred before
    on_disk: int = 0  # bytes of the temporary files

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
    """Read a data set once, decoding each image; docs/cluster.md says how much memory and disk it takes.

    Args:
        source, kind, options: as `sources.read_source` takes them.
        workers, engine, ray_address: as `workers.start_workers` takes them; this process alone if not given.
        on_image: called with the number of images so far.
    """
    items = read_source(source, kind, options)
    kind = kind or kind_of(source)
    unreadable: list[LeftOut] = []
    left_out: list[LeftOut] = []
    done = 0
    facts = _Facts()
    with contextlib.closing(start_workers(_start, engine, workers, ray_address, usual=1)) as pool:
        for task, results in map_tasks(pool, _tasks(items, left_out)):
            for (id, identity), result in zip(task, results, strict=True):
                if isinstance(result, bytes):
                    facts.add(id, identity, result)
                else:
                    unreadable.append(LeftOut(id, result.reason if isinstance(result, Died) else result))
            done += len(task)
            if on_image is not None:
                on_image(done)
    if not facts.count:
        first = next(iter([*unreadable, *left_out]), None)
        why = f"; the first left out is {first.where}: {first.reason}" if first else ""
        raise InputError(f"{source} must hold images to audit; read as {kind}, it gave none{why}")
    rows, ids, identities = facts.read()
    return Inventory(
        str(source),
        kind,
        Records(source).about if kind == "records" else {},
        ids,
        identities,
        rows["bytes"],
        rows["pixels"],
        Signatures(rows["thumbnail"]),
        rows["size"],
        rows["kind"],
        rows["landmarks"].view(bool),
        rows["score"].view(bool),
        tuple(unreadable),
        tuple(left_out),
        facts.size,
    )


def _tasks(
    items: Iterable[Row | LeftOut], left_out: list[LeftOut]
) -> Iterator[tuple[list[tuple[str, str]], list[Row]]]:
    """A few rows at a time, and their ids and identities; what is left out is appended to `left_out`."""
    seen = _Seen()
    rows: list[Row] = []
    for item in items:
        if isinstance(item, LeftOut):
            left_out.append(item)
        elif not seen.add(item.id):
            left_out.append(LeftOut(item.id, "the source has a row of this id before it"))
        else:
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
