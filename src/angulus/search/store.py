"""What a store of vectors must do to hold a gallery, and what the stores share."""

from __future__ import annotations

import hashlib
import importlib
import json
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from angulus import checks

Vectors = NDArray[np.float32]
FORMAT = 1


@dataclass(frozen=True)
class About:
    """What a gallery's vectors are; kept in the store beside them.

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
        try:
            content = json.loads(text)  # type: ignore[arg-type]  # a TypeError is caught
            if content.pop("format") != FORMAT:
                raise ValueError(f"its format is not {FORMAT}")
            about = About(**content)
            checks.integer("its size", about.size, low=1)
            return about
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise checks.InputError(f"{where} is not a gallery that angulus search made ({error})") from error


@dataclass(frozen=True, eq=False)
class Found:
    """Rows of a gallery, near to one query first.

    Attributes:
        ids: K of them.
        identities: K, who is shown, or None where that is not known.
        vectors: [K, d], unit vectors as they are stored.
    """

    ids: Sequence[str]
    identities: Sequence[str | None]
    vectors: Vectors


class Store(Protocol):
    """Keeps unit vectors under ids. Ids are any text: a store uses `keys` where it needs a name of its own."""

    @property
    def where(self) -> str:
        """What to call it in messages."""

    def about(self) -> About | None:
        """What it holds; None where there is nothing yet."""

    def create(self, about: About) -> None:
        """Make it, empty."""

    def put(self, ids: Sequence[str], identities: Sequence[str | None], vectors: Vectors) -> None:
        """Add, or replace what has the same id; when it returns, what was put outlives this process."""

    def present(self, ids: Sequence[str]) -> set[str]:
        """Which of the ids are there."""

    def delete(self, ids: Sequence[str]) -> None:
        """Take them out, and out of what is stored."""

    def count(self) -> int:
        """How many there are."""

    def index(self, kind: str) -> None:
        """Build what makes approximate queries fast."""

    def tidy(self) -> None:
        """Merge what many additions left in pieces."""

    def nearest(self, queries: Vectors, top: int, *, effort: int | None) -> list[Found]:
        """The rows of largest inner product with each query [Q, d]; effort: None for all rows, or how hard to look."""


def keys(ids: Sequence[str]) -> list[str]:
    """Names that are safe anywhere, one an id: 32 hexadecimal digits, as a UUID, of a 128-bit BLAKE2b.

    No text that a user chose ever becomes a part of a query or a path.

    >>> keys(["a'; DROP TABLE gallery; --"])
    ['7f111f5b-41af-197a-f628-b389b2393033']
    """
    return [str(uuid.UUID(bytes=hashlib.blake2b(each.encode(), digest_size=16).digest())) for each in ids]


def library(name: str) -> Any:
    """A library that only one store needs, or the sentence that says how to get it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise checks.InputError(
            f"this gallery needs the package {name.partition('.')[0]}; pip install 'angulus[search]'"
        ) from error
