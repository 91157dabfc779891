"""Preparing photos while a worker process or the program itself is killed: what is lost, on one machine and on Ray.

    python benchmarks/kills.py [--trials 20] [--photos 60] [--engine local] [--victim worker] [--save]

Each trial prepares the same photos into a new folder and kills with SIGKILL at a random photo: "worker", the process
that saw this photo, after which the program must come to its end; or "driver", the program, which is then started
again. A trial is whole if the result has the same rows and reports as an uninterrupted run in one process, and if no
photo of which the crop or the note was on the disk was done again. Ray runs as a cluster of two processes on this
machine, which all trials share. `--save` stores each engine and victim when its trials have ended.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from angulus.core import extras
from angulus.core.checks import InputError
from angulus.core.templates import template_points
from angulus.data.faces import prepare
from angulus.data.faces.align import Crops
from angulus.data.faces.detector import Faces, Image
from angulus.data.records import Records

Row = dict[str, Any]

LIMIT_S = 900  # a run takes seconds on an idle machine
COMMITTED = 8  # photos
ENGINES, VICTIMS = ("local", "ray"), ("worker", "driver")


@dataclass(frozen=True)
class Slow:
    """One face in the middle of each photo, and none of every tenth, after a while; writes which process saw which."""

    log: Path

    def detect(self, images: Sequence[Image]) -> list[Faces]:
        found = []
        for image in images:
            number = int(image[0, 0, 0])
            with self.log.open("a") as file:
                file.write(f"{os.getpid()} {number}\n")
            time.sleep(0.03)
            count = int(number % 10 != 3)
            points = template_points("five_points", 64, 64)[None] + 32
            boxes = np.array([[32, 32, 96, 96]], np.float32)[:count]
            found.append(Faces(boxes, points.astype(np.float32)[:count], np.full(count, 0.95, np.float32)))
        return found


def job(folder: Path, engine: str, address: str | None) -> None:
    """Prepare the photos, in this process's program."""
    prepare._TASK_PHOTOS, prepare._COMMIT_PHOTOS = 2, COMMITTED
    workers = {"none": 1, "local": 2}.get(engine)
    name = "ray" if engine == "ray" else "local"
    photos, crops = folder.parent / "photos", Crops(64, 64, encoding="png")
    detector = Slow(folder.with_suffix(".log"))
    prepare.prepare_faces(photos, folder, crops, detector=detector, workers=workers, engine=name, ray_address=address)


def content(out: Path) -> list[Any]:
    """All that was made."""
    records = Records(out / "records")
    rows = [(row.id, row.image, row.identity, row.score) for row in records.rows(range(len(records)))]
    return [rows, records.about, (out / "report.csv").read_text()]


def on_disk(out: Path) -> set[int]:
    """The photos whose crop or note is durable."""
    with contextlib.suppress(InputError):
        ids = set(Records(out / "records", unfinished=True).ids.tolist())
        notes = (out / "report.jsonl").read_text().splitlines() if (out / "report.jsonl").exists() else []
        for line in notes:
            if '"no face"' in line and line.endswith("}"):
                ids.add(line.partition('"id": "')[2].partition('"')[0])
        return {int(Path(id).stem) for id in ids}
    return set()


def seen(out: Path) -> list[tuple[int, int]]:
    """(process, photo), in order."""
    log = out.with_suffix(".log")
    lines = log.read_text().splitlines() if log.exists() else []
    return [(int(pid), int(number)) for pid, number in (line.split() for line in lines)]


def trial(room: Path, engine: str, victim: str, address: str | None, at: int, expected: list[Any]) -> Row:
    """Kill at the photo `at` of those that were seen."""
    out = room / f"{engine}-{victim}-{at}-{random.getrandbits(32):08x}"
    command = [sys.executable, __file__, "--job", str(out), engine, address or ""]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    limit = time.monotonic() + LIMIT_S
    while len(seen(out)) < at and running.poll() is None and time.monotonic() < limit:
        time.sleep(0.005)
    before = seen(out)
    killed = running.poll() is None and len(before) >= at
    if killed:
        os.kill(before[-1][0] if victim == "worker" else running.pid, signal.SIGKILL)
    said = running.communicate(timeout=LIMIT_S)[0]
    ended = running.returncode == 0
    acknowledged: set[int] = set()
    if victim == "driver":
        time.sleep(0.5)  # for workers to end
        acknowledged, before = on_disk(out), seen(out)
        said = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S).stderr
    again = [number for _, number in seen(out)[len(before) :] if number in acknowledged]
    try:
        same = content(out) == expected
    except InputError as error:
        same, said = False, f"{said} {error}"
    whole = same and not again and (ended or victim == "driver")
    print(f"{engine}: {victim} killed at {at}: {'whole' if whole else 'NOT WHOLE'}", file=sys.stderr, flush=True)
    if not whole:
        print(said[-600:], file=sys.stderr)
    return {"killed": killed, "whole": whole, "acknowledged": len(acknowledged), "again": len(again)}


def main() -> None:
    if sys.argv[1:2] == ["--job"]:
        folder, engine, where = sys.argv[2:]
        job(Path(folder), engine, where or None)
        return
    from harness import options, show, store  # which load torch, unlike what is killed

    parser = options(__doc__ or "", trials=20, photos=60)
    parser.add_argument("--engine", choices=ENGINES, action="append", help="default: both")
    parser.add_argument("--victim", choices=VICTIMS, action="append", help="default: both")
    asked = parser.parse_args()
    room = Path(tempfile.mkdtemp())
    rows: list[Row] = []
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    try:
        for number in range(asked.photos):
            path = room / "photos" / f"p{number % 4}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), np.full((128, 128, 3), number, np.uint8))
        job(room / "whole", "none", None)
        expected = content(room / "whole")
        for engine in asked.engine or ENGINES:
            address = start_cluster() if engine == "ray" else None
            for victim in asked.victim or VICTIMS:
                started = time.monotonic()
                random.seed(f"{engine} {victim}")
                points = [random.randrange(1, asked.photos - 4) for _ in range(asked.trials)]
                done = [trial(room, engine, victim, address, at, expected) for at in points]
                row: Row = {"engine": engine, "killed": victim, "trials": sum(each["killed"] for each in done)}
                row |= {"whole": sum(each["whole"] and each["killed"] for each in done), "photos": asked.photos}
                row |= {"acknowledged": sum(each["acknowledged"] for each in done), "seed": f"{engine} {victim}"}
                row |= {"done_again": sum(each["again"] for each in done), "seconds": time.monotonic() - started}
                rows.append(row)
                if asked.save:
                    store("kills", [row], *(["ray"] if engine == "ray" else []))
    finally:
        if "ray" in sys.modules:
            sys.modules["ray"].shutdown()
        shutil.rmtree(room, ignore_errors=True)
    names = ("engine", "killed", "trials", "whole", "acknowledged", "done_again")
    show("Runs that were killed", [{name: str(row[name]) for name in names} for row in rows])


def start_cluster() -> str:
    """The address of a cluster of two processes, for as long as this program."""
    ray = extras.load("ray", "ray", "the engine ray")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    for last in (False, False, False, False, True):
        try:
            ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
            break
        except Exception:  # Ray waits half a minute for its processes, which a busy machine exceeds
            ray.shutdown()
            if last:
                raise
    return str(ray.get_runtime_context().gcs_address)


if __name__ == "__main__":
    main()
