"""Tars: photos in a folder per identity, or shards of samples in WebDataset's naming.

    lfw/Ann/1.jpg  lfw/Bob/1.jpg                      photos: as in a zip, folders are identities
    n01/0001.jpg  n01/0001.cls  n01/0001.json         one sample, "n01/0001": files of one name up to the first dot

A tar holds samples if it has a .cls, .id or .json file, or no folders.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import struct
import tarfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from angulus.core import limits
from angulus.core.checks import InputError, one_line
from angulus.core.files import IMAGE_SUFFIXES
from angulus.data.records import Place
from angulus.data.sources import items
from angulus.data.sources.folder import Naming, find_naming
from angulus.data.sources.items import Item, LeftOut, Remark, SourceOptions

SUFFIXES = (".tar", ".tar.gz", ".tgz")
_IDENTITY_KEYS = ("identity", "label", "class")
_TEXTS = ("cls", "id", "json")
_PICKLES = ("pkl", "pickle", "pyd", "pth", "pt")  # as WebDataset's decoders would read them
_MOST_TEXT = 2**20  # bytes of a .cls, .id or .json
_MOST_HEADER = 2**24  # bytes that tarfile may read at once, except for images: it reads names of any length
_OPENERS: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
# What tarfile raises on damage; RecursionError comes from a chain of headers that describe each other.
_DAMAGED = (
    *(tarfile.TarError, zlib.error, lzma.LZMAError, struct.error, OSError, EOFError),
    *(ValueError, RecursionError, IndexError, MemoryError),
)


class _Plan(NamedTuple):
    """How to read the tars: as samples or photos, whether samples state identities, whether ids need the tar's name."""

    samples: bool
    stated: bool
    by_shard: bool
    naming: Naming
    remarks: tuple[Remark, ...]


def read(paths: Sequence[Path], options: SourceOptions) -> Iterator[Item]:
    """The images of tars, plain or gzipped, in their order.

    Of a sample, the image is the member that ends in .jpg, .jpeg, .png, .webp or .bmp; the identity is in .cls or .id,
    as text, or in .json under identity, label or class; if no sample states one, it is the folder. The .json may give
    score and landmarks (ten numbers or five pairs) too. If shards have samples of the same name, ids begin with the
    shard's name.
    """
    return _read(paths, _plan(paths, options), options)


def _read(paths: Sequence[Path], plan: _Plan, options: SourceOptions) -> Iterator[Item]:
    yield from plan.remarks
    unused: Counter[str] = Counter()
    system = items.SystemFiles()
    for path in paths:
        prefix = f"{path.name.partition('.')[0]}/" if plan.by_shard else ""
        try:
            with _open(path) as archive:
                for sample in _samples(archive, system) if plan.samples else _photos(archive, system):
                    if isinstance(sample, LeftOut):
                        yield sample
                    elif plan.naming.takes(sample.key):
                        yield _row(sample, prefix, plan, unused)
        except _DAMAGED as error:
            yield options.left_out(path.name, items.as_input_error(path, "tar", error))
    for suffix, count in sorted(unused.items()):
        pickled = suffix.lower().rpartition(".")[2] in _PICKLES
        why = "are pickles, which can run code, and are never read" if pickled else "have no place in records"
        yield LeftOut(f"*.{suffix}", f"these {count} members {why}", image=False)
    yield from system.remarks()


class _Bounded:
    """A stream that refuses to read too much at once: tarfile reads headers of any length in one go."""

    def __init__(self, stream: IO[bytes], path: Path, packed: bool) -> None:
        self._stream, self.path, self.packed = stream, path, packed
        self.most = _MOST_HEADER
        self.last = b""
        self.seek, self.tell = stream.seek, stream.tell

    def read(self, size: int = -1) -> bytes:
        """Read `size` bytes, at most `most`."""
        if not 0 <= size <= self.most:
            raise InputError(f"{self.path} must have headers of at most {self.most:,} bytes; one has {size:,}")
        data = self._stream.read(size)
        if size == tarfile.BLOCKSIZE:
            self.last = data
        return data


@contextmanager
def _open(path: Path) -> Iterator[tarfile.TarFile]:
    with path.open("rb") as file:
        begins = file.read(5)
    opener = next((opener for magic, opener in _OPENERS.items() if begins.startswith(magic)), open)
    with opener(path, "rb") as stream:
        bounded: Any = _Bounded(stream, path, packed=opener is not open)
        with tarfile.open(fileobj=bounded, mode="r:") as archive:
            yield archive


def _members(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The headers of a tar; a damaged one is an error, which tarfile would take for the end."""
    for info in archive:
        cast(Any, archive).members.clear()  # otherwise it keeps every header
        yield info
    last: bytes = cast(Any, archive.fileobj).last
    if last.strip(b"\0"):
        raise tarfile.ReadError(f"a damaged header at byte {archive.offset:,}")


def _plan(paths: Sequence[Path], options: SourceOptions) -> _Plan:
    """Look at all names, and for stated identities, before anything is read."""
    names: list[str] = []
    keys: set[int] = set()
    samples = stated = repeated = False
    for path in paths:
        shard_keys: set[int] = set()
        try:
            with _open(path) as archive:
                for info in _members(archive):
                    name = items.slashed(info.name)
                    key, suffix = _key(name)
                    if not info.isfile() or items.is_system(name):
                        continue
                    if suffix in _TEXTS:
                        samples = True
                        stated = stated or suffix != "json" or _states_identity(archive, info)
                    elif name.lower().endswith(IMAGE_SUFFIXES):
                        names.append(name)
                        shard_keys.add(hash(key))
        except _DAMAGED as error:
            options.left_out(path.name, items.as_input_error(path, "tar", error))
        repeated = repeated or not keys.isdisjoint(shard_keys)
        keys |= shard_keys
    if stated and (options.depth, options.split, options.identity_pattern) != (None, None, None):
        fault = "depth, split and identity_pattern go with folders of identities"
        raise InputError(f"{fault}; the samples of {paths[0]} state theirs")
    naming, remarks = (Naming(), ()) if stated else find_naming(names, paths[0].parent, options)
    if repeated:
        remarks += (Remark(".", "tars have images of the same name; each one's id begins with the name of its tar"),)
    samples = samples or not any("/" in name for name in names)
    return _Plan(samples, stated, repeated, naming, remarks)


def _key(name: str) -> tuple[str, str]:
    """A sample's name and a member's suffix.

    >>> _key("n01/0001.left.jpg")
    ('n01/0001', 'left.jpg')
    """
    folder, slash, base = name.rpartition("/")
    stem, _, suffix = base.partition(".")
    return folder + slash + stem, suffix


@dataclass
class _Sample:
    """A key and its members by suffix; those that are not read have no bytes."""

    key: str
    members: dict[str, bytes] = field(default_factory=dict)
    places: dict[str, Place | None] = field(default_factory=dict)

    def images(self) -> list[str]:
        """The suffixes of its images."""
        return [suffix for suffix in self.members if f".{suffix.lower()}" in IMAGE_SUFFIXES]


def _files(archive: tarfile.TarFile, system: items.SystemFiles) -> Iterator[tuple[tarfile.TarInfo, str]]:
    """The headers and names of what is neither a folder nor a system file."""
    for info in _members(archive):
        name = items.slashed(info.name)
        if not info.isdir() and not system.skips(name):
            yield info, name


def _photos(archive: tarfile.TarFile, system: items.SystemFiles) -> Iterator[_Sample | LeftOut]:
    """Each file as a sample of one member, whose key is the whole name."""
    seen: set[str] = set()
    for info, name in _files(archive, system):
        try:
            _check(info, name)
            if name in seen:
                raise InputError("the archive has an entry of this name before it")
            seen.add(name)
            yield _Sample(name, {"": _content(archive, info)}, {"": _place(archive, info)})
        except InputError as error:
            yield LeftOut(info.name, str(error))


def _samples(archive: tarfile.TarFile, system: items.SystemFiles) -> Iterator[_Sample | LeftOut]:
    sample: _Sample | None = None
    try:
        for info, name in _files(archive, system):
            key, suffix = _key(name)
            if sample is not None and key != sample.key:
                yield sample
                sample = None
            try:
                _check(info, name)
                if sample is not None and suffix in sample.members:
                    raise InputError("the sample has a member of this name before it")
                is_first_image = f".{suffix.lower()}" in IMAGE_SUFFIXES and not (sample and sample.images())
                content = _content(archive, info) if suffix in _TEXTS or is_first_image else b""
            except InputError as error:
                yield LeftOut(info.name, str(error))
                continue
            sample = sample or _Sample(key)
            sample.members[suffix], sample.places[suffix] = content, _place(archive, info)
    except _DAMAGED:
        if sample is not None:
            yield LeftOut(sample.key, "the tar is damaged within this sample or right after it")
        raise
    if sample is not None:
        yield sample


def _check(info: tarfile.TarInfo, name: str) -> None:
    reason = items.unsafe(name) or items.too_long(info.size)
    if not info.isfile():
        reason = "it is no regular file"
    if reason:
        raise InputError(reason)


def _content(archive: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    """The bytes of a member; text must not be long."""
    if _key(info.name)[1] in _TEXTS and info.size > _MOST_TEXT:
        raise InputError(f"a .cls, .id or .json must have at most {_MOST_TEXT:,} bytes; it has {info.size:,}")
    bounded: Any = archive.fileobj
    bounded.most = items.MOST_BYTES
    try:
        file = archive.extractfile(info)
        return b"" if file is None else file.read()
    finally:
        bounded.most = _MOST_HEADER


def _place(archive: tarfile.TarFile, info: tarfile.TarInfo) -> Place | None:
    """Where the bytes of a member lie; None in a packed tar, and of a sparse member, which has no run of bytes."""
    file: Any = archive.fileobj
    return None if file.packed or info.issparse() else Place(file.path, info.offset_data, info.size)


def _row(sample: _Sample, prefix: str, plan: _Plan, unused: Counter[str]) -> Item:
    members, key = sample.members, prefix + sample.key
    images = sample.images() if plan.samples else [""]
    unused.update(suffix for suffix in members if suffix not in (*images, *_TEXTS))
    if len(images) != 1:
        return LeftOut(key, f"a sample must have one image; its members are {', '.join(sorted(members))}")
    try:
        identity = "" if plan.stated else plan.naming.identity_of(sample.key)
    except InputError as error:
        return LeftOut(key, str(error))
    try:
        labels = _labels(members.get("json", b"{}"))
        identity = _stated_identity(members, labels) if plan.stated else identity
        landmarks, score = items.landmarks_of(labels.get("landmarks")), items.score_of(labels.get("score"))
        place = sample.places.get(images[0])
        return items.row_or_left_out(key, members[images[0]], identity, landmarks=landmarks, score=score, place=place)
    except (ValueError, TypeError) as error:
        return LeftOut(key, f"the files next to its image cannot be read: {one_line(error)}")


def _labels(text: bytes) -> dict[str, Any]:
    labels = limits.parse_json(text, ".json")
    if not isinstance(labels, dict):
        raise InputError(".json must hold a mapping")
    return labels


def _states_identity(archive: tarfile.TarFile, info: tarfile.TarInfo) -> bool:
    """Whether a .json states an identity."""
    try:
        labels = _labels(_content(archive, info))
        return any(labels.get(name) is not None for name in _IDENTITY_KEYS)
    except InputError:
        return False  # that sample is named when it is read


def _stated_identity(members: dict[str, bytes], labels: dict[str, Any]) -> str:
    stated = [members[suffix].decode().strip() for suffix in ("cls", "id") if suffix in members]
    stated += [items.text_of(labels[name], name) for name in _IDENTITY_KEYS if name in labels]
    identities = sorted({identity for identity in stated if identity})
    if len(identities) > 1:
        raise InputError(f"its identity must be one; got {', '.join(identities)}")
    return identities[0] if identities else ""
