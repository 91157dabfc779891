"""A gallery in a folder: LanceDB, embedded in this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from angulus import checks, files
from angulus.search.store import About, Found, Vectors, keys, library

TABLE, META = "gallery", b"angulus"
KINDS = ("ivf-pq", "hnsw")
LEAST = 256  # rows that an index learns its codes from

_KEPT = timedelta(hours=1)  # an older state of the table, for who still reads it
_KEYS = 1000  # in one condition
_REFINE = 10  # times as many rows as are asked for are compared by their full vectors


class LanceStore:
    """Rows of key, id, identity and vector in a table; each `put` is one committed version of it.

    A process that dies within a `put` leaves the table as it was before. What the system has not yet written to the
    disk when the power fails is not guarded. Deleting rewrites the files that held the rows, so that faces which have
    to go are gone; a process that reads at that moment may have to ask again.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._table: Any = None

    @property
    def where(self) -> str:
        return str(self.folder)

    def about(self) -> About | None:
        if not self.folder.exists() or (self.folder.is_dir() and not any(self.folder.iterdir())):
            return None
        if not (self.folder / f"{TABLE}.lance").is_dir():
            raise checks.InputError(f"{self.folder} is not a gallery, and not empty; give another folder")
        return About.read((self._open().schema.metadata or {}).get(META), self.where)

    def create(self, about: About) -> None:
        files.make_folder(self.folder)
        fields = [
            pa.field("key", pa.string(), nullable=False),
            pa.field("id", pa.string(), nullable=False),
            pa.field("identity", pa.string()),
            pa.field("vector", pa.list_(pa.float32(), about.size), nullable=False),
        ]
        schema = pa.schema(fields, metadata={META: about.text().encode()})
        with self._said():
            self._table = library("lancedb").connect(str(self.folder)).create_table(TABLE, schema=schema)

    def put(self, ids: Sequence[str], identities: Sequence[str | None], vectors: Vectors) -> None:
        table = self._open()
        columns = [
            pa.array(keys(ids)),
            pa.array(list(ids), pa.string()),
            pa.array(list(identities), pa.string()),
            pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(vectors).ravel()), vectors.shape[1]),
        ]
        with self._said():
            merge = table.merge_insert("key").when_matched_update_all().when_not_matched_insert_all()
            merge.execute(pa.Table.from_arrays(columns, schema=table.schema))

    def present(self, ids: Sequence[str]) -> set[str]:
        table, found = self._open(), set()
        with self._said():
            for condition in _conditions(ids):
                found |= set(table.search().where(condition).select(["id"]).to_arrow()["id"].to_pylist())
        return found

    def delete(self, ids: Sequence[str]) -> None:
        table = self._open()
        with self._said():
            for condition in _conditions(ids):
                table.delete(condition)
            pieces = table.to_lance()
            pieces.optimize.compact_files(materialize_deletions_threshold=0.0)
            pieces.cleanup_old_versions(timedelta(0))
            table.checkout_latest()

    def count(self) -> int:
        return int(self._open().count_rows())

    def index(self, kind: str) -> None:
        checks.choice("the kind of index", kind, KINDS)
        table, count = self._open(), self.count()
        if count < LEAST:
            raise checks.InputError(
                f"an index learns its codes from {LEAST} rows at least; {self.where} has {count}, and exact queries "
                "need none"
            )
        indices = library("lancedb.index")
        size = table.schema.field("vector").type.list_size
        if kind == "ivf-pq":
            parts = next(each for each in range(max(1, size // 8), 0, -1) if size % each == 0)
            config = indices.IvfPq(distance_type="dot", num_sub_vectors=parts)
        else:
            config = indices.HnswSq(distance_type="dot")
        with self._said():
            table.create_index("vector", config=config, replace=True)

    def tidy(self) -> None:
        with self._said():
            self._open().optimize(cleanup_older_than=_KEPT)

    def nearest(self, queries: Vectors, top: int, *, effort: int | None) -> list[Found]:
        table = self._open()
        search = table.search(queries, query_type="vector", vector_column_name="vector").distance_type("dot")
        if effort is None:
            search = search.bypass_vector_index()
        else:
            if not table.list_indices():
                raise checks.InputError(
                    f"{self.where} has no index for approximate queries; build one with angulus search index, or ask "
                    "for exact answers"
                )
            search = search.nprobes(effort).ef(max(effort, _REFINE * top)).refine_factor(_REFINE)
        with self._said():
            rows = search.limit(top).select(["id", "identity", "vector", "_distance"]).to_arrow()
        number = rows["query_index"].to_numpy() if "query_index" in rows.schema.names else np.zeros(len(rows), int)
        size = table.schema.field("vector").type.list_size
        vectors = rows["vector"].combine_chunks().flatten().to_numpy(zero_copy_only=False).reshape(-1, size)
        ids, identities = rows["id"].to_pylist(), rows["identity"].to_pylist()
        found = []
        for query in range(len(queries)):
            chosen = np.flatnonzero(number == query)
            found.append(Found([ids[row] for row in chosen], [identities[row] for row in chosen], vectors[chosen]))
        return found

    def _open(self) -> Any:
        if self._table is None:
            with self._said():
                self._table = library("lancedb").connect(str(self.folder)).open_table(TABLE)
        return self._table

    @contextmanager
    def _said(self) -> Iterator[None]:
        """Make a sentence of what LanceDB raises: a disk that is full, files that are damaged."""
        try:
            yield
        except (RuntimeError, OSError, ValueError) as error:
            if isinstance(error, checks.InputError):
                raise
            told = " ".join(str(error).split())[:300]
            raise checks.InputError(f"the gallery {self.where} cannot be read or written: {told}") from error


def _conditions(ids: Sequence[str]) -> Iterator[str]:
    """SQL that chooses rows by key; keys hold nothing but digits, a to f and dashes."""
    named = keys(ids)
    for start in range(0, len(named), _KEYS):
        yield f"key IN ({', '.join(repr(each) for each in named[start : start + _KEYS])})"
