"""Load on `angulus serve` over loopback: throughput, latency and memory at 1, 8 and 32 clients.

    python benchmarks/serve.py [--requests 512] [--rows 10000] [--threads 2] [--save]

slim_resnet with 256-D features on 112x112 JPEGs, features of mirror images added, on the CPU; each client keeps one
connection and sends its next image when it has the answer. The floor is `Embedder.encode` on the same files in this
process, in one call, which decodes and embeds in batches and has no HTTP; it is timed before each load. Clients and
server share the cores. Core time is the server's (the floor's: this process's) per image; on a machine that others use
it is steadier than the clock.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import angulus
from angulus.core.contract import Contract
from angulus.core.embeddings import Embeddings
from angulus.models import artifact
from angulus.models.artifact import Config
from angulus.search import open_gallery
from harness import Row, clock, cpu_seconds, options, run, show, store

CONTRACT = Contract(size=(112, 112), colour="rgb", template="five_points", flip="sum")
CONFIG = Config("slim_resnet", 3, (112, 112), 256, contract=CONTRACT)
CLIENTS = (1, 8, 32)
IMAGES = 64  # different ones


def jpeg(seed: int) -> bytes:
    """A smooth random image."""
    small = np.random.default_rng(seed).integers(0, 256, (14, 14, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(small).resize((112, 112), Image.Resampling.BICUBIC).save(file, "JPEG", quality=95)
    return file.getvalue()


def prepare(folder: Path, rows: int) -> list[Path]:
    """A model, image files, and a gallery of random vectors under the model's name."""
    torch.manual_seed(0)
    artifact.save(CONFIG, CONFIG.build(), folder / "model")
    (folder / "images").mkdir()
    paths = [folder / "images" / f"{number:03}.jpg" for number in range(IMAGES)]
    for number, path in enumerate(paths):
        path.write_bytes(jpeg(number))
    vectors = np.random.default_rng(0).standard_normal((rows, 256)).astype(np.float32)
    ids = np.arange(rows).astype(np.str_)
    name = artifact.load(folder / "model").name
    open_gallery(folder / "gallery").add(Embeddings(vectors, ids, labels=ids, models=np.full(rows, name)))
    return paths


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[tuple[int, int]]:
    """A server of the gallery; its port and process id."""
    command = [sys.executable, "-m", "angulus", "serve", str(folder / "gallery"), "--model", str(folder / "model")]
    limits = ["--port", "0", "--rate", "0", "--queue", str(2 * max(CLIENTS)), "--threshold", "0.5"]
    with subprocess.Popen([*command, *limits], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        found = re.search(r"http://127\.0\.0\.1:(\d+)", server.stdout.readline())
        if found is None:
            raise RuntimeError("the server did not start; its error is above")
        try:
            yield int(found[1]), server.pid
        finally:
            server.terminate()


def ask(port: int, path: str, images: Sequence[bytes], requests: int) -> list[float]:
    """Milliseconds of each request of one client."""
    connection, times = http.client.HTTPConnection("127.0.0.1", port), []
    for number in range(requests):
        began = time.perf_counter()
        connection.request("POST", path, images[number % len(images)], {"Content-Type": "image/jpeg"})
        answer = connection.getresponse()
        content = answer.read()
        times.append(1e3 * (time.perf_counter() - began))
        if answer.status != 200:
            raise RuntimeError(f"{path} answered {answer.status}: {json.loads(content)}")
    connection.close()
    return times


def load(port: int, pid: int, path: str, images: list[bytes], requests: int, clients: int) -> Row:
    """Throughput and latency of a number of clients, and the server's core time."""
    with ThreadPoolExecutor(clients) as pool:
        began, cpu_began = time.perf_counter(), cpu_seconds(pid)
        each = [pool.submit(ask, port, path, images[k:] + images[:k], requests // clients) for k in range(clients)]
        times = [ms for future in each for ms in future.result()]
        seconds = time.perf_counter() - began
    marks = statistics.quantiles(times, n=100)
    core_ms = 1e3 * (cpu_seconds(pid) - cpu_began) / len(times)
    row: Row = {"what": path, "clients": clients, "images_per_s": len(times) / seconds, "core_ms": core_ms}
    return row | {"p50_ms": marks[49], "p90_ms": marks[89], "p99_ms": marks[98]}


def peak_of(pid: int) -> float:
    """The peak memory of a process in MiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def main(arguments: list[str] | None = None) -> None:
    asked = options(__doc__ or "", requests=512, rows=10_000, threads=2)
    given = asked.parse_args(arguments)
    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = prepare(folder, given.rows)
        embedder = angulus.Embedder.from_pretrained(folder / "model", device="cpu")
        many = [paths[number % IMAGES] for number in range(given.requests)]
        embedder.encode(paths)
        rows: list[Row] = []
        images = [path.read_bytes() for path in paths]
        with serving(folder) as (port, pid):
            for path in ("/embed", "/search"):
                load(port, pid, path, images, max(CLIENTS), max(CLIENTS))  # warm up
                for clients in CLIENTS:
                    floor = clock(lambda: embedder.encode(many))
                    row = load(port, pid, path, images, given.requests, clients)
                    own = {
                        "floor_per_s": len(many) / floor.seconds,
                        "floor_core_ms": 1e3 * floor.cpu_seconds / len(many),
                    }
                    rows.append(row | own | {"ratio": row["images_per_s"] / own["floor_per_s"]})
            memory = peak_of(pid)
    shape = {"requests": given.requests, "gallery_rows": given.rows, "threads": given.threads}
    rows = [row | shape | {"server_peak_mib": memory} for row in rows]
    show(
        f"{given.requests} requests, {given.rows:,} rows in the gallery; the server's peak: {memory:,.0f} MiB",
        [
            {
                "what": row["what"],
                "clients": str(row["clients"]),
                "images/s": f"{row['images_per_s']:.0f}",
                "of the floor": f"{row['ratio']:.2f}",
                "core ms": f"{row['core_ms']:.1f}",
                "floor's": f"{row['floor_core_ms']:.1f}",
            }
            | {f"{mark} ms": f"{row[f'{mark}_ms']:.0f}" for mark in ("p50", "p90", "p99")}
            for row in rows
        ],
    )
    if given.save:
        store("serve", rows, "fastapi", "uvicorn")


if __name__ == "__main__":
    run(main)
