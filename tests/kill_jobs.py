"""Small jobs for `killed.py`: each makes records in a folder, in several parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from angulus.core.checks import InputError
from angulus.data.audit import Removal, apply_removals
from angulus.data.convert import convert
from angulus.data.faces import prepare as preparing
from angulus.data.faces.align import Crops
from angulus.data.faces.prepare import prepare_faces
from angulus.data.records import Records, RecordWriter, Row
from angulus.data.records import writer as record_writer
from data.pictures import png
from planted_faces import Planted, photo
from planted_faces import png as photo_png


def _make_parts_small() -> None:
    """Three images per part. Not when this file is imported: pytest imports it, looking for doctests."""
    preparing._TASK_PHOTOS, preparing._COMMIT_PHOTOS = 3, 3
    record_writer.PART_BYTES = 1_200


def content(out: Path) -> list[Any] | None:
    """All that is in records and next to them; None where they are not whole."""
    try:
        records = Records(out / "records" if (out / "records").is_dir() else out)
    except InputError:
        return None
    rows = [(row.id, row.image, row.identity, row.score) for row in records.rows(range(len(records)))]
    columns = {name: records.column(name).tolist() for name in records.columns}
    next_to = {path.name: path.read_text() for path in out.iterdir() if path.name in ("left-out.jsonl", "report.csv")}
    return [rows, records.about, columns, next_to]


def convert_folder(out: Path) -> None:
    """A folder of images, of which one is none."""
    _make_parts_small()
    source = out.parent / "photos"
    for number in range(6):
        _put(source / f"p{number % 2}" / f"{number}.png", png(number))
    _put(source / "note.txt", b"milk")
    convert(source, out)


def prepare_photos(out: Path) -> None:
    """Photos with a face, with two, and with none."""
    _make_parts_small()
    source = out.parent / "photos"
    for number in range(6):
        faces = [(60, 40, 60, 250), (130, 40, 40, 250)][: (1, 0, 2)[number % 3]]
        _put(source / f"{number}.png", photo_png(photo(*faces, width=200 + number)))
    prepare_faces(source, out, Crops(encoding="png"), detector=Planted(), workers=1)


def apply_lists(out: Path) -> None:
    """Records with a later column, without what two lists name."""
    _make_parts_small()
    source = out.parent / "all"
    if not source.exists():
        with RecordWriter(source) as writer:
            for number in range(8):
                writer.add(Row(f"{number}.png", png(number), f"p{number % 2}"))
            writer.add_column("norm", np.arange(8.0))
    apply_removals(source, {"one": (Removal("1.png", "x"),), "two": (Removal("4.png", "y"),)}, out)


def _put(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
