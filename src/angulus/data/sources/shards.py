"""Tar shards in WebDataset's naming: the files of a sample share their name up to the first dot, and stand together.

n01/0001.jpg  n01/0001.cls  n01/0001.json     one sample, "n01/0001"
"""

from __future__ import annotations

import json
import tarfile
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from angulus import files
from angulus.checks import InputError, one_line
from angulus.data.sources.common import Item, LeftOut, points, row_or_left_out, too_long, unsafe

SUFFIXES = (".tar", ".tar.gz", ".tgz")
_IDENTITY_KEYS = ("identity", "label", "class")


def read(paths: list[Path]) -> Iterator[Item]:
    """The samples of shards, in their order.

    The image is the member that ends in .jpg, .jpeg, .png, .webp or .bmp; the identity that in .cls or .id, as text,
    or in .json under identity, label or class; .json may give score and landmarks (ten numbers or five pairs) too.

    Args:
        paths: the shards, .tar or gzipped.

    Raises:
        checks.InputError: a shard that is no tar, or is cut short.
    """
    unused: Counter[str] = Counter()
    for path in paths:
        try:
            with tarfile.open(path, "r|*") as archive:
                for found in _samples(archive):
                    yield found if isinstance(found, LeftOut) else _row(found, unused)
        except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
            raise InputError(f"{path} must be a whole tar; reading it gave: {one_line(error)}") from error
    for suffix, count in sorted(unused.items()):
        yield LeftOut(f"*.{suffix}", f"these {count} members have no place in records", image=False)


@dataclass
class _Sample:
    """A key and its members by suffix, as far as they were read."""

    key: str
    members: dict[str, bytes] = field(default_factory=dict)


def _samples(archive: tarfile.TarFile) -> Iterator[_Sample | LeftOut]:
    sample: _Sample | None = None
    for info in archive:
        if info.isdir():
            continue
        reason = unsafe(info.name) or too_long(info.size)
        if not info.isfile():
            reason = "it is no regular file"
        folder, slash, base = info.name.rpartition("/")
        stem, _, suffix = base.partition(".")
        key = folder + slash + stem
        if sample is not None and key != sample.key:
            yield sample
            sample = None
        if sample is not None and suffix in sample.members:
            reason = "the sample has a member of this name before it"
        file = None if reason else archive.extractfile(info)
        if reason or file is None:
            yield LeftOut(info.name, reason or "it holds no bytes")
            continue
        sample = sample or _Sample(key)
        sample.members[suffix] = file.read()
    if sample is not None:
        yield sample


def _row(sample: _Sample, unused: Counter[str]) -> Item:
    members, key = sample.members, sample.key
    images = [suffix for suffix in members if f".{suffix.lower()}" in files.IMAGE_SUFFIXES]
    unused.update(suffix for suffix in members if suffix not in (*images, "cls", "id", "json"))
    if len(images) != 1:
        return LeftOut(key, f"a sample must have one image; its members are {', '.join(sorted(members))}")
    try:
        about = json.loads(members.get("json", b"{}"))
        if not isinstance(about, dict):
            raise InputError(".json must hold a mapping")
        identity = _identity(members, about)
        score = about.get("score")
        return row_or_left_out(
            key,
            members[images[0]],
            identity,
            landmarks=_landmarks(about.get("landmarks")),
            score=None if score is None else float(score),
        )
    except (ValueError, TypeError) as error:
        return LeftOut(key, f"what stands beside its image cannot be read: {one_line(error)}")


def _identity(members: dict[str, bytes], about: dict[str, Any]) -> str:
    stated = [members[suffix].decode().strip() for suffix in ("cls", "id") if suffix in members]
    stated += [str(about[name]) for name in _IDENTITY_KEYS if name in about]
    if len(set(stated)) > 1:
        raise InputError(f"its identity must be one; got {', '.join(sorted(set(stated)))}")
    return stated[0] if stated else ""


def _landmarks(value: Any) -> NDArray[np.float32] | None:
    if value is None:
        return None
    flat = np.asarray(value, dtype=np.float32).ravel()
    if flat.shape != (10,):
        raise InputError(f"landmarks must be ten numbers; got {value!r:.80}")
    return points(flat.tolist())
