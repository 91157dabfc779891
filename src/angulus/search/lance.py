"""A gallery in a folder, in an embedded LanceDB."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, timedelta
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from angulus.core import checks, extras, files, limits
from angulus.core.checks import InputError
from angulus.search.vector_store import (
    EXTRA,
    KEY,
    LANCE,
    WAIT_S,
    WHAT,
    About,
    Files,
    Neighbours,
    Read,
    Vectors,
    check_indexable,
    folder_holds,
    keys,
    lock_folder,
    write_alone,
)

TABLE, META = LANCE.removesuffix(".lance"), b"angulus"
KINDS = ("ivf-pq", "hnsw", "int8", "binary")
EXPIRES = pa.field("expires", pa.int64())  # seconds of Unix time
NORM = pa.field("norm", pa.float32())  # of the feature
LATER = (EXPIRES, NORM)  # columns that older galleries lack until something is added

_NAMES = dict(zip(KINDS, ("IvfPq", "HnswSq", "IvfSq", "IvfRq"), strict=True))  # LanceDB's
_KEPT = timedelta(hours=1)  # how long older versions of the table stay, for processes that still read them
_TERMS = 1000  # per condition
# times as many rows as requested are compared by their full vectors, by the type of index
_REFINE = {"IvfRq": 30}
_REFINE_OTHERS = 10
_ROWS = 10_000  # read at a time
_TRIES = 5  # of a query while another process removes the files that it reads


class Removals:
    """The keys of rows whose removal has begun, in a file of the gallery's `folder`."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "removals.json"

    def begin(self, keys: list[str]) -> None:
        """Write the keys to disk, before any row is deleted."""
        files.write_json(self.path, {"keys": keys})

    def pending(self) -> list[str]:
        """The keys that `begin` wrote and `end` has not cleared; other text is refused, as it enters a condition."""
        if not self.path.exists():
            return []
        wrong = f"{self.path} must list the rows that a stopped removal still has to delete, and cannot be used"
        wrong = f"{wrong}; delete it, and run angulus search remove again for those ids"
        try:
            content = limits.parse_json(limits.read_file(self.path), str(self.path))
        except InputError as error:
            raise InputError(f"{wrong} ({error})") from error
        keys = content.get("keys") if isinstance(content, dict) else None
        if not isinstance(keys, list) or not all(isinstance(key, str) and KEY.fullmatch(key) for key in keys):
            raise InputError(wrong)
        return keys

    def end(self) -> None:
        """Clear the keys, after everything written before is on disk."""
        for path in self.path.parent.rglob("*"):
            files.sync_folder(path)  # a file as well as a folder
        self.path.unlink(missing_ok=True)
        files.sync_folder(self.path.parent)


class LanceStore:
    """Rows of key, id, identity and vector in a table; each `put` commits one version of it.

    A process that dies within a `put` leaves the table unchanged; a power failure may lose what the system has not yet
    written to disk. Deleting rewrites the files that held the rows, so that nothing of them remains; the keys are
    written down first, and the next process that opens the gallery finishes what a crash stopped. A query whose files
    are deleted at that moment is repeated.

    Args:
        folder: made when something is added.
        wait_s: seconds to wait for another process that writes.
    """

    def __init__(self, folder: Path, *, wait_s: float = WAIT_S) -> None:
        self.folder, self.wait_s = folder, wait_s
        self.finished: set[str] = set()
        self._removals = Removals(folder)
        self._table: Any = None
        self._writes = self._sound = False

    @property
    def where(self) -> str:
        return str(self.folder)

    @contextmanager
    def writing(self) -> Iterator[None]:
        with write_alone(self.folder, self.wait_s):
            self._writes = True
            try:
                if self._exists():
                    self._repair()
                yield
            finally:
                self._writes = False

    def about(self) -> About | None:
        if not self._exists():
            return None
        schema = self._latest().schema
        about = About.read((schema.metadata or {}).get(META), self.where)
        vector = schema.field("vector").type if "vector" in schema.names else None
        if {"key", "id", "identity"} - set(schema.names) or vector != _vector_type(about):
            raise InputError(f"{self.where} is not a gallery that angulus search made (other columns)")
        if not self._writes and (self._removals.path.exists() or self._duplicates()):
            try:
                with lock_folder(self.folder, 0):
                    self._repair()
            except InputError as error:
                if not isinstance(error.__cause__, filelock.Timeout):  # another process writes, and it repairs first
                    raise
        return about

    def create(self, about: About) -> None:
        files.make_folder(self.folder)
        fields = [
            pa.field("key", pa.string(), nullable=False),
            pa.field("id", pa.string(), nullable=False),
            pa.field("identity", pa.string()),
            pa.field("vector", _vector_type(about), nullable=False),
            *LATER,
        ]
        schema = pa.schema(fields, metadata={META: about.text().encode()})
        with self._errors_named():
            self._table = _lancedb().connect(str(self.folder)).create_table(TABLE, schema=schema)

    def describe(self, about: About) -> None:
        data = self._pieces("describing a gallery")
        with self._errors_named():
            old = not hasattr(data, "update_schema_metadata")  # in the first versions of pylance
            change = data.replace_schema_metadata if old else data.update_schema_metadata
            change({META.decode(): about.text()})

    def put(self, rows: Neighbours) -> None:
        table = self._open()
        with self._errors_named():
            for field in LATER:
                if field.name not in table.schema.names:
                    table.add_columns(field)
        kept = table.schema.field("vector").type
        flat = np.ascontiguousarray(rows.vectors, dtype=kept.value_type.to_pandas_dtype()).ravel()
        unknown = [None] * len(rows.ids)
        columns = {
            "key": pa.array(keys(rows.ids)),
            "id": pa.array(list(rows.ids), pa.string()),
            "identity": pa.array(list(rows.identities), pa.string()),
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(flat), kept.list_size),
            EXPIRES.name: pa.array(list(rows.expires) or unknown, EXPIRES.type),
            NORM.name: pa.array(list(rows.norms) or unknown, NORM.type),
        }
        with self._errors_named():
            merge = table.merge_insert("key").when_matched_update_all().when_not_matched_insert_all()
            merge.execute(pa.Table.from_arrays([columns[name] for name in table.schema.names], schema=table.schema))

    def present(self, ids: Sequence[str]) -> set[str]:
        return {name for rows in self._rows_of(keys(ids)) for name in rows["id"].to_pylist()}

    def delete(self, ids: Sequence[str]) -> None:
        self._removals.begin(keys(ids))
        self._erase()

    def count(self) -> int:
        with self._errors_named():
            return int(self._open().count_rows())

    def rows(
        self, *, people: Collection[str] | None = None, expired: int | None = None, vectors: bool = True
    ) -> Iterator[Neighbours]:
        condition: Any = None if people is None else pc.field("identity").isin(list(people))
        if expired is not None:
            if EXPIRES.name not in self._latest().schema.names:
                return
            condition = pc.field(EXPIRES.name) <= expired
        data = self._pieces("listing a gallery")
        columns = [name for name in self._columns() if vectors or name != "vector"]
        with self._errors_named():
            for batch in data.to_batches(columns, filter=condition, batch_size=_ROWS):
                yield _neighbours(batch)

    def index(self, kind: str) -> None:
        checks.choice("the kind of index", kind, KINDS)
        table, count = self._open(), self.count()
        size = table.schema.field("vector").type.list_size
        check_indexable(kind, size, count, self.where)
        with self._errors_named():
            table.create_index("vector", config=self._config(kind, size), replace=True)

    def files(self) -> Files:
        """The index takes the memory of queries; the vectors that they compare at last stay on disk."""
        table = self._latest()
        stored = sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())
        with self._errors_named():
            changed = table.to_lance().versions()[-1]["timestamp"].astimezone(UTC)
            built = table.list_indices()
            if not built:
                return Files(bytes=stored, changed=changed)
            index, kinds = built[0], {name: kind for kind, name in _NAMES.items()}
            kind = kinds.get(index.index_type.replace("IvfHnsw", "Hnsw"), index.index_type)
            # old versions of LanceDB do not say
            taken, missing = (getattr(index, name, None) for name in ("size_bytes", "num_unindexed_rows"))
            return Files(kind, taken, missing, stored, changed)

    @staticmethod
    def _config(kind: str, size: int) -> Any:
        """LanceDB's index of that kind, for vectors of that many numbers."""
        make = getattr(extras.load("lancedb.index", EXTRA, WHAT), _NAMES[kind])
        if kind == "ivf-pq":
            parts = next(count for count in range(max(1, size // 8), 0, -1) if size % count == 0)
            return make(distance_type="dot", num_sub_vectors=parts)
        return make(distance_type="dot")

    def tidy(self) -> None:
        with self._errors_named():
            self._open().optimize(cleanup_older_than=_KEPT)

    def nearest(self, queries: Vectors, top: int, *, effort: int | None) -> list[Neighbours]:
        table = self._open()
        search = table.search(queries, query_type="vector", vector_column_name="vector").distance_type("dot")
        if effort is None:
            search = search.bypass_vector_index()
        else:
            built = table.list_indices()
            if not built:
                fault = f"{self.where} has no index for approximate queries"
                raise InputError(f"{fault}; build one with angulus search index, or ask for exact answers")
            refine = _REFINE.get(built[0].index_type, _REFINE_OTHERS)
            search = search.nprobes(effort).ef(max(effort, refine * top)).refine_factor(refine)
        search = search.limit(top).select([*self._columns(), "_distance"])
        with self._errors_named():
            rows = self.repeated(search.to_arrow)
        if "query_index" not in rows.schema.names:
            return [_neighbours(rows)]
        number = rows["query_index"].to_numpy()
        return [_neighbours(rows.take(np.flatnonzero(number == query))) for query in range(len(queries))]

    def _columns(self) -> list[str]:
        """The columns that a row of the gallery is read from."""
        wanted = ("id", "identity", "vector", *(field.name for field in LATER))
        return [name for name in wanted if name in self._open().schema.names]

    def repeated(self, read: Callable[[], Read]) -> Read:
        for _ in range(_TRIES - 1):
            try:
                return read()
            except (RuntimeError, OSError, ValueError) as error:
                if isinstance(error, InputError) and error.__cause__ is None:  # not by `_errors_named`
                    raise
                with self._errors_named():
                    self._table.checkout_latest()
        return read()

    def _pieces(self, what: str) -> Any:
        """The latest version of the table, as pylance reads and rewrites it."""
        extras.require(EXTRA, what, "lance")
        table = self._latest()
        with self._errors_named():
            return table.to_lance()

    def _exists(self) -> bool:
        """Whether there is a gallery; the remains of a process that died while making one are not."""
        if not folder_holds(self.folder, LANCE):
            return False
        table = self.folder / LANCE
        return any(table.glob("_versions/*.manifest")) or any(table.glob("data/*"))

    def _open(self) -> Any:
        if self._table is None:
            with self._errors_named():
                self._table = _lancedb().connect(str(self.folder)).open_table(TABLE)
        return self._table

    def _latest(self) -> Any:
        """The table as the last writer left it."""
        table = self._open()
        with self._errors_named():
            table.checkout_latest()
        return table

    def _repair(self) -> None:
        """Finish the removal of a process that died, and drop duplicates from two that wrote at once."""
        self._latest()
        pending = self._removals.pending()
        if pending:
            self._erase()
            self.finished |= set(pending)
            checks.warn(f"{self.where}: finished the removal of {len(pending):,} rows that another command had begun")
        duplicates = self._duplicates()
        if duplicates:
            with self._errors_named():
                self._drop(duplicates)
            fact = f"{self.where} held {len(duplicates):,} rows more than ids, from commands that added to it at once"
            checks.warn(f"{fact}; of each id the row that was added last is kept")

    def _erase(self) -> None:
        """Delete the rows of the pending removals, and every file that holds them."""
        table = self._open()
        extras.require(EXTRA, "removing from a gallery", "lance")
        with self._errors_named():
            for rows in self._rows_of(self._removals.pending()):
                self._drop(rows["_rowid"].to_pylist())
            pieces = table.to_lance()
            pieces.optimize.compact_files(materialize_deletions_threshold=0.0)
            # nobody else writes: a file that no version lists is from a process that died
            pieces.cleanup_old_versions(timedelta(0), delete_unverified=True)
            table.checkout_latest()
            self._removals.end()

    def _duplicates(self) -> list[int]:
        """The rows of repeated ids, except the last added of each; searched for once."""
        if self._sound:
            return []
        with self._errors_named():
            rows = self._select(["key"])
        last = rows.group_by("key").aggregate([("_rowid", "max")])
        self._sound = len(last) == len(rows)
        kept = pc.is_in(rows["_rowid"], value_set=last["_rowid_max"].combine_chunks())
        duplicates: list[int] = [] if self._sound else rows["_rowid"].filter(pc.invert(kept)).to_pylist()
        return duplicates

    def _rows_of(self, wanted: Sequence[str]) -> Iterator[Any]:
        """The rows with these keys, in parts; a key holds only digits, a to f and dashes."""
        with self._errors_named():
            for start in range(0, len(wanted), _TERMS):
                terms = ", ".join(map(repr, wanted[start : start + _TERMS]))
                yield self._select(["id"], f"key IN ({terms})")

    def _select(self, columns: list[str], condition: str | None = None) -> Any:
        """Columns and `_rowid` of all rows, or of those that meet a condition."""
        table = self._open()
        search = table.search().select(columns).with_row_id(True).limit(max(1, table.count_rows()))
        return (search if condition is None else search.where(condition)).to_arrow()

    def _drop(self, rows: Sequence[int]) -> None:
        """Delete rows by number: conditions stay in the table's history, and must not hold keys."""
        for start in range(0, len(rows), _TERMS):
            self._table.delete(f"_rowid IN ({', '.join(map(str, rows[start : start + _TERMS]))})")

    @contextmanager
    def _errors_named(self) -> Iterator[None]:
        """Turn LanceDB's errors, such as a full disk or damaged files, into sentences."""
        try:
            yield
        except InputError:
            raise
        except Exception as error:
            panic = type(error).__name__ == "RustPanic"  # from damaged files; the class cannot be imported
            if not panic and not isinstance(error, RuntimeError | OSError | ValueError):
                raise
            message = f"the gallery {self.where} cannot be read or written: {checks.one_line(error):.300}"
            if "not found" in message.lower():
                message += "; restore its files from a copy, or make it again by angulus search add"
            raise InputError(message) from error


def _neighbours(rows: Any) -> Neighbours:
    """The rows of an Arrow table or batch."""
    unit = np.empty((len(rows["id"]), 0), dtype=np.float32)
    if "vector" in rows.schema.names:
        vectors = rows["vector"]
        vectors = vectors.combine_chunks() if isinstance(vectors, pa.ChunkedArray) else vectors
        flat = vectors.flatten().to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
        unit = flat.reshape(-1, vectors.type.list_size)
    later = [rows[field.name].to_pylist() if field.name in rows.schema.names else () for field in LATER]
    return Neighbours(rows["id"].to_pylist(), rows["identity"].to_pylist(), unit, *later)


def _vector_type(about: About) -> Any:
    return pa.list_(pa.float16() if about.dtype == "float16" else pa.float32(), about.size)


def _lancedb() -> Any:
    return extras.load("lancedb", EXTRA, WHAT)
