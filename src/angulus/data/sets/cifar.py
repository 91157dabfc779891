"""CIFAR-10 and CIFAR-100 from their official archives, in the binary version, which holds no pickle.

Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", technical report, 2009; the layout is
that of https://www.cs.toronto.edu/~kriz/cifar.html. Nothing is unpacked to disk.
"""

from __future__ import annotations

import os
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from angulus.core import checks
from angulus.core.checks import InputError, one_line
from angulus.data.sets import places
from angulus.data.sets.download import Remote, fetch, md5_of
from angulus.data.sets.images import Images, Splits
from angulus.data.sources.items import unsafe

MIRRORS = ("https://www.cs.toronto.edu/~kriz/",)
IMAGES = {"train": 50_000, "test": 10_000}
SHAPE = (3, 32, 32)  # all red values of an image, then green, then blue, row by row

_LARGEST_DOWNLOAD = 256 * 2**20  # bytes; the archives have 162 and 161 MiB
_LARGEST_NAMES = 2**16


@dataclass(frozen=True)
class Version:
    """What tells the two sets apart.

    Attributes:
        title: what messages call it.
        archive, md5: the file's name, and its published sum.
        folder: of the files within the archive.
        files: those of each split, one after the other.
        names: the file that names the classes, a line each.
        label_bytes: before each image; the last is the class.
        classes: how many.
    """

    title: str
    archive: str
    md5: str
    folder: str
    files: dict[str, tuple[str, ...]]
    names: str
    label_bytes: int
    classes: int

    @property
    def members(self) -> tuple[str, ...]:
        """All files that are read."""
        return (*self.files["train"], *self.files["test"], self.names)


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
    """Read 50,000 training and 10,000 test images of 32x32 pixels.

    Looks for the archive, or for the folder that it unpacks to, in `places.places(name, root)`. An archive must have
    the published md5; files that were unpacked are checked for their number of images and of each class.

    Args:
        name: "cifar10" or "cifar100", whose classes are the hundred fine ones.
        root: where to look instead of the usual places.
        download: fetch the archive into `folder_for(name, root)` if no place holds the set.

    Returns:
        Splits with pixels uint8 [N, 3, 32, 32] and the classes in the set's own order.

    Raises:
        InputError: the set is not there, is damaged or is not the published one, or cannot be fetched.
    """
    version = VERSIONS[checks.choice("name", name, VERSIONS)]
    checks.flag("download", download)
    found = _find(name, root, version)
    if found is None and download:
        (found,) = fetch_archive(name, folder_for(name, root))
    if found is None:
        looked = " and ".join(str(place) for place in places.places(name, root))
        raise InputError(
            f"{version.title} needs {version.archive}, or its folder {version.folder}; looked in {looked}; set "
            f"ANGULUS_DATA to a folder that holds {name}/, or fetch it with {_fetch_with(name)}"
        )
    contents = _unpacked(found, version) if found.is_dir() else _archived(found, name, version)
    class_names = _class_names(contents[version.names], found / version.names, version)
    parts = [_split(contents, part, found, version, class_names) for part in ("train", "test")]
    checked = "counts checked" if found.is_dir() else f"md5 {version.md5}"
    return Splits(name, parts[0], parts[1], f"{version.title}'s binary version in {found}, {checked}")


def folder_for(name: str, root: str | os.PathLike[str] | None = None) -> Path:
    """Where a download puts the archive, which is a place that `load` looks in."""
    archive = VERSIONS[name].archive
    return places.folder_for(name, root, lambda folder: (folder / archive).exists())


def fetch_archive(name: str, folder: Path, mirrors: tuple[str, ...] | None = None) -> tuple[Path, ...]:
    """Fetch the archive, unless it is there with the published md5; returns its path, alone.

    Raises:
        InputError: as `download.fetch`.
    """
    version = VERSIONS[name]
    remote = Remote(version.archive, version.md5, _LARGEST_DOWNLOAD)
    by_hand = f"put the archive into {folder} by hand"
    return fetch([remote], folder, MIRRORS if mirrors is None else mirrors, by_hand=by_hand)


def _fetch_with(name: str) -> str:
    return f"`angulus data {name} --download` or data.download=true"


def _find(name: str, root: str | os.PathLike[str] | None, version: Version) -> Path | None:
    for place in places.places(name, root):
        if (place / version.archive).is_file():
            return place / version.archive
        for folder in (place / version.folder, place):
            if all((folder / member).is_file() for member in version.members):
                return folder
    return None


def _unpacked(folder: Path, version: Version) -> dict[str, bytes]:
    try:
        long = [name for name in version.members if (folder / name).stat().st_size > _largest(version)]
        if long:
            raise InputError(f"{folder / long[0]} must have at most {_largest(version):,} bytes; fetch it again")
        return {name: (folder / name).read_bytes() for name in version.members}
    except OSError as error:
        raise InputError(f"{folder} must hold files that can be read; got {error}") from error


def _archived(path: Path, name: str, version: Version) -> dict[str, bytes]:
    """The files that are wanted, from an archive whose md5 is the published one."""
    md5 = md5_of(path)
    way_out = f"delete it and fetch it again with {_fetch_with(name)}"
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
                if not member.isreg() or file in contents or member.size > _largest(version):
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


def _largest(version: Version) -> int:
    return max(_LARGEST_NAMES, IMAGES["train"] * (version.label_bytes + int(np.prod(SHAPE))))


def _class_names(data: bytes, where: Path, version: Version) -> tuple[str, ...]:
    names = tuple(line.strip() for line in data.decode("ascii", "replace").splitlines() if line.strip())
    if len(names) != version.classes or len(set(names)) != len(names):
        raise InputError(f"{where} must hold {version.classes} names, each once; got {len(set(names))}")
    return names


def _split(
    contents: dict[str, bytes], part: str, found: Path, version: Version, class_names: tuple[str, ...]
) -> Images:
    names = version.files[part]
    count, length = IMAGES[part], version.label_bytes + int(np.prod(SHAPE))
    rows: list[NDArray[np.uint8]] = []
    for name in names:
        expected = count // len(names) * length
        if len(contents[name]) != expected:
            raise InputError(
                f"{found / name} must have {expected} bytes, {count // len(names)} images of {length}; "
                f"got {len(contents[name])}; fetch {version.title} again"
            )
        rows.append(np.frombuffer(contents[name], dtype=np.uint8).reshape(-1, length))
    together = np.concatenate(rows)
    labels = together[:, version.label_bytes - 1].astype(np.int64)
    of_class = np.bincount(labels, minlength=version.classes)
    if len(of_class) > version.classes or (of_class != count // version.classes).any():
        raise InputError(
            f"{found}'s {part} files must hold {count // version.classes} images of each of {version.classes} classes; "
            f"got {of_class.min()} to {of_class.max()} of {len(of_class)}; fetch {version.title} again"
        )
    pixels = np.ascontiguousarray(together[:, version.label_bytes :]).reshape(-1, *SHAPE)
    return Images(torch.from_numpy(pixels), torch.from_numpy(labels), class_names)
