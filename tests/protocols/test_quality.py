"""Quality: splits, bins, what changed, discard and degradation; slow loops, planted answers, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from angulus.core.checks import InputError
from angulus.core.embeddings import Embeddings
from angulus.evaluation.lists.pair_list import PairList
from angulus.evaluation.metrics.curves import error_curve
from angulus.evaluation.metrics.verification import best_threshold, kfold_accuracy, tar_at_far
from angulus.evaluation.protocols import degradation, error_discard, quality, scored
from angulus.evaluation.protocols.differences import PROTOCOLS
from angulus.evaluation.protocols.quality import Judged
from angulus.evaluation.protocols.result import Result

RANDOM = np.random.default_rng(0)


def pair_set(seed: int = 0, people: int = 24, folds: int = 3) -> tuple[Embeddings, PairList]:
    """Three images a person, worse ones with smaller norms; genuine and impostor pairs within each fold."""
    random = np.random.default_rng(seed)
    ids, vectors = [], []
    for person in range(people):
        centre = random.normal(size=8)
        for image in range(3):
            good = random.random()
            unit = centre / np.linalg.norm(centre) + (1.2 - good) * random.normal(size=8) / 2
            ids.append(f"P{person:02d}/{image}.jpg")
            vectors.append(unit / np.linalg.norm(unit) * (5 + 20 * good))
    rows = []
    for person in range(people):
        other = (person + folds) % people  # of the same fold
        rows += [(person, i, person, j, person % folds) for i, j in ((0, 1), (0, 2), (1, 2))]
        rows += [(person, i, other, j, person % folds) for i in range(3) for j in range(3)]
    left, right = (np.array([f"P{row[k]:02d}/{row[k + 1]}.jpg" for row in rows]) for k in (0, 2))
    first, second = (np.char.partition(side, "/")[:, 0] for side in (left, right))
    pairs = PairList(
        left, right, first == second, np.array([row[4] for row in rows]), first, second, source="pairs.txt"
    )
    return Embeddings(np.array(vectors), np.array(ids), source="model.npz"), pairs


def samples_of(count: int = 50, seed: int = 0, source: str = "a") -> Judged:
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 5
    return Judged(random.random(count) < 0.7, random.gamma(4, 2, count), {"labels": labels}, source)


def test_pairs_are_judged_at_the_other_folds_thresholds() -> None:
    embeddings, pairs = pair_set()
    given = quality.judge_pairs(embeddings, pairs)
    rows = {name: row for row, name in enumerate(embeddings.ids.tolist())}
    scores, norms = [], []
    for a, b in zip(pairs.left.tolist(), pairs.right.tolist(), strict=True):
        x, y = embeddings.vectors[rows[a]], embeddings.vectors[rows[b]]
        scores.append(float(x @ y / np.linalg.norm(x) / np.linalg.norm(y)))
        norms.append(min(np.linalg.norm(x), np.linalg.norm(y)))
    folds = kfold_accuracy(scores, pairs.same, pairs.folds)
    for fold in range(3):
        member = pairs.folds == fold
        assert given.correct[member].mean() == pytest.approx(folds.accuracies[fold])
    assert given.norms == pytest.approx(np.array(norms))
    assert given.unit == "people"
    assert scored.units_of(given.samples).count == 24


def test_without_folds_one_threshold_serves_all() -> None:
    embeddings, pairs = pair_set()
    given = quality.judge_pairs(embeddings, PairList(pairs.left, pairs.right, pairs.same))
    scores = [
        float(embeddings.unit(embeddings.rows([a], ""))[0] @ embeddings.unit(embeddings.rows([b], ""))[0])
        for a, b in zip(pairs.left, pairs.right, strict=True)
    ]
    assert given.correct.mean() == pytest.approx(best_threshold(scores, pairs.same)[1])
    assert given.unit == "samples"


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"correct": np.ones(3, dtype=bool)}, r"must be \[N\] each with N >= 1; got shapes \[3\], \[2\]"),
        ({"columns": {"labels": np.arange(3)}}, r"got shapes \[2\], \[2\], \[3\]"),
        ({"correct": np.ones(2)}, "correct must be bool"),
        ({"norms": np.array([1.0, -1.0])}, "norms finite numbers >= 0"),
        ({"norms": np.array([1.0, math.nan])}, "norms finite numbers >= 0"),
        ({"correct": np.ones(0, dtype=bool), "norms": np.ones(0)}, "N >= 1"),
    ],
)
def test_samples_that_are_refused(fields: dict[str, object], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        Judged(**{"correct": np.ones(2, dtype=bool), "norms": np.ones(2), **fields})  # type: ignore[arg-type]


def test_other_samples_are_refused() -> None:
    for other, sentence in (
        (samples_of(40, source="b"), "a and b must be of the same samples in the same order; got 50 and 40"),
        (
            Judged(np.ones(50, bool), np.ones(50), {"labels": np.zeros(50, int)}, "b"),
            "labels differs first at 1: 1 and 0",
        ),
        (Judged(np.ones(50, bool), np.ones(50), {}, "b"), "got labels in one of them only"),
    ):
        with pytest.raises(InputError, match=sentence):
            quality.evaluate(samples_of(), other)
        with pytest.raises(InputError):
            quality.evaluate_changes(other, samples_of())


def test_the_split_is_the_one_of_a_slow_loop() -> None:
    given, reference = samples_of(seed=1), samples_of(seed=2, source="softmax")
    result = quality.evaluate(given, reference, low_fraction=0.3, draws=0)
    for name, norms in (("", reference.norms), (" (own norms)", given.norms)):
        low = sorted(range(50), key=lambda row: (norms[row], row))[:15]
        good = [row for row in range(50) if row not in low]
        for part, rows in (("low", low), ("good", good)):
            assert result[f"accuracy, {part}{name}"] == pytest.approx(
                sum(given.correct[row] for row in rows) / len(rows)
            )
            assert result[f"mean norm, {part}{name}"] == pytest.approx(
                sum(given.norms[row] for row in rows) / len(rows)
            )
    assert result["accuracy, entire"] == pytest.approx(given.correct.mean())
    assert dict(result.counts) == {"good": 35, "low": 15, "entire": 50}
    assert result.choices["split by"] == "norms of softmax"
    assert quality.evaluate(given, draws=0).choices["split by"] == "own norms"


def test_people_are_drawn_not_pairs() -> None:
    embeddings, pairs = pair_set()
    result = quality.evaluate(quality.judge_pairs(embeddings, pairs), draws=100, seed=4)
    random = np.random.default_rng(4)
    given = quality.judge_pairs(embeddings, pairs)
    names = np.unique(pairs.left_identity)
    first, second = (np.searchsorted(names, side) for side in (pairs.left_identity, pairs.right_identity))
    found = []
    for _ in range(100):
        drawn = random.multinomial(24, np.full(24, 1 / 24))
        weights = np.where(first == second, drawn[first], drawn[first] * drawn[second])
        found.append((given.correct * weights).sum() / weights.sum())
    interval = result.number("accuracy, entire").interval
    assert interval is not None
    assert (interval.low, interval.high) == pytest.approx(tuple(np.percentile(found, [2.5, 97.5])))


def test_bins_are_those_of_a_slow_loop() -> None:
    given = samples_of(60, 3)
    result = quality.evaluate_bins(given, 4, edges="width", draws=0)
    low, high = given.norms.min(), given.norms.max()
    edges = [low + (high - low) * k / 4 for k in range(5)]
    for k in range(4):
        inside = [
            bool(correct)
            for correct, norm in zip(given.correct, given.norms, strict=True)
            if edges[k] <= norm and (norm < edges[k + 1] or k == 3)
        ]
        assert result.counts[f"in bin {k}"] == len(inside)
        if inside:
            name = next(n.name for n in result.numbers if n.name.startswith(f"accuracy, bin {k} "))
            assert result[name] == pytest.approx(sum(inside) / len(inside))
            assert name[-1] == (")" if k < 3 else "]")  # the highest norm lies in the last bin
    assert [quality.evaluate_bins(given, draws=0).counts[f"in bin {k}"] for k in range(10)] == [6] * 10


def test_a_bin_without_samples_has_no_accuracy_and_a_note_says_so() -> None:
    given = Judged(np.array([True, False, True]), np.array([0.0, 0.1, 10.0]))
    result = quality.evaluate_bins(given, 3, edges="width", draws=10)
    assert [number.name.split(" [")[0] for number in result.numbers] == ["accuracy, bin 0", "accuracy, bin 2"]
    assert result.notes[0] == "1 bins hold no sample and have no accuracy"
    assert result.notes[1].startswith("no interval of accuracy, bin 2")  # its one sample is often not drawn


def test_who_changed() -> None:
    """FI Table 5 in small: ten samples, of which two are fixed and one is broken."""
    before = Judged(np.array([True] * 5 + [False] * 5), np.arange(10.0), source="softmax")
    after = Judged(np.array([True] * 4 + [False] + [True] * 2 + [False] * 3), 10 + np.arange(10.0), source="rn")
    result = quality.evaluate_changes(before, after, draws=0)
    expected = {
        "right before": (5, 2.0, None),
        "wrong before": (5, 7.0, None),
        "right after": (6, None, (0 + 1 + 2 + 3 + 5 + 6) / 6 + 10),
        "wrong after": (4, None, (4 + 7 + 8 + 9) / 4 + 10),
        "fixed": (2, 5.5, 15.5),
        "broken": (1, 4.0, 14.0),
        "right in both": (4, 1.5, 11.5),
        "wrong in both": (3, 8.0, 18.0),
    }
    for name, (count, norm_before, norm_after) in expected.items():
        assert result.counts[name] == count
        assert result[f"share {name}"] == count / 10
        names = [number.name for number in result.numbers]
        for when, norm in (("before", norm_before), ("after", norm_after)):
            if norm is None:
                assert f"mean norm {when}, {name}" not in names
            else:
                assert result[f"mean norm {when}, {name}"] == pytest.approx(norm)
    assert result["share fixed"] - result["share broken"] == pytest.approx(after.correct.mean() - before.correct.mean())
    assert result.about["embeddings"] == "rn" and result.about["embeddings before"] == "softmax"


def test_nothing_changes_between_a_model_and_itself() -> None:
    result = quality.evaluate_changes(samples_of(), samples_of(), draws=10)
    assert result["share fixed"] == result["share broken"] == 0
    assert result.notes == (
        "no sample is fixed, broken: such have no mean norm",
        "no interval of share fixed, share broken: all resamples agree",
    )


def test_discard_is_the_one_of_a_slow_loop() -> None:
    embeddings, pairs = pair_set(1)
    result = error_discard.evaluate(embeddings, pairs, fmr=0.01, draws=0)
    scores, same = result.samples["scores"], pairs.same
    norms = embeddings.feature_norms
    rows = {name: row for row, name in enumerate(embeddings.ids.tolist())}
    worst = np.array([min(norms[rows[a]], norms[rows[b]]) for a, b in zip(pairs.left, pairs.right, strict=True)])
    threshold = tar_at_far(error_curve(scores, same), 0.01).threshold
    assert result.number("FNMR").threshold == threshold
    genuine = sorted((worst[row], scores[row] < threshold) for row in np.flatnonzero(same))
    for share, name in ((0.0, "FNMR"), (0.05, "FNMR, 5% discarded"), (0.2, "FNMR, 20% discarded")):
        kept = genuine[math.floor(share * len(genuine) + 1e-9) :]  # no two pairs have the same quality
        bound = kept[0][0]
        kept = [wrong for quality_, wrong in genuine if quality_ >= bound]
        assert result[name] == pytest.approx(sum(kept) / len(kept), abs=0.02)
    assert 0 < result["area under FNMR"] < result["FNMR"]  # here small norms do tell bad images
    curve = result.curves[0]
    assert curve.kind == "discard"
    assert area_of(curve.x.tolist(), curve.y.tolist()) == pytest.approx(result["area under FNMR"])


def area_of(x: list[float], y: list[float]) -> float:
    return sum(height * (after - before) for before, after, height in zip(x, [*x[1:], 1.0], y, strict=True))


def test_exact_shares_are_the_ones_at_whole_pairs() -> None:
    """20 genuine pairs, the four worst rejected: 5 % is one pair, 10 % two, 20 % four."""
    angles = np.concatenate([np.repeat(np.pi / 2, 4), np.zeros(16)])
    vectors = np.array([[1.0, 0.0]] * 20 + [[np.cos(a), np.sin(a)] for a in angles] + [[0.7, -0.7], [0.7, 1.0]])
    norms = np.concatenate([np.arange(1.0, 21.0), np.full(22, 50.0)])
    ids = np.arange(42).astype(np.str_)
    left, right = np.append(ids[:20], ids[40]), np.append(ids[20:40], ids[41])
    pairs = PairList(left, right, np.arange(21) < 20)
    result = error_discard.evaluate(Embeddings(vectors, ids, norms=norms), pairs, fmr=1.0, draws=0)
    assert result["FNMR"] == 0.0  # everything is accepted at FMR 1
    far = PairList(np.tile(ids[[0]], 2), ids[[40, 41]], np.zeros(2, dtype=bool))  # at 0.71 and 0.57
    both = PairList(
        *(np.concatenate([a, b]) for a, b in ((left[:20], far.left), (right[:20], far.right))), np.arange(22) < 20
    )
    result = error_discard.evaluate(Embeddings(vectors, ids, norms=norms), both, fmr=0.5, draws=0)
    assert result["FNMR"] == 4 / 20
    assert result["FNMR, 5% discarded"] == 3 / 19
    assert result["FNMR, 10% discarded"] == 2 / 18
    assert result["FNMR, 20% discarded"] == 0.0


def test_a_resample_chooses_its_own_threshold() -> None:
    embeddings, pairs = pair_set(2)
    result = error_discard.evaluate(embeddings, pairs, fmr=0.02, draws=0)
    figures, units = error_discard.statistic(result.samples)
    drawn = np.random.default_rng(0).multinomial(24, np.full(24, 1 / 24)).astype(float)
    weights = units.weights(drawn)
    rows = np.repeat(np.arange(len(pairs)), weights.astype(int))
    threshold = tar_at_far(error_curve(result.samples["scores"][rows], pairs.same[rows]), 0.02).threshold
    genuine = rows[pairs.same[rows]]
    assert figures(weights)["FNMR"] == pytest.approx((result.samples["scores"][genuine] < threshold).mean())
    assert figures(np.where(pairs.same, weights, 0.0)) == {}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"fmr": 0.0}, r"fmr must be a finite number in \(0, 1\]; got 0"),
        ({"fmr": 1e-4}, "FMR 0.0001 needs at least 10,000 impostor pairs; got 216"),
        ({"up_to": 0}, r"up_to must be a finite number in \(0, 1\]"),
    ],
)
def test_discards_that_are_refused(options: dict[str, float], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        error_discard.evaluate(*pair_set(), **options)


def test_correlation_with_strength_by_kind() -> None:
    strengths = np.tile(np.arange(5.0), 12)
    images = np.repeat(np.arange(12), 5)
    kinds = np.where(images < 6, "blur", "noise")
    norms = np.where(kinds == "blur", 20 - strengths, RANDOM.gamma(5, 2, 60))
    result = degradation.evaluate(norms, strengths, images, kinds, draws=200)
    assert result["Spearman ρ, blur"] == pytest.approx(-1)
    noise = kinds == "noise"
    assert result["Spearman ρ, noise"] == pytest.approx(spearmanr(norms[noise], strengths[noise]).statistic)
    interval = result.number("Spearman ρ, noise").interval
    assert interval is not None and interval.low < result["Spearman ρ, noise"] < interval.high
    assert dict(result.counts) == {"samples": 60, "images": 12, "of blur": 30, "of noise": 30}
    alone = degradation.evaluate(norms[noise], strengths[noise], images[noise], draws=0)
    assert alone["Spearman ρ"] == result["Spearman ρ, noise"]


def test_images_are_drawn_with_all_their_degradations() -> None:
    strengths, images = np.tile([0.0, 1.0, 2.0], 10), np.repeat(np.arange(10), 3)
    norms = RANDOM.gamma(5, 2, 30)
    result = degradation.evaluate(norms, strengths, images, draws=100, seed=5)
    random = np.random.default_rng(5)
    found = []
    for _ in range(100):
        rows = np.repeat(np.arange(30), random.multinomial(10, np.full(10, 0.1))[images])
        found.append(spearmanr(norms[rows], strengths[rows]).statistic)
    interval = result.number("Spearman ρ").interval
    assert interval is not None
    assert (interval.low, interval.high) == pytest.approx(tuple(np.percentile(found, [2.5, 97.5])))


def test_norms_that_are_all_equal_have_no_correlation_and_a_note_says_so() -> None:
    result = degradation.evaluate(np.ones(4), [0, 1, 0, 1], ["a", "a", "b", "b"], draws=5)
    assert math.isnan(result["Spearman ρ"])
    assert result.notes == ("Spearman ρ is undefined: all norms are equal",)


def test_files_of_degraded_images(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", norms=[3.0, 2.0, 1.0], strengths=[0, 1, 2], images=["a", "a", "a"])
    found = degradation.read(tmp_path / "d.npz")
    assert degradation.evaluate(**found, draws=0)["Spearman ρ"] == -1.0  # type: ignore[arg-type]
    np.savez(tmp_path / "e.npz", norms=[3.0], strengths=[0])
    np.savez(tmp_path / "f.npz", norms=[3.0], strength=[0], images=["a"])
    for name, sentence in {
        "e.npz": "must hold 'images'; it holds norms, strengths$",
        "f.npz": "must hold 'strengths'; it holds .*; rename 'strength' to 'strengths'",
        "g.npz": "there is no file",
        "h.csv": "must be in a file that ends in .npz",
    }.items():
        with pytest.raises(InputError, match=sentence):
            degradation.read(tmp_path / name)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (([1.0, 2.0], [0.0], ["a", "b"]), r"must be \[N\] each with N >= 1; got shapes \[2\], \[1\], \[2\]"),
        (([], [], []), "N >= 1"),
        (([1.0, -2.0], [0.0, 1.0], ["a", "b"]), "norms must be finite numbers >= 0"),
        (([1.0, 2.0], [0.0, math.inf], ["a", "b"]), "strengths finite"),
        (([1.0, 2.0], [1.0, 1.0], ["a", "b"]), "the degradation needs two strengths or more; got one"),
        (([1.0, 2.0], [1.0, 2.0], ["a", "b"], ["blur", "noise"]), "blur needs two strengths or more; got one"),
    ],
)
def test_degradations_that_are_refused(given: tuple[object, ...], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        degradation.evaluate(*given)  # type: ignore[arg-type]


def results() -> dict[str, Result]:
    embeddings, pairs = pair_set()
    return {
        "quality": quality.evaluate(samples_of(), samples_of(seed=4), draws=0),
        "quality of pairs": quality.evaluate(quality.judge_pairs(embeddings, pairs), draws=0),
        "norm-bins": quality.evaluate_bins(samples_of(), draws=0),
        "changed": quality.evaluate_changes(samples_of(seed=5), samples_of(seed=6), draws=0),
        "discard": error_discard.evaluate(embeddings, pairs, fmr=0.05, draws=0),
        "degradation": degradation.evaluate([5, 4, 3], [0, 1, 2], ["a", "b", "c"], draws=0),
    }


@pytest.mark.parametrize("name", results())
def test_a_saved_result_gives_its_figures_again(name: str, tmp_path: Path) -> None:
    result = results()[name]
    assert result.protocol == name.removesuffix(" of pairs")
    statistic, measured = PROTOCOLS[result.protocol]
    result.save(tmp_path / "r.json")
    figures, units = statistic(Result.read(tmp_path / "r.json").samples)
    found = figures(units.weights(np.ones(units.count)))
    assert found == {each.name: each.value for each in result.numbers}
    assert set(measured) & set(result.samples)
