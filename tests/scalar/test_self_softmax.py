"""The softmax-family oracles, by hand and against each other."""

import math

import pytest

from . import geometry
from . import softmax_family as family
from .samples import AXES, at, near, random_matrix


def test_softmax_by_hand() -> None:
    assert family.softmax([[1.0, 0.0]], AXES, [0]) == near([math.log(1 + math.exp(-1))])
    assert family.softmax([[1.0, 0.0]], AXES, [1]) == near([math.log(1 + math.e)])
    assert family.softmax([[1.0, 0.0]], AXES, [0], bias=[0.5, 2.5]) == near([math.log(1 + math.e)])
    assert family.softmax([[0.0, 0.0]], AXES, [0]) == near([math.log(2)])


def test_normalised_rows_by_hand() -> None:
    features, weight = [[3.0, 4.0]], [[2.0, 0.0], [0.0, 5.0]]
    soft = geometry.softplus
    assert family.softmax(features, weight, [0]) == near([soft(20 - 6)])
    assert family.weight_normalized(features, weight, [0]) == near([soft(4 - 3)])
    assert family.feature_normalized(features, weight, [0], s=2.0) == near([soft(2 * (4 - 1.2))])
    assert family.l2_softmax(features, weight, [0], alpha=2.0, bias=[1.0, 0.0]) == near([soft(2 * (4 - 1.2) - 1)])
    assert family.normface(features, weight, [0], s=2.0) == near([soft(2 * (0.8 - 0.6))])
    own, other = 6 / (math.sqrt(36) * math.sqrt(15)), 20 / (math.sqrt(36) * math.sqrt(36))
    assert family.normface(features, weight, [0], s=2.0, eps=11.0) == near([soft(2 * (other - own))])
    assert family.coco(features, weight, [0]) == near([soft(3 * (0.8 - 0.6))])
    assert family.coco(features, weight, [0], alpha=1.0) == near([soft(0.2)])


def test_coco_default_of_ten_classes() -> None:
    weight = random_matrix(10, 4, seed=1)
    features = random_matrix(3, 4, seed=2)
    alpha = 0.5 * math.log(9) + 3
    assert family.coco(features, weight, [0, 4, 9]) == near(family.normface(features, weight, [0, 4, 9], alpha))


def test_margin_rows_by_hand() -> None:
    features, weight, soft = [at(30, length=7.0)], [at(0, 2.0), at(90, 3.0)], geometry.softplus
    own, other = math.cos(math.pi / 6), 0.5
    assert family.cosface(features, weight, [0], s=4.0, m=0.35) == near([soft(4 * (other - own + 0.35))])
    assert family.arcface(features, weight, [0], s=4.0, m=math.pi / 6) == near([soft(4 * (other - 0.5))])
    assert family.sphereface(features, weight, [0], m=2) == near([soft(7 * (other - 0.5))])
    assert family.sphereface(features, weight, [0], m=2, s=4.0) == near([soft(4 * (other - 0.5))])
    assert family.l_softmax(features, weight, [0], m=2) == near([soft(7 * 3 * other - 7 * 2 * 0.5)])
    mixed = (5 * own + 0.5) / 6
    assert family.sphereface(features, weight, [0], m=2, lam=5.0) == near([soft(7 * (other - mixed))])
    assert family.l_softmax(features, weight, [0], m=2, lam=5.0) == near([soft(7 * 3 * other - 7 * 2 * mixed)])
    target = math.cos(math.radians(2 * 30 + 15)) - 0.1
    combined = family.combined_margin(features, weight, [0], 4.0, m1=2, m2=0.1, m3=math.radians(15))
    assert combined == near([soft(4 * (other - target))])


def test_form_matters_beyond_pi_over_m() -> None:
    features, weight = [at(120)], [at(0), at(120)]  # psi = -cos(240) - 2 = -1.5, raw = -0.5, other = 1
    assert family.sphereface(features, weight, [0], m=2, s=1.0) == near([geometry.softplus(2.5)])
    assert family.sphereface(features, weight, [0], m=2, s=1.0, form="raw") == near([geometry.softplus(1.5)])
    assert family.combined_margin(features, weight, [0], 1.0, m1=2) == near([geometry.softplus(1.5)])
    assert family.combined_margin(features, weight, [0], 1.0, m1=2, form="psi") == near([geometry.softplus(2.5)])


def test_beyond_pi_reaches_the_loss() -> None:
    features, weight = [[-1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]]
    for beyond_pi, target in (
        ("linear", -1 - 0.5 * math.sin(0.5)),
        ("plain", -math.cos(0.5)),
        ("easy", -1.0),
    ):
        loss = family.arcface(features, weight, [0], 2.0, 0.5, beyond_pi)
        assert loss == near([geometry.softplus(-2 * target)])


def test_zero_margins_are_normface() -> None:
    features, weight, labels = random_matrix(6, 5, 3), random_matrix(4, 5, 4), [0, 1, 2, 3, 1, 1]
    expected = near(family.normface(features, weight, labels, 16.0))
    assert family.cosface(features, weight, labels, 16.0, 0.0) == expected
    assert family.arcface(features, weight, labels, 16.0, 0.0) == expected
    assert family.sphereface(features, weight, labels, 1, 16.0) == expected
    assert family.combined_margin(features, weight, labels, 16.0) == expected
    assert family.cm_softmax(features, weight, labels, lower=16.0, upper=16.0) == expected
    assert family.mv_softmax(features, weight, labels, 16.0, math.cos, 0.0) == expected
    assert family.mv_softmax(features, weight, labels, 16.0, math.cos, 0.0, "adaptive") == expected
    assert family.l_softmax(features, weight, labels, 1) == near(family.softmax(features, weight, labels))


def test_defaults_are_the_papers() -> None:
    batch = random_matrix(6, 5, 3), random_matrix(4, 5, 4), [0, 1, 2, 3, 1, 1]
    assert family.normface(*batch) == family.normface(*batch, 20.0, 0.0)
    assert family.cosface(*batch, 16.0) == family.cosface(*batch, 16.0, 0.35)
    assert family.arcface(*batch, 16.0) == family.arcface(*batch, 16.0, 0.5, "linear")
    assert family.sphereface(*batch) == family.sphereface(*batch, 3, None, "psi", None)
    explicit = family.cm_m_softmax(*batch, math.cos, 0.9, 1.0, None, None, "ideal", 3.0, None)
    assert family.cm_softmax(*batch) == explicit
    assert family.cm_m_softmax(*batch, math.cos) == explicit


def test_saturated_scale_is_finite() -> None:
    features, weight = [at(0), at(0)], [at(0), at(60)]
    assert family.normface(features, weight, [0, 1], 1000.0) == near([math.exp(-500), 500.0], absolute=0)


def test_contraction_ends_and_middle() -> None:
    assert family.f_contraction(0.0, 4.0, 12.0) == 4.0
    assert family.f_contraction(1e4, 4.0, 12.0) == 12.0
    assert family.f_contraction(math.log(3), 4.0, 12.0) == near(8.0)
    assert family.gamma_auto(20.0) * 20.0 == near(1.0986, rel=1e-4)
    assert family.f_contraction(20.0, 4.0, 12.0, family.gamma_auto(20.0)) == near(8.0)


def test_bounds_by_hand() -> None:
    assert family.lower_ideal(0.9, 10) == near(math.log(72))
    assert family.bounds(10) == near((math.log(72), 3 * math.log(72)))
    assert family.bounds(10, upper_factor=1 + math.sqrt(2)) == near((math.log(72), 10.3248), rel=1e-5)
    assert family.bounds(10, lower=2.0) == (2.0, 6.0)
    assert family.bounds(10, upper=20.0) == near((math.log(72), 20.0))
    assert family.bounds(2, lower=2.0, upper=3.0) == (2.0, 3.0)
    assert family.bounds(2, bound="exact") == near((math.log(9) / 2, 1.5 * math.log(9)))
    assert family.lower_exact(0.9, 2) == near(1.0986, rel=1e-4)


@pytest.mark.parametrize("classes", [2, 3, 10, 1000])
@pytest.mark.parametrize("p", [0.6, 0.9, 0.999])
def test_exact_bound_solves_its_quadratic(classes: int, p: float) -> None:
    others, rest = classes - 2, 1 / p - 1  # u = e^-s solves u^2 + (C - 2) u = 1/p - 1
    u = 2 * rest / (others + math.sqrt(others**2 + 4 * rest))
    assert family.lower_exact(p, classes) == near(-math.log(u))
    if 2 < classes < 1000:  # beyond, the two agree to all digits
        assert family.lower_exact(p, classes) > family.lower_ideal(p, classes)


@pytest.mark.parametrize(("p", "classes"), [(0.9, 2), (0.5, 3), (1 / 9, 10)])
def test_ideal_bound_that_does_not_exist(p: float, classes: int) -> None:
    with pytest.raises(ValueError, match="no positive lower bound"):
        family.lower_ideal(p, classes)


@pytest.mark.parametrize(("p", "classes"), [(0.5, 2), (0.1, 10), (1.0, 10), (0.9, 1)])
def test_exact_bound_that_does_not_exist(p: float, classes: int) -> None:
    with pytest.raises(ValueError, match="no positive lower bound"):
        family.lower_exact(p, classes)
    assert 0 < family.lower_exact(0.11, 10) < 0.1  # just above 1 / C


def test_decagon_misses_p_even_at_the_upper_bound() -> None:
    weight = [at(36 * j) for j in range(10)]
    upper = family.bounds(10)[1]
    assert math.exp(-family.normface([weight[0]], weight, [0], upper)[0]) == near(0.853, rel=1e-3)


def test_cm_softmax_by_hand() -> None:
    features, weight = [at(0, math.log(3))], [at(0), at(90)]
    loss = family.cm_softmax(features, weight, [0], lower=4.0, upper=12.0)
    assert loss == near([math.log1p(math.exp(-8))])
    loss = family.cm_m_softmax(features, weight, [0], lambda theta: math.cos(theta) - 0.5, lower=4.0, upper=12.0)
    assert loss == near([math.log1p(math.exp(-4))])
    loss = family.cm_softmax(features, weight, [0], lower=4.0, upper=12.0, norms=[0.0])
    assert loss == near([math.log1p(math.exp(-4))])


def test_mv_softmax_by_hand() -> None:
    features, weight = [[1.0, 0.0]], [[0.6, 0.8], [0.8, 0.6], [0.0, 1.0]]

    def margin(theta: float) -> float:
        return math.cos(theta) - 0.25  # 0.35: class 1 (0.8) beats it, class 2 (0) does not

    fixed = math.log(1 + math.exp(2 * (1.0 - 0.35)) + math.exp(2 * -0.35))
    assert family.mv_softmax(features, weight, [0], 2.0, margin, 0.2) == near([fixed])
    adaptive = math.log(1 + math.exp(2 * (1.2 * 0.8 + 0.2 - 0.35)) + math.exp(2 * -0.35))
    assert family.mv_softmax(features, weight, [0], 2.0, margin, 0.2, "adaptive") == near([adaptive])
    plain = math.log(1 + math.exp(2 * (0.8 - 0.35)) + math.exp(2 * -0.35))
    assert family.mv_softmax(features, weight, [0], 2.0, margin, 0.0) == near([plain])


def test_mv_tie_counts_as_well_classified() -> None:
    twins = [[0.3, 0.7], [0.3, 0.7]]
    for mode in ("fixed", "adaptive"):
        loss = family.mv_softmax([[1.3, -0.4], [0.0, 0.0]], twins, [0, 1], 10.0, math.cos, 0.3, mode)
        assert loss == near([math.log(2)] * 2)
