"""Writing records: in parts that are durable once committed, and whole only when the last file says so."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from angulus import checks, files
from angulus.checks import InputError, one_line
from angulus.data import decode, layout
from angulus.data.rows import Row
from angulus.data.store import LocalStore, Store, open_store, read

PART_BYTES = 64 * 2**20  # of images; with Parquet's copies, what a writer holds is about three times this


class RecordWriter:
    """Adds rows to records; what is committed survives a crash, and the next writer of the same path goes on from it.

    As a context manager it finishes the records when the block ends, and leaves them unfinished, with what was
    committed, when the block raises. Rows come back in the order in which they were added.

    >>> import tempfile, cv2, numpy
    >>> png = cv2.imencode(".png", numpy.zeros((4, 4, 3), numpy.uint8))[1].tobytes()
    >>> folder = tempfile.TemporaryDirectory()
    >>> with RecordWriter(Path(folder.name) / "faces") as writer:
    ...     writer.add(Row("a.png", png, "someone"))
    >>> folder.cleanup()
    """

    def __init__(
        self, path: Path | str, *, about: Mapping[str, Any] | None = None, batch_rows: int = layout.MOST_ROWS
    ) -> None:
        """Begin records, or go on with unfinished ones that say the same about themselves.

        Args:
            path: a folder that is not there, is empty or holds unfinished records; or a URL that fsspec knows.
            about: what the data is (source, licence, size, template ...), as JSON can hold it.
            batch_rows: commit after as many rows, in [1, 16384]; a commit comes sooner after 64 MiB of images.

        Raises:
            checks.InputError: whole records or something else is there, another writer is at work, or `about` differs.
        """
        self._batch_rows = checks.integer("batch_rows", batch_rows, low=1, high=layout.MOST_ROWS)
        self._about = _plain(about or {})
        self._store: Store = open_store(path)
        self._pending: list[tuple[Row, decode.Header]] = []
        self._pending_bytes = 0
        self._held = contextlib.ExitStack()
        if isinstance(self._store, LocalStore):
            self._held.enter_context(files.lock(self._store.folder))
        try:
            self._parts, self._ids = self._begin()
        except BaseException:
            self._held.close()
            raise

    @property
    def ids(self) -> frozenset[str]:
        """The ids that are there, committed or not: what a caller that resumes leaves out."""
        return frozenset(self._ids)

    def __contains__(self, id: object) -> bool:
        return id in self._ids

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, row: Row) -> None:
        """Take a row; it is durable at the next commit.

        Raises:
            checks.InputError: an id that is there already, or an image that is none by its header.
        """
        if row.id in self._ids:
            raise InputError(f"row ids must be unique in {self._store.where}; got {row.id!r} again")
        if len(row.image) > layout.MOST_IMAGE_BYTES:
            raise InputError(
                f"row {row.id!r}: image must have at most {layout.MOST_IMAGE_BYTES} bytes; got {len(row.image)}"
            )
        self._pending.append((row, decode.header(row.image, f"row {row.id!r}: image")))
        self._ids.add(row.id)
        self._pending_bytes += len(row.image)
        if len(self._pending) >= self._batch_rows or self._pending_bytes >= PART_BYTES:
            self.commit()

    def commit(self) -> None:
        """Make all rows so far durable."""
        if self._pending:
            rows, headers = zip(*self._pending, strict=True)
            data = layout.part(rows, headers)
            self._store.write(layout.part_name(self._parts), lambda file: file.write(data))
            self._parts += 1
            self._pending, self._pending_bytes = [], 0

    def finish(self) -> int:
        """Commit, say that the records are whole, and let go of them; returns how many rows there are.

        Raises:
            checks.InputError: there is no row.
        """
        if not self._ids:
            raise InputError(f"records must have at least one row; {self._store.where} got none")
        self.commit()
        self._describe({"rows": len(self._ids), "parts": self._parts})
        self._held.close()
        return len(self._ids)

    def close(self) -> None:
        """Let go of the records without finishing them; rows that are not committed are lost."""
        self._held.close()

    def __enter__(self) -> RecordWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.finish()
        finally:
            self.close()

    def _begin(self) -> tuple[int, set[str]]:
        where, names = self._store.where, self._store.names()
        if layout.ABOUT not in names:
            if names:
                raise InputError(
                    f"{where} must be empty or hold unfinished records; it holds {names[0]!r}; take another"
                )
            self._describe({})
            return 0, set()
        there = about_of(self._store)
        if "rows" in there:
            raise InputError(f"{where} holds whole records of {there['rows']} rows; remove it, or choose another path")
        if there["about"] != self._about:
            raise InputError(
                f"{where} holds unfinished records about something else, {there['about']}; "
                "go on with the same source and settings, or remove it"
            )
        self._remove_leftovers()
        parts = part_names(names, where)
        return len(parts), {id for name in parts for id in _ids_of(self._store, name)}

    def _describe(self, whole: dict[str, int]) -> None:
        text = {"format": layout.FORMAT, "version": layout.VERSION} | whole | {"about": self._about}
        data = (json.dumps(text, indent=2, ensure_ascii=False) + "\n").encode()
        self._store.write(layout.ABOUT, lambda file: file.write(data))

    def _remove_leftovers(self) -> None:
        """Files that a writer was at when it was ended; the lock says that no other one is at work."""
        if isinstance(self._store, LocalStore):
            for path in self._store.folder.glob(".rows-*.parquet.*"):
                path.unlink(missing_ok=True)


def write_records(path: Path | str, rows: Iterable[Row], *, about: Mapping[str, Any] | None = None) -> int:
    """Write records in one go; returns how many rows. Until the last file is in place, `Records` refuses them.

    Raises:
        checks.InputError: something is there already (unfinished records too), no rows, two of one id, no image.
    """
    if open_store(path).names():
        raise InputError(f"{path} must not be there, or be an empty folder; remove it, or go on with a RecordWriter")
    with RecordWriter(path, about=about) as writer:
        for row in rows:
            writer.add(row)
    return len(writer)


def about_of(store: Store) -> dict[str, Any]:
    """The description of records, whole or not.

    Raises:
        checks.InputError: there are no records, or of a later version.
    """
    if layout.ABOUT not in store.names():
        raise InputError(
            f"{store.where} must hold records; there is no {layout.ABOUT} in it; make them with "
            "`angulus convert` or `angulus prepare faces`"
        )
    try:
        found = json.loads(read(store, layout.ABOUT))
    except ValueError as error:
        raise InputError(f"{store.where}/{layout.ABOUT} must be JSON; {one_line(error)}") from error
    if not isinstance(found, dict) or found.get("format") != layout.FORMAT:
        raise InputError(f"{store.where}/{layout.ABOUT} must say that its format is {layout.FORMAT}; it does not")
    if found.get("version") != layout.VERSION:
        raise InputError(
            f"{store.where} must be records of version {layout.VERSION}; got {found.get('version')!r}; "
            "read it with the version of angulus that wrote it, or a later one"
        )
    return {"about": {}} | found


def part_names(names: Iterable[str], where: str) -> list[str]:
    """The parts among the names of a folder, in order, with none left out."""
    found = sorted(name for name in names if name.startswith("rows-"))
    expected = [layout.part_name(number) for number in range(len(found))]
    if found != expected:
        missing = sorted(set(expected) - set(found))
        raise InputError(f"{where} must hold its parts without a gap; {missing[0]} is missing")
    return found


def _ids_of(store: Store, name: str) -> list[str]:
    try:
        with store.open(name) as file:
            ids: list[str] = pq.read_table(file, columns=["id"]).column(0).to_pylist()
    except pa.ArrowException as error:
        raise InputError(f"{store.where}/{name} must be a whole Parquet file; {one_line(error)}") from error
    return ids


def _plain(about: Mapping[str, Any]) -> dict[str, Any]:
    """`about` as JSON gives it back, so that what is compared on resuming is what was written."""
    try:
        plain: dict[str, Any] = json.loads(json.dumps(dict(about)))
    except (TypeError, ValueError) as error:
        raise InputError(f"about must hold what JSON can: text, numbers, lists and mappings; {error}") from error
    return plain
