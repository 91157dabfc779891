"""Where the images of a source lie: read in place by row, indexed once."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
import zipfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from angulus.core import files
from angulus.core.checks import InputError
from angulus.core.formats import text_array
from angulus.data import decode
from angulus.data.records import Row
from angulus.data.records.blobs import LocalBlobs
from angulus.data.sets.download import search_folders
from angulus.data.sources import LeftOut, Remark, SourceOptions, kind_of, read_source, recordio
from angulus.data.sources.kinds import files_of

PACKED_BYTES = 2 * 2**30  # of images in packed files, which stay in memory
VERSION = 1
KEPT_DAYS = 30  # that an index stays in the cache after its last use


@dataclass(frozen=True, eq=False)
class Index:
    """N images of a source, with what `part_of` reads of records.

    Attributes:
        where: the source's name in messages.
        ids, identities: [N] the images' names, and who or what they show; "" if unknown.
        sizes: [N, 2] width and height in pixels.
        paths: the files that images lie in.
        places: [N, 3] the number of the file, first byte and length; file −1: the image is in `packed`.
        packed: row -> the encoded image, of sources that do not hold it as it is.
        left_out: what did not become a row, and remarks.
    """

    where: str
    ids: NDArray[np.str_]
    identities: NDArray[np.str_]
    sizes: NDArray[np.int64]
    paths: tuple[str, ...]
    places: NDArray[np.int64]
    packed: dict[int, bytes]
    left_out: tuple[LeftOut, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "_blobs", LocalBlobs(Path(self.where)))  # which pickles without its open files

    def __len__(self) -> int:
        return len(self.ids)

    def images(self, rows: ArrayLike) -> list[bytes]:
        """The encoded images of rows; InputError if a file has gone or become shorter."""
        wanted = np.asarray(rows).tolist()
        packed = [self.packed.get(row) for row in wanted]
        places = [self.places[row].tolist() for row, image in zip(wanted, packed, strict=True) if image is None]
        blobs: LocalBlobs = self._blobs  # type: ignore[attr-defined]
        read = iter(blobs.ranges([(self.paths[file], start, length) for file, start, length in places]))
        images = [next(read) if image is None else image for image in packed]
        for row, image, stored in zip(wanted, images, packed, strict=True):
            if stored is None and len(image) != self.places[row, 2]:
                file, start, length = self.places[row].tolist()
                rule = f"{self.paths[file]} must hold {length:,} bytes of {self.ids[row]} from byte {start:,}"
                raise InputError(f"{rule}; got {len(image):,}; it has changed since it was indexed: start again")
        return images


def index_of(path: Path, options: SourceOptions) -> Index:
    """Index a source; of files with many images (tars, Arrow, RecordIO) the index is kept in the cache.

    The cache is $XDG_CACHE_HOME/angulus/index (~/.cache by default). An index is used again if path, size and time of
    change of every file are the same, and removed after 30 days without use, when another is written. It holds the
    names and identities of the images, and no image. That of an Arrow file that names images elsewhere is not kept,
    since those may change, go and come.
    """
    kind = kind_of(path)
    kept = _kept(path, kind, options)
    if kept is not None and (stored := _load(kept, path)) is not None:
        return stored
    index = _read(path, kind, options)
    if kept is not None and _holds_all(index, path, kind):
        with contextlib.suppress(OSError, InputError):  # a cache that cannot be written costs only time
            _save(kept, index)
    return index


def _read(path: Path, kind: str, options: SourceOptions) -> Index:
    left_out: list[LeftOut] = []
    columns: tuple[list[str], list[str], list[tuple[int, int]], list[tuple[int, int, int]]] = ([], [], [], [])
    ids, identities, sizes, places = columns
    numbers: dict[str, int] = {}
    packed: dict[int, bytes] = {}
    packed_bytes, seen = 0, set[str]()
    for item in read_source(path, kind, options):
        if not isinstance(item, Row):
            left_out.append(item)
            continue
        if item.id in seen:
            left_out.append(LeftOut(item.id, "the source has a row of this id before it"))
            continue
        seen.add(item.id)
        header = decode.header(item.image, item.id)
        if item.place is None:
            packed_bytes += len(item.image)
            if packed_bytes > PACKED_BYTES:
                rule = f"a source whose images are packed must hold at most {PACKED_BYTES / 2**30:g} GiB of them"
                way = f"convert it to records with `angulus convert {path} RECORDS` and set data.path=RECORDS"
                raise InputError(f"{rule}, because they stay in memory; {path} (read as {kind}) holds more; {way}")
            packed[len(ids)] = item.image
            places.append((-1, 0, len(item.image)))
        else:
            file = numbers.setdefault(str(item.place.path.resolve()), len(numbers))
            places.append((file, item.place.start, item.place.length))
        ids.append(item.id)
        identities.append(item.identity)
        sizes.append((header.width, header.height))
    numeric = np.array(sizes, np.int64).reshape(-1, 2), np.array(places, np.int64).reshape(-1, 3)
    texts = text_array(ids), text_array(identities)
    return Index(str(path), *texts, numeric[0], tuple(numbers), numeric[1], packed, tuple(left_out))


def _kept(path: Path, kind: str, options: SourceOptions) -> Path | None:
    """The file in the cache of what a source holds now; None if reading it takes no longer than looking for changes."""
    if kind not in ("tar", "arrow", "rec"):
        return None
    try:
        found = files_of(path, kind)
        found += [other for file in found if kind == "rec" for other in recordio.companions(file)]
        states = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in found]
    except OSError:
        return None
    text = json.dumps(
        [VERSION, kind, str(path.resolve()), repr(options), os.environ.get("ANGULUS_READ_DAMAGED"), states]
    )
    return search_folders("index")[-1] / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.npz"


def _holds_all(index: Index, path: Path, kind: str) -> bool:
    """Whether all images lie in the files of a source, unpacked; one that an Arrow file lacks may lie elsewhere."""
    if index.packed or (kind == "arrow" and any(item.image for item in index.left_out)):
        return False
    return set(index.paths) <= {str(file.resolve()) for file in files_of(path, kind)}


def _save(kept: Path, index: Index) -> None:
    notes = [[item.where, item.reason, item.image, isinstance(item, Remark)] for item in index.left_out]
    arrays: dict[str, Any] = {name: getattr(index, name) for name in ("ids", "identities", "sizes", "places")}
    arrays["about"] = np.array(json.dumps([index.paths, notes]))
    files.make_folder(kept.parent)
    files.write_atomically(kept, partial(np.savez, **arrays))
    for other in kept.parent.glob("*.npz"):
        if other.stat().st_mtime < time.time() - KEPT_DAYS * 86_400:
            other.unlink(missing_ok=True)


def _load(kept: Path, path: Path) -> Index | None:
    """The index in a file of the cache; None if there is none or it is damaged."""
    try:
        with contextlib.suppress(OSError):  # a cache may be read-only
            os.utime(kept)  # it is in use, and stays
        with np.load(kept, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in ("ids", "identities", "sizes", "places")}
            paths, notes = json.loads(str(stored["about"]))
        left_out = tuple(
            (Remark if remark else LeftOut)(where, reason, image) for where, reason, image, remark in notes
        )
        count = len(arrays["ids"])
        if arrays["sizes"].shape != (count, 2) or arrays["places"].shape != (count, 3):
            return None
        return Index(str(path), **arrays, paths=tuple(paths), packed={}, left_out=left_out)
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        return None
