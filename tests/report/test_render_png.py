"""Pictures from small arrays: what is drawn where, files that are PNGs, and shapes that are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from mpl_toolkits.mplot3d import Axes3D
from mpl_toolkits.mplot3d.art3d import Path3DCollection
from PIL import Image

from angulus.core.checks import InputError
from angulus.report import charts
from angulus.report.chart import Panels
from angulus.report.feature_chart import class_features
from angulus.report.render_png import draw, draw_extremes, render_png

RANDOM = np.random.default_rng(0)
FEATURES = RANDOM.normal(size=(30, 2))
LABELS = np.arange(30) % 3
NAMES = ("cat", "dog", "eel")


def shown(figure: Figure) -> list[Axes]:
    return [axis for axis in figure.axes if axis.axison]


def test_features_are_drawn_by_class() -> None:
    figure = draw(class_features("one", FEATURES, LABELS, NAMES))
    (axis,) = shown(figure)
    assert axis.get_title() == "one"
    assert len(axis.collections) == 3
    for label, drawn in enumerate(axis.collections):
        assert np.array_equal(drawn.get_offsets(), FEATURES[label == LABELS])
        assert drawn.get_label() == NAMES[label]
    colours = {tuple(drawn.get_facecolor()[0][:3]) for drawn in axis.collections}
    assert len(colours) == 3
    (origin,) = axis.lines
    assert (list(origin.get_xdata()), list(origin.get_ydata())) == ([0], [0])
    assert axis.get_xlim() == axis.get_ylim()
    assert axis.get_xlim()[1] > np.linalg.norm(FEATURES, axis=1).max()


def test_class_weights_are_rays_in_their_direction() -> None:
    weights = np.array([[3.0, 4.0], [-1.0, 0.0], [0.0, 0.0]])
    (axis,) = shown(draw(class_features("one", FEATURES, LABELS, NAMES, weights)))
    rays = axis.lines[:3]
    reach = axis.get_xlim()[1]
    tips = [(ray.get_xdata()[1], ray.get_ydata()[1]) for ray in rays]
    assert tips[0] == pytest.approx((0.6 * reach, 0.8 * reach))
    assert tips[1] == pytest.approx((-reach, 0.0))
    assert tips[2] == (0.0, 0.0)  # a zero weight has no direction
    assert [ray.get_xdata()[0] for ray in rays] == [0, 0, 0]


def test_features_in_space_are_drawn_in_space() -> None:
    features = RANDOM.normal(size=(30, 3))
    (axis,) = draw(class_features("one", features, LABELS, NAMES, np.eye(3))).axes
    assert isinstance(axis, Axes3D)
    for label, drawn in enumerate(axis.collections):
        assert isinstance(drawn, Path3DCollection)
        assert np.allclose(np.stack(drawn._offsets3d, axis=1), features[label == LABELS])
    rays = [np.stack(line.get_data_3d(), axis=1) for line in axis.lines]
    reach = axis.get_zlim()[1]
    assert reach > np.linalg.norm(features, axis=1).max()
    assert [ray.tolist() for ray in rays[:3]] == [[[0, 0, 0], (row * reach).tolist()] for row in np.eye(3)]
    assert axis.get_xlim() == axis.get_ylim() == axis.get_zlim()


@pytest.mark.parametrize(("models", "panels", "legend_in_a_panel"), [(1, 1, False), (3, 3, False), (5, 6, True)])
def test_panels_stand_three_a_row_and_the_legend_where_there_is_room(
    models: int, panels: int, legend_in_a_panel: bool
) -> None:
    figure = draw(Panels([class_features(str(n), FEATURES, LABELS, NAMES) for n in range(models)], legend="class"))
    assert len(figure.axes) == panels
    assert [axis.get_title() for axis in shown(figure)] == [str(n) for n in range(models)]
    inside = [axis for axis in figure.axes if axis.get_legend() is not None]
    assert len(inside) == legend_in_a_panel
    assert len(figure.legends) == (not legend_in_a_panel)
    legend = inside[0].get_legend() if inside else figure.legends[0]
    assert [text.get_text() for text in legend.get_texts()] == list(NAMES)


def test_features_that_are_all_zero_are_drawn() -> None:
    (axis,) = shown(draw(class_features("dots", np.zeros((3, 2)), np.arange(3), NAMES)))
    assert axis.get_xlim() == (-1, 1)


def test_histograms_are_shares_of_right_and_of_wrong() -> None:
    norms = np.array([0.5, 1.0, 2.0, 3.0])
    correct = np.array([False, True, True, True])
    (axis,) = shown(draw(charts.norm_histogram("one", norms, correct)))
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["right (3)", "wrong (1)"]
    heights = np.array([bar.get_height() for bar in axis.patches]).reshape(2, 30)
    assert heights.sum(axis=1) == pytest.approx([1.0, 1.0])
    assert heights[1, 5] == 1.0  # 0.5 opens the sixth of thirty bins up to 3
    assert sorted(heights[0][heights[0] > 0]) == pytest.approx([1 / 3] * 3)


@pytest.mark.parametrize("right", [True, False])
def test_a_kind_without_samples_is_left_out(right: bool) -> None:
    (axis,) = shown(draw(charts.norm_histogram("one", np.array([1.0, 2.0]), np.array([right, right]))))
    assert [text.get_text() for text in axis.get_legend().get_texts()] == [f"{'right' if right else 'wrong'} (2)"]


def test_norms_that_are_all_zero_are_drawn() -> None:
    (axis,) = shown(draw(charts.norm_histogram("zero", np.zeros(4), np.ones(4, dtype=bool))))
    assert axis.patches[0].get_height() == 1.0


def test_best_and_worst_are_in_order_and_wrong_ones_say_so() -> None:
    norms = np.array([3.0, 1.0, 2.0, 5.0, 4.0])
    labels, predictions = np.array([0, 1, 2, 3, 4]), np.array([0, 7, 2, 3, 4])
    pixels = np.stack([np.full((1, 2, 2), 50 * n, dtype=np.uint8) for n in range(5)])
    figure = draw_extremes(pixels, norms, labels, predictions, "title", count=2)
    texts = [axis.get_xlabel() for axis in figure.axes]
    assert texts == ["5.00\n3", "4.00\n4", "1.00\n1 → 7", "2.00\n2"]
    assert [axis.xaxis.label.get_color() for axis in figure.axes] == ["black", "black", "tab:red", "black"]
    assert [int(axis.images[0].get_array().max()) for axis in figure.axes] == [150, 200, 50, 100]
    assert [figure.axes[0].get_ylabel(), figure.axes[2].get_ylabel()] == ["highest norms", "lowest norms"]
    assert all(axis.images[0].get_clim() == (0, 255) for axis in figure.axes)  # dim images stay dim
    assert figure.get_suptitle() == "title"


def test_fewer_images_than_asked_and_colour() -> None:
    pixels = RANDOM.integers(0, 256, size=(3, 3, 4, 4), dtype=np.uint8)
    figure = draw_extremes(pixels, np.arange(3.0), np.zeros(3, int), np.zeros(3, int), "colour", count=12)
    assert len(figure.axes) == 6
    assert figure.axes[0].images[0].get_array().shape == (4, 4, 3)
    assert np.array_equal(figure.axes[0].images[0].get_array()[:, :, 1], pixels[2, 1])


def test_curves_are_drawn_by_name_with_a_mark() -> None:
    x = np.array([0.0, 1.0, 2.0])
    figure = draw(charts.lines({"one": (x, x), "two": (x, x**2)}, title="t", x_label="x", y_label="y", mark=1.5))
    (axis,) = figure.axes
    assert [line.get_label() for line in axis.lines[:2]] == ["one", "two"]
    assert list(axis.lines[1].get_ydata()) == [0.0, 1.0, 4.0]
    assert list(axis.lines[2].get_xdata()) == [1.5, 1.5]
    assert (axis.get_title(), axis.get_xlabel(), axis.get_ylabel()) == ("t", "x", "y")
    alone = draw(charts.lines({"one": (x, x)}, title="t", x_label="x", y_label="y"))
    assert alone.axes[0].get_legend() is None


def test_a_chart_is_written_as_png(tmp_path: Path) -> None:
    render_png(charts.norm_histogram("one", np.array([1.0, 2.0]), np.array([True, False])), tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 200
        assert len(picture.convert("L").getcolors()) > 5
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize(
    ("features", "labels"),
    [
        (np.zeros((4, 4)), np.zeros(4)),
        (np.zeros((4, 1)), np.zeros(4)),
        (np.zeros(4), np.zeros(4)),
        (np.zeros((4, 2)), np.zeros(3)),
        (np.zeros((0, 2)), np.zeros(0)),
    ],
)
def test_features_of_another_shape_are_refused(features: np.ndarray, labels: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"must be \[N, 2\] or \[N, 3\] and labels \[N\] with N >= 1; got \["):
        class_features("bad", features, labels, NAMES)


@pytest.mark.parametrize(
    ("norms", "correct"),
    [(np.zeros(3), np.zeros(2, bool)), (np.zeros((2, 2)), np.zeros((2, 2), bool)), (np.zeros(0), np.zeros(0, bool))],
)
def test_norms_of_another_shape_are_refused(norms: np.ndarray, correct: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"norms and correct must be \[N >= 1\]; got \["):
        charts.norm_histogram("bad", norms, correct)


@pytest.mark.parametrize(("pixels", "norms"), [((3, 8, 8), 3), ((3, 1, 8, 8), 4), ((0, 1, 8, 8), 0)])
def test_images_of_another_shape_are_refused(pixels: tuple[int, ...], norms: int) -> None:
    numbers = np.zeros(norms)
    with pytest.raises(InputError, match=r"pixels must be \[N, channels, height, width\], and norms, .* got \["):
        draw_extremes(np.zeros(pixels, np.uint8), numbers, numbers, numbers, "bad")
