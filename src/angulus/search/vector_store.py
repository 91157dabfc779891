"""What a store of vectors must do to hold a gallery, and what the stores share."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from angulus.core import checks, limits

Vectors = NDArray[np.float32]
FORMAT = 1
EXTRA, WHAT = "search", "a gallery"  # the extra that installs every store, and what needs it


@dataclass(frozen=True)
class About:
    """What a gallery's vectors are; kept in the store with them.

    Attributes:
        size: d, numbers a vector.
        model: which model and flip rule made them, as embeddings say; None where they do not.
        flip: how the vectors of mirror images were joined to them: None, "sum" or "concat".
    """

    size: int
    model: str | None = None
    flip: str | None = None

    def text(self) -> str:
        """As JSON."""
        return json.dumps({"format": FORMAT, **asdict(self)})

    @staticmethod
    def read(text: object, where: str) -> About:
        """What `text` gave, or what is wrong with it."""
        wrong = f"{where} is not a gallery that angulus search made"
        if not isinstance(text, str | bytes):
            raise checks.InputError(f"{wrong} (it does not say which vectors it holds)")
        try:
            content = limits.parse_json(text, "what it says of its vectors")
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
            raise checks.InputError(f"{wrong} ({checks.one_line(error):.300})") from error


@dataclass(frozen=True, eq=False)
class Neighbours:
    """Rows of a gallery, near to one query first.

    Attributes:
        ids: K of them.
        identities: K, who is shown, or None where that is not known.
        vectors: [K, d], unit vectors as they are stored.
    """

    ids: Sequence[str]
    identities: Sequence[str | None]
    vectors: Vectors


class VectorStore(Protocol):
    """Keeps unit vectors under ids. Ids are any text: a store uses `keys` where it needs a name of its own.

    Attributes:
        finished: keys of rows whose removal an earlier process began and this one finished.
    """

    finished: set[str]

    @property
    def where(self) -> str:
        """What to call it in messages."""

    def writing(self) -> AbstractContextManager[None]:
        """Where `create`, `put`, `delete`, `index` and `tidy` belong: one process at a time, the others wait."""

    def about(self) -> About | None:
        """What it holds, up to date and without what a crash left; None where there is nothing yet."""

    def create(self, about: About) -> None:
        """Make it, empty."""

    def put(self, ids: Sequence[str], identities: Sequence[str | None], vectors: Vectors) -> None:
        """Add, or replace what has the same id; when it returns, what was put outlives this process."""

    def present(self, ids: Sequence[str]) -> set[str]:
        """Which of the ids are there."""

    def delete(self, ids: Sequence[str]) -> None:
        """Take them out, and out of what is stored; a crash leaves no more to do than to open the gallery again."""

    def count(self) -> int:
        """How many there are."""

    def index(self, kind: str) -> None:
        """Build what makes approximate queries fast."""

    def tidy(self) -> None:
        """Merge what many additions left in pieces."""

    def nearest(self, queries: Vectors, top: int, *, effort: int | None) -> list[Neighbours]:
        """The rows of largest inner product with each query [Q, d]; effort: None for all rows, or how hard to look."""


def keys(ids: Sequence[str]) -> list[str]:
    """Names that are safe anywhere, one an id: 32 hexadecimal digits, as a UUID, of a 128-bit BLAKE2b.

    No text that a user chose ever becomes a part of a query or a path.

    >>> keys(["a'; DROP TABLE gallery; --"])
    ['7f111f5b-41af-197a-f628-b389b2393033']
    """
    return [str(uuid.UUID(bytes=hashlib.blake2b(each.encode(), digest_size=16).digest())) for each in ids]
