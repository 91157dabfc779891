"""Galleries that several processes write at once, and removals that are killed in the middle."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from angulus import InputError
from angulus.core import files
from angulus.core.embeddings import Embeddings
from angulus.search import Gallery, open_gallery
from angulus.search.faiss import FaissStore
from angulus.search.lance import LanceStore, Removals
from angulus.search.qdrant import QdrantStore
from angulus.search.vector_store import SUFFIX, keys

lancedb = pytest.importorskip("lancedb")
pytest.importorskip("lance")

D = 16
TRIALS = 12
ADD = """
import sys, time
from pathlib import Path
from angulus.core.embeddings import Embeddings
from angulus.search import open_gallery
folder, own, trials = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
people = Embeddings.read(folder / f"{own}.npz")
open_gallery(folder / f"warm{own}").add(people)
for trial in range(trials):
    (folder / f"ready.{trial}.{own}").touch()
    latest = time.monotonic() + 60
    while len(list(folder.glob(f"ready.{trial}.*"))) < 3:
        time.sleep(0.001)
        assert time.monotonic() < latest, "another process has failed"
    open_gallery(folder / f"{trial}.{sys.argv[4]}").add(people, batch=15)
"""
REMOVE = """
import os, signal, sys
import lance
from lance.dataset import DatasetOptimizer
from angulus.search import open_gallery
from angulus.search.lance import LanceStore
from angulus.search.lance import Removals

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

where = sys.argv[3]
if where == "before the delete":
    LanceStore._erase = die
elif where == "before the compaction":
    DatasetOptimizer.compact_files = die
elif where == "before the cleanup":
    lance.LanceDataset.cleanup_old_versions = die
else:
    Removals.end = die
open_gallery(sys.argv[1]).remove([sys.argv[2]])
"""
KILLS = ("before the delete", "before the compaction", "before the cleanup", "before it is struck out")


def made(count: int, seed: int = 0) -> Embeddings:
    vectors = np.random.default_rng(seed).standard_normal((count, D)).astype(np.float32)
    ids = np.array([f"person-{n}/photo-of-{n}.jpg" for n in range(count)])
    return Embeddings(vectors, ids, models=np.full(count, "0123456789abcdef-none"))


def stored(folder: Path) -> list[tuple[str, bytes]]:
    """Key and vector of each row, past Angulus."""
    rows = lancedb.connect(str(folder)).open_table("gallery").search().limit(10**6).to_arrow().to_pylist()
    return [(row["key"], np.array(row["vector"], np.float32).tobytes()) for row in rows]


def holders(folder: Path, needle: bytes) -> list[str]:
    return [each.name for each in folder.rglob("*") if each.is_file() and needle in each.read_bytes()]


def test_processes_that_add_at_once_lose_nothing_and_double_nothing(place: Path, tmp_path: Path) -> None:
    for number in range(3):  # the same ids, other vectors
        made(60 + number, seed=number).write(tmp_path / f"{number}.npz")
    command = [sys.executable, "-W", "error::RuntimeWarning", "-c", ADD, str(tmp_path)]
    running = [subprocess.Popen([*command, str(number), str(TRIALS), place.name]) for number in range(3)]
    assert [each.wait(timeout=300) for each in running] == [0, 0, 0]
    expected = [made(60 + number, seed=number).unit(dtype=np.float32) for number in range(3)]
    for trial in range(TRIALS):
        parts = list(open_gallery(tmp_path / f"{trial}.{place.name}").store.rows())
        rows = [(name, row.tobytes()) for part in parts for name, row in zip(part.ids, part.vectors, strict=True)]
        assert sorted(name for name, _ in rows) == sorted(made(62).ids.tolist())
        of_first = dict(rows)[str(made(1).ids[0])]
        (last,) = [number for number in range(3) if of_first == expected[number][0].tobytes()]
        one = {vector for _, vector in rows} >= {vector.tobytes() for vector in expected[last]}
        assert one, "the last command's vectors are not whole"


def test_a_second_writer_waits_and_says_so(place: Path) -> None:
    store = (FaissStore if place.suffix == SUFFIX else LanceStore)(place, wait_s=0.2)
    Gallery(store).add(made(5))
    with (
        files.lock(place),
        pytest.warns(UserWarning, match=rf"waiting for another process that writes .*{place.name}, at most 0.2 s"),
        pytest.raises(
            InputError, match=rf"the gallery .*{place.name} is in use by another process; wait for it to end, or"
        ),
    ):
        Gallery(store).add(made(9))
    assert len(open_gallery(place)) == 5
    held = threading.Event()

    def hold() -> None:
        with files.lock(place):
            held.set()
            threading.Event().wait(0.3)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    with pytest.warns(UserWarning, match="waiting"):
        assert open_gallery(place).add(made(9)) == 9
    holder.join()


def test_reading_needs_no_lock_and_leaves_no_file(place: Path) -> None:
    open_gallery(place).add(made(20))
    (place / ".lock").unlink()
    before = sorted(place.rglob("*"))
    gallery = open_gallery(place)
    assert len(gallery) == 20 and gallery.query(made(2))[1].matches[0].id == made(2).ids[1]
    assert sorted(place.rglob("*")) == before


def test_queries_go_on_while_another_process_removes(tmp_path: Path) -> None:
    writer, reader = open_gallery(tmp_path / "g"), open_gallery(tmp_path / "g")
    writer.add(made(20))
    gone = made(20).ids[3]
    with writer.store.writing():
        writer.store._removals.begin(keys([gone]))  # and it is busy with the files
        assert len(reader.query(made(2), top=1)) == 2 and len(stored(tmp_path / "g")) == 20
    with pytest.warns(UserWarning, match="finished the removal of 1 rows"):
        reader.query(made(2), top=1)  # the writer is dead
    assert len(reader) == 19 and not writer.store._removals.path.exists()


def test_a_gallery_with_more_rows_than_ids_is_healed_on_opening(tmp_path: Path) -> None:
    where = tmp_path / "g"
    open_gallery(where).add(made(30))
    newer = made(12, seed=1)
    table = lancedb.connect(str(where)).open_table("gallery")
    rows = [
        {"key": key, "id": str(name), "identity": None, "vector": vector.tolist()}
        for key, name, vector in zip(keys(newer.ids.tolist()), newer.ids, newer.unit(dtype=np.float32), strict=True)
    ]
    table.add(rows)
    assert len(stored(where)) == 42
    with pytest.warns(UserWarning, match=r"held 12 rows more than ids, .*; of each id the row that was added last"):
        answers = open_gallery(where).query(newer, top=3)
    assert [each.matches[0].score for each in answers] == pytest.approx(np.ones(12))
    assert all(len({match.id for match in each.matches}) == 3 for each in answers)
    kept = stored(where)
    assert len(kept) == 30 == len(open_gallery(where))
    older = made(30).unit(dtype=np.float32)
    expected = [*newer.unit(dtype=np.float32), *older[12:]]
    assert dict(kept) == dict(zip(keys(made(30).ids.tolist()), [each.tobytes() for each in expected], strict=True))


@pytest.mark.parametrize("kill", KILLS)
def test_a_killed_removal_is_finished_by_the_next_opening(tmp_path: Path, kill: str) -> None:
    where, people = tmp_path / "g", made(400)
    gallery = open_gallery(where)
    gallery.add(people, batch=150)
    gallery.store.index("hnsw")
    name, vector = str(people.ids[7]), people.unit([7], dtype=np.float32).tobytes()
    assert holders(where, vector) and holders(where, name.encode())
    killed = subprocess.run([sys.executable, "-c", REMOVE, str(where), name, kill], timeout=120)
    assert killed.returncode == -signal.SIGKILL
    assert json.loads((where / "removals.json").read_text()) == {"keys": keys([name])}
    if kill in KILLS[:3]:
        assert holders(where, vector)
    again = open_gallery(where)
    with pytest.warns(UserWarning, match="finished the removal of 1 rows that another command had begun"):
        assert len(again) == 399
    for trace in (vector, name.encode(), keys([name])[0].encode()):
        assert not holders(where, trace)
    indexed = lancedb.connect(str(where)).open_table("gallery").index_stats("vector_idx")
    assert (indexed.num_indexed_rows, indexed.num_unindexed_rows) == (399, 0)
    assert again.store.present(people.ids.tolist()) == set(people.ids.tolist()) - {name}
    assert again.remove([name]) == 1  # the same command as before the crash is no error
    with pytest.raises(InputError, match="are not in"):
        open_gallery(where).remove([name])
    answers = again.query(people, top=1, effort=64)
    assert [each.matches[0].id == own for each, own in zip(answers, people.ids, strict=True)].count(False) == 1


def test_removing_again_what_a_killed_removal_began_succeeds(tmp_path: Path) -> None:
    where, people = tmp_path / "g", made(1)
    open_gallery(where).add(people)
    name = str(people.ids[0])
    Removals(where).begin(keys([name]))
    with pytest.warns(UserWarning, match="finished"):
        assert open_gallery(where).remove([name]) == 1
    assert stored(where) == [] and not holders(where, people.unit(dtype=np.float32).tobytes())
    with pytest.raises(InputError, match="is empty; fill it"):
        open_gallery(where).query(people)


def test_what_a_killed_addition_left_is_removed_with_its_id(tmp_path: Path) -> None:
    where, people = tmp_path / "g", made(40)
    open_gallery(where).add(people)
    vector = people.unit([3], dtype=np.float32).tobytes()
    (data,) = [each for each in where.rglob("data/*") if vector in each.read_bytes()]
    data.with_name("0123456789abcdef.lance").write_bytes(data.read_bytes())  # written, and never committed
    open_gallery(where).remove([str(people.ids[3])])
    assert not holders(where, vector)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"keys": 3}', '{"keys": ["\') OR true --"]}', "[" * 5000 + "]" * 5000, "\xff"]
)
def test_a_journal_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    open_gallery(tmp_path / "g").add(made(20))
    (tmp_path / "g" / "removals.json").write_text(text, encoding="latin-1")
    with pytest.raises(
        InputError, match=r"removals\.json must list .*; delete it, and run angulus search remove again"
    ):
        open_gallery(tmp_path / "g").query(made(2))
    assert len(stored(tmp_path / "g")) == 20


def test_what_damaged_files_raise_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class RustPanic(Exception):
        pass

    gallery = open_gallery(tmp_path / "g")
    gallery.add(made(20))

    def fail_with(error: Exception) -> None:
        def fail() -> None:
            raise error

        monkeypatch.setattr(gallery.store._open(), "checkout_latest", fail)

    for error in (RustPanic("rust future panicked"), OSError("disk"), RuntimeError("lance error")):
        fail_with(error)
        with pytest.raises(InputError, match=rf"the gallery .*g cannot be read or written: {error}"):
            gallery.query(made(2))
    fail_with(AttributeError("a fault of ours"))
    with pytest.raises(AttributeError, match="a fault of ours"):
        gallery.query(made(2))


def test_a_gallery_whose_making_was_killed_is_made_again(tmp_path: Path) -> None:
    (tmp_path / "g" / "gallery.lance" / "_versions").mkdir(parents=True)
    (tmp_path / "g" / ".lock").touch()
    with pytest.raises(InputError, match="there is no gallery in"):
        open_gallery(tmp_path / "g").query(made(2))
    assert open_gallery(tmp_path / "g").add(made(20)) == 20 == len(open_gallery(tmp_path / "g"))


def test_two_commands_that_begin_one_collection(monkeypatch: pytest.MonkeyPatch) -> None:
    client = pytest.importorskip("qdrant_client").QdrantClient(":memory:")
    first, second = QdrantStore(client, "faces"), QdrantStore(client, "faces")
    Gallery(first).add(made(10))
    looked = iter([None, None])  # it saw nothing before the first made it
    about = second.about
    monkeypatch.setattr(second, "about", lambda: next(looked, about()))
    assert Gallery(second).add(made(12, seed=1)) == 12 == len(Gallery(first))
    other = Embeddings(np.ones((1, D)), np.array(["x"]))
    looked = iter([None, None])
    with pytest.raises(InputError, match="already exists"):
        Gallery(second).add(other)
