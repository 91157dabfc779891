"""Writing so that nothing is lost: to a temporary file, fsync, rename; and locking a folder against a second writer."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import filelock

from angulus import checks


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then put it in place; `path` is old or new, never half.

    Raises:
        checks.InputError: the disk is full or the folder cannot be written; `path` is as it was.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with temporary.open("xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except (OSError, RuntimeError) as error:  # torch.save turns a full disk into a RuntimeError
        cause = _os_error(error)
        if cause is None:
            raise
        kept = f"; {path.name} is kept as it was" if path.exists() else ""
        raise checks.InputError(sentence(cause, path) + kept) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, in UTF-8."""
    write_atomically(path, lambda file: file.write(text.encode()))


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def make_folder(path: Path) -> None:
    """Make a folder and its parents, or say why it cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise checks.InputError(sentence(error, path)) from error


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold a run folder; a second holder is told that it is in use. The system frees it when the process ends."""
    make_folder(folder)
    guard = filelock.FileLock(folder / ".lock")
    try:
        guard.acquire(timeout=0)
    except filelock.Timeout as error:
        raise checks.InputError(
            f"run folder {folder} is in use by another process; wait for it to end, or choose another --out"
        ) from error
    except OSError as error:
        raise checks.InputError(sentence(error, folder)) from error
    try:
        yield
    finally:
        guard.release()


def sentence(error: OSError, path: Path | str | None = None) -> str:
    """What an operating-system error means to the user, with the way out."""
    where = path if path is not None else error.filename or "the output"
    ways = {
        errno.ENOSPC: "free some space and run the same command again (train: with --resume)",
        errno.EDQUOT: "free some space and run the same command again (train: with --resume)",
        errno.EACCES: "choose a folder that you may write with --out",
        errno.EROFS: "choose a folder that you may write with --out",
        errno.EPERM: "choose a folder that you may write with --out",
        errno.ENOTDIR: "a file stands where a folder is needed; choose another --out",
        errno.EEXIST: "a file stands where a folder is needed; choose another --out",
    }
    way = ways.get(error.errno or 0)
    return f"cannot write {where}: {error.strerror or error}{'; ' + way if way else ''}"


def _os_error(error: BaseException) -> OSError | None:
    """The OSError that is or caused `error`; torch's own file writer hides one behind a RuntimeError."""
    if isinstance(error, OSError):
        return error
    cause = error.__cause__ or error.__context__
    return None if cause is None else _os_error(cause)


def _sync_folder(folder: Path) -> None:
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
