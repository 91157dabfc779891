"""Encoded images by row in a folder or a zip, with the name of each row: `angulus.data.loader.Encoded`."""

from __future__ import annotations

import os
import threading
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from angulus.core.checks import InputError
from angulus.data.sources.archive import open_zip, read_entry
from angulus.data.sources.items import is_system, slashed, unsafe


class FolderImages:
    """The files of a folder, in the order of their names; `names` says which row is which file."""

    def __init__(self, folder: Path) -> None:
        """List the folder."""
        self._folder = folder
        self._files = sorted(entry.name for entry in os.scandir(folder))
        self.names = {name: row for row, name in enumerate(self._files)}

    @property
    def where(self) -> str:
        """The folder."""
        return str(self._folder)

    def images(self, rows: ArrayLike) -> list[bytes]:
        """The bytes of some files."""
        try:
            return [(self._folder / self._files[row]).read_bytes() for row in np.asarray(rows).tolist()]
        except OSError as error:
            raise InputError(f"{self.where} must hold files that can be read; got {error}") from error


class ZipImages:
    """The entries of a zip, whatever their folders; `names` says which row is which file.

    Each process opens the zip for itself: a shared file pointer would mix reads up.
    """

    def __init__(self, path: Path) -> None:
        """Read the directory of the zip."""
        self._path = path
        self._opened: tuple[int, zipfile.ZipFile] | None = None
        self._lock = threading.Lock()
        names = self._archive().namelist()
        self._entries = [name for name in names if not slashed(name).endswith("/") and not is_system(slashed(name))]
        bad = next((name for name in self._entries if unsafe(name)), None)
        if bad is not None:
            raise InputError(f"{path} must not hold {bad!r}: {unsafe(bad)}; fetch it again")
        self.names = {slashed(name).rpartition("/")[2]: row for row, name in enumerate(self._entries)}

    def __getstate__(self) -> dict[str, Any]:
        """Without the open file."""
        return self.__dict__ | {"_opened": None, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Open anew when asked."""
        self.__dict__.update(state | {"_lock": threading.Lock()})

    @property
    def where(self) -> str:
        """The zip."""
        return str(self._path)

    def images(self, rows: ArrayLike) -> list[bytes]:
        """The bytes of some entries."""
        with self._lock:
            archive = self._archive()
            return [self._read(archive, self._entries[row]) for row in np.asarray(rows).tolist()]

    def _read(self, archive: zipfile.ZipFile, name: str) -> bytes:
        try:
            return read_entry(archive, archive.getinfo(name))
        except InputError as error:
            raise InputError(f"{self.where}: {name}: {error}; fetch it again") from error

    def _archive(self) -> zipfile.ZipFile:
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = (os.getpid(), open_zip(self._path))
        return self._opened[1]
