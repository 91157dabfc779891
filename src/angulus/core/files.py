"""Write files atomically (temporary file, fsync, rename), and lock a folder against a second writer."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import filelock

from angulus.core.checks import InputError

try:
    import fcntl
except ImportError:  # pragma: no cover  # Windows
    fcntl = None  # type: ignore[assignment]


_SCHEME = r"[A-Za-z][A-Za-z0-9+.-]+"  # two letters or more: one is a drive of Windows
_URL = re.compile(rf"(?:{_SCHEME}::)*({_SCHEME}):(?:/|$)")
ORIGINS: dict[str, str] = {}  # the local copy of a URL -> the URL as it may be shown (`urls`)
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif", ".heic", ".heif")


def write_atomically(path: Path, write: Callable[[BinaryIO], object], *, tidy: bool = True) -> None:
    """Let `write` fill a temporary file next to `path`, then rename it; `path` is old or new, never half-written.

    Args:
        tidy: first remove the temporary files that a killed process left for `path`. That lists the whole folder: to
            write thousands of files into one folder, call `remove_leftovers` once instead.

    Raises:
        checks.InputError: the disk is full or the folder cannot be written; `path` is unchanged.
    """
    if tidy:
        remove_leftovers(path.parent, path.name)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as file:
            _claim(file)
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except (OSError, RuntimeError) as error:  # torch.save turns a full disk into a RuntimeError
        cause = _os_error(error)
        if cause is None:
            raise
        unchanged = f"; {path.name} is kept as it was" if path.exists() else ""
        raise InputError(sentence(cause, path) + unchanged) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def remove_leftovers(folder: Path, name: str | None = None) -> None:
    """Remove the temporary files in a folder (of one file, or of all) that no running process is writing."""
    mine = re.compile(rf"\.{'.+' if name is None else re.escape(name)}\.[0-9a-f]{{32}}\.tmp")
    with contextlib.suppress(OSError):
        for entry in os.scandir(folder):
            if mine.fullmatch(entry.name):
                with contextlib.suppress(OSError), open(entry.path, "rb") as file:
                    if _claim(file):
                        os.unlink(entry.path)


def _claim(file: BinaryIO) -> bool:
    """Mark an open temporary file as in use until it is closed or its process ends; False if another holds it.

    Without file locks (Windows), nothing is marked, and nothing counts as a leftover.
    """
    if fcntl is None:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def write_text(path: Path, text: str, *, errors: str = "strict") -> None:
    """Write a text file atomically, in UTF-8, with URLs in place of their copies' paths.

    `errors` is as in `str.encode`, for names of files that are not UTF-8.
    """
    data = shown(text).encode(errors=errors)
    write_atomically(path, lambda file: file.write(data))


def url_of(path: str | os.PathLike[str]) -> str | None:
    """The URL that a path is, also as a `Path`, which merges slashes; None for a path of this machine.

    >>> url_of(Path("s3://bucket/faces.npz")), url_of("file:///data/a.npz"), url_of("runs/a"), url_of(r"C:\\data")
    ('s3://bucket/faces.npz', None, None, None)
    """
    text = path.as_posix() if isinstance(path, Path) else os.fspath(path)
    match = _URL.match(text)
    if match is None or match[1] == "file" or (isinstance(path, str) and "://" not in text):
        return None
    return re.sub(rf"((?:^|::){_SCHEME}:)(?:/+|$)", r"\1//", text)


def shown(text: str) -> str:
    """A text with the URL in place of the path of its copy."""
    for copy in sorted(ORIGINS, key=len, reverse=True):
        text = text.replace(copy, ORIGINS[copy])
    return text


def cache_folder() -> Path:
    """$XDG_CACHE_HOME/angulus; ~/.cache/angulus by default."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not cache.is_absolute():  # unset, empty or relative: the XDG specification says to ignore it
        cache = Path("~/.cache").expanduser()
    return cache / "angulus"


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically."""
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    write_text(path, text, errors="backslashreplace")  # what is not UTF-8 becomes JSON's own escape


def digest(path: Path) -> str:
    """SHA-256 of a file; of a folder, of the names and digests of its files in order, so that any change shows."""
    if path.is_dir():
        lines = [f"{file.relative_to(path)} {digest(file)}\n" for file in sorted(path.rglob("*")) if file.is_file()]
        return hashlib.sha256("".join(lines).encode(errors="surrogateescape")).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def make_folder(path: Path) -> None:
    """Make a folder and its parents."""
    if url_of(path) is not None:
        raise InputError(
            f"{path} must be a folder of this machine, not a URL; copy it to the store afterwards, "
            "or write :// where the command takes a URL"
        )
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(sentence(error, path)) from error


@contextlib.contextmanager
def lock(
    folder: Path, what: str = "run folder", *, wait_s: float = 0, way: str = "choose another --out"
) -> Iterator[None]:
    """Lock a folder against other processes. The system frees the lock when the process ends.

    Args:
        folder: made if absent; the lock is its file `.lock`.
        what, way: the folder's name and the way out, for the error if another process holds it.
        wait_s: seconds to wait for another holder.
    """
    make_folder(folder)
    guard = filelock.FileLock(folder / ".lock")
    try:
        guard.acquire(timeout=wait_s)
    except filelock.Timeout as error:
        raise InputError(f"{what} {folder} is in use by another process; wait for it to end, or {way}") from error
    except OSError as error:
        raise InputError(sentence(error, folder)) from error
    try:
        yield
    finally:
        guard.release()


def is_locked(folder: Path) -> bool:
    """Whether another process holds the lock of a folder, which may be absent."""
    if not (folder / ".lock").exists():
        return False
    guard = filelock.FileLock(folder / ".lock")
    try:
        guard.acquire(timeout=0)
    except filelock.Timeout:
        return True
    except OSError:  # not ours to write
        return False
    guard.release()
    return False


def sentence(error: OSError, path: Path | str | None = None) -> str:
    """An operating-system error as a sentence with the way out."""
    where = path if path is not None else error.filename or "the output"
    way = ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        way = "free some space and run the same command again (train: with --resume)"
    elif error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
        way = "choose a folder that you may write with --out"
    elif error.errno in (errno.ENOTDIR, errno.EEXIST):
        way = "a file is where a folder is needed; choose another --out"
    return f"cannot write {where}: {error.strerror or error}{'; ' + way if way else ''}"


def _os_error(error: BaseException) -> OSError | None:
    """The OSError that is or caused `error`; torch's file writer hides it behind a RuntimeError."""
    if isinstance(error, OSError):
        return error
    cause = error.__cause__ or error.__context__
    return None if cause is None else _os_error(cause)


def sync_folder(folder: Path) -> None:
    """Make renames and removals in a folder durable."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
