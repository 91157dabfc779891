"""A gallery on a Qdrant server, for what outgrows one machine."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from angulus import checks
from angulus.search.store import About, Found, Vectors, keys, library

META = "angulus"
KEY_VARIABLE = "QDRANT_API_KEY"

_NAME = re.compile(r"[A-Za-z0-9_-]{1,128}")
_BATCH = 500  # points a request


class QdrantStore:
    """Points of a vector, an id and an identity in a collection; each `put` waits until the server has kept it.

    Args:
        client: a `qdrant_client.QdrantClient`.
        collection: letters, digits, _ and -.
        address: of the server, for messages.
    """

    def __init__(self, client: Any, collection: str, address: str = "this process") -> None:
        if not _NAME.fullmatch(collection):
            raise checks.InputError(
                f"a collection's name must be 1 to 128 letters, digits, _ and -; got {collection!r}; give "
                "http://HOST:6333/COLLECTION"
            )
        self.client, self.collection, self.address = client, collection, address
        self.models = library("qdrant_client.models")

    @staticmethod
    def at(url: str) -> QdrantStore:
        """The collection http://HOST:PORT/COLLECTION; the key, if one is needed, is in QDRANT_API_KEY."""
        parts = urlsplit(url)
        collection = parts.path.strip("/")
        address = f"{parts.scheme}://{parts.netloc}"
        client = library("qdrant_client").QdrantClient(
            url=address, api_key=os.environ.get(KEY_VARIABLE), check_compatibility=False
        )
        return QdrantStore(client, collection, f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}")  # no password

    @property
    def where(self) -> str:
        return f"the collection {self.collection} on {self.address}"

    def about(self) -> About | None:
        with self._said():
            if not self.client.collection_exists(self.collection):
                return None
            kept = self.client.get_collection(self.collection).config.metadata
        return About.read((kept or {}).get(META), self.where)

    def create(self, about: About) -> None:
        models = self.models
        with self._said():
            self.client.create_collection(
                self.collection,
                vectors_config=models.VectorParams(size=about.size, distance=models.Distance.DOT),
                metadata={META: about.text()},
            )

    def put(self, ids: Sequence[str], identities: Sequence[str | None], vectors: Vectors) -> None:
        points = [
            self.models.PointStruct(id=key, vector=vector.tolist(), payload={"id": name, "identity": identity})
            for key, name, identity, vector in zip(keys(ids), ids, identities, vectors, strict=True)
        ]
        with self._said():
            for start in range(0, len(points), _BATCH):
                self.client.upsert(self.collection, points[start : start + _BATCH], wait=True)

    def present(self, ids: Sequence[str]) -> set[str]:
        found, named = set(), keys(ids)
        with self._said():
            for start in range(0, len(named), _BATCH):
                part = self.client.retrieve(self.collection, named[start : start + _BATCH], with_payload=["id"])
                found |= {point.payload["id"] for point in part}
        return found

    def delete(self, ids: Sequence[str]) -> None:
        with self._said():
            self.client.delete(self.collection, self.models.PointIdsList(points=keys(ids)), wait=True)

    def count(self) -> int:
        with self._said():
            return int(self.client.count(self.collection, exact=True).count)

    def index(self, kind: str) -> None:
        checks.choice("the kind of index", kind, ("hnsw",), hint="a Qdrant server builds it by itself")

    def tidy(self) -> None:
        """Nothing: the server merges its segments by itself."""

    def nearest(self, queries: Vectors, top: int, *, effort: int | None) -> list[Found]:
        models = self.models
        exact = effort is None
        params = models.SearchParams(exact=exact, hnsw_ef=None if exact else max(effort or 0, top))
        requests = [
            models.QueryRequest(query=each.tolist(), limit=top, params=params, with_payload=True, with_vector=True)
            for each in queries
        ]
        with self._said():
            answers = self.client.query_batch_points(self.collection, requests)
        found = []
        for answer in answers:
            points = answer.points
            vectors = np.array([point.vector for point in points], dtype=np.float32).reshape(-1, queries.shape[1])
            payloads = [point.payload for point in points]
            found.append(Found([each["id"] for each in payloads], [each["identity"] for each in payloads], vectors))
        return found

    @contextmanager
    def _said(self) -> Iterator[None]:
        """Make a sentence of what the client raises: a server that is not there, a key that is wrong."""
        exceptions = library("qdrant_client.http.exceptions")
        try:
            yield
        except (exceptions.ApiException, OSError, ValueError) as error:
            told = " ".join(str(error).split())[:300]
            raise checks.InputError(
                f"{self.where} cannot be read or written: {told}; see whether a Qdrant server answers there, and "
                f"whether it wants a key in {KEY_VARIABLE}"
            ) from error
