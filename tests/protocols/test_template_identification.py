"""IJB 1:N: slow loops over searches, planted ranks, two galleries, resamples, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from angulus.core.checks import InputError
from angulus.evaluation.protocols import template_identification
from angulus.evaluation.protocols.result import Result
from angulus.evaluation.protocols.template_identification import identify
from angulus.evaluation.protocols.templates import Pooling, Templates


def templates_of(subjects: list[int], vectors: np.ndarray, source: str) -> Templates:
    norms = np.linalg.norm(vectors, axis=1)
    numbers = np.arange(len(subjects)) + 10
    return Templates(numbers, vectors / norms[:, None], norms, np.array(subjects), Pooling(), len(numbers), source)


def search_set(seed: int = 0, noise: float = 1.0) -> tuple[list[Templates], Templates]:
    """Subjects 0 ... 19: even ones in G1, odd ones in G2; five probes of each."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(20, 6))

    def around(subjects: list[int], source: str) -> Templates:
        return templates_of(subjects, centres[subjects] + noise * random.normal(size=(len(subjects), 6)), source)

    galleries = [around(list(range(start, 20, 2)), f"G{start + 1}.csv") for start in (0, 1)]
    return galleries, around(random.permutation(np.repeat(np.arange(20), 5)).tolist(), "probes.csv")


def slow_search(gallery: Templates, probes: Templates) -> tuple[list[tuple[float, int]], list[float]]:
    """[(score, rank) of each search with a mate], [best score of each without]."""
    with_mate, without = [], []
    known = gallery.subjects.tolist()  # type: ignore[union-attr]
    for unit, subject in zip(probes.units, probes.subjects.tolist(), strict=True):  # type: ignore[union-attr]
        scores = [float(sum(unit * other)) for other in gallery.units]
        if subject in known:
            own = scores[known.index(subject)]
            with_mate.append((own, sum(score >= own for score in scores)))
        else:
            without.append(max(scores))
    return with_mate, without


def slow_tpir(with_mate: list[tuple[float, int]], without: list[float], fpir: float, within: int) -> float:
    best = 0.0
    for threshold in sorted({*without, *(score for score, _ in with_mate)}):
        if sum(score >= threshold for score in without) <= fpir * len(without):
            hits = sum(score >= threshold and rank <= within for score, rank in with_mate)
            best = max(best, hits / len(with_mate))
    return best


@pytest.mark.parametrize("within", [None, 1, 3])
def test_figures_are_those_of_slow_loops(within: int | None) -> None:
    galleries, probes = search_set()
    result = identify(galleries, probes, ranks=(1, 3), fpirs=(0.1, 0.02), within=within, draws=0)
    names = {"rank-1": [], "rank-3": [], "TPIR@FPIR=1e-1": [], "TPIR@FPIR=2e-2": []}  # type: ignore[var-annotated]
    for number, gallery in enumerate(galleries, 1):
        with_mate, without = slow_search(gallery, probes)
        expected = [np.mean([rank <= k for _, rank in with_mate]) for k in (1, 3)]
        expected += [slow_tpir(with_mate, without, fpir, within or 10) for fpir in (0.1, 0.02)]
        for name, value in zip(names, expected, strict=True):
            assert result[f"{name}, G{number}"] == pytest.approx(value)
            names[name].append(value)
    for name, values in names.items():
        assert result[name] == pytest.approx(np.mean(values))
    assert dict(result.counts) == {
        "galleries": 2,
        "subjects of G1": 10,
        "subjects of G2": 10,
        "probes": 100,
        "images": 120,
        "searches with mate": 100,
        "searches without mate": 100,
    }
    assert result.choices["TPIR within rank"] == (within or "any")
    assert 0.2 < result["rank-1"] < 1


def test_ranks_of_a_planted_gallery() -> None:
    """Subjects at 0°, 30°, 60°, 90°; a probe at 0° of subject k finds it at rank k + 1, one at 45° has a tie."""
    angles = np.radians([0, 30, 60, 90])
    gallery = templates_of([0, 1, 2, 3], np.stack([np.cos(angles), np.sin(angles)], axis=1), "g")
    probes = templates_of([0, 1, 2, 3], np.array([[1.0, 0.0]] * 4), "p")
    result = identify([gallery], probes, ranks=(1, 2, 3, 4), draws=0)
    assert [result[f"rank-{k}"] for k in (1, 2, 3, 4)] == [0.25, 0.5, 0.75, 1.0]
    assert "TPIR@FPIR is left out at FPIRs that need more searches without mate" in result.notes[1]
    assert result.notes[0] == (
        "warning: this model hardly tells these subjects apart (rank-1 in G1 is 0.25; guessing reaches 0.25)"
    )
    assert [curve.kind for curve in result.curves] == ["cmc"]
    assert result.curves[0].y.tolist() == [0.25, 0.5, 0.75, 1.0]
    twins = templates_of([0, 1], np.array([[1.0, 0.0], [1.0, 0.0]]), "twins")
    tied = identify([twins], templates_of([0], np.array([[1.0, 1.0]]), "p"), ranks=(1, 2), draws=0)
    assert (tied["rank-1"], tied["rank-2"]) == (0.0, 1.0)


def test_perfect_and_blind_searches() -> None:
    galleries, probes = search_set(noise=1e-6)
    result = identify(galleries, probes, draws=0)
    assert result["rank-1"] == result["TPIR@FPIR=1e-1"] == 1.0
    equal = [replace(each, units=np.tile([1.0, 0.0], (len(each), 1))) for each in (*galleries, probes)]
    blind = identify(equal[:2], equal[2], draws=0)
    assert blind["rank-1"] == blind["TPIR@FPIR=1e-1"] == 0.0
    assert blind["rank-10"] == 1.0


def test_order_does_not_matter() -> None:
    galleries, probes = search_set(1)

    def mixed(templates: Templates, seed: int) -> Templates:
        order = np.random.default_rng(seed).permutation(len(templates))
        assert templates.subjects is not None
        return replace(templates, units=templates.units[order], subjects=templates.subjects[order])

    first = identify(galleries, probes, draws=20).numbers
    other = identify([mixed(each, 3) for each in galleries], mixed(probes, 4), draws=20).numbers
    assert [number.name for number in other] == [number.name for number in first]
    assert [number.value for number in other] == pytest.approx([number.value for number in first], abs=1e-12)
    assert [n.interval.low for n in other if n.interval] == pytest.approx([n.interval.low for n in first if n.interval])


def test_resamples_are_of_the_probes_subjects(tmp_path: Path) -> None:
    galleries, probes = search_set(2)
    result = identify(galleries, probes, ranks=(1,), fpirs=(0.1,), draws=50, seed=9)
    result.save(tmp_path / "i.json")
    figures, units = template_identification.statistic(Result.read(tmp_path / "i.json").samples)
    assert units.count == 20
    assert figures(units.weights(np.ones(20))) == {number.name: number.value for number in result.numbers}
    drawn = np.random.default_rng(9).multinomial(20, np.full(20, 1 / 20))
    assert probes.subjects is not None
    rows = np.repeat(np.arange(100), drawn[probes.subjects])
    repeated = replace(probes, units=probes.units[rows], subjects=probes.subjects[rows], numbers=np.arange(len(rows)))
    expected = identify(galleries, repeated, ranks=(1,), fpirs=(0.1,), draws=0)
    assert figures(units.weights(drawn.astype(float))) == pytest.approx({n.name: n.value for n in expected.numbers})
    interval = result.number("rank-1").interval
    assert interval is not None and interval.low < result["rank-1"] < interval.high


def test_a_resample_without_searches_of_a_kind_has_no_figure_of_it() -> None:
    galleries, probes = search_set(3)
    figures, units = template_identification.statistic(identify(galleries, probes, draws=0).samples)
    even = np.where(np.arange(20) % 2 == 0, 2.0, 0.0)
    found = figures(units.weights(even))
    assert "rank-1, G1" in found
    assert not {"rank-1", "rank-1, G2", "TPIR@FPIR=1e-1, G1"} & set(found)


def test_what_is_refused() -> None:
    galleries, probes = search_set()
    first = galleries[0]
    assert first.subjects is not None
    cases = [
        (([], probes), {}, "identification needs at least one gallery; got none"),
        (([replace(first, subjects=None)], probes), {}, "G1.csv and probes.csv must say who each template shows"),
        (([first], replace(probes, subjects=None)), {}, "must say who each template shows"),
        (
            ([replace(first, subjects=np.zeros(10, dtype=int))], probes),
            {},
            "one template per subject; got 10 for 1",
        ),
        (([replace(first, subjects=first.subjects + 500)], probes), {}, "G1.csv must hold subjects of probes.csv"),
        (([first], replace(probes, how=Pooling("flat"))), {}, "must be pooled in the same way; got"),
        ((galleries, probes), {"ranks": (0,)}, "rank must be a whole number >= 1; got 0"),
        ((galleries, probes), {"within": 0}, "within must be a whole number >= 1; got 0"),
        ((galleries, probes), {"fpirs": (1e-3,)}, "FAR 0.001 needs at least 1,000 searches without mate; got 50"),
    ]
    for given, options, sentence in cases:
        with pytest.raises(InputError, match=sentence):
            identify(*given, **options)  # type: ignore[arg-type]


def test_a_gallery_of_all_probes_subjects_has_no_tpir() -> None:
    galleries, probes = search_set()
    assert galleries[0].subjects is not None and probes.subjects is not None
    inside = np.flatnonzero(np.isin(probes.subjects, galleries[0].subjects))
    known = replace(
        probes, units=probes.units[inside], subjects=probes.subjects[inside], numbers=probes.numbers[inside]
    )
    result = identify(galleries[:1], known, draws=0)
    assert [number.name for number in result.numbers] == ["rank-1", "rank-5", "rank-10"]
    assert "need more searches without mate than the 0 there are: 1e-1 (10)" in result.notes[0]
    for fpir in (0.1, 0.0):
        with pytest.raises(InputError, match=r"FAR 0\.?1? needs at least \d+ searches without mate; got 0"):
            identify(galleries[:1], known, fpirs=(fpir,), draws=0)
