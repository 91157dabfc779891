"""URLs in place of paths, through fsspec: a copy in the cache to read, an upload at the end to write.

Every reader and writer here works on files of this machine: memory maps, archives, renames. So a URL is read from a
copy that is compared with the store each time, and written to a folder that is uploaded once it is whole. Records are
the exception: only their description is copied, and images are read from the store by row (`data.records`).
"""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from angulus.core import files
from angulus.core.checks import InputError
from angulus.core.stores import HTTP, ask, bucket_of, connect, info_of, make_parents, masked

ABOUT, FIRST_PART = "about.json", "rows-00000.parquet"  # of records

_LINK = "url"  # in the cache's entry of records: their URL
_WITH = {  # files that are read with another: a result's samples, an embedding file's texts, a .rec's index
    ".json": ("{stem}.samples.npz",),
    ".safetensors": ("{name}.*.txt",),
    ".bin": ("{name}.*.txt",),
    ".rec": ("{stem}.idx", "{stem}.lst"),
    ".onnx": ("{name}.data", "{name}_data"),
}
_WAIT_S = 3600.0  # for another process that copies the same URL
_AT_ONCE = 64  # files that are copied at a time
_NOTE_S = 30.0  # between two notes of what is there, which take long for a million files
_SIGNED = (  # http addresses, which are others at each signing: names in the query that show it, and those that change
    ({"x-amz-signature"}, "x-amz-.*"),
    ({"x-goog-signature"}, "x-goog-.*"),
    ({"signature", "awsaccesskeyid"}, "signature|expires|awsaccesskeyid|x-amz-security-token"),
    ({"signature", "googleaccessid"}, "signature|expires|googleaccessid"),
    ({"signature", "key-pair-id"}, "signature|expires|policy|key-pair-id"),
    ({"sig", "sv", "se"}, "sig|se|sp|sv|st|spr|skoid|sktid|skt|ske|sks|skv"),
)
_CHANGES = re.compile(r"etag|md5|modified|mtime|created|updated|generation|version|blob_id|sha256", re.I)


def local_of(path: str | os.PathLike[str]) -> Path:
    """A path of this machine, which may begin with file:// or file://localhost.

    >>> [local_of(path).as_posix() for path in ("file:///a/b", "file://localhost/a/b", "file:///localhost/b")]
    ['/a/b', '/a/b', '/localhost/b']
    """
    text, slashes = (path.as_posix(), "/") if isinstance(path, Path) else (os.fspath(path), "//")  # a Path merges them
    return Path(os.path.expanduser(re.sub(rf"^file:(?:{slashes}localhost(?=/))?/+", "/", text)))  # ~backup is a name


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
        records = None if single else ask(where, lambda: info_of(system, f"{root}/{FIRST_PART}"))
        list_objects = _single if single else _description if records else _below
        _copy(where, entry, system, ask(where, lambda: list_objects(system, root, place.name)))
        if records:
            files.write_text(entry / _LINK, url)
        else:
            (entry / _LINK).unlink(missing_ok=True)
    files.ORIGINS[str(place)] = where
    return place


def link_of(folder: Path) -> str | None:
    """The URL of records of which a folder is the copy of the description, else None.

    Only the cache is asked: a folder from elsewhere must not choose what is read in its place.
    """
    link = folder.parent.parent / _LINK
    if not link.is_file() or not link.resolve().is_relative_to(_cache().resolve()):
        return None
    return link.read_text(encoding="utf-8")


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
    if bucket and ask(where, lambda: bucket_of(system, bucket), must="writable") is None:
        raise InputError(f"{where} must be in a bucket that is there; there is no {bucket}; make it first")
    if new and ask(where, lambda: info_of(system, root)):
        raise InputError(f"{where} must be new; something is there; choose another")
    with files.lock(place.parent.parent, f"what is written for {where} in", way="choose another URL"):
        yield place
        _upload(place, system, root, where)


def _is_http(url: str) -> bool:
    return url.partition("://")[0].lower() in HTTP


def _place(url: str, use: str) -> Path:
    """Where a URL's copy lies, under the URL's own last name."""
    path = re.split("[?#]", url)[0] if _is_http(url) else url
    name = PurePosixPath(path.partition("://")[2]).name or "object"
    if name in (".", ".."):
        raise InputError(f"{masked(url)} must end in the name of a file or folder; got {name!r}")
    folder = cache_entry(url, use) / "here"
    make_in_cache(folder)
    return folder / name


def _cache() -> Path:
    return files.cache_folder() / "urls"


def cache_entry(url: str, use: str) -> Path:
    """The folder in the cache for one use of a URL; the same for an http address however it is signed."""
    path, mark, query = url.partition("?")
    if mark and _is_http(url):
        parts = [(part, part.partition("=")[0].lower()) for part in query.partition("#")[0].split("&")]
        signs = "|".join(names for shown, names in _SIGNED if shown <= {name for _, name in parts}) or "(?!)"
        kept = [part for part, name in parts if not re.fullmatch(signs, name)]
        url = "?".join((path, "&".join(kept))) if kept else path
    return _cache() / use / hashlib.sha256(url.rstrip("/").encode()).hexdigest()[:16]


def make_in_cache(folder: Path) -> None:
    """Make a folder of the cache; only its owner may read what lies in it."""
    try:
        _cache().mkdir(mode=0o700, parents=True, exist_ok=True)
        _cache().chmod(0o700)
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        rule = f"{_cache()} must be a folder of your own, for copies of URLs"
        raise InputError(f"{rule}; {error.strerror}; set XDG_CACHE_HOME to a folder that you may write") from error


class _Object(NamedTuple):
    name: str  # where its copy lies, below here/
    path: str  # in the store
    info: dict[str, Any]


def _single(system: Any, path: str, name: str) -> list[_Object]:
    """An object, and those next to it that are read with it."""
    suffix = PurePosixPath(name).suffix
    forms = () if "://" in path else _WITH.get(suffix, ())  # http lists nothing
    literal, folder = glob.escape(name), path.rpartition("/")[0]
    wanted = [form.format(name=literal, stem=literal.removesuffix(suffix)) for form in forms]
    listed: list[dict[str, Any]] = []
    with contextlib.suppress(PermissionError):  # one may be allowed to read an object and not to list others
        listed = system.ls(folder, detail=True) if wanted else []
    others = [(info["name"].rpartition("/")[2], info) for info in listed]
    found = [(other, info) for other, info in others if any(fnmatchcase(other, form) for form in wanted)]
    _refuse_leaving((other for other, _ in found), f"{folder}/")
    return [_Object(name, path, system.info(path)), *(_Object(other, info["name"], info) for other, info in found)]


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
    _refuse_leaving((one.name for one in objects), base)
    return [one._replace(name=f"{name}/{one.name}") for one in objects]


def _refuse_leaving(names: Iterable[str], base: str) -> None:
    """Refuse names that would leave the copy's folder, here or on Windows."""
    for name in names:
        if {"..", "."} & set(name.replace("\\", "/").split("/")) or "//" in f"/{name}":
            raise InputError(f"names of objects must stay below {base}; got {name!r}")


def _copy(where: str, entry: Path, system: Any, objects: list[_Object]) -> None:
    """Copy what has changed in the store, some files at a time, each to its place once it is whole."""
    noted, here, fresh = entry / "copied.json", entry / "here", entry / "new"
    try:
        had: dict[str, Any] = json.loads(noted.read_text(encoding="utf-8")) if noted.is_file() else {}
    except ValueError:
        had = {}
    marks = {one.name: _mark(one.info) for one in objects}
    sizes = {one.name: one.info.get("size") for one in objects}
    kept = {
        name: mark
        for name, mark in had.items()
        if mark and marks.get(name) == mark and _is_whole(here / name, sizes[name])
    }
    files.write_json(noted, kept)  # first, so that no note is of what is replaced below
    for path in sorted(here.rglob("*"), reverse=True):  # files before their folders
        if path.is_dir():
            with contextlib.suppress(OSError):
                path.rmdir()
        elif path.relative_to(here).as_posix() not in marks:  # what has changed stays for its readers until replaced
            path.unlink()
    wanted, noted_at = [one for one in objects if one.name not in kept], time.monotonic()
    try:
        for start in range(0, len(wanted), _AT_ONCE):
            batch = wanted[start : start + _AT_ONCE]
            shutil.rmtree(fresh, ignore_errors=True)
            for folder in {(top / one.name).parent for one in batch for top in (fresh, here)}:
                files.make_folder(folder)
            ask(where, partial(_get, system, [(one.path, fresh / one.name, sizes[one.name]) for one in batch]))
            for one in batch:
                (fresh / one.name).replace(here / one.name)
                kept[one.name] = marks[one.name]
            if time.monotonic() - noted_at > _NOTE_S:
                files.write_json(noted, kept)
                noted_at = time.monotonic()
    finally:
        shutil.rmtree(fresh, ignore_errors=True)  # first: the disk may be full
        files.write_json(noted, kept)


def _is_whole(copy: Path, size: int | None) -> bool:
    """Whether a copy has its size, which it may lose with the power."""
    return copy.is_file() and (size is None or copy.stat().st_size == size)


def _get(system: Any, copies: list[tuple[str, Path, int | None]]) -> None:
    system.get([path for path, _, _ in copies], [str(copy) for _, copy, _ in copies])
    for path, copy, size in copies:
        if not _is_whole(copy, size):
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
        kept = here.with_name(f"kept-{uuid.uuid4().hex[:8]}")  # where no later command takes it for its own
        here.rename(kept)
        raise InputError(f"{error}; what was written for it is kept in {kept}: copy it from there") from None
    shutil.rmtree(here)


def _put(system: Any, file: Path, target: str) -> None:
    """Upload a file; a store shows an object once it is whole."""
    make_parents(system, target)
    system.put_file(str(file), target)
    system.invalidate_cache()
    size = system.info(target)["size"]
    if size != file.stat().st_size:
        raise OSError(errno.EIO, f"the store has {size} bytes of {file.stat().st_size}")
