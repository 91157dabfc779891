"""What the readers yield, rows and things left out, and the checks that turn unknown bytes into one of them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from angulus.core import checks
from angulus.core.checks import InputError, one_line, shown
from angulus.data import decode
from angulus.data.records import Place, Row
from angulus.data.records.parts import MOST_IMAGE_BYTES

MOST_BYTES = MOST_IMAGE_BYTES  # of one image; a longer file is not read
_NOT_IMAGES = (  # common next to photos
    *(".txt", ".md", ".csv", ".tsv", ".lst", ".idx", ".json", ".jsonl", ".xml", ".html", ".yaml", ".yml", ".log"),
    *(".pdf", ".py", ".npz", ".npy", ".mat", ".safetensors", ".parquet", ".pkl", ".pickle", ".pyd", ".pt", ".pth"),
    *(".xmp", ".aae", ".ini", ".db", ".mov", ".mp4", ".m4v", ".avi", ".mkv", ".webm", ".3gp", ".mp3", ".wav"),
)
_SYSTEM_FILES = frozenset((".ds_store", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", ".directory"))
_SYSTEM_FOLDERS = {"__macosx", ".appledouble", ".spotlight-v100", ".trashes", ".fseventsd", "@eadir", "$recycle.bin"}
_MOST_LABEL = 10**4000  # Python writes no more digits
IDENTITIES = ("identity", "label", "labels", "class", "cls", "person")


@dataclass(frozen=True)
class LeftOut:
    """Something in a source that did not become a row."""

    where: str  # its name within the source
    reason: str  # why, as a sentence or the end of one
    image: bool = True  # whether it stands for an image; a column that records cannot store does not


@dataclass(frozen=True)
class Remark(LeftOut):
    """A note on the source as a whole; it stands for no image."""

    image: bool = False


Item = Row | LeftOut


@dataclass(frozen=True)
class SourceOptions:
    """Options of the readers; each applies only to some formats.

    Attributes:
        depth: folder, zip, tar: which folder of an image's path, from 1, names the identity; None: the path of its
            folder, without a split's folder.
        root: csv, lst: the folder that listed paths are relative to; None: the list's own.
        split: read only this split, such as train: of a folder, zip or tar the images in the folder of this name; of
            several tars, Parquet or Arrow files those that have it in their names; None: all.
        identity_pattern: folder, zip, tar: a regular expression whose first group, searched in an image's path, is the
            identity.
        id_column: csv, parquet, arrow: the column of ids; None: the format's usual one.
        image_column: csv, parquet, arrow: the column of images, or of their paths; None: the format's usual one.
        label_column: csv, parquet, arrow: the column of identities or classes; None: the format's usual one.
        on_error: csv, lst, rec, tar, parquet, arrow: "stop" at damage, or "skip" to leave out and name what is damaged.
    """

    depth: int | None = None
    root: Path | None = None
    split: str | None = None
    identity_pattern: str | None = None
    id_column: str | None = None
    image_column: str | None = None
    label_column: str | None = None
    on_error: str = "stop"

    def __post_init__(self) -> None:
        if self.depth is not None:
            checks.integer("depth", self.depth, low=1)
            if self.identity_pattern is not None:
                raise InputError("depth and identity_pattern both say where the identity is; give one of them")
        if self.root is not None and not self.root.is_dir():
            raise InputError(f"root must be a folder; got {str(self.root)!r}")
        if self.identity_pattern is not None:
            _check_pattern(self.identity_pattern)
        checks.choice("on_error", self.on_error, ("stop", "skip"))

    def about(self) -> dict[str, Any]:
        """What records store of them: only those that are set."""
        names = ("split", "identity_pattern", "id_column", "image_column", "label_column")
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    def left_out(self, where: str, error: InputError) -> LeftOut:
        """A damaged part as left out; raises `error`, with the way out, if `on_error` is "stop"."""
        if self.on_error == "skip":
            return LeftOut(where, str(error))
        message = f"{error}; `angulus convert --on-error skip` leaves out what is damaged and reads the rest"
        raise InputError(message) from error


def _check_pattern(pattern: str) -> None:
    try:
        groups = re.compile(pattern).groups
    except (re.error, RecursionError, OverflowError) as error:
        raise InputError(f"identity_pattern must be a regular expression; got {pattern!r:.200}: {error}") from error
    if groups < 1:
        rule = "identity_pattern must have a group in brackets that is the identity, such as '([0-9]+)_'"
        raise InputError(f"{rule}; got {pattern!r}")


def as_input_error(path: Path, kind: str, error: BaseException) -> InputError:
    """What a library raises on a damaged file, as an error that names the file."""
    if isinstance(error, InputError):
        return error
    return InputError(f"{path} must be a whole {kind}; reading it gave: {one_line(error)}")


def is_system(name: str) -> bool:
    """Whether a path is, or lies in, something that macOS, Windows or a NAS puts next to photos.

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
        """Whether `name` is a system file; counts it."""
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
    place: Place | None = None,
) -> Item:
    """A `Row` if the bytes are an image by their header and the labels are valid; its id is `where` if `id` is None."""
    id = where if id is None else id
    try:
        id.encode()
        identity.encode()
    except UnicodeEncodeError:
        return LeftOut(where.encode(errors="backslashreplace").decode(), "its name is not UTF-8; rename it")
    try:
        decode.header(image, "the file")
        return Row(id, image, identity, landmarks, score, place)
    except InputError as error:
        return LeftOut(where, str(error), image=not where.lower().endswith(_NOT_IMAGES))


def too_long(size: int) -> str | None:
    """Why a file of this many bytes is not read, or None."""
    return f"it has {size:,} bytes; an image may have {MOST_BYTES:,}" if size > MOST_BYTES else None


def unsafe(name: str) -> str | None:
    """Why an archive's entry of this name is not read, or None.

    >>> unsafe("person/1.jpg"), unsafe("../../etc/passwd")
    (None, 'its path leaves the archive')
    """
    parts = slashed(name).split("/")
    if ".." in parts or parts[0] == "" or re.match(r"[A-Za-z]:", name):
        return "its path leaves the archive"
    return None if name.isprintable() else "its path holds control characters"


def slashed(name: str) -> str:
    """A path with `/` between its folders, for lists and archives written on Windows."""
    return name.replace("\\", "/")


def points(values: Sequence[float], *, planar: bool = False) -> NDArray[np.float32]:
    """Ten numbers as landmarks [5, 2]: x1 y1 x2 y2 ..., or, planar, x1 ... x5 y1 ... y5."""
    with np.errstate(over="ignore"):  # too large for float32 becomes infinite, and is refused as such
        flat = np.array(values, dtype=np.float32)
    return flat.reshape(2, 5).T.copy() if planar else flat.reshape(5, 2)


def _is_unknown(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def text_of(value: Any, what: str) -> str:
    """An id or identity of any type as text; "" for None and NaN, which mean unknown.

    >>> text_of(b"ann", "identity"), text_of(3.0, "identity"), text_of(float("nan"), "identity")
    ('ann', '3', '')
    """
    if _is_unknown(value):
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or (isinstance(value, int) and abs(value) < _MOST_LABEL):
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
    """A score of any type, None if unknown; `InputError` if it is not a number."""
    if _is_unknown(value):
        return None
    try:
        return float(value)
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(f"score must be a number; got {shown(value)}") from error


def landmarks_of(value: Any) -> NDArray[np.float32] | None:
    """Landmarks from ten numbers or five pairs, None if unknown (None, or a NaN among them)."""
    if value is None:
        return None
    try:
        with np.errstate(over="ignore"):
            flat = np.asarray(value, dtype=np.float32).ravel()
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(f"landmarks must be ten numbers; got {shown(value)}") from error
    if flat.shape != (10,):
        raise InputError(f"landmarks must be ten numbers; got {flat.size}")
    return None if np.isnan(flat).any() else flat.reshape(5, 2)


def column_of(where: object, names: Sequence[str], wanted: str, also: Sequence[str] = ()) -> str | None:
    """The heading for `wanted`: itself, or else, in any case, the only one that equals it or one of `also`."""
    if wanted in names:
        return wanted
    for known in ((wanted,), also):
        matches = [name for name in names if name.strip().lower() in known]
        if len(matches) > 1:
            rule = f"{where} must have one column for {wanted}"
            raise InputError(f"{rule}; got {', '.join(matches)}; call one {wanted!r}")
        if matches:
            return matches[0]
    return None
