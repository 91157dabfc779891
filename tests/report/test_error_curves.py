"""Pictures of results' curves: what is drawn, what a log axis leaves out, and a model without errors."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy import stats

import reports
from angulus.core.checks import InputError
from angulus.evaluation.metrics.curves import error_curve
from angulus.evaluation.protocols.pairs import curves
from angulus.evaluation.protocols.result import KINDS
from angulus.report.chart import probit, probit_inverse
from angulus.report.error_curves import CURVES, Band, error_curves
from angulus.report.render_png import draw


def draw_curves(kind: str, lines: Any, *, title: str) -> Figure:
    return draw(error_curves(kind, lines, title))


X, Y = np.array([0.0, 0.01, 0.5, 1.0]), np.array([0.2, 0.4, 0.9, 1.0])


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_drawn_with_its_axes(kind: str) -> None:
    figure = draw_curves(kind, [("one", X, Y), ("two", X, Y / 2)], title="some")
    (axis,) = figure.axes
    assert len(axis.lines) == 2
    x, y = CURVES[kind].x, CURVES[kind].y
    shown = (X > 0) | ~np.array(x.log or x.probit)
    shown &= (X < 1) | (not x.probit)
    assert np.array_equal(axis.lines[0].get_xdata(), X[shown & ((Y < 1) | (not y.probit))])
    assert np.array_equal(axis.lines[1].get_ydata(), Y[shown] / 2)
    assert axis.get_title() == "some"
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["one", "two"]
    figure.savefig(io.BytesIO())


def test_a_model_without_errors_has_pictures_too() -> None:
    for curve in curves(error_curve([0.9, 0.8, 0.2], [True, True, False]), "pairs"):
        figure = draw_curves(curve.kind, [(curve.name, curve.x, curve.y)], title="apart")
        figure.savefig(io.BytesIO())
        assert len(figure.axes[0].lines[0].get_xdata()) > 0
        assert figure.axes[0].get_yscale() == "linear"


def test_rates_lie_where_the_normal_quantile_has_them() -> None:
    """Scores of two normal distributions with one deviation give a straight DET, of slope −1."""
    rates = np.array([1e-8, 1e-3, 0.2, 0.5, 0.9])
    assert probit(rates) == pytest.approx(stats.norm.ppf(rates))
    assert probit_inverse(probit(rates)) == pytest.approx(rates)
    x = np.geomspace(1e-4, 0.5, 20)
    y = stats.norm.cdf(-1.5 - stats.norm.ppf(x))
    chart = error_curves("det", [("one", x, y)])
    (trace,) = reports.traces(chart)
    assert np.diff(trace["y"]) / np.diff(trace["x"]) == pytest.approx(-np.ones(19), abs=1e-3)
    assert trace["text"][0] == f"(0.0001, {y[0]:.4g})"  # the rates, not their places
    layout = reports.layout(chart)["xaxis"]
    assert dict(zip(layout["ticktext"], layout["tickvals"], strict=True))["0.5"] == 0
    assert layout["range"][0] < stats.norm.ppf(1e-4) < stats.norm.ppf(0.5) < layout["range"][1]
    axis = draw(chart).axes[0]
    places = axis.transData.transform(np.array([x, y]).T)
    assert abs(np.corrcoef(*places.T)[0, 1]) == pytest.approx(1, abs=1e-9)


def test_a_band_is_drawn_within_the_axes() -> None:
    x, y = np.array([0.01, 0.1, 0.4]), np.array([0.3, 0.1, 0.05])
    band = Band(x, np.array([0.1, 0.02, 0.0]), np.array([0.6, 0.2, 0.1]), "Band: some.")
    chart = error_curves("det", [("one", x, y)], bands={"one": band})
    assert chart.note.endswith("Band: some.")
    filled, line = reports.traces(chart)
    assert (filled["fill"], filled["meta"], line["meta"]) == ("toself", "run:one", "run:one")
    low, high = reports.layout(chart)["yaxis"]["range"]
    assert filled["x"] == pytest.approx(stats.norm.ppf([*x, *x[::-1]]), abs=1e-4)
    expected = [*stats.norm.ppf(band.high), low, *stats.norm.ppf([0.02, 0.1])]  # there is no place for 0
    assert filled["y"] == pytest.approx(expected, abs=1e-3) and max(filled["y"]) < high
    (patch,) = draw(chart).axes[0].collections
    corners = patch.get_paths()[0].vertices
    assert {(0.01, 0.1), (0.01, 0.6), (0.1, 0.02)} <= set(map(tuple, corners.round(6).tolist()))


def test_few_points_are_marked_and_ranks_are_plain_numbers() -> None:
    """BLUFR's ROC may be a single point, which a line alone would not show."""
    lines = [("one", X[1:2], Y[1:2]), ("many", np.linspace(0.01, 1), np.linspace(0.2, 1))]
    (axis,) = draw_curves("roc", lines, title="").axes
    assert [line.get_marker() for line in axis.lines] == ["o", "None"]
    figure = draw_curves("cmc", [("one", np.arange(1.0, 8), np.linspace(0.5, 1, 7))], title="")
    figure.savefig(io.BytesIO())
    ticks = [text.get_text() for text in figure.axes[0].get_xticklabels(which="both")]
    assert {"1", "2"} <= set(ticks) and not any("$" in tick for tick in ticks)  # no formulas


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(
        InputError, match="kind must be one of 'roc', 'det', 'cmc', 'froc', 'discard', 'fnir'; got 'rock'"
    ):
        draw_curves("rock", [("one", X, Y)], title="")
