"""Faces, or whatever else records hold by identity: decoded into memory where they fit, when asked for where not."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from angulus import checks
from angulus.checks import InputError
from angulus.data.decoded import DecodedPixels
from angulus.data.images import Images, Splits
from angulus.data.loader import part_of
from angulus.data.records import Records

IN_MEMORY_BYTES = 2 * 2**30  # decoded; sets beyond are read image by image


def load(name: str, root: str | os.PathLike[str], every: int) -> Splits:
    """Read records; of every identity each so-manieth image is for testing, so that both splits have the same people.

    Whether a model knows people that it has not seen is another question: embed their images, and evaluate pairs.

    Args:
        name: what the set is called.
        root: the records, as `angulus convert` or `angulus prepare faces` writes them.
        every: 10 holds out the 10th, 20th, ... image of an identity, >= 2.

    Raises:
        InputError: no records, images without identity or of several sizes, identities of which none has `every`
            images.
    """
    checks.integer("every", every, low=2)
    records = Records(Path(root))
    part = part_of(records)
    held_out = each_so_manieth(part.labels, every)
    if not held_out.any():
        raise InputError(f"no identity of {records.where} has {every} images, so none can be held out for testing")
    about = (
        f"{records.where}: {len(records):,} images of {len(part.names):,} identities, one in {every} of each held out"
    )
    generated = str(records.about.get("generated", ""))
    names = tuple(part.names.tolist())

    def split(chosen: NDArray[np.bool_]) -> Images:
        pixels = DecodedPixels(records, part.rows[chosen], part.size)
        labels = torch.from_numpy(part.labels[chosen])
        fits = math.prod(pixels.shape) <= IN_MEMORY_BYTES
        return Images(pixels[:].contiguous() if fits else pixels, labels, names)

    source = f"{generated}, in {about}" if generated else about
    return Splits(name, split(~held_out), split(held_out), source, generated=bool(generated))


def each_so_manieth(labels: NDArray[np.int64], every: int) -> NDArray[np.bool_]:
    """Of each label, the places at which it comes for the `every`-th time, the 2 · `every`-th, ...

    >>> each_so_manieth(np.array([0, 1, 0, 0, 1, 0]), 2).tolist()
    [False, False, True, False, True, True]
    """
    order = np.argsort(labels, kind="stable")
    ordered = labels[order]
    starts = np.searchsorted(ordered, ordered)
    chosen = np.zeros(len(labels), dtype=bool)
    chosen[order] = (np.arange(len(labels)) - starts) % every == every - 1
    return chosen
