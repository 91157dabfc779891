"""Writing records: rows are durable once committed, and the records complete once the description is written."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from angulus.core import checks, files
from angulus.core.checks import InputError
from angulus.data import decode
from angulus.data.records import parts
from angulus.data.records.blobs import Blobs, LocalBlobs, open_blobs
from angulus.data.records.parts import Row

PART_BYTES = 64 * 2**20  # of images; with Parquet's copies, a writer holds about three times this
_AGAIN = "remove what was begun, and run the same command again"


class RecordWriter:
    """Adds rows to records; what is committed survives a crash, and the next writer of the same path resumes.

    As a context manager it finishes the records when the block ends, and leaves them unfinished, with what was
    committed, when the block raises; if nothing was committed, it leaves nothing. Rows keep the order in which they
    were added.

    >>> import tempfile, cv2, numpy
    >>> png = cv2.imencode(".png", numpy.zeros((4, 4, 3), numpy.uint8))[1].tobytes()
    >>> folder = tempfile.TemporaryDirectory()
    >>> with RecordWriter(Path(folder.name) / "faces") as writer:
    ...     writer.add(Row("a.png", png, "someone"))
    >>> folder.cleanup()
    """

    def __init__(
        self, path: Path | str, *, about: Mapping[str, Any] | None = None, batch_rows: int = parts.MOST_ROWS
    ) -> None:
        """Start records, or resume unfinished ones with the same `about`.

        Args:
            path: a folder that is missing, empty or holds unfinished records; or a URL that fsspec knows.
            about: what the data is (source, licence, size, template ...), as JSON can hold it.
            batch_rows: commit after this many rows, in [1, 16384]; or sooner, after 64 MiB of images.

        Raises:
            checks.InputError: complete records or something else is there, another writer is at work, another `about`.
        """
        self._batch_rows = checks.integer("batch_rows", batch_rows, low=1, high=parts.MOST_ROWS)
        self._about = _as_json(about or {})
        self._blobs: Blobs = open_blobs(path)
        self._pending: list[tuple[Row, decode.Header, int]] = []
        self._pending_bytes = self._parts = 0
        self._made_folder = isinstance(self._blobs, LocalBlobs) and not self._blobs.folder.exists()
        self._lock = contextlib.ExitStack()
        if isinstance(self._blobs, LocalBlobs):
            self._lock.enter_context(files.lock(self._blobs.folder, "records", way="choose another folder"))
        try:
            self._sources = self._resume()
        except BaseException:
            self._lock.close()
            raise
        self._ids = set(self._sources)

    @property
    def ids(self) -> frozenset[str]:
        """The ids so far, committed or not."""
        return frozenset(self._ids)

    @property
    def sources(self) -> dict[str, int]:
        """For the rows of earlier runs, by id: the `Row.checksum` of what each was made from."""
        return self._sources

    def __contains__(self, id: object) -> bool:
        return id in self._ids

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, row: Row, source: int | None = None) -> None:
        """Add a row with an id of its own and an image by its header; it is durable at the next commit.

        `source` is the `Row.checksum` of the row it was made from; None: its own.
        """
        if row.id in self._ids:
            raise InputError(f"row ids must be unique in {self._blobs.where}; got {row.id!r} again")
        if len(row.image) > parts.MOST_IMAGE_BYTES:
            rule = f"row {row.id!r}: image must have at most {parts.MOST_IMAGE_BYTES} bytes"
            raise InputError(f"{rule}; got {len(row.image)}")
        header = decode.header(row.image, f"row {row.id!r}: image")
        self._pending.append((row, header, row.checksum() if source is None else source))
        self._ids.add(row.id)
        self._pending_bytes += len(row.image)
        if len(self._pending) >= self._batch_rows or self._pending_bytes >= PART_BYTES:
            self.commit()

    def commit(self) -> None:
        """Make all rows so far durable."""
        if self._pending:
            data = parts.encode_part(*zip(*self._pending, strict=True))
            if not self._parts:
                self._describe({})
            self._blobs.write(parts.part_name(self._parts), lambda file: file.write(data))
            self._parts += 1
            self._pending, self._pending_bytes = [], 0

    def add_column(self, name: str, values: ArrayLike) -> None:
        """Commit, and add a column for the rows so far; one of an earlier run is replaced."""
        self.commit()
        parts.write_column(self._blobs, name, np.asarray(values), len(self), replace=True)

    def finish(self) -> int:
        """Commit, mark the records as complete and release them; returns the number of rows, at least one."""
        if not self._ids:
            raise InputError(f"records must have at least one row; {self._blobs.where} got none")
        self.commit()
        self._describe({"rows": len(self._ids), "parts": self._parts})
        self._lock.close()
        return len(self._ids)

    def close(self) -> None:
        """Release the records without finishing them; uncommitted rows are lost."""
        if not self._parts and isinstance(self._blobs, LocalBlobs):
            folder = self._blobs.folder
            with contextlib.suppress(OSError):  # leave nothing: the next run may have other settings
                files.remove_leftovers(folder)
                (folder / parts.ABOUT).unlink(missing_ok=True)
                (folder / ".lock").unlink(missing_ok=True)
                if self._made_folder:
                    folder.rmdir()
        self._lock.close()

    def __enter__(self) -> RecordWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        try:
            if kind is None:
                self.finish()
        finally:
            self.close()

    def _resume(self) -> dict[str, int]:
        """Check what is there, and read ids and source checksums of an earlier run's rows."""
        where, names = self._blobs.where, self._blobs.names()
        if parts.ABOUT not in names:
            if names:
                rule = f"{where} must be empty or hold unfinished records"
                raise InputError(f"{rule}; it holds {names[0]!r}; choose another folder")
            return {}
        description = parts.read_about(self._blobs)
        if "rows" in description:
            fault = f"{where} holds whole records of {description['rows']} rows"
            raise InputError(f"{fault}; remove it, or choose another folder")
        names = parts.part_names(names, where)
        if not names:
            return {}  # nothing was written, whatever it was to be
        if description["about"] != self._about:
            fault = f"{where} holds unfinished records about something else, {description['about']}"
            raise InputError(f"{fault}; use the same source and settings to resume, or remove it")
        if description["version"] != parts.VERSION:
            old = f"{where} holds unfinished records of version {description['version']}"
            why = "without the checksums that show whether the source has changed"
            raise InputError(f"{old}, {why}; remove it and run the same command again")
        if isinstance(self._blobs, LocalBlobs):
            files.remove_leftovers(self._blobs.folder)  # of a writer that was killed
        self._parts = len(names)
        return {id: source for name in names for id, source in _read_sources(self._blobs, name)}

    def _describe(self, counts: dict[str, int]) -> None:
        text = {"format": parts.FORMAT, "version": parts.VERSION} | counts | {"about": self._about}
        data = (json.dumps(text, indent=2, ensure_ascii=False) + "\n").encode()
        self._blobs.write(parts.ABOUT, lambda file: file.write(data))


def write_records(path: Path | str, rows: Iterable[Row], *, about: Mapping[str, Any] | None = None) -> int:
    """Write records in one go; returns the number of rows. Until the end, `Records` refuses to open them.

    Raises:
        checks.InputError: something is there already (unfinished records too), no rows, an id twice, not an image.
    """
    if open_blobs(path).names():
        raise InputError(f"{path} must be missing or an empty folder; remove it, or resume with a RecordWriter")
    with RecordWriter(path, about=about) as writer:
        for row in rows:
            writer.add(row)
    return len(writer)


class PastRows:
    """Rows that earlier runs have processed, by id and checksum, to skip them when a run resumes."""

    def __init__(self, checksums: Mapping[str, int], where: object) -> None:
        """Take each source row's `Row.checksum` at that time, by id; `where` holds the result, for errors."""
        self._left, self._where = dict(checksums), where

    def __len__(self) -> int:
        return len(self._left)

    def take(self, row: Row) -> bool:
        """Whether a row was processed; ask once for each. InputError if it has changed since."""
        checksum = self._left.pop(row.id, None)
        if checksum not in (None, row.checksum()):
            fault = f"{self._where} was begun with another {row.id!r}"
            raise InputError(f"{fault}: its identity, landmarks, score or image has changed; {_AGAIN}")
        return checksum is not None

    def check_none_left(self, source: object) -> None:
        """Refuse, after all rows of the source were asked for, rows that the source no longer has."""
        if self._left:
            lost = f"{len(self._left)} rows that {source} does not have, such as {min(self._left)!r}"
            raise InputError(f"{self._where} was begun with {lost}; the source has changed since: {_AGAIN}")


def _read_sources(blobs: Blobs, name: str) -> Iterator[tuple[str, int]]:
    """The ids of a part, and the checksum of what each row was made from."""
    with blobs.open(name) as file, parts.reading(f"{blobs.where}/{name}"):
        table = parts.open_part(file).read(["id", "source_crc32"], use_threads=False)
        yield from zip(*(table.column(name).to_pylist() for name in ("id", "source_crc32")), strict=True)


def _as_json(about: Mapping[str, Any]) -> dict[str, Any]:
    """`about` after a round trip through JSON, to compare it on resuming with what was written."""
    try:
        plain: dict[str, Any] = json.loads(json.dumps(dict(about)))
    except (TypeError, ValueError) as error:
        raise InputError(f"about must hold only JSON: text, numbers, lists and mappings; {error}") from error
    return plain
