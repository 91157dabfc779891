"""Data sets by identity, from records: images in memory if they fit, else decoded when they are needed."""

from __future__ import annotations

import itertools
import math
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from angulus.core import checks
from angulus.core.checks import InputError
from angulus.data.loader import DecodedPixels, Encoded, Part, most_unreadable, part_of, too_many
from angulus.data.records import Records, parts
from angulus.data.resize import Resize
from angulus.data.sampler import earlier_occurrences
from angulus.data.sets.download import not_found, search_folders
from angulus.data.sets.images import FILES, Images, Splits
from angulus.data.sources.items import LeftOut

IN_MEMORY_BYTES = 2 * 2**30  # decoded; larger sets are read image by image
MOST_BAD = 0.01  # the share of the images that may be unreadable
EVERY = {"faces": 10, "ms-celeb": 50, "casia-webface": 50}  # one image in so many of an identity is held out


@dataclass(frozen=True)
class HeldOut:
    """Which images of each identity are for testing."""

    every: int  # 10 holds out the 10th, 20th, ... image of an identity, >= 2
    test: str = "held_out"  # "held_out": those; "trained_on": all images are trained on, and all are tested on

    def __post_init__(self) -> None:
        checks.integer("every", self.every, low=2)
        checks.choice("test", self.test, ("held_out", "trained_on"))

    def __str__(self) -> str:
        return f"one in {self.every} of each held out" if self.test == "held_out" else "tested on what is trained on"


def load(
    *,
    name: str,
    root: str | os.PathLike[str] | None = None,
    download: bool = False,
    every: int | None = None,
    test: str = "held_out",
    on_error: str = "skip",
    most_bad: float = MOST_BAD,
) -> Splits:
    """Load records; both splits have the same people.

    To test a model on people that it has not seen, embed their images and evaluate pairs.

    Args:
        name: of the set, one of `EVERY`.
        root: the records, as `angulus convert` or `angulus prepare faces` writes them; None: the usual folders, except
            for "faces".
        every, test: as `HeldOut`; `every` None is 10 for "faces", 50 for the large sets.
        on_error, most_bad: as `files.load` takes them.
    """
    held_out = hold_out(every, test, EVERY[name])
    folders = () if root is None and name == "faces" else search_folders(name, root)
    if download or not folders:
        fault = f"{name!r} cannot be downloaded: set data.root to records of your own"
        raise InputError(f"{fault}, which `angulus convert SOURCE OUT` writes")
    folder = next((folder for folder in folders if (folder / parts.ABOUT).is_file()), None)
    if folder is None:
        needs = f"{name!r} needs records, as `angulus convert SOURCE OUT` writes them"
        raise not_found(needs, folders, _way_to_records(folders))
    return from_records(name, folder, held_out, skipped_share(on_error, most_bad))


def hold_out(every: int | None, test: str, default: int) -> HeldOut:
    """Which images of each identity are for testing; `every` is refused where it would change nothing."""
    if every is not None and test == "trained_on":
        way = "leave it out, or leave test out"
        raise InputError(f"data.options.every holds images out, and test trained_on none; got {every!r}; {way}")
    return HeldOut(default if every is None else every, test)


def skipped_share(on_error: str, most_bad: float) -> float | None:
    """`most_bad` if unreadable images are skipped, None if they are errors."""
    checks.choice("data.on_error", on_error, ("skip", "stop"))
    if not isinstance(most_bad, int | float) or not 0 <= most_bad <= 1:
        raise InputError(f"data.most_bad must be a share of the images, in [0, 1]; got {most_bad!r}")
    return float(most_bad) if on_error == "skip" else None


def _way_to_records(folders: tuple[Path, ...]) -> str:
    """What to do about missing records, depending on what the folders hold instead."""
    below = [about.parent for folder in folders for about in sorted(folder.glob(f"*/{parts.ABOUT}"))]
    if below:
        return f"they lie in {below[0]}: set data.root={below[0]}"
    folder = next((folder for folder in folders if folder.is_dir()), None)
    files = itertools.islice(folder.rglob("*"), 10_000) if folder else ()
    photo = next((file for file in files if file.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp", ".bmp")), None)
    if folder is None or photo is None:
        return "name them by data.root"
    flat = "; put each person's photos into a folder of their own first" if photo.parent == folder else ""
    faces = f"{folder} holds photos: run `angulus prepare faces {folder} OUT` and set data.root=OUT/records"
    return f"{faces}, or if they are aligned `angulus convert {folder} OUT` and data.root=OUT{flat}"


def from_records(name: str, folder: Path, held_out: HeldOut, most_bad: float | None = None) -> Splits:
    """Load records as a data set; a stand-in's records are marked as such."""
    records = Records(folder)
    part = part_of(records)
    source = f"{records.where}: {len(records):,} images of {len(part.names):,} identities, {held_out}"
    generated = str(records.about.get("generated", ""))
    result = split_part(name, records, part, held_out, source, most_bad=most_bad)
    return replace(result, source=f"{generated}, in {source}", generated=True) if generated else result


def split_part(
    name: str,
    images: Encoded,
    part: Part,
    held_out: HeldOut,
    source: str,
    *,
    resize: Resize | None = None,
    most_bad: float | None = None,
) -> Splits:
    """Split the images of a part into training and testing; refused if no identity has enough images.

    `resize` and `most_bad` are as `DecodedPixels` takes them.
    """
    training = testing = np.ones(len(part.labels), dtype=bool)
    if held_out.test == "held_out":
        testing = every_nth(part.labels, held_out.every)
        training = ~testing
    if not testing.any():
        most = int(np.bincount(part.labels).max())
        fewer = f"set data.options.every={most}, to hold out one in {most}, or " if most >= 2 else ""
        fault = f"no identity of {images.where} has {held_out.every} images (the most is {most})"
        way = "set data.options.test=trained_on, to test on what is trained on"
        way = fewer + ("set data.test to images to test on" if name == FILES else way)
        raise InputError(f"{fault}, so none can be held out for testing; {way}")
    train, left_out = select(images, part, training, resize, most_bad)
    test, more = (train, ()) if training is testing else select(images, part, testing, resize, most_bad)
    refuse_many(images.where, left_out + more, len(part.rows), most_bad)
    return Splits(name, train, test, source, left_out=left_out + more)


def refuse_many(where: str, bad: tuple[LeftOut, ...], total: int, share: float | None) -> None:
    """Refuse more unreadable images than the share of `total` allows."""
    most = most_unreadable(share, total)
    if len(bad) > most:
        raise too_many(where, len(bad), total, most, (bad[0].where, bad[0].reason))


def select(
    images: Encoded, part: Part, chosen: NDArray[np.bool_], resize: Resize | None, most_bad: float | None
) -> tuple[Images, tuple[LeftOut, ...]]:
    """Chosen images of a part, decoded if they fit in memory, and those that cannot be decoded, which are left out."""
    rows, labels = part.rows[chosen], part.labels[chosen]
    pixels: Any = DecodedPixels(images, rows, part.size, resize=resize, labels=labels, most_bad=most_bad)
    left_out: tuple[LeftOut, ...] = ()
    if math.prod(pixels.shape) <= IN_MEMORY_BYTES:
        decoded, bad = pixels.read(slice(None))
        left_out = tuple(LeftOut(pixels.name_of(row), reason) for row, reason in sorted(bad.items()))
        pixels = decoded.contiguous()
        if bad:
            kept = ~np.isin(rows, list(bad))
            if not kept.any():
                rule = f"{images.where} must hold an image that can be decoded, to train on and to test on"
                first = f"{left_out[0].where} first: {left_out[0].reason}"
                raise InputError(f"{rule}; none of {len(bad):,} can, {first}")
            rows, labels, pixels = rows[kept], labels[kept], pixels[torch.from_numpy(kept)]
    ids = getattr(images, "ids", None)  # a report names the images by them
    named = () if ids is None else tuple(ids[rows].tolist())
    return Images(pixels, torch.from_numpy(labels), tuple(part.names.tolist()), ids=named), left_out


def every_nth(labels: NDArray[np.int64], n: int) -> NDArray[np.bool_]:
    """Mark the n-th, 2n-th, ... occurrence of each label.

    >>> every_nth(np.array([0, 1, 0, 0, 1, 0]), 2).tolist()
    [False, False, True, False, True, True]
    """
    return np.asarray(earlier_occurrences(labels) % n == n - 1)
