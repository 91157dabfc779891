"""Storage of records: named blobs in a folder or under an object store's URL, read by byte ranges."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

from angulus.core import files, stores, urls
from angulus.core.checks import InputError

Range = tuple[str, int, int]  # a blob's name, first byte, number of bytes
Whole = Callable[[int, bytes], bool]
Around = Callable[[list[int]], list[Range]]
Fill = Callable[[BinaryIO], object]

_SIGN = ("s3://", "s3a://", "gs://", "gcs://", "az://", "abfs://", "abfss://")  # stores that may sign addresses
_SIGNED_S = 3600  # for how long; half of it is used, so that no read begins just before the end
_LEAST_FREE = 10 * 2**30  # bytes that kept copies leave of a disk
_AT_ONCE = 128  # requests of a process: over 20 ms of latency they can bring 1.6 GB per second, or 6,400 single rows
_OPEN_FILES = 100  # of one folder; a system may allow a process 256 in all, and it trains and tests on two folders


class Blobs(Protocol):
    """Named blobs; each is written completely or not at all."""

    where: str

    def names(self) -> list[str]:
        """The names, sorted, without hidden and half-written blobs."""

    def open(self, name: str) -> BinaryIO:
        """Open a blob to read and seek in."""

    def write(self, name: str, fill: Fill) -> None:
        """Write what `fill` puts into a file; readers see the old blob or the new one, never half."""

    def ranges(self, wanted: Sequence[Range], whole: Whole | None = None, around: Around | None = None) -> list[bytes]:
        """Read byte ranges, in the order asked.

        `whole` tells whether the bytes of the range at a place of `wanted` are all right. With `around`, it does so by
        a checksum, and `around` names the larger ranges that those at some places lie in: a store is asked for these,
        which are kept on this disk and read from there.
        """


def open_blobs(path: str | os.PathLike[str]) -> Blobs:
    """Open a folder, or an object store if `path` is a URL that fsspec knows (s3://, gs://, memory://, ...)."""
    local = urls.local_of(path)
    url = files.url_of(path) or urls.link_of(local)
    return LocalBlobs(local) if url is None else RemoteBlobs(url)


class LocalBlobs:
    """A folder. Reads give their position instead of moving a shared pointer, so forked workers do not interfere."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.where = str(folder)
        self._handles: dict[str, int] = {}

    def names(self) -> list[str]:
        if not self.folder.is_dir():
            return []
        return sorted(entry.name for entry in os.scandir(self.folder) if not entry.name.startswith("."))

    def open(self, name: str) -> BinaryIO:
        with _reading(f"{self.where}/{name}"):
            return (self.folder / name).open("rb")

    def write(self, name: str, fill: Fill) -> None:
        files.make_folder(self.folder)
        files.write_atomically(self.folder / name, fill)

    def ranges(self, wanted: Sequence[Range], whole: Whole | None = None, around: Around | None = None) -> list[bytes]:
        with _reading(self.where):
            return [self._range(name, start, length) for name, start, length in wanted]

    def _range(self, name: str, start: int, length: int) -> bytes:
        handle = self._handles.get(name)
        if handle is not None:
            return _read_at(handle, start, length)
        handle = os.open(self.folder / name, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        if len(self._handles) < _OPEN_FILES and self._handles.setdefault(name, handle) == handle:
            return _read_at(handle, start, length)
        try:  # too many are open, or another thread was first
            return _read_at(handle, start, length)
        finally:
            os.close(handle)

    def close(self) -> None:
        """Close the files that reads have left open."""
        while self._handles:
            os.close(self._handles.popitem()[1])

    def __del__(self) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return LocalBlobs, (self.folder,)


class RemoteBlobs:
    """Blobs under a URL, through fsspec. Each process connects for itself: fsspec's clients do not survive a fork.

    Ranges with a checksum are read with what is around them, which is kept in sparse files in the cache, at its own
    places. The checksum decides whether a kept range is used, so a blob that has changed in the store is read from
    there, and no index of the copies exists. Where the disk has no room, only the ranges themselves are read.
    """

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        self.where = stores.masked(self._url)
        self._process, self._system = -1, cast(Any, None)
        self._signs, self._addresses = self._url.startswith(_SIGN), dict[str, tuple[str, float]]()
        self._copies, self._keeps = LocalBlobs(urls.cache_entry(self._url, "rows")), hasattr(os, "pwrite")
        self._connect()

    def _connect(self) -> Any:
        if self._process != os.getpid():
            self._inherited = self._system  # a parent's client complains when it is closed in another process
            self._system, self._root = stores.connect(self._url)
            self._process = os.getpid()
        return self._system

    def names(self) -> list[str]:
        system = self._connect()
        system.invalidate_cache()

        def paths() -> list[str]:
            try:
                return list(system.ls(self._root, detail=False))
            except FileNotFoundError:
                return []

        found = stores.ask(self.where, paths)
        return sorted(name for name in (path.rstrip("/").rpartition("/")[2] for path in found) if name[:1] != ".")

    def open(self, name: str) -> BinaryIO:
        path = f"{self._root}/{name}"
        return cast(BinaryIO, stores.ask(f"{self.where}/{name}", lambda: self._connect().open(path, "rb")))

    def write(self, name: str, fill: Fill) -> None:
        buffer = io.BytesIO()
        fill(buffer)
        system, path = self._connect(), f"{self._root}/{name}"

        def put() -> None:
            stores.make_parents(system, path)
            system.pipe_file(path, buffer.getvalue())

        stores.ask(f"{self.where}/{name}", put, must="writable")

    def ranges(self, wanted: Sequence[Range], whole: Whole | None = None, around: Around | None = None) -> list[bytes]:
        data = [b""] * len(wanted)
        is_whole = whole or (lambda place, part: len(part) == wanted[place][2])

        def take(places: list[int], parts: Iterable[bytes]) -> list[int]:
            """Take what was read at places of `wanted`; return those where it is not all right."""
            for place, part in zip(places, parts, strict=True):
                data[place] = part
            return [place for place in places if not is_whole(place, data[place])]

        missing = list(range(len(wanted)))
        if around is not None:
            missing = take(missing, map(self._kept, wanted))
            if missing:
                self._copy(around(missing))
                missing = take(missing, [self._kept(wanted[place]) for place in missing])
        for _ in range(2):  # a connection may break off without an error; what stays short is damaged
            missing = missing and take(missing, self._fetch([wanted[place] for place in missing]))
        return data

    def _kept(self, wanted: Range) -> bytes:
        """What the local copy has at a range; a copy has holes where nothing was read yet."""
        try:
            return self._copies._range(*wanted)
        except OSError:
            return b""

    def _copy(self, ranges: Sequence[Range]) -> None:
        """Copy ranges to their places in the local copies, while the disk has room."""
        for begin in range(0, len(ranges), _AT_ONCE):
            if not self._has_room():
                return
            some = ranges[begin : begin + _AT_ONCE]
            self._keep(some, self._fetch(some))

    def _has_room(self) -> bool:
        try:
            urls.make_in_cache(self._copies.folder)
            return self._keeps and shutil.disk_usage(self._copies.folder).free > _LEAST_FREE
        except (OSError, InputError):
            return False

    def _keep(self, ranges: Sequence[Range], parts: Sequence[bytes]) -> None:
        try:
            for (name, start, length), data in zip(ranges, parts, strict=True):
                handle = os.open(self._copies.folder / name, os.O_WRONLY | os.O_CREAT, 0o600)
                try:
                    os.pwrite(handle, data[:length], start)  # a server may ignore the range
                finally:
                    os.close(handle)
        except OSError:
            self._keeps = False  # the store still has everything

    def _fetch(self, wanted: Sequence[Range]) -> list[bytes]:
        if not self._signs:
            return self._read(wanted, self._connect(), lambda name: f"{self._root}/{name}")
        try:
            return self._read(wanted, stores.connect("https://any", encoded=True)[0], self._signed)
        except Exception:  # the store cannot sign, or refuses what it has signed: unless all fails, no longer try
            data = self._read(wanted, self._connect(), lambda name: f"{self._root}/{name}")
            self._signs = False
            return data

    def _read(self, wanted: Sequence[Range], system: Any, address: Callable[[str], str]) -> list[bytes]:
        paths = [address(name) for name, _, _ in wanted]
        starts = [start for _, start, _ in wanted]
        ends = [start + length for _, start, length in wanted]
        data: list[Any] = [None] * len(wanted)

        def read(places: range) -> None:
            left = [place for place in places if not isinstance(data[place], bytes)]
            asked = ([values[place] for place in left] for values in (paths, starts, ends))
            for place, part in zip(left, system.cat_ranges(*asked, on_error="return"), strict=True):
                data[place] = part
            fault = next((data[place] for place in left if not isinstance(data[place], bytes)), None)
            if fault is not None:
                raise fault

        for begin in range(0, len(wanted), _AT_ONCE):
            places = range(len(wanted))[begin : begin + _AT_ONCE]
            stores.ask(self.where, functools.partial(read, places))  # each time for what is still missing
        return data

    def _signed(self, name: str) -> str:
        """An address that lets one read a blob by plain HTTP for some time, at a tenth of s3fs's processor time."""
        address, until = self._addresses.get(name, ("", 0.0))
        if time.monotonic() > until:
            system, until = self._connect(), time.monotonic() + _SIGNED_S / 2
            address = stores.ask(self.where, lambda: system.sign(f"{self._root}/{name}", expiration=_SIGNED_S))
            self._addresses[name] = address, until
        return address

    def __reduce__(self) -> tuple[Any, ...]:
        return RemoteBlobs, (self._url,)


if hasattr(os, "pread"):

    def _read_at(handle: int, start: int, length: int) -> bytes:
        return os.pread(handle, length, start)

else:  # Windows, which does not fork
    _SEEK_LOCK = threading.Lock()

    def _read_at(handle: int, start: int, length: int) -> bytes:
        with _SEEK_LOCK:
            os.lseek(handle, start, os.SEEK_SET)
            return os.read(handle, length)


@contextlib.contextmanager
def _reading(where: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"{where} must be there and readable; got: {error.strerror or error}") from error
