"""Storage of records: named blobs in a folder or under an object store's URL, read by byte ranges."""

from __future__ import annotations

import contextlib
import io
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

from angulus.core import files, urls
from angulus.core.checks import InputError

Range = tuple[str, int, int]  # a blob's name, first byte, number of bytes
Fill = Callable[[BinaryIO], object]

_SIGN = ("s3://", "s3a://", "gs://", "gcs://", "az://", "abfs://", "abfss://")  # stores that may sign addresses
_SIGNED_S = 3600  # for how long; half of it is used, so that no read begins just before the end
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

    def ranges(self, wanted: Sequence[Range]) -> list[bytes]:
        """Read byte ranges, in the order asked."""


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

    def ranges(self, wanted: Sequence[Range]) -> list[bytes]:
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
    """Blobs under a URL, through fsspec. Each process connects for itself: fsspec's clients do not survive a fork."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        self.where = urls.masked(self._url)
        self._process = -1
        self._signs, self._addresses = self._url.startswith(_SIGN), dict[str, tuple[str, float]]()
        self._connect()

    def _connect(self) -> Any:
        if self._process != os.getpid():
            self._system, self._root = urls.connect(self._url)
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

        found = urls.ask(self.where, paths)
        return sorted(name for name in (path.rstrip("/").rpartition("/")[2] for path in found) if name[:1] != ".")

    def open(self, name: str) -> BinaryIO:
        path = f"{self._root}/{name}"
        return cast(BinaryIO, urls.ask(f"{self.where}/{name}", lambda: self._connect().open(path, "rb")))

    def write(self, name: str, fill: Fill) -> None:
        buffer = io.BytesIO()
        fill(buffer)
        system, path = self._connect(), f"{self._root}/{name}"

        def put() -> None:
            urls.make_parents(system, path)
            system.pipe_file(path, buffer.getvalue())

        urls.ask(f"{self.where}/{name}", put, must="writable")

    def ranges(self, wanted: Sequence[Range]) -> list[bytes]:
        if not self._signs:
            return self._ranges(wanted, self._connect(), lambda name: f"{self._root}/{name}")
        try:
            return self._ranges(wanted, urls.connect("https://any", encoded=True)[0], self._signed)
        except Exception:  # the store cannot sign, or refuses what it has signed: unless all fails, no longer try
            data = self._ranges(wanted, self._connect(), lambda name: f"{self._root}/{name}")
            self._signs = False
            return data

    def _ranges(self, wanted: Sequence[Range], system: Any, address: Callable[[str], str]) -> list[bytes]:
        paths = [address(name) for name, _, _ in wanted]
        starts = [start for _, start, _ in wanted]
        ends = [start + length for _, start, length in wanted]
        data: list[bytes] = []
        for _ in range(2):  # a connection may break off without an error; what stays short is damaged
            data = urls.ask(self.where, lambda: system.cat_ranges(paths, starts, ends, on_error="raise"))
            if all(len(part) == length for part, (_, _, length) in zip(data, wanted, strict=True)):
                break
        return data

    def _signed(self, name: str) -> str:
        """An address that lets one read a blob by plain HTTP for some time, at a tenth of s3fs's processor time."""
        address, until = self._addresses.get(name, ("", 0.0))
        if time.monotonic() > until:
            system, until = self._connect(), time.monotonic() + _SIGNED_S / 2
            address = urls.ask(self.where, lambda: system.sign(f"{self._root}/{name}", expiration=_SIGNED_S))
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
