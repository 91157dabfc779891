"""Faces, or whatever else records hold by identity: decoded into memory where they fit, when asked for where not."""

from __future__ import annotations

import itertools
import math
import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from angulus.core import checks
from angulus.core.checks import InputError
from angulus.data.loader import DecodedPixels, Encoded, Part, part_of
from angulus.data.records import Records, parts
from angulus.data.sampler import earlier_occurrences
from angulus.data.sets import places
from angulus.data.sets.images import Images, Splits

IN_MEMORY_BYTES = 2 * 2**30  # decoded; sets beyond are read image by image
EVERY = {"faces": 10, "ms-celeb": 50, "casia-webface": 50}  # one image of an identity in so many is held out
TESTS = ("held_out", "trained_on")


@dataclass(frozen=True)
class HeldOut:
    """What of each identity is for testing.

    Args:
        every: 10 holds out its 10th, 20th, ... image, >= 2.
        test: "held_out": those; "trained_on": all images are trained on, and all are tested on.
    """

    every: int
    test: str = "held_out"

    def __post_init__(self) -> None:
        checks.integer("every", self.every, low=2)
        checks.choice("test", self.test, TESTS)

    def __str__(self) -> str:
        return f"one in {self.every} of each held out" if self.test == "held_out" else "tested on what is trained on"


def load(
    *,
    name: str,
    root: str | os.PathLike[str] | None = None,
    download: bool = False,
    every: int | None = None,
    test: str = "held_out",
) -> Splits:
    """Read records; both splits have the same people.

    Whether a model knows people that it has not seen is another question: embed their images, and evaluate pairs.

    Args:
        name: what the set is called: one of `EVERY`.
        root: the records, as `angulus convert` or `angulus prepare faces` writes them; None: the usual places, but for
            "faces".
        download: must be false: whose faces they are is for you to answer.
        every: of so many images of an identity one is held out, >= 2; None: 10 of "faces", 50 of the large sets.
        test: "held_out", or "trained_on" to train on all images and test on all.

    Raises:
        InputError: no records, images without identity or of several sizes, identities of which none has enough images.
    """
    held_out = HeldOut(EVERY[name] if every is None else every, test)
    looked_in = () if root is None and name == "faces" else places.places(name, root)
    if download or not looked_in:
        raise InputError(
            f"{name!r} is yours to bring: give data.root, the records that `angulus convert SOURCE OUT` wrote; "
            "nothing is downloaded"
        )
    folder = next((place for place in looked_in if (place / parts.ABOUT).is_file()), None)
    if folder is None:
        raise InputError(
            f"{name!r} needs records, as `angulus convert SOURCE OUT` writes them; looked in "
            f"{' and '.join(map(str, looked_in))}; {_way_to_records(looked_in)}"
        )
    return from_records(name, folder, held_out)


def _way_to_records(looked_in: tuple[Path, ...]) -> str:
    """What to do where there are no records, by what lies there instead."""
    below = [each.parent for place in looked_in for each in sorted(place.glob(f"*/{parts.ABOUT}"))]
    if below:
        return f"they lie in {below[0]}: set data.root={below[0]}"
    there = next((place for place in looked_in if place.is_dir()), None)
    photos = there and next((each for each in itertools.islice(there.rglob("*"), 10_000) if _is_image(each)), None)
    if there is None or photos is None:
        return "name them by data.root"
    flat = "; put each person's photos into a folder of their own first" if photos.parent == there else ""
    return (
        f"{there} holds photos: run `angulus prepare faces {there} OUT` and set data.root=OUT/records, or where they "
        f"are aligned `angulus convert {there} OUT` and data.root=OUT{flat}"
    )


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp", ".bmp")


def from_records(name: str, folder: Path, held_out: HeldOut) -> Splits:
    """Records as a data set; a stand-in's say so."""
    records = Records(folder)
    part = part_of(records)
    source = f"{records.where}: {len(records):,} images of {len(part.names):,} identities, {held_out}"
    generated = str(records.about.get("generated", ""))
    found = splits(name, records, part, held_out, source)
    return replace(found, source=f"{generated}, in {source}", generated=True) if generated else found


def splits(name: str, images: Encoded, part: Part, held_out: HeldOut, source: str) -> Splits:
    """The images of a part as a data set.

    Raises:
        InputError: identities of which none has enough images.
    """
    testing = np.ones(len(part.labels), dtype=bool)
    training = testing
    if held_out.test == "held_out":
        testing = each_so_manieth(part.labels, held_out.every)
        training = ~testing
    if not testing.any():
        most = int(np.bincount(part.labels).max())
        fewer = f"set data.options.every={most}, to hold out one in {most}, or " if most >= 2 else ""
        raise InputError(
            f"no identity of {images.where} has {held_out.every} images (the most is {most}), so none can be held out "
            f"for testing; {fewer}set data.options.test=trained_on, to test on what is trained on"
        )
    names = tuple(part.names.tolist())

    def split(chosen: NDArray[np.bool_]) -> Images:
        pixels = DecodedPixels(images, part.rows[chosen], part.size)
        labels = torch.from_numpy(part.labels[chosen])
        fits = math.prod(pixels.shape) <= IN_MEMORY_BYTES
        return Images(pixels[:].contiguous() if fits else pixels, labels, names)

    train = split(training)
    return Splits(name, train, train if training is testing else split(testing), source)


def each_so_manieth(labels: NDArray[np.int64], every: int) -> NDArray[np.bool_]:
    """Of each label, the places at which it comes for the `every`-th time, the 2 · `every`-th, ...

    >>> each_so_manieth(np.array([0, 1, 0, 0, 1, 0]), 2).tolist()
    [False, False, True, False, True, True]
    """
    chosen: NDArray[np.bool_] = earlier_occurrences(labels) % every == every - 1
    return chosen
