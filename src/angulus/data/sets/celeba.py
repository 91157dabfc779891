"""CelebA by identity: the aligned images from a folder, a zip or records, with the lists that are published with them.

Source: Z. Liu, P. Luo, X. Wang, X. Tang, "Deep Learning Face Attributes in the Wild", ICCV 2015.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from angulus.core import checks
from angulus.core.checks import InputError
from angulus.data.decode import header
from angulus.data.loader import Part
from angulus.data.records import parts
from angulus.data.sets import faces, places
from angulus.data.sets.faces import HeldOut
from angulus.data.sets.images import Splits
from angulus.data.sets.stored import FolderImages, ZipImages
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
    every: int = 10,
    test: str = "held_out",
) -> Splits:
    """Read CelebA, or a part of it, to classify its identities.

    The published partition is by identity: who is in one part is in no other. So classes are trained and tested on
    images of one part, or of all.

    Args:
        root: a folder with identity_CelebA.txt, list_eval_partition.txt where a part is asked for, and the images in
            img_align_celeba/ or img_align_celeba.zip; or records, whose own identities are taken. None: the usual
            places.
        download: must be false: the images are for those who agree to their terms.
        part: "all", "train", "valid" or "test" of the published partition.
        every: of so many images of an identity one is held out, >= 2.
        test: "held_out", or "trained_on" to test on all images, which were trained on: CM Table 1 counts all 202,599.

    Raises:
        InputError: lists or images that are not there, or lists that are not the published ones by their counts.
    """
    checks.choice("part", part, ("all", *PARTS))
    held_out = HeldOut(every, test)
    if download:
        raise InputError(
            "'celeba' is not downloaded: its images are for those who agree to the terms of its page, "
            "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html; put them where data.root or ANGULUS_DATA says"
        )
    looked_in = places.places("celeba", root)
    for place in looked_in:
        if (place / parts.ABOUT).is_file():
            if part != "all":
                raise InputError(f"part must be 'all' with records, which have no partition; got {part!r}")
            return faces.from_records("celeba", place, held_out)
        if (place / IDENTITIES).is_file():
            return _load(place, part, held_out)
    raise InputError(
        f"CelebA needs {IDENTITIES} and {IMAGES}/ or {IMAGES}.zip, or records; looked in "
        f"{' and '.join(map(str, looked_in))}; `angulus data celeba` says where to get them"
    )


def _load(place: Path, part: str, held_out: HeldOut) -> Splits:
    names, identities = read_identities(place / IDENTITIES)
    images = open_images(place)
    missing = set(names) - set(images.names)
    if missing:
        raise InputError(
            f"{images.where} must hold the {len(names):,} images of {IDENTITIES}; it lacks {len(missing):,}, "
            f"{min(missing)} first"
        )
    if part != "all":
        chosen = read_partition(place / PARTITION, names) == part
        names, identities = names[chosen], identities[chosen]
    numbers, labels = np.unique(identities, return_inverse=True)
    rows = np.array([images.names[name] for name in names.tolist()], dtype=np.int64)
    first = header(images.images(rows[:1])[0], f"{names[0]} of {images.where}")
    chosen_part = Part(rows, labels.astype(np.int64), numbers.astype(np.str_), (first.width, first.height))
    source = (
        f"CelebA in {place}, {len(names):,} images of {len(numbers):,} identities (part {part}), {held_out}; the lists "
        f"hold the published {PUBLISHED[0]:,} images of {PUBLISHED[1]:,} identities"
    )
    return faces.splits("celeba", images, chosen_part, held_out, source)


def read_identities(path: Path) -> tuple[NDArray[np.str_], NDArray[np.int64]]:
    """Names of images and numbers of identities, in the order of `identity_CelebA.txt`.

    Raises:
        InputError: names file and line; other counts than the published ones.
    """
    names, values = _pairs(path, "an image and the number of its identity, >= 1", low=1)
    found = (len(names), len(np.unique(values)))
    if found != PUBLISHED:
        raise InputError(
            f"{path} must name the published {PUBLISHED[0]:,} images of {PUBLISHED[1]:,} identities; "
            f"got {found[0]:,} of {found[1]:,}; fetch it again"
        )
    return names, values


def read_partition(path: Path, names: NDArray[np.str_]) -> NDArray[np.str_]:
    """The part of each image: "train", "valid" or "test", from `list_eval_partition.txt`.

    Raises:
        InputError: no such list, one of other images, or other counts than the published ones.
    """
    listed, values = _pairs(path, "an image and 0, 1 or 2", low=0, high=2)
    if sorted(listed.tolist()) != sorted(names.tolist()):
        raise InputError(f"{path} must name the images that {IDENTITIES} names; it names others")
    counts = np.bincount(values, minlength=3).tolist()
    if counts != list(PARTS.values()):
        raise InputError(f"{path} must have the published {list(PARTS.values())} images a part; got {counts}")
    part_of = dict(zip(listed.tolist(), np.array(list(PARTS))[values].tolist(), strict=True))
    return np.array([part_of[name] for name in names.tolist()])


def _pairs(path: Path, rule: str, low: int, high: int | None = None) -> tuple[NDArray[np.str_], NDArray[np.int64]]:
    """A name and a whole number in [low, high] a line, each name once."""
    names: dict[str, int] = {}
    for number, line in enumerate(read_lines(path), 1):
        cells = line.split()
        value = digits(cells[1]) if len(cells) == 2 else None
        if value is None or value < low or (high is not None and value > high) or cells[0] in names:
            raise malformed(path, number, rule, line)
        names[cells[0]] = value
    return np.array(list(names)), np.array(list(names.values()), dtype=np.int64)


def open_images(place: Path) -> FolderImages | ZipImages:
    """The aligned images in a folder or a zip.

    Raises:
        InputError: neither is there, or the zip is none.
    """
    if (place / IMAGES).is_dir():
        return FolderImages(place / IMAGES)
    if (place / f"{IMAGES}.zip").is_file():
        return ZipImages(place / f"{IMAGES}.zip")
    raise InputError(f"{place} must hold {IMAGES}/ or {IMAGES}.zip beside {IDENTITIES}; it holds neither")
