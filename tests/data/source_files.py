"""Files of every source format for tests, and what a source gives."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from angulus.data.records import Row
from angulus.data.sources import LeftOut, SourceOptions, read_source
from data.pictures import jpeg, png

TEN = [38.25, 51.5, 73.5, 51.75, 56.0, 71.5, 41.5, 92.25, 70.75, 92.5]


def split(path: Path, kind: str | None = None, **options: Any) -> tuple[list[Row], dict[str, str]]:
    items = list(read_source(path, kind, SourceOptions(**options)))
    rows = [item for item in items if isinstance(item, Row)]
    return rows, {item.where: item.reason for item in items if isinstance(item, LeftOut)}


def labels_of(rows: Sequence[Row]) -> list[tuple[str, str]]:
    return [(row.id, row.identity) for row in rows]


def put(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


TREE = {"ann/1.jpg": jpeg(1), "ann/2.png": png(2), "bob/video/3.jpg": jpeg(3), "top.jpg": jpeg(4)}


LABELS = [("ann/1.jpg", "ann"), ("ann/2.png", "ann"), ("bob/video/3.jpg", "bob/video"), ("top.jpg", "")]


def zipped(path: Path, entries: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return path


def tarred(path: Path, members: Sequence[tuple[str, bytes]], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def about(**values: Any) -> bytes:
    return json.dumps(values).encode()


def as_folder(tmp_path: Path, files: dict[str, bytes]) -> Path:
    return put(tmp_path / "tree", files)


def as_zip(tmp_path: Path, files: dict[str, bytes]) -> Path:
    return zipped(tmp_path / "tree.zip", files)


def as_tar(tmp_path: Path, files: dict[str, bytes]) -> Path:
    return tarred(tmp_path / "tree.tgz", [*files.items()], "w:gz")


def hub(path: Path, paths: Sequence[str], **columns: Sequence[Any]) -> Path:
    images = [{"bytes": png(n), "path": name} for n, name in enumerate(paths)]
    pq.write_table(pa.table({"image": images, **columns}), path)
    return path
