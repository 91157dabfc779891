"""Each chart against numbers counted by hand, scikit-learn, or the arrays that it was made from."""

from __future__ import annotations

import base64
import dataclasses
import io
import math
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
from PIL import Image
from sklearn.decomposition import PCA
from sklearn.metrics import accuracy_score

import reports
from angulus.data.sets.images import Images
from angulus.evaluation.metrics.intervals import Interval
from angulus.evaluation.protocols.result import Number
from angulus.experiments import build
from angulus.report import charts, legends, thumbnails
from angulus.report.chart import Chart
from angulus.report.content import read_content
from angulus.report.error_curves import error_curves
from angulus.report.feature_chart import class_features, run_features, shown_rows
from angulus.report.finished_run import FinishedRun, ImagePairs
from angulus.report.render_plotly import render_plotly
from angulus.report.render_png import draw


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[int, FinishedRun]:
    """By the size of their features."""
    here = tmp_path_factory.mktemp("models")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "splits", lambda recipe: reports.splits())
        folders = [reports.train(here / str(size), f"backbone.embedding_size={size}") for size in (1, 2, 3, 8)]
        return {int(model.name): model for model in read_content(folders, draws=0).runs}


def points(trace: dict[str, Any]) -> np.ndarray:
    return np.array([trace[axis] for axis in "xyz" if axis in trace], dtype=float).T


def by_class(chart: Chart) -> list[dict[str, Any]]:
    return [each for each in reports.traces(chart) if each["mode"] == "markers" and each["name"] != "wrong"]


# features


@pytest.mark.parametrize("size", [2, 3])
def test_features_of_two_and_three_dimensions_are_drawn_as_they_are(models: dict[int, FinishedRun], size: int) -> None:
    model = models[size]
    chart = run_features(model)
    labels = model.test["labels"]
    drawn = by_class(chart)
    assert len(drawn) == len(set(labels.tolist()))
    for label, trace in zip(sorted(set(labels.tolist())), drawn, strict=True):
        assert trace["type"] == ("scatter" if size == 2 else "scatter3d")
        assert np.allclose(points(trace), model.test["features"][labels == label], rtol=1e-3, atol=1e-6)
    (wrong,) = (each for each in reports.traces(chart) if each["name"] == "wrong")
    assert np.allclose(points(wrong), model.test["features"][~model.correct], rtol=1e-3, atol=1e-6)
    rows = np.flatnonzero(~model.correct)
    assert wrong["customdata"] == rows.tolist() and wrong["hoverinfo"] == "none"  # all have a place, in their order
    go.Figure(data=reports.traces(chart), layout=reports.layout(chart))


def test_rays_lie_along_the_class_weights(models: dict[int, FinishedRun]) -> None:
    model = models[3]
    rays = [each for each in reports.traces(run_features(model)) if each["name"] == "class weight"]
    assert model.weights is not None
    for label, ray in zip(sorted(set(model.test["labels"].tolist())), rays, strict=True):
        start, tip = points(ray)
        weight = model.weights[label]
        assert start.tolist() == [0, 0, 0]
        assert np.allclose(tip / np.linalg.norm(tip), weight / np.linalg.norm(weight), atol=1e-3)


def test_wider_features_are_projected_and_said_to_be(models: dict[int, FinishedRun]) -> None:
    model = models[8]
    chart = run_features(model)
    found = PCA(2, svd_solver="full").fit(model.test["features"].astype(float))
    expected = found.transform(model.test["features"].astype(float))
    labels = model.test["labels"]
    for label, trace in zip(sorted(set(labels.tolist())), by_class(chart), strict=True):
        assert np.allclose(np.abs(points(trace)), np.abs(expected[labels == label]), rtol=1e-3, atol=1e-4)
    share = found.explained_variance_ratio_.sum()
    assert chart.summary.startswith(f"PCA projection of 8-D features onto 2 directions, which hold {share:.0%} of")


def test_one_dimension_is_a_line(models: dict[int, FinishedRun]) -> None:
    assert all(set(trace["y"]) <= {0.0} for trace in by_class(run_features(models[1])))


def test_frames_are_the_features_of_each_epoch(models: dict[int, FinishedRun]) -> None:
    model = models[2]
    assert model.formation is not None
    chart = run_features(model)
    labels = model.test["labels"][model.formation.rows]
    assert len(chart.frames) == len(model.formation.epochs) == 3
    for layer, frame in zip(model.formation.features, render_plotly(chart)["frames"], strict=True):
        assert len(frame) == len(reports.traces(chart))
        for label, columns in zip(sorted(set(labels.tolist())), frame, strict=False):
            assert np.allclose(np.array(columns).T, layer[labels == label], rtol=1e-3, atol=1e-6)
    reach = reports.layout(chart)["xaxis"]["range"][1]
    ended = np.linalg.norm(model.test["features"].astype(np.float64), axis=1)
    assert reach == pytest.approx(1.08 * ended.max(), rel=1e-3)  # earlier epochs get axes of their own
    drawn = render_plotly(chart)
    for series, places in zip(drawn["traces"], drawn["frame_samples"], strict=True):
        if series["name"] in reports.NAMES[-1:]:  # "9", whose name is no markup
            rows = [drawn["samples"]["ids"][place] for place in places]
            chosen = model.formation.rows[labels == 9]
            assert rows == [f"test image {row}" for row in chosen]


def test_a_few_far_features_do_not_make_a_dot_of_the_others() -> None:
    near = np.random.default_rng(0).normal(size=(200, 2))
    chart = class_features("one", np.concatenate([near, [[4000.0, 0.0]]]), np.zeros(201, int), ("a",))
    assert chart.x.high == pytest.approx(1.08 * 3 * np.quantile(np.linalg.norm(near, axis=1), 0.95), rel=0.05)
    whole = class_features("one", near, np.zeros(200, int), ("a",))
    assert whole.x.high == pytest.approx(1.08 * np.linalg.norm(near, axis=1).max())


@pytest.mark.parametrize("size", [2, 8])
def test_each_feature_has_what_is_shown_under_the_pointer(models: dict[int, FinishedRun], size: int) -> None:
    model = models[size]
    assert isinstance(model.images, Images)
    named = dataclasses.replace(model, images=dataclasses.replace(model.images, ids=tuple(map(str, range(100, 160)))))
    sheet = thumbnails.draw_sheet(named.images, shown_rows(named)[1])
    drawn = render_plotly(run_features(named, sheet))
    samples, test = drawn["samples"], model.test
    count = len(test["labels"])
    assert samples["ids"] == list(map(str, range(100, 160)))
    assert (samples["labels"], samples["predictions"]) == (test["labels"].tolist(), test["predictions"].tolist())
    assert samples["norms"] == pytest.approx(test["norms"].tolist(), rel=1e-3)
    assert samples["angle"] == ("class weight" if size == 2 else "mean direction of its class")
    directions = [model.weights[k] if model.weights is not None else None for k in test["labels"]]
    if size == 8:
        unit = test["features"] / test["norms"][:, None]
        directions = [unit[test["labels"] == k].mean(axis=0) for k in test["labels"]]
    for feature, direction, degrees in zip(test["features"], directions, samples["degrees"], strict=True):
        cosine = feature @ direction / np.linalg.norm(feature) / np.linalg.norm(direction)
        assert degrees == pytest.approx(np.degrees(np.arccos(np.clip(cosine, -1, 1))), abs=0.6)
    shown = [place for trace in drawn["traces"] if trace["name"] != "wrong" for place in trace.get("customdata", [])]
    assert sorted(shown) == list(range(count))
    picture = np.array(Image.open(io.BytesIO(base64.b64decode(sheet.source.partition(",")[2]))))
    for row in (0, 17, count - 1):
        top, left = row // sheet.columns * sheet.side, row % sheet.columns * sheet.side
        cell = picture[top : top + sheet.side, left : left + sheet.side]
        assert np.array_equal(cell, model.images.pixels[row : row + 1][0, 0].numpy())


def test_the_summary_has_the_angles(models: dict[int, FinishedRun]) -> None:
    angles = np.radians([0, 10, 90, 130])
    features = np.stack([np.cos(angles), np.sin(angles)], axis=1) * [[1], [5], [2], [3]]
    labels = np.array([0, 0, 1, 1])
    test = {"features": features, "labels": labels, "predictions": labels}
    model = dataclasses.replace(models[2], test=test, formation=None, weights=None)
    # means at 5 and 110 degrees, so 5, 5, 20 and 20 degrees to the own and 105 between the two
    summary = run_features(model).summary
    assert "mean direction 12.5°, smallest angle between two mean directions 105.0°" in summary


def test_the_angles_of_many_classes_need_little_memory(models: dict[int, FinishedRun]) -> None:
    labels = np.arange(3000)
    features = np.random.default_rng(0).normal(size=(3000, 2))
    test = {"features": features, "labels": labels, "predictions": labels, "norms": np.ones(3000)}
    model = dataclasses.replace(models[2], test=test, formation=None, weights=None, images="gone")
    tracemalloc.start()  # of NumPy's arrays
    run_features(model)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3000**2


def test_of_many_classes_the_most_frequent_have_colours(models: dict[int, FinishedRun]) -> None:
    labels = np.repeat(np.arange(14), 2 + np.arange(14) // 4)  # 12 and 13 are the most frequent, then 8 to 11
    features = np.random.default_rng(0).normal(size=(len(labels), 2))
    test = {"features": features, "labels": labels, "predictions": labels, "norms": np.ones(len(labels))}
    model = dataclasses.replace(models[2], test=test, formation=None, weights=None, images="gone")
    drawn = by_class(run_features(model))
    assert [trace["name"] for trace in drawn] == [*map(str, [4, 5, 6, 7, 8, 9, 10, 11, 12, 13]), "other classes"]
    assert len(drawn[-1]["x"]) == (labels < 4).sum()
    assert len({trace["marker"]["color"] for trace in drawn}) == 11


def test_classes_with_alike_or_reserved_names_have_switches_of_their_own(models: dict[int, FinishedRun]) -> None:
    model = models[2]
    assert isinstance(model.images, Images)
    names = ("a class with quite a long name, first", "a class with quite a long name, second", "wrong", "run:x")
    named = dataclasses.replace(model, images=dataclasses.replace(model.images, class_names=names + tuple("456789")))
    chart = run_features(named)
    entries = legends.block_entries([chart])
    assert [entry.name for entry in entries] == [*names, *"456789", "wrong"]
    assert len({entry.group for entry in entries}) == len(entries)
    metas = [trace["meta"] for trace in reports.traces(chart) if trace["name"] == "class weight"]
    assert metas == [entry.group for entry in entries[:-1]]


def test_bars_and_dots_with_alike_names_have_places_of_their_own() -> None:
    names = ["a variant with quite a long name, first", "a variant with quite a long name, second"]
    dots = [charts.Dot(name, 90.0, 89.0, 91.0, mark="best") for name in names]
    for chart, axis, mark in (
        (charts.interval_dots("t", "accuracy in %", dots, ""), "y", "<br>best"),
        (charts.group_errors("t", "class", names, [("one", [Number("a", 0.9), Number("b", 0.8)])]), "x", ""),
    ):
        places = {place for trace in reports.traces(chart) for place in trace[axis]}
        assert places == {name + mark for name in names}
        ticks = reports.layout(chart)[f"{axis}axis"]
        assert set(ticks["tickvals"]) == places
        assert ticks["ticktext"] == ["a variant with quite a long…" + mark] * 2
        go.Figure(data=reports.traces(chart), layout=reports.layout(chart))
    (axis,) = draw(charts.interval_dots("t", "accuracy in %", dots, "")).axes
    assert [tick.get_text() for tick in axis.get_yticklabels()] == ["a variant with quite a long…\nbest"] * 2
    assert sorted({float(y) for line in axis.lines for y in line.get_ydata(orig=False)}) == [0, 1]
    few = charts.group_errors("t", "class", ["a"], [("one", [Number("a", 0.9)])])
    assert "tickvals" not in reports.layout(few)["xaxis"]


# norms


def test_histograms_are_shares_of_right_and_of_wrong() -> None:
    norms, correct = np.array([0.5, 1.0, 2.0, 3.0]), np.array([False, True, True, True])
    right, wrong = reports.traces(charts.norm_histogram("one", norms, correct))
    assert (right["name"], wrong["name"]) == ("right (3)", "wrong (1)")
    assert sorted(right["y"])[-3:] == pytest.approx([1 / 3] * 3, abs=1e-4)
    assert wrong["y"][5] == 1.0  # 0.5 opens the sixth of thirty bins up to 3
    assert wrong["x"][5] == pytest.approx(0.55)


def test_all_right_or_norms_of_zero_are_drawn() -> None:
    chart = charts.norm_histogram("one", np.zeros(3), np.ones(3, bool))
    assert chart.summary == "3 right, median norm 0, 90 % of them from 0 to 0; none is wrong."


def test_bins_have_the_accuracy_of_their_tenth() -> None:
    norms = np.random.default_rng(1).permutation(100).astype(float)
    correct = norms >= 15  # the lowest tenth is all wrong, half of the second
    (trace,) = reports.traces(charts.accuracy_by_norm([("one", norms, correct)]))
    assert trace["x"] == pytest.approx(np.arange(0.05, 1, 0.1), abs=1e-4)
    assert trace["y"] == [0, 0.5, 1, 1, 1, 1, 1, 1, 1, 1]
    assert trace["text"][0] == "norm 0 to 9.9, 10 samples"


def test_discard_is_the_error_of_what_is_left() -> None:
    norms = np.random.default_rng(2).permutation(100).astype(float)
    correct = norms % 4 > 0  # 25 errors
    chart = charts.error_by_discard([("one", norms, correct)])
    (trace,) = reports.traces(chart)
    wrong = [~correct[norms >= gone] for gone in range(61)]  # 40 are left with 10 errors, then 39 with 9
    assert trace["x"] == pytest.approx(np.arange(61) / 100, abs=1e-4)
    assert trace["y"] == pytest.approx([errors.mean() for errors in wrong], abs=1e-4)
    assert chart.title == "Error of those kept, as the lowest norms are discarded"
    assert "ends where fewer than 30 samples or 10 errors are left" in chart.note
    (few,) = reports.traces(charts.error_by_discard([("one", norms[:40], np.zeros(40, bool))]))
    assert len(few["x"]) == 11  # 40 to 30 samples, all wrong
    (one,) = reports.traces(charts.error_by_discard([("one", norms[:20], correct[:20])]))
    assert one["x"] == [0]


# curves, logs, groups


def test_a_curve_on_log_axes_leaves_out_zero_and_says_its_value() -> None:
    x, y = np.array([0.0, 0.004, 0.02, 1.0]), np.array([0.3, 0.5, 0.8, 1.0])
    chart = error_curves("roc", [("one", x, y)])
    assert reports.traces(chart)[0]["x"] == [0.004, 0.02, 1.0]
    assert reports.layout(chart)["xaxis"]["type"] == "log"
    assert chart.summary == "one: TAR 0.5 at FMR 0.004."
    late = error_curves("roc", [("one", x[2:], y[2:])])
    assert late.summary == "one: no point at or below 0.01."
    assert reports.traces(chart)[0]["mode"] == reports.traces(late)[0]["mode"] == "lines+markers"  # few points
    one = error_curves("froc", [("one", x[:2], y[:2])])
    assert reports.traces(one)[0]["mode"] == "lines+markers"  # one point is no line
    many = error_curves("roc", [("one", np.linspace(0.01, 1, 13), np.linspace(0.2, 1, 13))])
    assert reports.traces(many)[0]["mode"] == "lines"


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("cmc", "one: 0.5 at rank 1."),
        ("froc", "one: sensitivity 0.5 at 1 false positives per case."),
        ("det", "one: no point at or below 0.01."),
    ],
)
def test_every_kind_of_curve_has_its_summary(kind: str, said: str) -> None:
    chart = error_curves(kind, [("one", np.array([1.0, 2.0]), np.array([0.5, 0.75]))])
    assert chart.summary == said
    go.Figure(data=reports.traces(chart), layout=reports.layout(chart))


def test_a_log_is_drawn_by_step_without_what_was_not_logged() -> None:
    rows = [{"step": 10, "loss": 2.0}, {"step": 20}, {"step": 30, "loss": 1.0}]
    chart = charts.training_log("loss", [("2", rows), ("other", [{"step": 1}])])
    assert [(trace["x"], trace["y"]) for trace in reports.traces(chart)] == [([10, 30], [2, 1])]
    assert chart.summary == "2: from 2 to 1."
    (trace,) = reports.traces(charts.training_log("loss", [("once", [{"step": 5, "loss": 2.0}])]))
    assert trace["mode"] == "lines+markers"  # one point is no line
    long = [{"step": step, "loss": 0.0} for step in range(5000)]
    (trace,) = reports.traces(charts.training_log("loss", [("long", long)]))
    assert len(trace["x"]) == charts.MOST_ROWS


def test_errors_have_their_bars_and_of_many_the_largest_are_drawn() -> None:
    numbers = [Number("a", 0.9, Interval(0.8, 0.95)), Number("b", 1.0, Interval(1.0, 1.0))]
    (trace,) = reports.traces(charts.group_errors("t", "group", ["a", "b"], [("one", numbers)]))
    assert trace["y"] == pytest.approx([0.1, 0])
    assert trace["error_y"]["array"] == pytest.approx([0.1, 0])  # up to 1 − 0.8
    assert trace["error_y"]["arrayminus"] == pytest.approx([0.05, 0])
    many = [Number(str(n), 1 - n / 100) for n in range(50)]
    chart = charts.group_errors("t", "class", [f"c{n}" for n in range(50)], [("one", many)])
    assert reports.traces(chart)[0]["x"] == [f"c{n}" for n in range(20, 50)]
    assert "error_y" not in reports.traces(chart)[0]
    (trace,) = reports.traces(charts.group_errors("t", "group", ["a", "b"], [("one", [numbers[0], Number("b", 0.5)])]))
    assert trace["error_y"]["array"] == [pytest.approx(0.1), None]
    assert chart.summary == (
        "one: highest for class c49, 49.00%, mean 24.50%. Shown are the 30 of 50 with the largest mean error."
    )


# pairs and pictures


def test_pairs_of_test_images_are_all_pairs_at_their_best_threshold(models: dict[int, FinishedRun]) -> None:
    model = models[8]
    found = ImagePairs.of(model)
    assert found is not None
    features, labels = model.test["features"].astype(float), model.test["labels"]
    expected = [(i, j) for i in range(len(labels)) for j in range(i + 1, len(labels))]
    assert list(zip(found.left.tolist(), found.right.tolist(), strict=True)) == expected
    cosines = [features[i] @ features[j] / math.hypot(*features[i]) / math.hypot(*features[j]) for i, j in expected]
    assert np.allclose(found.scores, cosines)
    assert found.same.tolist() == [labels[i] == labels[j] for i, j in expected]
    same, scores = np.array(found.same), np.array(cosines)
    best = max(float(((scores >= each) == same).mean()) for each in [*cosines, 2])
    assert accuracy_score(found.same, found.accepted) == pytest.approx(best)
    one_class = dataclasses.replace(model, test={**model.test, "labels": np.zeros(len(labels), int)})
    assert ImagePairs.of(one_class) is None


def test_wrong_pairs_come_worst_first_and_show_an_image_once(models: dict[int, FinishedRun]) -> None:
    model = models[2]
    found = ImagePairs.of(model)
    assert found is not None and not isinstance(model.images, str)
    shown = thumbnails.wrong_test_pairs(model, model.images, found)
    wrong = found.accepted != found.same
    first = {
        thumbnails.FALSE_MATCHES: found.scores[wrong & ~found.same].max(initial=-1),
        thumbnails.FALSE_NON_MATCHES: found.scores[wrong & found.same].min(initial=1),
    }
    assert shown.keys() == first.keys()
    assert any(shown.values())
    for kind, kept in shown.items():
        cosines = [float(each.caption.rpartition(" ")[2]) for each in kept]
        assert cosines[:1] == pytest.approx([first[kind]] * len(cosines[:1]), abs=1e-3)
        assert cosines == sorted(cosines, reverse=kind == thumbnails.FALSE_MATCHES)
        images = [image.alt for each in kept for image in each.images]
        assert len(set(images)) == len(images) == 2 * len(kept)


def test_best_and_worst_are_in_the_order_of_their_norms(models: dict[int, FinishedRun]) -> None:
    model = models[8]
    assert not isinstance(model.images, str)
    order = np.argsort(model.test["norms"])
    for highest, rows in ((True, order[::-1]), (False, order)):
        kept = thumbnails.by_norm(model, model.images, highest=highest)
        assert [each.images[0].alt.rpartition(" ")[2] for each in kept] == [f"{row})" for row in rows[:12]]
    wrong = thumbnails.mistakes(model, model.images)
    assert len(wrong) == min(12, (~model.correct).sum())
    assert all(each.wrong and ", taken for " in each.caption for each in wrong)


def test_small_pictures_lose_nothing_and_large_ones_shrink(tmp_path: Path) -> None:
    import base64
    import io

    from PIL import Image

    def read(uri: str) -> Image.Image:
        return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))

    random = np.random.default_rng(0)
    small = random.integers(0, 256, (8, 8), dtype=np.uint8)
    assert np.array_equal(np.array(read(thumbnails.data_uri(small))), small)
    large = read(thumbnails.data_uri(random.integers(0, 256, (300, 150, 3), dtype=np.uint8)))
    assert (large.format, large.size) == ("JPEG", (56, 112))
