"""YouTube Faces: scores as slow loops, the machine against a hand-made kernel, folds, frames, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.svm import SVC

from angulus.core.checks import InputError
from angulus.core.embeddings import Embeddings
from angulus.evaluation.lists.lfw import read_ytf_pairs
from angulus.evaluation.lists.pair_list import PairList
from angulus.evaluation.metrics.verification import kfold_accuracy
from angulus.evaluation.protocols import quality, videos
from angulus.evaluation.protocols.result import Result
from people import sized

FOLDS, PEOPLE = 3, 18


def video_set(seed: int = 0, size: int = 6) -> tuple[Embeddings, PairList]:
    """Two videos a person, one to five frames each; in each fold six people with all their genuine pairs."""
    random = np.random.default_rng(seed)
    ids, vectors = [], []
    for person in range(PEOPLE):
        centre = random.normal(size=size)
        for video in range(2):
            for frame in range(int(random.integers(1, 6))):
                ids.append(f"P{person:02d}/{video}/{frame:04d}.jpg")
                vectors.append((centre + 0.8 * random.normal(size=size)) * random.gamma(4))
    rows = []
    for fold in range(FOLDS):
        people = range(6 * fold, 6 * fold + 6)
        rows += [(f"P{p:02d}/0", f"P{p:02d}/1", True, fold) for p in people]
        rows += [(f"P{p:02d}/0", f"P{6 * fold + (p + 1) % 6:02d}/1", False, fold) for p in people]
    left, right, same, folds = (np.array(column) for column in zip(*rows, strict=True))
    first, second = (np.array([name.partition("/")[0] for name in side]) for side in (left, right))
    pairs = PairList(left, right, same, folds, first, second, source="splits.txt")
    flipped = np.array(vectors) + random.normal(size=(len(ids), size))
    return Embeddings(np.array(vectors), np.array(ids), flipped=flipped, source="frames.npz"), pairs


def frames_of(embeddings: Embeddings, video: str) -> list[np.ndarray]:
    return [embeddings.vectors[row] for row, name in enumerate(embeddings.ids) if name.rsplit("/", 1)[0] == video]


def slow_matrix(embeddings: Embeddings, left: str, right: str) -> list[list[float]]:
    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        return float(sum(a * b) / np.sqrt(sum(a * a)) / np.sqrt(sum(b * b)))

    return [[cosine(a, b) for b in frames_of(embeddings, right)] for a in frames_of(embeddings, left)]


@pytest.mark.parametrize("score", ["mean", "max", "cosine"])
def test_scores_are_those_of_slow_loops(score: str) -> None:
    embeddings, pairs = video_set()
    result = videos.evaluate(embeddings, pairs, score=score, draws=0)
    for row in range(len(pairs)):
        left, right = str(pairs.left[row]), str(pairs.right[row])
        flat = [value for line in slow_matrix(embeddings, left, right) for value in line]
        if score == "cosine":
            a, b = (np.mean(frames_of(embeddings, name), axis=0) for name in (left, right))
            expected = float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
        else:
            expected = max(flat) if score == "max" else sum(flat) / len(flat)
        assert result.samples["scores"][row] == pytest.approx(expected, abs=1e-12)
    folds = kfold_accuracy(result.samples["scores"], pairs.same, pairs.folds)
    assert result["accuracy"] == folds.mean
    assert result.number("accuracy").spread == folds.standard_error
    assert result.counts["frames"] == len(embeddings)
    assert result.choices["score"] == videos.SCORES[score]


def test_quality_is_the_smaller_norm_of_both_mean_embeddings() -> None:
    embeddings, pairs = video_set()
    result = videos.evaluate(embeddings, pairs, draws=0)
    for row in range(len(pairs)):
        sides = [np.mean(frames_of(embeddings, str(each[row])), axis=0) for each in (pairs.left, pairs.right)]
        assert result.samples["norms"][row] == pytest.approx(min(np.linalg.norm(side) for side in sides))
    given = quality.judge_result(result)
    assert given.correct.mean() == pytest.approx(result["accuracy"])
    split = quality.evaluate(given, draws=0)
    assert split.counts == {"good": 29, "low": 7, "entire": 36}


def test_histograms_are_counts_of_a_slow_loop() -> None:
    embeddings, pairs = video_set()
    found = videos.evaluate(embeddings, pairs, score="histogram", draws=0).samples["histograms"]
    assert found.shape == (len(pairs), 100)
    assert found.sum(axis=1) == pytest.approx(1)
    for row in range(0, len(pairs), 5):
        matrix = slow_matrix(embeddings, str(pairs.left[row]), str(pairs.right[row]))
        flat = [value for line in matrix for value in line]
        counted = [sum(-1 + 0.02 * k <= value < -1 + 0.02 * (k + 1) for value in flat) for k in range(100)]
        assert found[row] == pytest.approx(np.array(counted) / len(flat))


def test_the_ends_of_the_histogram_belong_to_it() -> None:
    assert np.flatnonzero(videos.histogram(np.array([-1.0, 1.0, 0.0, -0.0001]))).tolist() == [0, 49, 50, 99]


def test_the_kernel_is_a_slow_sum_of_minima(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(1)
    first, second = (random.dirichlet(np.full(100, 0.1), size) for size in (7, 5))
    monkeypatch.setattr(videos, "_KERNEL_ROWS", 3)
    slow = [[sum(min(x, y) for x, y in zip(a, b, strict=True)) for b in second] for a in first]
    assert videos.intersections(first, second) == pytest.approx(np.array(slow))


def test_each_fold_is_judged_by_the_machine_of_the_others() -> None:
    embeddings, pairs = video_set(3)
    result = videos.evaluate(embeddings, pairs, score="histogram", c=2.0, draws=0)
    found = result.samples["histograms"]
    accuracies = []
    for fold in range(FOLDS):
        train, test = pairs.folds != fold, pairs.folds == fold
        machine = SVC(C=2.0, kernel=videos.intersections).fit(found[train], pairs.same[train])
        values = machine.decision_function(found[test])
        assert result.samples["scores"][test] == pytest.approx(values, abs=1e-9)
        accuracies.append(((values >= 0) == pairs.same[test]).mean())
    assert result["accuracy"] == pytest.approx(np.mean(accuracies))
    assert result.number("accuracy").spread == pytest.approx(np.std(accuracies, ddof=1) / np.sqrt(FOLDS))
    assert result.choices["threshold"] == "0 of the machine (C = 2)"
    assert quality.judge_result(result).correct.mean() == pytest.approx(result["accuracy"])


def test_the_flags_of_a_fold_do_not_reach_its_own_machine() -> None:
    embeddings, pairs = video_set(3)
    before = videos.evaluate(embeddings, pairs, score="histogram", draws=0).samples["scores"]
    inverted = replace(pairs, same=np.where(pairs.folds == 1, ~pairs.same, pairs.same))
    after = videos.evaluate(embeddings, inverted, score="histogram", draws=0).samples["scores"]
    assert np.array_equal(before[pairs.folds == 1], after[pairs.folds == 1])
    assert not np.array_equal(before[pairs.folds != 1], after[pairs.folds != 1])


@pytest.mark.parametrize("score", list(videos.SCORES))
def test_same_people_give_high_scores_and_flips_count(score: str) -> None:
    embeddings, pairs = video_set(5)
    plain = videos.evaluate(embeddings, pairs, score=score, draws=0)
    assert plain["AUC"] > 0.8
    fused = videos.evaluate(embeddings, pairs, score=score, flip="sum", draws=0)
    assert fused.samples["scores"].tolist() != plain.samples["scores"].tolist()
    added = Embeddings(embeddings.vectors + embeddings.flipped, embeddings.ids)
    same = videos.evaluate(added, pairs, score=score, draws=0)
    assert fused.samples["scores"] == pytest.approx(same.samples["scores"], abs=1e-9)
    assert fused.samples["norms"] == pytest.approx(same.samples["norms"])


def test_templates_name_videos_where_they_are_given() -> None:
    embeddings, pairs = video_set()
    named = np.array([name.rpartition("/")[0] for name in embeddings.ids])
    anonymous = Embeddings(embeddings.vectors, np.arange(len(named)).astype(np.str_), templates=named)
    expected = videos.evaluate(embeddings, pairs, draws=0)
    assert videos.evaluate(anonymous, pairs, draws=0).numbers == expected.numbers


def test_given_norms_are_the_frames_lengths() -> None:
    embeddings, pairs = video_set()
    lengths = np.linalg.norm(embeddings.vectors, axis=1)
    unit = Embeddings(embeddings.vectors / lengths[:, None], embeddings.ids, norms=lengths)
    for score in ("mean", "cosine"):
        first, other = (videos.evaluate(each, pairs, score=score, draws=0).samples for each in (embeddings, unit))
        assert first["scores"] == pytest.approx(other["scores"], abs=1e-12)
        assert first["norms"] == pytest.approx(other["norms"])


@pytest.mark.parametrize("score", ["mean", "histogram"])
def test_a_saved_result_gives_its_figures_again(score: str, tmp_path: Path) -> None:
    embeddings, pairs = video_set(5)
    result = videos.evaluate(embeddings, pairs, score=score, draws=30, seed=1)
    result.save(tmp_path / "v.json")
    figures, units = videos.statistic(Result.read(tmp_path / "v.json").samples)
    assert units.count == PEOPLE
    found = figures(units.weights(np.ones(PEOPLE)))
    assert found == {number.name: number.value for number in result.numbers}
    interval = result.number("AUC").interval
    assert interval is not None and interval.low < interval.high


def test_weights_are_repeats_of_pairs() -> None:
    embeddings, pairs = video_set(5)
    for score in ("mean", "histogram"):
        result = videos.evaluate(embeddings, pairs, score=score, draws=0)
        figures, _ = videos.statistic(result.samples)
        weights = np.random.default_rng(0).integers(1, 4, len(pairs))
        rows = np.repeat(np.arange(len(pairs)), weights)
        repeated, _ = videos.statistic(
            {name: each if each.ndim == 0 or name == "fars" else each[rows] for name, each in result.samples.items()}
        )
        assert pairs.folds is not None
        kinds = list(zip(pairs.folds.tolist(), pairs.same.tolist(), strict=True))
        level, fold = sized(kinds, [kinds[row] for row in rows]), pairs.folds[rows]
        scores, same = result.samples["scores"][rows], pairs.same[rows]
        accuracy = kfold_accuracy(scores, same, fold, level).mean
        if score == "histogram":
            right = (scores >= 0) == same
            accuracy = np.mean([np.average(right[fold == k], weights=level[fold == k]) for k in np.unique(fold)])
        expected = {**repeated(np.ones(len(rows))), "accuracy": accuracy}
        assert figures(weights.astype(float)) == pytest.approx(expected)


def test_frames_of_other_videos_are_counted() -> None:
    embeddings, pairs = video_set()
    half = pairs.select(pairs.folds < 2)
    result = videos.evaluate(embeddings, half, draws=0)
    unused = sum(name >= "P12" for name in embeddings.ids)
    assert f"{unused} frames of videos that the list does not name are not used" in result.notes
    assert result.counts["frames"] == len(embeddings) - unused


def test_the_published_list_with_a_frame_a_video(data_folder: Path) -> None:
    pairs = read_ytf_pairs(data_folder / "protocols" / "ytf_splits.txt.gz")
    random = np.random.default_rng(0)
    people = {name.partition("/")[0] for name in pairs.ids}
    centres = {person: random.normal(size=16) for person in sorted(people)}
    vectors = np.array([centres[name.partition("/")[0]] for name in pairs.ids])
    result = videos.evaluate(Embeddings(vectors, np.char.add(pairs.ids, "/1.jpg")), pairs, draws=0)
    assert result["accuracy"] == result["AUC"] == 1.0  # each person has one vector
    assert [result.counts[name] for name in ("pairs", "genuine", "folds")] == [5000, 2500, 10]


@pytest.mark.parametrize(
    ("change", "options", "sentence"),
    [
        ({}, {"score": "median"}, "score must be one of 'mean', 'cosine', 'max', 'histogram'; got 'median'"),
        ({}, {"c": 0}, r"c must be a finite number in \(0, 1e\+06\]; got 0"),
        ({}, {"c": 1e300}, r"c must be a finite number in \(0, 1e\+06\]; got 1e\+300"),
        ({}, {"flip": "mean"}, "flip must be one of"),
        ({}, {"fars": [1e-3]}, "FAR 0.001 needs at least 1,000 impostor pairs; got 18"),
        ({"folds": np.zeros(36, dtype=int)}, {}, "splits.txt must have two folds or more"),
        ({"same": np.arange(36) < 24}, {}, "splits.txt: fold 0 has no impostor pair; each fold needs both kinds"),
        ({"same": np.arange(36) >= 12}, {"score": "histogram"}, "fold 0 has no genuine pair"),
        ({"folds": None}, {}, "splits.txt has no folds, over which the accuracy is taken"),
        (
            {"left": np.array(["Q/1"] * 36)},
            {},
            "1 of the 19 videos of splits.txt have no frame in frames.npz: Q/1; its ids' folders name videos like",
        ),
    ],
)
def test_what_is_refused(change: dict[str, object], options: dict[str, object], sentence: str) -> None:
    embeddings, pairs = video_set()
    with pytest.raises(InputError, match=sentence):
        videos.evaluate(embeddings, replace(pairs, **change), **options)  # type: ignore[arg-type]


def test_frames_that_cancel_have_no_mean_direction() -> None:
    vectors = np.zeros((4, 2))
    vectors[:, 0] = [1, -1, 1, 1]
    few = Embeddings(vectors, np.array(["A/0/1", "A/0/2", "A/1/1", "B/1/1"]))
    left, right, same = np.array(["A/0"] * 4), np.array(["A/1", "B/1"] * 2), np.array([True, False] * 2)
    pairs = PairList(left, right, same, np.array([0, 0, 1, 1]))
    with pytest.raises(InputError, match="the frames of video A/0 cancel to a vector of zeros"):
        videos.evaluate(few, pairs, score="cosine", draws=0)
    assert videos.evaluate(few, pairs, score="mean", draws=0).samples["scores"].tolist() == [0, 0, 0, 0]
