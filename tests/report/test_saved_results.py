"""Saved results in a report: side by side by protocol, curves through the tables' numbers, and which features."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_curve

import people
import reports
from angulus.core.embeddings import Embeddings
from angulus.evaluation.lists.pair_list import PairList
from angulus.evaluation.protocols import groups, pairs, quality
from angulus.evaluation.protocols.result import MOST_POINTS, Curve, Number, Result
from angulus.report import saved_results, sections
from angulus.report.content import read_content
from angulus.report.error_curves import CURVES
from angulus.report.page import Table, render
from reports import Page

CROWD = people.crowd()
LIST = people.crowd_pairs(CROWD)


def of_model(name: str | None, noise: float = 0.8) -> Embeddings:
    models = None if name is None else np.full(len(CROWD.ids), name)
    return dataclasses.replace(people.crowd(noise=noise), models=models)


@pytest.fixture(scope="module")
def results() -> dict[str, Result]:
    """Two models on one list, the second without intervals, and a result of another protocol."""
    return {
        "sharp": pairs.evaluate(of_model("aa-none", 0.5), LIST, draws=30, fars=[0.1]),
        "blurred": pairs.evaluate(of_model("bb-none", 1.2), LIST, draws=30, fars=[0.1, 0.25]),
        "norms": quality.evaluate(quality.judge_pairs(of_model("aa-none"), LIST), draws=0),
    }


def rows_of(table: Table) -> dict[str, dict[str, str]]:
    return {name: dict(zip(table.head[1:], cells, strict=True)) for name, *cells in table.rows}


# tables


def test_results_of_one_protocol_are_rows_of_one_table(results: dict[str, Result]) -> None:
    next_to, alone = saved_results.result_tables(results)
    assert (next_to.caption, alone.caption) == ("pairs: 2 results", "norms: quality")
    rows = rows_of(next_to)
    assert list(rows) == ["sharp", "blurred"]
    for name, cells in rows.items():
        for number in results[name].numbers:
            found = [float(each) for each in re.findall(r"[\d.]+", cells[number.name])]
            if number.interval is None:  # few people: a note says so
                assert number.no_interval and found == pytest.approx([number.value], rel=1e-3)
            else:
                expected = [number.value, number.interval.low, number.interval.high]
                assert found == pytest.approx(expected, rel=1e-3) and "[" in cells[number.name]
        assert "[" in cells["AUC"]
        assert float(cells["accuracy, ±"]) == pytest.approx(results[name].number("accuracy").spread, rel=1e-3)
        threshold = results[name].number("TAR@FAR=1e-1").threshold
        assert float(cells["TAR@FAR=1e-1, threshold"]) == pytest.approx(threshold, rel=1e-3)
    assert (rows["sharp"]["TAR@FAR=2.5e-1"], rows["sharp"]["TAR@FAR=2.5e-1, threshold"]) == ("—", "—")
    assert not any("norm" in head for head in next_to.head)


def test_what_all_have_in_common_is_said_once(results: dict[str, Result]) -> None:
    next_to, _ = saved_results.result_tables(results)
    assert next_to.notes[0].startswith("In brackets: 95 % of 30 resamples of the people (seed 0)")
    assert next_to.notes[1] == "72 pairs, 36 genuine, 36 impostors, 48 images, 12 people, 3 folds."
    assert next_to.notes[2].startswith("TAR@FAR is the share of genuine pairs")
    assert "± of the accuracy: standard error over 3 folds" in next_to.notes
    folds = [note for note in next_to.notes if "thresholds of the folds" in note]
    assert [note.partition(":")[0] for note in folds] == ["sharp", "blurred"]
    assert not any("differ" in note or "same samples" in note for note in next_to.notes)


def test_where_results_differ_it_is_said() -> None:
    other = people.crowd_pairs(CROWD, seed=2)
    given = {
        "cosine": pairs.evaluate(CROWD, LIST, draws=10),
        "far": pairs.evaluate(CROWD, LIST, draws=0, metric="euclidean", flip="sum"),
        "other list": pairs.evaluate(CROWD, other, draws=10),
    }
    (table,) = saved_results.result_tables(given)
    said = " ".join(table.notes)
    assert table.notes[0].startswith("cosine: In brackets: 95 % of 10 resamples")
    assert table.notes[1].startswith("other list: In brackets: 95 % of 10 resamples")
    assert "They are not of the same samples: the rows do not show which model is better." in table.notes
    assert re.search(r"They differ in score: cosine: cosine, .*; far: minus the distance.*; other list: cosine", said)
    assert "far: Features: as their file holds them; " in said and "; scores: sum with the mirrored image's," in said
    assert "[" not in rows_of(table)["far"]["AUC"] and "[" in rows_of(table)["cosine"]["AUC"]
    (same,) = saved_results.result_tables({name: given[name] for name in ("cosine", "far")})
    assert not any("not of the same samples" in note for note in same.notes)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("aa-none", "Features: of each image alone, without its mirror image."),
        ("aa-sum", "Features: of each image plus those of its mirror image."),
        ("aa-concat", "Features: of each image, followed by those of its mirror image."),
        (None, "Features: as their file holds them; it does not record the model and its flip rule."),
    ],
)
def test_each_table_says_which_features_it_is_of(model: str | None, said: str, tmp_path: Path) -> None:
    given = of_model(model)
    for result in (
        pairs.evaluate(given, LIST, draws=0),
        quality.evaluate(quality.judge_pairs(given, LIST), draws=0),
        quality.evaluate(quality.judge_result(pairs.evaluate(given, LIST, draws=0)), draws=0),
        groups.evaluate(given, people.crowd_pairs(given, grouped=True), draws=0),
    ):
        result.save(tmp_path / "result.json")
        read = Result.read(tmp_path / "result.json")
        assert read.about.get("model") == model
        (table,) = saved_results.result_tables({"one": read})
        assert said in table.notes


def test_a_result_of_no_features_says_nothing_of_them() -> None:
    froc = Result("luna16", (Number("CPM", 0.5),), {}, {"scans": 3}, about={"embeddings": "marks.csv"})
    assert saved_results.describe_features(froc) == ""


# curves


@pytest.fixture(scope="module")
def long() -> Result:
    """A result whose curve has more points than are kept, at FARs that fall between those."""
    rng = np.random.default_rng(0)
    count = 4000
    vectors = rng.normal(size=(2 * count, 4))
    ids = np.array([str(row) for row in range(2 * count)])
    same = np.arange(count) % 2 == 0
    vectors[:count][same] += 0.7 * vectors[count:][same]
    listed = PairList(ids[:count], ids[count:], same, None, source="long")
    return pairs.evaluate(Embeddings(vectors, ids), listed, fars=[0.01, 0.1234, 0.3], draws=0)


def exact(result: Result, far: float) -> float:
    fmr, tar, _ = roc_curve(result.samples["same"], result.samples["scores"], drop_intermediate=False)
    return float(tar[fmr <= far + 1e-12].max())


def as_saved_before(result: Result) -> Result:
    """The result with curves thinned regardless of its figures, as older files have them."""
    return dataclasses.replace(result, curves=tuple(each.thinned() for each in result.curves))


@pytest.mark.parametrize("kept", [as_saved_before, lambda result: result])
def test_what_is_said_of_a_curve_is_what_its_table_says(long: Result, kept: Any) -> None:
    roc, det = saved_results.result_curves({"long": kept(long)})
    (table,) = saved_results.result_tables({"long": long})
    said = {row[0]: row[1] for row in table.rows}
    assert len(long.curves[0].x) > MOST_POINTS
    assert roc.summary == f"long: TAR {said['TAR@FAR=1e-2']} at FMR 0.01."
    assert det.summary == f"long: FNMR {1 - exact(long, 0.01):#.4g} at FMR 0.01."
    fars = [0.01, 0.1234, 0.3]
    for chart, turn, place in ((roc, lambda tar: tar, float), (det, lambda tar: 1 - tar, norm.ppf)):
        line, marks = reports.traces(chart)
        assert marks["x"] == pytest.approx(list(map(place, fars)), abs=1e-4)
        for far, x, y, named in zip(fars, marks["x"], marks["y"], marks["text"], strict=True):
            assert y == pytest.approx(place(turn(exact(long, far))), abs=1e-4)
            assert f"{turn(exact(long, far)):#.4g}" in named
            assert (x, y) in set(zip(line["x"], line["y"], strict=True))
        assert (np.diff(line["x"]) >= 0).all()
        assert marks["meta"] == line["meta"] == "run:long"
        go.Figure(data=reports.traces(chart), layout=reports.layout(chart))


def test_saved_curves_keep_the_points_of_the_figures(long: Result, tmp_path: Path) -> None:
    long.save(tmp_path / "long.json")
    for curve in Result.read(tmp_path / "long.json").curves:
        for far in (0.01, 0.1234, 0.3):
            y = curve.y[np.searchsorted(curve.x, far, side="right") - 1]
            assert y == pytest.approx(exact(long, far) if curve.kind == "roc" else 1 - exact(long, far))
    assert any(
        as_saved_before(long).curves[0].y[np.searchsorted(as_saved_before(long).curves[0].x, far, side="right") - 1]
        != exact(long, far)
        for far in (0.01, 0.1234, 0.3)
    )  # else the test above shows nothing


def test_curves_of_one_protocol_share_a_chart(results: dict[str, Result]) -> None:
    search = Result(
        "trillion-pairs", (), {}, {}, curves=(Curve("roc", "search", np.array([0.1, 0.5]), np.array([0.3, 0.4])),)
    )
    drawn = saved_results.result_curves({**results, "gallery": search})
    titles = [chart.title for chart in drawn]
    assert titles == [
        f"{CURVES['roc'].title}, pairs",
        f"{CURVES['roc'].title}, trillion-pairs",
        CURVES["det"].title,
    ]
    roc = drawn[0]
    shown = [series.name for series in roc.series if series.in_legend]
    assert shown == ["sharp", "blurred"]
    assert [(series.name, series.group) for series in drawn[1].series] == [("gallery, search", "run:gallery")]


def test_froc_goes_through_its_sensitivities() -> None:
    curve = Curve("froc", "luna16", np.array([0.0, 0.5, 2.0]), np.array([0.0, 0.5, 0.8]))
    number = Number("sensitivity@FP/scan=1", 0.6)
    (chart,) = saved_results.result_curves({"one": Result("luna16", (number,), {}, {}, curves=(curve,))})
    assert chart.summary == "one: sensitivity 0.6000 at 1 false positives per case."
    assert (reports.traces(chart)[0]["x"], reports.traces(chart)[0]["y"]) == ([0.5, 1, 2], [0.5, 0.6, 0.8])


def test_groups_of_two_results_stand_beside_each_other() -> None:
    listed = people.crowd_pairs(CROWD, grouped=True)
    given = {name: groups.evaluate(of_model(None, noise), listed, draws=0) for name, noise in (("a", 0.5), ("b", 1.2))}
    (chart,) = saved_results.errors_by_group(given)
    assert [(trace["name"], trace["x"]) for trace in reports.traces(chart)] == [
        ("a", ["even", "odd"]),
        ("b", ["even", "odd"]),
    ]


def test_the_page_has_one_table_of_two_results(tmp_path: Path) -> None:
    paths = [reports.result(tmp_path, name) for name in ("first", "second")]
    content = read_content(paths)
    page = Page(render(content.title, "", sections.build_sections(content)))
    captions = [said for _, said in page.all("caption")]
    assert captions[0] == "pairs: 2 results" and "first: pairs" not in captions
