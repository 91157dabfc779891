"""Photos in any known format to records of aligned faces, on all cores, going on where an earlier try stopped."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from angulus.core import extras
from angulus.core.checks import InputError
from angulus.data.faces import detect, face_report
from angulus.data.faces.detect import Detector
from angulus.data.faces.face_report import Journal
from angulus.data.faces.photos import Crops, Note
from angulus.data.faces.workers import Workers
from angulus.data.records import Records, RecordWriter, Row
from angulus.data.records.writer import PastRows
from angulus.data.sources import LeftOut, SourceOptions, kind_of, read_source

_TITLE = "Photos that are not plainly one good face"
RECORDS = "records"  # in the output folder, beside the report

_TASK_PHOTOS = 8  # given to a worker at a time: few enough to stop soon after
_TASK_BYTES = 16 * 2**20
_COMMIT_PHOTOS = 1_000  # what a crash may cost


@dataclass(frozen=True)
class Prepared:
    """What was made.

    Attributes:
        rows: crops in the records.
        identities: how many identities they show, of those known.
        problems: how many photos or things have a note, by problem.
        records: where the records are.
        report: the page of the report.
    """

    rows: int
    identities: int
    problems: dict[str, int]
    records: Path
    report: Path


def prepare_faces(
    source: Path,
    out: Path,
    crops: Crops | None = None,
    *,
    detector: str | Detector = "mtcnn",
    workers: int | None = None,
    kind: str | None = None,
    options: SourceOptions | None = None,
    on_photo: Callable[[int], None] | None = None,
) -> Prepared:
    """Detect, choose, align and write the faces of a source's photos: one crop a photo, under the photo's id.

    `out` gets `records/`, and `report.csv`, `report.html` and `report.jsonl`, which name every photo that gave no crop
    or more than one face, and everything in the source that is no photo. A try that was stopped goes on when it is
    called again with the same source and settings; what is done is not done again, and compared by content: a source
    that has changed since is refused.

    Args:
        source: what `sources.read_source` reads.
        out: a folder outside the source.
        crops: which face, and which crop of it.
        detector: a word as `detect.make` takes, or a detector that can be pickled.
        workers: processes that work, >= 1; 1 works in this one; None is one a core.
        kind, options: of the source, as `read_source` takes them.
        on_photo: told the number of photos so far, with those of earlier tries.

    Raises:
        checks.InputError: the source cannot be read, has changed, or no photo gave a crop, `out` lies in the source or
            holds something else, a detector that cannot be had.
    """
    extras.require("faces", "preparing faces", "cv2")
    crops = crops or Crops()
    if source.is_dir() and out.resolve().is_relative_to(source.resolve()):
        raise InputError(f"out must not lie in the source, {source}, which would read it; got {out}")
    items = read_source(source, kind, options)  # before anything is written: it may be refused
    named = detect.described(detector) if isinstance(detector, str) else type(detector).__name__
    about = {"source": source.name, "kind": kind or kind_of(source), "depth": options.depth if options else None}
    about |= {"detector": named, **asdict(crops)}
    if _whole(out / RECORDS, about):
        _check_unchanged(out, about, items, source)
    else:
        with contextlib.ExitStack() as held:
            crew = held.enter_context(contextlib.closing(Workers(detector, crops, workers)))
            writer = held.enter_context(RecordWriter(out / RECORDS, about=about))
            journal = held.enter_context(contextlib.closing(Journal(out, about)))
            # A note on a photo that was kept is on disk before its row; that photo is done when its row is there.
            run = _Run(writer, journal, PastRows(writer.sources | journal.dropped, out))
            _fill(run, items, crew, on_photo)
            _check_rows(run, source, out)
    return _finished(out, about)


@dataclass(frozen=True, eq=False)
class _Run:
    """What a run writes to; photos that need no work, and ids met so far."""

    writer: RecordWriter
    journal: Journal
    earlier: PastRows
    met: set[str] = field(default_factory=set)


def _fill(run: _Run, items: Iterable[Row | LeftOut], crew: Workers, on_photo: Callable[[int], None] | None) -> None:
    """Process what is not done; whatever happens, what was done is committed and reported."""
    count, committed = len(run.earlier), 0
    try:
        with contextlib.closing(crew.process(_tasks(run, items))) as results:
            for outcomes in results:
                run.journal.add(outcome.note for outcome in outcomes if outcome.note is not None)
                for outcome in outcomes:
                    if outcome.row is not None:
                        run.writer.add(outcome.row, outcome.source)
                count, committed = count + len(outcomes), committed + len(outcomes)
                if committed >= _COMMIT_PHOTOS:
                    run.writer.commit()
                    committed = 0
                if on_photo is not None:
                    on_photo(count)
    finally:
        run.writer.commit()
        face_report.write(run.journal.path.parent, run.journal.notes, _TITLE)


def _tasks(run: _Run, items: Iterable[Row | LeftOut]) -> Iterator[list[Row]]:
    """Photos that are to be processed, some at a time; what is none is noted."""
    task: list[Row] = []
    size = 0
    for item in items:
        if isinstance(item, LeftOut) or item.id in run.met:
            reason = item.reason if isinstance(item, LeftOut) else "the source has a photo of this id before it"
            note = Note(item.where if isinstance(item, LeftOut) else item.id, "", "left out", False, reason)
            if note not in run.journal:
                run.journal.add([note])
            continue
        run.met.add(item.id)
        if run.earlier.take(item):
            continue
        task.append(item)
        size += len(item.image)
        if len(task) == _TASK_PHOTOS or size >= _TASK_BYTES:
            yield task
            task, size = [], 0
    if task:
        yield task


def _whole(records: Path, about: dict[str, Any]) -> bool:
    """Whether an earlier run came to its end, but for the report perhaps; one with other settings is refused."""
    try:
        found = Records(records).about
    except InputError:
        return False  # nothing there, or unfinished: the writer says what is wrong with it
    if found != about:
        raise InputError(f"{records} holds records of other photos or settings, {found}; choose another folder")
    return True


def _check_unchanged(out: Path, about: dict[str, Any], items: Iterable[Row | LeftOut], source: Path) -> None:
    """Refuse a source that is no longer what whole records were made from: nothing would tell that they are old."""
    records = Records(out / RECORDS)
    if records.source_checksums is None:
        return  # of version 1, which does not say
    checksums = dict(zip(records.ids.tolist(), records.source_checksums.tolist(), strict=True))
    with contextlib.closing(Journal(out, about)) as journal:
        earlier = PastRows(checksums | journal.dropped, out)
    met: set[str] = set()
    for item in items:
        if isinstance(item, LeftOut) or item.id in met:
            continue
        met.add(item.id)
        if not earlier.take(item):
            raise InputError(
                f"{out} is whole, and was made before {source} had {item.id!r}; prepare the photos of now into another "
                "folder, or remove this one and run the same command again"
            )
    earlier.check_none_left(source)


def _check_rows(run: _Run, source: Path, out: Path) -> None:
    run.earlier.check_none_left(source)
    if not len(run.writer):
        said = f"{out / face_report.TABLE} says why, photo by photo" if run.journal.notes else "it holds no photos"
        raise InputError(f"{source} must hold a photo with a face that can be used; it has none; {said}")


def _finished(out: Path, about: dict[str, Any]) -> Prepared:
    """Write the report, with the identities of one photo, which only the whole tells."""
    records = Records(out / RECORDS)
    with contextlib.closing(Journal(out, about)) as journal:
        notes = journal.notes
    shown = Counter(records.identities.tolist())
    shown.pop("", None)
    single = [
        Note(
            id, identity, "one photo", True, f"{identity} has one crop, this one: no genuine pair, nothing to hold out"
        )
        for id, identity in zip(records.ids.tolist(), records.identities.tolist(), strict=True)
        if shown[identity] == 1
    ]
    notes += single
    face_report.write(out, notes, _TITLE)
    return Prepared(len(records), len(shown), face_report.counts(notes), out / RECORDS, out / face_report.PAGE)
