"""The pictures of the analyses, drawn with matplotlib from plain numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from angulus.evaluation.metrics.image_quality import Bin
from angulus.report.plots import PALETTE


def bars(heads: Sequence[str], groups: Mapping[str, Sequence[float]], *, title: str, y_label: str) -> Figure:
    """Bars of several groups side by side, a cluster a head."""
    figure, axis = plt.subplots(figsize=(max(6.4, 0.16 * len(heads) * (1 + len(groups))), 4.2), layout="constrained")
    width = 0.8 / len(groups)
    for number, (name, values) in enumerate(groups.items()):
        places = np.arange(len(heads)) + (number - (len(groups) - 1) / 2) * width
        axis.bar(places, values, width, label=name, color=PALETTE[number % 10])
    values = [value for each in groups.values() for value in each]
    axis.set(title=title, ylabel=y_label, ylim=(_floor(values), None))
    axis.set_xticks(range(len(heads)), heads, fontsize=8)
    axis.legend(fontsize=8)
    return figure


def _floor(values: Sequence[float]) -> float:
    """Where the axis begins: at 0, or where all bars are long, a little below the shortest."""
    low, high = min(values), max(values)
    return 0.0 if low < 0.8 * high else low - (high - low or high * 0.01) / 2


def norm_bins(models: Sequence[tuple[str, Sequence[Bin]]]) -> Figure:
    """Accuracy (bars) and number of samples (line) by feature norm, a panel a model. FI Fig. 1."""
    figure, axes = _panels(len(models))
    for axis, (title, found) in zip(axes, models, strict=False):
        centres = [(each.low + each.high) / 2 for each in found]
        widths = [each.high - each.low for each in found]
        axis.bar(centres, [100 * each.accuracy for each in found], [0.9 * each for each in widths], color="tab:blue")
        counts = axis.twinx()
        counts.plot(centres, [each.count for each in found], color="tab:red", marker="o", markersize=3)
        axis.set(title=title, xlabel="feature norm ‖x‖", ylim=(0, 105))
        axis.set_ylabel("accuracy in %", color="tab:blue")
        counts.set_ylabel("samples", color="tab:red")
        counts.set_ylim(0, None)
    return figure


def weight_histograms(models: Sequence[tuple[str, Mapping[str, np.ndarray]]]) -> Figure:
    """Histograms of weights, a row a model, a column a layer; the columns share an axis. FI Fig. 7."""
    layers = list(models[0][1])
    figure, axes = plt.subplots(
        len(models), len(layers), figsize=(3.4 * len(layers), 2.0 * len(models)), squeeze=False, sharex="col"
    )
    figure.set_layout_engine("constrained")
    for row, (title, weights) in zip(axes, models, strict=True):
        for axis, layer in zip(row, layers, strict=True):
            reach = max(float(np.abs(each[layer]).max()) for _, each in models) or 1.0
            axis.hist(weights[layer], np.linspace(-reach, reach, 81), density=True, color="tab:blue")
            axis.tick_params(labelsize=7)
        row[0].set_ylabel(title, fontsize=8)
    for axis, layer in zip(axes[0], layers, strict=True):
        axis.set_title(layer, fontsize=8)
    return figure


def lines(
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]], *, title: str, x_label: str, y_label: str, marker: str = ""
) -> Figure:
    """Curves by name, (x [K], y [K]) each."""
    figure, axis = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
    for number, (name, (x, y)) in enumerate(curves.items()):
        style: dict[str, Any] = {"color": PALETTE[number % 10], "linestyle": "-" if number < 10 else "--"}
        axis.plot(x, y, label=name, marker=marker, **style)
    axis.set(title=title, xlabel=x_label, ylabel=y_label)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=7)
    return figure


def probability_map(axis_values: np.ndarray, share: np.ndarray, *, title: str) -> Figure:
    """A probability over the plane of 2-D features. NF Fig. 2.

    Args:
        axis_values: [K], of both axes.
        share: [K, K], rows along y.
        title: above the picture.
    """
    figure, axis = plt.subplots(figsize=(5.2, 4.4), layout="constrained")
    mesh = axis.pcolormesh(axis_values, axis_values, share, vmin=0, vmax=1, cmap="viridis", shading="auto")
    figure.colorbar(mesh, ax=axis, label="probability")
    axis.set(title=title, xlabel="x₁", ylabel="x₂", aspect="equal")
    return figure


def pair_histograms(histograms: np.ndarray, same: np.ndarray, *, title: str) -> Figure:
    """Histograms of the frame similarities of pairs of videos, a thin line a pair, same and different apart. NF Fig. 9.

    Args:
        histograms: [P, bins] over cosines from −1 to 1.
        same: [P] of bool.
        title: above the picture.
    """
    figure, axis = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
    edges = np.linspace(-1, 1, histograms.shape[1] + 1)
    centres = (edges[:-1] + edges[1:]) / 2
    for member, name, colour in ((same, "same person", "tab:blue"), (~same, "different people", "tab:red")):
        for number, each in enumerate(histograms[member]):
            label = f"{name} ({int(member.sum())} pairs)" if not number else None
            axis.plot(centres, each, color=colour, alpha=0.2, linewidth=0.7, label=label)
    axis.set(title=title, xlabel="cosine of two frames", ylabel="share of the frame pairs")
    axis.legend(fontsize=8)
    return figure


def _panels(count: int) -> tuple[Figure, Sequence[Any]]:
    """Axes side by side, at most two a row; the unused ones hidden."""
    columns = min(count, 2)
    rows = -(-count // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(5.0 * columns, 3.4 * rows), squeeze=False, layout="constrained")
    for axis in axes.flat[count:]:
        axis.axis("off")
    return figure, list(axes.flat)
