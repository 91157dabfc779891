"""Object stores through fsspec: connecting, asking again while it may help, and faults as sentences without secrets."""

from __future__ import annotations

import errno
import re
import time
from collections.abc import Callable
from typing import Any, TypeVar

from angulus.core import checks, files, redact
from angulus.core.checks import InputError

HTTP = ("http", "https")

_FLAT = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "hf", "memory", *HTTP)  # without folders to make
_WAITS_S = (0.5, 2.0, 8.0)  # before each further try; the packages below try several times within each
_MOST_REASON = 300  # letters of a store's own words
_LOGIN = re.compile(r"[^\s/\"'@:]+:[^\s/\"'@]+@")  # of a URL, where an error quotes only what follows its scheme
_FINAL = (FileNotFoundError, PermissionError, FileExistsError, IsADirectoryError, NotADirectoryError)
_LOCAL_FAULTS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)

Answer = TypeVar("Answer")


def masked(url: str) -> str:
    """A URL as messages and results may show it: without its user, password, key or signature."""
    return redact.text(url)


def connect(url: str, **options: Any) -> tuple[Any, str]:
    """The file system of a URL, and the path in it; `InputError` for one that cannot be opened."""
    import fsspec  # type: ignore[import-untyped]

    scheme = url.rstrip("/")
    if scheme.endswith(":"):
        raise InputError(f"{scheme}// must name a bucket and what is in it, such as {scheme}//bucket/faces")
    try:
        system, root = fsspec.core.url_to_fs(url, **options)
    except (ImportError, ValueError) as error:
        reason = redact.text(checks.one_line(error))
        raise InputError(f"{masked(url)} must be a URL that can be opened; {reason}") from None
    return system, str(root)


def ask(where: str, action: Callable[[], Answer], *, must: str = "readable") -> Answer:
    """What a store answers; asks again, after longer and longer waits, where that may help.

    A store that throttles, fails for the moment or breaks off is asked again; one that denies access, or does not have
    what is asked for, is not.

    Raises:
        checks.InputError: what the store says, without secrets; `where` is the URL as it may be shown.
    """
    for wait in (*_WAITS_S, None):
        try:
            return action()
        except InputError:
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno in _LOCAL_FAULTS:
                raise InputError(files.sentence(error)) from None
            if wait is None or not _may_pass(error):
                raise InputError(_sentence(where, error, must)) from None  # its own text may hold a signed URL
        time.sleep(wait)
    raise AssertionError("the last try returns or raises")


def _may_pass(error: Exception) -> bool:
    """Whether the same request may succeed later."""
    status = _status(error)
    if status is not None:
        return status in (408, 425, 429) or status >= 500
    if isinstance(error, _FINAL):
        return False
    if isinstance(error, OSError):
        return error.errno not in (errno.EINVAL, errno.ENOSYS)
    return re.search("connect|timeout|payload|incomplete|checksum", type(error).__name__, re.I) is not None


def _status(error: BaseException) -> int | None:
    """The status of HTTP behind an error of aiohttp or Google; fsspec's http calls any of them a missing file."""
    for one in (error, error.__cause__):
        status = getattr(one, "status", None) or getattr(one, "__dict__", {}).get("code")
        if isinstance(status, int):
            return status
    return None


def _sentence(where: str, error: Exception, must: str) -> str:
    reason = _LOGIN.sub(f"{redact.MASK}@", redact.text(checks.one_line(error)))[:_MOST_REASON]
    status = _status(error)
    if status in (401, 403) or isinstance(error, PermissionError) or "Credentials" in type(error).__name__:
        way = "give credentials where the package of this store looks for them, such as AWS_PROFILE for s3"
        return f"{where} must be there and {must}; access is denied: {reason}; {way}"
    if status in (404, 410) or (status is None and isinstance(error, FileNotFoundError)):
        return f"{where} must be there and {must}; there is no such object, folder or bucket: {reason}"
    return f"{where} must be there and {must}; got: {reason}"


def info_of(system: Any, path: str) -> dict[str, Any] | None:
    """What a store says of an object or a folder; None if it is not there."""
    try:
        info: dict[str, Any] = system.info(path)
    except FileNotFoundError:
        return None
    return info


def bucket_of(system: Any, bucket: str) -> object:
    """What a store says of a bucket; one may be allowed to write to it and not to list it."""
    try:
        return info_of(system, bucket)
    except PermissionError:
        return "denied"


def make_parents(system: Any, path: str) -> None:
    """Make the folders above a path where a store has folders; elsewhere that would make a missing bucket."""
    protocols = {system.protocol} if isinstance(system.protocol, str) else set(system.protocol)
    if protocols.isdisjoint(_FLAT):
        system.makedirs(path.rpartition("/")[0], exist_ok=True)
