"""Prepare photos in any known format as records of aligned faces, on all cores or a cluster; a stopped run resumes."""

from __future__ import annotations

import contextlib
from collections import Counter, defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from angulus.core import checks, extras
from angulus.core.checks import InputError
from angulus.core.workers import Died, map_tasks, start_workers
from angulus.data.convert import check_outside
from angulus.data.faces import face_page, face_report
from angulus.data.faces.align import Crops, Note, ProcessedPhoto, process
from angulus.data.faces.detector import Detector
from angulus.data.faces.face_report import Journal
from angulus.data.faces.registry import describe_detector, make_detector
from angulus.data.records import Records, RecordWriter, Row
from angulus.data.records.writer import PastRows
from angulus.data.sources import LeftOut, SourceOptions, kind_of, read_source

RECORDS = "records"  # in the output folder, next to the report

_TITLE = "Faces that were prepared, and photos that need a look"
_TASK_PHOTOS = 8  # given to a worker at a time: few enough to stop soon
_TASK_BYTES = 16 * 2**20
_COMMIT_PHOTOS = 1_000  # what a crash may cost


@dataclass(frozen=True)
class Prepared:
    """The result of `prepare_faces`."""

    rows: int  # crops in the records
    identities: int  # people in the records, the unknown left out
    problems: dict[str, int]  # number of photos or files with a note, by problem
    records: Path  # the folder of the records
    report: Path  # the page of the report


def prepare_faces(
    source: Path,
    out: Path,
    crops: Crops | None = None,
    *,
    detector: str | Detector = "mtcnn",
    workers: int | None = None,
    engine: str = "local",
    ray_address: str | None = None,
    on_error: str = "stop",
    kind: str | None = None,
    options: SourceOptions | None = None,
    on_photo: Callable[[int], None] | None = None,
) -> Prepared:
    """Detect, choose, align and write the faces of a source's photos: one crop per photo, under the photo's id.

    `out` gets `records/`, and `report.csv`, `report.html` and `report.jsonl`, which name every photo that gave no crop
    or has more than one face, and every file that is not a photo. A stopped run resumes when called again with the same
    source and settings. Photos are compared by content: a source that has changed since is refused.

    Args:
        source, kind, options: as `sources.read_source` takes them.
        out: a folder outside the source.
        detector: a name as `make_detector` takes, or a detector that can be pickled.
        workers, engine, ray_address: as `workers.start_workers` takes them.
        on_error: at a photo at which worker processes die: "stop", or "skip", which notes it as unreadable.
        on_photo: called with the number of photos so far, those of earlier runs included.
    """
    extras.require("faces", "preparing faces", "cv2")
    crops = crops or Crops()
    checks.choice("on_error", on_error, ("stop", "skip"))
    check_outside(source, out)
    items = read_source(source, kind, options)  # before anything is written: it may be refused
    name = describe_detector(detector) if isinstance(detector, str) else type(detector).__name__
    about = {"source": source.name, "kind": kind or kind_of(source), "depth": options.depth if options else None}
    about |= {"detector": name, **asdict(crops)}
    if _is_complete(out / RECORDS, about):
        _check_unchanged(out, about, items, source)
    else:
        with contextlib.ExitStack() as stack:
            if isinstance(detector, str):
                make_detector(detector)  # a missing one is refused before anything starts
            start = partial(start_processing, detector, crops)
            pool = stack.enter_context(contextlib.closing(start_workers(start, engine, workers, ray_address)))
            writer = stack.enter_context(RecordWriter(out / RECORDS, about=about))
            journal = stack.enter_context(contextlib.closing(Journal(out, about)))
            # The note on a photo with a crop is on disk before its row; the photo is done when its row is there.
            earlier = PastRows(writer.sources | journal.dropped, out)
            count = len(earlier)
            tasks = ((batch, batch) for batch in _batches(_new_photos(items, earlier, journal)))
            results = stack.enter_context(contextlib.closing(map_tasks(pool, tasks)))
            processed = (_settle(photos, done, on_error) for photos, done in results)
            with contextlib.closing(_write_results(processed, writer, journal)) as counts:
                for done in counts:
                    if on_photo is not None:
                        on_photo(count + done)
            earlier.check_none_left(source)
            if not len(writer):
                why = f"{out / face_page.TABLE} says why, photo by photo" if journal.notes else "it holds no photos"
                raise InputError(f"{source} must hold a photo with a face that can be used; it has none; {why}")
    return _write_report(out, about)


def start_processing(detector: str | Detector, crops: Crops) -> Callable[[list[Row]], list[ProcessedPhoto]]:
    """`process` with its detector, in a process of its own."""
    return partial(process, detector=make_detector(detector) if isinstance(detector, str) else detector, crops=crops)


def _settle(photos: list[Row], results: list[ProcessedPhoto | Died], on_error: str) -> list[ProcessedPhoto]:
    """The results of a task; a photo at which worker processes die is an error, or gets a note."""
    settled = []
    for photo, result in zip(photos, results, strict=True):
        if isinstance(result, Died):
            if on_error == "stop":
                raise result.error(photo.id)
            checksum = photo.checksum()
            note = Note(photo.id, photo.identity, "cannot be read", False, result.reason, source=checksum)
            result = ProcessedPhoto(None, note, checksum)
        settled.append(result)
    return settled


def _write_results(
    results: Iterable[list[ProcessedPhoto]], writer: RecordWriter, journal: Journal
) -> Generator[int, None, None]:
    """Write notes and crops, and yield the number of photos so far; on any error, these are committed and reported."""
    done, committed = 0, 0
    try:
        for photos in results:
            journal.add(photo.note for photo in photos if photo.note is not None)
            for photo in photos:
                if photo.row is not None:
                    writer.add(photo.row, photo.source)
            done += len(photos)
            if done - committed >= _COMMIT_PHOTOS:
                writer.commit()
                committed = done
            yield done
    finally:
        writer.commit()
        face_report.write(journal.path.parent, journal.notes, _TITLE)


def _new_photos(items: Iterable[Row | LeftOut], earlier: PastRows, journal: Journal) -> Iterator[Row]:
    """The photos that earlier runs have not done; files that are not photos, and repeated ids, get a note."""
    ids: set[str] = set()
    for item in items:
        if isinstance(item, LeftOut) or item.id in ids:
            reason = item.reason if isinstance(item, LeftOut) else "an earlier photo of the source has this id"
            note = Note(item.where if isinstance(item, LeftOut) else item.id, "", "left out", False, reason)
            if note not in journal:
                journal.add([note])
            continue
        ids.add(item.id)
        if not earlier.take(item):
            yield item


def _batches(photos: Iterable[Row]) -> Iterator[list[Row]]:
    """A few photos at a time."""
    batch: list[Row] = []
    for photo in photos:
        batch.append(photo)
        if len(batch) == _TASK_PHOTOS or sum(len(photo.image) for photo in batch) >= _TASK_BYTES:
            yield batch
            batch = []
    if batch:
        yield batch


def _is_complete(records: Path, about: dict[str, Any]) -> bool:
    """Whether an earlier run finished its records, perhaps not the report; records with other settings are refused."""
    try:
        earlier = Records(records).about
    except InputError:
        return False  # nothing there, or unfinished: the writer says what is wrong with it
    if earlier != about:
        raise InputError(f"{records} holds records of other photos or settings, {earlier}; choose another folder")
    return True


def _check_unchanged(out: Path, about: dict[str, Any], items: Iterable[Row | LeftOut], source: Path) -> None:
    """Refuse a source that has changed since complete records were made from it."""
    records = Records(out / RECORDS)
    if records.source_checksums is None:
        return  # records of version 1 have no checksums
    checksums = dict(zip(records.ids.tolist(), records.source_checksums.tolist(), strict=True))
    with contextlib.closing(Journal(out, about)) as journal:
        earlier = PastRows(checksums | journal.dropped, out)
        for photo in _new_photos(items, earlier, journal):
            way = "prepare the photos into another folder, or remove this one and run the same command again"
            raise InputError(f"{out} is complete, and was made before {source} had {photo.id!r}; {way}")
    earlier.check_none_left(source)


def _write_report(out: Path, about: dict[str, Any]) -> Prepared:
    """Write the report, with a note on each identity that has one photo, which only complete records can tell."""
    records = Records(out / RECORDS)
    with contextlib.closing(Journal(out, about)) as journal:
        notes = journal.notes
    sizes = Counter(records.identities.tolist())
    sizes.pop("", None)
    for id, identity in zip(records.ids.tolist(), records.identities.tolist(), strict=True):
        if sizes[identity] == 1:
            detail = f"{identity} has one crop, this one: no genuine pair, nothing to hold out"
            notes.append(Note(id, identity, "one photo", True, detail))
    face_report.write(out, notes, _TITLE, _crops_to_show(records, notes, len(sizes)))
    problems = face_page.count_problems(notes)
    return Prepared(len(records), len(sizes), problems, out / RECORDS, out / face_report.PAGE)


def _crops_to_show(records: Records, notes: Sequence[Note], people: int) -> face_page.PageCrops:
    """Evenly spaced crops, and those of the photos whose notes the page shows."""
    rows = np.unique(np.linspace(0, len(records) - 1, face_page.SAMPLE).round().astype(int))
    by_problem: dict[str, list[str]] = defaultdict(list)
    for note in notes:
        if note.kept:
            by_problem[note.problem].append(note.id)
    wanted = [id for ids in by_problem.values() for id in ids[: face_page.PICTURES]]
    noted = np.flatnonzero(np.isin(records.ids, wanted))
    images = zip(records.ids[noted].tolist(), records.images(noted), strict=True)
    return face_page.PageCrops(len(records), people, records.rows(rows), dict(images))
