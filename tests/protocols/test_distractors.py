"""MegaFace and Trillion-Pairs: slow versions over full score matrices, planted answers, noise, and what is refused."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from angulus.core.checks import InputError
from angulus.core.embeddings import Embeddings
from angulus.evaluation.lists.megaface import FeatureList
from angulus.evaluation.protocols import sides
from angulus.evaluation.protocols.distractors import megaface
from angulus.evaluation.protocols.trillion_pairs import evaluate as trillion_pairs
from angulus.evaluation.scoring import ScoringOptions
from people import crowd


def strangers(count: int, size: int = 8, seed: int = 5) -> Embeddings:
    vectors = np.random.default_rng(seed).normal(size=(count, size))
    return Embeddings(
        vectors, np.array([f"d{place}" for place in range(count)]), source="distractors", flipped=-vectors
    )


def only(embeddings: Embeddings, rows: list[int] | np.ndarray, **changes: object) -> Embeddings:
    """Some rows, as embeddings of their own."""
    columns = {
        name: None if getattr(embeddings, name) is None else getattr(embeddings, name)[rows]
        for name in ("vectors", "ids", "labels", "groups", "flipped")
    }
    return replace(embeddings, **{**columns, **changes})  # type: ignore[arg-type]


PROBES = only(crowd(9, 4, 8, noise=0.6), np.setdiff1d(np.arange(36), [1, 2, 3, 7]))  # one person has one photo only
DISTRACTORS = strangers(130)


def cosine(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    one, other = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (first, second))
    return np.asarray((one @ other.T).round(12))  # the rounding keeps equal pairs equal


def slow_rate(genuine: list[float], impostors: list[float], far: float) -> float:
    """The largest share of genuine scores over thresholds that accept no more than far of the impostors."""
    best = 0.0
    for threshold in [*genuine, *impostors]:
        if sum(score >= threshold for score in impostors) / len(impostors) <= far:
            best = max(best, sum(score >= threshold for score in genuine) / len(genuine))
    return best


def slow_megaface(probes: Embeddings, distractors: Embeddings, k: int, size: int) -> float:
    own, far = cosine(probes.vectors, probes.vectors), cosine(probes.vectors, distractors.vectors)
    found = []
    for p, m in itertools.permutations(range(len(probes)), 2):
        if probes.labels[p] == probes.labels[m]:  # type: ignore[index]
            ahead = sum(far[p, d] >= own[p, m] for d in range(size))
            found.append(1 + ahead <= k)
    return float(np.mean(found))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_megaface_is_the_slow_protocol(precision: str) -> None:
    result = megaface(
        PROBES, DISTRACTORS, ranks=(1, 5), fars=(1e-3, 0.05), draws=0, options=ScoringOptions(precision=precision)
    )
    for size, shown in ((10, "10"), (100, "100"), (130, "130")):
        for k in (1, 5):
            assert result[f"rank-{k}, {shown} distractors"] == pytest.approx(
                slow_megaface(PROBES, DISTRACTORS, k, size)
            )
    own, far = cosine(PROBES.vectors, PROBES.vectors), cosine(PROBES.vectors, DISTRACTORS.vectors)
    labels = PROBES.labels.tolist()  # type: ignore[union-attr]
    genuine = [own[a, b] for a, b in itertools.combinations(range(len(PROBES)), 2) if labels[a] == labels[b]]
    for rate, shown in ((1e-3, "1e-3"), (0.05, "5e-2")):
        number = result.number(f"TAR@FAR={shown}")
        assert number.value == pytest.approx(slow_rate(genuine, far.ravel().tolist(), rate))
        assert number.threshold is not None
        assert (far.ravel() > number.threshold + 1e-9).mean() <= rate  # scores are rounded here
        assert (far.ravel() > number.threshold - 1e-9).mean() > rate  # and a lower threshold would accept too many
    assert result.counts == {
        "people": 9,
        "probes": 32,
        "distractors": 130,
        "searches": 2 * len(genuine),
        "genuine pairs": len(genuine),
        "impostor pairs": 32 * 130,
    }
    assert any("1 people have one photo" in note for note in result.notes)


def planted() -> tuple[Embeddings, Embeddings]:
    """Two photos of a person at a cosine of 0.8; distractor r is at 1 − r/10 to the first, 0.8 of that to the other.

    Each has an axis of its own next to the first photo's, so that the cosines are those of the first coordinate.
    """

    def at(cosine: float, axis: int) -> np.ndarray:
        vector = np.zeros(30)
        vector[0], vector[axis] = cosine, np.sqrt(1 - cosine**2)
        return vector

    photos = np.array([at(1.0, 1), at(0.8, 1)])
    probes = Embeddings(photos, np.array(["a/1", "a/2"]), labels=np.array(["a", "a"]), source="planted")
    others = np.array([at(1 - rank / 10, 2 + rank) for rank in range(20)])
    return probes, Embeddings(others, np.array([f"d{rank}" for rank in range(20)]), source="planted distractors")


def test_planted_ranks() -> None:
    """Photo 1 has 1, 0.9 and 0.8 (a tie) ahead of its mate at 0.8: rank 4. Photo 2 has 0.8 · 1, a tie: rank 2."""
    probes, others = planted()
    result = megaface(probes, others, ranks=(1, 2, 3, 4), draws=0, fars=(0.05, 0.1))
    assert [result[f"rank-{k}, 20 distractors"] for k in (1, 2, 3, 4)] == [0.0, 0.5, 0.5, 1.0]
    assert [result[f"rank-{k}, 10 distractors"] for k in (1, 2, 3, 4)] == [0.0, 0.5, 0.5, 1.0]
    cmc = next(curve for curve in result.curves if curve.name == "20 distractors")
    assert cmc.x.tolist() == [1, 2, 4, 21]
    assert cmc.y.tolist() == [0.0, 0.5, 1.0, 1.0]
    # impostor scores from the top: 1, 0.9, 0.8 (photo 1) and 0.8 (photo 2), 0.72, ...: two of 40 may pass at 0.05
    assert result["TAR@FAR=5e-2"] == 0.0  # the third highest is the genuine score
    assert result["TAR@FAR=1e-1"] == 1.0  # four may pass, so 0.8 does


def test_all_distractors_ahead_and_none_ahead() -> None:
    copies = only(PROBES, np.arange(4, 8))
    everyone = Embeddings(np.repeat(copies.vectors, 5, axis=0), np.array([f"d{n}" for n in range(20)]), source="copies")
    same = replace(copies, vectors=np.repeat(copies.vectors[:1], 4, axis=0), labels=np.array(["x"] * 4))
    assert megaface(same, everyone, ranks=(5, 6), draws=0)["rank-5, 20 distractors"] == 0.0  # five copies tie
    assert megaface(same, everyone, ranks=(5, 6), draws=0)["rank-6, 20 distractors"] == 1.0
    opposite = replace(everyone, vectors=-everyone.vectors)
    assert megaface(same, opposite, ranks=(1,), draws=0)["rank-1, 20 distractors"] == 1.0


def test_lists_choose_order_and_leave_noise_out() -> None:
    people = PROBES.labels
    assert people is not None
    kept = FeatureList(PROBES.ids, people, "probe list").without(np.array([str(PROBES.ids[4])]))
    backwards = DISTRACTORS.ids[::-1]
    others = FeatureList(backwards, None, "distractor list").without(np.array([str(name) for name in backwards[:3]]))
    result = megaface(replace(PROBES, labels=None), DISTRACTORS, lists=(kept, others), draws=0)
    expected = megaface(only(PROBES, np.delete(np.arange(32), 4)), only(DISTRACTORS, np.arange(130)[::-1][3:]), draws=0)
    assert [(n.name, n.value) for n in result.numbers] == [(n.name, n.value) for n in expected.numbers]
    assert result.counts == expected.counts
    unnamed = FeatureList(kept.ids, None, "probe list")
    assert (
        megaface(PROBES, DISTRACTORS, lists=(unnamed, others), draws=0)["rank-1, 10 distractors"]
        == (expected["rank-1, 10 distractors"])
    )


def toy(share: float = 0.14) -> tuple[Embeddings, Embeddings, np.ndarray]:
    """People whose photos lie well together, but for a share that shows anybody; distractors; the noisy ids."""
    rng = np.random.default_rng(0)
    people, photos, size = 20, 6, 32
    labels = np.repeat(np.arange(people), photos)
    vectors = rng.normal(size=(people, size))[labels] + 0.62 * rng.normal(size=(len(labels), size))
    noisy = np.sort(rng.permutation(len(labels))[: round(share * len(labels))])
    vectors[noisy] = rng.normal(size=(len(noisy), size))
    ids = np.array([f"p{label}/{place}" for place, label in enumerate(labels)])
    probes = Embeddings(vectors, ids, labels=labels.astype(str), source="probes")
    return probes, strangers(200, size), ids[noisy]


def test_noisy_probes_are_removed_or_replaced_as_asked() -> None:
    """Noise costs ranks; both rules get them back, but a replaced photo is easier to find than a real one."""
    probes, others, noisy = toy()
    lists = FeatureList(probes.ids, probes.labels, "probes"), FeatureList(others.ids, None, "distractors")
    figures = {}
    for rule, noises in (("none", None), ("remove", noisy), ("replace", noisy)):
        rule_of = {} if noises is None else {"noise_rule": rule}
        result = megaface(probes, others, lists=lists, noises=(noises, None), draws=0, **rule_of)
        figures[rule] = result["rank-1, 200 distractors"]
        assert any("no list of noise is given" in note for note in result.notes) == (noises is None)
    bad = np.isin(probes.ids, noisy)
    vectors = probes.vectors.copy()
    for row in np.flatnonzero(bad):
        clean = [
            probes.vectors[other] / np.linalg.norm(probes.vectors[other])
            for other in range(len(probes))
            if probes.labels[other] == probes.labels[row] and not bad[other]  # type: ignore[index]
        ]
        vectors[row] = np.mean(clean, axis=0)
    by_hand = {
        "none": slow_megaface(probes, others, 1, 200),
        "remove": slow_megaface(only(probes, np.flatnonzero(~bad)), others, 1, 200),
        "replace": slow_megaface(replace(probes, vectors=vectors), others, 1, 200),
    }
    assert figures == pytest.approx(by_hand)
    assert figures["none"] < 0.8 < 0.9 < figures["remove"] < figures["replace"] < 1


def test_what_became_of_noise_is_said() -> None:
    probes, others, noisy = toy()
    lists = FeatureList(probes.ids, probes.labels, "probes"), FeatureList(others.ids, None, "distractors")
    result = megaface(probes, others, lists=lists, noises=(noisy, others.ids[:3]), draws=0)
    assert result.choices["noisy probes"] == f"{len(noisy)} removed"
    assert result.choices["noisy distractors"] == "3 removed"
    assert result.counts["distractors"] == 197
    alone = probes.ids[:6]  # all photos of one person: nothing to replace them by
    result = megaface(probes, others, lists=lists, noises=(alone, None), noise_rule="replace", draws=0)
    assert result.choices["noisy probes"] == (
        "0 replaced by the mean of the person's others (6 of people without another photo removed)"
    )
    assert result.counts["people"] == 19
    with pytest.raises(InputError, match="noises need lists; give the lists"):
        megaface(probes, others, noises=(noisy, None))
    with pytest.raises(InputError, match="noise_rule must be one of 'remove', 'replace'; got 'mean'"):
        megaface(probes, others, lists=lists, noises=(noisy, None), noise_rule="mean")


def test_flip_adds_the_mirrored_vectors() -> None:
    assert PROBES.flipped is not None
    turned = replace(DISTRACTORS, flipped=DISTRACTORS.vectors)
    summed = replace(PROBES, vectors=PROBES.vectors + PROBES.flipped)
    result = megaface(PROBES, turned, flip="sum", draws=0)
    assert [n.value for n in result.numbers] == [n.value for n in megaface(summed, turned, draws=0).numbers]
    assert result.choices["flip"] == "sum with the mirrored image's"


def test_intervals_draw_people() -> None:
    result = megaface(PROBES, DISTRACTORS, draws=300, seed=1)
    rank = result.number("rank-1, 130 distractors")
    assert rank.interval is not None
    assert rank.interval.low < rank.value < rank.interval.high
    figures, units = sides.statistic(result.samples)
    assert units.count == 9
    drawn = np.array([0, 2, 0, 1, 0, 0, 0, 0, 3.0])
    names = np.unique(PROBES.labels)  # type: ignore[arg-type]
    found, tried = 0.0, 0.0
    for person, times in enumerate(drawn):
        rows = np.flatnonzero(PROBES.labels == names[person])
        if times:
            searches = len(rows) * (len(rows) - 1)
            found += times * searches * slow_megaface(only(PROBES, rows), DISTRACTORS, 1, 130)
            tried += times * searches
    assert figures(drawn)["rank-1, 130 distractors"] == pytest.approx(found / tried)


def halves(embeddings: Embeddings, unknown: list[str]) -> tuple[Embeddings, Embeddings]:
    """The first photo of everybody but the unknown, and distractors, in the gallery; the other photos as probes."""
    labels = embeddings.labels
    assert labels is not None
    first = [row for row, label in enumerate(labels) if label not in labels[:row] and label not in unknown]
    enrolled = only(embeddings, first)
    assert enrolled.labels is not None
    others = strangers(60, seed=6)
    held = Embeddings(
        np.concatenate([enrolled.vectors, others.vectors]),
        np.concatenate([enrolled.ids, others.ids]),
        labels=np.concatenate([enrolled.labels, others.ids]),
        source="gallery",
    )
    return only(embeddings, np.setdiff1d(np.arange(len(embeddings)), first)), held


@pytest.mark.parametrize("unknown", [[], ["0"], ["0", "3", "4"]])
@pytest.mark.parametrize("noise", [0.4, 1.0])
def test_trillion_pairs_is_the_slow_protocol(unknown: list[str], noise: float) -> None:
    probes, held = halves(crowd(9, 4, 8, noise=noise), unknown)
    result = trillion_pairs(probes, held, fars=(1e-2, 0.1), search_fars=(0.25,), draws=0)
    scores = cosine(probes.vectors, held.vectors)
    same = np.equal.outer(probes.labels, held.labels)
    for rate, shown in ((1e-2, "1e-2"), (0.1, "1e-1")):
        expected = slow_rate(scores[same].tolist(), scores[~same].tolist(), rate)
        assert result[f"TAR@FAR={shown}"] == pytest.approx(expected)
    best = [max(scores[p][~same[p]]) for p in range(len(probes))]
    alarms = [best[p] for p in range(len(probes)) if not unknown or not same[p].any()]
    found = []
    for p in range(len(probes)):
        if same[p].any():
            own = max(scores[p][same[p]])
            found.append(own if own > best[p] else -2.0)
    assert result["rank-1"] == pytest.approx(np.mean([score > -2 for score in found]))
    tpr = result.number("TPR@FAR=2.5e-1")
    assert tpr.value == pytest.approx(
        max(
            np.mean([score >= t for score in found])
            for t in [*alarms, *(s for s in found if s > -2), 2.0]
            if np.mean([alarm >= t for alarm in alarms]) <= 0.25
        )
    )
    assert result.choices["impostor probes"] == (
        "those not in the gallery" if unknown else "all, without their own images"
    )
    assert result.counts["impostor pairs"] == int((~same).sum())
    assert result.counts["genuine pairs"] == int(same.sum())
    assert result.counts["impostor probes"] == len(alarms)


@pytest.mark.parametrize("labels", [None, np.array([""] * 130), np.array(["stranger"] * 130)])
def test_a_gallery_of_distractors_only(labels: np.ndarray | None) -> None:
    """Trillion-Pairs' own layout: each image of a genuine pair is looked for among its mate and the distractors."""
    gallery = replace(DISTRACTORS, labels=labels)
    result = trillion_pairs(PROBES, gallery, fars=(1e-3, 0.05), search_fars=(0.25,), draws=0)
    own, far = cosine(PROBES.vectors, PROBES.vectors), cosine(PROBES.vectors, DISTRACTORS.vectors)
    people = PROBES.labels.tolist()  # type: ignore[union-attr]
    mates = [(p, m) for p, m in itertools.permutations(range(len(PROBES)), 2) if people[p] == people[m]]
    genuine = [own[p, m] for p, m in mates]
    for rate, shown in ((1e-3, "1e-3"), (0.05, "5e-2")):
        assert result[f"TAR@FAR={shown}"] == pytest.approx(slow_rate(genuine, far.ravel().tolist(), rate))
    found = [own[p, m] if own[p, m] > far[p].max() else -2.0 for p, m in mates]
    assert result["rank-1"] == pytest.approx(np.mean([score > -2 for score in found]))
    assert result["TPR@FAR=2.5e-1"] == pytest.approx(slow_rate(found, far.max(axis=1).tolist(), 0.25))
    assert result.choices["genuine pairs"].startswith("of the probes among themselves")
    counted = {"searches": len(mates), "genuine pairs": len(mates) // 2, "impostor pairs": 32 * 130}
    assert {name: result.counts[name] for name in counted} == counted
    assert any("1 people have one photo" in note for note in result.notes)


def test_a_tie_with_another_person_is_not_rank_1() -> None:
    probes = Embeddings(np.eye(3)[:2], np.array(["p0", "p1"]), labels=np.array(["a", "b"]), source="probes")
    held = Embeddings(
        np.array([[1.0, 0, 0], [1.0, 0, 0], [0, 1.0, 0]]),
        np.array(["g0", "g1", "g2"]),
        labels=np.array(["a", "x", "b"]),
        source="gallery",
    )
    result = trillion_pairs(probes, held, fars=(0.25, 0.5), search_fars=(0.5,), draws=0)
    assert result["rank-1"] == 0.5
    assert result["TAR@FAR=2.5e-1"] == 1.0  # one impostor pair of four may score as high as the genuine ones
    assert result["TPR@FAR=5e-1"] == 0.5


def test_standard_fars_are_those_that_the_pairs_support() -> None:
    probes, held = halves(crowd(9, 4, 8), [])
    result = trillion_pairs(probes, held, draws=0)
    assert [number.name for number in result.numbers] == ["rank-1"]
    assert any("1e-9 (1,000,000,000)" in note for note in result.notes)
    assert any("1e-3 (1,000)" in note and "impostor probes" in note for note in result.notes)
    names = [number.name for number in megaface(PROBES, DISTRACTORS, draws=0).numbers]
    assert not any("TAR" in name for name in names)  # 4,160 impostor pairs


def test_trillion_pairs_intervals_draw_people() -> None:
    probes, held = halves(crowd(9, 4, 8, noise=1.0), ["0"])
    result = trillion_pairs(probes, held, fars=(1e-2,), search_fars=(0.5,), draws=200)
    for number in result.numbers:
        assert number.interval is not None
        assert number.interval.low <= number.value <= number.interval.high
    figures, _ = sides.statistic(result.samples)
    assert figures(np.eye(9)[0]) == {}  # the one who is not in the gallery has no genuine pair
    assert set(figures(np.eye(9)[1])) == {"rank-1", "TAR@FAR=1e-2", "TPR@FAR=5e-1"}


CROWD = crowd(3, 2, 8)


@pytest.mark.parametrize(
    ("run", "sentence"),
    [
        (lambda: megaface(replace(CROWD, labels=None), DISTRACTORS), "crowd must say who each image shows"),
        (lambda: megaface(only(CROWD, [0, 2]), DISTRACTORS), "crowd must hold two photos of a person"),
        (lambda: megaface(CROWD, CROWD), "an image must not be in both crowd and crowd; 6 are, 'p0/0' first"),
        (lambda: megaface(CROWD, DISTRACTORS, ranks=(0,)), "rank must be a whole number >= 1; got 0"),
        (
            lambda: megaface(CROWD, DISTRACTORS, fars=(1e-3,)),
            r"FAR 0\.001 needs at least 1,000 impostor pairs; got 780",
        ),
        (
            lambda: megaface(CROWD, strangers(20, 5), draws=0),
            "crowd and distractors must be of one model; their vectors have 8 and 5",
        ),
        (lambda: trillion_pairs(replace(CROWD, labels=None), DISTRACTORS), "crowd must say who each image shows"),
        (
            lambda: trillion_pairs(only(CROWD, [0, 2]), DISTRACTORS),
            "crowd must hold two images of an identity, or distractors an identity of it; they hold none",
        ),
        (
            lambda: trillion_pairs(only(CROWD, [0]), only(CROWD, [1], source="gallery")),
            "gallery must hold another identity than the probes' of crowd; it holds none",
        ),
        (
            lambda: trillion_pairs(*halves(CROWD, []), search_fars=(0.1,)),
            r"FAR 0\.1 needs at least 10 impostor probes; got 3",
        ),
    ],
)
def test_what_cannot_be_evaluated_is_refused(run: object, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        run()  # type: ignore[operator]
