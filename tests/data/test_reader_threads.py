"""No thread of pyarrow's is left that needs a Python object while the process exits: it would abort it."""

import gzip
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from angulus.core.formats import parquet
from angulus.core.formats.columns import Columns
from angulus.data.records import Records, Row, write_records
from angulus.evaluation.lists import text
from data.pictures import png

READ = """
import io, os, sys, time
from pathlib import Path
import pyarrow as pa, pyarrow.csv, pyarrow.parquet as pq
from angulus.core.formats import parquet
from angulus.data.records import Records
from angulus.data.sources import SourceOptions, parquet_images

folder = Path(sys.argv[1])
tasks = lambda: len(os.listdir("/proc/self/task"))


def read_records():
    records = Records(folder / "records")
    return records.ids, records.sizes, records.images([0, 1]), records.column("norm")


uses = {
    "records": read_records,
    "embeddings": lambda: parquet.read(folder / "e.parquet", ["ids", "embeddings"], ["ids"]),
    "images": lambda: list(parquet_images.read([folder / "images.parquet"], SourceOptions())),
    "by default": lambda: pq.ParquetFile(io.BytesIO((folder / "e.parquet").read_bytes())).read(),
}
before = tasks()
for name, use in uses.items():
    use()
    end = time.monotonic() + 2
    while tasks() > before and time.monotonic() < end:  # a joined thread is listed until it has ended
        time.sleep(0.01)
    print(name, tasks() - before, sep=": ", flush=True)
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="counts threads in /proc")
def test_no_reader_starts_a_thread_that_stays(tmp_path: Path) -> None:
    images = [png(n, 6, 6) for n in range(3)]
    write_records(tmp_path / "records", [Row(str(n), image, "a") for n, image in enumerate(images)])
    Records(tmp_path / "records").add_column("norm", np.ones(3))
    columns: Columns = {"ids": np.array(["a", "b"], object), "embeddings": np.ones((2, 4), np.float32)}
    with (tmp_path / "e.parquet").open("wb") as file:
        parquet.write(file, tmp_path / "e.parquet", columns)
    pq.write_table(pa.table({"image": images, "label": ["a", "b", "b"]}), tmp_path / "images.parquet")
    done = subprocess.run([sys.executable, "-c", READ, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    *ours, usual = (line.split(": ") for line in done.stdout.splitlines())
    assert {name: int(new) for name, new in ours} == {"records": 0, "embeddings": 0, "images": 0}
    assert int(usual[1]) > 0  # of pyarrow's own reading, so the count sees such threads


MALFORMED = """
import sys
from angulus.core.checks import InputError
from angulus.evaluation.lists import text

try:
    text.read_table(sys.argv[1], text.Layout(["number"], {"number": float}, " ", False))
except InputError as error:
    print(error)
"""


def test_a_malformed_table_never_aborts_the_process(tmp_path: Path) -> None:
    path = tmp_path / "table.csv.gz"
    with gzip.open(path, "wb", 1) as file:
        file.write(b"1\nno number\n" + b"0.123456789\n" * 4_000_000)  # three blocks
    done = subprocess.run([sys.executable, "-c", MALFORMED, str(path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "table.csv.gz line 2 must be" in done.stdout


def test_a_table_is_read_in_blocks_of_whole_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [f"name-{n} {n / 7}" for n in range(500)]
    layout = text.Layout(["name", "number"], {"name": str, "number": float}, " ", True)
    for size in (64, 100, 2**24):
        monkeypatch.setattr(text, "_BLOCK", size)
        for name, opener in (("t.csv", open), ("t.csv.gz", gzip.open)):
            with opener(tmp_path / name, "wt") as file:
                file.write("name number\n" + "\n".join(lines) + "\n" * 200)
            found = text.read_table(tmp_path / name, layout)
            assert [
                f"{name} {number}" for name, number in zip(found["name"], found["number"].tolist(), strict=True)
            ] == lines


def test_where_a_block_ends_changes_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "t.tsv"
    layout = text.Layout(["a", "b"], {"a": str, "b": str}, "\t", True)
    for content in (
        b"first\tsecond\na\tb\nc\td\n",
        b"a\tb\r\nx\t\r\n\t\r\n\t\r\n\r\n",
        b"\xef\xbb\xbfa\tb\n\t\n\n\ne\tf",
    ):
        path.write_bytes(content)
        _, *lines = content.decode("utf-8-sig").splitlines()
        rows = [line.split("\t") for line in lines if line]
        for size in range(7, 30):
            monkeypatch.setattr(text, "_BLOCK", size)
            found = text.read_table(path, layout)
            assert [list(row) for row in zip(found["a"], found["b"], strict=True)] == rows
