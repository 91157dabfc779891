"""What the readers share: the two things they yield, and the checks that turn unknown bytes into one of them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from angulus.core.checks import InputError, shown
from angulus.data import decode
from angulus.data.records import layout
from angulus.data.records.row import Row

MOST_BYTES = layout.MOST_IMAGE_BYTES  # read of one image; what says that it is longer is not read at all
ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".rec", ".parquet")
_NO_IMAGES = (
    *(".txt", ".md", ".csv", ".tsv", ".lst", ".idx", ".json", ".jsonl", ".xml", ".html", ".yaml", ".yml", ".log"),
    *(".pdf", ".py", ".npz", ".npy", ".mat", ".safetensors", ".parquet"),
    *(".xmp", ".aae", ".ini", ".db", ".mov", ".mp4", ".m4v", ".avi", ".mkv", ".webm", ".3gp", ".mp3", ".wav"),
)  # what lies next to photos and was never meant as one
_SYSTEM_FILES = frozenset((".ds_store", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", ".directory"))
_SYSTEM_FOLDERS = frozenset(
    ("__macosx", ".appledouble", ".spotlight-v100", ".trashes", ".fseventsd", "@eadir", "$recycle.bin")
)
_MOST_LABEL = 10**4000  # Python writes no more digits
IDENTITIES = ("identity", "label", "labels", "class", "cls", "person")


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


@dataclass(frozen=True)
class Remark(LeftOut):
    """What to know about a source as a whole; it stands for no image."""

    image: bool = False


Item = Row | LeftOut


def is_system(name: str) -> bool:
    """Whether a path is a file that macOS, Windows or a NAS puts next to photos, or lies in such a folder.

    >>> is_system("ann/._1.jpg"), is_system("__MACOSX/ann/1.jpg"), is_system("ann/1.jpg")
    (True, True, False)
    """
    *folders, base = name.lower().split("/")
    return base.startswith("._") or base in _SYSTEM_FILES or not _SYSTEM_FOLDERS.isdisjoint((*folders, base))


@dataclass
class SystemFiles:
    """Counts the system files that are skipped."""

    count: int = 0
    first: str = ""

    def skips(self, name: str) -> bool:
        """Whether `name` is one, which is then counted."""
        if not is_system(name):
            return False
        self.first = self.first or name
        self.count += 1
        return True

    def remarks(self) -> Iterator[Remark]:
        """One sentence about all of them, or nothing."""
        if self.count:
            yield Remark(".", f"files of the operating system are skipped: {self.count:,}, such as {self.first}")


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
        return LeftOut(where, str(error), image=not where.lower().endswith(_NO_IMAGES))


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


def slashed(name: str) -> str:
    """A path within an archive or a list with `/` between its folders, as some Windows tools do not write it."""
    return name.replace("\\", "/")


def points(values: list[float], *, planar: bool = False) -> NDArray[np.float32]:
    """Ten numbers as landmarks [5, 2]: x1 y1 x2 y2 ..., or, planar, x1 ... x5 y1 ... y5."""
    with np.errstate(over="ignore"):  # what no float32 holds is infinite, and refused as such
        flat = np.array(values, dtype=np.float32)
    return flat.reshape(2, 5).T.copy() if planar else flat.reshape(5, 2)


def text_of(value: Any, what: str) -> str:
    """An id or identity of any type as text, "" for None and NaN, which say that it is not known.

    Raises:
        checks.InputError: it is neither text, UTF-8 bytes, a whole number nor a flag.

    >>> text_of(b"ann", "identity"), text_of(3.0, "identity"), text_of(float("nan"), "identity")
    ('ann', '3', '')
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, int) and abs(value) < _MOST_LABEL:
        return str(value)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            raise InputError(f"{what} must be UTF-8; got {shown(value)}") from error
    raise InputError(f"{what} must be text or a whole number; got {shown(value)}")


def score_of(value: Any) -> float | None:
    """A score of any type, None where it is not known.

    Raises:
        checks.InputError: it is no number that a float holds.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    try:
        return float(value)
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(f"score must be a number; got {shown(value)}") from error


def landmarks_of(value: Any) -> NDArray[np.float32] | None:
    """Landmarks from ten numbers or five pairs, None where they are not known (None, or NaN in one).

    Raises:
        checks.InputError: they are something else.
    """
    if value is None:
        return None
    try:
        with np.errstate(over="ignore"):
            flat = np.asarray(value, dtype=np.float32).ravel()
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(f"landmarks must be ten numbers; got {shown(value)}") from error
    if flat.shape != (10,):
        raise InputError(f"landmarks must be ten numbers; got {flat.size}")
    return None if np.isnan(flat).any() else points(flat.tolist())


def column_of(where: object, names: Sequence[str], wanted: str, also: Sequence[str] = ()) -> str | None:
    """The heading that stands for `wanted`: itself, or else the one that is it, or one of `also`, in any case.

    Raises:
        checks.InputError: several could be meant.
    """
    if wanted in names:
        return wanted
    for known in ((wanted,), also):
        found = [name for name in names if name.strip().lower() in known]
        if len(found) > 1:
            raise InputError(f"{where} must have one column for {wanted}; got {', '.join(found)}; call one {wanted!r}")
        if found:
            return found[0]
    return None
