"""What an auditor reads: FNMR at fixed FMRs, the band of a DET, error versus discard, and FNIR by gallery size."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from sklearn.metrics import det_curve

import people
from angulus.core.embeddings import Embeddings
from angulus.evaluation.lists.pair_list import PairList
from angulus.evaluation.metrics.curves import Presorted
from angulus.evaluation.protocols import error_discard, open_set, pairs, template_identification
from angulus.evaluation.protocols.figures import Resampling
from angulus.evaluation.protocols.result import Number, Result
from angulus.report import error_rates, fnir
from angulus.report.page import Table

CROWD = people.crowd()
LIST = people.crowd_pairs(CROWD)
FARS = (0.5, 0.1, 0.05)


@pytest.fixture(scope="module")
def result() -> Result:
    return pairs.evaluate(CROWD, LIST, fars=FARS, draws=40, seed=3)


def cells(table: Table) -> dict[str, dict[str, str]]:
    return {row[0]: dict(zip(table.head[1:], row[1:], strict=True)) for row in table.rows}


def test_the_fnmr_at_each_fmr_is_sklearns(result: Result) -> None:
    (table,) = error_rates.fnmr_tables({"one": result})
    fmr, fnmr, thresholds = det_curve(result.samples["same"], result.samples["scores"])
    scores, same = result.samples["scores"], result.samples["same"]
    for far, name in ((0.5, "5e-1"), (0.1, "1e-1"), (0.05, "5e-2")):
        row = cells(table)[name]
        within = fmr <= far + 1e-12
        assert float(row["FNMR"]) == pytest.approx(fnmr[within].min(), rel=1e-3)
        threshold = result.number(f"TAR@FAR={name}").threshold
        assert threshold is not None and float(row["threshold"]) == pytest.approx(threshold, rel=1e-3)
        assert threshold == pytest.approx(thresholds[within].min())
        assert row["false non-matches"] == f"{sum(scores[same] < threshold)} of 36"
        assert row["false matches"] == f"{sum(scores[~same] >= threshold)} of 36"
        interval = result.number(f"TAR@FAR={name}").interval
        if interval is not None:
            low, high = map(float, row["95 % interval"].split(" to "))
            assert (low, high) == pytest.approx((1 - interval.high, 1 - interval.low), rel=1e-3)


def test_what_is_not_shown_has_its_reason(result: Result) -> None:
    (table,) = error_rates.fnmr_tables({"one": result})
    rows = cells(table)
    assert list(rows) == ["5e-1", "1e-1", "5e-2", "1e-2", "1e-3", "1e-4", "1e-5", "1e-6"]
    assert {name for name, row in rows.items() if row["FNMR"] == "not shown"} == {"1e-2", *list(rows)[4:]}
    said = " ".join(table.notes)
    assert "there are 36 different impostor pairs: FMR 1e-2 needs 100, 1e-3 needs 1,000, 1e-4 needs 10,000" in said
    (table,) = error_rates.fnmr_tables({"one": pairs.evaluate(CROWD, LIST, fars=[0.05], draws=0)})
    assert table.notes[-1].endswith("Not shown, for the result was not asked for them: FMR 1e-1.")
    twice = dataclasses.replace(result, samples={**result.samples, "distinct": np.arange(72) // 2 * 2})
    assert "there are 18 different impostor pairs" in " ".join(error_rates.fnmr_tables({"one": twice})[0].notes)
    assert error_rates.fnmr_tables({"one": Result("other", (Number("CPM", 0.5),), {}, {})}) == []


def test_several_results_have_a_row_each_for_each_fmr(result: Result) -> None:
    (table,) = error_rates.fnmr_tables({"a": result, "b": result})
    assert [row[0] for row in table.rows[:4]] == ["5e-1, a", "5e-1, b", "1e-1, a", "1e-1, b"]


def test_the_band_is_on_the_resamples_of_the_table(result: Result) -> None:
    """At a FAR of the table it is the table's interval; elsewhere, that of a slow loop."""
    band = error_rates.det_bands({"one": result}, draws=1000)["one"]
    assert band.words == "Band: 95 % of 40 resamples of the people (seed 3), at each place along the axis."
    for far, name in ((0.1, "1e-1"), (0.05, "5e-2")):
        interval = result.number(f"TAR@FAR={name}").interval
        place = int(np.flatnonzero(band.x == far)[0])
        if interval is not None:
            assert (band.low[place], band.high[place]) == pytest.approx((1 - interval.high, 1 - interval.low))
    assert band.x[0] == 1 / 36 and band.x[-1] == 0.5 and (np.diff(band.x) > 0).all()
    assert (np.diff(band.low) <= 0).all() and (np.diff(band.high) <= 0).all()


def test_the_fnmr_of_a_resample_is_that_of_a_loop() -> None:
    rng = np.random.default_rng(0)
    scores, same = rng.integers(0, 6, 40) / 5, rng.random(40) < 0.5
    weights = rng.integers(0, 4, 40).astype(float)
    fmrs = np.array([0.0, 0.1, 0.4, 1.0])
    found = error_rates.fnmr_statistic(Presorted.of(scores, same), fmrs)(weights)
    for fmr in fmrs:
        least = 1.0
        for threshold in {*scores.tolist(), np.inf}:
            accepted = scores >= threshold
            if weights[accepted & ~same].sum() / weights[~same].sum() <= fmr:
                least = min(least, weights[~accepted & same].sum() / weights[same].sum())
        assert found[str(fmr)] == pytest.approx(least)
    assert error_rates.fnmr_statistic(Presorted.of(scores, same), fmrs)(weights * same) == {}


def test_where_there_is_no_band(result: Result) -> None:
    without = pairs.evaluate(CROWD, LIST, draws=0)
    assert error_rates.det_bands({"one": without}, 1000) == {}
    assert error_rates.det_bands({"one": result}, 0) == {}
    many = {str(number): result for number in range(error_rates.MOST_BANDS + 1)}
    assert error_rates.det_bands(many, 1000) == {}
    grouped = Result("rfw", (), result.choices, {}, samples={**result.samples, "groups": np.full(72, "a")})
    assert error_rates.det_bands({"one": grouped}, 1000) == {}
    assert error_rates.limited(Resampling("people", 1000, 0), 10**6, 1000).draws == 300


def test_how_intervals_came_about_is_read_back(result: Result) -> None:
    assert Resampling.of(result) == Resampling("people", 40, 3, keeps_sizes=True)
    for words in ("none", "95 % of 999999999 resamples of the people (seed 0)", 7):
        assert Resampling.of(dataclasses.replace(result, choices={"intervals": words})).draws == 0


def test_partial_areas_are_those_of_a_loop() -> None:
    """Genuine pairs go by their norm, one by one; the area is a sum of rectangles up to the share."""
    rng = np.random.default_rng(1)
    count, same = 120, np.arange(120) % 2 == 0
    vectors = rng.normal(size=(2 * count, 4)) * rng.uniform(1, 2, size=(2 * count, 1))
    vectors[:count][same] += 0.8 * vectors[count:][same]
    ids = np.array([str(row) for row in range(2 * count)])
    listed = PairList(ids[:count], ids[count:], same, None, source="some")
    found = pairs.evaluate(Embeddings(vectors, ids), listed, draws=20)
    (table,), (chart,) = error_rates.discard_blocks({"one": found}, 1000)
    scores, norms = found.samples["scores"], found.samples["norms"]
    seventh = sorted(scores[~same])[-7]  # at FMR 0.1, 6 of the 60 impostor pairs are accepted
    order = np.flatnonzero(same)[np.argsort(norms[same])]
    wrong = scores[order] <= seventh
    curve = [wrong[gone:].mean() for gone in range(60)]
    rows = cells(table)
    for share in error_discard.SHARES:
        area = sum(curve[gone] * (min((gone + 1) / 60, share) - gone / 60) for gone in range(60) if gone / 60 < share)
        row = next(row for name, row in rows.items() if name.endswith(f", {share:.0%}"))
        assert float(row["FNMR"]) == pytest.approx(curve[int(share * 60 + 1e-9)], rel=1e-3)
        assert float(row["partial area"]) == pytest.approx(area, rel=1e-3)
        assert float(row["ratio"]) == pytest.approx(area / (curve[0] * share), abs=0.006)
    assert next(iter(rows)) == "FMR 1e-1, 0%" and rows["FMR 1e-1, 0%"]["partial area"] == "—"
    band, line = chart.series
    assert band.kind == "band" and line.y == pytest.approx(curve[: len(line.y)])


def test_fnir_of_a_gallery_and_of_trials() -> None:
    samples = {
        "gallery": np.zeros(5, int),
        "subjects": np.array(["a", "b", "c", "x", "y"]),
        "mated": np.array([True, True, True, False, False]),
        "scores": np.array([0.9, 0.5, 0.7, 0.6, 0.2]),
        "ranks": np.array([1, 1, 2, 0, 0]),
        "sizes": np.array([[2, 30]]),
        "size_ranks": np.array([[1, 1], [1, 1], [1, 2], [0, 0], [0, 0]]),
        "size_scores": np.array([[0.9, 0.9], [0.5, 0.5], [0.7, 0.7], [0.3, 0.6], [0.2, 0.2]]),
        "fpirs": np.array([0.5]),
        "within": np.array(1),
    }
    found = Result(template_identification.PROTOCOL, (), {"smaller galleries": "some"}, {}, samples=samples)
    (table,), (chart,) = fnir.fnir_blocks({"one": found}, 100)
    assert [row[:3] for row in table.rows] == [  # at half of the false alarms the threshold may reach the lower one
        ["2, 5e-1", "0.3000", "0.000"],
        ["30, 5e-1", "0.5000", "0.3333"],
    ]
    assert any("Galleries of N: some." in note for note in table.notes)
    assert any("searches without mate: FPIR 1e-1, 1e-2, 1e-3" in note for note in table.notes)
    (line,) = chart.series
    assert (list(line.x), list(line.y)) == ([2, 30], pytest.approx([0, 1 / 3]))
    of_trials = {
        "sizes": np.array([10, 90]),
        "size_fars": np.array([0.1]),
        "size_misses": np.array([[[0.2], [0.4]], [[0.4], [0.8]]]),
    }
    trials = Result(open_set.PROTOCOL, (Number("DIR@FAR=1e-1, rank 3", 0.4),), {}, {}, samples=of_trials)
    (table,), _ = fnir.fnir_blocks({"one": trials}, 100)
    assert [row[1:] for row in table.rows] == [["—", "0.3000", "± 0.14"], ["—", "0.6000", "± 0.28"]]
    assert "Rank: 3. " in " ".join(table.notes) + " "
    numbers = (Number("TPR@FAR=1e-2", 0.75, threshold=0.5), Number("rank-1", 0.9))
    (table,), charts = fnir.fnir_blocks({"one": Result("trillion-pairs", numbers, {}, {"gallery images": 1200})}, 100)
    assert table.rows == [["1,200, 1e-2", "0.5000", "0.2500", "—"]] and not charts
