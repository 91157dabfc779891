"""Faces, or whatever else records hold by identity, as images in memory: for sets of up to some hundred thousand."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from angulus.checks import InputError
from angulus.data.decode import decode
from angulus.data.images import Images, Splits
from angulus.data.records import Records

EVERY = 10  # one image in so many of an identity is held out


def load(*, root: str | os.PathLike[str] | None = None, download: bool = False) -> Splits:
    """Read records; of every identity each tenth image is for testing, so that both splits have the same people.

    Whether a model knows people that it has not seen is another question: embed their images, and evaluate pairs.

    Args:
        root: the records, as `angulus convert` or `angulus prepare faces` writes them.
        download: must be false: whose faces they are is for you to answer.

    Raises:
        InputError: no records, images without identity or of several sizes, identities of which none has ten images.
    """
    if root is None or download:
        raise InputError(
            "'faces' are your own: give data.root, the records that `angulus convert SOURCE OUT` wrote; "
            "nothing is downloaded"
        )
    records = Records(Path(root))
    unnamed = np.flatnonzero(records.identities == "")
    if len(unnamed):
        raise InputError(
            f"{records.where} has {len(unnamed)} images without identity, {str(records.ids[unnamed[0]])!r} the first; "
            "training needs one for each: convert a source that names them"
        )
    names, labels = np.unique(records.identities, return_inverse=True)
    pixels = _pixels(records)
    held_out = _each_tenth(labels)
    if not held_out.any():
        raise InputError(f"no identity of {records.where} has {EVERY} images, so none can be held out for testing")
    parts = []
    for chosen in (~held_out, held_out):
        rows = torch.from_numpy(np.flatnonzero(chosen))
        parts.append(Images(pixels[rows], torch.from_numpy(labels[chosen].astype(np.int64)), tuple(names.tolist())))
    about = f"{records.where}: {len(records):,} images of {len(names):,} identities, each tenth of one held out"
    return Splits("faces", parts[0], parts[1], about)


def _pixels(records: Records) -> torch.Tensor:
    images = [decode(data, name) for data, name in zip(records.images(range(len(records))), records.ids, strict=True)]
    sizes = sorted({image.shape[:2] for image in images})
    if len(sizes) > 1:
        raise InputError(
            f"{records.where} has images of {len(sizes)} sizes, such as {sizes[0]} and {sizes[-1]} (height, width); "
            "align them to one by `angulus prepare faces`"
        )
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()


def _each_tenth(labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Of each label, the 10th, 20th, ... place at which it comes."""
    order = np.argsort(labels, kind="stable")
    ordered = labels[order]
    starts = np.searchsorted(ordered, ordered)
    chosen = np.zeros(len(labels), dtype=bool)
    chosen[order] = (np.arange(len(labels)) - starts) % EVERY == EVERY - 1
    return chosen
