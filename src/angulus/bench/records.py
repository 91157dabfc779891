"""Reads of small images in random order, from records and from what else could hold them, and decoded batches.

Every store holds the same images. A worker is a process that opens the store for itself and reads batches of random
rows; the rate is all workers' images over the time of the slowest. Decoded batches go through `Loader`, to the process
that would train. Rounds are interleaved; a ratio is to a folder of files in the same round. Processor time depends
little on who else uses the machine; it is given for reads, and for decoding without workers. Files are in the page
cache: what is measured is the format, not the disk.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import statistics
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import ArrayLike

from angulus.core import checks, environment
from angulus.data.loader import Encoded, Loader, Part, part_of
from angulus.data.records import Records, Row, write_records
from angulus.data.sampler import Shuffled

FLOOR = "folder of files"
BATCH = 128
_GROUP_ROWS = 16  # a row group of the plain Parquet file; smaller groups cost more than they save
_IPC_ROWS = 256


@dataclass(frozen=True)
class Timing:
    """One row of the table: images a second, the ratio to the folder, and processor time, over the rounds."""

    store: str
    decoded: bool
    workers: int
    images_per_s: float
    ratio: float
    ratio_low: float
    ratio_high: float
    cpu_us: float | None  # of all workers, an image
    mib: float


def run(
    source: Path,
    scratch: Path,
    rounds: int = 5,
    workers: tuple[int, ...] = (1, 2, 0),
    decoded: tuple[bool, ...] = (False, True),
) -> Iterator[Timing]:
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
            rates: dict[str, list[float]] = {name: [] for name in stores}
            costs: dict[str, list[float]] = {name: [] for name in stores}
            timers = {
                name: _Decoding(store, part, count) if decoding else _Reading(store, part, count)
                for name, store in stores.items()
            }
            for number in range(rounds + 1):  # the first is for the workers to start and the cache to fill
                for name, timer in timers.items():
                    seconds, cpu_seconds = timer.epoch(number)
                    if number:
                        rates[name].append(len(part.rows) / seconds)
                        costs[name].append(1e6 * cpu_seconds / len(part.rows))
            for timer in timers.values():
                timer.close()
            for name, values in rates.items():
                ratios = [value / floor for value, floor in zip(values, rates[FLOOR], strict=True)]
                yield Timing(
                    name,
                    decoding,
                    count,
                    statistics.median(values),
                    statistics.median(ratios),
                    min(ratios),
                    max(ratios),
                    statistics.median(costs[name]) if count == 0 or not decoding else None,
                    _mib(Path(stores[name].where)),
                )


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
        FLOOR: FolderImages(str(folder / "files"), [str(path) for path in files]),
        "records": Records(folder / "records"),
        "zip": ZipImages(str(folder / "images.zip"), ids),
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
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    return stores | {"Lance": LanceImages(str(folder / "lance"))}


@dataclass(frozen=True)
class FolderImages:
    """A file an image."""

    where: str
    paths: list[str]

    def images(self, rows: ArrayLike) -> list[bytes]:
        found = []
        for row in np.asarray(rows).tolist():
            with open(self.paths[row], "rb") as file:
                found.append(file.read())
        return found


@dataclass
class _Opened:
    """A store that each process opens for itself, at its first read."""

    where: str

    def __post_init__(self) -> None:
        self._handle: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_handle": None}


@dataclass
class ZipImages(_Opened):
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
        found: list[bytes] = self._handle.take(np.asarray(rows).tolist(), columns=["image"]).column(0).to_pylist()
        return found


class _Reading:
    """Workers that read all rows in random order, an equal share each."""

    def __init__(self, store: Encoded, part: Part, workers: int) -> None:
        self._count, self._workers = len(part.rows), workers
        context = multiprocessing.get_context("spawn")  # Lance does not survive a fork
        self._pipes = []
        for _ in range(workers):
            ours, theirs = context.Pipe()
            context.Process(target=_serve, args=(store, theirs), daemon=True).start()
            self._pipes.append(ours)

    def epoch(self, number: int) -> tuple[float, float]:
        """Seconds of the slowest worker, and of processor time of all."""
        batches = Shuffled(self._count, BATCH, seed=number).batches(0)
        for worker, pipe in enumerate(self._pipes):
            pipe.send(batches[worker :: self._workers])
        answers = [pipe.recv() for pipe in self._pipes]
        return max(seconds for seconds, _ in answers), sum(cpu_seconds for _, cpu_seconds in answers)

    def close(self) -> None:
        for pipe in self._pipes:
            pipe.send(None)


def _serve(store: Encoded, pipe: Any) -> None:
    """Read what is asked for, and answer with the seconds and processor time it took; for a process of its own."""
    while (batches := pipe.recv()) is not None:
        started, cpu_started = time.perf_counter(), time.process_time()
        for rows in batches:
            store.images(rows)
        pipe.send((time.perf_counter() - started, time.process_time() - cpu_started))


class _Decoding:
    """An epoch of decoded batches in this process."""

    def __init__(self, store: Encoded, part: Part, workers: int) -> None:
        self._loader = Loader(store, part, Shuffled(len(part.rows), BATCH), workers=workers)

    def epoch(self, number: int) -> tuple[float, float]:
        """Seconds, and of processor time in this process alone."""
        started, cpu_started = time.perf_counter(), time.process_time()
        for _ in self._loader.epoch(number):
            pass
        return time.perf_counter() - started, time.process_time() - cpu_started

    def close(self) -> None:
        del self._loader


def _mib(path: Path) -> float:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(os.stat(file).st_size for file in files) / 2**20


def record(images: int, rounds: int, timing: Timing) -> dict[str, Any]:
    """One line of the stored results: the numbers, the shape, and the environment."""
    about = environment.of_timing(torch.device("cpu"), "pyarrow", "opencv-python-headless", "pylance")
    return {"images": images, "batch": BATCH, "rounds": rounds} | asdict(timing) | {"environment": about}
