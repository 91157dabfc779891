"""FNIR by gallery size: the same searches in galleries that are cut by hand, and resamples that are written out."""

from __future__ import annotations

import numpy as np
import pytest

from angulus.core.embeddings import Embeddings
from angulus.evaluation.metrics.identification import dir_at_far, open_set_curve
from angulus.evaluation.protocols import distractors, template_identification
from angulus.evaluation.protocols.gallery_sizes import SizedSearches, best_by_size, fnir_name
from angulus.evaluation.protocols.templates import Pooling, Templates


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def fnir(own: list[float], ahead: list[int], best: list[float], fpir: float) -> float:
    """The lowest share of misses at a threshold at which no more than that share of strangers raise an alarm."""
    least = 1.0
    for threshold in {*own, *best}:
        if np.mean([score >= threshold for score in best]) <= fpir:
            found = [score >= threshold and rank == 0 for score, rank in zip(own, ahead, strict=True)]
            least = min(least, 1 - float(np.mean(found)))
    return least


def test_the_best_of_growing_galleries() -> None:
    rng = np.random.default_rng(0)
    probes, gallery = rng.normal(size=(5, 3)), rng.normal(size=(9, 3))
    scores = unit(probes) @ unit(gallery).T
    found = best_by_size(probes, gallery, [2, 3, 9])
    assert found == pytest.approx(np.array([scores[:, :size].max(axis=1) for size in (2, 3, 9)]).T)
    assert best_by_size(probes[:0], gallery, [2, 9]).shape == (0, 2)


def test_distractors_by_number_are_those_of_a_loop() -> None:
    rng = np.random.default_rng(1)
    people = np.arange(8).repeat(2)
    centres = rng.normal(size=(8, 6))
    photos = centres[people] + 0.9 * rng.normal(size=(16, 6))
    others = rng.normal(size=(25, 6))
    found = distractors.megaface(
        Embeddings(photos, np.array([f"p{row}" for row in range(16)]), labels=people.astype(str)),
        Embeddings(others, np.array([f"d{row}" for row in range(25)])),
        fars=[],
        draws=0,
    )
    (searches,) = distractors.by_size(found.samples)
    figures = searches.statistic()[0](np.ones(len(searches.mates) + len(searches.strangers)))
    near, far = unit(photos) @ unit(photos).T, unit(photos) @ unit(others).T
    assert searches.sizes.tolist() == [10, 25] and searches.fpirs == [0.1]
    for place, size in enumerate((10, 25)):
        looked = [(a, b) for a in range(16) for b in range(16) if a != b and people[a] == people[b]]
        own = [near[a, b] for a, b in looked]
        ahead = [int((far[a, :size] >= near[a, b]).sum()) for a, b in looked]
        best = far[:, :size].max(axis=1).tolist()
        assert figures[fnir_name(0.1, size)] == pytest.approx(fnir(own, ahead, best, 0.1))
        assert searches.point(place, 0.1).dir == pytest.approx(1 - figures[fnir_name(0.1, size)])


def templates_of(subjects: np.ndarray, vectors: np.ndarray, source: str) -> Templates:
    norms = np.linalg.norm(vectors, axis=1)
    return Templates(np.arange(len(subjects)), unit(vectors), norms, subjects, Pooling(), len(subjects), source)


def test_subjects_by_number_are_those_of_a_loop() -> None:
    """Of each gallery the first ten of the seeded order, to which the subject who is searched for is added."""
    rng = np.random.default_rng(2)
    centres = rng.normal(size=(40, 5))
    probed = np.arange(40).repeat(2)
    probes = templates_of(probed, centres[probed] + 0.7 * rng.normal(size=(80, 5)), "probes")
    held = np.arange(14), np.arange(14, 30)
    galleries = [templates_of(each, centres[each] + 0.7 * rng.normal(size=(len(each), 5)), "g") for each in held]
    found = template_identification.identify(galleries, probes, fpirs=[0.1, 0.3], draws=0, seed=5)
    for searches, gallery in zip(template_identification.by_size(found.samples), galleries, strict=True):
        figures = searches.statistic()[0](np.ones(len(searches.mates) + len(searches.strangers)))
        scores = probes.units @ gallery.units.T
        order = np.random.default_rng(5).permutation(len(gallery))
        for size in (10, len(gallery)):
            cut = order[:size]
            own, ahead, best = [], [], []
            for row, subject in enumerate(probed.tolist()):
                mate = np.flatnonzero(gallery.subjects == subject)
                if len(mate):
                    own.append(scores[row, mate[0]])
                    ahead.append(0)  # any rank counts
                else:
                    best.append(scores[row, cut].max())
            for fpir in (0.1, 0.3):
                assert figures[fnir_name(fpir, size)] == pytest.approx(fnir(own, ahead, best, fpir))
        whole = figures[fnir_name(0.1, len(gallery))]
        assert found[f"TPIR@FPIR=1e-1, {searches.of}"] == pytest.approx(1 - whole)
    ranks = found.samples["size_ranks"]
    assert (np.diff(ranks, axis=1) >= 0).all() and np.array_equal(ranks[:, -1], found.samples["ranks"])


def test_a_resample_is_written_out() -> None:
    """Each search counts as often as its person is drawn, at the threshold of that resample."""
    rng = np.random.default_rng(3)
    mates, strangers = rng.integers(0, 5, 20), rng.integers(0, 6, 30)
    ranks, own, best = rng.integers(1, 4, (20, 2)), rng.random(20).round(1), rng.random((30, 2)).round(1)
    searches = SizedSearches(np.array([10, 50]), mates, strangers, own, ranks, best, [0.2], within=2)
    statistic, units = searches.statistic()
    drawn = np.array([2.0, 0, 1, 1, 3, 1])
    figures = statistic(units.weights(drawn))
    for place, size in enumerate((10, 50)):
        of = [row for row, person in enumerate(mates) for _ in range(int(drawn[person]))]
        others = [row for row, person in enumerate(strangers) for _ in range(int(drawn[person]))]
        point = dir_at_far(open_set_curve(own[of], ranks[of, place], best[others, place], rank=2), 0.2)
        assert figures[fnir_name(0.2, size)] == pytest.approx(1 - point.dir)
    assert statistic(units.weights(np.zeros(6))) == {}
