"""Auditing data sets: planted overlaps, duplicates and wrong labels, the card, and the lists applied."""

from __future__ import annotations

import csv
import errno
import gzip
import io
import json
import tracemalloc
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from angulus import InputError
from angulus.cli.audit import audit as command
from angulus.core.embeddings import Embeddings
from angulus.data.audit import (
    CERTAIN,
    AuditSet,
    AuditSettings,
    apply_removals,
    audit,
    duplicates,
    inventory,
    read_list,
    write_list,
)
from angulus.data.audit.duplicates import Twins, sort_out
from angulus.data.audit.inventory import Inventory, mirrored, signature, take_inventory
from angulus.data.audit.labels import Means, fit, normalised_name, shared_names, similar_identities, spellings
from angulus.data.audit.removals import Removal
from angulus.data.records import Records, Row, write_records
from data.pictures import encoded

LANDMARKS = np.arange(10, dtype=np.float32).reshape(5, 2)


def picture(seed: int, side: int = 64) -> np.ndarray:
    """A smooth coloured picture, unlike those of other seeds."""
    small = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return cv2.resize(small, (side, side), interpolation=cv2.INTER_CUBIC)


def png(pixels: np.ndarray) -> bytes:
    return encoded(pixels, "PNG")


def records(path: Path, rows: list[Row]) -> Path:
    write_records(path, rows)
    return path


def ids(removals: tuple[Removal, ...]) -> list[str]:
    return [each.id for each in removals]


@pytest.mark.parametrize("exact_below", [5_000_000, 1])
def test_every_planted_duplicate_is_on_its_list(tmp_path: Path, exact_below: int) -> None:
    one, other, third = picture(1), picture(2), picture(3)
    reencoded = encoded(one, "JPEG", quality=60)
    rows = [
        Row("ann/unknown.png", png(third), ""),
        Row("ann/1.png", png(one), "ann"),
        Row("ann/2.png", png(other), "ann"),
        Row("ann/copy.png", png(one), "ann"),
        Row("ann/recoded.bmp", encoded(one, "BMP"), "ann"),
        Row("ann/lossy.jpg", reencoded, "ann"),
        Row("ann/flipped.png", png(other[:, ::-1]), "ann"),
        Row("bob/smaller.png", png(cv2.resize(other, (40, 40))), "bob"),
        Row("bob/3.png", png(third), "bob"),
        Row("bob/flat.png", png(np.full((9, 9, 3), 7, np.uint8)), "bob"),
        Row("bob/dark.png", png(np.full((9, 9, 3), 3, np.uint8)), "bob"),
    ]
    whole = audit(AuditSet(records(tmp_path / "records", rows)), settings=AuditSettings(exact_below=exact_below))
    found = whole.lists
    reasons = {each.id: each.reason for each in found["duplicates"]}
    assert reasons == {
        "ann/copy.png": "is the same file as 'ann/1.png'",
        "ann/recoded.bmp": "has the same pixels as 'ann/1.png'",
        "ann/unknown.png": "is the same file as 'bob/3.png'",
    }
    near = {each.id: each.reason for each in found["near-duplicates"]}
    assert set(near) == {"ann/lossy.jpg", "ann/flipped.png"}
    assert near["ann/lossy.jpg"].startswith("looks like 'ann/1.png' (cosine 0.99")
    assert near["ann/flipped.png"] == "looks like the mirror image of 'ann/2.png' (cosine 1.000)"
    assert set(ids(found["conflicts"])) == {"bob/smaller.png", "ann/2.png", "ann/flipped.png"}
    assert "wrong-labels" not in found and "shared-images" not in found
    said = [note for note in whole.card["notes"] if "was searched for in 8 cells of an index" in note]
    shares = [f"it found {n} of {n} (100.0%) of the pairs of 8 images with all" for n in (2, 2)]
    assert [note.partition(": ")[2] for note in said] == (shares if exact_below == 1 else [])
    assert whole.card["notes"][-1] == "facts on 11 images were in temporary files, 0.0 MB"


def test_exact_copies_under_two_names_are_a_conflict_and_neither_goes(tmp_path: Path) -> None:
    rows = [
        Row("a.png", png(picture(1)), "ann"),
        Row("b.png", png(picture(1)), "bob"),
        Row("c.png", png(picture(2)), ""),
    ]
    found = audit(AuditSet(records(tmp_path / "records", rows)))
    assert found.lists["duplicates"] == ()
    assert {each.id: each.reason for each in found.lists["conflicts"]} == {
        "a.png": "'b.png' is the same file as it, and is of 'bob'; this is of 'ann'",
        "b.png": "is the same file as 'a.png', which is of 'ann'; this is of 'bob'",
    }
    assert found.card["data"]["images_without_identity"] == 1


def test_signature_of_a_mirror_image_is_the_mirrored_signature() -> None:
    pixels = picture(4)
    expected = signature(np.ascontiguousarray(pixels[:, ::-1])).astype(np.float64)
    np.testing.assert_allclose(mirrored(signature(pixels)[None])[0].astype(np.float64), expected, atol=2e-3)
    assert np.linalg.norm(expected) == pytest.approx(1, abs=1e-3)
    assert not signature(np.full((5, 7, 3), 9, np.uint8)).any()


@pytest.mark.parametrize("size", [(112, 112), (64, 64), (250, 250), (97, 130), (16, 16), (300, 20), (1200, 900)])
def test_signatures_are_those_of_opencvs_area_average(size: tuple[int, int]) -> None:
    """But for averages so near to a half that the last bit rounds them."""
    blurred = cv2.GaussianBlur(np.random.default_rng(0).normal(size=(*size, 3)), (0, 0), 5)
    pixels = cv2.normalize(blurred, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (16, 16), interpolation=cv2.INTER_AREA).astype(np.float64)
    steps = np.concatenate([each.ravel() - each.mean() for each in (np.diff(small, axis=0), np.diff(small, axis=1))])
    assert signature(pixels).astype(np.float64) @ steps / np.linalg.norm(steps) > 0.9999


def loop_kept(count: int, twins: list[Twins]) -> set[int]:
    """What stays, by going through the pairs one by one."""
    stays = set(range(count))
    for each in twins:
        if each.first in stays and each.second in stays:
            stays.remove(each.second)
    return stays


@settings(max_examples=40, deadline=None)
@given(st.sets(st.tuples(st.integers(0, 7), st.integers(0, 7)).filter(lambda pair: pair[0] < pair[1])))
def test_one_image_of_every_picture_is_left(pairs: set[tuple[int, int]]) -> None:
    twins = [Twins(one, other, "looks like") for one, other in sorted(pairs)]
    blank = np.zeros((8, 480), np.float16)
    names, flags = np.array([f"{n}.png" for n in range(8)]), np.ones(8, bool)
    hashes, sizes = names.astype(bytes), np.ones((8, 2), np.int64)
    found = Inventory(
        "x", "zip", {}, names, np.full(8, "ann"), hashes, hashes, blank, sizes, flags, flags, flags, (), ()
    )
    gone = {int(each.id[0]) for each in sort_out(found, twins).removals}
    assert gone == set(range(8)) - loop_kept(8, twins)
    for row in gone:  # each has a twin that stays
        assert any(row in pair and next(iter({*pair} - {row})) not in gone for pair in pairs)


@pytest.mark.parametrize("exact_below", [5_000_000, 1])
def test_overlap_with_another_set_by_name_and_by_picture(tmp_path: Path, exact_below: int) -> None:
    ours = [
        Row("1.png", png(picture(1)), "Zellweger, Renée"),
        Row("2.png", png(picture(2)), "Zellweger, Renée"),
        Row("3.png", png(picture(3)), "Bo Derek"),
        Row("4.png", png(picture(4)), "17"),
        Row("5.png", png(picture(5)), "bo_derek"),
    ]
    theirs = [
        Row("t1.png", png(picture(6)), "renee_zellweger"),
        Row("t2.png", png(picture(3)), "someone"),
        Row("t3.jpg", encoded(picture(4), "JPEG", quality=70), "17"),
    ]
    data = AuditSet(records(tmp_path / "ours", ours))
    against = AuditSet(records(tmp_path / "theirs", theirs))
    found = audit(data, against, settings=AuditSettings(exact_below=exact_below))
    assert ids(found.lists["shared-identities"]) == ["1.png", "2.png"]
    assert ids(found.lists["shared-images"]) == ["3.png"]
    assert "'t2.png'" in found.lists["shared-images"][0].reason
    assert ids(found.lists["near-shared-images"]) == ["4.png"]
    assert found.card["identities"]["One name, several spellings"] == [["Bo Derek", "bo_derek"]]
    assert any("1 identities are equal numbers in both sets, such as '17'" in note for note in found.card["notes"])
    same = audit(data, against, settings=AuditSettings(numbers=True))
    assert ids(same.lists["shared-identities"]) == ["1.png", "2.png", "4.png"]
    assert not any("equal numbers" in note for note in same.card["notes"])


def test_names_are_compared_without_case_accents_and_order() -> None:
    assert normalised_name("Müller, Jürgen") == normalised_name("jurgen__MULLER") == "jurgen muller"
    assert normalised_name("Tom Lee") != normalised_name("Lee Tom")
    assert shared_names(np.array(["...", "A"]), np.array(["!!", "a"]), numbers=True) == {"A": "a"}
    assert spellings(np.array(["Ann", "ANN", "1", "01"])) == [("Ann", "ANN")]


def crowd(people: int = 6, images: int = 8, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings near to a direction each, and whose they are."""
    rng = np.random.default_rng(seed)
    centres = np.eye(people, 12).repeat(images, axis=0)
    vectors = centres + 0.1 * rng.normal(size=centres.shape)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.arange(people).repeat(images).astype(str)


def test_wrong_labels_are_those_that_a_loop_finds() -> None:
    vectors, names = crowd()
    vectors[3] = vectors[40]  # of '0', shows '5'
    vectors[9] = -vectors[9]  # of '1', shows nobody
    names[47] = "alone"
    names[46] = ""
    found = fit(vectors, Means.compute(vectors, names), margin=0.1, outlier=5.0)
    wrong, judged = {}, 0
    for row, name in enumerate(names):
        others = [n for n in range(48) if names[n] == name and n != row]
        if not name or not others:
            continue
        judged += 1

        def cosine(rows: list[int], row: int = row) -> float:
            mean = vectors[rows].sum(axis=0)
            return float(vectors[row] @ mean / np.linalg.norm(mean))

        best = max((cosine([n for n in range(48) if names[n] == other]), other) for other in {*names} - {name, ""})
        if best[0] - cosine(others) >= 0.1:
            wrong[row] = (cosine(others), *best)
    assert judged == found.judged == 46
    assert {each.row: (each.own, each.other, each.name) for each in found.wrong} == {
        row: (pytest.approx(own), pytest.approx(other), name) for row, (own, other, name) in wrong.items()
    }
    assert {each.row for each in found.wrong} == {3, 9} and found.wrong[0].own < found.wrong[0].other
    assert {each.row for each in found.outliers} == {3, 9}


def test_nobody_to_be_held_against() -> None:
    vectors = np.eye(3)
    assert fit(vectors, Means.compute(vectors, np.array(["a", "b", ""])), margin=0.1, outlier=5).judged == 0
    one = fit(np.ones((3, 2)), Means.compute(np.ones((3, 2)), np.array(["a", "a", "a"])), margin=0.1, outlier=5)
    assert one.judged == 3 and one.wrong == () and one.outliers == ()
    none = Means.compute(vectors, np.array(["", "", ""]))
    assert len(none.names) == 0 and similar_identities(none, none, 0.5) == []


def embedded(path: Path, rows: list[Row], vectors: np.ndarray) -> Path:
    Embeddings(vectors, np.array([row.id for row in rows])).write(path)
    return path


def test_identities_shared_by_embedding_and_near_duplicates_by_it(tmp_path: Path) -> None:
    vectors, names = crowd(people=4, images=3)
    rows = [Row(f"{n}.png", png(picture(n)), f"p{name}") for n, name in enumerate(names)]
    theirs = [Row(f"t{n}.png", png(picture(100 + n)), f"q{name}") for n, name in enumerate(names)]
    others = np.roll(vectors, 6, axis=1)  # q2 and q3 look away; p0, p1 there are none of them
    others[:3] = vectors[9:12] + 0.01  # q0 is p3
    vectors[1] = vectors[0]
    data = AuditSet(records(tmp_path / "a", rows), embedded(tmp_path / "a.npz", rows, vectors))
    against = AuditSet(records(tmp_path / "b", theirs), embedded(tmp_path / "b.npz", theirs, others))
    found = audit(data, against, settings=AuditSettings(near_embedding=0.999))
    assert ids(found.lists["similar-identities"]) == ["9.png", "10.png", "11.png"]
    assert found.lists["similar-identities"][0].reason.startswith("the mean of 'p3' has cosine ")
    assert [pair[:2] for pair in found.card["identities"]["Identities shared by embedding"]] == [["p3", "q0"]]
    assert ids(found.lists["near-duplicates"]) == ["1.png"]
    assert ids(found.lists["near-shared-images"]) == ["9.png", "10.png", "11.png"]
    note = next(note for note in found.card["notes"] if "by chance" in note)
    assert "1 of 16 pairs" in note and "0 of 6 pairs within the data, which would make 0.0 across" in note


def test_card_counts_and_says_only_what_was_stated(tmp_path: Path) -> None:
    rows = [
        Row("1.png", png(picture(1, 20)), "ann", LANDMARKS, 0.9),
        Row("2.jpg", encoded(picture(2), "JPEG"), "ann"),
        Row("3.png", png(picture(3)), "bob"),
        Row("4.png", png(picture(4)), ""),
    ]
    found = audit(AuditSet(records(tmp_path / "records", rows)), stated={"licence": "CC BY 4.0"})
    found.write(tmp_path / "out")
    card = json.loads((tmp_path / "out" / "card.json").read_text())
    assert card["stated"] == {"licence": "CC BY 4.0", "provenance": "not stated"}
    counts = card["data"]
    assert (counts["images"], counts["identities"], counts["images_without_identity"]) == (4, 2, 1)
    assert counts["identities_with_one_image"] == 1
    assert counts["images_per_identity"] == {
        "0 %": 1, "5 %": 1, "25 %": 1, "50 %": 1, "75 %": 2, "95 %": 2, "100 %": 2,
    }  # fmt: skip
    assert counts["sizes"] == {"64x64": 3, "20x20": 1} and counts["encodings"] == {"PNG": 3, "JPEG": 1}
    assert (counts["without_landmarks"], counts["without_detector_score"]) == (3, 3)
    assert set(card["not_looked_for"]) >= {"wrong-labels", "outliers", "shared-images"}
    text = (tmp_path / "out" / "card.md").read_text()
    assert "- licence: CC BY 4.0" in text and "- provenance: not stated" in text and "| images | 4 |" in text
    assert (tmp_path / "out" / "duplicates.txt").read_text() == ""
    (tmp_path / "out" / "wrong-labels.txt").write_text("stale\n")
    found.write(tmp_path / "out")
    assert not (tmp_path / "out" / "wrong-labels.txt").exists()


def photos(folder: Path) -> Path:
    (folder / "ann").mkdir(parents=True)
    for name, data in (
        ("1.png", png(picture(1))),
        ("2.png", png(picture(1))),
        ("3.png", png(picture(2))),
        ("damaged.png", png(picture(3))[:60] + b"\0" * 400 + b"IEND"),
        ("notes.txt", b"no image"),
    ):
        (folder / "ann" / name).write_bytes(data)
    return folder


def test_the_command_writes_lists_and_what_is_left(tmp_path: Path) -> None:
    import typer

    app = typer.Typer()
    app.command()(command)
    source, out, clean = photos(tmp_path / "photos"), tmp_path / "out", tmp_path / "clean"
    result = CliRunner().invoke(app, [str(source), "--out", str(out), "--apply", str(clean)])
    assert result.exit_code == 0, result.output
    assert "3 images of 1 identities" in result.output and "duplicates: 1 images" in result.output
    assert "clean: 2 images; 3 left out (unreadable 1, duplicates 1)" in result.output
    assert read_list(out / "duplicates.txt") == (Removal("ann/2.png", "is the same file as 'ann/1.png'"),)
    assert ids(read_list(out / "unreadable.txt")) == ["ann/damaged.png"]
    assert Records(clean).ids.tolist() == ["ann/1.png", "ann/3.png"]
    left_out = [json.loads(line) for line in (clean / "left-out.jsonl").read_text().splitlines()]
    assert [each["where"] for each in left_out] == ["ann/2.png", "ann/damaged.png", "ann/notes.txt"]
    assert left_out[0]["reason"] == "duplicates: is the same file as 'ann/1.png'"
    wrong = CliRunner().invoke(app, [str(source), "--list", "duplicates"])
    assert isinstance(wrong.exception, InputError) and "--list needs --apply" in str(wrong.exception)
    wrong = CliRunner().invoke(app, [str(source), "--against-embeddings", "x.npz"])
    assert isinstance(wrong.exception, InputError) and "needs --against" in str(wrong.exception)


def test_applied_lists_keep_landmarks_scores_and_later_columns(tmp_path: Path) -> None:
    rows = [Row(f"{n}.png", png(picture(n)), "ann", LANDMARKS + n, n / 10) for n in range(4)]
    source = records(tmp_path / "records", rows)
    Records(source).add_column("norm", np.arange(4.0))
    lists = {"one": (Removal("1.png", "x"),), "two": (Removal("1.png", "y"), Removal("3.png", "z"))}
    done = apply_removals(source, lists, tmp_path / "left")
    assert (done.rows, done.removed, done.left_out) == (2, {"one": 1, "two": 2}, 2)
    left = Records(tmp_path / "left")
    assert left.ids.tolist() == ["0.png", "2.png"] and left.column("norm").tolist() == [0, 2]
    assert left.scores.tolist() == [0, 0.2] and left.images([1]) == [rows[2].image]
    np.testing.assert_array_equal(left.landmarks[1], LANDMARKS + 2)
    assert (tmp_path / "left" / "left-out.jsonl").read_text().count("\n") == 3
    assert len(Records(source)) == 4


def test_lists_are_read_as_they_were_written(tmp_path: Path) -> None:
    some = (Removal("a b.png", "it is\nnot  good"), Removal("ü.png", "x"))
    write_list(tmp_path / "list.txt", some)
    assert read_list(tmp_path / "list.txt") == (Removal("a b.png", "it is not good"), Removal("ü.png", "x"))
    (tmp_path / "bare.txt").write_text("a.png\nb.png\n")
    assert read_list(tmp_path / "bare.txt") == (
        Removal("a.png", "no reason given"),
        Removal("b.png", "no reason given"),
    )
    for text, sentence in (("a\n\nb\n", "line 2 must be an id"), ("a\tx\na\ty\n", "line 2 must be an id that no line")):
        (tmp_path / "bad.txt").write_text(text)
        with pytest.raises(InputError, match=sentence):
            read_list(tmp_path / "bad.txt")
    for id in ("a\tb", "a\nb", "a\n"):
        with pytest.raises(InputError, match="must have no tab"):
            write_list(tmp_path / "x.txt", [Removal(id, "x")])
    with pytest.raises(InputError, match="must be a file that can be read"):
        read_list(tmp_path / "absent.txt")


def test_lists_that_do_not_fit_the_data_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    source = records(tmp_path / "records", [Row("a.png", png(picture(1)), "ann"), Row("b.png", png(picture(2)), "ann")])
    with pytest.raises(InputError, match=r"1 of its ids are not there, such as 'c\.png' \(in mine\)"):
        apply_removals(source, {"mine": (Removal("c.png", "x"), Removal("a.png", "x"))}, tmp_path / "out")
    with pytest.raises(InputError, match="must leave at least one image"):
        apply_removals(source, {"mine": (Removal("b.png", "x"), Removal("a.png", "x"))}, tmp_path / "out")
    with pytest.raises(InputError, match="out must not lie in the source"):
        apply_removals(source, {}, source / "out")
    assert not (tmp_path / "out").exists()
    other = records(tmp_path / "other", [Row("a.png", png(picture(1)), "ann")])
    with pytest.raises(InputError, match=r"must be missing.*it holds whole records; choose another"):
        apply_removals(source, {}, other)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("dear")
    with pytest.raises(InputError, match=r"must be missing.*it holds 'letter.txt'; choose another"):
        apply_removals(source, {}, tmp_path / "full")


def test_what_cannot_be_audited_is_refused(tmp_path: Path) -> None:
    source = records(tmp_path / "records", [Row("a.png", png(picture(1)), "ann")])
    with pytest.raises(InputError, match="there is no"):
        audit(AuditSet(tmp_path / "absent"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="must hold images to audit"):
        audit(AuditSet(tmp_path / "empty"))
    (tmp_path / "empty" / "x.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"the first left out is x\.png"):
        audit(AuditSet(tmp_path / "empty"))
    vectors = embedded(tmp_path / "e.npz", [Row("b.png", b"x", "")], np.ones((1, 3)))
    with pytest.raises(InputError, match="have no embedding"):
        audit(AuditSet(source, vectors))
    with pytest.raises(InputError, match="the other set has none"):
        audit(AuditSet(source, vectors), AuditSet(source))
    with pytest.raises(InputError, match="near_embedding compares embeddings"):
        audit(AuditSet(source), settings=AuditSettings(near_embedding=0.9))
    narrow = embedded(tmp_path / "n.npz", [Row("a.png", b"x", "")], np.ones((1, 3)))
    wide = embedded(tmp_path / "w.npz", [Row("a.png", b"x", "")], np.ones((1, 4)))
    with pytest.raises(InputError, match="must be of one model; got sizes 3 and 4"):
        audit(AuditSet(source, narrow), AuditSet(source, wide))
    files = []
    for name, models in (("one", ["m"]), ("other", ["n"]), ("two", ["m", "n"])):
        files.append(tmp_path / f"{name}.npz")
        Embeddings(
            np.ones((len(models), 3)), np.array(["a.png", "b.png"][: len(models)]), models=np.array(models)
        ).write(files[-1])
    with pytest.raises(InputError, match="must be of one model; got m and n"):
        audit(AuditSet(source, files[0]), AuditSet(source, files[1]))
    both = records(tmp_path / "both", [Row(f"{n}.png", png(picture(3)), "ann") for n in "ab"])
    with pytest.raises(InputError, match="must be of one model; got m and n; embed the set with one"):
        audit(AuditSet(both, files[2]))
    for wrong in ({"near": 0}, {"near_embedding": 2}, {"same_identity": -2}, {"margin": -1}, {"outlier": 0}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            AuditSettings(**wrong)  # type: ignore[arg-type]
    found = audit(AuditSet(source))
    assert set(found.chosen()) == set(CERTAIN) & set(found.lists)
    with pytest.raises(InputError, match="must have been looked for; it takes embeddings"):
        found.chosen(("wrong-labels",))
    with pytest.raises(InputError, match="did you mean 'duplicates'"):
        found.chosen(("duplicate",))


def test_an_id_that_repeats_is_named_and_not_counted_twice(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(picture(1)))
    with (tmp_path / "list.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "identity", "id"), ("a.png", "ann", "x"), ("a.png", "bob", "x")])
    found = take_inventory(tmp_path / "list.csv")
    assert len(found) == 1 and found.left_out[0].reason == "the source has a row of this id before it"


def made_rows(monkeypatch: pytest.MonkeyPatch, count: int) -> list[np.ndarray]:
    """Let sources have that many rows, of four pictures; returns the pictures."""
    pictures = [picture(number)[:20, :24] for number in range(4)]
    files = [encoded(pixels, "BMP") for pixels in pictures]

    def rows(*_: object) -> Iterator[Row]:
        return (Row(f"person-{n // 9:04d}/{n:05d}.bmp", files[n % 4], f"person-{n // 9:04d}") for n in range(count))

    monkeypatch.setattr(inventory, "read_source", rows)
    return pictures


def test_an_inventory_has_the_names_and_the_signature_of_each_image(monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = made_rows(monkeypatch, 400)
    found = take_inventory(Path("list"), kind="folder")
    assert [*found.ids] == [f"person-{n // 9:04d}/{n:05d}.bmp" for n in range(400)]
    assert found.identities.tolist() == [f"person-{n // 9:04d}" for n in range(400)]
    assert found.sizes.tolist() == [[24, 20]] * 400
    assert found.on_disk == 400 * (16 + 16 + 256 + 8 + 3 + 4 + 8 + 21)
    for row, pixels in enumerate(pictures):
        np.testing.assert_array_equal(found.signatures[np.array([row])][0], signature(pixels))
    assert len(duplicates.exact(found)) == 400 - 4


def test_what_an_inventory_keeps_in_memory_grows_little(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inventory, "_RECENT", 64)
    peaks = []
    for count in (10, 1000, 5000):
        made_rows(monkeypatch, count)
        tracemalloc.start()
        found = take_inventory(Path("list"), kind="folder")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert len(found) == count
    assert (peaks[2] - peaks[1]) / 4000 < 120  # bytes per image, some of them of the identities: one of nine images


def test_ids_that_have_come_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inventory, "_RECENT", 16)
    ids = [str(number) for number in np.random.default_rng(0).integers(0, 3000, 6000)]
    own, known = inventory._Seen(), set[str]()
    for id in ids:
        assert own.add(id) == (id not in known)
        known.add(id)
    assert 1500 < len(known) < 3000


def test_a_full_disk_for_the_temporary_files_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    made_rows(monkeypatch, 10)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(inventory, "struct", SimpleNamespace(pack=full))  # the module's own: others pack meanwhile
    with pytest.raises(InputError, match=r"a temporary file in .*: No space left on device; free some .*; TMPDIR may"):
        take_inventory(Path("list"), kind="folder")


def test_no_folder_for_the_temporary_files_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    made_rows(monkeypatch, 10)

    def none() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(inventory.tempfile, "tempdir", None)
    monkeypatch.setattr(inventory.tempfile, "_get_default_tempdir", none)
    with pytest.raises(InputError, match=r"a temporary file in TMPDIR: No usable .* found in .*; TMPDIR may name"):
        take_inventory(Path("list"), kind="folder")


@pytest.mark.parametrize("mirror", [False, True])
def test_the_recall_that_is_printed_is_that_of_all_pairs(monkeypatch: pytest.MonkeyPatch, mirror: bool) -> None:
    """Of a sample's pairs, by a loop over all scores, how many are among the twins."""
    monkeypatch.setattr("angulus.evaluation.scoring.cells.VISITS", 1)
    monkeypatch.setattr(duplicates, "SAMPLE", 300)
    rng = np.random.default_rng(0)
    places = rng.standard_normal((1000, 12))
    places[500:750] = places[:250] + 0.3 * rng.standard_normal((250, 12))
    rows = places @ rng.standard_normal((12, 480))
    rows[500:750] = mirrored(rows[500:750].astype(np.float16)) if mirror else rows[500:750]
    rows[999] = mirrored(rows[998:999].astype(np.float16))[0] + rows[998]  # its own mirror image
    signatures = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)
    names = np.arange(1000).astype(str)
    flags, sizes = np.ones(1000, bool), np.ones((1000, 2), np.int64)
    data = Inventory(
        "x",
        "zip",
        {},
        names,
        names,
        names.astype("S"),
        names.astype("S"),
        signatures,
        sizes,
        flags,
        flags,
        flags,
        (),
        (),
    )
    notes: list[str] = []
    twins = duplicates.near(data, 0.92, exact_below=1, notes=notes)
    verb = "looks like the mirror image of" if mirror else "looks like"
    found = {(min(each.first, each.second), max(each.first, each.second)) for each in twins if each.verb == verb}
    chosen = np.random.default_rng(0).permutation(1000)[:300].tolist()
    other = (mirrored(signatures) if mirror else signatures).astype(np.float64)
    scores = other @ signatures.astype(np.float64).T
    lengths = np.linalg.norm(signatures.astype(np.float64), axis=1)
    scores /= np.outer(lengths, lengths)
    known = set()
    for one in chosen:
        known |= {(min(one, k), max(one, k)) for k in range(1000) if k != one and scores[one, k] >= 0.92}
    said = next(note for note in notes if note.startswith(f"{verb!r} "))
    assert f"it found {len(known & found):,} of {len(known):,} (" in said
    assert 60 < len(known & found) < len(known)


def test_real_faces(data_folder: Path, tmp_path: Path) -> None:
    """Two of the folders are one person: four photos of one are nearly copies of photos of the other."""
    archive = data_folder / "celebrity-faces" / "aligned_112.zip"
    if not archive.is_file():
        pytest.skip(f"needs {archive}")
    with gzip.open(data_folder / "celebrity-faces" / "images.csv.gz", "rt") as file:
        splits = {row["identity"].zfill(5): row["split"] for row in csv.DictReader(io.StringIO(file.read()))}
    with zipfile.ZipFile(archive) as faces:
        for split, people in (("train", 30), ("test", 10)):
            wanted = [name for name, each in splits.items() if each == split][:people]
            wanted += ["07392", "07393"] if split == "train" else []
            with zipfile.ZipFile(tmp_path / f"{split}.zip", "w") as some:
                for name in faces.namelist():
                    if name.split("/")[0] in wanted and not name.endswith("/"):
                        some.writestr(name, faces.read(name))
    found = audit(AuditSet(tmp_path / "train.zip"), AuditSet(tmp_path / "test.zip"))
    conflicts = {each.id.split("/")[0] for each in found.lists["conflicts"]}
    assert conflicts == {"07392", "07393"} and len(found.lists["conflicts"]) == 8
    assert not found.lists["duplicates"] and not found.lists["unreadable"]
    assert not found.lists["shared-images"] and not found.lists["shared-identities"]
    assert found.card["data"]["sizes"].keys() == {"112x112"}
