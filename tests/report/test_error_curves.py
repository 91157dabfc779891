"""Pictures of results' curves: what is drawn, what a log axis leaves out, and a model without errors."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from angulus.core.checks import InputError
from angulus.evaluation.metrics.curves import error_curve
from angulus.evaluation.protocols.pairs import curves
from angulus.evaluation.protocols.result import KINDS
from angulus.report.charts import CURVES, error_curves
from angulus.report.render_png import draw


def draw_curves(kind: str, lines: Any, *, title: str) -> Figure:
    return draw(error_curves(kind, lines, title))


X, Y = np.array([0.0, 0.01, 0.5, 1.0]), np.array([0.2, 0.4, 0.9, 1.0])


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_drawn_with_its_axes(kind: str) -> None:
    figure = draw_curves(kind, [("one", X, Y), ("two", X, Y / 2)], title="some")
    (axis,) = figure.axes
    assert len(axis.lines) == 2
    shown = X > 0 if CURVES[kind].x.log else np.ones(4, dtype=bool)
    assert np.array_equal(axis.lines[0].get_xdata(), X[shown])
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
    with pytest.raises(InputError, match="kind must be one of 'roc', 'det', 'cmc', 'froc', 'discard'; got 'rock'"):
        draw_curves("rock", [("one", X, Y)], title="")
