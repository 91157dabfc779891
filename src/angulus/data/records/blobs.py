"""Storage of records: named blobs in a folder or under an object store's URL, read by byte ranges."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

from angulus.core import files, stores, urls
from angulus.core.checks import InputError

Range = tuple[str, int, int]  # a blob's name, first byte, number of bytes
Whole = Callable[[int, bytes], bool]
Fill = Callable[[BinaryIO], object]

_SIGN = ("s3://", "s3a://", "gs://", "gcs://", "az://", "abfs://", "abfss://")  # stores that may sign addresses
_SIGNED_S = 3600  # for how long; half of it is used, so that no read begins just before the end
_LEAST_FREE = 10 * 2**30  # bytes that kept copies leave of a disk
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

    def ranges(self, wanted: Sequence[Range], whole: Whole | None = None) -> list[bytes]:
        """Read byte ranges, in the order asked.

        `whole` tells by a checksum whether the bytes of the range at a place of `wanted` are all right; with it, a
        store's are kept on this disk, and read again from there.
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

    def ranges(self, wanted: Sequence[Range], whole: Whole | None = None) -> list[bytes]:
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

    Ranges with a checksum are kept in sparse files in the cache, at their own places. The checksum decides whether a
    kept range is used, so a blob that has changed in the store is read from there, and no index of the copies exists.
    """

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        self.where = stores.masked(self._url)
        self._process = -1
        self._signs, self._addresses = self._url.startswith(_SIGN), dict[str, tuple[str, float]]()
        self._copies, self._keeps = LocalBlobs(urls.cache_entry(self._url, "rows")), hasattr(os, "pwrite")
        self._connect()

    def _connect(self) -> Any:
        if self._process != os.getpid():
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

    def ranges(self, wanted: Sequence[Range], whole: Whole | None = None) -> list[bytes]:
        data = [b""] * len(wanted) if whole is None else [self._kept(one) for one in wanted]
        is_whole = whole or (lambda place, part: len(part) == wanted[place][2])
        missing = [place for place, part in enumerate(data) if not is_whole(place, part)]
        for _ in range(2):  # a connection may break off without an error; what stays short is damaged
            if not missing:
                break
            for place, part in zip(missing, self._fetch([wanted[place] for place in missing]), strict=True):
                data[place] = part
            good = [place for place in missing if is_whole(place, data[place])]
            if whole is not None:
                self._keep([(wanted[place], data[place]) for place in good])
            missing = sorted({*missing} - {*good})
        return data

    def _kept(self, wanted: Range) -> bytes:
        """What the local copy has at a range; a copy has holes where nothing was read yet."""
        try:
            return self._copies._range(*wanted)
        except OSError:
            return b""

    def _keep(self, parts: Sequence[tuple[Range, bytes]]) -> None:
        """Write what was read at its place in the local copies, while the disk has room."""
        folder = self._copies.folder
        try:
            urls.make_in_cache(folder)
            if self._keeps and shutil.disk_usage(folder).free > _LEAST_FREE:
                for name in {name for (name, _, _), _ in parts}:
                    handle = os.open(folder / name, os.O_WRONLY | os.O_CREAT, 0o600)
                    try:
                        for (own, start, _), data in parts:
                            if own == name:
                                os.pwrite(handle, data, start)
                    finally:
                        os.close(handle)
        except (OSError, InputError):
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
        data: list[bytes] = stores.ask(self.where, lambda: system.cat_ranges(paths, starts, ends, on_error="raise"))
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
