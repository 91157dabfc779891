"""A gallery in a folder: rows in an SQLite file, and codes that faiss compares in memory."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import filelock
import numpy as np
from numpy.typing import NDArray

from angulus.core import checks, extras
from angulus.core.checks import InputError
from angulus.search.vector_store import (
    SQLITE,
    WAIT_S,
    About,
    Files,
    Neighbours,
    Read,
    Vectors,
    check_indexable,
    folder_holds,
    lock_folder,
    write_alone,
)

EXTRA, WHAT = "faiss", "a gallery of faiss"
KINDS = ("int8", "binary")

_TABLES = (
    "CREATE TABLE state (about TEXT NOT NULL, version INTEGER NOT NULL, traces INTEGER NOT NULL, kind TEXT, "
    "trained BLOB)",
    "CREATE TABLE rows (number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, identity TEXT, expires INTEGER, "
    "norm REAL)",
    "CREATE INDEX people ON rows (identity)",
    "CREATE TABLE vectors (number INTEGER PRIMARY KEY, vector BLOB NOT NULL)",
    "CREATE TABLE codes (block INTEGER PRIMARY KEY, codes BLOB NOT NULL)",
)
_PAGE = 16_384  # bytes: several vectors of 512 numbers fit
_BLOCK = 4096  # codes stored together
_ROWS = 10_000  # read at a time
_SAMPLE = 50_000  # rows from which an index learns its codes, at most
_ERASE_WAIT_S = 5  # for those who still read removed rows
_LISTED = "(SELECT value FROM json_each(?))"


class FaissStore:
    """Rows numbered from 1 without gaps, so that the place of a code in memory says whose it is.

    Each `put`, `delete` and `index` is one transaction, and so is each query: a process that dies changes nothing, and
    readers see one state while another process writes. `delete` gives the numbers of removed rows to the last rows, and
    then rewrites the file, so that nothing of them remains; if it is killed there, the next process that opens the
    gallery rewrites it.

    Args:
        folder: made when something is added.
        wait_s: seconds to wait for another process that writes.
    """

    def __init__(self, folder: Path, *, wait_s: float = WAIT_S) -> None:
        self.folder, self.wait_s = folder, wait_s
        self.finished: set[str] = set()  # always empty: rows are removed at once
        self._loaded: tuple[int, Any] | None = None  # the version of the gallery, and its index
        self._opened = False

    @property
    def where(self) -> str:
        return str(self.folder)

    def writing(self) -> AbstractContextManager[None]:
        return write_alone(self.folder, self.wait_s)

    def about(self) -> About | None:
        if not folder_holds(self.folder, SQLITE):
            return None
        with self._reading() as database:
            tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
            if not tables:
                return None  # its maker died
            if "state" not in tables:
                raise InputError(f"{self.where} is not a gallery that angulus search made (other tables)")
            about, (traces,) = self._about(database), database.execute("SELECT traces FROM state").fetchone()
        if traces and not self._opened:
            try:
                with lock_folder(self.folder, 0):
                    if self._erase_traces():
                        checks.warn(f"{self.where}: erased what a removal of another command had left in its files")
            except InputError as error:
                if not isinstance(error.__cause__, filelock.Timeout):  # another process writes
                    raise
        self._opened = True
        return about

    def create(self, about: About) -> None:
        extras.load("faiss", EXTRA, WHAT)
        with self._errors_named(), closing(self._connect("rwc")) as database:
            for setting in (f"page_size = {_PAGE}", "journal_mode = WAL"):
                database.execute(f"PRAGMA {setting}").fetchall()
            database.execute("BEGIN IMMEDIATE")
            for table in _TABLES:
                database.execute(table)
            database.execute("INSERT INTO state (about, version, traces) VALUES (?, random(), 0)", (about.text(),))
            database.execute("COMMIT")

    def describe(self, about: About) -> None:
        with self._changing() as database:
            database.execute("UPDATE state SET about = ?", (about.text(),))

    def put(self, rows: Neighbours) -> None:
        unknown = [None] * len(rows.ids)
        columns = (rows.ids, rows.identities, rows.expires or unknown, rows.norms or unknown)
        with self._changing() as database:
            database.executemany(
                "INSERT INTO rows (id, identity, expires, norm) VALUES (?, ?, ?, ?) ON CONFLICT (id) DO UPDATE "
                "SET identity = excluded.identity, expires = excluded.expires, norm = excluded.norm",
                zip(*columns, strict=True),
            )
            vectors = rows.vectors.astype(self._about(database).dtype, copy=False)
            database.executemany(
                "INSERT OR REPLACE INTO vectors SELECT number, ? FROM rows WHERE id = ?",
                ((vector.tobytes(), name) for vector, name in zip(vectors, rows.ids, strict=True)),
            )
            self._encode(database, self._numbers(database, rows.ids))

    def present(self, ids: Sequence[str]) -> set[str]:
        with self._reading() as database:
            found = database.execute(f"SELECT id FROM rows WHERE id IN {_LISTED}", (json.dumps(list(ids)),))
            return {name for (name,) in found}

    def delete(self, ids: Sequence[str]) -> None:
        with self._changing() as database:
            gone = self._numbers(database, ids)
            for table in ("rows", "vectors"):
                database.execute(f"DELETE FROM {table} WHERE number IN {_LISTED}", (json.dumps(gone),))
            left = database.execute("SELECT count(*) FROM rows").fetchone()[0]
            free = [number for number in gone if number <= left]
            last = [number for (number,) in database.execute("SELECT number FROM rows WHERE number > ?", (left,))]
            for table in ("rows", "vectors"):
                moves = zip(free, last, strict=True)
                database.executemany(f"UPDATE {table} SET number = ? WHERE number = ?", moves)
            self._encode(database, free)
            database.execute("UPDATE state SET traces = 1")
        self._erase_traces()

    def _erase_traces(self) -> bool:
        """Rewrite the file, as the pages of removed rows keep copies, and empty the log; False, with a warning: later.

        The rows are removed already, and queries must go on where a disk is full or somebody reads.
        """
        fact = f"another process still reads {self.where} as it was before a removal"
        try:
            with self._errors_named(), closing(self._connect(wait_s=_ERASE_WAIT_S)) as database:
                database.execute("VACUUM")
                if not database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
                    database.execute("UPDATE state SET traces = 0")
                    return True
        except InputError as error:
            fact = f"the files of {self.where} still hold removed rows: {error}"
        checks.warn(f"{fact}; no query finds the rows, and the next command after it erases them from the files")
        return False

    def count(self) -> int:
        with self._reading() as database:
            return _count(database)

    def rows(
        self, *, people: Collection[str] | None = None, expired: int | None = None, vectors: bool = True
    ) -> Iterator[Neighbours]:
        conditions, values = ["true"], list[object]()
        if people is not None:
            conditions.append(f"identity IN {_LISTED}")
            values.append(json.dumps(list(people)))
        if expired is not None:
            conditions.append("expires <= ?")
            values.append(expired)
        with self._reading() as database:
            about = self._about(database)
            found = database.execute(_select(vectors, " AND ".join(conditions)), values)
            while part := found.fetchmany(_ROWS):
                yield _neighbours(part, about)

    def repeated(self, read: Callable[[], Read]) -> Read:
        """`read()`: a transaction keeps what it reads."""
        return read()

    def files(self) -> Files:
        """The index takes memory; the vectors that queries compare at last stay on disk."""
        with self._reading() as database:
            changed = datetime.fromtimestamp((self.folder / SQLITE).stat().st_mtime, UTC)
            pages, page = (database.execute(f"PRAGMA page_{name}").fetchone()[0] for name in ("count", "size"))
            kind, trained = database.execute("SELECT kind, length(trained) FROM state").fetchone()
            codes = database.execute("SELECT sum(length(codes)) FROM codes").fetchone()[0]
        return Files(kind, (codes or 0) + trained if kind else None, 0 if kind else None, pages * page, changed)

    def index(self, kind: str) -> None:
        """Learn the codes of `kind` from a sample, and write those of all rows; later rows get theirs when added."""
        checks.choice("the kind of index", kind, KINDS)
        with self._changing() as database:
            about, count = self._about(database), _count(database)
            check_indexable(kind, about.size, count, self.where)
            index = _make(kind, about.size)
            step = -(-count // _SAMPLE)
            index.train(self._vectors(database, range(1, count + 1, step)))
            trained = extras.load("faiss", EXTRA, WHAT).serialize_index(index).tobytes()
            database.execute("UPDATE state SET kind = ?, trained = ?", (kind, trained))
            database.execute("DELETE FROM codes")
            self._encode(database, range(1, count + 1))

    def tidy(self) -> None:
        """Does nothing: there are no pieces."""

    def nearest(self, queries: Vectors, top: int, *, effort: int | None) -> list[Neighbours]:
        """Approximate queries compare `effort` times as many rows as requested by their vectors."""
        with self._reading() as database:
            about = self._about(database)
            if not _count(database):  # another process has removed all
                return [_neighbours([], about)] * len(queries)
            if effort is None:
                return [self._fetch(database, numbers, about) for numbers in self._exact(database, queries, top, about)]
            index = self._index(database)
            _, places = index.search(np.ascontiguousarray(queries), min(index.ntotal, effort * top))
            answers = []
            for query, row in zip(queries, places, strict=True):
                numbers = np.sort(row) + 1
                scores = self._vectors(database, numbers.tolist()) @ query
                answers.append(self._fetch(database, numbers[np.argsort(-scores, kind="stable")[:top]], about))
            return answers

    def _exact(self, database: sqlite3.Connection, queries: Vectors, top: int, about: About) -> NDArray[np.int64]:
        """The numbers of the rows of largest inner product with each query, [Q, top]."""
        scores: NDArray[np.float32] = np.empty((len(queries), 0), np.float32)
        numbers: NDArray[np.int64] = np.empty((len(queries), 0), np.int64)
        found, first = database.execute("SELECT vector FROM vectors ORDER BY number"), 1
        while part := found.fetchmany(_ROWS):
            scores = np.concatenate([scores, queries @ _unpack(part, about).T], axis=1)
            added = np.broadcast_to(np.arange(first, first + len(part)), (len(queries), len(part)))
            numbers, first = np.concatenate([numbers, added], axis=1), first + len(part)
            if scores.shape[1] > top:
                best = np.argpartition(-scores, top - 1, axis=1)[:, :top]
                scores, numbers = np.take_along_axis(scores, best, 1), np.take_along_axis(numbers, best, 1)
        if missing := _count(database) + 1 - first:
            raise sqlite3.DatabaseError(f"vectors of {missing} rows not found")
        return np.take_along_axis(numbers, np.argsort(-scores, axis=1), axis=1)

    def _index(self, database: sqlite3.Connection) -> Any:
        """The index as this transaction sees it: from memory, unless the gallery has changed."""
        version, kind = database.execute("SELECT version, kind FROM state").fetchone()
        if kind is None:
            fault = f"{self.where} has no index for approximate queries"
            raise InputError(f"{fault}; build one with angulus search index, or ask for exact answers")
        loaded = self._loaded
        if loaded is None or loaded[0] != version:
            loaded = self._loaded = None  # so that the old codes can be freed first
            faiss, index = extras.load("faiss", EXTRA, WHAT), self._trained(database)
            coder = faiss.downcast_index(index.index)
            index.ntotal = coder.ntotal = _count(database)
            coder.codes.resize(coder.ntotal * coder.code_size)
            kept, start = faiss.rev_swig_ptr(coder.codes.data(), coder.ntotal * coder.code_size), 0
            for (block,) in database.execute("SELECT codes FROM codes ORDER BY block"):
                kept[start : start + len(block)] = np.frombuffer(block, np.uint8)
                start += len(block)
            if start != len(kept):
                raise InputError(
                    f"the codes of {self.where} are not those of its rows; build them again with angulus search index"
                )
            loaded = self._loaded = (version, index)
        return loaded[1]

    def _trained(self, database: sqlite3.Connection) -> Any:
        """An index that knows how to encode, without rows; None if the gallery has none."""
        (trained,) = database.execute("SELECT trained FROM state").fetchone()
        if trained is None:
            return None
        return extras.load("faiss", EXTRA, WHAT).deserialize_index(np.frombuffer(trained, np.uint8))

    def _encode(self, database: sqlite3.Connection, numbers: Iterable[int]) -> None:
        """Write the codes of these rows, in rising order, and cut off codes without row; nothing without an index."""
        index = self._trained(database)
        if index is None:
            return
        size, get = index.sa_code_size(), "SELECT codes FROM codes WHERE block = ?"
        for block, group in groupby(numbers, lambda number: (number - 1) // _BLOCK):
            part = list(group)
            places = np.array(part) - 1 - block * _BLOCK
            (old,) = database.execute(get, (block,)).fetchone() or (b"",)
            codes = np.zeros((max(len(old) // size, int(places[-1]) + 1), size), np.uint8)
            codes[: len(old) // size] = np.frombuffer(old, np.uint8).reshape(-1, size)
            codes[places] = index.sa_encode(self._vectors(database, part))
            database.execute("INSERT OR REPLACE INTO codes VALUES (?, ?)", (block, codes.tobytes()))
        full, rest = divmod(_count(database), _BLOCK)
        database.execute("DELETE FROM codes WHERE block > ? OR (block = ? AND ? = 0)", (full, full, rest))
        database.execute("UPDATE codes SET codes = substr(codes, 1, ?) WHERE block = ?", (rest * size, full))

    def _vectors(self, database: sqlite3.Connection, numbers: Sequence[int]) -> Vectors:
        """The vectors of these rows, whose numbers rise."""
        select = f"SELECT vector FROM vectors WHERE number IN {_LISTED} ORDER BY number"
        found = database.execute(select, (json.dumps(list(numbers)),)).fetchall()
        if len(found) != len(numbers):
            raise sqlite3.DatabaseError(f"vectors of {len(numbers) - len(found)} rows not found")
        return _unpack(found, self._about(database))

    @staticmethod
    def _fetch(database: sqlite3.Connection, numbers: NDArray[np.int64], about: About) -> Neighbours:
        """These rows, in this order."""
        found = database.execute(_select(True, f"number IN {_LISTED}"), (json.dumps(numbers.tolist()),)).fetchall()
        return _neighbours(found, about).take(np.argsort(np.argsort(numbers)).tolist())

    @staticmethod
    def _numbers(database: sqlite3.Connection, ids: Sequence[str]) -> list[int]:
        """The numbers of the rows with these ids, rising."""
        found = database.execute(f"SELECT number FROM rows WHERE id IN {_LISTED}", (json.dumps(list(ids)),))
        return sorted(number for (number,) in found)

    def _about(self, database: sqlite3.Connection) -> About:
        return About.read(database.execute("SELECT about FROM state").fetchone()[0], self.where)

    def _connect(self, mode: str = "rw", *, wait_s: float | None = None) -> sqlite3.Connection:
        return sqlite3.connect(
            f"{(self.folder / SQLITE).absolute().as_uri()}?mode={mode}",
            timeout=self.wait_s if wait_s is None else wait_s,
            isolation_level=None,
            check_same_thread=False,
            uri=True,
        )

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """A transaction that sees the gallery as it is now."""
        with self._errors_named(), closing(self._connect()) as database:
            database.execute("BEGIN")
            yield database

    @contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        """A transaction that changes all or nothing."""
        with self._errors_named(), closing(self._connect()) as database:
            database.execute("BEGIN IMMEDIATE")
            # at random, so that no index in memory fits a gallery that was made again or restored
            database.execute("UPDATE state SET version = random()")
            yield database
            database.execute("COMMIT")

    @contextmanager
    def _errors_named(self) -> Iterator[None]:
        """Turn errors of SQLite and faiss, such as a full disk or a damaged file, into sentences."""
        try:
            yield
        except InputError:
            raise
        except (sqlite3.Error, OSError, RuntimeError, ValueError) as error:
            message = f"the gallery {self.where} cannot be read or written: {checks.one_line(error):.300}"
            if isinstance(error, sqlite3.OperationalError):
                message += "; its folder must be on a disk of this machine, not full, and writable, also for queries"
            elif isinstance(error, sqlite3.DatabaseError):
                message += "; restore its files from a copy, or make it again by angulus search add"
            raise InputError(message) from error


def _make(kind: str, size: int) -> Any:
    """An index of codes, after a rotation that spreads what the vectors hold over all numbers.

    Signs of numbers that hold little say little: of 512 principal components the signs find a tenth of the neighbours,
    and after a rotation nearly all.
    """
    faiss = extras.load("faiss", EXTRA, WHAT)
    power = size & (size - 1) == 0
    rotation = faiss.HadamardRotation(size) if power else faiss.RandomRotationMatrix(size, size)
    if kind == "binary":
        coder = faiss.IndexLSH(size, size, False, True)
    else:
        coder = faiss.IndexScalarQuantizer(size, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT)
    return faiss.IndexPreTransform(rotation, coder)


def _select(vectors: bool, condition: str) -> str:
    """Rows by number; a condition is never made of given text."""
    column, table = ("vector", "rows JOIN vectors USING (number)") if vectors else ("x''", "rows")
    return f"SELECT id, identity, expires, norm, {column} FROM {table} WHERE {condition} ORDER BY number"


def _count(database: sqlite3.Connection) -> int:
    return int(database.execute("SELECT coalesce(max(number), 0) FROM rows").fetchone()[0])


def _neighbours(found: list[Any], about: About) -> Neighbours:
    ids, identities, expires, norms, vectors = zip(*found, strict=True) if found else [()] * 5
    size = 0 if ids else about.size
    unit = _unpack([(vector,) for vector in vectors], about) if any(vectors) else np.empty((len(ids), size), np.float32)
    return Neighbours(ids, identities, unit, expires, norms)


def _unpack(found: list[tuple[bytes]], about: About) -> Vectors:
    """The vectors [K, d] of stored bytes."""
    flat = np.frombuffer(b"".join(vector for (vector,) in found), about.dtype)
    return flat.reshape(len(found), about.size).astype(np.float32, copy=False)
