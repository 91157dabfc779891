"""CelebA by identity: the aligned images from a folder, a zip or records, with the published lists.

Source: Z. Liu, P. Luo, X. Wang, X. Tang, "Deep Learning Face Attributes in the Wild", ICCV 2015.
"""

from __future__ import annotations

import os
import threading
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from angulus.core import checks
from angulus.core.checks import InputError
from angulus.data.decode import header
from angulus.data.loader import Part
from angulus.data.records import parts
from angulus.data.sets.download import not_found, search_folders
from angulus.data.sets.identity_sets import EVERY, HeldOut, from_records, hold_out, split_part
from angulus.data.sets.images import Splits
from angulus.data.sources.archive import open_zip, read_entry
from angulus.data.sources.items import is_system, slashed, unsafe
from angulus.data.sources.lst import digits
from angulus.evaluation.lists.text import malformed, read_lines

IDENTITIES, PARTITION = "identity_CelebA.txt", "list_eval_partition.txt"
IMAGES = "img_align_celeba"  # a folder, or with .zip an archive that holds one
PUBLISHED = (202_599, 10_177)  # images, identities
PARTS = {"train": 162_770, "valid": 19_867, "test": 19_962}  # images of the partition's parts 0, 1 and 2


def load(
    *,
    root: str | os.PathLike[str] | None = None,
    download: bool = False,
    part: str = "all",
    every: int | None = None,
    test: str = "held_out",
) -> Splits:
    """Load CelebA, or a part of it, to classify its identities.

    The published partition is by identity: each person is in one part only. So classes are trained and tested on images
    of one part, or of all.

    Args:
        root: a folder with identity_CelebA.txt, list_eval_partition.txt if a part is asked for, and the images in
            img_align_celeba/ or img_align_celeba.zip; or records, with their own identities. None: the usual folders.
        download: must be false: CelebA's terms do not allow it.
        part: "all", "train", "valid" or "test" of the published partition.
        every, test: as `HeldOut`; `every` None is 10. CM Table 1 counts all 202,599 images, which is test "trained_on".
    """
    checks.choice("part", part, ("all", *PARTS))
    held_out = hold_out(every, test, EVERY["faces"])
    if download:
        terms = "agree to the terms on https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html"
        way = "put its files where data.root or ANGULUS_DATA says"
        raise InputError(f"'celeba' cannot be downloaded for you: {terms}, and {way}")
    folders = search_folders("celeba", root)
    for folder in folders:
        if (folder / parts.ABOUT).is_file():
            if part != "all":
                raise InputError(f"part must be 'all' with records, which have no partition; got {part!r}")
            return from_records("celeba", folder, held_out)
        if (folder / IDENTITIES).is_file():
            return _load(folder, part, held_out)
    needs = f"CelebA needs {IDENTITIES} and {IMAGES}/ or {IMAGES}.zip, or records"
    raise not_found(needs, folders, "`angulus data celeba` says where to get them")


def _load(folder: Path, part: str, held_out: HeldOut) -> Splits:
    names, identities = read_identities(folder / IDENTITIES)
    images = open_images(folder)
    missing = set(names) - set(images.names)
    if missing:
        rule = f"{images.where} must hold the {len(names):,} images of {IDENTITIES}"
        raise InputError(f"{rule}; it lacks {len(missing):,}, {min(missing)} first")
    if part != "all":
        chosen = read_partition(folder / PARTITION, names) == part
        names, identities = names[chosen], identities[chosen]
    numbers, labels = np.unique(identities, return_inverse=True)
    rows = np.array([images.names[name] for name in names.tolist()], dtype=np.int64)
    first = header(images.images(rows[:1])[0], f"{names[0]} of {images.where}")
    chosen_part = Part(rows, labels.astype(np.int64), numbers.astype(np.str_), (first.width, first.height))
    source = f"CelebA in {folder}, {len(names):,} images of {len(numbers):,} identities (part {part}), {held_out}"
    published = f"the lists hold the published {PUBLISHED[0]:,} images of {PUBLISHED[1]:,} identities"
    return split_part("celeba", images, chosen_part, held_out, f"{source}; {published}")


def read_identities(path: Path) -> tuple[NDArray[np.str_], NDArray[np.int64]]:
    """Read `identity_CelebA.txt`: names of images and numbers of identities, with the published counts."""
    names, values = _read_list(path, "an image and the number of its identity, >= 1", low=1)
    counts = (len(names), len(np.unique(values)))
    if counts != PUBLISHED:
        rule = f"{path} must name the published {PUBLISHED[0]:,} images of {PUBLISHED[1]:,} identities"
        raise InputError(f"{rule}; got {counts[0]:,} of {counts[1]:,}; fetch it again")
    return names, values


def read_partition(path: Path, names: NDArray[np.str_]) -> NDArray[np.str_]:
    """Read `list_eval_partition.txt`: each image's part, "train", "valid" or "test", with the published counts."""
    listed, values = _read_list(path, "an image and 0, 1 or 2", low=0, high=2)
    if sorted(listed.tolist()) != sorted(names.tolist()):
        raise InputError(f"{path} must name the images that {IDENTITIES} names; it names others")
    counts = np.bincount(values, minlength=3).tolist()
    if counts != list(PARTS.values()):
        raise InputError(f"{path} must have the published {list(PARTS.values())} images per part; got {counts}")
    part_of = dict(zip(listed.tolist(), np.array(list(PARTS))[values].tolist(), strict=True))
    return np.array([part_of[name] for name in names.tolist()])


def _read_list(path: Path, rule: str, low: int, high: int | None = None) -> tuple[NDArray[np.str_], NDArray[np.int64]]:
    """A name and a whole number in [low, high] per line, each name once."""
    values: dict[str, int] = {}
    for number, line in enumerate(read_lines(path), 1):
        cells = line.split()
        value = digits(cells[1]) if len(cells) == 2 else None
        if value is None or value < low or (high is not None and value > high) or cells[0] in values:
            raise malformed(path, number, rule, line)
        values[cells[0]] = value
    return np.array(list(values)), np.array(list(values.values()), dtype=np.int64)


def open_images(folder: Path) -> FolderImages | ZipImages:
    """Open the aligned images, in a folder or a zip."""
    if (folder / IMAGES).is_dir():
        return FolderImages(folder / IMAGES)
    if (folder / f"{IMAGES}.zip").is_file():
        return ZipImages(folder / f"{IMAGES}.zip")
    raise InputError(f"{folder} must hold {IMAGES}/ or {IMAGES}.zip next to {IDENTITIES}; it holds neither")


class FolderImages:
    """The files of a folder as `angulus.data.records.pixels.Encoded`; `names` gives the row of each file."""

    def __init__(self, folder: Path) -> None:
        self.where = str(folder)
        self._files = sorted(entry.name for entry in os.scandir(folder))
        self.names = {name: row for row, name in enumerate(self._files)}

    def images(self, rows: ArrayLike) -> list[bytes]:
        """The bytes of the files of these rows."""
        try:
            return [Path(self.where, self._files[row]).read_bytes() for row in np.asarray(rows).tolist()]
        except OSError as error:
            raise InputError(f"{self.where} must hold files that can be read; got {error}") from error


class ZipImages:
    """The entries of a zip, in any folders, as `Encoded`; `names` gives the row of each file name.

    Each process opens the zip for itself: with a shared file pointer, reads would get mixed up.
    """

    def __init__(self, path: Path) -> None:
        self.where = str(path)
        self._opened: tuple[int, zipfile.ZipFile] | None = None
        self._lock = threading.Lock()
        names = self._archive().namelist()
        self._entries = [name for name in names if not slashed(name).endswith("/") and not is_system(slashed(name))]
        bad = next((name for name in self._entries if unsafe(name)), None)
        if bad is not None:
            raise InputError(f"{path} must not hold {bad!r}: {unsafe(bad)}; fetch it again")
        self.names = {slashed(name).rpartition("/")[2]: row for row, name in enumerate(self._entries)}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_opened": None, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state | {"_lock": threading.Lock()})

    def images(self, rows: ArrayLike) -> list[bytes]:
        """The bytes of the entries of these rows."""
        with self._lock:
            archive = self._archive()
            return [self._read(archive, self._entries[row]) for row in np.asarray(rows).tolist()]

    def _read(self, archive: zipfile.ZipFile, name: str) -> bytes:
        try:
            return read_entry(archive, archive.getinfo(name))
        except InputError as error:
            raise InputError(f"{self.where}: {name}: {error}; fetch it again") from error

    def _archive(self) -> zipfile.ZipFile:
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = (os.getpid(), open_zip(Path(self.where)))
        return self._opened[1]
