"""CIFAR-10 and CIFAR-100 from their official archives, in the binary version, which holds no pickle.

Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", technical report, 2009; the layout is
that of https://www.cs.toronto.edu/~kriz/cifar.html. Nothing is unpacked to disk.
"""

from __future__ import annotations

import math
import os
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from angulus.core import checks
from angulus.core.checks import InputError, one_line
from angulus.data.sets import download as downloads
from angulus.data.sets.images import Images, Splits
from angulus.data.sources.items import unsafe

MIRRORS = ("https://www.cs.toronto.edu/~kriz/",)
IMAGES = {"train": 50_000, "test": 10_000}
SHAPE = (3, 32, 32)  # all red values of an image, then green, then blue, row by row

_LARGEST_DOWNLOAD = 256 * 2**20  # bytes; the archives have 162 and 161 MiB
_LARGEST_NAMES = 2**16


@dataclass(frozen=True)
class Version:
    """What differs between the two sets."""

    title: str
    archive: str
    md5: str  # of the archive, as published
    folder: str  # within the archive
    files: dict[str, tuple[str, ...]]  # of each split, one after the other
    names: str  # the file that names the classes, one per line
    label_bytes: int  # before each image; the last is the class
    classes: int

    @property
    def members(self) -> tuple[str, ...]:
        """All files to read."""
        return (*self.files["train"], *self.files["test"], self.names)

    @property
    def image_bytes(self) -> int:
        """Of an image with its labels."""
        return self.label_bytes + math.prod(SHAPE)

    @property
    def largest(self) -> int:
        """More bytes than any file has."""
        return max(_LARGEST_NAMES, IMAGES["train"] * self.image_bytes)


VERSIONS = {
    "cifar10": Version(
        "CIFAR-10",
        "cifar-10-binary.tar.gz",
        "c32a1d4ab5d03f1284b67883e8d87530",
        "cifar-10-batches-bin",
        {"train": tuple(f"data_batch_{number}.bin" for number in range(1, 6)), "test": ("test_batch.bin",)},
        "batches.meta.txt",
        1,
        10,
    ),
    "cifar100": Version(
        "CIFAR-100",
        "cifar-100-binary.tar.gz",
        "03b5dce01913d631647c71ecec9e9cb8",
        "cifar-100-binary",
        {"train": ("train.bin",), "test": ("test.bin",)},
        "fine_label_names.txt",
        2,  # the superclass, then the class
        100,
    ),
}


def load(name: str, *, root: str | os.PathLike[str] | None = None, download: bool = False) -> Splits:
    """Load 50,000 training and 10,000 test images of 32x32 pixels.

    Looks for the archive, or for the folder that it unpacks to, in `search_folders(name, root)`; if none holds the set,
    `download` fetches it. An archive must have the published md5; unpacked files must have the right numbers of images,
    in all and of each class. The classes of "cifar100" are the hundred fine ones.
    """
    version = VERSIONS[checks.choice("name", name, VERSIONS)]
    checks.flag("download", download)
    folders = downloads.search_folders(name, root)
    path = next(filter(None, (_find(folder, version) for folder in folders)), None)
    if path is None and download:
        target = downloads.download_folder(name, root, lambda folder: (folder / version.archive).exists())
        remote = downloads.Remote(version.archive, version.md5, _LARGEST_DOWNLOAD)
        (path,) = downloads.fetch([remote], target, MIRRORS, by_hand=f"put the archive into {target} by hand")
    if path is None:
        way_out = f"set ANGULUS_DATA to a folder that holds {name}/, or fetch it with {downloads.fetch_command(name)}"
        needs = f"{version.title} needs {version.archive}, or its folder {version.folder}"
        raise downloads.not_found(needs, folders, way_out)
    contents = _read_folder(path, version) if path.is_dir() else _read_archive(path, name, version)
    class_names = _class_names(contents[version.names], path / version.names, version)
    train, test = (_split(contents, part, path, version, class_names) for part in ("train", "test"))
    checked = "counts checked" if path.is_dir() else f"md5 {version.md5}"
    return Splits(name, train, test, f"{version.title}'s binary version in {path}, {checked}")


def _find(folder: Path, version: Version) -> Path | None:
    if (folder / version.archive).is_file():
        return folder / version.archive
    for place in (folder / version.folder, folder):
        if all((place / member).is_file() for member in version.members):
            return place
    return None


def _read_folder(folder: Path, version: Version) -> dict[str, bytes]:
    try:
        for name in version.members:
            if (folder / name).stat().st_size > version.largest:
                raise InputError(f"{folder / name} must have at most {version.largest:,} bytes; fetch it again")
        return {name: (folder / name).read_bytes() for name in version.members}
    except OSError as error:
        raise InputError(f"{folder} must hold files that can be read; got {error}") from error


def _read_archive(path: Path, name: str, version: Version) -> dict[str, bytes]:
    """The needed files from an archive with the published md5."""
    md5 = downloads.md5_of(path)
    way_out = f"delete it and fetch it again with {downloads.fetch_command(name)}"
    if md5 != version.md5:
        raise InputError(f"{path} must have the published md5 {version.md5}; got {md5}; {way_out}")
    contents: dict[str, bytes] = {}
    try:
        with tarfile.open(path, "r|gz") as archive:
            for member in archive:
                reason = unsafe(member.name)
                if reason:
                    raise InputError(f"{path} must not hold {member.name!r}: {reason}; {way_out}")
                folder, _, file = member.name.rpartition("/")
                if folder != version.folder or file not in version.members:
                    continue
                if not member.isreg() or file in contents or member.size > version.largest:
                    raise InputError(f"{path} must hold {member.name} once, as a file of its size; {way_out}")
                reader = archive.extractfile(member)
                assert reader is not None  # it is a regular file
                contents[file] = reader.read()
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise InputError(f"{path} must be a whole archive; reading it gave: {one_line(error)}; {way_out}") from error
    missing = [file for file in version.members if file not in contents]
    if missing:
        raise InputError(f"{path} must hold {version.folder}/{missing[0]}; it does not; {way_out}")
    return contents


def _class_names(data: bytes, where: Path, version: Version) -> tuple[str, ...]:
    names = tuple(line.strip() for line in data.decode("ascii", "replace").splitlines() if line.strip())
    if len(names) != version.classes or len(set(names)) != len(names):
        raise InputError(f"{where} must hold {version.classes} names, each once; got {len(set(names))}")
    return names


def _split(contents: dict[str, bytes], part: str, path: Path, version: Version, class_names: tuple[str, ...]) -> Images:
    names, length = version.files[part], version.image_bytes
    per_file, per_class = IMAGES[part] // len(names), IMAGES[part] // version.classes
    for name in names:
        if len(contents[name]) != per_file * length:
            rule = f"{path / name} must have {per_file * length} bytes, {per_file} images of {length}"
            raise InputError(f"{rule}; got {len(contents[name])}; fetch {version.title} again")
    rows = np.concatenate([np.frombuffer(contents[name], dtype=np.uint8).reshape(-1, length) for name in names])
    labels = rows[:, version.label_bytes - 1].astype(np.int64)
    counts = np.bincount(labels, minlength=version.classes)
    if len(counts) > version.classes or (counts != per_class).any():
        rule = f"{path}'s {part} files must hold {per_class} images of each of {version.classes} classes"
        raise InputError(f"{rule}; got {counts.min()} to {counts.max()} of {len(counts)}; fetch {version.title} again")
    pixels = np.ascontiguousarray(rows[:, version.label_bytes :]).reshape(-1, *SHAPE)
    return Images(torch.from_numpy(pixels), torch.from_numpy(labels), class_names)
