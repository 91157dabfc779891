"""What the readers share: the two things they yield, and the checks that turn unknown bytes into one of them."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from angulus.checks import InputError
from angulus.data import decode, layout
from angulus.data.rows import Row

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
MOST_BYTES = layout.MOST_IMAGE_BYTES  # read of one image; what says that it is longer is not read at all


@dataclass(frozen=True)
class LeftOut:
    """Something in a source that did not become a row.

    Attributes:
        where: its name within the source.
        reason: why, as the end of a sentence or a sentence.
        image: whether it stands for an image; a column that has no place in records does not.
    """

    where: str
    reason: str
    image: bool = True


Item = Row | LeftOut


def row_or_left_out(
    where: str,
    image: bytes,
    identity: str,
    *,
    id: str | None = None,
    landmarks: NDArray[np.float32] | None = None,
    score: float | None = None,
) -> Item:
    """A row, if the bytes are an image by their header and the rest is as rows must be.

    Args:
        where: the image's name within the source.
        image: the file's bytes.
        identity: who or what it shows; "" where not known.
        id: the row's id, if another than `where`.
        landmarks, score: as in `Row`.
    """
    id = where if id is None else id
    try:
        id.encode()
        identity.encode()
    except UnicodeEncodeError:
        return LeftOut(where.encode(errors="backslashreplace").decode(), "its name is not UTF-8; rename it")
    try:
        decode.header(image, "the file")
        return Row(id, image, identity, landmarks, score)
    except InputError as error:
        return LeftOut(where, str(error))


def too_long(size: int) -> str | None:
    """Why a file of so many bytes is not read, or None."""
    return f"it has {size:,} bytes; an image may have {MOST_BYTES:,}" if size > MOST_BYTES else None


def unsafe(name: str) -> str | None:
    """Why an archive's entry of this name is not taken, or None.

    >>> unsafe("person/1.jpg"), unsafe("../../etc/passwd")
    (None, 'its path leaves the archive')
    """
    parts = name.replace("\\", "/").split("/")
    if ".." in parts or parts[0] == "" or re.match(r"[A-Za-z]:", name):
        return "its path leaves the archive"
    return None if name.isprintable() else "its path holds control characters"


def identity_of(name: str, depth: int | None) -> str | None:
    """The identity that a path's folders give: all of them, or the one at `depth`, from 1; None if it is not so deep.

    >>> identity_of("train/ann/1.jpg", None), identity_of("ann/video/1.jpg", 1), identity_of("1.jpg", None)
    ('train/ann', 'ann', '')
    """
    folders = name.split("/")[:-1]
    if depth is None:
        return "/".join(folders)
    return folders[depth - 1] if len(folders) >= depth else None


def no_folder(depth: int) -> str:
    """Why an image is left out whose path has fewer folders than `depth`."""
    return f"its path must have {depth} folders or more, of which number {depth} names the identity"


def points(values: list[float], *, planar: bool = False) -> NDArray[np.float32]:
    """Ten numbers as landmarks [5, 2]: x1 y1 x2 y2 ..., or, planar, x1 ... x5 y1 ... y5."""
    flat = np.array(values, dtype=np.float32)
    return flat.reshape(2, 5).T.copy() if planar else flat.reshape(5, 2)
