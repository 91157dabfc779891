"""The interface of a store that holds a gallery, and what all stores share."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from angulus.core import checks, limits
from angulus.core.checks import InputError

Vectors = NDArray[np.float32]
FORMAT = 1
EXTRA, WHAT = "search", "a gallery"  # the extra that installs every store, and what needs it


@dataclass(frozen=True)
class About:
    """Describes a gallery's vectors; saved with them."""

    size: int  # d, numbers per vector
    model: str | None = None  # the model and flip rule that made them, as embeddings state it; None if they do not
    flip: str | None = None  # how they were fused with the vectors of mirror images: None, "sum" or "concat"

    def text(self) -> str:
        """This description as JSON."""
        return json.dumps({"format": FORMAT, **asdict(self)})

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
            about = About(**content)
            checks.integer("its size", about.size, low=1)
            if not isinstance(about.model, str | None):
                raise ValueError(f"its model must be a name or null; got {checks.shown(about.model)}")
            if about.flip is not None:
                checks.choice("its flip", about.flip, ("sum", "concat"), hint="or null")
            return about
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise InputError(f"{wrong} ({checks.one_line(error):.300})") from error


@dataclass(frozen=True, eq=False)
class Neighbours:
    """K rows of a gallery, nearest first: ids, identities (None if unknown), and unit vectors [K, d] as stored."""

    ids: Sequence[str]
    identities: Sequence[str | None]
    vectors: Vectors


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

    def put(self, ids: Sequence[str], identities: Sequence[str | None], vectors: Vectors) -> None:
        """Add rows, replacing those with the same ids; when it returns, they survive this process."""

    def present(self, ids: Sequence[str]) -> set[str]:
        """The ids that exist, out of these."""

    def delete(self, ids: Sequence[str]) -> None:
        """Delete rows from everything stored; after a crash, opening the gallery again finishes the work."""

    def count(self) -> int:
        """The number of rows."""

    def rows(self) -> Iterator[Neighbours]:
        """All rows as they are now, in parts."""

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
