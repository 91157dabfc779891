"""The gallery of faiss against a dictionary, its codes, and what kills and readers leave in its files."""

from __future__ import annotations

import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from angulus import InputError
from angulus.cli.main import app
from angulus.core.embeddings import Embeddings
from angulus.search import Gallery, export, faiss, open_gallery
from angulus.search.vector_store import SQLITE

library = pytest.importorskip("faiss")

D = 32
MODEL = "0123456789abcdef-none"


def made(names: list[str], seed: int = 0, size: int = D) -> Embeddings:
    vectors = np.random.default_rng(seed).standard_normal((len(names), size)).astype(np.float32)
    labels = np.array([name.split("/")[0] for name in names])
    return Embeddings(vectors, np.array(names), labels=labels, models=np.full(len(names), MODEL))


def photos(count: int) -> list[str]:
    return [f"p{number // 2}/{number}.jpg" for number in range(count)]


def contents(gallery: Gallery) -> dict[str, bytes]:
    return {
        name: vector.tobytes()
        for part in gallery.store.rows()
        for name, vector in zip(part.ids, part.vectors, strict=True)
    }


def traces(folder: Path, vectors: list[bytes]) -> int:
    texts = [path.read_bytes() for path in folder.iterdir()]
    return sum(vector in text for vector in vectors for text in texts)


def check_codes(gallery: Gallery) -> None:
    """Rows are numbered 1 to N, and each code is that of the row's vector."""
    with closing(sqlite3.connect(gallery.store.folder / SQLITE)) as database:
        for table in ("rows", "vectors"):
            numbers = [number for (number,) in database.execute(f"SELECT number FROM {table} ORDER BY number")]
            assert numbers == list(range(1, len(gallery) + 1))
        stored = b"".join(block for (block,) in database.execute("SELECT codes FROM codes ORDER BY block"))
        (trained,) = database.execute("SELECT trained FROM state").fetchone()
    vectors = np.concatenate([part.vectors for part in gallery.store.rows()])
    expected = library.deserialize_index(np.frombuffer(trained, np.uint8)).sa_encode(vectors)
    assert stored == expected.tobytes()


@pytest.mark.parametrize("kind", faiss.KINDS)
def test_any_life_leaves_rows_codes_and_files_as_they_should_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(faiss, "_BLOCK", 100)  # so that rows lie in several
    gallery, rng = open_gallery(tmp_path / "g.faiss"), np.random.default_rng(1)
    names, gone = photos(450), list[bytes]()
    gallery.add(made(names, seed=99))
    expected = contents(gallery)
    for step in range(20):
        chosen = [names[row] for row in rng.permutation(450)[: rng.integers(1, 150)]]
        if step % 3 == 2:
            there = [name for name in chosen if name in expected]
            assert gallery.remove(there) == len(there)
            gone += [expected.pop(name) for name in there]
        else:
            added = made(chosen, seed=step)
            gone += [expected[name] for name in chosen if name in expected]
            gallery.add(added, batch=120)
            expected |= {n: v.tobytes() for n, v in zip(chosen, added.unit(dtype=np.float32), strict=True)}
        if step == 4:
            gallery.index(kind)
        if step > 4:
            check_codes(gallery)
            assert gallery.store.files().not_indexed == 0
            rows = np.stack([np.frombuffer(vector, np.float32) for vector in expected.values()])
            asked = Embeddings(rows, np.array(list(expected)), models=np.full(len(rows), MODEL))
            answers = gallery.query(asked, top=1, effort=4)
            assert [answer.matches[0].id for answer in answers] == list(expected)
        assert contents(gallery) == expected
        if step % 3 == 2:
            assert traces(tmp_path / "g.faiss", gone) == 0
    assert len(gone) > 800


def uneven(count: int, size: int, seed: int) -> np.ndarray:
    """Vectors whose first numbers hold nearly all, as those of principal components do."""
    return np.random.default_rng(seed).standard_normal((count, size)) / np.arange(1, size + 1)


@pytest.mark.parametrize("size", [64, 48])
def test_signs_of_uneven_vectors_find_the_neighbours(tmp_path: Path, size: int) -> None:
    people, queries = uneven(2000, size, 0), uneven(40, size, 1)
    gallery = open_gallery(tmp_path / "g.faiss")
    gallery.add(Embeddings(people, np.arange(2000).astype(str), models=np.full(2000, MODEL)), dtype="float16")
    gallery.index("binary")
    asked = Embeddings(queries, np.array([f"q{n}" for n in range(40)]), models=np.full(40, MODEL))
    cosines = queries @ people.T / np.linalg.norm(people, axis=1)
    nearest = np.argsort(-cosines, axis=1)[:, :5]
    answers = gallery.query(asked, top=5, effort=16)  # 16 times 5 and 10 more: 240 of 2,000
    found = [[int(match.id) for match in answer.matches] for answer in answers]
    assert (
        np.mean([len(set(mine) & set(truth)) / 5 for mine, truth in zip(found, nearest.tolist(), strict=True)]) > 0.95
    )
    scores = [match.score for match in answers[0].matches]
    unit = np.linalg.norm(queries[0])
    assert scores == pytest.approx([cosines[0, row] / unit for row in found[0]], abs=1e-3)
    raw = np.argsort(((queries[:, None] > 0) != (people > 0)).sum(axis=2), axis=1, kind="stable")[:, :240]
    assert (
        np.mean([len(set(mine) & set(truth)) / 5 for mine, truth in zip(raw.tolist(), nearest.tolist(), strict=True)])
        < 0.8
    )


@pytest.mark.parametrize(("kind", "held"), [("int8", 256), ("binary", 32)])
def test_codes_take_a_quarter_or_a_thirty_second_of_float32(tmp_path: Path, kind: str, held: int) -> None:
    gallery = open_gallery(tmp_path / "g.faiss")
    gallery.add(made(photos(4000), size=256))
    gallery.index(kind)
    gallery.add(made(["late/0.jpg"], seed=3, size=256))
    files = gallery.store.files()
    assert files.index == kind and files.not_indexed == 0
    assert files.bytes == (tmp_path / "g.faiss" / SQLITE).stat().st_size
    assert held * 4001 < files.index_bytes < (held + 2) * 4001  # what the codes need to be read is some KiB
    gallery.query(made(["q/0"], size=256), effort=4)
    coder = library.downcast_index(gallery.store._loaded[1].index)
    assert coder.codes.size() == held * 4001


def test_an_open_gallery_sees_what_another_process_writes(tmp_path: Path) -> None:
    reader, writer = open_gallery(tmp_path / "g.faiss"), open_gallery(tmp_path / "g.faiss")
    people, late = made(photos(300)), made(["late/0.jpg"], seed=5)
    writer.add(people)
    writer.index("binary")
    assert reader.query(late, top=1, effort=4)[0].matches[0].id != "late/0.jpg"
    loaded = reader.store._loaded
    assert reader.query(late, top=1, effort=4) and reader.store._loaded is loaded  # codes are read once
    writer.add(late)
    assert reader.query(late, top=1, effort=4)[0].matches[0].id == "late/0.jpg"
    writer.remove([*people.ids.tolist()[:200], "late/0.jpg"])
    assert reader.query(late, top=300, effort=4)[0].matches[0].id != "late/0.jpg"
    answers = reader.query(made(photos(300)), top=1, effort=4)
    assert [answer.matches[0].id for answer in answers][200:] == people.ids.tolist()[200:]


REMOVE = """
import os, signal, sys
from contextlib import closing
from angulus.search import faiss, open_gallery

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

class Killed(closing):
    def __exit__(self, *_):
        if self.thing.total_changes:
            die()
        super().__exit__(*_)

if sys.argv[3] == "before the commit":
    faiss.FaissStore._encode = die
else:
    faiss.closing = Killed
open_gallery(sys.argv[1]).remove([sys.argv[2]])
"""


@pytest.mark.parametrize("kill", ["before the commit", "after the commit"])
def test_a_killed_removal_is_whole_or_has_not_begun(tmp_path: Path, kill: str) -> None:
    where, people = tmp_path / "g.faiss", made(photos(400))
    open_gallery(where).add(people)
    open_gallery(where).index("int8")
    name, vector = str(people.ids[7]), people.unit([7], dtype=np.float32).tobytes()
    killed = subprocess.run([sys.executable, "-c", REMOVE, str(where), name, kill], timeout=300)
    assert killed.returncode == -signal.SIGKILL
    assert traces(where, [vector])
    gallery = open_gallery(where)
    if kill == "before the commit":
        assert len(gallery) == 400
    else:
        with pytest.warns(UserWarning, match="erased what a removal of another command had left in its files"):
            assert len(gallery) == 399
    check_codes(gallery)
    if kill == "before the commit":
        gallery.remove([name])
    assert traces(where, [vector, name.encode()]) == 0
    with pytest.raises(InputError, match=r"1 of the 1 ids are not in .*; nothing is removed"):
        gallery.remove([name])


def test_who_reads_during_a_removal_sees_the_gallery_of_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faiss, "_ROWS", 10)
    monkeypatch.setattr(faiss, "_ERASE_WAIT_S", 0.1)
    gallery, people = open_gallery(tmp_path / "g.faiss"), made(photos(40))
    gallery.add(people)
    parts = gallery.store.rows()
    read = list(next(parts).ids)
    with pytest.warns(UserWarning, match=r"still reads .*g\.faiss as it was before a removal; no query finds the rows"):
        gallery.remove(people.ids.tolist()[::2])
    assert len(gallery) == 20 and len(gallery.query(people, top=40)[0].matches) == 20
    with pytest.warns(UserWarning) as said:
        assert len(open_gallery(tmp_path / "g.faiss")) == 20
    assert ["still reads" in str(one.message) for one in said] == [True]  # and nothing of an erasure
    assert read + [name for part in parts for name in part.ids] == people.ids.tolist()
    with pytest.warns(UserWarning, match="erased what a removal of another command had left"):
        assert len(open_gallery(tmp_path / "g.faiss")) == 20
    assert traces(tmp_path / "g.faiss", [vector.tobytes() for vector in people.unit(dtype=np.float32)[::2]]) == 0


@pytest.mark.parametrize("effort", [None, 4])
def test_an_open_gallery_that_is_made_again_forgets_its_codes(tmp_path: Path, effort: int | None) -> None:
    where = tmp_path / "g.faiss"
    reader, people = open_gallery(where), made(photos(300))
    for seed in range(3):  # the same steps, with other vectors
        shutil.rmtree(where, ignore_errors=True)
        writer, people = open_gallery(where), made(photos(300), seed=seed)
        writer.add(people)
        writer.index("binary")
        answers = reader.query(people, top=1, effort=effort)
        assert [answer.matches[0].id for answer in answers] == people.ids.tolist()
    writer.remove(people.ids.tolist())  # between the count of a query and its search
    near = reader.store.nearest(people.unit(dtype=np.float32), 5, effort=effort)
    assert [part.vectors.shape for part in near] == [(0, D)] * 300


def test_a_full_disk_stops_neither_a_removal_nor_queries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(sqlite3.Connection):
        def execute(self, statement: str, *values: object) -> sqlite3.Cursor:
            if statement == "VACUUM":
                raise sqlite3.OperationalError("database or disk is full")
            return super().execute(statement, *values)

    def marked() -> int:
        with closing(sqlite3.connect(tmp_path / "g.faiss" / SQLITE)) as database:
            return database.execute("SELECT traces FROM state").fetchone()[0]

    gallery, people = open_gallery(tmp_path / "g.faiss"), made(photos(40))
    gallery.add(people)
    full = r"still hold removed rows: .*disk is full; .*not full, and writable.*; no query finds the rows"
    with monkeypatch.context() as patched:
        patched.setattr(faiss.sqlite3, "connect", partial(sqlite3.connect, factory=Full))
        with pytest.warns(UserWarning, match=full):
            gallery.remove(people.ids.tolist()[:1])
        with pytest.warns(UserWarning, match=full):
            assert len(open_gallery(tmp_path / "g.faiss")) == 39
    assert marked()
    with pytest.warns(UserWarning, match="erased what a removal of another command had left"):
        assert len(open_gallery(tmp_path / "g.faiss")) == 39
    assert not marked()


def test_a_folder_is_opened_by_what_it_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("lancedb")
    people = made(photos(4))
    for name, other in (("a.FAISS", "a"), ("b", "b.faiss")):
        open_gallery(tmp_path / name).add(people)
        (tmp_path / name).rename(tmp_path / other)
        assert len(open_gallery(tmp_path / other)) == 4
    assert (tmp_path / "a" / SQLITE).exists() and not (tmp_path / "b.faiss" / SQLITE).exists()
    monkeypatch.chdir(tmp_path / "a")
    assert len(open_gallery(".")) == 4
    (tmp_path / "c.faiss").mkdir()
    (tmp_path / "c.faiss" / "mine.txt").write_text("dear")
    with pytest.raises(InputError, match=r"c\.faiss is not a gallery, and not empty"):
        open_gallery(tmp_path / "c.faiss").add(people)
    (tmp_path / "d.faiss").write_bytes(b"an index that faiss wrote")
    with pytest.raises(InputError, match=r"d\.faiss is a file, and a gallery is a folder; give another folder"):
        open_gallery(tmp_path / "d.faiss").add(people)
    (tmp_path / "e.faiss").mkdir()
    with closing(sqlite3.connect(tmp_path / "e.faiss" / SQLITE)) as database:
        database.execute("CREATE TABLE own (thing)")
    with pytest.raises(InputError, match=r"e\.faiss is not a gallery that angulus search made \(other tables\)"):
        open_gallery(tmp_path / "e.faiss").add(people)


def test_what_is_lost_or_damaged_is_a_sentence(tmp_path: Path) -> None:
    where, people = tmp_path / "g.faiss", made(photos(300))
    gallery = open_gallery(where)
    gallery.add(people)
    with pytest.raises(InputError, match=r"has no index for approximate queries; build one"):
        gallery.query(people, effort=4)
    gallery.index("binary")

    def change(statement: str) -> None:
        with closing(sqlite3.connect(where / SQLITE)) as database, database:
            database.execute(statement)
        gallery.store._loaded = None

    change("UPDATE codes SET codes = substr(codes, 1, 8)")
    with pytest.raises(InputError, match=r"codes of .*g\.faiss are not those of its rows; build them again"):
        gallery.query(people, effort=4)
    gallery.index("binary")
    change("UPDATE state SET trained = x'0102'")
    with pytest.raises(InputError, match=r"the gallery .*g\.faiss cannot be read or written"):
        gallery.query(people, effort=4)
    gallery.index("binary")
    change("DELETE FROM vectors WHERE number > 1")
    for effort in (None, 4):
        with pytest.raises(InputError, match=r"vectors of \d+ rows not found; restore its files from a copy"):
            gallery.query(people, effort=effort)
    data = (where / SQLITE).read_bytes()
    (where / SQLITE).write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=r"g\.faiss cannot be read or written: .*malformed; restore its files"):
        gallery.query(people)
    (where / SQLITE).write_bytes(b"no database at all" * 100)
    with pytest.raises(InputError, match=r"file is not a database; restore its files"):
        gallery.query(people)
    (where / SQLITE).write_bytes(b"")  # as of a process that died while making it
    with pytest.raises(InputError, match="there is no gallery in"):
        gallery.query(people)
    assert gallery.add(people) == 300 == len(gallery)


def test_the_commands_and_copies_between_stores(tmp_path: Path) -> None:
    pytest.importorskip("lancedb")
    people, where = made(photos(300)), tmp_path / "g.faiss"
    people.write(tmp_path / "e.npz")

    def run(*arguments: object) -> str:
        found = CliRunner().invoke(app, ["search", *map(str, arguments)])
        return found.output if found.exception is None else str(found.exception)

    assert "300 in all" in run("add", where, tmp_path / "e.npz", "--dtype", "float16")
    assert "the kind of index must be one of 'int8', 'binary'; got 'ivf-pq'" in run("index", where)
    assert "binary over 300 rows" in run("index", where, "--kind", "binary")
    said = run("query", where, tmp_path / "e.npz", "--approximate", "--top", 1)
    assert "approximate: 100.0 % of the true 1 nearest" in said
    assert "stored as float16" in run("info", where) and "index binary, " in run("info", where)
    assert "300 rows" in run("export", where, tmp_path / "lance")
    assert "300 rows" in run("export", tmp_path / "lance", tmp_path / "back.faiss")
    back, first = open_gallery(tmp_path / "back.faiss"), open_gallery(where)
    assert contents(back) == contents(first) and back.about() == first.about()
    assert contents(open_gallery(tmp_path / "lance")) == contents(first)
    assert export(first, tmp_path / "copy.npz") == 300
