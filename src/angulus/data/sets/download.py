"""Fetching published files: streamed to disk, checked against the published md5, in place whole or not at all."""

from __future__ import annotations

import hashlib
import http.client
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

from angulus.core import checks, files
from angulus.core.checks import InputError, why_unread

_CHUNK = 2**20


@dataclass(frozen=True)
class Remote:
    """A published file: its name below a mirror's address, its md5, and more bytes than it has."""

    name: str
    md5: str
    most_bytes: int


class _Failed(Exception):
    """Why a mirror did not give the file."""


def fetch(
    remotes: Sequence[Remote], folder: Path, mirrors: Sequence[str], *, by_hand: str, timeout_s: float = 30.0
) -> tuple[Path, ...]:
    """Fetch files into a folder, which is made if it is not there; one that is there with the right md5 is kept.

    Args:
        remotes: the files.
        folder: where they go.
        mirrors: http or https addresses that hold the files, tried in turn for each.
        by_hand: how to do without, the end of a sentence.
        timeout_s: seconds, > 0, that a mirror may stay silent.

    Returns:
        The paths of the files.

    Raises:
        InputError: no mirror gave a file with the right checksum (says why, for each), or the folder cannot be written.
    """
    timeout_s = checks.number("timeout_s", timeout_s, low=0, open_low=True)
    if isinstance(mirrors, str) or not isinstance(mirrors, Sequence) or not mirrors:
        raise InputError(f"mirrors must be a sequence of at least one address; got {mirrors!r}")
    for mirror in mirrors:
        if not isinstance(mirror, str) or not mirror.startswith(("http://", "https://")):
            raise InputError(f"mirrors must be http:// or https:// addresses; got {mirror!r}")
    files.make_folder(folder)
    paths = tuple(folder / remote.name for remote in remotes)
    for path, remote in zip(paths, remotes, strict=True):
        if not (path.is_file() and md5_of(path) == remote.md5):
            urls = [f"{mirror.rstrip('/')}/{remote.name}" for mirror in mirrors]
            files.write_atomically(path, partial(_first, remote, urls, timeout_s, by_hand))
    return paths


def md5_of(path: Path) -> str:
    """The md5 of a file, as hexadecimal digits.

    Raises:
        InputError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    except OSError as error:
        raise InputError(f"{path} must be a file that can be read; {why_unread(error)}") from error


def _first(remote: Remote, urls: Sequence[str], timeout_s: float, by_hand: str, file: BinaryIO) -> None:
    """Fill a file from the first address that gives the right bytes."""
    reasons = []
    for url in urls:
        file.seek(0)
        file.truncate()
        digest = hashlib.md5(usedforsecurity=False)
        try:
            for data in _body(url, remote.most_bytes, timeout_s):
                digest.update(data)
                file.write(data)
        except _Failed as failed:
            reasons.append(f"{url}: {failed}")
            continue
        if digest.hexdigest() == remote.md5:
            return
        reasons.append(f"{url}: {file.tell()} bytes with md5 {digest.hexdigest()}, not {remote.md5}")
    raise InputError(
        f"mirrors must give {remote.name} with its official md5; got {'; '.join(reasons)}; "
        f"try again later, or {by_hand}"
    )


def _body(url: str, most_bytes: int, timeout_s: float) -> Iterator[bytes]:
    """The body of an answer in chunks; what goes wrong between here and there is `_Failed`, not an OSError."""
    got = 0
    try:
        with urllib.request.urlopen(url, timeout=timeout_s) as response:
            announced = response.headers.get("Content-Length", "")
            while data := response.read(_CHUNK):
                got += len(data)
                if got > most_bytes:
                    raise _Failed(f"the body has more than {most_bytes} bytes")
                yield data
    except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: an address that cannot be read
        raise _Failed(str(error) or type(error).__name__) from error
    # http.client does not complain about a body that ends early when it is read in chunks.
    if announced.isdigit() and got < int(announced):
        raise _Failed(f"the body ended after {got} of {announced} bytes")
