"""Reads of small images in random order, and decoded batches, from records and from other ways to store images.

    python benchmarks/records.py RECORDS [--rounds 5] [--save]

RECORDS holds images of one size; every store holds the same images. A worker is a process that opens the store for
itself and reads batches of random rows; the rate is all workers' images over the time of the slowest. Decoded batches
go through `data_loader`, to the process that would train. Ratios are to a folder of files. Processor time depends
little on who else uses the machine; it is reported for reads, and for decoding without workers. Files are in the page
cache: what is measured is the format, not the disk.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import ArrayLike

from angulus.core import checks
from angulus.data.loader import DecodedPixels, Encoded, Part, data_loader, part_of, read_batches
from angulus.data.records import Records, Row, write_records
from harness import Clock, clock, options, python, ratio_text, run, show, store, take_turns
from harness import Row as Line

FLOOR = "folder of files"
BATCH = 128
_GROUP_ROWS = 16  # a row group of the plain Parquet file; smaller groups cost more than they save
_IPC_ROWS = 256


def time_stores(
    source: Path,
    scratch: Path,
    rounds: int = 5,
    workers: tuple[int, ...] = (1, 2, 0),
    decoded: tuple[bool, ...] = (False, True),
) -> Iterator[Line]:
    """Write the images of some records in every format, then time them all.

    Args:
        source: records of images of one size.
        scratch: an empty folder for the copies.
        rounds: >= 1.
        workers: how many processes, each number in its turn; 0, this one, for decoded batches only, and last: a
            process that has used Lance can fork no more.
        decoded: whether reads alone are timed, decoded batches, or both.
    """
    checks.integer("rounds", rounds, low=1)
    records = Records(source)
    part = part_of(records)
    stores = write_stores(records, scratch)
    for decoding in decoded:
        for count in [number for number in workers if number or decoding]:
            kind = Decoding if decoding else Reading
            timers = {name: kind(images, part, count) for name, images in stores.items()}
            for timing in take_turns({name: timer.epoch for name, timer in timers.items()}, rounds):
                rate = {"store": timing.what, "decoded": decoding, "workers": count}
                rate |= {"images_per_s": len(part.rows) / timing.seconds} | timing.faster()
                cpu_us = 1e6 * timing.cpu_seconds / len(part.rows) if count == 0 or not decoding else None
                yield rate | {"cpu_us": cpu_us, "mib": _mib(Path(stores[timing.what].where))}
            for timer in timers.values():
                timer.close()


def write_stores(records: Records, folder: Path) -> dict[str, Encoded]:
    """The same images in each format, by name; Lance only where it is installed."""
    rows = np.arange(len(records))
    images, ids = records.images(rows), records.ids.tolist()
    files = [folder / "files" / name for name in ids]
    for path, image in zip(files, images, strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image)
    with zipfile.ZipFile(folder / "images.zip", "w", zipfile.ZIP_STORED) as archive:
        for name, image in zip(ids, images, strict=True):
            archive.writestr(name, image)
    table = pa.table({"id": ids, "identity": records.identities.tolist(), "image": pa.array(images, pa.binary())})
    pq.write_table(
        table, folder / "plain.parquet", row_group_size=_GROUP_ROWS, compression="none", use_dictionary=False
    )
    with pa.ipc.new_file(folder / "table.arrow", table.schema) as writer:
        for batch in table.to_batches(_IPC_ROWS):
            writer.write_batch(batch)
    write_records(folder / "records", (Row(id, image, "") for id, image in zip(ids, images, strict=True)))
    stores: dict[str, Encoded] = {
        FLOOR: PlainFiles(str(folder / "files"), [str(path) for path in files]),
        "records": Records(folder / "records"),
        "zip": PlainZip(str(folder / "images.zip"), ids),
        "Arrow IPC, mapped": IpcImages(str(folder / "table.arrow")),
        "Parquet, by row group": ParquetImages(str(folder / "plain.parquet")),
    }
    if importlib.util.find_spec("lance") is None:
        return stores
    # In a process of its own: a process that has used Lance crashes in workers that it forks.
    code = (
        "import lance, pyarrow as pa; "
        f"lance.write_dataset(pa.ipc.open_file({str(folder / 'table.arrow')!r}).read_all(), {str(folder / 'lance')!r})"
    )
    python("-c", code)
    return stores | {"Lance": LanceImages(str(folder / "lance"))}


@dataclass(frozen=True)
class PlainFiles:
    """One file per image."""

    where: str
    paths: list[str]

    def images(self, rows: ArrayLike) -> list[bytes]:
        return [Path(self.paths[row]).read_bytes() for row in np.asarray(rows).tolist()]


@dataclass
class _Opened:
    """A store that each process opens for itself, at its first read."""

    where: str

    def __post_init__(self) -> None:
        self._handle: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_handle": None}


@dataclass
class PlainZip(_Opened):
    """A zip without compression."""

    names: list[str]

    def images(self, rows: ArrayLike) -> list[bytes]:
        self._handle = self._handle or zipfile.ZipFile(self.where)
        return [self._handle.read(self.names[row]) for row in np.asarray(rows).tolist()]


class IpcImages(_Opened):
    """Arrow's IPC file, mapped into memory."""

    def images(self, rows: ArrayLike) -> list[bytes]:
        if self._handle is None:
            file = pa.ipc.open_file(pa.memory_map(self.where))
            self._handle = [file.get_batch(number).column("image") for number in range(file.num_record_batches)]
        return [self._handle[row // _IPC_ROWS][row % _IPC_ROWS].as_py() for row in np.asarray(rows).tolist()]


class ParquetImages(_Opened):
    """Parquet through its own reader, which gives whole row groups."""

    def images(self, rows: ArrayLike) -> list[bytes]:
        self._handle = self._handle or pq.ParquetFile(self.where, memory_map=True)
        groups = (
            (self._handle.read_row_group(row // _GROUP_ROWS, columns=["image"]).column(0), row % _GROUP_ROWS)
            for row in np.asarray(rows).tolist()
        )
        return [column[place].as_py() for column, place in groups]


class LanceImages(_Opened):
    """Lance, which reads a batch of rows in one call."""

    def images(self, rows: ArrayLike) -> list[bytes]:
        import lance

        self._handle = self._handle or lance.dataset(self.where)
        images: list[bytes] = self._handle.take(np.asarray(rows).tolist(), columns=["image"]).column(0).to_pylist()
        return images


class Reading:
    """Workers that read all rows in random order, an equal share each."""

    def __init__(self, store: Encoded, part: Part, workers: int) -> None:
        self.count, self.workers, self.epochs = len(part.rows), workers, 0
        context = multiprocessing.get_context("spawn")  # Lance does not survive a fork
        self.pipes = []
        for _ in range(workers):
            near, far = context.Pipe()
            context.Process(target=_serve, args=(store, far), daemon=True).start()
            self.pipes.append(near)

    def epoch(self) -> Clock:
        """Seconds of the slowest worker, and processor time of all."""
        self.epochs += 1
        batches = _shuffled(self.count, self.epochs)
        for worker, pipe in enumerate(self.pipes):
            pipe.send(batches[worker :: self.workers])
        seconds, cpu_seconds = zip(*(pipe.recv() for pipe in self.pipes), strict=True)
        return Clock(max(seconds), sum(cpu_seconds))

    def close(self) -> None:
        for pipe in self.pipes:
            pipe.send(None)


def _serve(store: Encoded, pipe: Any) -> None:
    """Read the batches that arrive and answer with the time of each reading; for a process of its own."""
    while (batches := pipe.recv()) is not None:
        pipe.send(tuple(clock(partial(_read, store, batches))))


def _read(store: Encoded, batches: list[Any]) -> None:
    for rows in batches:
        store.images(rows)


class Decoding:
    """Epochs of decoded batches in this process; processor time is of this process alone."""

    def __init__(self, store: Encoded, part: Part, workers: int) -> None:
        self.pixels, self.epochs = DecodedPixels(store, part.rows, part.size, threads=1), 0
        self.batches: list[Any] = []  # of the epoch
        self.loader = data_loader(self.pixels, self.batches, workers, pin=False, stay=True)

    def epoch(self) -> None:
        self.batches[:] = _shuffled(len(self.pixels), self.epochs)
        for _ in read_batches(self.loader):
            pass
        self.epochs += 1

    def close(self) -> None:
        del self.loader


def _shuffled(count: int, epoch: int) -> list[Any]:
    """All rows in random order, in batches whose sizes differ by at most one."""
    return np.array_split(np.random.default_rng(epoch).permutation(count), -(-count // BATCH))


def _mib(path: Path) -> float:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files) / 2**20


def main(arguments: list[str] | None = None) -> None:
    parser = options(__doc__ or "", rounds=5)
    parser.add_argument("records", type=Path)
    asked = parser.parse_args(arguments)
    count = len(Records(asked.records))
    with tempfile.TemporaryDirectory() as scratch:
        rows = list(time_stores(asked.records, Path(scratch), asked.rounds))
    show(
        f"{count:,} images, batches of {BATCH}, {asked.rounds} rounds",
        [
            {
                "store": row["store"] + (", decoded" if row["decoded"] else ""),
                "workers": str(row["workers"]),
                "images/s": f"{row['images_per_s']:,.0f}",
                "ratio to a folder": ratio_text(row),
                "CPU µs/image": "" if row["cpu_us"] is None else f"{row['cpu_us']:,.1f}",
                "MiB": f"{row['mib']:,.1f}",
            }
            for row in rows
        ],
    )
    if asked.save:
        shape = {"images": count, "batch": BATCH, "rounds": asked.rounds}
        store("records", [shape | row for row in rows], "pyarrow", "opencv-python-headless", "pylance")


if __name__ == "__main__":
    run(main)
