"""Features as points: in the plane, in space or projected, and how they formed."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from angulus.core import checks
from angulus.report.chart import CLASS, COLOURS, GREY, RUN, Axis, Chart, Samples, Series, Sheet
from angulus.report.finished_run import FinishedRun
from angulus.training.watch import closest

Array = NDArray[Any]
Floats = NDArray[np.float64]

DRAWN = (2, 3)  # sizes of features that are drawn as they are
MOST_POINTS = 2000  # of the test images
MOST_CLASSES = 10  # with a colour of their own
OUTLYING = 3  # times the norm that 95 % of the features stay below: what is longer does not stretch the axes
OUTLINE = "length 1"
PROJECTED = ("first direction", "second direction")


def class_features(
    name: str, features: Array, labels: Array, class_names: Sequence[str], weights: Array | None = None
) -> Chart:
    """Features in the plane or in space, one colour per class, the origin, and class weights as rays.

    Features are [N, d] with d = 2 or 3, weights [C, d] or [C, K, d]. CM Fig. 5, NF Fig. 2, IAM Fig. 2.
    """
    if features.ndim != 2 or features.shape[1] not in DRAWN or labels.shape != features.shape[:1] or not len(labels):
        raise checks.InputError(
            "features to draw must be [N, 2] or [N, 3] and labels [N] with N >= 1; "
            f"got {list(features.shape)} and {list(labels.shape)}"
        )
    reach = _reach(features)
    colours = {label: COLOURS[label % 10] for label in range(len(class_names))}
    series = [
        _points(class_name, colours[label], features[labels == label], opacity=0.6)
        for label, class_name in enumerate(class_names)
    ]
    if weights is not None:
        for label, colour in colours.items():
            series += _rays(class_names[label], colour, weights[label], reach)
    looks = {"colour": "#000000", "symbol": "plus", "size": 7, "in_legend": False}
    series.append(_series("points", "origin", np.zeros((1, features.shape[1])), **looks))
    axis = Axis(low=-reach, high=reach)
    return Chart(name, series, axis, axis, axis if features.shape[1] == 3 else None, equal=True)


def shown_rows(run: FinishedRun) -> tuple[Array, Array]:
    """(the test images that are drawn, and all that have a place in `run_features`' samples: those at any epoch)."""
    count = len(run.test["features"])
    rows = np.unique(np.linspace(0, count - 1, MOST_POINTS).round().astype(int))
    return rows, rows if run.formation is None else np.union1d(rows, run.formation.rows)


def run_features(run: FinishedRun, sheet: Sheet | None = None) -> Chart:
    """Test features of a run, one colour per class, wrong predictions marked, and by epoch if the run recorded that.

    Two and three dimensions are drawn as they are, and one as a line; more are projected onto the two principal
    directions of the test features. `sheet` has the pictures of `shown_rows`.
    """
    points, labels = run.test["features"].astype(np.float64), run.test["labels"]
    project, words = _projection(points)
    flat = project(points)
    rows, sampled = shown_rows(run)
    classes = _most_frequent(labels)
    colours = {label: COLOURS[place % 10] for place, label in enumerate(classes)}
    members = [
        *((run.class_name(label), colours[label], labels == label) for label in classes),
        ("other classes", GREY, ~np.isin(labels, classes)),
    ]
    members = [(name, colour, member) for name, colour, member in members if member.any()]
    drawn = [(name, colour, rows[member[rows]]) for name, colour, member in members]
    series = [_points(name, colour, flat[chosen], np.searchsorted(sampled, chosen)) for name, colour, chosen in drawn]
    wrong = rows[~run.correct[rows]]
    if len(wrong):
        looks = {"colour": GREY, "symbol": "cross", "size": 8 if flat.shape[1] == 2 else 4}
        series.append(_series("points", "wrong", flat[wrong], **looks, samples=np.searchsorted(sampled, wrong)))
    reach = _reach(flat)
    if run.weights is not None:
        for label, colour in colours.items():
            series += _rays(run.class_name(label), colour, run.weights[label], reach)
    series += _outline(flat.shape[1])
    frames, frame_samples = [], []
    if run.formation is not None:
        inside = [member[run.formation.rows] for *_, member in members]
        places = np.searchsorted(sampled, run.formation.rows)
        frame_samples = [*(places[member] for member in inside), *([places[:0]] * (len(series) - len(members)))]
        still: list[Any] = [[[] for _ in flat.T]] * (len(series) - len(members))
        for epoch in run.formation.features.astype(np.float64):
            at_epoch = project(epoch)
            frames.append([list(at_epoch[member].T) for member in inside] + still)
    titles = PROJECTED if points.shape[1] > 3 else ("x₁", "x₂", "x₃")[: flat.shape[1]]
    # the page's switch to length 1 replaces these limits by its own
    x, y, *rest = (Axis(title, low=-reach, high=reach) for title in titles)
    text: dict[str, Any] = {"summary": f"{words} {_spread(points, labels)}", "group": RUN + run.name}
    formed: dict[str, Any] = {"frames": frames, "frame_samples": frame_samples}
    z, samples = rest[0] if rest else None, _samples(run, sampled, sheet)
    return Chart(run.name, series, x, y, z, **text, **formed, equal=True, digits=4, samples=samples)


def _samples(run: FinishedRun, rows: Array, sheet: Sheet | None) -> Samples:
    test = run.test
    names = [run.class_name(label) for label in range(int(max(test["labels"].max(), test["predictions"].max())) + 1)]
    ids = [run.image_id(row) for row in rows.tolist()]
    norms = np.linalg.norm(test["features"].astype(np.float64), axis=1)
    degrees, direction = _angles(run, test["features"].astype(np.float64))
    labels, predictions = test["labels"][rows], test["predictions"][rows]
    return Samples(ids, names, labels, predictions, norms[rows], degrees[rows], direction, sheet)


def _reach(points: Floats) -> float:
    """How far the axes go: a little beyond all points, except the few that are much farther than the others.

    page.js has the same rule for the axes of earlier epochs.
    """
    norms = np.linalg.norm(points, axis=1)
    return float(min(norms.max(), OUTLYING * np.quantile(norms, 0.95))) * 1.08 or 1.0


def _angles(run: FinishedRun, points: Floats) -> tuple[Floats, str]:
    """(the angle of each feature in degrees, to what): to the weight of its class, or else to the class's mean."""
    labels, unit = run.test["labels"], _unit(points)
    if run.weights is not None:
        directions, words = _unit(run.weights[labels].astype(np.float64)), "class weight"
    else:
        classes, place = np.unique(labels, return_inverse=True)
        directions, words = _means(unit, place, len(classes))[place], "mean direction of its class"
    return np.degrees(np.arccos(np.clip((unit * directions).sum(axis=1), -1, 1))), words


def _unit(points: Floats) -> Floats:
    lengths = np.linalg.norm(points, axis=1, keepdims=True)
    return np.asarray(points / np.where(lengths > 0, lengths, 1))


def _means(unit: Floats, place: Array, count: int) -> Floats:
    """The mean direction of each class, [count, d]."""
    return _unit(np.stack([np.bincount(place, column, count) for column in unit.T], axis=1))


def _projection(points: Floats) -> tuple[Callable[[Floats], Floats], str]:
    """(the function from features [N, d] to the points to draw, its description)."""
    size = points.shape[1]
    if size in DRAWN:
        return lambda values: values, f"{size}-D features as they are."
    if size == 1:
        return lambda values: np.pad(values, ((0, 0), (0, 1))), "1-D features, on a line."
    from sklearn.decomposition import PCA

    with np.errstate(invalid="ignore"):  # of features that are all equal
        pca = PCA(2, svd_solver="full" if min(points.shape) < 500 else "randomized", random_state=0).fit(points)
    share = float(np.nan_to_num(pca.explained_variance_ratio_).sum())
    return pca.transform, (
        f"PCA projection of {size}-D features onto 2 directions, which hold {share:.0%} of their variance: angles and "
        "lengths are not those of the features."
    )


def _most_frequent(labels: Array) -> list[int]:
    classes, counts = np.unique(labels, return_counts=True)
    return sorted(classes[np.argsort(-counts, kind="stable")][:MOST_CLASSES].tolist())


def _spread(points: Floats, labels: Array) -> str:
    """How close classes lie and how far apart, in degrees, of the features themselves."""
    unit = _unit(points)
    classes, place = np.unique(labels, return_inverse=True)
    means = _means(unit, place, len(classes))
    own = np.degrees(np.arccos(np.clip((unit * means[place]).sum(axis=1), -1, 1))).mean()
    if len(classes) < 2:
        return f"Mean angle to the class's mean direction {own:.1f}°."
    nearest = np.degrees(closest(torch.from_numpy(means))[0])
    return (
        f"{len(classes):,} classes; mean angle of a feature to its class's mean direction {own:.1f}°, "
        f"smallest angle between two mean directions {nearest:.1f}°."
    )


def _points(name: str, colour: str, points: Floats, samples: Array | None = None, *, opacity: float = 0.75) -> Series:
    size = 4 if points.shape[1] == 2 else 2.5
    looks = {"colour": colour, "symbol": "dot", "size": size, "opacity": opacity}
    looks |= {"group": "" if colour == GREY else CLASS + name}  # grey are the other classes
    return _series("points", name, points, **looks, samples=() if samples is None else samples)


def _rays(class_name: str, colour: str, weight: Array, reach: float) -> list[Series]:
    """A line for each weight row of a class: one, or its sub-centres."""
    return [_ray(class_name, colour, row, reach) for row in np.atleast_2d(weight)]


def _ray(class_name: str, colour: str, weight: Array, reach: float) -> Series:
    """A line from the origin along a class weight."""
    weight = weight.astype(np.float64)
    tip = weight / max(float(np.linalg.norm(weight)), 1e-12) * reach
    looks = {"colour": colour, "width": 1, "in_legend": False, "group": CLASS + class_name}
    return _series("line", "class weight", np.stack([np.zeros_like(tip), tip]), **looks)


def _outline(size: int) -> list[Series]:
    """The unit circle, or three great circles of the unit sphere, shown when all features are drawn at length 1."""
    turn = np.linspace(0, 2 * np.pi, 73)
    waves = {"c": np.cos(turn), "s": np.sin(turn), "0": np.zeros_like(turn)}
    circles = [np.stack([waves[wave] for wave in circle], axis=1) for circle in ("cs0", "c0s", "0cs")]
    looks = {"colour": GREY, "width": 1, "in_legend": False, "hidden": True}
    return [_series("line", OUTLINE, circle[:, :size], **looks) for circle in (circles if size == 3 else circles[:1])]


def _series(kind: Any, name: str, points: Floats, **looks: Any) -> Series:
    """A series through points [K, axes]."""
    columns: dict[str, Any] = dict(zip("xyz", points.T, strict=False))
    return Series(kind, name, **columns, **looks)
