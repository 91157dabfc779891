"""What the command itself does per image on Ray, where workers do nothing: read, send, receive and write.

    python benchmarks/ray_driver.py [--images 2000] [--kib 100] [--save]

Images of so many KiB from a folder go in tasks of 8 to a Ray cluster of one process, which gives each a crop of
112 x 112 pixels, the same one; the command writes the crops as records. Processor seconds are those of the command.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from angulus.core.workers import map_tasks, start_workers
from angulus.data import records
from angulus.data.sources import read_source
from harness import Row, options, run, show, store

TASK = 8


def start(crop: bytes) -> Callable[[list[records.Row]], list[records.Row]]:
    return partial(cut, crop)


def cut(crop: bytes, rows: list[records.Row]) -> list[records.Row]:
    return [replace(row, image=crop) for row in rows]


def main() -> None:
    asked = options(__doc__ or "", images=2_000, kib=100).parse_args()
    noise = np.random.default_rng(0).integers(0, 256, (112, 112, 3), np.uint8)
    crop = cv2.imencode(".jpg", cv2.GaussianBlur(noise, (0, 0), 2), [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
    photo = crop + bytes(asked.kib * 1024 - len(crop))  # bytes after a JPEG's end are no harm
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))  # for the workers
    with tempfile.TemporaryDirectory() as room:
        for number in range(asked.images):
            path = Path(room) / "photos" / f"p{number % 100}" / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(photo)
        with contextlib.closing(start_workers(partial(start, crop), "ray", 1)) as workers:
            workers.submit([records.Row("first", photo, "")])()
            started, cpu = time.perf_counter(), time.process_time()
            rows = (row for row in read_source(Path(room) / "photos") if isinstance(row, records.Row))
            tasks = ((None, batch) for batch in iter(lambda: list(islice(rows, TASK)), []))
            with records.RecordWriter(Path(room) / "out") as writer:
                for _, done in map_tasks(workers, tasks):
                    for row in done:
                        if isinstance(row, records.Row):
                            writer.add(row)
            seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu
            count = len(writer)
    found: Row = {"images": count, "kib": asked.kib, "seconds": seconds, "cpu_seconds": cpu_seconds}
    found |= {
        "images_per_cpu_second": count / cpu_seconds,
        "mib_per_cpu_second": count * asked.kib / 1024 / cpu_seconds,
    }
    show("The command on Ray", [{name: f"{value:,.1f}" for name, value in found.items()}])
    if asked.save:
        store("ray_driver", [found | {"seed": 0}], "ray", "pyarrow")


if __name__ == "__main__":
    run(main)
