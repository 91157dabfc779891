"""The similarity transform and the warp, against least squares, plain loops and planted answers."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from angulus.core.checks import InputError
from angulus.core.templates import TEMPLATES, template_points
from angulus.data.faces.align import align, residual, similarity, transform, warp

TEMPLATE = np.array(TEMPLATES["five_points"])
coordinate = st.floats(-500, 500, allow_nan=False, width=32)


def least_squares(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """[[p, -q, s], [q, p, t]] by the general solver: two equations a point in four unknowns."""
    rows, values = [], []
    for (x, y), (u, v) in zip(source, target, strict=True):
        rows += [[x, -y, 1, 0], [y, x, 0, 1]]
        values += [u, v]
    p, q, s, t = np.linalg.lstsq(np.array(rows), np.array(values), rcond=None)[0]
    return np.array([[p, -q, s], [q, p, t]])


def umeyama(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The paper's own form, by a singular value decomposition (equations 38 to 43)."""
    mean_x, mean_y = source.mean(axis=0), target.mean(axis=0)
    covariance = (target - mean_y).T @ (source - mean_x) / len(source)
    u, d, vt = np.linalg.svd(covariance)
    s = np.diag([1.0, 1.0 if np.linalg.det(covariance) >= 0 else -1.0])
    rotation = u @ s @ vt
    scale = np.trace(np.diag(d) @ s) / ((source - mean_x) ** 2).sum(axis=1).mean()
    return np.concatenate([scale * rotation, (mean_y - scale * rotation @ mean_x)[:, None]], axis=1)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("mirrored", [False, True])
def test_it_is_the_least_squares_fit_and_umeyamas(seed: int, mirrored: bool) -> None:
    generator = np.random.default_rng(seed)
    source = TEMPLATE * generator.uniform(0.2, 5) + generator.normal(0, 8, (5, 2)) + generator.uniform(-300, 300, 2)
    if mirrored:  # the best fit would be a reflection, which no similarity is
        source = source * [-1, 1]
    found = similarity(source, TEMPLATE)
    np.testing.assert_allclose(found, least_squares(source, TEMPLATE), atol=1e-9)
    np.testing.assert_allclose(found, umeyama(source, TEMPLATE), atol=1e-9)
    assert np.linalg.det(found[:, :2]) > 0


@settings(max_examples=50, deadline=None)
@given(
    angle=st.floats(-math.pi, math.pi),
    scale=st.floats(0.01, 100),
    shift=st.tuples(coordinate, coordinate),
)
def test_a_planted_transform_is_found(angle: float, scale: float, shift: tuple[float, float]) -> None:
    turn = scale * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    planted = np.concatenate([turn, np.array(shift)[:, None]], axis=1)
    moved = transform(TEMPLATE, planted)
    np.testing.assert_allclose(moved, np.array([turn @ point + shift for point in TEMPLATE]), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(similarity(TEMPLATE, moved), planted, rtol=1e-6, atol=1e-6 * max(1, scale))


def test_many_at_once_are_each_by_itself() -> None:
    sources = np.random.default_rng(0).normal(0, 50, (3, 4, 5, 2))
    together = similarity(sources, TEMPLATE)
    assert together.shape == (3, 4, 2, 3)
    np.testing.assert_allclose(together[2, 1], similarity(sources[2, 1], TEMPLATE))
    moved = transform(sources, together)
    np.testing.assert_allclose(moved[1, 3], transform(sources[1, 3], together[1, 3]))
    distances = residual(moved, TEMPLATE)
    assert distances.shape == (3, 4)
    by_hand = math.sqrt(sum(math.dist(a, b) ** 2 for a, b in zip(moved[0, 2], TEMPLATE, strict=True)) / 5)
    assert distances[0, 2] == pytest.approx(by_hand)


def test_no_other_similarity_is_nearer() -> None:
    generator = np.random.default_rng(3)
    source = TEMPLATE + generator.normal(0, 6, (5, 2))
    best = similarity(source, TEMPLATE)
    least = residual(transform(source, best), TEMPLATE)
    for _ in range(200):
        p, q, s, t = generator.normal(0, 0.05, 4)
        other = best + np.array([[p, -q, s], [q, p, t]])
        assert residual(transform(source, other), TEMPLATE) >= least


@pytest.mark.parametrize(
    ("source", "target", "sentence"),
    [
        (np.zeros((5, 2)), TEMPLATE, "fix a rotation and a scale; got all at one place"),
        (TEMPLATE, np.ones((5, 2)), "fix a rotation and a scale; got all at one place"),
        (TEMPLATE[:4], TEMPLATE, "the same number of points, two or more; got 4 and 5"),
        (TEMPLATE[:1], TEMPLATE[:1], "two or more; got 1 and 1"),
        (np.zeros((5, 3)), TEMPLATE, r"source must have shape \[..., points, 2\]; got \[5, 3\]"),
        (TEMPLATE, np.zeros(2), r"target must have shape \[..., points, 2\]; got \[2\]"),
        (TEMPLATE * [1, math.nan], TEMPLATE, "source must be finite; got NaN or Inf"),
    ],
)
def test_points_that_fix_nothing_are_refused(source: np.ndarray, target: np.ndarray, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        similarity(source, target)


def by_loops(image: np.ndarray, matrix: np.ndarray, height: int, width: int) -> np.ndarray:
    """Each pixel of the crop from the four around where it comes from; 0 beyond the edge."""
    whole = np.concatenate([matrix, [[0, 0, 1]]])
    back = np.linalg.inv(whole)
    crop = np.zeros((height, width, 3))
    for v in range(height):
        for u in range(width):
            x, y, _ = back @ [u, v, 1]
            left, top = math.floor(x), math.floor(y)
            for column, row in ((left, top), (left + 1, top), (left, top + 1), (left + 1, top + 1)):
                share = (1 - abs(x - column)) * (1 - abs(y - row))
                if 0 <= column < image.shape[1] and 0 <= row < image.shape[0]:
                    crop[v, u] += share * image[row, column]
    return crop


@pytest.mark.parametrize(("height", "width"), [(24, 24), (28, 20)])
def test_the_crop_is_bilinear_and_black_beyond_the_edge(height: int, width: int) -> None:
    generator = np.random.default_rng(5)
    coarse = generator.integers(0, 256, (6, 7, 3), dtype=np.uint8)
    image = cv2.resize(coarse, (42, 36), interpolation=cv2.INTER_LINEAR)
    points = TEMPLATE / 112 * 30 + [14, 8] + generator.normal(0, 1, (5, 2))  # near the right edge, so beyond it too
    aligned = align(image, points, height, width)
    matrix = similarity(points, template_points("five_points", height, width))
    expected = by_loops(image, matrix, height, width)
    assert (expected == 0).any()
    assert aligned.pixels.shape == (height, width, 3)
    assert aligned.pixels.dtype == np.uint8
    # OpenCV looks up at 1/32 pixels
    assert np.abs(aligned.pixels.astype(int) - expected).mean() < 1
    assert np.abs(aligned.pixels.astype(int) - expected).max() < 8
    np.testing.assert_array_equal(aligned.pixels, warp(image, matrix, height, width))


@pytest.mark.parametrize("size", [(112, 112), (128, 128), (144, 144), (160, 160), (112, 96)])
def test_landmarks_come_to_lie_on_the_template(size: tuple[int, int]) -> None:
    target = template_points("five_points", *size)
    turned = (target - 20) @ [[0.6, -0.8], [0.8, 0.6]] * 2.5 + 90
    aligned = align(np.full((400, 400, 3), 9, dtype=np.uint8), turned, *size)
    np.testing.assert_allclose(aligned.landmarks, target, atol=1e-4)
    assert aligned.residual_px == pytest.approx(0, abs=1e-9)
    shifted = turned.copy()
    shifted[2] += 20
    assert align(np.zeros((4, 4, 3), dtype=np.uint8), shifted, *size).residual_px > 2


def test_templates_scale_and_are_cut() -> None:
    np.testing.assert_allclose(template_points("five_points", 112, 112), TEMPLATE)
    np.testing.assert_allclose(template_points("five_points", 160, 160), TEMPLATE * 160 / 112)
    np.testing.assert_allclose(template_points("five_points", 112, 96), TEMPLATE - [8, 0])
    np.testing.assert_allclose(template_points("five_points", 96, 112), TEMPLATE - [0, 8])
    with pytest.raises(InputError, match="template must be one of 'five_points'; got 'five_point'"):
        template_points("five_point", 112, 112)
    with pytest.raises(InputError, match="size must be a whole number >= 1; got 0"):
        template_points("five_points", 0, 112)


def test_a_face_turned_in_the_photo_stands_upright_in_the_crop() -> None:
    upright = np.zeros((112, 112, 3), dtype=np.uint8)
    for number, (x, y) in enumerate(TEMPLATE):
        cv2.circle(upright, (round(x), round(y)), 4, (50 * number + 50, 0, 0), -1)
    turned = cv2.rotate(upright, cv2.ROTATE_90_CLOCKWISE)
    points = np.stack([111 - TEMPLATE[:, 1], TEMPLATE[:, 0]], axis=1)
    aligned = align(turned, points)
    assert np.abs(aligned.pixels.astype(int) - upright).max() <= 1
