"""A folder per identity: `PERSON/anything.jpg`, at any depth; images at the top have no identity."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from angulus.core import limits
from angulus.core.checks import InputError
from angulus.core.files import IMAGE_SUFFIXES
from angulus.data.records import Place
from angulus.data.sources import items
from angulus.data.sources.items import Item, LeftOut, Remark, SourceOptions

SPLITS = frozenset(
    (
        *("train", "training", "trainval", "train_all", "val", "valid", "validation", "dev", "test", "testing", "eval"),
        *("query", "gallery", "probe", "bounding_box_train", "bounding_box_test", "gt_bbox", "gt_query"),  # Market-1501
        *("image_train", "image_test", "image_query"),  # VeRi-776
    )
)
_MOST_NAMES = len(SPLITS) + 1  # counted per level: a level with more folders is not one of splits
_ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".rec", ".parquet")

_Inode = tuple[int, int]


@dataclass(frozen=True)
class Naming:
    """How paths name identities."""

    depth: int | None = None  # the folder, from 1, that names the identity; None: all of them, except the split's
    pattern: str | None = None  # a regular expression whose first group is the identity, instead of folders
    split_level: int | None = None  # which folder, from 0, is a split; None: the data set has none
    split: str | None = None  # the only split to read; None: all

    def takes(self, name: str) -> bool:
        """Whether an image is in the split to read."""
        folders, level = name.split("/")[:-1], self.split_level
        return self.split is None or (level is not None and folders[level : level + 1] == [self.split])

    def identity_of(self, name: str) -> str:
        """The identity of a path; "" if it names none.

        >>> Naming().identity_of("faces/ann/1.jpg"), Naming(depth=1).identity_of("ann/video/1.jpg")
        ('faces/ann', 'ann')
        >>> Naming(split_level=0).identity_of("train/ann/1.jpg")
        'ann'
        >>> Naming(pattern="([0-9]+)_c").identity_of("query/0042_c1s1.jpg")
        '0042'
        """
        if self.pattern is not None:
            match = re.search(self.pattern, name)
            return (match[1] or "") if match else ""
        folders = name.split("/")[:-1]
        if self.depth is not None:
            if len(folders) < self.depth:
                rule = f"its path must have {self.depth} folders or more"
                raise InputError(f"{rule}, of which number {self.depth} names the identity")
            return folders[self.depth - 1]
        if self.split_level is not None:
            del folders[self.split_level : self.split_level + 1]
        return "/".join(folders)


def find_naming(names: Iterable[str], where: object, options: SourceOptions) -> tuple[Naming, tuple[Remark, ...]]:
    """How a data set's paths name identities, and remarks on that.

    If all images lie in folders called train, val, test and the like, at one depth, these are splits.
    """
    levels: list[Counter[str]] = []  # for each depth: images by folder name, for the first `_MOST_NAMES` names
    total = 0
    for name in names:
        if name.lower().endswith(IMAGE_SUFFIXES):
            folders = name.split("/")[:-1]
            total += bool(folders)
            levels += [Counter() for _ in folders[len(levels) :]]
            for level, folder in zip(levels, folders, strict=False):
                if folder in level or len(level) < _MOST_NAMES:
                    level[folder] += 1
    if options.split is not None:
        place = next((place for place, level in enumerate(levels) if options.split in level), None)
        if place is None:
            known = sorted({name for level in levels for name in level if name.lower() in SPLITS})
            there = f"; its splits are {', '.join(known)}" if known else "; it has none, such as train/ID/1.jpg"
            raise InputError(f"split must be a folder of {where} that holds images; got {options.split!r}{there}")
    else:
        in_splits = [sum(n for name, n in level.items() if name.lower() in SPLITS) for level in levels]
        place = next((place for place, count in enumerate(in_splits) if count == total), None)
    naming = Naming(options.depth, options.identity_pattern, place, options.split)
    return naming, tuple(Remark(".", text) for text in _remarks(naming, levels))


def _remarks(naming: Naming, levels: Sequence[Counter[str]]) -> Iterator[str]:
    by_folder = naming.depth is None and naming.pattern is None
    if naming.split_level is not None:
        counted = ", ".join(f"{name} ({count:,} images)" for name, count in levels[naming.split_level].items())
        if naming.split is not None:
            yield f"of the folders {counted}, only {naming.split} is read"
        elif by_folder:
            fact = f"the folders {counted} are splits and not identities"
            yield f"{fact}; all are read as one; `angulus convert --split NAME` reads one"
    elif by_folder:
        for level in levels:
            splits = [name for name in level if name.lower() in SPLITS]
            others = [name for name in level if name.lower() not in SPLITS]
            if len(splits) > 1 and others and len(level) < _MOST_NAMES:
                fact = f"the folders {', '.join(splits)} look like splits, but {others[0]} next to them does not"
                way = "`angulus convert` has --split NAME to read one, and --depth N"
                yield f"{fact}, so all are parts of identities' names; {way}"


def read(folder: Path, options: SourceOptions) -> Iterator[Item]:
    """The images under a folder, in the order of their names; links are followed, loops are not."""
    naming, remarks = find_naming(_names(folder), folder, options)
    return _read(folder, naming, remarks)


def holds_images(folder: Path) -> str | None:
    """The name of an image somewhere under a folder, or None."""
    return next((name for name in _names(folder) if name.lower().endswith(IMAGE_SUFFIXES)), None)


def _names(folder: Path) -> Iterator[str]:
    return (path for path in _walk(folder, "", ()) if isinstance(path, str) and not items.is_system(path))


def _read(folder: Path, naming: Naming, remarks: tuple[Remark, ...]) -> Iterator[Item]:
    yield from remarks
    system = items.SystemFiles()
    for path in _walk(folder, "", ()):
        name = path.where if isinstance(path, LeftOut) else path
        if not system.skips(name) and naming.takes(name):
            yield path if isinstance(path, LeftOut) else _image(folder / name, name, naming)
    yield from system.remarks()


def _walk(top: Path, inside: str, above: tuple[_Inode, ...]) -> Iterator[str | LeftOut]:
    """Names of regular files, relative to the top; `above` are the folders that this one lies in."""
    try:
        here = os.stat(top / inside)
        inode = (here.st_dev, here.st_ino)
        if inode in above:
            yield LeftOut(inside, "it is a symbolic link to a folder that it lies in")
            return
        if len(above) == limits.MOST_DEPTH:
            yield LeftOut(inside, f"folders are read to a depth of {limits.MOST_DEPTH}")
            return
        with os.scandir(top / inside) as entries:
            names = sorted(entry.name for entry in entries)
    except OSError as error:
        yield LeftOut(inside or ".", f"the folder cannot be read: {error.strerror or error}")
        return
    for name in names:
        path = f"{inside}/{name}" if inside else name
        full = top / path
        if os.path.isdir(full):  # unlike Path.is_dir, no error if a folder may be listed but not entered
            yield from _walk(top, path, (*above, inode))
        elif os.path.isfile(full):
            yield path
        else:
            link = os.path.islink(full)
            yield LeftOut(path, "it is a symbolic link that leads to no file" if link else "it is no regular file")


def _image(path: Path, name: str, naming: Naming) -> Item:
    try:
        identity = naming.identity_of(name)
        if name.lower().endswith(_ARCHIVES):
            return LeftOut(name, "archives in a folder of photos are not opened; give it by its own path", image=False)
        size = path.stat().st_size
        if reason := items.too_long(size):
            return LeftOut(name, reason)
        return items.row_or_left_out(name, path.read_bytes(), identity, place=Place(path, 0, size))
    except InputError as error:
        return LeftOut(name, str(error))
    except OSError as error:
        return LeftOut(name, f"it cannot be read: {error.strerror or error}")
