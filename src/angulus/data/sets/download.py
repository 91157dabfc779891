"""Where a data set's files are, and downloads: checked by md5, and put in place only when complete."""

from __future__ import annotations

import hashlib
import http.client
import os
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

from angulus.core import checks, files, urls
from angulus.core.checks import InputError, why_unread

_CHUNK = 2**20


def search_folders(name: str, root: str | os.PathLike[str] | None = None) -> tuple[Path, ...]:
    """The folders to look for the set NAME in, in this order.

    With a root: it and the folder NAME in it. Without: $ANGULUS_DATA/NAME if that variable is set, then the cache
    ($XDG_CACHE_HOME or ~/.cache) with angulus/NAME.
    """
    if root is not None:
        folder = as_path("root", root)
        return (folder, folder / name)
    data = os.environ.get("ANGULUS_DATA", "")
    cached = files.cache_folder() / name
    return (Path(data).expanduser() / name, cached) if data else (cached,)


def download_folder(name: str, root: str | os.PathLike[str] | None, has_files: Callable[[Path], bool]) -> Path:
    """The folder to download the set NAME to, one of `search_folders`.

    It is `root` itself if it is called NAME or already `has_files`, else NAME in it; without a root the first folder.
    """
    first = search_folders(name, root)[0]
    return first if root is None or first.name == name or has_files(first) else first / name


def as_path(name: str, value: object) -> Path:
    """Return `value` as a path, with ~ resolved and a URL fetched, or refuse it."""
    if not isinstance(value, str | os.PathLike) or not os.fspath(value):
        raise InputError(f"{name} must be a path; got {value!r}")
    return urls.fetch(value)


def not_found(needs: str, looked_in: Iterable[object], way_out: str) -> InputError:
    """The error for files that are in none of the folders."""
    return InputError(f"{needs}; looked in {' and '.join(map(str, looked_in))}; {way_out}")


def fetch_command(name: str) -> str:
    """How to download a set, for messages."""
    return f"`angulus data {name} --download` or data.download=true"


@dataclass(frozen=True)
class Remote:
    """A published file: its name below a mirror's address, its md5, and a limit for its size in bytes."""

    name: str
    md5: str
    most_bytes: int


class _MirrorError(Exception):
    """Why a mirror did not deliver the file."""


def fetch(
    remotes: Sequence[Remote], folder: Path, mirrors: Sequence[str], *, by_hand: str, timeout_s: float = 30.0
) -> tuple[Path, ...]:
    """Download files into a folder, which is created if needed, and return their paths; right files are kept.

    Args:
        mirrors: http or https addresses that hold the files, tried in turn for each.
        by_hand: what to do instead, for the end of an error.
        timeout_s: seconds, > 0, that a mirror may stay silent.
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
            files.write_atomically(path, partial(_download, remote, urls, timeout_s, by_hand))
    return paths


def md5_of(path: Path) -> str:
    """The md5 of a file, as hexadecimal digits."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    except OSError as error:
        raise InputError(f"{path} must be a file that can be read; {why_unread(error)}") from error


def _download(remote: Remote, urls: Sequence[str], timeout_s: float, by_hand: str, file: BinaryIO) -> None:
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
        except _MirrorError as error:
            reasons.append(f"{url}: {error}")
            continue
        if digest.hexdigest() == remote.md5:
            return
        reasons.append(f"{url}: {file.tell()} bytes with md5 {digest.hexdigest()}, not {remote.md5}")
    rule = f"mirrors must give {remote.name} with its official md5"
    raise InputError(f"{rule}; got {'; '.join(reasons)}; try again later, or {by_hand}")


def _body(url: str, most_bytes: int, timeout_s: float) -> Iterator[bytes]:
    """The body of a response in chunks; network trouble raises `_MirrorError`, not an OSError, as a full disk would."""
    length = 0
    try:
        with urllib.request.urlopen(url, timeout=timeout_s) as response:
            announced = response.headers.get("Content-Length", "")
            while data := response.read(_CHUNK):
                length += len(data)
                if length > most_bytes:
                    raise _MirrorError(f"the body has more than {most_bytes} bytes")
                yield data
    except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: a malformed address
        raise _MirrorError(str(error) or type(error).__name__) from error
    # http.client does not complain about a body that ends early when it is read in chunks.
    if announced.isdigit() and length < int(announced):
        raise _MirrorError(f"the body ended after {length} of {announced} bytes")
