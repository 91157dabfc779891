"""Losses that the equations make equal, bounds that they attain, and margins that fall with the angle."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from angulus import class_loss, losses
from angulus.losses import Objective, margins, negatives, penalties, theory, weighting
from angulus.losses.classifiers import Sigmoid
from angulus.losses.margins import AdditiveAngle, AdditiveCosine, Annealing, Combined, Multiplicative
from angulus.losses.negatives import Negatives
from angulus.losses.radius import Contraction, Fixed, Identity, Learned
from losses.aliases import CASES
from losses.oracles import CLASSES, SIZE, Case, batch, point
from scalar import theory as scalar_theory

POINT = point()
L = losses
MARGINS = {
    "none": None,
    "additive_cosine": AdditiveCosine(0.35),
    "additive_angle": AdditiveAngle(0.5),
    "multiplicative": Multiplicative(3),
    "combined": Combined(multiplier=1.1, cosine=0.1, angle=0.2),
}


@dataclass(frozen=True)
class Squared(Negatives):
    """c² above the threshold: what CurricularFace's negatives are at t = 0."""

    kind: ClassVar[str] = "squared"
    coefficients: ClassVar[tuple[float, float, float]] = (1.0, 0.0, 0.0)


FIXED = Sigmoid(start=-3.0, learn=False)
SAME = {
    **{
        f"mv {mode}, t = 0, over {name}": (L.mv_softmax(16, margin, 0.0, mode), Objective(Fixed(16.0), margin))
        for mode in ("fixed", "adaptive")
        for name, margin in MARGINS.items()
    },
    "magface, l_m = u_m": (
        L.magface(16, 0.8, 2.5, 0.5, 0.5, lam=3.0),
        L.arcface(16, 0.5) + penalties.Magnitude(3.0, 0.8, 2.5),
    ),
    "adaface, h = 0": (L.adaface(16, 0.35, h=0.0), L.cosface(16, 0.35)),
    "adaface of the batch, h = 0": (L.adaface(16, 0.35, h=0.0, statistics="batch"), L.cosface(16, 0.35)),
    "curricularface, t fixed at 0": (
        L.curricularface(16, rate=0.0),
        L.arcface(16, 0.5).replace(negatives=Squared()),
    ),
    "elasticface, sigma = 0": (L.elasticface("arc", 16, sigma=0.0), L.arcface(16, 0.5)),
    "elasticface+, sigma = 0": (L.elasticface("arc", 16, sigma=0.0, plus=True), L.arcface(16, 0.5)),
    "elasticface-cos, sigma = 0": (L.elasticface("cos", 16, sigma=0.0), L.cosface(16, 0.35)),
    "adacos fixed": (L.adacos("fixed"), L.normface(math.sqrt(2) * math.log(3), learn=False)),
    "class weights of 1": (L.weighted_softmax(16, [1, 1, 1, 1]), L.normface(16, False)),
    "label smoothing of 0": (L.label_smoothing(16, 0.0, AdditiveAngle(0.5)), L.arcface(16, 0.5)),
    "a power of 1 without margin": (
        L.normface(16, False).replace(margin=margins.PowerCosine(0, 1), negatives=negatives.PowerCosine(0, 1)),
        L.normface(16, False),
    ),
    "mv, t = 0, of sigmoids": (
        L.cosface(16).replace(negatives=negatives.MVFixed(0), classifier=FIXED),
        L.cosface(16).replace(classifier=FIXED),
    ),
    "proxy_anchor, weight = 0": (L.arcface(16, 0.5) + 0 * L.proxy_anchor(), L.arcface(16, 0.5)),
    "iam, beta = 0": (L.arcface(16, 0.5) + L.iam(0.0), L.arcface(16, 0.5)),
    "incay, lam = 0": (L.softmax() + L.feature_incay(0.0), L.softmax()),
    "ring, lam = 0": (L.softmax() + L.ring_loss(0.0, 1.0), L.softmax()),
    "c_contrastive, weight = 0": (L.softmax() + 0 * L.c_contrastive(), L.softmax()),
    "focal, gamma = 0": (L.focal_softmax(16, 0.0, AdditiveAngle(0.5)), L.arcface(16, 0.5)),
    "hm, keep = 1": (L.hm_softmax(16, 1.0), L.normface(16, False)),
    "cosface, m = 0": (L.cosface(16, 0.0), L.normface(16, False)),
    "arcface, m = 0": (L.arcface(16, 0.0), L.normface(16, False)),
    "arcface easy, m = 0": (L.arcface(16, 0.0, "easy"), L.normface(16, False)),
    "sphereface, m = 1": (L.sphereface(1, 16), L.normface(16, False)),
    "sphereface on the norm, m = 1": (L.sphereface(1), L.weight_normalized()),
    "l_softmax, m = 1": (L.l_softmax(1), L.softmax()),
    "combined of nothing": (L.combined_margin(16), L.normface(16, False)),
    "combined is cosface": (L.combined_margin(16, cosine=0.35), L.cosface(16, 0.35)),
    "combined is arcface": (L.combined_margin(16, angle=0.5), L.arcface(16, 0.5, beyond_pi="plain")),
    "combined is raw sphereface": (L.combined_margin(16, multiplier=2.5), L.sphereface(2.5, 16, "raw")),
    "combined psi is sphereface": (L.combined_margin(16, multiplier=3, form="psi"), L.sphereface(3, 16)),
    "a huge annealing is no margin": (L.sphereface(4, 16, annealing=1e14), L.normface(16, False)),
    "annealing by 0 is all of it": (L.sphereface(4, 16, annealing=0), L.sphereface(4, 16)),
    **{
        f"a constant contraction under {name}": (
            Objective(Contraction(lower=7, upper=7), margin),
            Objective(Fixed(7.0), margin),
        )
        for name, margin in MARGINS.items()
    },
    "l2_softmax is feature_normalized": (L.l2_softmax(9), L.feature_normalized(9, learn=False)),
    "coco is normface": (L.coco(), L.normface(0.5 * math.log(3) + 3, learn=False)),
    "c_triplet additive": (
        L.c_triplet(0.8, "sum", "additive"),
        # at m → 0 the hinges of C-contrastive rest on ‖x̂ − ŵ_j‖² < m: none here
        L.c_triplet(0.8) + L.c_contrastive(1e-9),
    ),
}


@pytest.mark.parametrize(("left", "right"), SAME.values(), ids=SAME.keys())
def test_equal_losses_and_gradients(left: Objective, right: Objective) -> None:
    results = []
    for objective in (left, right):
        data = batch(POINT, Case("", objective))
        values = data.loss(
            objective.bind(SIZE, CLASSES).double()
        )  # in training mode, where figures move and draws are made
        gradients = torch.autograd.grad(values.sum(), (data.features, data.weight))
        results.append((values.detach(), *gradients))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-12)


def test_unequal_parameters_are_seen() -> None:
    """What the test above compares does depend on the parameters."""
    data = batch(POINT, CASES["arcface"])
    for one, other in (
        (L.mv_softmax(16, None, 0.1, "fixed"), L.normface(16, False)),
        (L.arcface(16, 0.5) + L.iam(0.1), L.arcface(16, 0.5)),
        (L.cm_softmax(lower=7, upper=7.1), L.normface(7, False)),
        (L.arcface(16, 0.5), L.arcface(16, 0.5, "plain")),
    ):
        assert not torch.allclose(data.loss(one), data.loss(other), rtol=1e-4)


@pytest.mark.parametrize("n", [2, 3, 5, 10])
@pytest.mark.parametrize("s", [0.5, 4.0, 20.0])
def test_the_simplex_attains_the_floor_and_others_stay_above(n: int, s: float) -> None:
    objective, labels = L.normface(s, learn=False), torch.arange(n)
    floor = float(theory.loss_floor(s, n))
    simplex = torch.tensor(scalar_theory.simplex(n), dtype=torch.float64)
    assert class_loss(simplex, simplex, labels, objective).item() == pytest.approx(floor, rel=1e-9)
    generator = torch.Generator().manual_seed(n)
    for _ in range(20):
        points = simplex + 0.3 * torch.randn(simplex.shape, generator=generator, dtype=torch.float64)
        weight = simplex + 0.3 * torch.randn(simplex.shape, generator=generator, dtype=torch.float64)
        assert class_loss(points, weight, labels, objective).item() > floor


@pytest.mark.parametrize(("classes", "s"), [(2, 3.0), (5, 0.5), (5, 30.0)])
def test_iam_attains_its_lower_bound_and_stays_above(classes: int, s: float) -> None:
    bound = -(2 * s + math.log(1 + (classes - 1) * math.exp(-2 * s)))
    objective = 0 * L.normface(1.0, learn=False) + L.iam(1 - 1e-15, s)
    axis = torch.tensor([[0.0, 1.0, 0.0]], dtype=torch.float64)
    weight = torch.cat([axis, -axis.expand(classes - 1, 3)])
    assert class_loss(axis, weight, torch.tensor([0]), objective).item() == pytest.approx(bound, rel=1e-12)
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(50, 3, generator=generator, dtype=torch.float64)
    others = torch.randn(classes, 3, generator=generator, dtype=torch.float64)
    values = class_loss(features, others, torch.arange(50) % classes, objective, reduction="none")
    assert float(values.min()) > bound
    assert float(values.max()) < -math.log(classes - 1) + 1e-12  # the share of the others is below 1


THETA = torch.linspace(0, math.pi, 2001)
FALLING = {
    **{f"psi, m = {m}": Multiplicative(m) for m in (1, 2, 3, 4, 7)},
    "psi, annealed": Multiplicative(4, annealing=2.0),
    "combined psi": Combined(multiplier=2.5, cosine=0.1, angle=0.7, form="psi"),
    "combined psi, angle only": Combined(angle=2.0, form="psi"),
    "additive cosine": AdditiveCosine(0.35),
    **{f"linear, m = {m}": AdditiveAngle(m) for m in (0.0, 0.2, 0.5, 1.0, 2.0)},
}
TURNING = {
    "raw": Multiplicative(2.0, "raw"),
    "combined raw": Combined(angle=0.5),
    "plain": AdditiveAngle(0.5, "plain"),
    "easy": AdditiveAngle(0.5, "easy"),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("margin", FALLING.values(), ids=FALLING.keys())
def test_margins_that_fall_all_the_way(margin: margins.Margin, dtype: torch.dtype) -> None:
    theta = THETA.to(dtype)
    assert float(margin(theta, theta).diff().max()) <= 4 * torch.finfo(dtype).eps
    assert bool((margin(theta, theta) <= torch.cos(theta) + 4 * torch.finfo(dtype).eps).all())


@pytest.mark.parametrize("margin", TURNING.values(), ids=TURNING.keys())
def test_margins_that_turn_back(margin: margins.Margin) -> None:
    assert float(margin(THETA, THETA).diff().max()) > 1e-4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("m", [1, 2, 3, 4, 5])
def test_psi_at_pi_opens_no_further_period(m: int, dtype: torch.dtype) -> None:
    theta = 2 * torch.atan2(torch.tensor(1.0, dtype=dtype), torch.tensor(0.0, dtype=dtype))
    assert Multiplicative(m)(theta, theta).item() == pytest.approx(1 - 2 * m, abs=1e-5)
    assert Combined(multiplier=m, form="psi")(theta, theta).item() == pytest.approx(1 - 2 * m, abs=1e-5)


def test_the_steps_that_are_documented() -> None:
    m, eps = 0.5, 1e-9

    def step(margin: AdditiveAngle, at: float) -> float:
        theta = torch.tensor([at - eps, at + eps], dtype=torch.float64)
        return float(margin(theta, theta).diff())

    down = step(AdditiveAngle(m), math.pi - m)
    assert down == pytest.approx(1 - math.cos(m) - m * math.sin(m), abs=1e-7)
    assert -0.12 < down < -0.11
    assert step(AdditiveAngle(2.33), math.pi - 2.33) < 0 < step(AdditiveAngle(2.34), math.pi - 2.34)
    assert step(AdditiveAngle(m, "easy"), math.pi / 2) == pytest.approx(math.sin(m), abs=1e-7)
    assert step(AdditiveAngle(m, "plain"), math.pi - m) == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize(
    "margin",
    [
        AdditiveAngle(0.5),
        AdditiveAngle(0.5, "easy"),
        Multiplicative(3),
        Multiplicative(2.5, "raw"),
        Combined(multiplier=2, cosine=0.1, angle=0.3),
    ],
    ids=str,
)
def test_straight_through_has_the_value_of_the_margin_and_the_gradient_of_cos(margin: margins.Margin) -> None:
    passed = type(margin)(**{**vars(margin), "gradient": "straight_through"})
    theta = torch.tensor([0.25, 0.85, 1.3, 1.85, 2.85], dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(passed(theta, theta), margin(theta, theta), rtol=1e-14, atol=1e-15)
    gradient = torch.autograd.grad(passed(theta, theta).sum(), theta)[0]
    torch.testing.assert_close(gradient, -torch.sin(theta.detach()), rtol=1e-14, atol=0)
    exact = torch.autograd.grad(margin(theta, theta).sum(), theta)[0]
    assert not torch.allclose(exact, gradient, rtol=0.05)


def test_annealing_falls_to_its_least() -> None:
    lam = Annealing(1000.0, 5.0, 0.1).at(torch.tensor([0, 10, 1990, 10**6], dtype=torch.float64))
    assert lam.tolist() == pytest.approx([1000.0, 500.0, 5.0, 5.0])
    liu = Annealing(1000.0, 0.0, 2.5e-5, power=35).at(torch.tensor([0, 40_000], dtype=torch.float64))
    assert liu.tolist() == pytest.approx([1000.0, 1000.0 / 2**35])


def test_hard_mining_breaks_ties_by_row() -> None:
    loss = torch.tensor([1.0, 2.0, 1.0, 2.0, 1.0])
    weight, divisor = weighting.HardMining(0.6)(loss, loss, loss)
    assert (weight.tolist(), divisor) == ([1.0, 1.0, 0.0, 1.0, 0.0], 3)
    weight, divisor = weighting.HardMining(0.01, "all")(loss, loss, loss)
    assert (weight.tolist(), divisor) == ([0.0, 1.0, 0.0, 0.0, 0.0], 5)


@pytest.mark.parametrize(
    ("keep", "rows", "count"), [(0.29, 100, 29), (0.9, 10, 9), (0.9, 9, 8), (0.9, 1, 1), (1.0, 7, 7)]
)
def test_hard_mining_keeps_the_floor(keep: float, rows: int, count: int) -> None:
    loss = torch.arange(float(rows))
    weight, divisor = weighting.HardMining(keep)(loss, loss, loss)
    assert (weight.sum().item(), divisor) == (count, count)


def contraction_of(norms: Tensor, spec: Contraction) -> Tensor:
    return spec.bind(64, 10)(norms)


def test_contraction_starts_at_lower_stays_below_upper_and_keeps_the_order() -> None:
    norms = torch.linspace(0, 30, 301, dtype=torch.float64)
    lower = math.log(0.9 * 8 / 0.1)
    values = contraction_of(norms, Contraction())
    assert values[0].item() == pytest.approx(lower, rel=1e-14)
    assert bool((values.diff() > 0).all()) and float(values.max()) < 3 * lower
    assert float((contraction_of(norms.float(), Contraction())[-50:].diff() == 0).sum()) > 0  # float32 loses the order
    expected = theory.contraction(norms.numpy(), lower, 3 * lower)
    torch.testing.assert_close(values, torch.from_numpy(expected), rtol=1e-14, atol=0)


@pytest.mark.parametrize("detach", [False, True])
def test_the_gradient_flows_through_the_contraction_unless_detached(detach: bool) -> None:
    norms = torch.tensor([0.5, 2.0], dtype=torch.float64, requires_grad=True)
    spec = Contraction(lower=2, upper=6, detach_norm=detach)
    value = spec.bind(64, 10)(norms)
    assert value.requires_grad != detach
    if not detach:
        gradient = torch.autograd.grad(value.sum(), norms)[0]
        torch.testing.assert_close(gradient, 4 * 0.5 / torch.cosh(norms.detach() / 2) ** 2)


def test_spec_scales() -> None:
    assert Fixed(3.0).scale == 3.0 and Identity().scale is None
    assert Learned(3).bind(2, 4).scale.item() == 3.0
    assert penalties.IAM(0.1).needs_scale and not penalties.IAM(0.1, 5).needs_scale


def test_a_larger_norm_lowers_the_loss_of_a_right_sample_and_raises_that_of_a_wrong_one() -> None:
    """NF Proposition 1, FI Properties 1 and 2."""
    weight = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]], dtype=torch.float64)
    features = torch.tensor([[2.0, 1.0], [1.0, 2.0]], dtype=torch.float64)
    log_scale = torch.zeros(2, 1, dtype=torch.float64, requires_grad=True)
    losses_ = class_loss(log_scale.exp() * features, weight, torch.tensor([0, 0]), L.softmax(), reduction="none")
    right, wrong = torch.autograd.grad(losses_.sum(), log_scale)[0].flatten().tolist()
    assert right < 0 < wrong


@pytest.mark.parametrize(("eps", "orthogonal"), [(0.0, True), (0.3, False)])
def test_the_gradient_of_normalised_features_is_orthogonal_only_without_eps(eps: float, orthogonal: bool) -> None:
    """NF Sec. 3.2."""
    objective = L.normface(8.0, learn=False, eps=eps)
    data = batch(POINT, Case("", objective))
    for values, gradient in zip(
        (data.features, data.weight),
        torch.autograd.grad(data.loss(objective, "sum"), (data.features, data.weight)),
        strict=True,
    ):
        along = (values.detach() * gradient).sum(dim=1).abs()
        assert (float(along.max()) < 1e-12) == orthogonal


def test_the_gradient_of_incay_is_the_one_that_the_docstring_states() -> None:
    """−2x / (‖x‖² + ε)², not FI's 2f / ‖f‖⁴."""
    x = torch.tensor([[3.0, 4.0]], dtype=torch.float64, requires_grad=True)
    objective = 0 * L.softmax() + L.feature_incay(0.1, eps=1.0)
    value = class_loss(x, torch.eye(2, dtype=torch.float64), torch.tensor([0]), objective)
    gradient = torch.autograd.grad(value, x)[0]
    torch.testing.assert_close(gradient, -0.1 * 2 * x.detach() / 26**2, rtol=1e-12, atol=0)


@pytest.mark.parametrize("classes", [2, 4])
def test_sphereface2_without_margin_is_a_weighted_one_vs_all_regression(classes: int) -> None:
    """With two classes: two logistic regressions that share b."""
    generator = torch.Generator().manual_seed(classes)
    features = torch.randn(6, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(classes, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    labels = torch.arange(6) % classes
    r, lam = 8.0, 0.7
    bound = L.sphereface2("C", r, m=0.0, t=1.0, lam=lam).bind(3, classes).double()
    b = bound.classifier.b
    cosines = torch.nn.functional.normalize(features) @ torch.nn.functional.normalize(weight).T
    truth = torch.nn.functional.one_hot(labels, classes).double()
    plain = torch.nn.functional.binary_cross_entropy_with_logits(r * cosines + b, truth, reduction="none")
    expected = ((lam * truth + (1 - lam) * (1 - truth)) * plain).sum(dim=1) / r
    found = class_loss(features, weight, labels, bound, reduction="none")
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    leaves = (features, weight, b)
    pairs = zip(torch.autograd.grad(found.sum(), leaves), torch.autograd.grad(expected.sum(), leaves), strict=True)
    for one, other in pairs:
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("form", ["C", "A", "M"])
@pytest.mark.parametrize("classes", [2, 3, 1000])
def test_a_balanced_b_minimises_the_loss_at_right_angles(classes: int, form: Any) -> None:
    features, weight = torch.eye(2, dtype=torch.float64)[:1], torch.zeros(classes, 2, dtype=torch.float64)
    weight[:, 1] = 1
    bound = L.sphereface2(form).bind(2, classes).double()
    start, values = float(bound.classifier.b.detach()), []
    for away in (-0.05, 0.0, 0.05):
        bound.classifier.b.data.fill_(start + away)
        values.append(float(class_loss(features, weight, torch.tensor([0]), bound).detach()))
    assert values[1] < min(values[0], values[2])
    assert L.uniface().bind(2, classes).classifier.b.item() == pytest.approx(-math.log(10 * classes))


def test_proxy_anchor_repeats_the_loss_of_the_batch() -> None:
    data = batch(POINT, CASES["proxy_anchor"])
    rows = data.loss(L.proxy_anchor())
    assert bool((rows == rows[0]).all())
    torch.testing.assert_close(data.loss(L.proxy_anchor(), "mean"), rows[0])


@pytest.mark.parametrize("impl", ["reference", "chunked"])
@pytest.mark.parametrize("center", [None, "additive", "gated"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_with_two_classes_the_hardest_wrong_class_is_their_sum(
    dtype: torch.dtype, center: str | None, impl: str
) -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(9, 3, generator=generator, dtype=dtype, requires_grad=True)
    weight = torch.randn(2, 3, generator=generator, dtype=dtype, requires_grad=True)
    found, expected = (
        class_loss(features, weight, torch.arange(9) % 2, L.c_triplet(0.8, classes, center), impl=impl)
        for classes in ("hardest", "sum")
    )
    pairs = [(found, expected)]
    pairs += zip(*(torch.autograd.grad(each, (features, weight)) for each in (found, expected)), strict=True)
    tolerance = 64 * torch.finfo(dtype).eps
    for one, other in pairs:
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("impl", ["reference", "chunked"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_hardest_wrong_classes_that_tie_share_the_gradient(dtype: torch.dtype, impl: str) -> None:
    """m + 2 − 2·0.6 − (2 − 2·0.8) in the plane, where two classes are at a cosine of 0.8 and one is farther."""
    features = torch.tensor([[2.0, 0.0, 0.0]], dtype=dtype, requires_grad=True)
    rows = [[0.6, 0.8, 0.0], [0.8, 0.6, 0.0], [0.8, -0.6, 0.0], [0.0, 0.0, 1.0]]
    weight = torch.tensor(rows, dtype=dtype, requires_grad=True)
    loss = class_loss(features, weight, torch.tensor([0]), L.c_triplet(0.8, "hardest"), impl=impl)
    assert loss.item() == pytest.approx(0.8 + 2 * 0.8 - 2 * 0.6, abs=5e-5)
    on_features, on_weight = torch.autograd.grad(loss, (features, weight))
    tolerance = 1e-3 if dtype == torch.float32 else 1e-5  # of the shares, as the logits of 2^15 or 2^34 are rounded
    # of one class: ∂(2 cos_j)/∂w_j = 2 (x̂ − cos_j ŵ_j) = (0.72, ∓0.96); each of the two has half of it
    expected = [[-1.28, 0.96, 0.0], [0.36, -0.48, 0.0], [0.36, 0.48, 0.0], [0.0, 0.0, 0.0]]
    torch.testing.assert_close(on_weight, torch.tensor(expected, dtype=dtype), rtol=0, atol=tolerance)
    # (2·mean(ŵ_1, ŵ_2) − 2 ŵ_0) across x̂, divided by ‖x‖ = 2
    torch.testing.assert_close(on_features, torch.tensor([[0.0, -0.8, 0.0]], dtype=dtype), rtol=0, atol=tolerance)
