"""Features as points: on the plane, in space, or projected, with how they formed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from angulus.report.charts import COLOURS, GREY, Chart, Trace, short, text
from angulus.report.model import Model

Floats = NDArray[np.float64]

MOST_POINTS = 2000  # of the test images
MOST_CLASSES = 10  # with a colour of their own
DIGITS = 4  # of a coordinate
OUTLINE = "length 1"
PROJECTED = ("first direction", "second direction")


def features(model: Model) -> Chart:
    """Test features, a class a colour, wrong predictions marked, class weights as rays; by epochs where kept.

    Two and three dimensions are drawn as they are, one as a line; more are projected onto the two principal directions
    of the test features.
    """
    points, labels = model.test["features"].astype(np.float64), model.test["labels"]
    project, said = _projection(points)
    flat = project(points)
    axes = "xyz"[: flat.shape[1]]
    rows = np.unique(np.linspace(0, len(flat) - 1, MOST_POINTS).round().astype(int))
    classes = _most_frequent(labels)
    colours = {label: COLOURS[place % len(COLOURS)] for place, label in enumerate(classes)}
    members = [*((label, labels == label) for label in classes), (None, ~np.isin(labels, classes))]
    members = [(label, member) for label, member in members if member.any()]
    traces = [
        _points(
            "other classes" if label is None else model.class_name(label),
            GREY if label is None else colours[label],
            flat[rows[member[rows]]],
            axes,
        )
        for label, member in members
    ]
    wrong = rows[~model.correct[rows]]
    if len(wrong):
        traces.append(_wrong(model, wrong, flat, axes))
    reach = float(np.quantile(np.linalg.norm(flat, axis=1), 0.999)) * 1.08 or 1.0
    if model.weights is not None:
        traces += _rays(model, colours, reach, axes)
    traces += _outline(axes)
    frames = []
    if model.formation is not None:
        inside = [member[model.formation.rows] for _, member in members]
        for layer in model.formation.features.astype(np.float64):
            drawn = project(layer)
            reach = max(reach, float(np.quantile(np.linalg.norm(drawn, axis=1), 0.99)) * 1.08)
            frames.append(_frame(drawn, inside, len(traces)))
    layout = _layout(reach, axes, PROJECTED if points.shape[1] > 3 else ("x₁", "x₂", "x₃"))
    return Chart(model.name, f"{said} {_spread(points, labels)}", traces, layout, frames)


def _frame(points: Floats, members: list[NDArray[np.bool_]], traces: int) -> list[list[list[float | None]]]:
    """Coordinates by trace: of each class its points, of the other traces nothing."""
    by_class = [[short(column, DIGITS) for column in points[member].T] for member in members]
    return by_class + [[[] for _ in points.T] for _ in range(traces - len(members))]


def _projection(points: Floats) -> tuple[Callable[[Floats], Floats], str]:
    """What takes features [N, d] to what is drawn, and what it is called."""
    size = points.shape[1]
    if size in (2, 3):
        return lambda values: values, f"{size}-D features as they are."
    if size == 1:
        return lambda values: np.pad(values, ((0, 0), (0, 1))), "1-D features, on a line."
    from sklearn.decomposition import PCA

    found = PCA(2, svd_solver="full" if min(points.shape) < 500 else "randomized", random_state=0).fit(points)
    share = float(found.explained_variance_ratio_.sum())
    return found.transform, (
        f"PCA projection of {size}-D features onto 2 directions, which hold {share:.0%} of their variance: angles and "
        "lengths are not those of the features."
    )


def _most_frequent(labels: NDArray[Any]) -> list[int]:
    found, counts = np.unique(labels, return_counts=True)
    return sorted(found[np.argsort(-counts, kind="stable")][:MOST_CLASSES].tolist())


def _spread(points: Floats, labels: NDArray[Any]) -> str:
    """How close classes lie and how far apart, in degrees, of the features themselves."""
    lengths = np.linalg.norm(points, axis=1, keepdims=True)
    unit = points / np.where(lengths > 0, lengths, 1)
    classes, place = np.unique(labels, return_inverse=True)
    sums = np.stack([np.bincount(place, column, len(classes)) for column in unit.T], axis=1)
    means = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)
    own = np.degrees(np.arccos(np.clip((unit * means[place]).sum(axis=1), -1, 1))).mean()
    if len(classes) < 2:
        return f"Mean angle to the class's mean direction {own:.1f}°."
    between = means @ means.T
    np.fill_diagonal(between, -1)
    nearest = np.degrees(np.arccos(np.clip(between.max(), -1, 1)))
    return (
        f"{len(classes):,} classes; mean angle of a feature to its class's mean direction {own:.1f}°, "
        f"smallest angle between two mean directions {nearest:.1f}°."
    )


def _points(name: str, colour: str, points: Floats, axes: str) -> Trace:
    return _trace(points, axes) | {
        "mode": "markers",
        "name": text(name),
        "legendgroup": text(name),
        "marker": {"color": colour, "size": 4 if len(axes) == 2 else 2.5, "opacity": 0.75},
        "hovertemplate": "(" + ", ".join(f"%{{{axis}:.3g}}" for axis in axes) + ")",
    }


def _wrong(model: Model, rows: NDArray[Any], points: Floats, axes: str) -> Trace:
    said = [
        f"{text(model.class_name(int(label)))} taken for {text(model.class_name(int(guess)))}"
        for label, guess in zip(model.test["labels"][rows], model.test["predictions"][rows], strict=True)
    ]
    return _trace(points[rows], axes) | {
        "mode": "markers",
        "name": "wrong",
        "text": said,
        "marker": {
            "color": GREY,
            "size": 8 if len(axes) == 2 else 4,
            "symbol": "x-thin-open" if len(axes) == 2 else "diamond-open",
        },
        "hovertemplate": "%{text}<extra></extra>",
    }


def _rays(model: Model, colours: dict[int, str], reach: float, axes: str) -> list[Trace]:
    assert model.weights is not None
    found = []
    for label, colour in colours.items():
        weight = model.weights[label].astype(np.float64)
        tip = weight / max(float(np.linalg.norm(weight)), 1e-12) * reach
        found.append(
            _trace(np.stack([np.zeros_like(tip), tip]), axes)
            | {
                "mode": "lines",
                "name": "class weight",
                "legendgroup": text(model.class_name(label)),
                "showlegend": False,
                "hoverinfo": "skip",
                "line": {"color": colour, "width": 1},
            }
        )
    return found


def _outline(axes: str) -> list[Trace]:
    """The unit circle, or three great circles of the unit sphere; the page shows it when all features have length 1."""
    turn = np.linspace(0, 2 * np.pi, 73)
    wave = {"c": np.cos(turn), "s": np.sin(turn), "0": np.zeros_like(turn)}
    circles = ("cs",) if len(axes) == 2 else ("cs0", "c0s", "0cs")
    return [
        _trace(np.stack([wave[each] for each in circle], axis=1), axes)
        | {
            "mode": "lines",
            "name": OUTLINE,
            "visible": False,
            "showlegend": False,
            "hoverinfo": "skip",
            "line": {"color": GREY, "width": 1},
        }
        for circle in circles
    ]


def _trace(points: Floats, axes: str) -> Trace:
    return {
        "type": "scatter" if len(axes) == 2 else "scatter3d",
        **{axis: short(column, DIGITS) for axis, column in zip(axes, points.T, strict=True)},
    }


def _layout(reach: float, axes: str, titles: Sequence[str]) -> dict[str, Any]:
    # the page's switch to length 1 puts its own ranges in place of these
    spans: dict[str, dict[str, Any]] = {
        f"{axis}axis": {"range": short([-reach, reach], DIGITS), "title": {"text": title}}
        for axis, title in zip(axes, titles, strict=False)
    }
    if len(axes) == 3:
        return {"scene": {**spans, "aspectmode": "cube"}, "margin": {"l": 0, "r": 0, "b": 0}}
    spans["yaxis"] |= {"scaleanchor": "x", "scaleratio": 1}
    spans["xaxis"] |= {"constrain": "domain"}
    spans["yaxis"] |= {"constrain": "domain"}
    return spans
