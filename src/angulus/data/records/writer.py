"""Writing records: in parts that are durable once committed, and whole only when the last file says so."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from angulus.core import checks, files, limits
from angulus.core.checks import InputError
from angulus.data import decode
from angulus.data.records import layout
from angulus.data.records.later_columns import write_column
from angulus.data.records.row import Row
from angulus.data.records.store import LocalStore, Store, open_store, read

PART_BYTES = 64 * 2**20  # of images; with Parquet's copies, what a writer holds is about three times this


class RecordWriter:
    """Adds rows to records; what is committed survives a crash, and the next writer of the same path goes on from it.

    As a context manager it finishes the records when the block ends, and leaves them unfinished, with what was
    committed, when the block raises; where nothing was committed, it leaves nothing. Rows come back in the order in
    which they were added.

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
        self._pending: list[tuple[Row, decode.Header, int]] = []
        self._pending_bytes = self._parts = 0
        self._made = isinstance(self._store, LocalStore) and not self._store.folder.exists()
        self._held = contextlib.ExitStack()
        if isinstance(self._store, LocalStore):
            self._held.enter_context(files.lock(self._store.folder, "records", way="choose another folder"))
        try:
            self._sources = self._begin()
        except BaseException:
            self._held.close()
            raise
        self._ids = set(self._sources)

    @property
    def ids(self) -> frozenset[str]:
        """The ids that are there, committed or not: what a caller that resumes leaves out."""
        return frozenset(self._ids)

    @property
    def sources(self) -> dict[str, int]:
        """Of earlier tries' rows, by id: `Row.checksum` of what each was made from."""
        return self._sources

    def __contains__(self, id: object) -> bool:
        return id in self._ids

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, row: Row, source: int | None = None) -> None:
        """Take a row; it is durable at the next commit.

        Args:
            row: with an id of its own.
            source: `Row.checksum` of what it was made from; None: of itself.

        Raises:
            checks.InputError: an id that is there already, or an image that is none by its header.
        """
        if row.id in self._ids:
            raise InputError(f"row ids must be unique in {self._store.where}; got {row.id!r} again")
        if len(row.image) > layout.MOST_IMAGE_BYTES:
            raise InputError(
                f"row {row.id!r}: image must have at most {layout.MOST_IMAGE_BYTES} bytes; got {len(row.image)}"
            )
        header = decode.header(row.image, f"row {row.id!r}: image")
        self._pending.append((row, header, row.checksum() if source is None else source))
        self._ids.add(row.id)
        self._pending_bytes += len(row.image)
        if len(self._pending) >= self._batch_rows or self._pending_bytes >= PART_BYTES:
            self.commit()

    def commit(self) -> None:
        """Make all rows so far durable."""
        if self._pending:
            rows, headers, sources = zip(*self._pending, strict=True)
            data = layout.part(rows, headers, sources)
            if not self._parts:
                self._describe({})
            self._store.write(layout.part_name(self._parts), lambda file: file.write(data))
            self._parts += 1
            self._pending, self._pending_bytes = [], 0

    def add_column(self, name: str, values: ArrayLike) -> None:
        """Commit, and put a column next to the rows so far; one of an earlier try is replaced."""
        self.commit()
        write_column(self._store, name, np.asarray(values), len(self), replace=True)

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
        if not self._parts and isinstance(self._store, LocalStore):
            self._leave_nothing(self._store.folder)
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

    def _begin(self) -> dict[str, int]:
        where, names = self._store.where, self._store.names()
        if layout.ABOUT not in names:
            if names:
                raise InputError(
                    f"{where} must be empty or hold unfinished records; it holds {names[0]!r}; choose another folder"
                )
            return {}
        there = about_of(self._store)
        if "rows" in there:
            raise InputError(
                f"{where} holds whole records of {there['rows']} rows; remove it, or choose another folder"
            )
        parts = part_names(names, where)
        if not parts:
            return {}  # whatever it was to be, nothing was written
        if there["about"] != self._about:
            raise InputError(
                f"{where} holds unfinished records about something else, {there['about']}; "
                "use the same source and settings to resume, or remove it"
            )
        if there["version"] != layout.VERSION:
            raise InputError(
                f"{where} holds unfinished records of version {there['version']}, without the checksums that say "
                "whether the source has changed; remove it and run the same command again"
            )
        if isinstance(self._store, LocalStore):
            files.remove_leftovers(self._store.folder)  # of a writer that was killed
        self._parts = len(parts)
        return {id: source for name in parts for id, source in _sources_of(self._store, name)}

    def _describe(self, whole: dict[str, int]) -> None:
        text = {"format": layout.FORMAT, "version": layout.VERSION} | whole | {"about": self._about}
        data = (json.dumps(text, indent=2, ensure_ascii=False) + "\n").encode()
        self._store.write(layout.ABOUT, lambda file: file.write(data))

    def _leave_nothing(self, folder: Path) -> None:
        """Remove what a writer without a committed row has made: a retry may have other settings."""
        with contextlib.suppress(OSError):
            files.remove_leftovers(folder)
            (folder / layout.ABOUT).unlink(missing_ok=True)
            (folder / ".lock").unlink(missing_ok=True)
            if self._made:
                folder.rmdir()


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
    found = limits.parse_json(read(store, layout.ABOUT), f"{store.where}/{layout.ABOUT}")
    if not isinstance(found, dict) or found.get("format") != layout.FORMAT:
        raise InputError(f"{store.where}/{layout.ABOUT} must say that its format is {layout.FORMAT}; it does not")
    if found.get("version") not in layout.READABLE:
        raise InputError(
            f"{store.where} must be records of version {layout.VERSION} or before; got "
            f"{checks.shown(found.get('version'))}; read it with the version of angulus that wrote it, or a later one"
        )
    found = {"about": {}} | found
    if not isinstance(found["about"], dict):
        raise InputError(
            f"{store.where}/{layout.ABOUT} must hold a mapping as about; got {checks.shown(found['about'])}"
        )
    return found


def part_names(names: Iterable[str], where: str) -> list[str]:
    """The parts among the names of a folder, in order, with none left out."""
    found = sorted(name for name in names if name.startswith("rows-"))
    expected = [layout.part_name(number) for number in range(len(found))]
    if found != expected:
        missing = sorted(set(expected) - set(found))
        raise InputError(f"{where} must hold its parts without a gap; {missing[0]} is missing")
    return found


def _sources_of(store: Store, name: str) -> Iterator[tuple[str, int]]:
    """Ids of a part, and the checksum of what each was made from."""
    with store.open(name) as file, layout.reading(f"{store.where}/{name}"):
        table = layout.open_part(file).read(["id", "source_crc32"])
        yield from zip(*(table.column(name).to_pylist() for name in ("id", "source_crc32")), strict=True)


def _plain(about: Mapping[str, Any]) -> dict[str, Any]:
    """`about` as JSON gives it back, so that what is compared on resuming is what was written."""
    try:
        plain: dict[str, Any] = json.loads(json.dumps(dict(about)))
    except (TypeError, ValueError) as error:
        raise InputError(f"about must hold what JSON can: text, numbers, lists and mappings; {error}") from error
    return plain
