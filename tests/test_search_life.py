"""The whole life of a gallery, while others read it, and through kills."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from angulus import InputError
from angulus.cli.main import app
from angulus.core.embeddings import Embeddings
from angulus.search import About, Gallery, export, info, lance, life, open_gallery, transfer
from angulus.search.vector_store import Neighbours, keys

lancedb = pytest.importorskip("lancedb")
pytest.importorskip("lance")

D = 16
MODEL = "0123456789abcdef-none"
DAY = 86_400


def made(people: dict[str, int], seed: int = 0, noise: float = 0.4) -> Embeddings:
    """Photos `NAME/0.jpg` ... of each person, around the person's own direction."""
    rng = np.random.default_rng(seed)
    names = [name for name, count in people.items() for _ in range(count)]
    ids = [f"{name}/{number}.jpg" for name, count in people.items() for number in range(count)]
    own = {name: np.random.default_rng(list(name.encode())).standard_normal(D) for name in people}
    vectors = np.stack([own[name] + noise * rng.standard_normal(D) for name in names]).astype(np.float32)
    return Embeddings(
        vectors, np.array(ids), labels=np.array(names), models=np.full(len(ids), MODEL), source="the photos"
    )


def rows(gallery: Gallery) -> dict[str, tuple[str | None, bytes, int | None]]:
    found = {}
    for part in gallery.store.rows():
        ends = part.expires or [None] * len(part.ids)
        for name, who, vector, end in zip(part.ids, part.identities, part.vectors, ends, strict=True):
            found[name] = (who, vector.tobytes(), end)
    return found


def first(gallery: Gallery, query: Embeddings, by: str = "photo") -> list[str | None]:
    return [answer.matches[0].identity if answer.matches else None for answer in gallery.query(query, top=1, by=by)]


def test_the_whole_life_of_a_gallery(gallery: Gallery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [time.time()]
    monkeypatch.setattr(life, "now", lambda given=None: clock[0] if given is None else given)
    people = made({"ann": 3, "bob": 4, "cleo": 2})
    expires = np.array(["", life_date(clock[0] + 2 * DAY), "", *[""] * 6])
    gallery.add(replace(people, expires=expires))
    assert first(gallery, people) == people.labels.tolist()
    # a guest for five days
    guest = made({"guest": 2})
    gallery.add(guest, expires="5")
    assert first(gallery, guest) == ["guest"] * 2 and len(gallery) == 11
    # a replaced photo is another vector under the same id
    newer = made({"cleo": 2}, seed=9)
    gallery.add(newer)
    assert len(gallery) == 11 and rows(gallery)["cleo/0.jpg"][1] == newer.unit([0], dtype=np.float32).tobytes()
    # a photo that is there under another id and person
    stray = replace(newer, ids=np.array(["dan/0.jpg", "dan/1.jpg"]), labels=np.array(["dan", "cleo"]))
    found = gallery.duplicates(stray)
    assert [(one.id, one.other_id, one.other_identity) for one in found] == [
        ("dan/0.jpg", "cleo/0.jpg", "cleo"),
        ("dan/1.jpg", "cleo/1.jpg", "cleo"),
    ]
    # two photos of the file that are stored too are one pair
    twins = replace(stray, vectors=stray.vectors[[0, 0]])
    gallery.add(twins)
    assert {(one.id, one.other_id) for one in gallery.duplicates(twins)} == {
        ("dan/0.jpg", "cleo/0.jpg"),
        ("dan/1.jpg", "cleo/0.jpg"),
        ("dan/0.jpg", "dan/1.jpg"),
    }
    gallery.remove(["dan/0.jpg", "dan/1.jpg"])
    # two days later one photo is no match any more, before anything is removed
    query = replace(people, vectors=people.vectors[1:2], ids=np.array(["q"]), labels=None, models=people.models[:1])
    assert gallery.query(query, top=1)[0].matches[0].id == "ann/1.jpg"
    clock[0] += 2 * DAY
    assert gallery.query(query, top=1)[0].matches[0].id != "ann/1.jpg" and len(gallery) == 11
    assert gallery.expire() == 1 and gallery.expire() == 0 and len(gallery) == 10
    # a whole person goes, and stays out
    assert gallery.remove_people(["bob"]) == 4 and len(gallery) == 6
    assert "bob" not in first(gallery, made({"bob": 4}))
    late = made({"bob": 1, "eve": 1}, seed=4)
    with pytest.raises(InputError, match=r"1 rows of the photos are of people who were removed .*'bob'.*--readmit"):
        gallery.add(late)
    assert len(gallery) == 6
    assert gallery.remove_people(["bob"]) == 0  # again, as after a kill
    with pytest.raises(InputError, match=r"1 of the 2 people are not in .*'nobody'.*; nothing is removed"):
        gallery.remove_people(["ann", "nobody"])
    # into another store, with all that it knows
    other = open_gallery(tmp_path / "other")
    assert export(gallery, tmp_path / "other") == 6
    assert rows(other) == rows(gallery) and other.about().removed == frozenset(keys(["bob"]))
    with pytest.raises(InputError, match="who were removed"):
        other.add(late)
    # and through a file
    assert export(gallery, tmp_path / "copy.parquet") == 6
    back = open_gallery(tmp_path / "back")
    back.add(Embeddings.read(tmp_path / "copy.parquet"))
    expected = {name: (who, end) for name, (who, _, end) in rows(gallery).items()}
    assert {name: (who, end) for name, (who, _, end) in rows(back).items()} == expected
    # the guest has left; bob is back
    clock[0] += 3 * DAY
    assert first(gallery, guest) != ["guest"] * 2
    assert gallery.add(late, readmit=True) == 2
    assert first(gallery, late) == ["bob", "eve"] and gallery.about().removed == frozenset()
    assert gallery.expire() == 2
    assert sorted(rows(gallery)) == sorted(["ann/0.jpg", "ann/2.jpg", "cleo/0.jpg", "cleo/1.jpg", *late.ids.tolist()])


def life_date(second: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(second))


def test_a_killed_removal_of_a_person_is_never_seen_half_done(
    gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    people = made({"ann": 3, "bob": 4})

    def die(ids: list[str]) -> None:
        raise KeyboardInterrupt

    for finish in (lambda: gallery.remove_people(["bob"]), gallery.expire):
        gallery.add(people, readmit=True)
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(gallery.store, "delete", die)
            gallery.remove_people(["bob"])
        assert len(gallery) == 7 and set(first(gallery, people)) == {"ann"}
        assert finish() == 4 and len(gallery) == 3


def test_what_a_killed_removal_left_does_not_come_back_with_the_person(
    gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery.add(made({"ann": 3, "bob": 4}))

    def die(ids: list[str]) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(gallery.store, "delete", die)
        gallery.remove_people(["bob"])
    again = made({"bob": 1}, seed=5)
    again = replace(again, ids=np.array(["bob/new"]))
    gallery.add(again, readmit=True)
    assert set(rows(gallery)) == {"ann/0.jpg", "ann/1.jpg", "ann/2.jpg", "bob/new"}


def test_templates_are_means_of_all_photos_of_a_person(gallery: Gallery) -> None:
    people = made({f"p{number}": 3 for number in range(8)}, noise=1.0)
    gallery.add(people)
    queries = made({f"p{number}": 1 for number in range(8)}, seed=5, noise=1.0)
    unit = people.vectors.astype(float) / np.linalg.norm(people.vectors.astype(float), axis=1, keepdims=True)
    for query, answer in zip(queries.vectors.astype(float), gallery.query(queries, top=8, by="template"), strict=True):
        scores = {}
        for number in range(8):
            mean = unit[3 * number : 3 * number + 3].mean(axis=0)
            scores[f"p{number}"] = float(query @ mean / np.sqrt(query @ query) / np.sqrt(mean @ mean))
        expected = sorted(scores.items(), key=lambda pair: -pair[1])
        assert [match.identity for match in answer.matches] == [name for name, _ in expected]
        assert [match.score for match in answer.matches] == pytest.approx([score for _, score in expected], abs=1e-6)
    with pytest.raises(InputError, match="exclude_self must be left out for matches by template"):
        gallery.query(queries, by="template", exclude_self=True)


def test_only_the_best_photos_of_a_person_count(gallery: Gallery) -> None:
    people = made({f"p{number}": 4 for number in range(5)}, noise=1.0)
    norms = np.random.default_rng(1).permutation(len(people)) + 1.0
    gallery.add(replace(people, norms=norms))
    queries = made({f"p{number}": 1 for number in range(5)}, seed=5, noise=1.0)
    unit = people.vectors.astype(float) / np.linalg.norm(people.vectors.astype(float), axis=1, keepdims=True)
    for by in ("person", "template"):
        answers = gallery.query(queries, top=5, by=by, best=2)
        for query, answer in zip(queries.vectors.astype(float), answers, strict=True):
            expected = {}
            for number in range(5):
                kept = sorted(range(4 * number, 4 * number + 4), key=lambda row: -norms[row])[:2]
                mean = unit[kept].mean(axis=0)
                cosines = [float(query @ each / np.sqrt(query @ query * (each @ each))) for each in (*unit[kept], mean)]
                nearest = str(people.ids[kept[int(np.argmax(cosines[:2]))]])
                expected[f"p{number}"] = (max(cosines[:2]), nearest) if by == "person" else (cosines[2], None)
            assert {match.identity: match.score for match in answer.matches} == {
                who: pytest.approx(score, abs=1e-6) for who, (score, _) in expected.items()
            }
            if by == "person":
                assert {match.identity: match.id for match in answer.matches} == {
                    who: name for who, (_, name) in expected.items()
                }
    for wrong, fault in [
        ({"best": 2}, "best must be left out for matches by photo"),
        ({"best": 0, "by": "person"}, "best must be a whole number >= 1"),
        ({"best": 1, "by": "person", "exclude_self": True}, "exclude_self must be left out .* where best chooses"),
    ]:
        with pytest.raises(InputError, match=fault):
            gallery.query(queries, **wrong)
    gallery.add(replace(people, vectors=people.unit()))  # of unknown norm
    with pytest.raises(InputError, match=r"has no norm of 'p\d/\d.jpg'; add it again from embeddings with norms"):
        gallery.query(queries, by="template", best=2)
    assert gallery.query(queries, by="template")[0].matches


def test_norms_travel_with_the_rows(gallery: Gallery, tmp_path: Path) -> None:
    def norms(of: Gallery) -> dict[str, float | None]:
        return {name: norm for part in of.store.rows() for name, norm in zip(part.ids, part.norms, strict=True)}

    people = made({"ann": 2, "bob": 1})
    gallery.add(people)
    lengths = dict(zip(people.ids.tolist(), np.linalg.norm(people.vectors.astype(float), axis=1), strict=True))
    assert norms(gallery) == pytest.approx(lengths)
    gallery.add(replace(people, norms=np.array([3.0, 2.0, 1.0])))
    export(gallery, tmp_path / "e.npz")
    export(gallery, tmp_path / "copy")
    back = open_gallery(tmp_path / "back")
    back.add(Embeddings.read(tmp_path / "e.npz"))
    assert norms(gallery) == norms(open_gallery(tmp_path / "copy")) == norms(back)
    assert sorted(norms(back).values()) == [1, 2, 3]
    gallery.add(replace(made({"bob": 1}), vectors=people.unit()[2:]))
    with pytest.warns(UserWarning, match="1 rows of .* have no norm, so the file has none for any of its 3"):
        export(gallery, tmp_path / "part.npz")
    assert Embeddings.read(tmp_path / "part.npz").norms is None


def test_float16_takes_half_and_answers_alike(gallery: Gallery, tmp_path: Path) -> None:
    people = made({f"p{number}": 2 for number in range(10)})
    gallery.add(people, dtype="float16")
    if isinstance(gallery.store, lance.LanceStore):  # a Qdrant client in this process keeps float32
        vectors = np.concatenate([part.vectors for part in gallery.store.rows()])
        assert np.array_equal(vectors, vectors.astype(np.float16))
        assert not np.array_equal(people.unit(), people.unit().astype(np.float16))
    wide = open_gallery(tmp_path / "wide")
    wide.add(people)
    for found, expected in zip(gallery.query(people, top=3), wide.query(people, top=3), strict=True):
        assert [match.id for match in found.matches] == [match.id for match in expected.matches]
        assert [match.score for match in found.matches] == pytest.approx(
            [match.score for match in expected.matches], abs=1e-3
        )
    again = replace(people, ids=np.array([f"again/{row}" for row in range(len(people))]))
    assert [one.other_id for one in gallery.duplicates(again)] == people.ids.tolist()  # copies, though rounded
    with pytest.raises(InputError, match="stores vectors as float16; got dtype float32"):
        gallery.add(people, dtype="float32")
    with pytest.raises(InputError, match="dtype must be one of 'float32', 'float16'"):
        gallery.add(people, dtype="int8")
    gallery.add(made({"new": 1}))  # keeps its own
    export(gallery, tmp_path / "copy")
    assert open_gallery(tmp_path / "copy").about().dtype == gallery.about().dtype == "float16"
    export(gallery, tmp_path / "wider", dtype="float32")
    assert open_gallery(tmp_path / "wider").about().dtype == "float32"


def test_a_gallery_is_counted(gallery: Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
    gallery.add(made({"ann": 3, "bob": 2}))
    gallery.add(replace(made({"x": 2}), labels=None), expires="1")
    unit = made({"cleo": 2})
    gallery.add(replace(unit, vectors=unit.unit()), expires="3")
    gallery.remove_people(["bob"])
    later = time.time() + 2 * DAY
    monkeypatch.setattr(life, "now", lambda given=None: later)
    found = info.describe(gallery)
    counted = (found.rows, found.people, found.nameless, found.ended, found.ending, found.with_norm)
    assert counted == (7, 2, 0, 2, 2, 5)
    said = "\n".join(found.lines("here"))
    assert "here: 7 vectors of 16 numbers, of the model with fingerprint 0123456789abcdef, flip none" in said
    assert "  people: 2\n" in said
    assert (
        "photos are refused: 1\n" in said
        and "with an end: 2; that ended, and wait for angulus search expire: 2" in said
    )


def test_a_copy_writes_nothing_if_any_of_its_people_were_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lance, "_ROWS", 1)  # so that a part without them comes first
    mine, other = open_gallery(tmp_path / "mine"), open_gallery(tmp_path / "other")
    mine.add(made({"ann": 3, "bob": 1}))
    other.add(made({"bob": 1, "zoe": 1}))
    other.remove_people(["bob"])
    before = other.about()
    with pytest.raises(InputError, match=r"1 rows of .*mine are of people who were removed from .*'bob'"):
        export(mine, tmp_path / "other")
    assert set(rows(other)) == {"zoe/0.jpg"} and other.about().removed == before.removed


def test_templates_are_read_again_if_a_removal_deletes_their_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery, people = open_gallery(tmp_path / "g"), made({"ann": 2, "bob": 2})
    gallery.add(people)
    read, tries = gallery.store.rows, []

    def rows_gone(**options: object) -> Iterator[Neighbours]:
        tries.append(1)
        yield from read(**options)  # type: ignore[arg-type]
        if len(tries) < 3:
            raise RuntimeError("file not found")

    monkeypatch.setattr(gallery.store, "rows", rows_gone)
    assert first(gallery, people, by="template") == people.labels.tolist() and len(tries) == 3
    gallery.add(replace(people, vectors=people.unit()))  # of unknown norm, which no second read changes
    tries[:] = [1, 1]
    with pytest.raises(InputError, match="has no norm of"):
        gallery.query(people, by="template", best=1)
    assert len(tries) == 3


def test_the_threshold_for_strangers_is_the_lowest_that_holds_the_rate(gallery: Gallery) -> None:
    gallery.add(made({f"p{number}": 3 for number in range(10)}))
    strangers = made({f"s{number}": 1 for number in range(40)})
    found = gallery.measure_strangers(strangers, 0.1)
    best = np.sort([answer.matches[0].score for answer in gallery.query(strangers, top=1)])
    assert (found.fpir, found.rows, found.strangers) == (0.1, 30, 40)
    assert best[-5] < found.threshold <= best[-4]
    assert found.fpir_high == pytest.approx(0.2148, abs=2e-3)  # Clopper and Pearson: P(X <= 4 | 40, p) = 5 %
    assert sum(bool(each.matches) for each in gallery.query(strangers, threshold=found.threshold)) == 4
    with pytest.raises(InputError, match=r"an FPIR of .* needs 100 strangers at least; got 40"):
        gallery.measure_strangers(strangers, 0.01)
    with pytest.raises(InputError, match=r"1 people of the photos are in .*'p3'"):
        gallery.measure_strangers(made({"p3": 1, **{f"s{number}": 1 for number in range(40)}}), 0.1)


@pytest.mark.parametrize("text", ["", "soon", "2027-13-01", "0", "40000", "-3", "9999999999", "2020-01-01", "2027"])
def test_times_that_are_none_or_over_add_nothing(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match="expires must be"):
        open_gallery(tmp_path / "g").add(made({"ann": 1}), expires=text)
    assert not (tmp_path / "g").exists()


def test_a_gallery_from_before_the_times_is_read_and_grows(tmp_path: Path) -> None:
    people = made({"ann": 2})
    pa = pytest.importorskip("pyarrow")
    fields = [pa.field(name, pa.string()) for name in ("key", "id", "identity")]
    fields.append(pa.field("vector", pa.list_(pa.float32(), D)))
    schema = pa.schema(fields, metadata={b"angulus": About(D, MODEL).text().encode()})
    old = [
        {"key": key, "id": str(name), "identity": "ann", "vector": vector.tolist()}
        for key, name, vector in zip(keys(people.ids.tolist()), people.ids, people.unit(), strict=True)
    ]
    lancedb.connect(str(tmp_path / "g")).create_table("gallery", old, schema=schema)
    gallery = open_gallery(tmp_path / "g")
    assert first(gallery, people) == ["ann", "ann"] and gallery.expire() == 0
    with pytest.raises(InputError, match=r"has no norm of 'ann/0\.jpg'"):
        gallery.query(people, by="person", best=1)
    assert info.describe(gallery).with_norm == 0
    gallery.add(made({"bob": 1}), expires="1")
    assert info.describe(gallery).with_norm == 1
    assert {name: end is None for name, (_, _, end) in rows(gallery).items()} == {
        "ann/0.jpg": True,
        "ann/1.jpg": True,
        "bob/0.jpg": False,
    }


def test_what_cannot_be_exported_is_refused(tmp_path: Path) -> None:
    gallery = open_gallery(tmp_path / "g")
    with pytest.raises(InputError, match="there is no gallery"):
        export(gallery, tmp_path / "out.npz")
    people = made({"ann": 2})
    gallery.add(replace(people, flipped=people.vectors), flip="sum")
    with pytest.raises(InputError, match=r"fused by flip sum, which no file can say; export it to another gallery"):
        export(gallery, tmp_path / "out.npz")
    with pytest.raises(InputError, match="out must be another gallery"):
        export(gallery, tmp_path / "g")
    with pytest.raises(InputError, match=r"a file must end in \.npz, \.safetensors, \.parquet; got .*people\.CSV"):
        export(gallery, tmp_path / "people.CSV")
    assert not (tmp_path / "people.CSV").exists()
    other = open_gallery(tmp_path / "other")
    other.add(made({"ann": 1}))
    with pytest.raises(InputError, match=r"other was filled with flip none"):
        export(gallery, tmp_path / "other")
    other.remove_people(["ann"])
    mine = open_gallery(tmp_path / "mine")
    mine.add(people)
    with pytest.raises(InputError, match=r"2 rows of .*mine are of people who were removed from .*other"):
        export(mine, tmp_path / "other")
    assert other.store.count() == 0 and transfer.export(mine, tmp_path / "out.npz") == 2


def test_the_commands_of_a_life(tmp_path: Path) -> None:
    made({"ann": 2, "bob": 1}).write(tmp_path / "e.npz")
    made({"bob": 1}, seed=3).write(tmp_path / "late.npz")
    twin = made({"ann": 1})
    replace(twin, ids=np.array(["zoe/0.jpg"]), labels=np.array(["zoe"])).write(tmp_path / "twin.npz")
    made({f"s{number}": 1 for number in range(20)}).write(tmp_path / "strangers.npz")
    where = tmp_path / "g"

    def run(*arguments: object) -> str:
        found = CliRunner().invoke(app, ["search", *map(str, arguments)])
        return found.output if found.exception is None else str(found.exception)

    assert "3 in all" in run("add", where, tmp_path / "e.npz", "--duplicates", "refuse")
    said = run("add", where, tmp_path / "twin.npz", "--duplicates", "refuse")
    assert "1 photos are there under another id, 1 of them under another person; nothing is added" in said
    said = run("add", where, tmp_path / "twin.npz", "--duplicates", "report", "--expires", "3")
    assert "zoe/0.jpg (zoe) is the same photo as ann/0.jpg (ann)" in said and "4 in all" in said
    assert "must be one of 'keep', 'report', 'refuse'" in run("add", where, tmp_path / "e.npz", "--duplicates", "x")
    assert "1 removed, 3 left" in run("remove", where, "--person", "bob")
    assert "give ids, or people with --person; got neither" in run("remove", where)
    assert "allow these people again with --readmit" in run("add", where, tmp_path / "late.npz")
    assert "4 in all" in run("add", where, tmp_path / "late.npz", "--readmit")
    assert "0 removed, 4 left" in run("expire", where)
    assert "4 rows" in run("export", where, tmp_path / "copy.npz")
    said = run("threshold", where, tmp_path / "strangers.npz", "--fpir", "0.05", "--json", tmp_path / "t.json")
    assert "5 % of 20 strangers match somebody among 4 rows (FPIR; at most 22 % with 95 % confidence)" in said


def test_an_old_neighbours_tuple_has_no_times() -> None:
    old = Neighbours(["a"], [None], np.ones((1, 2), np.float32))
    assert life.alive(old, frozenset(), 0) is old


def test_a_read_is_repeated_while_files_go_away_and_given_up_at_last(tmp_path: Path) -> None:
    store = open_gallery(tmp_path / "g").store
    Gallery(store).add(made({"ann": 1}))
    tries = []

    def read() -> str:
        tries.append(1)
        if len(tries) < enough:
            raise RuntimeError("file not found")
        return "rows"

    enough = 4
    assert store.repeated(read) == "rows" and len(tries) == 4
    tries.clear()
    enough = 99
    with pytest.raises(RuntimeError, match="file not found"):
        store.repeated(read)
    assert len(tries) == 5


READ = """
import sys, time
from pathlib import Path
from angulus.core.embeddings import Embeddings
from angulus.search import open_gallery
folder = Path(sys.argv[1])
people, gallery, count = Embeddings.read(folder / "stay.npz"), open_gallery(sys.argv[2]), 0
while not (folder / "stop").exists():
    answers = gallery.query(people, top=1)
    assert [a.matches[0].id for a in answers] == people.ids.tolist(), "a person who stays was not found"
    count += 1
    time.sleep(0.02)
    print(count, flush=True)
"""


def test_readers_go_on_while_people_come_and_go(place: Path, tmp_path: Path) -> None:
    stay, guests = (
        made({f"stay{number}": 2 for number in range(20)}),
        made({f"guest{number}": 2 for number in range(10)}),
    )
    stay.write(tmp_path / "stay.npz")
    gallery = open_gallery(place)
    gallery.add(stay)
    command = [sys.executable, "-W", "ignore", "-c", READ, str(tmp_path), str(place)]
    readers = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for reader in readers:
        assert reader.stdout is not None and reader.stdout.readline() == "1\n"
    for step in range(4):
        gallery.add(guests, readmit=True, batch=7)
        gallery.add(stay)  # replaced by the same
        if step % 2:
            gallery.remove(guests.ids.tolist())
        else:
            gallery.remove_people(sorted(set(guests.labels.tolist())))
    (tmp_path / "stop").touch()
    for reader in readers:
        said, wrong = reader.communicate(timeout=60)
        assert reader.returncode == 0, wrong
        assert int(said.split()[-1]) > 3  # it read while the other wrote
    assert len(gallery) == len(stay)


WRITE = """
import sys
from pathlib import Path
from angulus.core.embeddings import Embeddings
from angulus.search import open_gallery
folder = Path(sys.argv[1])
gallery, guests = open_gallery(sys.argv[2]), Embeddings.read(folder / "guests.npz")
while True:
    gallery.add(guests, readmit=True, batch=7)
    print("in", flush=True)
    gallery.remove_people(sorted(set(guests.labels.tolist())))
    print("out", flush=True)
"""


@pytest.mark.filterwarnings("ignore:.*finished the removal", "ignore:.*erased what a removal")
def test_a_killed_writer_leaves_a_whole_gallery(place: Path, tmp_path: Path) -> None:
    stay, guests = (
        made({f"stay{number}": 2 for number in range(20)}),
        made({f"guest{number}": 4 for number in range(10)}),
    )
    guests.write(tmp_path / "guests.npz")
    open_gallery(place).add(stay)
    for kill in range(1):
        command = [sys.executable, "-W", "ignore", "-c", WRITE, str(tmp_path), str(place)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            for _ in range(2):
                last = writer.stdout.readline().strip()
            time.sleep(0.02 + 0.05 * kill)
            writer.send_signal(signal.SIGKILL)
            last = [last, *writer.stdout.read().split()][-1]
        gallery = open_gallery(place)
        assert [answer.matches[0].id for answer in gallery.query(stay, top=1)] == stay.ids.tolist()
        names = set(rows(gallery))
        assert set(stay.ids.tolist()) <= names <= {*stay.ids.tolist(), *guests.ids.tolist()}
        if last == "in" and gallery.about().removed:  # the removal that followed had begun
            assert first(gallery, guests) and not any(str(who).startswith("guest") for who in first(gallery, guests))
        gallery.expire()
    assert len(list(place.glob("removals.json"))) == 0
