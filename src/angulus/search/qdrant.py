"""A gallery on a Qdrant server, for galleries too large for one machine."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any
from urllib.parse import SplitResult, urlsplit

import numpy as np

from angulus.core import checks, extras
from angulus.core.checks import InputError
from angulus.search.vector_store import EXTRA, WHAT, About, Neighbours, Vectors, keys

META = "angulus"
KEY_VARIABLE = "QDRANT_API_KEY"

_NAME = re.compile(r"[A-Za-z0-9_-]{1,128}")
_BATCH = 500  # points per request
_USER = re.compile(r"://[^\s/]*@")  # user and password of a URL


class QdrantStore:
    """Points of a vector, an id and an identity in a collection; each `put` waits until the server has stored it.

    `client` is a `qdrant_client.QdrantClient`; `address` is that of the server, for messages.
    """

    def __init__(self, client: Any, collection: str, address: str = "this process") -> None:
        if not _NAME.fullmatch(collection):
            rule = "a collection's name must be 1 to 128 letters, digits, _ and -"
            raise InputError(f"{rule}; got {collection!r}; give http://HOST:6333/COLLECTION")
        self.client, self.collection, self.address = client, collection, address
        self.finished: set[str] = set()
        self.models = extras.load("qdrant_client.models", EXTRA, WHAT)

    @staticmethod
    def at(url: str) -> QdrantStore:
        """The collection at http://HOST:PORT/COLLECTION; the key, if needed, is read from QDRANT_API_KEY."""
        parts = _parts(url)
        address = f"{parts.scheme}://{parts.netloc}"
        make_client = extras.load("qdrant_client", EXTRA, WHAT).QdrantClient
        client = make_client(url=address, api_key=os.environ.get(KEY_VARIABLE), check_compatibility=False)
        return QdrantStore(client, parts.path.strip("/"), _USER.sub("://", address))

    @property
    def where(self) -> str:
        return f"the collection {self.collection} on {self.address}"

    def writing(self) -> AbstractContextManager[None]:
        """Does nothing: the server takes one request after another, and an id is a point's name."""
        return nullcontext()

    def about(self) -> About | None:
        with self._errors_named():
            if not self.client.collection_exists(self.collection):
                return None
            metadata = self.client.get_collection(self.collection).config.metadata
        return About.read((metadata or {}).get(META), self.where)

    def create(self, about: About) -> None:
        models = self.models
        try:
            with self._errors_named():
                vectors = models.VectorParams(size=about.size, distance=models.Distance.DOT)
                metadata = {META: about.text()}
                self.client.create_collection(self.collection, vectors_config=vectors, metadata=metadata)
        except InputError:
            if self.about() != about:  # another process may have made it since
                raise

    def put(self, ids: Sequence[str], identities: Sequence[str | None], vectors: Vectors) -> None:
        points = [
            self.models.PointStruct(id=key, vector=vector.tolist(), payload={"id": name, "identity": identity})
            for key, name, identity, vector in zip(keys(ids), ids, identities, vectors, strict=True)
        ]
        with self._errors_named():
            for start in range(0, len(points), _BATCH):
                self.client.upsert(self.collection, points[start : start + _BATCH], wait=True)

    def present(self, ids: Sequence[str]) -> set[str]:
        present, wanted = set(), keys(ids)
        with self._errors_named():
            for start in range(0, len(wanted), _BATCH):
                points = self.client.retrieve(self.collection, wanted[start : start + _BATCH], with_payload=["id"])
                present |= {point.payload["id"] for point in points}
        return present

    def delete(self, ids: Sequence[str]) -> None:
        with self._errors_named():
            self.client.delete(self.collection, self.models.PointIdsList(points=keys(ids)), wait=True)

    def count(self) -> int:
        with self._errors_named():
            return int(self.client.count(self.collection, exact=True).count)

    def rows(self) -> Iterator[Neighbours]:
        about = self.about()
        size, offset, first = 0 if about is None else about.size, None, about is not None
        while first or offset is not None:
            first = False
            with self._errors_named():
                points, offset = self.client.scroll(
                    self.collection, limit=_BATCH, offset=offset, with_payload=True, with_vectors=True
                )
                part = self._neighbours(points, size)
            yield part

    def index(self, kind: str) -> None:
        checks.choice("the kind of index", kind, ("hnsw",), hint="a Qdrant server builds it by itself")

    def tidy(self) -> None:
        """Does nothing: the server merges its segments by itself."""

    def nearest(self, queries: Vectors, top: int, *, effort: int | None) -> list[Neighbours]:
        models = self.models
        exact = effort is None
        params = models.SearchParams(exact=exact, hnsw_ef=None if exact else max(effort or 0, top))
        shared = {"limit": top, "params": params, "with_payload": True, "with_vector": True}
        requests = [models.QueryRequest(query=query.tolist(), **shared) for query in queries]
        with self._errors_named():
            answers = [answer.points for answer in self.client.query_batch_points(self.collection, requests)]
            return [self._neighbours(points, queries.shape[1]) for points in answers]

    @staticmethod
    def _neighbours(points: Sequence[Any], size: int) -> Neighbours:
        vectors = np.array([point.vector for point in points], dtype=np.float32).reshape(-1, size)
        payloads = [point.payload for point in points]
        return Neighbours([item["id"] for item in payloads], [item["identity"] for item in payloads], vectors)

    @contextmanager
    def _errors_named(self) -> Iterator[None]:
        """Turn the client's errors, such as an absent server or a wrong key, into sentences."""
        exceptions = extras.load("qdrant_client.http.exceptions", EXTRA, WHAT)
        try:
            yield
        except (exceptions.ApiException, OSError, ValueError, TypeError, KeyError) as error:
            detail = _USER.sub("://", checks.one_line(error))
            fault = f"{self.where} cannot be read or written: {detail:.300}; see whether a Qdrant server answers there"
            raise InputError(f"{fault}, and whether it wants a key in {KEY_VARIABLE}") from error


def _parts(url: str) -> SplitResult:
    """The parts of an address with a host, a valid port and a collection's path; errors never show a password."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a port of letters, an unclosed bracket
        good = False
    if not good or parts.query or parts.fragment or "@" in parts.path:
        scheme, _, rest = url.partition("://")
        shown = f"{scheme}://{re.split('[?#]', rest.rpartition('@')[2])[0]}"
        rule = "a gallery must be a folder or http(s)://HOST:6333/COLLECTION"
        raise InputError(f"{rule}; got {shown!r:.200}; a key goes into {KEY_VARIABLE}")
    return parts
