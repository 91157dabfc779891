"""Galleries in LanceDB and Qdrant, against brute force; and what is refused."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from angulus import InputError
from angulus.cli.main import app
from angulus.cli.search import explain_error_rates, search_app
from angulus.core.contract import Contract
from angulus.core.embeddings import Embeddings
from angulus.evaluation.protocols.calibration import Calibration, Rate
from angulus.models import artifact, embed
from angulus.models.artifact import Config
from angulus.search import Gallery, faiss, false_positives, open_gallery, threshold_of
from angulus.search.qdrant import QdrantStore
from angulus.search.vector_store import SUFFIX, About, Neighbours, keys

pytest.importorskip("lancedb")
pytest.importorskip("lance")

D = 16
NASTY = (
    "a'; DROP TABLE gallery; --",
    "' OR '1'='1",
    'say "hello"',
    "../../etc/passwd",
    "C:\\x\\y",
    "back\\'slash",
    "line\nbreak\ttab",
    "%_*?",
    "😀 Ünïcode",
    "key IN ('x')",
)


def made(count: int, seed: int = 0, model: str | None = "0123456789abcdef-none", size: int = D) -> Embeddings:
    vectors = np.random.default_rng(seed).standard_normal((count, size)).astype(np.float32)
    models = None if model is None else np.full(count, model)
    labels = np.array([f"person {n // 2}" for n in range(count)])
    return Embeddings(vectors, np.array([f"p{n // 2}/{n}.jpg" for n in range(count)]), labels=labels, models=models)


def near(gallery: Embeddings, count: int, noise: float = 0.3) -> Embeddings:
    """Noisy copies of the first rows."""
    assert gallery.models is not None
    rng = np.random.default_rng(7)
    vectors = gallery.vectors[:count] + noise * rng.standard_normal((count, gallery.vectors.shape[1]))
    return Embeddings(
        vectors, np.array([f"q{n}" for n in range(count)]), models=gallery.models[:count], source="the queries"
    )


def brute(gallery: Embeddings, queries: Embeddings, top: int, threshold: float) -> list[list[tuple[str, float]]]:
    answers = []
    for query in queries.vectors.astype(float):
        scores = []
        for name, vector in zip(gallery.ids.tolist(), gallery.vectors.astype(float), strict=True):
            scores.append((float(query @ vector / np.sqrt(query @ query) / np.sqrt(vector @ vector)), name))
        scores.sort(key=lambda each: (-each[0], each[1]))
        answers.append([(name, score) for score, name in scores[:top] if score >= threshold])
    return answers


@pytest.mark.parametrize("threshold", [-1.0, 0.5, 0.96])
def test_exact_answers_are_those_of_brute_force(gallery: Gallery, threshold: float) -> None:
    people = made(300)
    queries = near(people, 20)
    assert gallery.add(people, batch=130) == 300 == len(gallery)
    answers = gallery.query(queries, top=4, threshold=threshold)
    expected = brute(people, queries, 4, threshold)
    assert [each.id for each in answers] == queries.ids.tolist()
    labels = dict(zip(people.ids.tolist(), people.labels.tolist(), strict=True))
    for answer, truth in zip(answers, expected, strict=True):
        assert [match.id for match in answer.matches] == [name for name, _ in truth]
        assert [match.score for match in answer.matches] == pytest.approx([score for _, score in truth], abs=1e-6)
        assert all(match.identity == labels[match.id] for match in answer.matches)
    if threshold == 0.96:
        assert any(not each.matches for each in answers) and any(each.matches for each in answers)


def test_more_is_asked_for_than_there_is_and_copies_are_in_the_order_of_their_ids(gallery: Gallery) -> None:
    vectors = np.tile(np.array([[3.0, 4.0]], np.float32), (3, 1))
    gallery.add(Embeddings(vectors, np.array(["c", "a", "b"])))
    (answer,) = gallery.query(Embeddings(vectors[:1] * 9, np.array(["q"])), top=10)
    assert [match.id for match in answer.matches] == ["a", "b", "c"]
    assert [match.score for match in answer.matches] == pytest.approx([1, 1, 1], abs=1e-7)
    assert answer.matches[0].identity is None


def test_adding_the_same_ids_replaces_them(gallery: Gallery) -> None:
    gallery.add(made(40))
    other = made(50, seed=1)
    gallery.add(other)
    assert len(gallery) == 50
    (first, *_) = gallery.query(near(other, 5, noise=0), top=1)
    assert first.matches[0].id == other.ids[0] and first.matches[0].score == pytest.approx(1)


def test_ids_of_any_text_are_harmless(gallery: Gallery) -> None:
    count = len(NASTY)
    people = replace(made(count), ids=np.array(NASTY), labels=np.array(NASTY))
    gallery.add(people)
    answers = gallery.query(near(people, count, noise=0), top=1)
    assert [each.matches[0].id for each in answers] == list(NASTY)
    assert [each.matches[0].identity for each in answers] == list(NASTY)
    with pytest.raises(InputError, match=r"1 of the 1 ids are not in"):
        gallery.remove(["' OR 'a'='a"])
    for left, name in enumerate(reversed(NASTY[1:]), 1):
        assert gallery.remove([name]) == 1
        assert len(gallery) == count - left
    (answer,) = gallery.query(near(people, 1, noise=0))
    assert [match.id for match in answer.matches] == [NASTY[0]]
    with pytest.raises(InputError, match="must be text without NUL"):
        gallery.add(replace(made(2), ids=np.array(["a\0b", "c"])))
    with pytest.raises(InputError, match="halves of characters"):
        gallery.add(replace(made(2), labels=np.array(["\udcff", "c"])))


def test_an_unknown_id_removes_nothing(gallery: Gallery) -> None:
    people = made(20)
    gallery.add(people)
    with pytest.raises(InputError, match=r"1 of the 2 ids are not in .*: 'nobody'; nothing is removed"):
        gallery.remove([str(people.ids[0]), "nobody"])
    assert len(gallery) == 20
    assert gallery.remove([str(people.ids[0])] * 2) == 1
    assert len(gallery) == 19


def test_another_model_dimension_or_flip_is_refused(gallery: Gallery) -> None:
    people = made(20)
    with pytest.raises(InputError, match="there is no gallery in"):
        gallery.query(people)
    with pytest.raises(InputError, match="there is no gallery in"):
        gallery.remove(["x"])
    gallery.add(people)
    for ask in (gallery.add, gallery.query):
        with pytest.raises(InputError, match=r"holds vectors of 16 numbers; .* has 8"):
            ask(made(5, size=8))
        own = "holds vectors of the model with fingerprint 0123456789abcdef, flip none; .* has those of"
        with pytest.raises(InputError, match=f"{own} the model 'other-sum'; embed .*angulus info MODEL"):
            ask(made(5, model="other-sum"))
        with pytest.raises(InputError, match=f"{own} the model with fingerprint fedcba9876543210, flip none"):
            ask(made(5, model="fedcba9876543210-none"))
        with pytest.raises(InputError, match="flip sum; embed the images with angulus embed --flip none"):
            ask(made(5, model="0123456789abcdef-sum"))
        with pytest.raises(InputError, match="a model that is not named"):
            ask(made(5, model=None))
        with pytest.raises(InputError, match=r"was filled with flip none .*; got sum; leave --flip out"):
            ask(replace(made(5), flipped=made(5, seed=3).vectors), flip="sum")
    assert len(gallery) == 20
    for bad in ({"top": 0}, {"threshold": 1.5}, {"effort": 0}):
        with pytest.raises(InputError, match=next(iter(bad))):
            gallery.query(people, **bad)
    with pytest.raises(InputError, match="batch must be"):
        gallery.add(people, batch=0)
    gallery.remove(people.ids.tolist())
    with pytest.raises(InputError, match="is empty; fill it"):
        gallery.query(people)


def test_what_cannot_be_fused_leaves_no_gallery(gallery: Gallery) -> None:
    people = made(20)
    with pytest.raises(InputError, match=r"'flipped'; .* has none"):
        gallery.add(people, flip="sum")
    opposite = replace(people, flipped=-people.vectors)
    with pytest.raises(InputError, match="must not be zero"):
        gallery.add(opposite, flip="sum")
    assert gallery.store.about() is None
    assert gallery.add(people) == 20 == len(gallery)


def test_flips_are_fused_as_the_gallery_was(gallery: Gallery) -> None:
    people = replace(made(30), flipped=made(30, seed=3).vectors)
    gallery.add(people, flip="concat")
    assert gallery.about() == About(2 * D, "0123456789abcdef-none", "concat")
    (answer, *_) = gallery.query(people, top=1, flip="concat")
    assert answer.matches[0].id == people.ids[0] and answer.matches[0].score == pytest.approx(1)


@pytest.mark.parametrize("kind", ["ivf-pq", "hnsw", "int8", "binary"])
def test_approximate_answers_and_their_recall(place: Path, kind: str) -> None:
    if place.suffix == SUFFIX and kind not in faiss.KINDS:
        pytest.skip("faiss has no such index here")
    gallery = open_gallery(place)
    people = made(1200)
    queries = near(people, 30)
    gallery.add(people)
    with pytest.raises(InputError, match="has no index for approximate queries"):
        gallery.query(queries, effort=10)
    gallery.index(kind)
    approximate = gallery.query(queries, top=5, effort=64)
    truth = brute(people, queries, 5, -1)
    shares = [
        len({match.id for match in answer.matches} & {name for name, _ in each}) / 5
        for answer, each in zip(approximate, truth, strict=True)
    ]
    for answer, query in zip(approximate, queries.vectors.astype(float), strict=True):  # scores are exact
        for match in answer.matches:
            vector = people.vectors[people.ids.tolist().index(match.id)].astype(float)
            cosine = query @ vector / np.sqrt((query @ query) * (vector @ vector))
            assert match.score == pytest.approx(cosine, abs=1e-6)
    found = gallery.recall(queries, top=5, effort=64)
    assert found.value == pytest.approx(np.mean(shares)) and found.value > 0.9
    assert (found.top, found.queries) == (5, 30)
    assert gallery.recall(queries, top=5, effort=64, queries=7).queries == 7
    late = replace(made(1, seed=9), ids=np.array(["late"]))  # after the index
    gallery.add(late)
    (answer,) = gallery.query(near(late, 1, noise=0), top=1, effort=8)
    assert answer.matches[0].id == "late"
    gallery.remove(["late"])
    (answer,) = gallery.query(near(late, 1, noise=0), top=1, effort=8)
    assert answer.matches[0].id != "late"


@pytest.mark.parametrize(("kind", "bits", "more"), [("int8", 8, 16), ("binary", 1, 24)])
def test_codes_take_a_byte_or_a_bit_of_each_number(tmp_path: Path, kind: str, bits: int, more: int) -> None:
    gallery = open_gallery(tmp_path / "g")
    gallery.add(made(4000, size=256))
    gallery.index(kind)
    per_row = gallery.store.files().index_bytes / 4000
    assert 256 * bits / 8 < per_row < 256 * bits / 8 + more
    gallery.store.put(Neighbours(["late"], [None], np.eye(1, 256, dtype=np.float32)))
    assert gallery.store.files().not_indexed == 1


def test_vectors_that_are_lost_are_a_sentence(tmp_path: Path) -> None:
    gallery = open_gallery(tmp_path / "g")
    gallery.add(made(300))
    gallery.index("binary")
    for file in (tmp_path / "g" / "gallery.lance" / "data").iterdir():
        file.unlink()
    with pytest.raises(InputError, match=r"the gallery .*g cannot be read or written: .*restore .* from a copy"):
        open_gallery(tmp_path / "g").query(near(made(300), 2), effort=8)


def test_a_size_that_does_not_fill_bytes_has_no_binary_index(place: Path) -> None:
    gallery = open_gallery(place)
    gallery.add(made(300, size=20))
    with pytest.raises(InputError, match="divisible by 8; got 20; embed with --dimensions 16, or use --kind int8"):
        gallery.index("binary")
    gallery.index("int8")


def test_what_a_server_is_asked_for_quantised_vectors() -> None:
    """The client within this process has no quantisation, so the requests are compared."""
    models = pytest.importorskip("qdrant_client.models")
    client = pytest.importorskip("qdrant_client").QdrantClient(":memory:")
    asked: list[tuple[object, object]] = []
    gallery = Gallery(QdrantStore(client, "faces"))
    gallery.add(made(20))
    client.update_collection = lambda _, **given: asked.append((given["quantization_config"], given["vectors_config"]))
    for kind in ("int8", "binary", "hnsw"):
        gallery.index(kind)
    (first, disk), (second, _), (third, back) = asked
    assert (first.scalar.type, first.scalar.always_ram) == (models.ScalarType.INT8, True)
    assert second.binary.always_ram is True and third == models.Disabled.DISABLED
    assert (disk[""].on_disk, back[""].on_disk) == (True, False)
    sent: list[object] = []
    answer = client.query_batch_points
    client.query_batch_points = lambda name, requests: sent.extend(requests) or answer(name, requests)
    gallery.query(near(made(20), 1))
    gallery.query(near(made(20), 1), effort=8)
    exact, approximate = (request.params for request in sent)
    assert exact.exact and exact.quantization.ignore
    assert not approximate.exact and approximate.quantization.rescore and not approximate.quantization.ignore
    assert approximate.quantization.oversampling > 1


def test_recall_counts_what_is_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gallery = open_gallery(tmp_path / "g")
    people = made(50)
    gallery.add(people)
    exact = gallery.store.nearest

    def every_other(queries: np.ndarray, top: int, *, effort: int | None) -> list[object]:
        found = exact(queries, 50, effort=None)
        if effort is None:
            return found
        return [replace(f, ids=f.ids[::2], identities=f.identities[::2], vectors=f.vectors[::2]) for f in found]

    monkeypatch.setattr(gallery.store, "nearest", every_other)
    assert gallery.recall(near(people, 10), top=4).value == 0.5


def test_too_few_rows_for_an_index_and_unknown_kinds_are_refused(gallery: Gallery) -> None:
    gallery.add(made(20))
    with pytest.raises(InputError, match="the kind of index must be one of"):
        gallery.store.index("lsh")
    if not isinstance(gallery.store, QdrantStore):
        with pytest.raises(InputError, match=r"from 256 rows at least; .* has 20"):
            gallery.store.index("int8")


def test_removed_vectors_are_gone_from_the_files(place: Path) -> None:
    gallery = open_gallery(place)
    people = made(500)
    gallery.add(people, batch=200)
    vector = people.unit([5], dtype=np.float32).tobytes()

    def holders() -> int:
        return sum(vector in each.read_bytes() for each in place.rglob("*") if each.is_file())

    assert holders() > 0
    gallery.remove([str(people.ids[5])])
    assert holders() == 0
    assert len(gallery) == 499


IMPORT = """
import sys
import numpy as np
from angulus.core.embeddings import Embeddings
from angulus.search import open_gallery
open_gallery(sys.argv[1]).add(Embeddings.read(sys.argv[2]), batch=40, on_rows=lambda n: print(n, flush=True))
"""


def test_a_killed_import_loses_nothing_that_was_acknowledged(place: Path, tmp_path: Path) -> None:
    people = made(8000)
    people.write(tmp_path / "e.npz")
    acknowledged = 0
    command = [sys.executable, "-c", IMPORT, str(place), str(tmp_path / "e.npz")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            acknowledged = int(line)
            if acknowledged == 400:
                time.sleep(0.055)  # into the middle of a later commit, each of which takes some 10 ms
                process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert 400 <= acknowledged < 8000  # lines that it said before the kill arrived were read too
    gallery = open_gallery(place)
    assert len(gallery) >= acknowledged
    kept = people.ids[:acknowledged].tolist()
    assert gallery.store.present(kept) == set(kept)
    answers = gallery.query(near(people, acknowledged, noise=0), top=1)
    assert [each.matches[0].id for each in answers] == kept
    gallery.add(people, batch=8000)
    assert len(gallery) == 8000


def test_places_that_hold_no_gallery_are_refused(tmp_path: Path) -> None:
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "mine.txt").write_text("dear")
    with pytest.raises(InputError, match="is not a gallery, and not empty"):
        open_gallery(tmp_path / "letters").add(made(3))
    lancedb = pytest.importorskip("lancedb")
    lancedb.connect(str(tmp_path / "other")).create_table("gallery", [{"a": 1}])
    with pytest.raises(InputError, match="is not a gallery that angulus search made"):
        open_gallery(tmp_path / "other").add(made(3))
    open_gallery(tmp_path / "g").add(made(30))
    for each in (tmp_path / "g").rglob("*.manifest"):
        each.write_bytes(b"damaged")
    with pytest.raises(InputError, match="cannot be read or written"):
        open_gallery(tmp_path / "g").query(made(3))


def test_many_matches_are_bounded(gallery: Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
    people = made(40)
    gallery.add(people)
    answers = gallery.query(people, top=10**30)
    assert [len(each.matches) for each in answers] == [40] * 40
    monkeypatch.setattr("angulus.search.vector_gallery._BYTES", 4 * D * 50 * 3)  # three queries at a time
    assert gallery.query(people, top=40) == answers
    monkeypatch.setattr("angulus.search.vector_gallery.MOST_MATCHES", 1000)
    assert len(gallery.query(people, top=25)) == 40
    with pytest.raises(InputError, match="top must be a whole number <= 25; got 26; of 40 queries"):
        gallery.query(people, top=26)


def test_an_index_looks_at_no_more_than_there_is(place: Path) -> None:
    gallery = open_gallery(place)
    people = made(300)
    gallery.add(people)
    gallery.index("int8" if place.suffix == SUFFIX else "ivf-pq")
    answers = gallery.query(people, top=3, effort=10**30)
    assert [each.matches[0].id for each in answers] == people.ids.tolist()


def test_people_who_are_not_known_have_no_identity(gallery: Gallery) -> None:
    gallery.add(replace(made(4), labels=np.array(["ann", "", "bob", ""])))
    shown = [each.matches[0].identity for each in gallery.query(made(4), top=1)]
    assert shown == ["ann", None, "bob", None]


@pytest.mark.parametrize(
    "address",
    [
        "ftp://host/x",
        "http:///x",
        "http://host:port/x",
        "http://host:99999/x",
        "http://host:0/x",
        "http://[::1/x",
        "http://host/x?api-key=secret",
        "http://host/x#secret",
        "s3://anna:secret@host/x",
        "http://anna:secret@host:x/faces",
        "http://anna:secret@host/x?a=secret",
        "http://anna:sec/secret@host:y/x",
        "http://anna:12/secret@host/x",
    ],
)
def test_addresses_that_are_none_are_refused_and_no_password_is_shown(address: str) -> None:
    pytest.importorskip("qdrant_client")
    with pytest.raises(InputError, match="must be a folder or http") as error:
        open_gallery(address)
    assert "secret" not in str(error.value) and "QDRANT_API_KEY" in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "3",
        "[" * 5000 + "]" * 5000,
        '{"format": 1, "size": 1e400}',
        '{"format": 1, "size": 0}',
        '{"format": 1, "size": ' + "9" * 5000 + "}",
        '{"format": 1, "size": 16, "flip": "x"}',
        '{"format": 1, "size": 16, "model": [[1]]}',
        '{"format": 1, "size": 16, "more": 1}',
        '{"format": {"a": 1}, "size": 16}',
    ],
)
def test_odd_words_about_a_gallery_are_refused(text: str | None) -> None:
    with pytest.raises(InputError, match="g is not a gallery that angulus search made") as error:
        About.read(text, "g")
    assert len(str(error.value)) < 500


def test_vectors_of_another_size_than_it_says_are_refused(tmp_path: Path) -> None:
    lancedb = pytest.importorskip("lancedb")
    pa = pytest.importorskip("pyarrow")
    texts = [pa.field(name, pa.string()) for name in ("key", "id", "identity")]
    for number, fields in enumerate(([*texts, pa.field("vector", pa.list_(pa.float32(), 8))], texts)):
        schema = pa.schema(fields, metadata={b"angulus": About(D).text().encode()})
        lancedb.connect(str(tmp_path / str(number))).create_table("gallery", schema=schema)
        with pytest.raises(InputError, match="other columns"):
            open_gallery(tmp_path / str(number)).add(made(3, model=None))


def test_what_cannot_be_fused_late_leaves_the_gallery_as_it_was(gallery: Gallery) -> None:
    people = made(30)
    flipped = people.vectors.copy()
    flipped[25] *= -1
    with pytest.raises(InputError, match="must not be zero"):
        gallery.add(replace(people, flipped=flipped), flip="sum", batch=10)
    assert gallery.store.about() is None


def test_a_server_that_never_answers_is_a_sentence() -> None:
    pytest.importorskip("qdrant_client")
    with socket.create_server(("127.0.0.1", 0)) as server:
        where = f"http://anna:secret@127.0.0.1:{server.getsockname()[1]}/faces"
        with pytest.raises(InputError, match=r"collection faces on http://127\.0\.0\.1:\d+ cannot be read") as error:
            open_gallery(where).add(made(3))
    assert "secret" not in str(error.value)


def test_a_server_that_is_not_there_is_a_sentence() -> None:
    pytest.importorskip("qdrant_client")
    with pytest.raises(InputError, match=r"collection faces on http://127\.0\.0\.1:9 cannot be read .* answers there"):
        open_gallery("http://127.0.0.1:9/faces").add(made(3))
    store = QdrantStore.at("http://anna:secret@127.0.0.1:9/faces")
    assert store.where == "the collection faces on http://127.0.0.1:9"
    for name in ("", "a/b", "a'b", "x" * 129):
        with pytest.raises(InputError, match="a collection's name must be"):
            open_gallery(f"http://127.0.0.1:9/{name}")


@pytest.mark.parametrize(
    ("package", "where", "extra"),
    [
        ("lancedb", "g", "search"),
        ("qdrant_client.models", "http://127.0.0.1:9/g", "search"),
        ("faiss", "g.faiss", "faiss"),
    ],
)
def test_a_missing_package_is_named(
    package: str, where: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    place = where if "://" in where else str(tmp_path / where)
    with pytest.raises(
        InputError, match=rf"a gallery.* needs `pip install 'angulus\[{extra}\]'` \(there is no package"
    ):
        open_gallery(place).add(made(3))


def test_keys_are_uuids_of_their_ids() -> None:
    assert len(set(keys(NASTY))) == len(NASTY)
    assert all(set(each) <= set("0123456789abcdef-") and len(each) == 36 for each in keys(NASTY))


def test_false_positives_are_those_of_independent_comparisons() -> None:
    assert false_positives(0.25, 2) == pytest.approx(1 - 0.75**2)
    assert false_positives(0.0, 10**6) == 0
    assert false_positives(1e-9, 1000) == pytest.approx(1e-6, rel=1e-5)
    assert false_positives(1.0, 3) == pytest.approx(1)


def calibration(**changes: object) -> Calibration:
    whole = Calibration(0.01, Rate(0.6), Rate(0.01), Rate(0.02), 50, 100, 10.0, -5.0, model="0123456789abcdef-none")
    return replace(whole, **changes)


def test_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    people, where = made(300), str(tmp_path / "g")
    people.write(tmp_path / "e.npz")
    near(people, 25).write(tmp_path / "q.npz")
    calibration().write(tmp_path / "calibration.json")

    def run(*arguments: object) -> str:
        found = CliRunner().invoke(search_app, [str(each) for each in arguments])
        if found.exception is not None:
            raise found.exception
        return found.output

    said = run("add", where, tmp_path / "e.npz", "--batch", 200)
    assert "200 of 300 saved" in said and "300 in all" in said
    assert "300 vectors of 16 numbers, of the model with fingerprint 0123456789abcdef, flip none" in run("info", where)
    said = run(
        "query", where, tmp_path / "q.npz", "--calibration", tmp_path, "--top", 2, "--json", tmp_path / "n/a.json"
    )
    saved = json.loads((tmp_path / "n" / "a.json").read_text())
    expected = brute(people, near(people, 25), 2, 0.6)
    assert [[m["id"] for m in each["matches"]] for each in saved["answers"]] == [[n for n, _ in a] for a in expected]
    assert saved["threshold"] == 0.6
    nobody = sum(not each for each in expected)
    assert f"{nobody} of 25 queries match nobody in the gallery (threshold 0.6000)" in said
    assert "FMR 0.01 per comparison: among 300 rows, up to 95 % of unknown people" in said
    assert "FNMR 0.02 per comparison: the share of pairs of photos of one person" in said
    assert "and 5 more" in said
    assert "no threshold: the nearest are shown" in run("query", where, tmp_path / "q.npz")
    said = run("query", where, tmp_path / "e.npz", "--by", "person", "--exclude-self", "--json", tmp_path / "p.json")
    answers = json.loads((tmp_path / "p.json").read_text())["answers"]
    assert len(answers) == 300
    for answer in answers:
        assert answer["id"] not in [match["id"] for match in answer["matches"]]
        assert len({match["identity"] for match in answer["matches"]}) == 5
    with pytest.raises(InputError, match="--by must be one of 'photo', 'person', 'template'"):
        run("query", where, tmp_path / "q.npz", "--by", "face")
    assert "hnsw over 300" in run("index", where, "--kind", "hnsw")
    monkeypatch.setattr(Calibration, "warning", "this model hardly tells people apart (AUC 0.486)")
    with pytest.warns(UserWarning, match=r"hardly tells people apart \(AUC 0\.486"):
        run("query", where, tmp_path / "q.npz", "--calibration", tmp_path, "--json", tmp_path / "w.json")
    assert "AUC 0.486" in json.loads((tmp_path / "w.json").read_text())["warning"]
    said = run("query", where, tmp_path / "q.npz", "--threshold", 0.99, "--approximate")
    assert "nobody" in said and "% of the true 5 nearest, over 25 queries" in said
    assert "1 removed, 299 left" in run("remove", where, people.ids[0])
    with pytest.raises(InputError, match="got both"):
        run("query", where, tmp_path / "q.npz", "--threshold", 0.5, "--calibration", tmp_path)
    with pytest.raises(InputError, match=r"is not a calibration \(No such file or directory\); give"):
        run("query", where, tmp_path / "q.npz", "--calibration", tmp_path / "none.json")
    with pytest.raises(InputError, match=r"must hold calibration\.json; it does not; make it with angulus calibrate"):
        run("query", where, tmp_path / "q.npz", "--calibration", tmp_path / "n")
    with pytest.raises(InputError, match="--json must name a file that ends in"):
        run("query", where, tmp_path / "q.npz", "--json", tmp_path / "a.txt")
    with pytest.raises(InputError, match="--effort goes with --approximate; got 9 without it"):
        run("query", where, tmp_path / "q.npz", "--effort", 9)


def test_info_of_a_gallery_and_of_its_models_folder_say_the_same(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = Config("small", 3, (16, 16), D, contract=Contract(colour="rgb", flip="sum"))
    for name in ("model", "other"):
        artifact.save(config, config.build(), tmp_path / name)
    (tmp_path / "images").mkdir()
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{number}.png")
    for name in ("model", "other"):
        embed.run(tmp_path / name, tmp_path / "images", tmp_path / f"{name}.npz")

    def run(*arguments: object) -> str:
        found = CliRunner().invoke(app, [str(each) for each in arguments])
        return found.output if found.exception is None else str(found.exception)

    run("search", "add", tmp_path / "g", tmp_path / "model.npz")
    said = [run("search", "info", tmp_path / "g"), run("info", tmp_path / "model"), run("info", tmp_path / "other")]
    gallery, own, other = (re.findall(r"fingerprint \w{16}, flip sum", text) for text in said)
    assert gallery == own != other and len(own) == len(other) == 1
    refused = run("search", "add", tmp_path / "g", tmp_path / "other.npz")
    assert own[0] in refused and other[0] in refused


def test_a_calibration_for_other_vectors_is_refused() -> None:
    about = About(D, "0123456789abcdef-none", None)
    assert threshold_of(calibration(), about, "g") == 0.6
    for changes in ({"model": "other-none"}, {"model": None}, {"flip": "sum"}, {"model": "0123456789abcdef-sum"}):
        with pytest.raises(InputError, match="the calibration is for"):
            threshold_of(calibration(**changes), about, "g")


def test_no_false_accept_among_few_pairs_is_no_promise() -> None:
    """After 0 of 3,000 the FMR may be 0.001, by which 1 − (1 − 0.001)^1,000 = 63 % are taken for somebody."""
    said = " ".join(explain_error_rates(calibration(fmr=Rate(0.0), impostors=3000), 1000))
    assert "FMR 0 per comparison (0 of 3,000: it may be 0.001): among 1,000 rows, up to 63 % of unknown people" in said


@pytest.mark.parametrize("exclude_self", [False, True])
def test_answers_by_person_are_those_of_brute_force(gallery: Gallery, exclude_self: bool) -> None:
    """A person with 60 photos fills many rows; photos of unknown people are people of their own."""
    people = made(90)
    labels = np.array(["crowd"] * 60 + [f"p{row // 3}" for row in range(60, 87)] + [""] * 3)
    people = replace(people, labels=labels)
    gallery.add(people)
    answers = gallery.query(people, top=5, by="person", exclude_self=exclude_self)
    for query, answer in zip(people.ids.tolist(), answers, strict=True):
        (ranked,) = brute(people, only(people, query), 90, -1)
        best: dict[str, str] = {}
        for name, _ in ranked:
            if not (exclude_self and name == query):
                best.setdefault(labels[people.ids.tolist().index(name)] or name, name)
        assert [match.id for match in answer.matches] == list(best.values())[:5]
        assert (answer.matches[0].id == query) != exclude_self
    found = gallery.query(people, top=2, exclude_self=True)
    assert all(answer.id not in [match.id for match in answer.matches] for answer in found)
    with pytest.raises(InputError, match="by must be one of 'photo', 'person', 'template'; got 'face'"):
        gallery.query(people, by="face")


def only(people: Embeddings, name: str) -> Embeddings:
    row = people.ids.tolist().index(name)
    return Embeddings(people.vectors[row : row + 1], people.ids[row : row + 1])


def test_all_rows_are_listed_as_they_were_added(gallery: Gallery) -> None:
    people = made(300)
    gallery.add(people)
    parts = list(gallery.store.rows())
    found = {
        name: (identity, vector)
        for part in parts
        for name, identity, vector in zip(part.ids, part.identities, part.vectors, strict=True)
    }
    assert sum(len(part.ids) for part in parts) == len(found) == 300
    assert people.labels is not None
    for name, label, vector in zip(people.ids, people.labels, people.unit(), strict=True):
        identity, stored = found[name]
        assert identity == label
        np.testing.assert_allclose(stored, vector, atol=1e-6)
