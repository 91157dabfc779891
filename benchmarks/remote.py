"""Decoded batches of records in random order: from this disk, and by row from a store that answers after a wait.

    python benchmarks/remote.py RECORDS [--wait-ms 20] [--rounds 3] [--batches 24] [--save]

The store is `slow_store.py`, S3 on loopback. "first" reads from the store, by signed addresses, as the first epoch
does; "again" reads what the first epoch has kept on this disk; "s3fs" is the first epoch by the package's own way. Each
worker is a process that reads and decodes batches of 128 for the process that would train.
Ratios are to this disk with the same number of workers, at most two. Processor time is of one process, without
workers: it depends little on who else uses the machine. Its ratio says how many cores the store needs for one of the
disk's.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import fsspec  # type: ignore[import-untyped]
import numpy as np

from angulus.data.loader import DecodedPixels, data_loader, part_of, read_batches
from angulus.data.records import Records
from angulus.data.records.blobs import LocalBlobs, RemoteBlobs
from harness import Row, options, ratio_text, run, show, store, take_turns

BATCH = 128
KEYS = {"AWS_ACCESS_KEY_ID": "benchmark", "AWS_SECRET_ACCESS_KEY": "benchmark", "AWS_DEFAULT_REGION": "us-east-1"}
WORKERS = {"disk": (0, 2), "first": (0, 2, 4), "again": (0, 2), "s3fs": (0,)}


@contextmanager
def slow_store(folder: Path, wait_s: float) -> Iterator[None]:
    """The folder's subfolders as buckets of s3://."""
    script = Path(__file__).with_name("slow_store.py")
    command = [sys.executable, str(script), str(folder), str(wait_s)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        os.environ |= KEYS | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{int(process.stdout.readline())}"}
        fsspec.get_filesystem_class("s3").clear_instance_cache()  # which may know another server
        yield
    finally:
        process.terminate()
        process.wait()


def epoch(loader: Any, batches: list[Any], count: int, many: int) -> None:
    batches[:] = np.random.default_rng(len(batches)).integers(0, count, (many, BATCH))
    for _ in read_batches(loader):
        pass


def measure(path: Path, wait_s: float, rounds: int, many: int) -> Iterator[Row]:
    """Rows of images per second and processor time, by place and number of workers."""
    with slow_store(path.resolve().parent.parent, wait_s):
        url = f"s3://{path.resolve().parent.name}/{path.resolve().name}"
        places = {"disk": Records(path)} | {name: Records(url) for name in list(WORKERS)[1:]}
        for name in ("first", "s3fs"):  # nothing is kept, so that every round is the first epoch
            blobs = places[name]._blobs
            assert isinstance(blobs, RemoteBlobs)
            blobs._keeps, blobs._signs = False, name == "first"
            blobs._copies = LocalBlobs(Path("/nowhere"))
        places["again"].images(np.arange(len(places["again"])))
        part = part_of(places["disk"])
        steps = {}
        for name, records in places.items():
            for workers in WORKERS[name]:
                pixels = DecodedPixels(records, part.rows, part.size, threads=1)
                batches: list[Any] = []
                loader = data_loader(pixels, batches, workers, pin=False, stay=True)
                steps[f"{name} {workers}"] = partial(epoch, loader, batches, len(part.rows), many)
        timings = {timing.what: timing for timing in take_turns(steps, rounds)}
        images = many * BATCH
        for name, workers in [(place, count) for place in places for count in WORKERS[place]]:
            timing, local = timings[f"{name} {workers}"], timings[f"disk {min(workers, 2)}"]
            ratios = [own.seconds / other.seconds for own, other in zip(local.clocks, timing.clocks, strict=True)]
            row: Row = {
                "place": name,
                "workers": workers,
                "wait_ms": 1000 * wait_s,
                "images_per_s": images / timing.seconds,
            }
            row |= {"ratio": float(np.median(ratios)), "ratio_low": min(ratios), "ratio_high": max(ratios)}
            yield row | {"cpu_us": 1e6 * timing.cpu_seconds / images if workers == 0 else None}


def main(arguments: list[str] | None = None) -> None:
    parser = options(__doc__ or "", rounds=3, wait_ms=20, batches=24)
    parser.add_argument("records", type=Path)
    asked = parser.parse_args(arguments)
    with TemporaryDirectory() as cache:
        os.environ["XDG_CACHE_HOME"] = cache
        rows = list(measure(asked.records, asked.wait_ms / 1000, asked.rounds, asked.batches))
    show(
        f"batches of {BATCH}, {asked.wait_ms} ms before each answer",
        [
            {
                "place": row["place"],
                "workers": str(row["workers"]),
                "images/s": f"{row['images_per_s']:,.0f}",
                "ratio to the disk": ratio_text(row),
                "CPU µs/image": "" if row["cpu_us"] is None else f"{row['cpu_us']:,.0f}",
            }
            for row in rows
        ],
    )
    if asked.save:
        store("remote", rows, "fsspec", "aiohttp", "opencv-python-headless")


if __name__ == "__main__":
    run(main)
