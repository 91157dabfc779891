"""The pieces under the oracles, by hand: geometry, margins, differences, propositions."""

import itertools
import math

import pytest

from . import geometry, margins, theory
from . import softmax_family as family
from .geometry import Matrix, Vector
from .gradients import central_difference, derivative
from .samples import AXES, at, near, random_matrix


def test_angle_keeps_its_digits_at_both_ends() -> None:
    assert geometry.angle([1.0, 0.0], [1.0, 1e-9]) == near(1e-9)
    assert math.pi - geometry.angle([1.0, 0.0], [-1.0, 1e-9]) == near(1e-9, rel=1e-6)
    assert geometry.angle([3.0, 4.0], [6.0, 8.0]) == 0.0
    assert geometry.angle([2.0, 0.0], [-5.0, 0.0]) == math.pi
    assert geometry.angle([2.0, 0.0], [7.0, 7.0]) == near(math.pi / 4)


@pytest.mark.parametrize("pair", [([0.0, 0.0], [3.0, 4.0]), ([3.0, 4.0], [0.0, 0.0]), ([0.0, 0.0], [0.0, 0.0])])
def test_zero_vector_is_at_a_right_angle_to_everything(pair: tuple[Vector, Vector]) -> None:
    assert geometry.cosine(*pair) == 0.0
    assert geometry.angle(*pair) == math.pi / 2


def test_unit_with_eps() -> None:
    assert geometry.norm([3.0, 4.0]) == 5.0
    assert geometry.unit([3.0, 4.0], eps=11.0) == near([0.5, 4 / 6])
    assert geometry.unit([0.0, 0.0]) == [0.0, 0.0]
    assert geometry.cosine([3.0, 4.0], [3.0, 4.0], eps=11.0) == near(25 / 36)


def test_log_sum_exp_and_softplus() -> None:
    assert geometry.log_sum_exp([0.0, 0.0, 0.0]) == near(math.log(3))
    assert geometry.log_sum_exp([1000.0, 999.0]) == near(1000.3132616875182)
    assert geometry.log_sum_exp([]) == -math.inf
    assert geometry.softplus(0.0) == near(math.log(2))
    assert geometry.softplus(1000.0) == 1000.0
    assert geometry.softplus(-50.0) == near(math.exp(-50), absolute=0)
    assert geometry.softplus(-math.inf) == 0.0


def test_cross_entropy_from_far_ahead_and_far_behind() -> None:
    assert geometry.cross_entropy([1000.0, 950.0], 0) == near(math.exp(-50), absolute=0)
    assert geometry.cross_entropy([1000.0, 950.0], 1) == near(50.0)
    assert geometry.cross_entropy([math.log(1), math.log(2), math.log(5)], 1) == near(math.log(4))
    assert geometry.cross_entropy([7.0], 0) == 0.0


def test_additive_margins_by_hand() -> None:
    assert margins.additive_cosine(math.pi / 3, 0.35) == near(0.15)
    for beyond_pi in ("linear", "plain", "easy"):
        assert margins.additive_angle(math.pi / 6, math.pi / 6, beyond_pi) == near(0.5)
    assert margins.additive_angle(math.pi, 0.5, "plain") == near(math.cos(math.pi + 0.5))
    assert margins.additive_angle(math.pi, 0.5, "linear") == near(-1 - 0.5 * math.sin(0.5))
    assert margins.additive_angle(math.pi, 0.5, "easy") == near(-1.0)


def test_easy_jumps_up_by_sin_m_at_a_right_angle() -> None:
    before = margins.additive_angle(math.pi / 2 - 1e-12, 0.5, "easy")
    assert margins.additive_angle(math.pi / 2, 0.5, "easy") - before == near(math.sin(0.5), rel=1e-9)


def test_linear_steps_down_and_never_rises() -> None:
    edge = math.pi - 0.5
    step = margins.additive_angle(edge + 1e-12, 0.5) - margins.additive_angle(edge - 1e-12, 0.5)
    assert step == near(1 - math.cos(0.5) - 0.5 * math.sin(0.5), rel=1e-9)
    assert step < 0
    assert margins.additive_angle(math.pi - 0.5, 0.5) == -1.0  # theta + m = pi is not beyond pi
    values = [margins.additive_angle(i * math.pi / 1000, 0.5) for i in range(1001)]
    assert all(a > b for a, b in itertools.pairwise(values))


@pytest.mark.parametrize("m", [1, 2, 3, 4])
def test_psi_is_continuous_and_falls_from_1_to_1_minus_2m(m: int) -> None:
    for k in range(1, m):
        edge = k * math.pi / m
        left, right = margins.psi(edge - 1e-9, m), margins.psi(edge + 1e-9, m)
        assert left == near(1 - 2 * k, absolute=1e-12)
        assert right == near(1 - 2 * k, absolute=1e-12)
    assert margins.psi(0.0, m) == 1.0
    assert margins.psi(math.pi, m) == near(1 - 2 * m)
    values = [margins.psi(i * math.pi / 1000, m) for i in range(1001)]
    assert all(a > b for a, b in itertools.pairwise(values))


def test_psi_by_hand() -> None:
    assert margins.psi(math.pi / 2, 3) == near(-2.0)  # k = 1: -cos(3 pi/2) - 2
    assert margins.psi(5 * math.pi / 6, 3) == near(-4.0)  # k = 2: cos(5 pi/2) - 4
    assert margins.psi(math.pi / 9, 3) == near(0.5)
    assert margins.multiplicative_raw(math.pi / 2, 3) == near(0.0)


def test_combined_contains_the_three_margins() -> None:
    for theta in (0.0, 0.3, 1.1, 2.0, 3.0):
        assert margins.combined(theta, 1, 0.35, 0) == near(margins.additive_cosine(theta, 0.35))
        assert margins.combined(theta, 1, 0, 0.5) == near(margins.additive_angle(theta, 0.5, "plain"))
        assert margins.combined(theta, 3, 0, 0) == near(margins.multiplicative_raw(theta, 3))
        assert margins.combined(theta, 3, 0, 0, "psi") == near(margins.psi(theta, 3))
    assert margins.combined(math.pi, 1, 0.1, 0.5, "psi") == near(math.cos(0.5) - 2 - 0.1)


def test_annealing() -> None:
    assert margins.annealed(math.pi / 3, -1.0, 0.0) == -1.0
    assert margins.annealed(math.pi / 3, -1.0, 2.0) == near(0.0)
    assert margins.annealing_lam(0, 1000.0, 5.0) == 1000.0
    assert margins.annealing_lam(90, 1000.0, 5.0) == near(100.0)
    assert margins.annealing_lam(10**6, 1000.0, 5.0) == 5.0


@pytest.mark.parametrize("n", [2, 3, 10, 40])
def test_simplex_attains_the_floor(n: int) -> None:
    points = theory.simplex(n)
    for i in range(n):
        assert geometry.norm(points[i]) == near(1.0)
        for j in range(i):
            assert geometry.dot(points[i], points[j]) == near(-1 / (n - 1), rel=1e-10)
    for l2 in (0.5, 1.0, 20.0):
        assert theory.loss_floor_of_simplex(l2, n) == near(theory.loss_floor(l2, n), rel=1e-10, absolute=0)


def test_nothing_goes_below_the_floor() -> None:
    for seed in range(20):
        weight = random_matrix(4, 3, seed)
        losses = family.normface(weight, weight, [0, 1, 2, 3], 5.0)
        assert math.fsum(losses) / 4 > theory.loss_floor(5.0, 4)


def test_numbers_of_the_papers() -> None:
    assert theory.loss_floor(1.0, 10575) == near(8.27, rel=1e-3)  # NormFace, section 3.3
    assert theory.property_4_bound(10.0, 10) > 0.999  # feature incay, section 6.2
    assert theory.property_4_bound(0.0, 10) == near(0.1)
    assert theory.incay_bound(200.0, 10, 512) == near(483, rel=1e-3)  # feature incay, section 3.4
    assert theory.incay_bound(200.0, 20, 10) == 600.0
    poles = [[1.0, 0.0], *[[-1.0, 0.0]] * 9]
    assert math.exp(-family.normface([[1.0, 0.0]], poles, [0], 1.0)[0]) == near(0.45, rel=0.01)


def test_scale_for_loss_inverts_the_floor() -> None:
    for l2 in (0.1, 1.0, 16.0):
        assert theory.scale_for_loss(theory.loss_floor(l2, 100), 100) == near(l2, rel=1e-10)


def test_property_4_on_orthogonal_weights() -> None:
    weight = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    assert math.exp(-family.softmax([[3.0, 0.0, 0.0]], weight, [0])[0]) == near(theory.property_4_bound(3.0, 3))


def test_agent_distortion() -> None:
    members, agent = [at(0, 3.0), at(60, 5.0)], at(0, 9.0)
    assert theory.agent_distortion_bound(members, agent) == near(0.5)
    assert theory.agent_distortion_bound(members, agent, normalize=False) == near((36 + 25 + 81 - 45) / 2)
    assert theory.agent_distortion(at(180), members, agent) == near((2 - math.sqrt(3)) ** 2 / 2)
    assert theory.agent_distortion_bounds([*members, at(90)], [agent, at(5), at(270)], [0, 0, 2]) == near(
        {0: 0.5, 2: 4.0}
    )
    for seed in range(20):
        anchor, agent, *members = random_matrix(6, 3, seed)
        assert theory.agent_distortion(anchor, members, agent) <= theory.agent_distortion_bound(members, agent)


def test_larger_norm_lowers_the_loss_of_the_well_classified() -> None:
    """NormFace, Proposition 1; feature incay, Property 1."""
    losses = [family.softmax([at(30, length)], AXES, [0])[0] for length in (1.0, 2.0, 8.0)]
    assert losses[0] > losses[1] > losses[2]


def test_derivative_of_smooth_functions() -> None:
    assert derivative(math.sin, 1.0) == near(math.cos(1.0), rel=1e-11)
    assert derivative(math.sin, 1.0, step=1e-3) == near(math.cos(1.0))  # not without the extrapolation
    assert derivative(lambda x: math.exp(30 * x), 0.1) == near(30 * math.exp(3), rel=1e-9)
    assert derivative(lambda x: geometry.softplus(300 * x), 0.001) == near(300 / (1 + math.exp(-0.3)), rel=1e-9)
    assert derivative(lambda x: max(0.0, x), 1e-5) == near(1.0, rel=1e-9)


def test_noise_at_small_steps_does_not_win() -> None:
    for i in range(200):
        assert derivative(lambda x: 100 + math.sin(x), 0.02 * i) == near(math.cos(0.02 * i), absolute=2e-10)


def test_central_difference_keeps_the_nesting() -> None:
    values = [[1.0, 2.0], [3.0]]
    gradient = central_difference(lambda v: v[0][0] ** 2 * v[0][1] + v[1][0] ** 3, values)
    assert gradient[0] == near([4.0, 1.0], rel=1e-9)
    assert gradient[1] == near([27.0], rel=1e-9)
    assert central_difference(lambda v: v[0] * v[1], [2.0, 5.0]) == near([5.0, 2.0], rel=1e-9)
    assert values == [[1.0, 2.0], [3.0]]


def test_softmax_gradient() -> None:
    features, weight = [[0.4, -1.2]], random_matrix(3, 2, 9)
    logits = [geometry.dot(w, features[0]) for w in weight]
    p = [math.exp(z - geometry.log_sum_exp(logits)) for z in logits]
    expected = [math.fsum((p[j] - (j == 1)) * weight[j][k] for j in range(3)) for k in range(2)]
    gradient = central_difference(lambda values: family.softmax(values, weight, [1])[0], features)
    assert gradient[0] == near(expected, rel=1e-9)


def test_normalised_gradient_is_orthogonal_to_the_feature_only_without_eps() -> None:
    """NormFace, section 3.2."""
    features, weight = [[0.4, -1.2, 0.7]], random_matrix(3, 3, 10)
    for eps, orthogonal in ((0.0, True), (0.5, False)):

        def loss(values: Matrix, eps: float = eps) -> float:
            return family.normface(values, weight, [1], 16.0, eps)[0]

        product = geometry.dot(features[0], central_difference(loss, features)[0])
        assert (abs(product) < 1e-8) == orthogonal
