"""The oracles of mining, penalties and metric losses, by hand."""

import math
from collections.abc import Callable

import pytest

from . import margins, mining, penalties
from . import softmax_family as family
from .geometry import Matrix
from .gradients import central_difference
from .samples import AXES, at, near, random_matrix


def test_focal_by_hand() -> None:
    features, p = [at(0)], 1 / (1 + math.exp(-2))
    assert mining.focal_softmax(features, AXES, [0], 2.0) == near([(1 - p) ** 2 * -math.log(p)])
    q = 1 / (1 + math.exp(-1.5))

    def margin(theta: float) -> float:
        return math.cos(theta) - 0.25

    own = mining.focal_softmax(features, AXES, [0], 2.0, 3.0, margin)
    assert own == near([(1 - q) ** 3 * -math.log(q)])
    plain = mining.focal_softmax(features, AXES, [0], 2.0, 3.0, margin, "plain")
    assert plain == near([(1 - p) ** 3 * -math.log(q)])
    assert mining.focal_softmax(features, AXES, [0], 2.0, 0.0) == near([-math.log(p)])


def test_hard_mining_keeps_the_highest() -> None:
    features = [at(0), at(80), at(40), at(90)]
    losses = family.normface(features, AXES, [0] * 4, 4.0)
    kept, count = mining.hm_softmax(features, AXES, [0] * 4, 4.0, keep=0.5)
    assert count == 2
    assert kept == near([0.0, losses[1], 0.0, losses[3]])


def test_hard_mining_ties_and_counts() -> None:
    kept, count = mining.hm_softmax([at(0), at(90), at(0), at(0)], AXES, [0, 0, 0, 0], 4.0, keep=0.5)
    assert (count, [value > 0 for value in kept]) == (2, [True, True, False, False])
    kept, count = mining.hm_softmax([at(0)], AXES, [0], 4.0, margin=lambda theta: math.cos(theta) - 0.5)
    assert (count, kept) == (1, near([math.log1p(math.exp(-2))]))
    assert [mining.kept_count(n, 0.9) for n in (1, 2, 9, 10, 11, 20, 128)] == [1, 1, 8, 9, 9, 18, 115]
    assert mining.kept_count(100, 0.29) == 29
    assert mining.kept_count(3, 0.01) == 1


def test_iam_by_hand() -> None:
    features, weight = [at(0)], [at(0), at(90), at(180)]
    expected = math.log((1 + math.exp(-2)) / 2 / (math.exp(2) + 1 + math.exp(-2)))
    assert penalties.iam(features, weight, [0], 1.0, 2.0) == near([expected])
    assert penalties.iam(features, weight, [0], 0.1, 2.0) == near([0.1 * expected])
    expected = math.log((1 + math.exp(-2)) / 2 / (math.exp(1) + 1 + math.exp(-2)))
    margined = penalties.iam(features, weight, [0], 1.0, 2.0, lambda theta: math.cos(theta) - 0.5)
    assert margined == near([expected])


def test_iam_is_log_1_minus_p_and_bounded_below() -> None:
    features, weight, labels = random_matrix(6, 3, 5), random_matrix(5, 3, 6), [0, 1, 2, 3, 4, 4]
    for value, loss in zip(
        penalties.iam(features, weight, labels, 1.0, 8.0), family.normface(features, weight, labels, 8.0), strict=True
    ):
        assert value == near(math.log((1 - math.exp(-loss)) / 4))
    attained = penalties.iam([at(0)], [at(0), at(180), at(180)], [0], 1.0, 30.0)[0]
    assert attained == near(-2 * 30 - math.log1p(2 * math.exp(-60)))
    assert math.isfinite(penalties.iam([at(0)], [at(0), at(180)], [0], 1.0, 1000.0)[0])
    with pytest.raises(ValueError, match="another class"):
        penalties.iam([at(0)], [at(0)], [0], 1.0, 1.0)


def test_iam_gradient_in_the_own_weight() -> None:
    """IAM, Eq. 13 for one sample: -s x^ (1 - p + beta p), projected onto raw weights."""
    features, weight, s, beta = [at(20)], [at(0), at(70), at(200)], 5.0, 0.4
    p = math.exp(-family.normface(features, weight, [0], s)[0])

    def total(values: Matrix) -> float:
        base = family.normface(features, values, [0], s)[0]
        return base + penalties.iam(features, values, [0], beta, s)[0]

    gradient = central_difference(total, weight)[0]
    tangent = -s * (1 - p + beta * p) * math.sin(math.radians(20))
    assert gradient == near([0.0, tangent], rel=1e-9, absolute=1e-10)


def test_incay_by_hand() -> None:
    features, rest = [[3.0, 4.0], [0.0, 0.0]], (AXES, [0, 1])
    assert penalties.feature_incay(features, *rest, 0.1, eps=0.5) == near([0.1 / 25.5, 0.2])
    assert penalties.feature_incay(features, *rest, 0.1, "log", 1.0) == near([-0.1 * math.log(26), 0.0])
    assert penalties.feature_incay(features, *rest, 0.1, "linear") == near([-2.5, 0.0])
    assert penalties.feature_incay(features, *rest, eps=0.5, bound=5.0) == near([1 / 25.5, 2.0])
    assert penalties.feature_incay(features, *rest, eps=0.5, bound=4.999) == near([0.0, 2.0])


def test_incay_reciprocal_gradient() -> None:
    def total(values: Matrix) -> float:
        return penalties.feature_incay(values, AXES, [0], eps=0.5)[0]

    expected = [-2 * x / 25.5**2 for x in (3.0, 4.0)]
    assert central_difference(total, [[3.0, 4.0]])[0] == near(expected, rel=1e-9)


def test_ring_by_hand() -> None:
    assert penalties.ring([[3.0, 4.0], [0.0, 0.0]], AXES, [0, 0], 0.5, 3.0) == near([1.0, 2.25])


def test_c_contrastive_by_hand() -> None:
    weight = [at(0, 2.0), at(60, 3.0), at(180, 4.0)]  # squared distances from 0 degrees: 0, 1, 4
    assert penalties.c_contrastive([at(0, 9.0)], weight, [0], 1.5) == near([0.5])
    assert penalties.c_contrastive([at(0, 9.0)], weight, [0], 1.5, "mean") == near([0.25])
    assert penalties.c_contrastive([at(0, 9.0)], weight, [1], 1.5) == near([1 + 1.5])
    assert penalties.c_contrastive([[0.0, 0.0]], weight, [1], 1.5) == near([1 + 0.5 + 0.5])


def chord(degrees: float) -> float:
    return 2 - 2 * math.cos(math.radians(degrees))  # squared


def test_c_triplet_by_hand() -> None:
    weight = [at(0), at(60), at(180)]  # from class 1: own 1, others 0 and 4: hinges 1.8 and 0
    features = [at(0, 9.0)]
    for center, total, mean, hardest in ((None, 1.8, 0.9, 1.8), ("additive", 2.8, 1.9, 2.8), ("gated", 2.8, 1.4, 1.8)):
        assert penalties.c_triplet(features, weight, [1], 0.8, "sum", center) == near([total])
        assert penalties.c_triplet(features, weight, [1], 0.8, "mean", center) == near([mean])
        assert penalties.c_triplet(features, weight, [1], 0.8, "hardest", center) == near([hardest])
    assert penalties.c_triplet([at(20)], [at(0), at(90), at(180)], [0], 0.8, "hardest") == near([0.0])
    assert penalties.c_triplet([at(20)], [at(0), at(90), at(180)], [0], 0.8, "hardest", "gated") == near([chord(20)])
    assert penalties.c_triplet(features, weight, [0], 0.8, center="gated") == near([0.0])
    assert penalties.c_triplet(features, weight, [2], 0.8, center="gated") == near([4.8 + 3.8])
    assert penalties.c_triplet([at(20)], [at(0), at(50)], [0], 0.2, center="gated") == near(
        [0.2 + chord(20) - chord(30)]
    )


def test_defaults_are_the_papers() -> None:
    features, weight, labels = random_matrix(6, 5, 3), random_matrix(4, 5, 4), [0, 1, 2, 3, 1, 1]
    batch = (features, weight, labels)
    assert penalties.c_contrastive(*batch) == penalties.c_contrastive(*batch, 1.0, "sum")
    assert penalties.c_triplet(*batch) == penalties.c_triplet(*batch, 0.8, "sum", None)
    assert penalties.feature_incay(*batch) == penalties.feature_incay(*batch, 1.0, "reciprocal", 1e-8, None)
    assert mining.hm_softmax(*batch, 4.0) == mining.hm_softmax(*batch, 4.0, 0.9, math.cos)
    assert mining.focal_softmax(*batch, 4.0) == mining.focal_softmax(*batch, 4.0, 2.0, math.cos, "margin")


def test_center_loss_and_update_by_hand() -> None:
    features, labels, centers = [[3.0, 4.0], [1.0, 0.0], [0.0, 2.0]], [0, 0, 1], [[0.0, 0.0], [0.0, 1.0], [5.0, 5.0]]
    assert penalties.center_loss(features, labels, centers, lam=0.1) == near([1.25, 0.05, 0.05])
    assert penalties.center_loss(features, labels, centers, normalize=True) == near([0.5, 0.5, 0.0])
    moved = penalties.center_update(features, labels, centers)
    assert moved[0] == near([0.5 * 4 / 3, 0.5 * 4 / 3])
    assert moved[1] == near([0.0, 1.25])
    assert moved[2] == centers[2]
    assert centers[0] == [0.0, 0.0]
    assert penalties.center_update(features, labels, centers, 1.0, True)[0] == near([1.6 / 3, 0.8 / 3])


@pytest.mark.parametrize(
    "call",
    [
        lambda: margins.additive_angle(1.0, 0.5, "hard"),
        lambda: margins.combined(1.0, 1, 0, 0, "cos"),
        lambda: family.sphereface([at(0)], AXES, [0], form="cos"),
        lambda: family.bounds(10, bound="tight"),
        lambda: family.mv_softmax([at(0)], AXES, [0], 1.0, math.cos, 0.1, "free"),
        lambda: mining.focal_softmax([at(0)], AXES, [0], 1.0, probability="raw"),
        lambda: penalties.feature_incay([at(0)], AXES, [0], form="square"),
        lambda: penalties.c_contrastive([at(0)], AXES, [0], classes="all"),
        lambda: penalties.c_triplet([at(0)], AXES, [0], center="free"),
    ],
)
def test_a_misspelt_option_is_refused(call: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match="must be"):
        call()
