"""BLUFR: a slow version of the protocol on made-up trials, ties, ranks, mean and deviation, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.decomposition import PCA

from angulus.core.checks import InputError
from angulus.core.embeddings import Embeddings
from angulus.evaluation.lists.blufr import Blufr, BlufrTrial
from angulus.evaluation.protocols import open_set as protocol
from people import crowd

CROWD = crowd(40, 5, 8, noise=0.9)
PEOPLE = np.arange(40).repeat(5)


def trial(seed: int) -> BlufrTrial:
    """Ten people to train on; of the other thirty, ten are in the gallery with their first image."""
    rng = np.random.default_rng(seed)
    people = rng.permutation(40)
    test = np.flatnonzero(np.isin(PEOPLE, people[10:]))
    gallery = rng.permutation(5 * people[10:20])
    probes = np.setdiff1d(test, gallery)
    known = np.isin(PEOPLE[probes], PEOPLE[gallery])
    return BlufrTrial(np.flatnonzero(np.isin(PEOPLE, people[:10])), test, gallery, probes[known], probes[~known])


BLUFR = Blufr(CROWD.ids, PEOPLE, tuple(trial(seed) for seed in range(4)), "made-up trials")


def cosine(vectors: np.ndarray) -> np.ndarray:
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray((unit @ unit.T).round(12))  # the rounding keeps equal pairs equal


def slow_rate(genuine: np.ndarray, impostors: np.ndarray, far: float) -> float:
    """The largest share of genuine scores over thresholds that accept no more than far · n impostors."""
    best = 0.0
    for threshold in [*np.unique(np.concatenate([genuine[np.isfinite(genuine)], impostors])), np.inf]:
        if (impostors >= threshold).sum() / len(impostors) <= far:
            best = max(best, float((genuine >= threshold).mean()))
    return best


def slow(vectors: np.ndarray, one: BlufrTrial, far: float, open_far: float, rank: int) -> tuple[float, float]:
    scores = cosine(vectors)
    pairs = [(a, b) for place, a in enumerate(one.test) for b in one.test[place + 1 :]]
    same = np.array([PEOPLE[a] == PEOPLE[b] for a, b in pairs])
    values = np.array([scores[a, b] for a, b in pairs])
    found = []
    for probe in one.genuine:
        mate = scores[probe, one.gallery[PEOPLE[one.gallery] == PEOPLE[probe]][0]]
        ahead = sum(scores[probe, row] >= mate for row in one.gallery) - 1
        found.append(mate if ahead < rank else -np.inf)
    best = np.array([max(scores[probe, row] for row in one.gallery) for probe in one.impostor])
    return slow_rate(values[same], values[~same], far), slow_rate(np.array(found), best, open_far)


@pytest.mark.parametrize(("rank", "open_far"), [(1, 0.01), (3, 0.05)])
def test_the_figures_are_those_of_the_slow_protocol(rank: int, open_far: float) -> None:
    result = protocol.evaluate(CROWD, BLUFR, fars=(1e-3,), open_set_fars=(open_far,), rank=rank)
    slowly = np.array([slow(CROWD.vectors, one, 1e-3, open_far, rank) for one in BLUFR.trials])
    assert result.samples["values"] == pytest.approx(slowly, abs=1e-12)
    names = ["VR@FAR=1e-3", f"DIR@FAR={'1e-2' if rank == 1 else '5e-2'}, rank {rank}"]
    assert result.samples["figures"].tolist() == names
    for column, name in enumerate(names):
        mean, deviation = slowly[:, column].mean(), slowly[:, column].std(ddof=1)
        assert result[name] == pytest.approx(mean)
        assert result.number(name).spread == pytest.approx(deviation)
        assert result[f"{name}, mean − deviation"] == pytest.approx(mean - deviation)


def test_by_default_the_fars_that_every_trial_supports() -> None:
    result = protocol.evaluate(CROWD, BLUFR)
    impostors = 30 * 29 // 2 * 25  # 30 people of 5 images
    assert result.counts["least impostor pairs of a trial"] == impostors
    assert result.counts["least impostor probes of a trial"] == 100
    assert result.samples["figures"].tolist() == ["VR@FAR=1e-3", "VR@FAR=1e-4", "DIR@FAR=1e-2, rank 1"]
    assert any("VR@FAR is left out" in note and "1e-5 (100,000)" in note for note in result.notes)


def test_curves_are_means_over_the_trials() -> None:
    result = protocol.evaluate(CROWD, BLUFR)
    cmc, verification, open_set = result.curves
    assert (cmc.kind, verification.kind, open_set.kind) == ("cmc", "roc", "roc")
    assert cmc.x.tolist() == list(range(1, 11))
    assert cmc.y[-1] == 1.0
    assert (np.diff(cmc.y) >= 0).all()
    assert verification.y[verification.x == 1e-3] == pytest.approx(result["VR@FAR=1e-3"])
    assert open_set.y[open_set.x == 1e-2] == pytest.approx(result["DIR@FAR=1e-2, rank 1"])


def test_a_curve_that_no_far_can_be_drawn_of_is_left_out() -> None:
    few = tuple(replace(one, impostor=one.impostor[:50]) for one in BLUFR.trials)  # 1e-2 takes a hundred
    result = protocol.evaluate(CROWD, replace(BLUFR, trials=few))
    assert [curve.name for curve in result.curves] == [
        "closed set, mean over the trials",
        "verification, mean over the trials",
    ]
    assert any("DIR@FAR is left out" in note and "1e-2 (100)" in note for note in result.notes)


def test_the_first_point_of_the_cmc_is_the_slow_count() -> None:
    shares = []
    for one in BLUFR.trials:
        scores = cosine(CROWD.vectors)[np.ix_(one.genuine, one.gallery)]
        shares.append((PEOPLE[one.gallery[scores.argmax(axis=1)]] == PEOPLE[one.genuine]).mean())
    assert protocol.evaluate(CROWD, BLUFR).curves[0].y[0] == pytest.approx(np.mean(shares))


def test_flip_and_pca_on_the_training_images() -> None:
    assert CROWD.flipped is not None
    summed = CROWD.vectors + CROWD.flipped
    result = protocol.evaluate(CROWD, BLUFR, flip="sum", pca=5, fars=(1e-3,), open_set_fars=(1e-2,))
    slowly = []
    for one in BLUFR.trials:
        turned = PCA(5, svd_solver="full").fit(summed[one.train]).transform(summed)
        slowly.append(slow(turned, one, 1e-3, 1e-2, 1))
    assert result.samples["values"] == pytest.approx(np.array(slowly), abs=1e-9)
    assert result.choices["pca"] == "5 directions, fitted on each trial's training images"


def test_copies_of_an_image_tie_and_ties_count_against() -> None:
    """All images of a person are one, and two people are one another's double: no threshold tells them apart."""
    doubles = np.where(PEOPLE % 2 == 1, PEOPLE - 1, PEOPLE)
    vectors = CROWD.vectors[doubles * 5]
    twins = Embeddings(vectors, CROWD.ids)
    result = protocol.evaluate(twins, BLUFR, fars=(1e-3,), open_set_fars=(1e-2,))
    slowly = np.array([slow(vectors, one, 1e-3, 1e-2, 1) for one in BLUFR.trials])
    assert result.samples["values"] == pytest.approx(slowly, abs=1e-12)
    assert result["VR@FAR=1e-3"] < 0.5


def test_images_that_no_trial_tests_need_no_embedding() -> None:
    tested = np.unique(np.concatenate([one.test for one in BLUFR.trials[:2]]))
    few = Embeddings(CROWD.vectors[tested], CROWD.ids[tested], source="few")
    two = replace(BLUFR, trials=BLUFR.trials[:2])
    some = protocol.evaluate(few, two, fars=(1e-3,), open_set_fars=(1e-2,))
    assert np.array_equal(
        some.samples["values"],
        protocol.evaluate(CROWD, two, fars=(1e-3,), open_set_fars=(1e-2,)).samples["values"],
    )
    assert len(tested) < 200
    with pytest.raises(InputError, match="have no embedding in few"):
        protocol.evaluate(few, two, pca=3)


def test_the_statistic_weighs_the_trials() -> None:
    result = protocol.evaluate(CROWD, BLUFR)
    statistic, units = protocol.statistic(result.samples)
    assert units.count == 4
    rows = np.array([0, 0, 2, 3])
    values = result.samples["values"][rows]
    figures = statistic(np.array([2.0, 0.0, 1.0, 1.0]))
    for column, name in enumerate(result.samples["figures"].tolist()):
        assert figures[name] == pytest.approx(values[:, column].mean())
        assert figures[f"{name}, mean − deviation"] == pytest.approx(
            values[:, column].mean() - values[:, column].std(ddof=1)
        )


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"fars": (1e-5,)}, "FAR 1e-05 needs at least 100,000 impostor pairs; got 10,875"),
        ({"open_set_fars": (1e-3,)}, r"FAR 0\.001 needs at least 1,000 impostor probes; got 100"),
        ({"rank": 0}, "rank must be a whole number >= 1; got 0"),
        ({"flip": "mean"}, "flip must be one of"),
        ({"pca": 9}, "pca must be at most the size of an embedding"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(options: dict[str, object], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        protocol.evaluate(CROWD, BLUFR, **options)  # type: ignore[arg-type]


def test_one_trial_has_no_deviation() -> None:
    with pytest.raises(InputError, match="made-up trials must hold at least two trials"):
        protocol.evaluate(CROWD, replace(BLUFR, trials=BLUFR.trials[:1]))


@pytest.mark.parametrize("kind", ["genuine", "impostor"])
def test_a_trial_without_probes_of_a_kind_is_refused(kind: str) -> None:
    bare = replace(BLUFR.trials[1], **{kind: np.empty(0, dtype=np.int64)})
    with pytest.raises(InputError, match=f"made-up trials: trial 2 has no {kind} probe; it needs both kinds"):
        protocol.evaluate(CROWD, replace(BLUFR, trials=(BLUFR.trials[0], bare)))
