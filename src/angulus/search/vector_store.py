"""The interface of a store that holds a gallery, and what stores share."""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Protocol, TypeVar

import filelock
import numpy as np
from numpy.typing import NDArray

from angulus.core import checks, files, limits
from angulus.core.checks import InputError

Vectors = NDArray[np.float32]
Read = TypeVar("Read")
FORMAT = 1
DTYPES = ("float32", "float16")  # that a store may keep vectors as
EXTRA, WHAT = "search", "a gallery"  # the extra that installs LanceDB and Qdrant's client, and what needs it
LANCE, SQLITE = "gallery.lance", "gallery.sqlite"  # what the folder of a gallery of LanceDB, and of faiss, holds
SUFFIX = ".faiss"  # of the folder of a gallery of faiss
LEAST = 256  # rows that an index needs to learn its codes
WAIT_S = 600.0  # for another process that writes; an index of a million rows takes two minutes
KEY = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True)
class About:
    """Describes a gallery's vectors; saved with them."""

    size: int  # d, numbers per vector
    model: str | None = None  # the model and flip rule that made them, as embeddings state it; None if they do not
    flip: str | None = None  # how they were fused with the vectors of mirror images: None, "sum" or "concat"
    removed: frozenset[str] = field(default=frozenset(), compare=False)  # keys of removed people, who stay refused
    dtype: str = field(default=DTYPES[0], compare=False)  # of `DTYPES`; scores are computed from what is stored

    def text(self) -> str:
        """This description as JSON."""
        more: dict[str, object] = {"removed": sorted(self.removed)} if self.removed else {}
        if self.dtype != DTYPES[0]:
            more["dtype"] = self.dtype
        return json.dumps({"format": FORMAT, "size": self.size, "model": self.model, "flip": self.flip} | more)

    @staticmethod
    def read(text: object, where: str) -> About:
        """The description that `text` made; `where` is the gallery, for errors."""
        wrong = f"{where} is not a gallery that angulus search made"
        if not isinstance(text, str | bytes):
            raise InputError(f"{wrong} (it does not describe its vectors)")
        try:
            content = limits.parse_json(text, "the description of its vectors")
            if content.pop("format") != FORMAT:
                raise ValueError(f"its format is not {FORMAT}")
            removed = content.pop("removed", [])
            if not isinstance(removed, list) or not all(isinstance(key, str) and KEY.fullmatch(key) for key in removed):
                raise ValueError("removed must list the keys of people")
            about = About(**content, removed=frozenset(removed))
            checks.integer("its size", about.size, low=1)
            checks.choice("its dtype", about.dtype, DTYPES)
            if not isinstance(about.model, str | None):
                raise ValueError(f"its model must be a name or null; got {checks.shown(about.model)}")
            if about.flip is not None:
                checks.choice("its flip", about.flip, ("sum", "concat"), hint="or null")
            return about
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise InputError(f"{wrong} ({checks.one_line(error):.300})") from error


@dataclass(frozen=True, eq=False)
class Neighbours:
    """K rows of a gallery: ids, identities (None if unknown), and unit vectors [K, d] as stored.

    Those of a query are in order, nearest first. `expires` is the second (Unix time) from which on a row must not
    match; None, or an empty sequence: never. `norms` are the lengths of the features before they were normalised, by
    which photos of little quality are known; None, or an empty sequence: unknown.
    """

    ids: Sequence[str]
    identities: Sequence[str | None]
    vectors: Vectors
    expires: Sequence[int | None] = ()
    norms: Sequence[float | None] = ()

    def take(self, kept: Sequence[int]) -> Neighbours:
        """Some of the rows."""
        expires, norms = (
            [self.expires[row] for row in kept if self.expires],
            [self.norms[row] for row in kept if self.norms],
        )
        ids, identities = [self.ids[row] for row in kept], [self.identities[row] for row in kept]
        return Neighbours(ids, identities, self.vectors[list(kept)], expires, norms)


@dataclass(frozen=True)
class Files:
    """What a store says of its own: None where it does not know.

    Attributes:
        index: the kind of index for approximate queries; None: there is none.
        index_bytes, not_indexed: what the index takes, and how many rows it does not hold.
        bytes: of everything stored.
        changed: when rows, description or index were last written.
    """

    index: str | None = None
    index_bytes: int | None = None
    not_indexed: int | None = None
    bytes: int | None = None
    changed: datetime | None = None


class VectorStore(Protocol):
    """Stores unit vectors under ids. Ids are any text; `keys` turns them into safe names."""

    finished: set[str]  # keys of rows whose removal an earlier process began and this one finished

    @property
    def where(self) -> str:
        """Its name in messages."""

    def writing(self) -> AbstractContextManager[None]:
        """Context for `create`, `put`, `delete`, `index` and `tidy`: one process at a time, the others wait."""

    def about(self) -> About | None:
        """What it holds, up to date and repaired after a crash; None if there is nothing yet."""

    def create(self, about: About) -> None:
        """Make it, empty."""

    def describe(self, about: About) -> None:
        """Replace its description, in one step."""

    def put(self, rows: Neighbours) -> None:
        """Add rows, replacing those with the same ids; when it returns, they survive this process."""

    def present(self, ids: Sequence[str]) -> set[str]:
        """The ids that exist, out of these."""

    def delete(self, ids: Sequence[str]) -> None:
        """Delete rows from everything stored; after a crash, opening the gallery again finishes the work."""

    def count(self) -> int:
        """The number of rows."""

    def rows(
        self, *, people: Collection[str] | None = None, expired: int | None = None, vectors: bool = True
    ) -> Iterator[Neighbours]:
        """The rows as they are now, in parts: all, those of `people`, or those that expire by the second `expired`.

        Without `vectors`, which take most of the time, these are [K, 0].
        """

    def repeated(self, read: Callable[[], Read]) -> Read:
        """What `read` gives; it is called again if a removal deletes what it reads."""

    def files(self) -> Files:
        """The index, and what is stored."""

    def index(self, kind: str) -> None:
        """Build the index for approximate queries."""

    def tidy(self) -> None:
        """Merge the pieces that many additions left."""

    def nearest(self, queries: Vectors, top: int, *, effort: int | None) -> list[Neighbours]:
        """The rows of largest inner product with each query [Q, d]; `effort` None compares all rows."""


def keys(ids: Sequence[str]) -> list[str]:
    """A safe name for each id: 32 hexadecimal digits of a 128-bit BLAKE2b, written as a UUID.

    So no text from a user becomes part of a query or a path.

    >>> keys(["a'; DROP TABLE gallery; --"])
    ['7f111f5b-41af-197a-f628-b389b2393033']
    """
    return [str(uuid.UUID(bytes=hashlib.blake2b(name.encode(), digest_size=16).digest())) for name in ids]


def folder_holds(folder: Path, own: str) -> bool:
    """Whether a folder holds a gallery of the store whose part is `own`; no, if it is missing or empty.

    Raises:
        checks.InputError: something else is there.
    """
    if (folder / own).exists():
        return True
    if not folder.exists() or (folder.is_dir() and {path.name for path in folder.iterdir()} <= {".lock"}):
        return False
    fault = "not a gallery, and not empty" if folder.is_dir() else "a file, and a gallery is a folder"
    raise InputError(f"{folder} is {fault}; give another folder")


def lock_folder(folder: Path, wait_s: float) -> AbstractContextManager[None]:
    """Lock a gallery's folder against other writers."""
    return files.lock(folder, "the gallery", wait_s=wait_s, way="run the same command again")


@contextmanager
def write_alone(folder: Path, wait_s: float) -> Iterator[None]:
    """Lock a gallery's folder; if another process writes, say so, and wait for it."""
    with ExitStack() as stack:
        try:
            stack.enter_context(lock_folder(folder, 0))
        except InputError as error:
            if not isinstance(error.__cause__, filelock.Timeout):
                raise
            checks.warn(f"waiting for another process that writes {folder}, at most {wait_s:g} s")
            stack.enter_context(lock_folder(folder, wait_s))
        yield


def check_indexable(kind: str, size: int, count: int, where: str) -> None:
    """Refuse an index of too few rows, or of signs that do not fill bytes."""
    if count < LEAST:
        fault = f"an index learns its codes from {LEAST} rows at least"
        raise InputError(f"{fault}; {where} has {count}, and exact queries need none")
    if kind == "binary" and size % 8:
        fault = f"a binary index packs 8 numbers into a byte, so their number must be divisible by 8; got {size}"
        way = f"; embed with --dimensions {size // 8 * 8}, or use --kind int8" if size > 8 else ""
        raise InputError(f"{fault}{way}")
