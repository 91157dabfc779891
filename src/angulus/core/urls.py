"""URLs in place of paths, through fsspec: a copy in the cache to read, an upload at the end to write.

Every reader and writer here works on files of this machine: memory maps, archives, renames. So a URL is read from a
copy that is compared with the store each time, and written to a folder that is uploaded once it is whole. Records are
the exception: only their description is copied, and images are read from the store by row (`data.records`).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, TypeVar

from angulus.core import checks, files, redact
from angulus.core.checks import InputError

ABOUT, FIRST_PART = "about.json", "rows-00000.parquet"  # of records
LINK = ".url"  # next to the copy of their description: their URL

_HTTP = ("http", "https")
_WITH = {  # files that are read with another: a result's samples, an embedding file's texts, a .rec's index
    ".json": ("{stem}.samples.npz",),
    ".safetensors": ("{name}.*.txt",),
    ".bin": ("{name}.*.txt",),
    ".rec": ("{stem}.idx", "{stem}.lst"),
    ".onnx": ("{name}.data", "{name}_data"),
}
_FLAT = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "hf", "memory", *_HTTP)  # without folders to make
_WAITS_S = (0.5, 2.0, 8.0)  # before each further try; the packages below try several times within each
_WAIT_S = 3600.0  # for another process that copies the same URL
_AT_ONCE = 64  # files that are copied between two notes of what is there
_MOST_REASON = 300  # letters of a store's own words
_CHANGES = re.compile(r"etag|md5|modified|mtime|created|updated|generation|version|blob_id|sha256", re.I)
_LOGIN = re.compile(r"[^\s/\"'@:]+:[^\s/\"'@]+@")  # of a URL, where an error quotes only what follows its scheme
_FINAL = (FileNotFoundError, PermissionError, FileExistsError, IsADirectoryError, NotADirectoryError)
_LOCAL_FAULTS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)

Answer = TypeVar("Answer")


def local_of(path: str | os.PathLike[str]) -> Path:
    """A path of this machine, which may begin with file://."""
    text = path.as_posix() if isinstance(path, Path) else os.fspath(path)
    return Path(re.sub(r"^file:/+", "/", text)).expanduser()


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


def fetch(path: str | os.PathLike[str]) -> Path:
    """A path of this machine to read: `path` itself, or a copy of what lies at a URL.

    The copy lies in $XDG_CACHE_HOME/angulus/urls (~/.cache by default). What has changed in the store, by its size and
    its ETag, checksum or time, is copied again, so clocks need not agree; what is gone from the store goes from the
    copy. Of records, only the description is copied, and `Records` reads the rest by row from the store.

    Raises:
        checks.InputError: nothing is there, access is denied, or the store fails; names the URL without secrets.
    """
    url = files.url_of(path)
    if url is None:
        return local_of(path)
    place, where = _place(url, "read"), masked(url)
    entry = place.parent.parent
    with files.lock(entry, f"the copy of {where} in", wait_s=_WAIT_S, way="try again later"):
        system, root = connect(url)
        system.invalidate_cache()
        found: dict[str, Any] = ask(where, lambda: system.info(root))
        single = _is_http(url) or found["type"] == "file"
        records = None if single else ask(where, lambda: _info(system, f"{root}/{FIRST_PART}"))
        list_objects = _single if single else _description if records else _below
        _copy(where, entry, system, ask(where, lambda: list_objects(system, root, place.name)))
        if records:
            files.write_text(place / LINK, url)
    files.ORIGINS[str(place)] = where
    return place


def link_of(folder: Path) -> str | None:
    """The URL of records of which a folder is the copy of the description, else None."""
    link = folder / LINK
    return link.read_text(encoding="utf-8") if link.is_file() else None


@contextlib.contextmanager
def writing(path: str | os.PathLike[str], *, new: bool = False, upload: bool = True) -> Iterator[Path]:
    """A path of this machine to write to: `path` itself, or one whose file or folder is uploaded to a URL at the end.

    Everything next to it that was written goes with it, such as a result's samples. JSON files go last, as they
    describe the others: so a reader finds all of a folder, or no description. An upload that fails leaves what was
    written on this machine.

    Args:
        new: refuse a folder that holds something.
        upload: False in all processes but one that write together.

    Raises:
        checks.InputError: at once for a store that cannot be written or a bucket that is not there; at the end for an
            upload that fails.
    """
    url = files.url_of(path)
    if url is None:
        yield local_of(path)
        return
    where, place = masked(url), _place(url, "written")
    if _is_http(url):
        raise InputError(f"{where} cannot be written, as http has no uploads; give s3://, gs://, az:// or a local path")
    files.ORIGINS[str(place)] = where
    if not upload:
        yield place
        return
    system, root = connect(url)
    system.invalidate_cache()
    bucket = root.split("/")[0]  # "" in a store without buckets
    if bucket and ask(where, lambda: _bucket(system, bucket), must="writable") is None:
        raise InputError(f"{where} must be in a bucket that is there; there is no {bucket}; make it first")
    if new and ask(where, lambda: _info(system, root)):
        raise InputError(f"{where} must be new; something is there; choose another")
    with files.lock(place.parent.parent, f"what is written for {where} in", way="wait for the other command"):
        yield place
        _upload(place, system, root, where)


def _info(system: Any, path: str) -> dict[str, Any] | None:
    """What a store says of an object or a folder; None if it is not there."""
    try:
        info: dict[str, Any] = system.info(path)
    except FileNotFoundError:
        return None
    return info


def _bucket(system: Any, bucket: str) -> object:
    """What a store says of a bucket; one may be allowed to write to it and not to list it."""
    try:
        return _info(system, bucket)
    except PermissionError:
        return "denied"


def _is_http(url: str) -> bool:
    return url.partition("://")[0].lower() in _HTTP


def _place(url: str, use: str) -> Path:
    """Where a URL's copy lies, under the URL's own last name."""
    path = re.split("[?#]", url)[0] if _is_http(url) else url
    name = PurePosixPath(path.partition("://")[2]).name or "object"
    if name in (".", ".."):
        raise InputError(f"{masked(url)} must end in the name of a file or folder; got {name!r}")
    folder = cache_entry(url, use) / "here"
    files.make_folder(folder)
    return folder / name


def cache_entry(url: str, use: str) -> Path:
    """The folder in the cache for one use of a URL; only its owner may read what lies in it."""
    top = files.cache_folder() / "urls"
    files.make_folder(top)
    top.chmod(0o700)
    return top / use / hashlib.sha256(url.rstrip("/").encode()).hexdigest()[:16]


class _Object(NamedTuple):
    name: str  # where its copy lies, below here/
    path: str  # in the store
    info: dict[str, Any]


def _single(system: Any, path: str, name: str) -> list[_Object]:
    """An object, and those next to it that are read with it."""
    suffix = PurePosixPath(name).suffix
    forms = () if "://" in path else _WITH.get(suffix, ())  # http lists nothing
    wanted = [form.format(name=name, stem=name.removesuffix(suffix)) for form in forms]
    listed = system.ls(path.rpartition("/")[0], detail=True) if wanted else []
    others = (_Object(info["name"].rpartition("/")[2], info["name"], info) for info in listed)
    own = _Object(name, path, system.info(path))
    return [own, *(other for other in others if any(fnmatch(other.name, form) for form in wanted))]


def _description(system: Any, root: str, name: str) -> list[_Object]:
    """The description of records."""
    return [_Object(f"{name}/{ABOUT}", f"{root}/{ABOUT}", system.info(f"{root}/{ABOUT}"))]


def _below(system: Any, root: str, name: str) -> list[_Object]:
    """All objects of a folder."""
    base = root.rstrip("/") + "/"
    listed = system.find(root, detail=True)
    objects = [_Object(path.removeprefix(base), path, info) for path, info in listed.items() if path.startswith(base)]
    objects = [one for one in objects if one.name and not one.name.endswith("/")]  # without marks of folders
    if not objects:
        raise FileNotFoundError(f"no object begins with {base}")
    for one in objects:
        if {"..", "."} & set(one.name.replace("\\", "/").split("/")) or "//" in f"/{one.name}":
            raise InputError(f"names of objects must stay below {base}; got {one.name!r}")
    return [one._replace(name=f"{name}/{one.name}") for one in objects]


def _copy(where: str, entry: Path, system: Any, objects: list[_Object]) -> None:
    """Copy what has changed in the store, some files at a time, each to its place once it is whole."""
    noted, here, fresh = entry / "copied.json", entry / "here", entry / "new"
    try:
        had: dict[str, Any] = json.loads(noted.read_text(encoding="utf-8")) if noted.is_file() else {}
    except ValueError:
        had = {}
    marks = {one.name: _mark(one.info) for one in objects}
    kept = {name: mark for name, mark in had.items() if mark and marks.get(name) == mark and (here / name).is_file()}
    for path in sorted(here.rglob("*"), reverse=True):  # files before their folders
        if path.is_dir():
            with contextlib.suppress(OSError):
                path.rmdir()
        elif path.relative_to(here).as_posix() not in kept:
            path.unlink()
    wanted = [one for one in objects if one.name not in kept]
    for start in range(0, len(wanted), _AT_ONCE):
        batch = wanted[start : start + _AT_ONCE]
        shutil.rmtree(fresh, ignore_errors=True)
        for folder in {(top / one.name).parent for one in batch for top in (fresh, here)}:
            files.make_folder(folder)
        ask(where, partial(_get, system, [(one.path, fresh / one.name, one.info.get("size")) for one in batch]))
        for one in batch:
            (fresh / one.name).replace(here / one.name)
            kept[one.name] = marks[one.name]
        files.write_json(noted, kept)
    shutil.rmtree(fresh, ignore_errors=True)


def _get(system: Any, copies: list[tuple[str, Path, int | None]]) -> None:
    system.get([path for path, _, _ in copies], [str(copy) for _, copy, _ in copies])
    for path, copy, size in copies:
        if size is not None and copy.stat().st_size != size:
            raise OSError(errno.EIO, f"{copy.stat().st_size} bytes came of {size} of {path}")


def _mark(info: dict[str, Any]) -> dict[str, str] | None:
    """What changes when an object does; None if the store says nothing of that kind."""
    mark = {key: str(value) for key, value in info.items() if key == "size" or _CHANGES.search(key)}
    return mark if mark.keys() - {"size"} else None


def _upload(place: Path, system: Any, root: str, where: str) -> None:
    """Upload everything that was written next to and below a place; then remove it here."""
    here, above = place.parent, root.rstrip("/").rpartition("/")[0]
    written = [file for file in here.rglob("*") if file.is_file() and not file.name.startswith(".")]
    try:
        for file in sorted(written, key=lambda file: (file.suffix == ".json", file)):
            target = f"{above}/{file.relative_to(here).as_posix()}"
            ask(where, partial(_put, system, file, target), must="writable")
    except InputError as error:
        raise InputError(f"{error}; what was written for it is kept in {here}: copy it from there") from None
    shutil.rmtree(here)


def _put(system: Any, file: Path, target: str) -> None:
    """Upload a file; a store shows an object once it is whole."""
    make_parents(system, target)
    system.put_file(str(file), target)
    system.invalidate_cache()
    size = system.info(target)["size"]
    if size != file.stat().st_size:
        raise OSError(errno.EIO, f"the store has {size} bytes of {file.stat().st_size}")


def make_parents(system: Any, path: str) -> None:
    """Make the folders above a path where a store has folders; elsewhere that would make a missing bucket."""
    protocols = {system.protocol} if isinstance(system.protocol, str) else set(system.protocol)
    if protocols.isdisjoint(_FLAT):
        system.makedirs(path.rpartition("/")[0], exist_ok=True)
