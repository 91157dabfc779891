"""Retrieval and re-identification against the published logic of other packages, written as plain loops."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from angulus.core.checks import InputError
from angulus.core.embeddings import Embeddings
from angulus.evaluation.protocols import retrieval
from angulus.evaluation.protocols.differences import compare_results
from angulus.evaluation.protocols.query_sides import Chosen, defaults
from angulus.evaluation.protocols.result import Result
from angulus.evaluation.registry import PROTOCOLS
from angulus.evaluation.runners import Inputs


def made(rows: int, seed: int, classes: int = 12, **columns: Any) -> Embeddings:
    """Random vectors around classes, some with one image alone; no two score the same with a third."""
    random = np.random.default_rng(seed)
    labels = np.append(random.integers(1, classes, rows - 2), [classes + seed, 99])
    vectors = np.random.default_rng(0).standard_normal((200, 8))[labels] + random.standard_normal((rows, 8))
    return Embeddings(vectors, np.array([f"{seed}-{row}" for row in range(rows)]), labels=labels.astype(str), **columns)


def of_rows(given: Embeddings, rows: np.ndarray) -> Embeddings:
    assert given.labels is not None
    return Embeddings(given.vectors[rows], given.ids[rows], labels=given.labels[rows])


def measured(*given: Any, **options: Any) -> Result:
    return retrieval.evaluate(*given, draws=0, **options)


def cosines(first: Embeddings, second: Embeddings) -> np.ndarray:
    return np.asarray(first.unit() @ second.unit().T)


def rankings(scores: np.ndarray, used: np.ndarray, hits: np.ndarray) -> list[list[bool]]:
    """Whether each item is a match, in the order of the scores, of the queries that have one."""
    ranked = [
        [bool(hits[row, item]) for item in np.argsort(-scores[row]) if used[row, item]] for row in range(len(scores))
    ]
    return [hit for hit in ranked if any(hit)]


def test_alone_in_one_file_as_pytorch_metric_learning_counts() -> None:
    given = made(60, 1)
    same = given.labels[:, None] == given.labels  # type: ignore[index]
    sums = {"Recall@1": 0.0, "R-precision": 0.0, "MAP@R": 0.0, "mAP@5": 0.0}
    ranked = rankings(cosines(given, given), ~np.eye(60, dtype=bool), same)
    for hits in ranked:
        relevant = sum(hits)
        share = np.cumsum(hits) / np.arange(1, len(hits) + 1)
        sums["Recall@1"] += hits[0]
        sums["R-precision"] += sum(hits[:relevant]) / relevant
        sums["MAP@R"] += (share * hits)[:relevant].sum() / relevant
        sums["mAP@5"] += (share * hits)[:5].sum() / min(relevant, 5)
    got = measured(given, reported=retrieval.Figures(ks=(1,), at=5))
    assert {name: got[name] for name in sums} == pytest.approx({n: v / len(ranked) for n, v in sums.items()}, abs=1e-12)
    assert got.counts["queries"] == len(ranked) == 60 - got.counts["queries without a match"]


def test_two_files_as_torchmetrics_counts() -> None:
    queries, gallery = made(30, 2), made(90, 3)
    same = queries.labels[:, None] == gallery.labels  # type: ignore[index]
    ranked = rankings(cosines(queries, gallery), np.ones(same.shape, dtype=bool), same)
    precision = [np.mean([sum(hits[: i + 1]) / (i + 1) for i, hit in enumerate(hits) if hit]) for hits in ranked]
    got = measured(queries, gallery)
    assert got["mAP"] == pytest.approx(np.mean(precision), abs=1e-12)  # RetrievalMAP(empty_target_action="skip")
    for k in (1, 10):  # RetrievalHitRate(top_k=k)
        assert got[f"Recall@{k}"] == pytest.approx(np.mean([any(hits[:k]) for hits in ranked]), abs=1e-12)
    assert got["R-precision"] == pytest.approx(np.mean([np.mean(hits[: sum(hits)]) for hits in ranked]), abs=1e-12)


def market(seed: int = 4) -> tuple[Embeddings, Embeddings]:
    """Queries and a gallery of three cameras, with junk (-1), distractors (0) and copies of images."""
    random = np.random.default_rng(seed)
    queries, gallery = made(40, seed), made(120, seed + 1)
    gallery.vectors[100:110] = gallery.vectors[:10] * 2
    gallery.labels[100:110] = gallery.labels[:10]  # type: ignore[index]
    gallery.labels[60:70], gallery.labels[70:90] = "-1", "0"  # type: ignore[index]
    cameras = [np.array(["c1", "c2", "c3"])[random.integers(3, size=len(side))] for side in (queries, gallery)]
    cameras[1][100:110] = cameras[1][:10]
    return tuple(  # type: ignore[return-value]
        Embeddings(side.vectors, side.ids, labels=side.labels, cameras=camera)
        for side, camera in zip((queries, gallery), cameras, strict=True)
    )


def test_cameras_junk_and_distractors_as_fast_reid_counts() -> None:
    queries, gallery = market()
    assert queries.cameras is not None
    assert gallery.cameras is not None
    precision, penalty, within = [], [], {1: 0.0, 5: 0.0, 10: 0.0}
    for row, scores in enumerate(cosines(queries, gallery)):
        order = sorted(range(len(gallery)), key=lambda item: -scores[item])
        kept = []
        for item in order:
            own = gallery.labels[item] == queries.labels[row]  # type: ignore[index]
            if not (own and gallery.cameras[item] == queries.cameras[row]) and gallery.labels[item] != "-1":  # type: ignore[index]
                kept.append(bool(own))
        if not any(kept):
            continue
        found, total, last = 0, 0.0, 0
        for place, hit in enumerate(kept, start=1):
            if hit:
                found, last = found + 1, place
                total += found / place
        precision.append(total / found)
        penalty.append(found / last)
        for k in within:
            within[k] += any(kept[:k])
    got = measured(queries, gallery, kind="reid")
    assert got["mAP"] == pytest.approx(np.mean(precision), abs=1e-12)
    assert got["mINP"] == pytest.approx(np.mean(penalty), abs=1e-12)
    assert [got[f"rank-{k}"] for k in within] == pytest.approx([n / len(precision) for n in within.values()], abs=1e-12)
    assert got.counts["junk images left out"] == 10
    assert got.counts["distractors"] == 20


def test_the_trapezoid_as_oxford_counts() -> None:
    queries, gallery = made(30, 6), made(90, 7)
    same = queries.labels[:, None] == gallery.labels  # type: ignore[index]
    wanted = []
    for hits in rankings(cosines(queries, gallery), np.ones(same.shape, dtype=bool), same):
        total, found = 0.0, 0
        for rank, hit in enumerate(hits):
            if hit:
                before = 1.0 if rank == 0 else found / rank
                found += 1
                total += (before + found / (rank + 1)) / (2 * sum(hits))
        wanted.append(total)
    got = measured(queries, gallery, reported=retrieval.Figures(ap="trapezoid"))
    assert got["mAP"] == pytest.approx(np.mean(wanted), abs=1e-12)


def test_a_case_by_hand() -> None:
    """a searches b (its class), c, d: the cosines are 0.8, 0.6 and 0.8, so b ties with d."""
    vectors = np.array([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8], [0.8, -0.6]])
    given = Embeddings(vectors, np.array(list("abcd")), labels=np.array(["x", "x", "y", "z"]))
    got = measured(given)
    # b's nearest are c (0.96) and a (0.8): 1/2. a finds b first or second: (1 + 1/2) / 2. Neither c nor d has a match.
    assert got["mAP"] == pytest.approx((1 / 2 + 3 / 4) / 2)
    assert got["Recall@1"] == pytest.approx((0 + 1 / 2) / 2)
    assert got.counts == {
        "queries": 2,
        "queries without a match": 2,
        "gallery images": 4,
        "classes": 1,
        "matches": 2,
    }
    low, high = (
        measured(given, reported=retrieval.Figures(ties=ties))["mAP"] for ties in ("pessimistic", "optimistic")
    )
    assert (low, high) == pytest.approx((1 / 2, 3 / 4))
    assert any("1 of 2 queries have a match that scores the same as a non-match" in note for note in got.notes)
    assert any("mAP 0.5 to 0.75" in note for note in got.notes)
    shown = dict(zip(got.samples["shown_queries"], got.samples["shown_neighbours"].tolist(), strict=True))
    assert shown["b"] == ["c", "a", "d", *[""] * 7]
    assert (
        got.samples["shown_right"][list(got.samples["shown_queries"]).index("b")].tolist()
        == [False, True] + [False] * 8
    )


def test_passes_of_any_size_and_copies_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    queries, gallery = market()
    whole = measured(queries, gallery, kind="reid", reported=retrieval.figures("reid", at=3, single_shot=2))
    monkeypatch.setattr(retrieval, "MATES", 1)
    monkeypatch.setattr("angulus.evaluation.scoring.counts.GENUINE", 1)
    parts = measured(queries, gallery, kind="reid", reported=retrieval.figures("reid", at=3, single_shot=2))
    assert {n.name: n.value for n in whole.numbers} == pytest.approx({n.name: n.value for n in parts.numbers})
    double = [
        Embeddings(side.vectors.astype(np.float16), side.ids, labels=side.labels, cameras=side.cameras)
        for side in (queries, gallery)
    ]
    assert 0 <= measured(*double, kind="reid")["mAP"] <= 1


def test_single_shot_is_one_image_of_each_identity() -> None:
    """The chance of rank 1: one's own image is above an image of every other identity, and above all distractors."""
    queries, gallery = market()
    got = measured(queries, gallery, kind="reid", reported=retrieval.figures("reid", single_shot=100), seed=1)
    labels, chances = gallery.labels, []
    for row, scores in enumerate(cosines(queries, gallery)):
        own = (labels == queries.labels[row]) & (gallery.cameras != queries.cameras[row])  # type: ignore[index]
        if own.any():
            others = [scores[labels == name] for name in {*labels.tolist()} - {queries.labels[row], "-1", "0"}]  # type: ignore[index, union-attr]
            shares = [np.prod([np.mean(them < score) for them in others]) for score in scores[own]]
            chances.append(np.mean(shares * (scores[own] > scores[labels == "0"].max())))
    assert got["rank-1, single shot"] == pytest.approx(np.mean(chances), abs=0.02)
    assert got["rank-1, single shot"] < got["rank-10, single shot"] <= 1


def test_at_k_as_ilias_counts() -> None:
    """scikit-learn's average precision of the k nearest, times their matches over the most that there can be."""
    queries, gallery = made(30, 6), made(90, 7)
    same = queries.labels[:, None] == gallery.labels  # type: ignore[index]
    wanted = []
    for hits in rankings(cosines(queries, gallery), np.ones(same.shape, dtype=bool), same):
        near = hits[:7]
        nearest = average_precision_score(near, np.arange(len(near), 0, -1)) if any(near) else 0
        wanted.append(nearest * sum(near) / min(7, sum(hits)))
    got = measured(queries, gallery, reported=retrieval.Figures(at=7))
    assert got["mAP@7"] == pytest.approx(np.mean(wanted), abs=1e-12)


def test_order_of_tied_scores_stays_within_the_bounds() -> None:
    """Peers break ties by the order of the file."""
    random = np.random.default_rng(9)
    given = Embeddings(
        random.integers(1, 3, (60, 3)).astype(float),
        np.arange(60).astype(str),
        labels=random.integers(4, size=60).astype(str),
    )
    low, expected, high = (
        measured(given, reported=retrieval.Figures(ks=(1, 5), ties=ties))
        for ties in ("pessimistic", "expected", "optimistic")
    )
    same = given.labels[:, None] == given.labels  # type: ignore[index]
    scores = np.round(cosines(given, given), 12)
    for order in (np.arange(60), random.permutation(60)):
        ranked = [
            [bool(same[row, item]) for item in order[np.argsort(-scores[row][order], kind="stable")] if item != row]
            for row in range(60)
        ]
        counted = {
            "Recall@1": np.mean([hits[0] for hits in ranked]),
            "mAP": np.mean(
                [np.mean([sum(hits[: i + 1]) / (i + 1) for i, hit in enumerate(hits) if hit]) for hits in ranked]
            ),
            "mINP": np.mean([sum(hits) / (max(i for i, hit in enumerate(hits) if hit) + 1) for hits in ranked]),
        }
        for name, value in counted.items():
            assert low[name] < value < high[name]
            assert low[name] < expected[name] < high[name]


def test_splits_classes_intervals_and_comparison(tmp_path: Path) -> None:
    given = made(60, 8)
    splits = np.array(["query", "gallery", "train"])[np.arange(60) % 3]
    one = Embeddings(given.vectors, given.ids, labels=given.labels, splits=splits)
    one.write(tmp_path / "e.npz")
    got = PROTOCOLS["retrieval"].run(Inputs(images=tmp_path / "e.npz", options={"draws": 20, "per_class": True}))
    parts = {name: of_rows(given, splits == name) for name in ("query", "gallery", "train")}
    two = measured(parts["query"], parts["gallery"])
    assert got["mAP"] == two["mAP"]
    assert got.number("mAP").interval is not None
    names = [name for name in got.samples["classes"] if any(n.name == f"mAP, {name}" for n in got.numbers)]
    weights = [got.samples["trials"][0][list(got.samples["classes"]).index(name)] for name in names]
    assert np.average([got[f"mAP, {name}"] for name in names], weights=weights) == pytest.approx(got["mAP"])
    assert measured(one, chosen=Chosen(split="train"))["mAP"] == measured(parts["train"])["mAP"]
    got.save(tmp_path / "r.json")
    again = Result.read(tmp_path / "r.json")
    assert compare_results(again, again, draws=5)["mAP"] == 0


def test_all_equal() -> None:
    """One vector everywhere: the match is anywhere among the gallery with equal probability."""
    count = 10**5
    gallery = Embeddings(
        np.ones((count, 1), dtype=np.float16),
        np.arange(count).astype(str),
        labels=np.where(np.arange(count) == 5, "a", "b"),
    )
    got = measured(Embeddings(np.ones((1, 1)), np.array(["q"]), labels=np.array(["a"])), gallery)
    assert got["Recall@100"] == pytest.approx(1e-3)


BAD: dict[str, tuple[Any, dict[str, Any], str]] = {
    "labels": ({"labels": None}, {}, "must say the class of each image"),
    "match": (
        {"labels": np.array(list("abcd"))},
        {},
        "no query has a match in the gallery, .*: no two images are of one",
    ),
    "cameras": ({"cameras": np.array(list("1122"))}, {}, "has cameras; say whether"),
    "rule": ({}, {"camera_rule": True}, "needs the column cameras"),
    "one camera": (
        {"cameras": np.array(list("1111"))},
        {"camera_rule": True},
        "no query has a match that another camera took, .* or turn the rule off with --no-camera-rule",
    ),
    "unknown camera": ({"cameras": np.array(["", *"112"])}, {"camera_rule": True}, "2 have none"),
    "no splits": ({}, {"split": "test"}, "has no column splits"),
    "splits": ({"splits": np.array(["a", "a", "b", "b"])}, {}, "has the splits 'a', 'b'; name one with --split"),
    "split": ({"splits": np.array(["a", "a", "b", "b"])}, {"split": "c"}, "has no split 'c'"),
    "queries": ({}, {"queries": "a"}, "queries and gallery each name a split and go together"),
    "both": ({}, {"queries": "a", "gallery": "b", "split": "c"}, "split names the only split"),
    "junk": ({}, {"junk": "x"}, "no query may have the label 'x', which stands for junk; 2 have it"),
    "unknown": ({"labels": np.array([""] * 4)}, {}, "must hold a query of a known class"),
}


@pytest.mark.parametrize("case", BAD)
def test_refusals(case: str) -> None:
    columns, chosen, message = BAD[case]
    columns = {"labels": np.array(list("xxyy"))} | columns
    vectors = np.random.default_rng(0).standard_normal((4, 3))
    with pytest.raises(InputError, match=message):
        measured(Embeddings(vectors, np.array(list("abcd")), **columns), chosen=defaults("retrieval", **chosen))


def test_classes_have_a_table_of_their_own() -> None:
    """x finds its match first; of y, one image finds its match and the other finds an x."""
    vectors = np.array([[1, 0], [0.99, 0.1], [0, 1], [0.8, 0.6]])
    rows = Embeddings(vectors, np.array(list("abcd")), labels=np.array(list("xxyy")))
    result = measured(rows, reported=retrieval.Figures(ks=(1,), per_class=True))
    found = result.by_class()
    assert {name: row["Recall@1"] for name, row in found.items()} == {"y": 0.5, "x": 1.0}
    assert list(found) == ["y", "x"] and "Recall@1, x" not in [number.name for number in result.overall()]
    assert measured(rows).by_class() == {}


def test_refusals_of_two_files() -> None:
    vectors, ids = np.eye(4), np.array(list("abcd"))
    numbers = Embeddings(vectors, ids, labels=np.array(list("1122")))
    with pytest.raises(InputError, match="labels look like '1' and the gallery's like 'ann'"):
        measured(numbers, Embeddings(vectors, np.array(list("efgh")), labels=np.array(["ann"] * 4)))
    with pytest.raises(InputError, match="an image in both files must have one label; 1 differ, first 'd': '2'"):
        measured(numbers, Embeddings(vectors, ids, labels=np.array(list("1121"))))
    with pytest.raises(InputError, match="splits choose within one file"):
        measured(numbers, numbers, chosen=Chosen(split="test"))
    both = measured(numbers, numbers)
    assert "4 queries are in the gallery" in both.notes[0] or any("4 queries are in" in note for note in both.notes)
    assert both["mAP"] == measured(numbers)["mAP"]
    with pytest.raises(InputError, match="per_class shows at most 200 classes; the queries have 300"):
        many = np.repeat(np.arange(300), 2).astype(str)
        rows = Embeddings(np.random.default_rng(0).standard_normal((600, 4)), np.arange(600).astype(str), labels=many)
        measured(rows, reported=retrieval.Figures(per_class=True))


def test_a_gallery_of_one_class_gets_a_warning() -> None:
    given = made(60, 1)
    one = of_rows(given, np.flatnonzero(given.labels == "3"))
    said = "warning: the gallery shows one class alone: every model finds a match first; add images of others"
    assert measured(one).notes[0] == said and measured(one)["Recall@1"] == 1
    assert said not in measured(given).notes
