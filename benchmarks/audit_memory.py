"""What an audit keeps in memory per image: while it reads records, afterwards, and while it counts and compares hashes.

    python benchmarks/audit_memory.py [--images 20000] [--save]

Python's and NumPy's own count of what they allocate (tracemalloc), at a quarter of the images and at all: the
difference over the number of images, which leaves out what does not grow. Ids have 25 letters, and ten images a name.
"""

from __future__ import annotations

import tempfile
import tracemalloc
from pathlib import Path

import numpy as np

from angulus.data.audit import datacard, duplicates
from angulus.data.audit.inventory import take_inventory
from angulus.data.records import Row as Image
from angulus.data.records import write_records
from harness import Row, options, run, show, store


def bmp(number: int) -> bytes:
    """A picture of 16 x 16 pixels."""
    pixels = np.random.default_rng(number).integers(0, 256, 768, np.uint8).tobytes()
    sizes = (14 + 40 + 768, 0, 54, 40, 16, 16)
    return b"BM" + np.array(sizes, "<u4").tobytes() + b"\1\0\x18\0" + bytes(24) + pixels


def peaks(count: int, folder: Path) -> Row:
    """Bytes, by what is done."""
    names = (f"person-{n // 10:07d}" for n in range(count))
    write_records(folder, (Image(f"{name}/{n:06d}.bmp", bmp(n), name) for n, name in enumerate(names)))
    found: Row = {}

    def note(what: str) -> None:
        found[what] = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()

    tracemalloc.start()
    inventory = take_inventory(folder)
    note("reading records")
    note("then")
    duplicates.exact(inventory)
    note("exact copies")
    datacard.describe(inventory)
    note("the card's counts")
    tracemalloc.stop()
    assert len(inventory) == count
    return found


def main() -> None:
    asked = options(__doc__ or "", images=20_000).parse_args()
    with tempfile.TemporaryDirectory() as name:
        peaks(100, Path(name) / "first")  # which imports what it needs
        few, many = (peaks(count, Path(name) / str(count)) for count in (asked.images // 4, asked.images))
    more = asked.images - asked.images // 4
    rows: list[Row] = [
        {
            "what": what,
            "images": asked.images,
            "from": asked.images // 4,
            "bytes_per_image": (many[what] - few[what]) / more,
        }
        for what in many
    ]
    show(
        "An audit's memory",
        [{name: f"{value:,.0f}" if name != "what" else value for name, value in row.items()} for row in rows],
    )
    if asked.save:
        store("audit_memory", rows, "numpy")


if __name__ == "__main__":
    run(main)
