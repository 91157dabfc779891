"""Epochs of decoded batches of records in random order: from this disk, and from a store that answers after a wait.

    python benchmarks/remote.py RECORDS [--wait-ms 20] [--rounds 3] [--copies 8] [--mbit 0] [--save]

The store is `slow_store.py`, S3 on loopback, with the parts of RECORDS several times over; --mbit is the rate of its
line in 10⁶ bits per second, 0 for what the machine can. An epoch is every image
once, in batches of 128 in the order of a training. "first" is the epoch that finds nothing of the store on this disk,
"bytes" the same without decoding, "again" any later one. "rows" is what a full disk leaves, a request per image, and
"s3fs" the same by the package's own way; both are of a few batches. Workers are processes that read and decode for the
process that would train. Ratios are to this disk with the same number of workers, at most two, in the same round.
Processor time is of the reading processes, and apart of the store's: where that runs on another machine, and cores are
what limits, the ratio is the disk's processor time by the reader's.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import fsspec  # type: ignore[import-untyped]

from angulus.core import urls
from angulus.data.loader import DecodedPixels, data_loader, part_of, read_batches
from angulus.data.records import Records
from angulus.data.records.blobs import LocalBlobs, RemoteBlobs
from angulus.data.records.parts import part_name
from angulus.training.batches import batches
from harness import Clock, Row, cpu_seconds, options, ratio_text, run, show, spread, store, take_turns

BATCH = 128
KEYS = {"AWS_ACCESS_KEY_ID": "benchmark", "AWS_SECRET_ACCESS_KEY": "benchmark", "AWS_DEFAULT_REGION": "us-east-1"}
WORKERS = {"disk": (0, 2), "first": (0, 2, 4), "bytes": (0,), "again": (0, 2), "rows": (0,), "s3fs": (0,)}
FEW = 8  # batches of what takes long


@contextmanager
def slow_store(folder: Path, wait_s: float, bytes_per_s: float) -> Iterator[int]:
    """The folder's subfolders as buckets of s3://; gives the process that serves them."""
    script = Path(__file__).with_name("slow_store.py")
    command = [sys.executable, str(script), str(folder), str(wait_s), str(bytes_per_s)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        os.environ |= KEYS | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{int(process.stdout.readline())}"}
        fsspec.get_filesystem_class("s3").clear_instance_cache()  # which may know another server
        yield process.pid
    finally:
        process.terminate()
        process.wait()


def several_times(path: Path, copies: int, out: Path) -> None:
    """Records with the parts of others several times over."""
    about = json.loads((path / "about.json").read_text())
    parts = sorted(path.glob("rows-*.parquet"))
    out.mkdir(parents=True)
    for number, part in enumerate(parts * copies):
        shutil.copy(part, out / part_name(number))
    counts = {"rows": about["rows"] * copies, "parts": len(parts) * copies}
    (out / "about.json").write_text(json.dumps(about | counts))


class Place:
    """A place that batches are read from, with the clocks of its epochs."""

    def __init__(self, name: str, records: Records, workers: int, store_pid: int) -> None:
        self.name, self.records, self.store_pid = name, records, store_pid
        part = part_of(records)
        pixels = DecodedPixels(records, part.rows, part.size, threads=1)
        self.batches: list[Any] = []
        self.loader = data_loader(pixels, self.batches, workers, pin=False, stay=True)
        self.store_cpu_s: list[float] = []  # per image, of each epoch
        self.requests: list[int] = []

    def epoch(self) -> Clock:
        """Seconds per image."""
        if isinstance(self.records._blobs, RemoteBlobs) and self.name in ("first", "bytes"):
            for file in self.records._blobs._copies.folder.glob("*.parquet"):
                os.truncate(file, 0)  # workers have them open
        self.batches[:] = batches(len(self.records), BATCH, seed=0, epoch=len(self.store_cpu_s))
        if self.name in ("rows", "s3fs"):
            del self.batches[FEW:]
        images, requests = sum(map(len, self.batches)), requests_so_far()
        began, cpu_began, store_began = time.perf_counter(), own_cpu_seconds(), cpu_seconds(self.store_pid)
        if self.name == "bytes":
            for rows in self.batches:
                self.records.images(rows)
        else:
            for _ in read_batches(self.loader):
                pass
        seconds, cpu_s = time.perf_counter() - began, own_cpu_seconds() - cpu_began
        self.store_cpu_s.append((cpu_seconds(self.store_pid) - store_began) / images)
        self.requests.append(requests_so_far() - requests)
        return Clock(seconds / images, cpu_s / images)


def requests_so_far() -> int:
    with urllib.request.urlopen(f"{os.environ['AWS_ENDPOINT_URL']}/requests") as answer:
        return int(answer.read())


def own_cpu_seconds() -> float:
    """The core time of this process and of its workers."""
    workers = [child.pid for child in multiprocessing.active_children()]
    return time.process_time() + sum(cpu_seconds(pid) for pid in workers if pid is not None)


def measure(folder: Path, wait_s: float, mbit: int, rounds: int) -> Iterator[Row]:
    """Rows of images per second and processor time, by place and number of workers, of records in bucket/faces."""
    with slow_store(folder, wait_s, 1e6 * mbit / 8 if mbit else math.inf) as pid:
        places: dict[str, Place] = {}
        for name, counts in WORKERS.items():
            records = Records(folder / "bucket/faces" if name == "disk" else "s3://bucket/faces")
            if isinstance(records._blobs, RemoteBlobs):
                records._blobs._copies = LocalBlobs(urls.cache_entry(name, "rows"))
                records._blobs._keeps = name not in ("rows", "s3fs")
                records._blobs._signs = name != "s3fs"
            places |= {f"{name} {workers}": Place(name, records, workers, pid) for workers in counts}
        timings = {
            timing.what: timing for timing in take_turns({key: one.epoch for key, one in places.items()}, rounds)
        }
        for key, place in places.items():
            workers = place.loader.num_workers
            timing, local = timings[key], timings[f"disk {min(workers, 2)}"]
            row: Row = {"place": place.name, "workers": workers, "wait_ms": 1000 * wait_s, "mbit": mbit}
            row |= {"images": len(place.records), "images_per_s": 1 / timing.seconds}
            row |= spread([own.seconds / other.seconds for own, other in zip(local.clocks, timing.clocks, strict=True)])
            cpu = spread(
                [own.cpu_seconds / other.cpu_seconds for own, other in zip(local.clocks, timing.clocks, strict=True)]
            )
            row |= {f"cpu_{name}": value for name, value in cpu.items()}
            yield row | {
                "cpu_us": 1e6 * timing.cpu_seconds,
                "store_cpu_us": 1e6 * statistics.median(place.store_cpu_s[1:]),
                "requests": int(statistics.median(place.requests[1:])),
            }


def main(arguments: list[str] | None = None) -> None:
    parser = options(__doc__ or "", rounds=3, wait_ms=20, copies=8, mbit=0)
    parser.add_argument("records", type=Path)
    asked = parser.parse_args(arguments)
    with TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = f"{folder}/cache"
        several_times(asked.records, asked.copies, Path(folder, "store/bucket/faces"))
        rows = list(measure(Path(folder, "store"), asked.wait_ms / 1000, asked.mbit, asked.rounds))
    show(
        f"{rows[0]['images']:,} images in batches of {BATCH}, {asked.wait_ms} ms before each answer",
        [
            {
                "place": row["place"],
                "workers": str(row["workers"]),
                "requests": f"{row['requests']:,}",
                "images/s": f"{row['images_per_s']:,.0f}",
                "ratio to the disk": ratio_text(row),
                "CPU µs/image": f"{row['cpu_us']:,.0f}",
                "the disk's by it": f"{row['cpu_ratio']:.2f}",
                "store's CPU µs/image": f"{row['store_cpu_us']:,.1f}",
            }
            for row in rows
        ],
    )
    if asked.save:
        store("remote", rows, "fsspec", "aiohttp", "opencv-python-headless")


if __name__ == "__main__":
    run(main)
