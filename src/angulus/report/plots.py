"""Every picture, drawn from results with matplotlib."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

from angulus.core import checks, files

PALETTE = matplotlib.color_sequences["tab10"]
FEW = 12  # points of a curve, up to which each is marked; one alone would not be seen


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, atomically, and close it."""
    files.write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=130, bbox_inches="tight"))
    plt.close(figure)


def features_2d(
    models: Sequence[tuple[str, np.ndarray, np.ndarray]], class_names: Sequence[str], weights: Sequence[np.ndarray] = ()
) -> Figure:
    """2-D features side by side, a class a colour, the origin marked; class weights as rays where given. CM Fig. 5.

    Args:
        models: (title, features [N, 2], labels [N]) each.
        class_names: the legend, by label.
        weights: [C, 2] each, or nothing.
    """
    for _, features, labels in models:
        if features.ndim != 2 or features.shape[1] != 2 or labels.shape != features.shape[:1] or not len(labels):
            raise checks.InputError(
                "features to draw must be [N, 2] and labels [N] with N >= 1; "
                f"got {list(features.shape)} and {list(labels.shape)}"
            )
    figure, axes = _grid(len(models))
    for number, (axis, (title, features, labels)) in enumerate(zip(axes, models, strict=False)):
        reach = float(np.quantile(np.linalg.norm(features, axis=1), 0.999)) * 1.08 or 1.0
        for label, name in enumerate(class_names):
            member = labels == label
            axis.scatter(*features[member].T, s=5, alpha=0.6, linewidths=0, color=PALETTE[label % 10], label=name)
        for label, weight in enumerate(weights[number] if weights else ()):
            tip = weight / max(float(np.linalg.norm(weight)), 1e-12) * reach
            axis.plot([0, tip[0]], [0, tip[1]], color=PALETTE[label % 10], linewidth=0.7, alpha=0.7)
        axis.plot(0, 0, "+", color="black", markersize=7)
        axis.set(title=title, xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
        axis.tick_params(labelsize=7)
    handles, names = axes[0].get_legend_handles_labels()
    _legend(figure, axes, len(models), handles, names, markerscale=3)
    return figure


def norm_histograms(models: Sequence[tuple[str, np.ndarray, np.ndarray]]) -> Figure:
    """Histograms of the feature norm, right and wrong samples apart, each as a share of its own kind. FI Fig. 3.

    Args:
        models: (title, norms [N], correct [N]) each.
    """
    for _, norms, correct in models:
        if norms.ndim != 1 or norms.shape != correct.shape or not len(norms):
            raise checks.InputError(
                f"norms and correct must be [N] each with N >= 1; got {list(norms.shape)} and {list(correct.shape)}"
            )
    figure, axes = _grid(len(models))
    for axis, (title, norms, correct) in zip(axes, models, strict=False):
        edges = np.linspace(0, float(norms.max()) or 1.0, 31)
        for member, name, colour in ((correct, "right", "tab:blue"), (~correct, "wrong", "tab:red")):
            if member.any():
                share = np.full(int(member.sum()), 1 / member.sum())
                axis.hist(
                    norms[member], edges, weights=share, alpha=0.6, color=colour, label=f"{name} ({member.sum():,})"
                )
        axis.set(title=title, xlabel="feature norm ‖x‖", ylabel="share of samples", ylim=(0, None))
        axis.legend(fontsize=8)
        axis.tick_params(labelsize=8)
    return figure


def best_and_worst(
    pixels: np.ndarray, norms: np.ndarray, labels: np.ndarray, predictions: np.ndarray, title: str, count: int = 12
) -> Figure:
    """The images with the highest and the lowest norms, each with its norm; a wrong prediction in red. CM Fig. 1.

    Args:
        pixels: uint8 [N, channels, height, width].
        norms, labels, predictions: [N].
        title: above the picture.
        count: images of each kind.
    """
    if pixels.ndim != 4 or not norms.shape == labels.shape == predictions.shape == pixels.shape[:1] or not len(norms):
        raise checks.InputError(
            "pixels must be [N, channels, height, width], and norms, labels and predictions [N], with N >= 1; got "
            f"{list(pixels.shape)}, {list(norms.shape)}, {list(labels.shape)} and {list(predictions.shape)}"
        )
    count = min(count, len(norms))
    order = np.argsort(norms, kind="stable")
    figure, axes = plt.subplots(2, count, figsize=(1.05 * count, 3.1), squeeze=False, layout="constrained")
    for row, (name, chosen) in enumerate((("highest norms", order[::-1][:count]), ("lowest norms", order[:count]))):
        for axis, index in zip(axes[row], chosen, strict=True):
            image = np.moveaxis(pixels[index], 0, -1).squeeze()
            axis.imshow(image, cmap="gray", vmin=0, vmax=255)
            wrong = labels[index] != predictions[index]
            said = f"\n{labels[index]} → {predictions[index]}" if wrong else f"\n{labels[index]}"
            axis.set_xlabel(f"{norms[index]:.2f}{said}", fontsize=8, color="tab:red" if wrong else "black")
            axis.set(xticks=[], yticks=[])
        axes[row][0].set_ylabel(name, fontsize=9)
    figure.suptitle(title, fontsize=10)
    return figure


def curves(
    x: np.ndarray, lines: Mapping[str, np.ndarray], *, title: str, x_label: str, y_label: str, mark: float | None = None
) -> Figure:
    """Curves over one axis, by name; `mark` draws a dotted line up from that x."""
    figure, axis = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
    for number, (name, y) in enumerate(lines.items()):
        axis.plot(x, y, label=name, color=PALETTE[number % 10], linestyle="-" if number < 10 else "--")
    if mark is not None:
        axis.axvline(mark, color="grey", linestyle=":", linewidth=1)
    axis.set(title=title, xlabel=x_label, ylabel=y_label)
    axis.grid(alpha=0.3)
    if len(lines) > 1:
        axis.legend(fontsize=8)
    return figure


AXES: dict[str, dict[str, Any]] = {
    "roc": {"xlabel": "false match rate (FMR, FAR, FPIR)", "ylabel": "true accept rate (TAR, TPIR)", "xscale": "log"},
    "det": {"xlabel": "false match rate", "ylabel": "false non-match rate", "xscale": "log", "yscale": "log"},
    "cmc": {"xlabel": "rank", "ylabel": "identified within the rank", "xscale": "log"},
    "froc": {"xlabel": "false positives per scan", "ylabel": "sensitivity", "xscale": "log"},
    "discard": {"xlabel": "share of lowest quality discarded", "ylabel": "false non-match rate"},
}


def result_curve(kind: str, lines: Sequence[tuple[str, np.ndarray, np.ndarray]], *, title: str) -> Figure:
    """Curves of one kind, (name, x [K], y [K]) each: a ROC, DET, CMC, FROC or error-versus-discard picture.

    A log axis leaves out what is not above 0; where that is everything, as on the DET of a model without errors, the
    axis is linear.
    """
    settings, masks = curve_axes(kind, lines)
    figure, axis = plt.subplots(figsize=(6.4, 4.6), layout="constrained")
    for number, ((name, x, y), shown) in enumerate(zip(lines, masks, strict=True)):
        style: dict[str, Any] = {"color": PALETTE[number % 10], "linestyle": "-" if number < 10 else "--"}
        if shown.sum() <= FEW:
            style |= {"marker": "o", "markersize": 4}
        axis.plot(
            x[shown], y[shown], label=name, drawstyle="steps-post" if kind in ("roc", "froc") else "default", **style
        )
    axis.set(title=title, **settings)
    if kind == "cmc":  # a rank is 2 and not 2 x 10^0
        axis.xaxis.set_major_formatter(LogFormatter())
        axis.xaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1, 0.4)))
    axis.grid(alpha=0.3, which="both")
    if len(lines) > 1:
        axis.legend(fontsize=8)
    return figure


def curve_axes(
    kind: str, lines: Sequence[tuple[str, np.ndarray, np.ndarray]]
) -> tuple[dict[str, Any], list[np.ndarray]]:
    """Labels and scales of the axes of a kind of curve, and which points [K] of each line they can show."""
    checks.choice("kind", kind, AXES)
    settings = dict(AXES[kind])
    for scale in ("yscale", "xscale"):
        if not any(_shown(x, y, settings).any() for _, x, y in lines):
            settings.pop(scale, None)
    return settings, [_shown(x, y, settings) for _, x, y in lines]


def _shown(x: np.ndarray, y: np.ndarray, settings: Mapping[str, Any]) -> np.ndarray:
    """Which points the axes can show."""
    shown = np.ones(len(x), dtype=bool)
    for values, scale in ((x, "xscale"), (y, "yscale")):
        if settings.get(scale) == "log":
            shown &= values > 0
    return shown


def _grid(count: int) -> tuple[Figure, Any]:
    """Axes for `count` panels, at most three a row; the unused ones hidden."""
    columns = min(count, 3)
    rows = math.ceil(count / columns)
    figure, axes = plt.subplots(rows, columns, figsize=(3.6 * columns, 3.5 * rows), squeeze=False, layout="constrained")
    for axis in axes.flat[count:]:
        axis.axis("off")
    return figure, axes.flat


def _legend(figure: Figure, axes: Any, used: int, handles: Any, names: Any, **options: Any) -> None:
    """The legend in the first unused panel, else below all."""
    free = list(axes)[used:]
    if free:
        free[0].legend(handles, names, title="class", loc="center", ncols=2, **options)
    else:
        figure.legend(handles, names, title="class", loc="outside lower center", ncols=10, **options)
