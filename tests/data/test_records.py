"""Records: what goes in comes out by row, on disk and under URLs; a crash leaves whole batches; damage is named."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import pickle
import re
import signal
import subprocess
import sys
import uuid
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st

from angulus.core import stores
from angulus.core.checks import InputError
from angulus.data import decode
from angulus.data.records import Records, RecordWriter, Row, blobs, parts, reader, write_records
from data.pictures import jpeg, png

POINTS = np.arange(10, dtype=np.float32).reshape(5, 2)


def some_rows(count: int, start: int = 0) -> list[Row]:
    return [
        Row(
            f"p{n % 3}/{n}.png",
            png(n, 5 + n % 4, 6),
            f"p{n % 3}",
            POINTS + n if n % 2 else None,
            n / 10 if n % 3 else None,
        )
        for n in range(start, start + count)
    ]


def written(path: Path | str, rows: list[Row], batch_rows: int = 4) -> Records:
    with RecordWriter(path, batch_rows=batch_rows) as writer:
        for row in rows:
            writer.add(row)
    return Records(path)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # for what is read from a URL


@pytest.fixture(params=["folder", "url"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    return tmp_path / "records" if request.param == "folder" else f"memory://{uuid.uuid4().hex}/records"


@pytest.mark.parametrize("count", [1, 3, 4, 5, 13])
def test_round_trip(place: Path | str, count: int) -> None:
    rows = some_rows(count)
    records = written(place, rows)
    assert len(records) == count
    assert records.images(np.arange(count)) == [row.image for row in rows]
    assert records.ids.tolist() == [row.id for row in rows]
    assert records.identities.tolist() == [row.identity for row in rows]
    assert records.sizes.tolist() == [[5 + n % 4, 6] for n in range(count)]
    for n, row in enumerate(rows):
        assert np.array_equal(
            records.landmarks[n], np.full((5, 2), np.nan) if row.landmarks is None else row.landmarks, True
        )
        assert np.array_equal(records.scores[n], np.nan if row.score is None else row.score, True)
    for back, row in zip(records.rows(np.arange(count)), rows, strict=True):
        assert (back.id, back.image, back.identity, back.score) == (row.id, row.image, row.identity, row.score)
        assert (back.landmarks is None) == (row.landmarks is None)


def test_records_are_a_sequence_of_rows(tmp_path: Path) -> None:
    records = written(tmp_path / "records", some_rows(5))
    assert [row.id for row in records] == records.ids.tolist()
    assert (records[3].image, records[-1].id) == (records.images([3])[0], records.ids[4])
    for row in (5, -6):
        with pytest.raises(IndexError, match=rf"row must be in \[-5, 5\) .*got {row}"):
            records[row]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.binary(min_size=0, max_size=300), min_size=1, max_size=20), st.integers(1, 7), st.data())
def test_random_access_gives_the_bytes_that_were_written(
    tmp_path_factory: pytest.TempPathFactory, tails: list[bytes], batch_rows: int, data: st.DataObject
) -> None:
    images = [png() + tail for tail in tails]  # what follows a PNG's end is kept
    rows = [Row(str(n), image, "") for n, image in enumerate(images)]
    records = written(tmp_path_factory.mktemp("some") / "records", rows, batch_rows)
    asked = data.draw(st.lists(st.integers(0, len(images) - 1), max_size=30))
    assert records.images(asked) == [images[n] for n in asked]


def test_any_parquet_reader_reads_them(tmp_path: Path) -> None:
    rows = some_rows(6)
    written(tmp_path / "records", rows)
    table = pq.read_table([tmp_path / "records" / parts.part_name(n) for n in range(2)])
    assert table.column("image").to_pylist() == [row.image for row in rows]
    assert table.column("id").to_pylist() == [row.id for row in rows]


def test_more_parts_than_files_stay_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("angulus.data.records.blobs._OPEN_FILES", 2)
    rows = some_rows(9)
    records = written(tmp_path / "records", rows, batch_rows=1)
    assert records.images([8, 0, 4, 8, 1]) == [rows[n].image for n in (8, 0, 4, 8, 1)]
    assert len(os.listdir(f"/proc/{os.getpid()}/fd")) < 100


def test_a_part_ends_when_its_bytes_are_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("angulus.data.records.writer.PART_BYTES", 600)
    records = written(tmp_path / "records", some_rows(8), batch_rows=1000)
    assert len(list((tmp_path / "records").glob("rows-*"))) > 1
    assert len(records) == 8


def test_a_column_that_came_later(place: Path | str) -> None:
    records = written(place, some_rows(6))
    columns: dict[str, Any] = {
        "norm": np.linspace(0, 1, 6),
        "embedding": np.random.default_rng(0).normal(size=(6, 8)).astype(np.float32),
        "half": np.ones((6, 2), dtype=np.float16),
        "cluster": np.arange(6),
        "kept": np.array([True, False] * 3),
        "split": np.array(["train", "test", "train", "train", "é", ""]),
    }
    for name, values in columns.items():
        records.add_column(name, values)
    again = Records(place)
    assert again.columns == tuple(sorted(columns))
    for name, values in columns.items():
        assert np.array_equal(again.column(name), values)
        assert again.column(name).dtype == values.dtype
    with pytest.raises(InputError, match=r"is in .* already; pass replace=True"):
        records.add_column("norm", np.zeros(6))
    records.add_column("norm", np.zeros(6), replace=True)
    assert records.column("norm").tolist() == [0.0] * 6


@pytest.mark.parametrize(
    ("name", "values", "said"),
    [
        ("no/path", np.zeros(6), "letters, digits and underscores"),
        ("identity", np.zeros(6), "not be that of a stored one"),
        ("norm", np.zeros(5), r"shape \[6\]"),
        ("norm", np.zeros((6, 0)), r"shape \[6\]"),
        ("norm", np.zeros((6, 1, 1)), r"shape \[6\]"),
        ("norm", np.array([None] * 6), "must be numbers, flags or"),
        ("norm", np.array([["a"]] * 6), "must be numbers, flags or"),
    ],
)
def test_columns_that_do_not_fit(tmp_path: Path, name: str, values: np.ndarray, said: str) -> None:
    records = written(tmp_path / "records", some_rows(6))
    with pytest.raises(InputError, match=said):
        records.add_column(name, values)
    with pytest.raises(InputError, match="must be one of none"):
        records.column("norm")


def test_a_column_of_other_records(tmp_path: Path) -> None:
    records = written(tmp_path / "records", some_rows(6))
    written(tmp_path / "other", some_rows(5)).add_column("norm", np.zeros(5))
    (tmp_path / "other" / "column-norm.parquet").rename(tmp_path / "records" / "column-norm.parquet")
    with pytest.raises(InputError, match="must have 6 values, one per row; got 5"):
        records.column("norm")


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many bytes each range had that was read from a store in memory."""
    lengths: list[int] = []
    cat_file = MemoryFileSystem.cat_file

    def counted(
        self: MemoryFileSystem, path: str, start: int | None = None, end: int | None = None, **rest: Any
    ) -> bytes:
        data: bytes = cat_file(self, path, start=start, end=end, **rest)
        lengths.append(len(data))
        return data

    monkeypatch.setattr(MemoryFileSystem, "cat_file", counted)
    return lengths


def test_only_the_asked_bytes_are_fetched_where_the_disk_has_no_room(
    fetched: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rows = [Row(str(n), jpeg(n, 60, 60), "a") for n in range(40)]
    records = written(f"memory://{uuid.uuid4().hex}/records", rows, batch_rows=20)
    monkeypatch.setattr(blobs, "_LEAST_FREE", 2**62)
    for _ in range(2):
        assert records.images([39, 7]) == [rows[39].image, rows[7].image]
    assert fetched == 2 * [len(rows[39].image) + 4, len(rows[7].image) + 4]
    assert not list((tmp_path / "cache").rglob("*.parquet"))


def test_a_pass_over_all_rows_fetches_every_block_once_and_keeps_it(
    fetched: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    url = f"memory://{uuid.uuid4().hex}/records"
    rows = [Row(str(n), jpeg(n, 60, 60), "a") for n in range(40)]
    monkeypatch.setattr(reader, "_BLOCK", 30_000)
    records = written(url, rows, batch_rows=20)
    names = [parts.part_name(number) for number in range(2)]
    for batch in np.random.default_rng(0).permutation(40).reshape(5, 8):
        assert records.images(batch) == [rows[row].image for row in batch]
    lengths = list(fetched)
    (folder,) = (tmp_path / "cache" / "angulus" / "urls" / "rows").iterdir()
    in_blocks: dict[tuple[int, int], int] = {}  # by part and 30,000 bytes: the images that begin there
    for number, name in enumerate(names):
        stored, kept = fsspec.filesystem("memory").cat(f"{url}/{name}"), (folder / name).read_bytes()
        for row in rows[20 * number :][:20]:
            start = stored.index(row.image)
            assert kept[start - 4 :][: 4 + len(row.image)] == stored[start - 4 :][: 4 + len(row.image)]
            block = (number, start // 30_000)
            in_blocks[block] = in_blocks.get(block, 0) + 4 + len(row.image)
    assert len(in_blocks) < 10 and sorted(lengths) == sorted(in_blocks.values())
    fsspec.filesystem("memory").rm(f"{url}/{names[0]}")
    assert records.images(range(40)) == [row.image for row in rows]


def test_each_part_of_a_long_read_may_be_refused_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = some_rows(40)
    records = written(f"memory://{uuid.uuid4().hex}/records", rows)
    monkeypatch.setattr(blobs, "_LEAST_FREE", 2**62)
    monkeypatch.setattr(blobs, "_AT_ONCE", 5)
    monkeypatch.setattr(stores, "_WAITS_S", (0.0, 0.0))
    cat_file, calls = MemoryFileSystem.cat_file, itertools.count()

    def busy(self: MemoryFileSystem, *args: Any, **rest: Any) -> bytes:
        if next(calls) % 6 == 0:  # one of five requests, which is repeated
            raise ConnectionResetError("try later")
        data: bytes = cat_file(self, *args, **rest)
        return data

    monkeypatch.setattr(MemoryFileSystem, "cat_file", busy)
    assert records.images(range(40)) == [row.image for row in rows]
    assert next(calls) == 48


def read_in_worker(records: Records, asked: list[int], pipe: Any) -> None:
    pipe.send(records.images(asked))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_read_side_by_side(tmp_path: Path, method: str) -> None:
    rows = some_rows(12)
    records = written(tmp_path / "records", rows)
    records.images(range(12))  # files are open before the fork
    context = multiprocessing.get_context(method)
    pipes, processes = [], []
    for worker in range(2 if method == "fork" else 1):  # a spawned one takes seconds to import what it needs
        ours, theirs = context.Pipe()
        asked = list(range(worker, 12, 2)) * 20
        processes.append(context.Process(target=read_in_worker, args=(records, asked, theirs)))
        processes[-1].start()
        pipes.append((ours, asked))
    for ours, asked in pipes:
        assert ours.recv() == [rows[n].image for n in asked]
    for process in processes:
        process.join(120)
        assert process.exitcode == 0


def test_columns_are_not_sent_to_workers(tmp_path: Path) -> None:
    records = written(tmp_path / "records", [Row(f"an id as long as this one, {n}", png(n), "a") for n in range(50)])
    bare = len(pickle.dumps(records))
    assert (len(records.ids), len(records.sizes)) == (50, 50)
    assert len(pickle.dumps(records)) == bare


def test_a_part_that_goes_away_is_named(place: Path | str) -> None:
    records = written(place, some_rows(6))
    system, root = fsspec.core.url_to_fs(str(place))
    system.rm(f"{root}/{parts.part_name(1)}")
    assert records.images([0]) == [some_rows(1)[0].image]
    with pytest.raises(InputError, match="must be there and readable"):
        records.images([5])
    with pytest.raises(InputError, match="must be there and readable"):
        _ = records.ids


def test_a_pickled_url_connects_again() -> None:
    url = f"memory://{uuid.uuid4().hex}/records"
    rows = some_rows(3)
    assert pickle.loads(pickle.dumps(written(url, rows))).images([2]) == [rows[2].image]


def test_a_url_connects_again_after_a_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"memory://{uuid.uuid4().hex}/records"
    monkeypatch.setattr(reader, "_BLOCK", 1)
    records = written(url, some_rows(3))
    opened = []
    monkeypatch.setattr(fsspec.core, "url_to_fs", lambda where: opened.append(where) or (MemoryFileSystem(), url[8:]))
    records.images([0])
    assert opened == []
    real, parents = os.getpid(), records._blobs._system  # type: ignore[attr-defined]
    monkeypatch.setattr(os, "getpid", lambda: real + 1)
    records.images([1])  # row 0 has been kept
    assert opened == [url]
    assert records._blobs._inherited is parents  # type: ignore[attr-defined]  # s3fs's ends with a traceback in a child


def test_unfinished_records_are_refused_and_gone_on_with(place: Path | str) -> None:
    rows = some_rows(10)
    writer = RecordWriter(place, about={"size": [112, 112]}, batch_rows=4)
    for row in rows[:6]:
        writer.add(row)
    assert (len(writer), rows[5].id in writer, rows[6].id in writer) == (6, True, False)
    writer.close()
    with pytest.raises(InputError, match="must be whole; its writer has not finished"):
        Records(place)
    assert Records(place, unfinished=True).ids.tolist() == [row.id for row in rows[:4]]
    with RecordWriter(place, about={"size": (112, 112)}, batch_rows=4) as again:
        assert again.ids == {row.id for row in rows[:4]}
        for row in rows:
            if row.id not in again:
                again.add(row)
    assert Records(place).ids.tolist() == [row.id for row in rows]
    assert Records(place).about == {"size": [112, 112]}
    with pytest.raises(InputError, match="holds whole records of 10 rows"):
        RecordWriter(place)


def test_going_on_with_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "records"
    writer = RecordWriter(path, about={"source": "a"}, batch_rows=1)
    writer.add(some_rows(1)[0])
    writer.close()
    with pytest.raises(InputError, match="unfinished records about something else"):
        RecordWriter(path, about={"source": "b"})
    about = path / parts.ABOUT
    about.write_text(json.dumps(json.loads(about.read_text()) | {"version": 1}))
    with pytest.raises(InputError, match=r"unfinished records of version 1, without the checksums.*remove it and run"):
        RecordWriter(path, about={"source": "a"})


@pytest.mark.parametrize("there_before", [False, True])
def test_a_writer_that_committed_nothing_leaves_nothing(tmp_path: Path, there_before: bool) -> None:
    path = tmp_path / "records"
    if there_before:
        path.mkdir()
        (path / parts.ABOUT).write_text(  # of one that was killed before its first part
            json.dumps({"format": parts.FORMAT, "version": parts.VERSION, "about": {"source": "b"}})
        )
        (path / f".{parts.part_name(0)}.{uuid.uuid4().hex}.tmp").write_bytes(b"half")
    with pytest.raises(KeyError), RecordWriter(path, about={"source": "a"}) as writer:
        writer.add(some_rows(1)[0])
        raise KeyError
    assert [entry.name for entry in tmp_path.rglob("*")] == (["records"] if there_before else [])
    with RecordWriter(path, about={"source": "c"}) as writer:
        writer.add(some_rows(1)[0])
    assert Records(path).about == {"source": "c"}


def test_a_second_writer_is_told(tmp_path: Path) -> None:
    with RecordWriter(tmp_path / "records") as writer:
        with pytest.raises(InputError, match="in use"):
            RecordWriter(tmp_path / "records")
        writer.add(some_rows(1)[0])


WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from data.test_records import some_rows
from angulus.data.records.writer import RecordWriter
with RecordWriter(Path(sys.argv[1]), batch_rows=5) as writer:
    number = len(writer)
    while True:
        for row in some_rows(1, number):
            writer.add(row)
        number += 1
        print(number, flush=True)
"""


def test_a_killed_writer_leaves_whole_batches(tmp_path: Path) -> None:
    path = tmp_path / "records"
    for kill in range(2):
        command = [sys.executable, "-c", WRITER, str(path), str(Path(__file__).parents[1])]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        reached = int(process.stdout.readline())
        for _ in range(23 + 4 * kill):
            reached = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        records = Records(path, unfinished=True)
        count = len(records)
        assert count % 5 == 0
        assert count >= reached - reached % 5
        assert records.images(range(count)) == [row.image for row in some_rows(count)]
    (path / f".rows-{count // 5:05}.parquet.{'0' * 32}.tmp").write_bytes(b"half")
    (path / f".about.json.{'0' * 32}.tmp").write_bytes(b"half")
    with RecordWriter(path, batch_rows=5) as writer:
        writer.add(some_rows(1, count)[0])
    assert len(Records(path)) == count + 1
    assert not list(path.glob(".*.tmp"))


def test_a_block_that_raises_keeps_what_was_committed(tmp_path: Path) -> None:
    with pytest.raises(KeyError), RecordWriter(tmp_path / "records", batch_rows=2) as writer:
        for row in some_rows(5):
            writer.add(row)
        raise KeyError
    assert len(Records(tmp_path / "records", unfinished=True)) == 4


def test_write_records_is_whole_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "records"

    def broken() -> Iterator[Row]:
        yield from some_rows(3)
        raise KeyError

    with pytest.raises(KeyError):
        write_records(path, broken())
    assert not path.exists()
    monkeypatch.setattr("angulus.data.records.writer.PART_BYTES", 1)
    with pytest.raises(KeyError):
        write_records(path, broken())
    with pytest.raises(InputError, match="must be whole"):
        Records(path)
    with pytest.raises(InputError, match="must be missing or an empty folder"):
        write_records(path, some_rows(2))
    assert write_records(tmp_path / "other", some_rows(3), about={"from": "here"}) == 3
    assert Records(tmp_path / "other").about == {"from": "here"}
    with pytest.raises(InputError, match="at least one row"):
        write_records(tmp_path / "none", [])


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (("", png(), "a"), "id must be text"),
        (("x", b"", "a"), "got 0 bytes"),
        (("x", "text", "a"), "got str"),
        (("x", png(), None), "identity must be text"),
        (("x", png(), "a", np.zeros((5, 3))), r"\[5, 2\] finite"),
        (("x", png(), "a", np.full((5, 2), np.nan)), r"\[5, 2\] finite"),
        (("x", png(), "a", None, float("inf")), "score must be finite"),
    ],
)
def test_rows_that_are_none(row: tuple[Any, ...], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Row(*row)


def test_rows_that_are_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with RecordWriter(tmp_path / "records") as writer:
        writer.add(Row("x", png(), "a"))
        with pytest.raises(InputError, match="got 'x' again"):
            writer.add(Row("x", png(1), "b"))
        with pytest.raises(InputError, match="row 'y': image must be an image"):
            writer.add(Row("y", b"text", "a"))
        monkeypatch.setattr(parts, "MOST_IMAGE_BYTES", 10)
        with pytest.raises(InputError, match="at most 10 bytes"):
            writer.add(Row("z", png(), "a"))
    assert Records(tmp_path / "records").ids.tolist() == ["x"]


def test_bad_settings(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="batch_rows"):
        RecordWriter(tmp_path / "records", batch_rows=0)
    with pytest.raises(InputError, match="about must hold only JSON"):
        RecordWriter(tmp_path / "records", about={"x": object()})
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("dear")
    with pytest.raises(InputError, match=r"must be empty or hold unfinished records; it holds 'letter.txt'"):
        RecordWriter(tmp_path / "full")
    with pytest.raises(InputError, match="must be a URL that can be opened"):
        Records("nosuchscheme://x/y")


@pytest.mark.parametrize("rows", [[-1], [6], [[1]], [0.5], [True]])
def test_rows_that_are_not_there(tmp_path: Path, rows: Any) -> None:
    records = written(tmp_path / "records", some_rows(6))
    with pytest.raises(InputError, match="rows must be"):
        records.images(rows)
    assert records.images([]) == []


def test_one_long_id_does_not_widen_the_others(tmp_path: Path) -> None:
    ids = ["x" * 9_000, *map(str, range(99))]
    write_records(tmp_path / "records", [Row(id, png(0), id[:5_000]) for id in ids])
    records = Records(tmp_path / "records")
    assert records.ids.dtype == records.identities.dtype == object
    assert [row.id for row in records.rows([0, 99, 1])] == [ids[0], ids[99], ids[1]]
    assert records.identities.tolist() == [id[:5_000] for id in ids]


FLIPS = """
import random, sys
from pathlib import Path
from angulus.core.checks import InputError
from angulus.data.records import Records
path, rng = Path(sys.argv[1]), random.Random(0)
part = path / "rows-00000.parquet"
whole, refused = part.read_bytes(), 0
footer = int.from_bytes(whole[-8:-4], "little")
for _ in range(600):
    data = bytearray(whole)
    data[rng.randrange(len(data) - 8 - footer, len(data))] ^= 1 << rng.randrange(8)
    part.write_bytes(data)
    try:
        records = Records(path)
        records.images(range(len(records))), records.ids, records.sizes
    except InputError:
        refused += 1
print(refused, flush=True)
"""


def test_a_damaged_footer_never_ends_the_process(tmp_path: Path) -> None:
    path, part = tmp_path / "records", tmp_path / "records" / parts.part_name(0)
    written(path, some_rows(3))
    # as another tool would write the part again, with statistics: pyarrow ends the process where they do not fit
    pq.write_table(pq.read_table(part), part, compression="none", use_dictionary=False, data_page_version="1.0")
    assert Records(path).images([1]) == [some_rows(3)[1].image]
    command = [sys.executable, "-c", FLIPS, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.returncode, done.stdout, done.stderr)  # a count in stdout: it ended at its exit
    assert int(done.stdout) > 100


def test_damage_is_named(tmp_path: Path) -> None:
    path = tmp_path / "records"
    with pytest.raises(InputError, match=r"must hold records; there is no about.json"):
        Records(path)
    rows = some_rows(12)
    records = written(path, rows)
    part = path / parts.part_name(1)
    whole = part.read_bytes()
    place = whole.index(rows[5].image)
    part.write_bytes(whole[: place - 4] + b"\xff" + whole[place - 3 :])
    assert records.images([4]) == [rows[4].image]
    with pytest.raises(InputError, match=r"rows-00001.parquet must be as it was written; .* the image of row 5;"):
        Records(path).images([4, 5])
    part.write_bytes(whole[:-20])
    with pytest.raises(InputError, match=r"rows-00001.parquet must be as it was written; it is damaged"):
        Records(path)
    pq.write_table(pq.read_table(path / parts.part_name(0)).drop_columns(["score"]), part)
    with pytest.raises(InputError, match="must be a part of records, with the columns id, identity"):
        Records(path)
    part.unlink()
    with pytest.raises(InputError, match=r"rows-00001.parquet is missing"):
        Records(path)
    (path / parts.part_name(2)).unlink()
    with pytest.raises(InputError, match="must hold 12 rows, as it says; got 4"):
        Records(path)


@pytest.mark.parametrize(
    ("text", "said"),
    [("{", "must be JSON"), ("[]", "must say that its format"), ('{"format": "x"}', "must say that its format")],
)
def test_another_about(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / parts.ABOUT).write_text(text)
    with pytest.raises(InputError, match=said):
        Records(tmp_path)
    with pytest.raises(InputError, match=said):
        RecordWriter(tmp_path)


def test_a_later_version_is_refused(tmp_path: Path) -> None:
    written(tmp_path / "records", some_rows(2))
    about = tmp_path / "records" / parts.ABOUT
    about.write_text(json.dumps(json.loads(about.read_text()) | {"version": 3}))
    with pytest.raises(InputError, match="records of version 2 or before; got 3"):
        Records(tmp_path / "records")


def as_version_1(path: Path) -> None:
    """Rewrite records as they were before there were checksums."""
    about = json.loads((path / parts.ABOUT).read_text())
    (path / parts.ABOUT).write_text(json.dumps(about | {"version": 1}))
    for part in path.glob("rows-*"):
        table = pq.read_table(part).drop_columns(["image_crc32", "source_crc32"]).cast(parts._SCHEMAS[1])
        options = {"compression": "none", "use_dictionary": False, "write_statistics": False}
        pq.write_table(table, part, row_group_size=len(table), data_page_size=2**30, **options)


def test_records_of_version_1_are_read(tmp_path: Path) -> None:
    rows = some_rows(9)
    written(tmp_path / "records", rows).add_column("norm", np.arange(9.0))
    as_version_1(tmp_path / "records")
    records = Records(tmp_path / "records")
    assert records.images(range(9)) == [row.image for row in rows]
    assert records.ids.tolist() == [row.id for row in rows] and records.column("norm").tolist() == list(range(9))
    assert records.source_checksums is None


def test_a_flipped_bit_in_an_image_is_found(tmp_path: Path) -> None:
    rows = [Row(f"{n}.jpg", jpeg(n, 40, 40), "a") for n in range(3)]
    written(tmp_path / "records", rows)
    part = tmp_path / "records" / parts.part_name(0)
    data = bytearray(part.read_bytes())
    place = data.index(rows[1].image) + len(rows[1].image) // 2
    data[place] ^= 4
    part.write_bytes(data)
    damaged = bytes(data[data.index(rows[1].image[:20]) :][: len(rows[1].image)])
    records = Records(tmp_path / "records")
    assert records.images([0, 2]) == [rows[0].image, rows[2].image]
    with pytest.raises(InputError, match=r"rows-00000.parquet must be as it was written.*the image of row 1; copy"):
        records.images([0, 1])
    as_version_1(tmp_path / "records")  # had none: no decoder says a word
    assert decode.decode(damaged).shape == (40, 40, 3)


def test_flipped_bits_anywhere_are_a_sentence_or_change_nothing(tmp_path: Path) -> None:
    rows = some_rows(12)
    written(tmp_path / "records", rows, batch_rows=12).add_column("split", np.array(["train", "test"] * 6))
    whole = everything(Records(tmp_path / "records"))
    generator = np.random.default_rng(0)
    named = 0
    for name in (parts.part_name(0), "column-split.parquet"):
        path = tmp_path / "records" / name
        data = path.read_bytes()
        for _ in range(150):
            flipped = bytearray(data)
            flipped[generator.integers(len(data))] ^= 1 << generator.integers(8)
            path.write_bytes(flipped)
            try:
                assert everything(Records(tmp_path / "records")) == whole
            except InputError as error:
                named += 1
                assert re.search(rf"{name}|must hold 12 rows|column 'split' of", str(error)), error
        path.write_bytes(data)
    assert named > 200


def everything(records: Records) -> list[object]:
    rows = records.rows(range(len(records)))
    known = [(row.id, row.image, row.identity, str(row.landmarks), row.score) for row in rows]
    return [*known, records.sizes.tolist(), str(records.source_checksums), records.column("split").tolist()]


def test_a_checksum_tells_what_has_changed() -> None:
    base = ("1.png", png(), "ann", POINTS, 0.5)
    others = [("1.png", png(1), *base[2:]), (*base[:2], "bob", *base[3:]), (*base[:3], POINTS + 1, 0.5)]
    others += [(*base[:3], None, 0.5), (*base[:4], 0.25), (*base[:4], None), (*base[:2], "", *base[3:])]
    found = {Row(*each).checksum() for each in [base, *others]}
    assert len(found) == 8
    assert Row("another name", *base[1:]).checksum() == Row(*base).checksum()


def test_real_faces(tmp_path: Path, data_folder: Path) -> None:
    with zipfile.ZipFile(data_folder / "celebrity-faces" / "aligned_112.zip") as archive:
        names = [info.filename for info in archive.infolist() if not info.is_dir()][:1500]
        images = [archive.read(name) for name in names]
    rows = (Row(name, image, name.split("/")[0]) for name, image in zip(names, images, strict=True))
    assert write_records(tmp_path / "faces", rows) == 1500
    records = Records(tmp_path / "faces")
    order = np.random.default_rng(0).permutation(1500)
    assert records.images(order) == [images[n] for n in order]
    assert decode.decode(records.images([7])[0]).shape == (112, 112, 3)
    assert set(map(tuple, records.sizes.tolist())) == {(112, 112)}
