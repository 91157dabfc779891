"""A long reading of images by worker processes: memory, open files and throughput, from the first batch to the last.

    python benchmarks/soak_reading.py [--batches 20000] [--workers 2] [--save]

Tiny JPEGs in a tar, one in 500 of them cut short, are read in place through `angulus.data` as a training reads them,
and discarded. A leak shows as memory or files that grow with the number of batches, a deadlock as a batch that does not
come: then the program ends with an error after five minutes.
"""

from __future__ import annotations

import faulthandler
import io
import os
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from angulus.data.loader import DecodedPixels, data_loader, part_of, read_batches
from angulus.data.sets.index import index_of
from angulus.data.sources import SourceOptions
from angulus.training.batches import batches
from harness import Row, options, run, show, store

BATCH, IMAGES, CLASSES, SIDE, CUT, SEED = 32, 4_000, 50, 32, 500, 0
PATIENCE_S = 300.0
EVERY = 1_000  # batches between two looks


def write_tar(path: Path) -> None:
    """Images by class; one in `CUT` has a whole header and half of its data."""
    random = np.random.default_rng(SEED)
    with tarfile.open(path, "w") as archive:
        for number in range(IMAGES):
            file = io.BytesIO()
            pixels = random.integers(256, size=(SIDE // 4, SIDE // 4, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize((SIDE, SIDE)).save(file, "PNG" if number % CUT == 7 else "JPEG")
            data = file.getvalue()
            if number % CUT == 7:
                middle = len(data) // 2
                data = data[:middle] + bytes(byte ^ 0x5A for byte in data[middle : middle + 60]) + data[middle + 60 :]
            info = tarfile.TarInfo(f"class-{number % CLASSES:02}/{number:05}.img.jpg")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def family() -> list[int]:
    """This process and its children."""
    tasks = Path(f"/proc/{os.getpid()}/task").iterdir()
    children = {int(pid) for task in tasks for pid in (task / "children").read_text().split()}
    return [os.getpid(), *sorted(children)]


def look() -> dict[str, Any]:
    """Memory (a shared page counts once), open files and processes, of this process and its workers."""
    memory, files, processes = 0, 0, family()
    for pid in processes:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        memory += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        files += len(os.listdir(f"/proc/{pid}/fd"))
    return {"memory_mib": round(memory / 1024, 1), "open_files": files, "processes": len(processes)}


def endless(count: int) -> Iterator[Tensor]:
    epoch = 0
    while True:
        yield from batches(count, BATCH, SEED, epoch)
        epoch += 1


def soak(pixels: DecodedPixels, total: int, workers: int) -> Iterator[Row]:
    """Read `total` batches; a row for each thousand."""
    order = (rows for rows, _ in zip(endless(len(pixels)), range(total), strict=False))
    started, bad = time.perf_counter(), set[int]()
    for number, (images, found) in enumerate(read_batches(data_loader(pixels, order, workers, pin=False)), 1):
        faulthandler.dump_traceback_later(PATIENCE_S, exit=True)
        assert images.shape[1:] == (3, SIDE, SIDE) and images.dtype == torch.uint8
        bad |= found.keys()
        if number % EVERY == 0 or number == total:
            seconds, started = time.perf_counter() - started, time.perf_counter()
            batches_read = EVERY if number % EVERY == 0 else number % EVERY
            yield {"batches": number, "images_per_s": round(batches_read * BATCH / seconds), "bad": len(bad), **look()}
    faulthandler.cancel_dump_traceback_later()


def main(arguments: list[str] | None = None) -> None:
    asked = options(__doc__ or "", batches=20_000, workers=2).parse_args(arguments)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        write_tar(Path(folder) / "images.tar")
        index = index_of(Path(folder) / "images.tar", SourceOptions())
        part = part_of(index)
        pixels = DecodedPixels(index, part.rows, part.size, labels=part.labels, most_bad=0.01)
        before = look()
        rows = list(soak(pixels, asked.batches, asked.workers))
        after = look()
    shape = {"batch": BATCH, "workers": asked.workers, "side": SIDE, "images": len(index), "seed": SEED}
    rows = [{"batches": 0, "images_per_s": None, "bad": 0, **before}, *rows]
    rows.append({**rows[-1], "images_per_s": None, **after})  # the workers have ended
    show("Reading ahead", [{name: f"{value}" for name, value in row.items()} for row in rows])
    if asked.save:
        store("soak_reading", [row | shape for row in rows], "numpy", "pillow")


if __name__ == "__main__":
    run(main)
