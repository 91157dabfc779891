"""From `pip install` to the first trained model on 500 photos: the minutes of each step, in an empty folder.

    python benchmarks/first_model.py DATA [--people 50] [--each 10] [--save]

A new virtual environment gets this checkout with the extra `faces`, without pip's cache, and then runs the README's
commands. DATA holds celebrity-faces/. A photo is a JPEG of 640 x 480 pixels: a real face, enlarged, on smooth colours.
Other people, a fifth as many, are for the evaluation after the training.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from collections import defaultdict
from pathlib import Path

import numpy as np
from PIL import Image

from angulus.core.checks import InputError
from harness import Row as Line
from harness import options, run, show, store

CHECKOUT = Path(__file__).resolve().parents[1]
WIDTH, HEIGHT, SIDE = 640, 480, 224  # pixels of a photo and of the face in it
STEPS = {  # commands of a new user; the first four end in a trained model
    "make an environment": "{python} -m venv venv",
    "pip install": "venv/bin/python -m pip install --no-cache-dir -q -c {checkout}/constraints.txt {checkout}[faces]",
    "prepare faces": "venv/bin/angulus prepare faces photos faces",
    "train": "venv/bin/angulus train faces-slim data.root=faces/records --out run",
    "prepare the others": "venv/bin/angulus prepare faces others strangers",
    "embed": "venv/bin/angulus embed run/model strangers/records strangers.npz",
    "draw pairs": "venv/bin/angulus data pairs strangers/records pairs.txt --folds 5 --pairs 20",
    "evaluate": "venv/bin/angulus evaluate pairs strangers.npz --pairs pairs.txt --json pairs.json",
}
TRAINED = 4


def write_photos(data: Path, folder: Path, split: str, people: int, each: int) -> None:
    """Photos as NAME/0.jpg ..., of the first people of a split with enough images."""
    base = data / "celebrity-faces"
    try:
        with gzip.open(base / "images.csv.gz", "rt", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row["split"] == split]
        archive = zipfile.ZipFile(base / "aligned_112.zip")
    except OSError as error:
        raise InputError(f"{data} must hold celebrity-faces/aligned_112.zip and images.csv.gz; {error}") from error
    images = defaultdict(list)
    for row in rows:
        images[row["identity"]].append(row["path"])
    chosen = [name for name, paths in sorted(images.items()) if len(paths) >= each][:people]
    if len(chosen) < people:
        raise InputError(f"people must be at most {len(chosen)} with {each} images each; got {people}")
    rng = np.random.default_rng(0)
    for name in chosen:
        (folder / name).mkdir(parents=True)
        for number, path in enumerate(images[name][:each]):
            ground = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((WIDTH, HEIGHT))
            face = Image.open(io.BytesIO(archive.read(path))).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
            left, top = (int(rng.integers(0, most)) for most in (WIDTH - SIDE, HEIGHT - SIDE))
            ground.paste(face, (left, top))
            ground.save(folder / name / f"{number}.jpg", quality=92)


def take(step: str, command: str, folder: Path) -> Line:
    """Run a command in the folder; its seconds by the clock and of all cores."""
    words = [word.format(python=sys.executable, checkout=CHECKOUT) for word in command.split()]
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "ANGULUS", "OMP"))
    }
    started, before = time.perf_counter(), os.times()
    result = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)
    seconds, after = time.perf_counter() - started, os.times()
    if result.returncode:
        raise InputError(f"{' '.join(words)} gave: {result.stderr[-2000:]}{result.stdout[-2000:]}")
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None  # programs that want a core, ours among them
    return {"step": step, "command": command, "seconds": seconds, "cpu_seconds": cpu, "load": load}


def main(arguments: list[str] | None = None) -> None:
    parser = options(__doc__ or "", people=50, each=10)
    parser.add_argument("data", type=Path)
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_photos(asked.data, folder / "photos", "train", asked.people, asked.each)
        write_photos(asked.data, folder / "others", "test", max(asked.people // 5, 10), asked.each)
        rows = []
        for step, command in STEPS.items():
            rows.append(take(step, command, folder))
            print(f"{step}: {rows[-1]['seconds']:.0f} s", file=sys.stderr)
        size = sum(path.stat().st_size for path in (folder / "venv").rglob("*") if path.is_file())
        training = json.loads((folder / "run" / "results.json").read_text())
        numbers = json.loads((folder / "pairs.json").read_text())
    about = {"photos": asked.people * asked.each, "people": asked.people, "installed_mib": size / 2**20}
    rows.append(
        {"step": "to the trained model", "seconds": sum(row["seconds"] for row in rows[:TRAINED])}
        | {"cpu_seconds": sum(row["cpu_seconds"] for row in rows[:TRAINED])}
    )
    show(
        f"{about['photos']} photos of {asked.people} people; {about['installed_mib']:,.0f} MiB installed",
        [
            {
                "step": row["step"],
                "minutes": f"{row['seconds'] / 60:.2f}",
                "core minutes": f"{row['cpu_seconds'] / 60:.2f}",
            }
            for row in rows
        ],
    )
    print(json.dumps(training)[:3000], json.dumps(numbers)[:3000])
    if asked.save:
        store("first_model", [row | about for row in rows])


if __name__ == "__main__":
    run(main)
