"""The pair protocol: a slow version of it, resamples written out, PCA without the fold, notes, and 6,000 real pairs."""

from __future__ import annotations

import io
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score

from angulus.core.checks import InputError
from angulus.core.embeddings import Embeddings
from angulus.evaluation.lists.pair_list import PairList, read_pairs
from angulus.evaluation.metrics.intervals import Units
from angulus.evaluation.metrics.verification import best_threshold, kfold_accuracy
from angulus.evaluation.protocols import pairs as protocol
from angulus.evaluation.protocols import quality
from angulus.evaluation.protocols.result import Result
from angulus.evaluation.protocols.vectors import pair_scores
from people import crowd, crowd_pairs, sized, written_out

CROWD = crowd()
PAIRS = crowd_pairs(CROWD)


def cosines(vectors: np.ndarray, pairs: PairList, embeddings: Embeddings) -> np.ndarray:
    rows = {name: row for row, name in enumerate(embeddings.ids.tolist())}
    scores = []
    for left, right in zip(pairs.left.tolist(), pairs.right.tolist(), strict=True):
        a, b = vectors[rows[left]], vectors[rows[right]]
        scores.append(float(a @ b / np.sqrt(a @ a) / np.sqrt(b @ b)))
    return np.array(scores)


def test_the_figures_are_those_of_the_scores() -> None:
    assert PAIRS.folds is not None
    result = protocol.evaluate(CROWD, PAIRS, draws=0)
    scores = cosines(CROWD.vectors, PAIRS, CROWD)
    assert result.samples["scores"] == pytest.approx(scores, abs=1e-12)
    folds = kfold_accuracy(result.samples["scores"], PAIRS.same, PAIRS.folds)
    assert result["accuracy"] == folds.mean
    assert result.number("accuracy").spread == folds.standard_error
    assert result["AUC"] == pytest.approx(roc_auc_score(PAIRS.same, scores))
    others = np.sort(scores[~PAIRS.same])[::-1]
    allowed = int(0.1 * len(others))
    expected = (scores[PAIRS.same] > others[allowed]).mean()
    assert result["TAR@FAR=1e-1"] == expected
    threshold = result.number("TAR@FAR=1e-1").threshold
    assert threshold is not None
    assert (others >= threshold).sum() <= allowed < (others >= others[allowed]).sum()


def test_what_is_said_of_it() -> None:
    result = protocol.evaluate(CROWD, PAIRS, draws=0)
    assert result.protocol == "pairs"
    assert [number.name for number in result.numbers] == ["accuracy", "AUC", "EER", "TAR@FAR=1e-1"]
    assert result.counts == {"pairs": 72, "genuine": 36, "impostors": 36, "images": 48, "people": 12, "folds": 3}
    assert result.choices["score"] == "cosine, a·b / (‖a‖ ‖b‖)"
    assert not any("too few" in note for note in result.notes)
    assert (result.choices["flip"], result.choices["pca"], result.choices["intervals"]) == ("none", "none", "none")
    assert (result.about["embeddings"], result.about["pairs"]) == ("crowd", "crowd pairs")
    assert any("1e-2 (100)" in note for note in result.notes)
    roc, det = result.curves
    assert (roc.kind, det.kind) == ("roc", "det")
    assert roc.y + det.y == pytest.approx(1)


@pytest.mark.parametrize("metric", ["inner", "euclidean", "unit-euclidean"])
def test_other_scores(metric: str) -> None:
    result = protocol.evaluate(CROWD, PAIRS, metric=metric, draws=0)
    rows = np.array([CROWD.ids.tolist().index(name) for name in [*PAIRS.left, *PAIRS.right]])
    assert np.array_equal(result.samples["scores"], pair_scores(CROWD.vectors, rows[:72], rows[72:], metric))
    same_order = protocol.evaluate(CROWD, PAIRS, draws=0)["AUC"] == pytest.approx(result["AUC"])
    assert same_order == (metric == "unit-euclidean")  # a falling function of the cosine; the others are not


def test_flip_sum_and_concatenation() -> None:
    assert CROWD.flipped is not None
    for flip, vectors in (
        ("sum", CROWD.vectors + CROWD.flipped),
        ("concat", np.hstack([CROWD.vectors, CROWD.flipped])),
    ):
        result = protocol.evaluate(CROWD, PAIRS, flip=flip, draws=0)
        assert result.samples["scores"] == pytest.approx(cosines(vectors, PAIRS, CROWD), abs=1e-12)


def test_pca_is_fitted_without_the_images_of_the_tested_fold() -> None:
    assert PAIRS.folds is not None
    result = protocol.evaluate(CROWD, PAIRS, pca=3, draws=0)
    for fold in range(3):
        tested = PAIRS.folds == fold
        train = set(PAIRS.left[~tested]) | set(PAIRS.right[~tested])
        seen = np.array([name in train for name in CROWD.ids.tolist()])
        turned = PCA(3, svd_solver="full").fit(CROWD.vectors[seen]).transform(CROWD.vectors)
        scores = cosines(turned, PAIRS, CROWD)
        assert result.samples["fold_scores"][fold] == pytest.approx(scores, abs=1e-9)
        assert result.samples["scores"][tested] == pytest.approx(scores[tested], abs=1e-9)
    expected = kfold_accuracy(result.samples["fold_scores"], PAIRS.same, PAIRS.folds)
    assert result["accuracy"] == expected.mean
    assert any("pool the folds' scores" in note for note in result.notes)


def test_pca_does_not_see_an_image_that_stands_in_the_tested_fold_too() -> None:
    """A fold's image that another fold shows as well is left out of the fit."""
    assert PAIRS.folds is not None
    left = PAIRS.left.copy()
    left[PAIRS.folds == 1] = left[PAIRS.folds == 0]
    mixed = replace(PAIRS, left=left, left_identity=None, right_identity=None)
    unlabelled = Embeddings(CROWD.vectors, CROWD.ids)
    before = protocol.evaluate(unlabelled, mixed, pca=2, draws=0).samples["fold_scores"][0]
    shown = np.isin(CROWD.ids, [*mixed.left[mixed.folds == 0], *mixed.right[mixed.folds == 0]])
    used = np.isin(CROWD.ids, mixed.ids)
    turned = PCA(2, svd_solver="full").fit(CROWD.vectors[used & ~shown]).transform(CROWD.vectors)
    assert before == pytest.approx(cosines(turned, mixed, CROWD), abs=1e-9)


@pytest.mark.parametrize(("fold_count", "pca"), [(3, None), (3, 3), (0, None)])
def test_the_statistic_of_weights_is_that_of_the_resample_written_out(fold_count: int, pca: int | None) -> None:
    pairs = PAIRS if fold_count else replace(PAIRS, folds=None)
    samples = dict(protocol.evaluate(CROWD, pairs, draws=0, pca=pca).samples)
    statistic, units = protocol.statistic(samples)
    names = np.unique(np.concatenate([samples["left_identity"], samples["right_identity"]])).tolist()
    rng, seen = np.random.default_rng(3), 0
    for _ in range(20):
        drawn = rng.multinomial(units.count, np.full(units.count, 1 / units.count))
        rows = written_out(
            samples["left_identity"], samples["right_identity"], dict(zip(names, drawn.tolist(), strict=True))
        )
        copied = {name: values if name == "fars" else values[..., rows] for name, values in samples.items()}
        figures = dict(statistic(units.weights(drawn.astype(float))))
        whole, some = (
            list(zip(each.get("folds", np.zeros(len(each["same"]))), each["same"], strict=True))
            for each in (samples, copied)
        )
        if set(some) < set(whole):
            assert "accuracy" not in figures
            continue
        weights, scores = sized(whole, some), copied.get("fold_scores", copied["scores"])
        if fold_count:
            accuracy = kfold_accuracy(scores, copied["same"], copied["folds"], weights).mean
        else:
            accuracy = best_threshold(scores, copied["same"], weights)[1]
        expected = dict(protocol.statistic(copied)[0](np.ones(len(rows))))
        expected["accuracy" if fold_count else protocol.BEST] = accuracy
        assert figures == pytest.approx(expected, abs=1e-12)
        seen += 1
    assert seen > 5


def test_a_resample_without_pairs_of_a_kind_has_no_figures() -> None:
    statistic, _ = protocol.statistic(protocol.evaluate(CROWD, PAIRS, draws=0).samples)
    assert statistic(PAIRS.same.astype(float)) == {}
    assert statistic((~PAIRS.same).astype(float)) == {}


def test_intervals_are_over_people_and_hold_the_figure() -> None:
    many = crowd(60)
    result, again = (protocol.evaluate(many, crowd_pairs(many, per=60), draws=200, seed=4) for _ in range(2))
    assert result.choices["intervals"] == (
        "95 % of 200 resamples of the people (seed 4); for the accuracy each fold keeps its numbers of genuine and "
        "impostor pairs"
    )
    for number in result.numbers:
        assert number.interval is not None
        assert number.interval.low <= number.value <= number.interval.high
        assert number == again.number(number.name)


def test_resamples_keep_the_accuracy_of_scores_that_know_nothing() -> None:
    """Scores that depend on the fold alone are right for one kind of pair in each: 1/2, whatever people are drawn."""
    rng = np.random.default_rng(0)
    statistic, units = protocol.statistic(
        {
            "scores": np.repeat([1.0, 2.0, 3.0], 24),
            "same": PAIRS.same,
            "folds": np.repeat([0, 1, 2], 24),
            "left_identity": np.asarray(PAIRS.left_identity),
            "right_identity": np.asarray(PAIRS.right_identity),
            "fars": np.empty(0),
        }
    )
    drawn = [units.weights(rng.multinomial(12, np.full(12, 1 / 12)).astype(float)) for _ in range(50)]
    found = [dict(statistic(weights)) for weights in drawn]
    accuracies = [figures["accuracy"] for figures in found if "accuracy" in figures]
    assert len(accuracies) > 10
    assert accuracies == pytest.approx([0.5] * len(accuracies), abs=1e-12)


def test_too_few_people_for_an_interval_are_noted() -> None:
    result = protocol.evaluate(CROWD, PAIRS, draws=100)  # four people a fold: one fold or other often loses a kind
    assert result.number("accuracy").interval is None
    assert (
        result.number("accuracy").no_interval
        == "undefined in more than a tenth of the resamples; give more people, with pairs of both kinds"
    )
    assert any("no interval of accuracy: undefined in more than a tenth" in note for note in result.notes)


def test_labels_of_the_embeddings_say_who_is_shown_where_the_list_does_not() -> None:
    unnamed = crowd_pairs(CROWD, named=False)
    by_labels = protocol.evaluate(CROWD, unnamed, draws=50)
    by_list = protocol.evaluate(CROWD, PAIRS, draws=50)
    assert repr(by_labels.numbers) == repr(by_list.numbers)
    nobody = protocol.evaluate(replace(CROWD, labels=None), unnamed, draws=50)
    assert str(nobody.choices["intervals"]).startswith("95 % of 50 resamples of the pairs (seed 0)")
    assert "people" not in nobody.counts
    assert any("neither the list nor the embeddings say who is shown" in note for note in nobody.notes)
    assert protocol.statistic(nobody.samples)[1].count == 72
    wrong = replace(CROWD, labels=np.roll(np.asarray(CROWD.labels), 1))
    assert any("labels contradict" in note for note in protocol.evaluate(wrong, unnamed, draws=0).notes)


def test_a_list_without_folds_has_no_held_out_accuracy_and_says_so() -> None:
    result = protocol.evaluate(CROWD, replace(PAIRS, folds=None), draws=50)
    threshold, accuracy = best_threshold(result.samples["scores"], PAIRS.same)
    number = result.number(protocol.BEST)
    assert (number.value, number.threshold, number.spread) == (accuracy, threshold, None)
    assert any("the list has no folds" in note for note in result.notes)
    with pytest.raises(InputError, match="pairs has no number 'accuracy'"):
        result.number("accuracy")


def test_fars_that_are_asked_for_are_given_or_refused() -> None:
    result = protocol.evaluate(CROWD, PAIRS, fars=(0.25, 0), draws=0)
    assert [number.name for number in result.numbers][3:] == ["TAR@FAR=2.5e-1", "TAR@FAR=0"]
    assert result["TAR@FAR=0"] <= result["TAR@FAR=2.5e-1"]
    with pytest.raises(InputError, match=r"FAR 0\.01 needs at least 100 impostor pairs; got 36"):
        protocol.evaluate(CROWD, PAIRS, fars=(0.01,), draws=0)


@pytest.mark.parametrize(
    ("pairs", "options", "sentence"),
    [
        (replace(PAIRS, folds=None), {"pca": 2}, "crowd pairs has no folds, and PCA is fitted on the other folds"),
        (PAIRS, {"pca": 9}, "pca must be at most the size of an embedding"),
        (PAIRS, {"metric": "l2"}, "metric must be one of"),
        (PAIRS, {"flip": "mean"}, "flip must be one of 'sum', 'concat'"),
        (PAIRS, {"draws": -1}, r"draws must be a whole number in \[0, 100000\]; got -1"),
        (replace(PAIRS, left=np.char.add(PAIRS.left, "x")), {}, "have no embedding in crowd"),
        (PAIRS.select(PAIRS.same), {}, r"crowd pairs must hold pairs of both kinds; it has no impostor \(0\) pair"),
        (PAIRS.select((PAIRS.folds != 1) | PAIRS.same), {}, "fold 1 has no impostor pair; each fold needs both kinds"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(pairs: PairList, options: dict[str, object], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        protocol.evaluate(CROWD, pairs, **options)  # type: ignore[arg-type]


def test_a_result_is_saved_and_its_figures_computed_again_from_its_samples(tmp_path: Path) -> None:
    result = protocol.evaluate(CROWD, PAIRS, pca=4, draws=20)
    result.save(tmp_path / "pairs.json")
    again = Result.read(tmp_path / "pairs.json")
    statistic, units = protocol.statistic(again.samples)
    assert isinstance(units, Units)
    assert statistic(np.ones(72)) == {number.name: number.value for number in result.numbers}


def pixels(folder: Path, size: int = 28) -> tuple[Embeddings, PairList]:
    """Grey pixels less their mean over the images: the simplest embedding there is."""
    pairs = read_pairs(folder / "pairs.txt")
    with zipfile.ZipFile(folder / "aligned_112.zip") as archive:

        def image(name: str) -> np.ndarray:
            grey = Image.open(io.BytesIO(archive.read(name))).convert("L").resize((size, size), Image.Resampling.BOX)
            return np.asarray(grey, dtype=np.float32).ravel()

        vectors = np.stack([image(name) for name in pairs.ids.tolist()])
    return Embeddings(vectors - vectors.mean(axis=0), pairs.ids, source="pixels"), pairs


def test_six_thousand_real_pairs_by_their_pixels(data_folder: Path) -> None:
    folder = data_folder / "celebrity-faces"
    if not folder.is_dir():
        pytest.skip(f"needs the aligned faces in {folder}")
    embeddings, pairs = pixels(folder)
    result = protocol.evaluate(embeddings, pairs, draws=60)
    scores = result.samples["scores"]
    assert result.counts == {
        "pairs": 6000,
        "genuine": 3000,
        "impostors": 3000,
        "images": 2059,
        "people": 90,
        "folds": 10,
    }
    assert 0.59 < best_threshold(scores, pairs.same)[1] < 0.63
    assert 0.58 < result["accuracy"] < 0.62
    assert result["AUC"] == pytest.approx(roc_auc_score(pairs.same, scores), abs=1e-12)
    assert pairs.folds is not None
    fold = 7
    train, test = pairs.folds != fold, pairs.folds == fold
    tried = np.sort(scores[train])
    right = np.array([((scores[train] >= threshold) == pairs.same[train]).sum() for threshold in tried])
    threshold = kfold_accuracy(scores, pairs.same, pairs.folds).thresholds[fold]
    assert ((scores[train] >= threshold) == pairs.same[train]).sum() == right.max()
    assert ((scores[test] >= threshold) == pairs.same[test]).mean() == pytest.approx(
        kfold_accuracy(scores, pairs.same, pairs.folds).accuracies[fold]
    )
    interval = result.number("AUC").interval
    assert interval is not None
    assert interval.low < result["AUC"] < interval.high


def test_too_few_pairs_of_a_kind_are_warned_of() -> None:
    vectors = np.random.default_rng(0).standard_normal((60, 4))
    ids = np.arange(60).astype(np.str_)
    left, right, same = ids[:54], ids[np.arange(54) + 1], np.array([True] * 53 + [False])
    result = protocol.evaluate(Embeddings(vectors, ids), PairList(left, right, same), draws=100)
    (note,) = [note for note in result.notes if "too few" in note]
    assert note.startswith("1 impostor pair is too few: all figures that count them are rough")
    assert "may be as high as 100% (rule of 3); give 30 or more" in note
    assert any(note.startswith("no interval of") for note in result.notes)  # most resamples lose the one pair


def test_norms_have_one_source_that_the_result_names() -> None:
    """The column where vectors were normalised; the length of the joined vector where mirror images are joined."""
    lengths = np.linalg.norm(CROWD.vectors, axis=1)
    joined = np.linalg.norm(CROWD.vectors + CROWD.flipped, axis=1)  # type: ignore[operator]
    rows = [CROWD.rows(side, "pairs") for side in (PAIRS.left, PAIRS.right)]
    for norms in (None, lengths):
        found = protocol.evaluate(replace(CROWD, norms=norms), PAIRS, flip="sum", draws=0)
        assert found.samples["norms"] == pytest.approx(np.minimum(*(joined[side] for side in rows)), rel=1e-12)
        assert found.choices["norms"] == "lengths of the vectors"
    normalised = replace(CROWD, norms=3 * lengths)
    plain, summed = (protocol.evaluate(normalised, PAIRS, flip=flip, draws=0) for flip in (None, "sum"))
    assert plain.samples["norms"] == pytest.approx(3 * np.minimum(*(lengths[side] for side in rows)))
    assert plain.choices["norms"] == "the column norms, from before normalisation"
    assert (summed.choices["norms"], "norms" in summed.samples) == ("unknown", False)
    assert any("the quality of the pairs is unknown: the column norms of crowd" in note for note in summed.notes)
    for judge in (lambda: quality.judge_pairs(normalised, PAIRS, flip="sum"), lambda: quality.judge_result(summed)):
        with pytest.raises(InputError, match=r"norms must be the lengths of the vectors|got pairs without norms"):
            judge()
