"""Unpacking a tar safely on every Python: `TarFile.extractall(filter=)` came with 3.11.4."""

from __future__ import annotations

import tarfile
from pathlib import Path


def unpack(archive: tarfile.TarFile, folder: Path) -> None:
    """Write the regular files of an archive below a folder; links and names that leave it are refused."""
    top = folder.resolve()
    for member in archive:
        if member.isdir():
            continue
        path = (top / member.name).resolve()
        file = archive.extractfile(member) if member.isreg() and path.is_relative_to(top) else None
        if file is None:
            raise ValueError(f"{member.name} is no regular file of the archive")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.read())
