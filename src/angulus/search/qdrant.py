"""A gallery on a Qdrant server, for galleries too large for one machine."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any
from urllib.parse import SplitResult, urlsplit

import numpy as np

from angulus.core import checks, extras
from angulus.core.checks import InputError
from angulus.search.vector_store import EXTRA, WHAT, About, Files, Neighbours, Read, Vectors, keys

META = "angulus"
KEY_VARIABLE = "QDRANT_API_KEY"
KINDS = ("hnsw", "int8", "binary")

_NAME = re.compile(r"[A-Za-z0-9_-]{1,128}")
_BATCH = 500  # points per request
_OVERSAMPLING = 30.0  # times as many points as requested are compared by their full vectors, if they are quantised
_PAYLOAD = ("id", "identity", "expires", "norm")
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
                kept = models.Datatype(about.dtype)
                vectors = models.VectorParams(size=about.size, distance=models.Distance.DOT, datatype=kept)
                metadata = {META: about.text()}
                self.client.create_collection(self.collection, vectors_config=vectors, metadata=metadata)
        except InputError:
            if self.about() != about:  # another process may have made it since
                raise

    def describe(self, about: About) -> None:
        with self._errors_named():
            self.client.update_collection(self.collection, metadata={META: about.text()})

    def put(self, rows: Neighbours) -> None:
        later = ((column or [None] * len(rows.ids)) for column in (rows.expires, rows.norms))
        columns = zip(keys(rows.ids), rows.vectors, rows.ids, rows.identities, *later, strict=True)
        points = [
            self.models.PointStruct(id=key, vector=vector.tolist(), payload=dict(zip(_PAYLOAD, values, strict=True)))
            for key, vector, *values in columns
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

    def rows(
        self, *, people: Collection[str] | None = None, expired: int | None = None, vectors: bool = True
    ) -> Iterator[Neighbours]:
        models = self.models
        asked = []
        if people is not None:
            asked.append(models.FieldCondition(key="identity", match=models.MatchAny(any=list(people))))
        if expired is not None:
            asked.append(models.FieldCondition(key="expires", range=models.Range(lte=expired)))
        size, more = getattr(self.about(), "size", 1) if vectors else 0, None
        with self._errors_named():
            while True:
                shared = {"limit": _BATCH, "offset": more, "with_payload": True, "with_vectors": vectors}
                points, more = self.client.scroll(self.collection, models.Filter(must=asked), **shared)
                yield self._neighbours(points, size)
                if more is None:
                    return

    def index(self, kind: str) -> None:
        """Let the server keep the codes of vectors in memory, and the vectors on disk; "hnsw" undoes that."""
        checks.choice("the kind of index", kind, KINDS, hint="a Qdrant server builds its graph by itself")
        models = self.models
        quantised: Any = models.Disabled.DISABLED
        if kind == "int8":
            config = models.ScalarQuantizationConfig(type=models.ScalarType.INT8, always_ram=True)
            quantised = models.ScalarQuantization(scalar=config)
        elif kind == "binary":
            quantised = models.BinaryQuantization(binary=models.BinaryQuantizationConfig(always_ram=True))
        vectors = {"": models.VectorParamsDiff(on_disk=kind != "hnsw")}
        with self._errors_named():
            self.client.update_collection(self.collection, vectors_config=vectors, quantization_config=quantised)

    def repeated(self, read: Callable[[], Read]) -> Read:
        """`read()`: the server keeps what a request reads."""
        return read()

    def files(self) -> Files:
        """The codes that the server keeps in memory, if it does; it does not say what it stores."""
        with self._errors_named():
            codes = self.client.get_collection(self.collection).config.quantization_config
        kind = "hnsw" if codes is None else "int8" if getattr(codes, "scalar", None) else "binary"
        return Files(kind)

    def tidy(self) -> None:
        """Does nothing: the server merges its segments by itself."""

    def nearest(self, queries: Vectors, top: int, *, effort: int | None) -> list[Neighbours]:
        models = self.models
        exact = effort is None
        rescored = models.QuantizationSearchParams(ignore=exact, rescore=True, oversampling=_OVERSAMPLING)
        params = models.SearchParams(
            exact=exact, hnsw_ef=None if exact else max(effort or 0, top), quantization=rescored
        )
        shared = {"limit": top, "params": params, "with_payload": True, "with_vector": True}
        requests = [models.QueryRequest(query=query.tolist(), **shared) for query in queries]
        with self._errors_named():
            answers = [answer.points for answer in self.client.query_batch_points(self.collection, requests)]
            return [self._neighbours(points, queries.shape[1]) for points in answers]

    @staticmethod
    def _neighbours(points: Sequence[Any], size: int) -> Neighbours:
        vectors = np.array([point.vector if size else [] for point in points], dtype=np.float32)
        payloads = [point.payload for point in points]
        ids, identities, expires, norms = ([item.get(name) for item in payloads] for name in _PAYLOAD)
        return Neighbours(ids, identities, vectors.reshape(len(points), size), expires, norms)

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
